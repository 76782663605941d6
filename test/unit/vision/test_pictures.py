"""Pictures of every kind that a folder may hold: read rightly, or named."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from battery_sorting.core.errors import FrameError
from battery_sorting.vision import pictures
from battery_sorting.vision.pictures import (
    decode_picture,
    label_of_folder,
    picture_files,
    picture_format,
    read_picture,
)

RED, GREEN, BLUE, WHITE = (220, 30, 20), (20, 180, 40), (30, 40, 200), (255, 255, 255)


def quarters(size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Red, green / blue, white: no turn or mirror image of it looks like another."""
    small = Image.new("RGB", (2, 2))
    small.putdata([RED, GREEN, BLUE, WHITE])
    return small.resize(size, Image.Resampling.NEAREST)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def corners(rgb: np.ndarray) -> list[tuple[int, ...]]:
    height, width = rgb.shape[:2]
    places = [(height // 4, width // 4), (height // 4, 3 * width // 4)]
    places += [(3 * height // 4, width // 4), (3 * height // 4, 3 * width // 4)]
    return [tuple(int(value) for value in rgb[place]) for place in places]


def alike(found: list[tuple[int, ...]], wanted: list[tuple[int, ...]], tolerance: int = 12) -> bool:
    return bool(np.abs(np.array(found) - np.array(wanted)).max() <= tolerance)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_content_counts_and_not_the_ending(tmp_path, kind):
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(quarters(), kind))
    rgb = read_picture(path)
    assert rgb.shape == (64, 96, 3)
    assert rgb.dtype == np.uint8
    assert rgb.flags.writeable
    assert alike(corners(rgb), [RED, GREEN, BLUE, WHITE])
    assert picture_format(path) == kind


def test_cmyk_is_not_inverted():
    rgb = decode_picture(encoded(quarters().convert("CMYK"), "JPEG", quality=95))
    assert alike(corners(rgb), [RED, GREEN, BLUE, WHITE])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_ends_upright(orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = quarters().transpose(undo[orientation]) if orientation in undo else quarters()
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        rgb = decode_picture(encoded(stored, kind, exif=exif))
        assert rgb.shape == (64, 96, 3), kind
        assert alike(corners(rgb), [RED, GREEN, BLUE, WHITE]), kind


def test_broken_exif_does_not_cost_the_picture():
    whole = encoded(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert alike(corners(decode_picture(whole)), [RED, GREEN, BLUE, WHITE])


def palette_with_transparency() -> bytes:
    picture = quarters().quantize(8)
    white = picture.getpixel((90, 60))
    return encoded(picture, "PNG", transparency=white)


def palette_with_degrees_of_transparency() -> bytes:
    picture = Image.new("P", (96, 64), 0)
    picture.putpalette([*RED, *BLUE])
    picture.paste(1, (48, 0, 96, 64))
    return encoded(picture, "PNG", transparency=bytes([255, 0]))


def test_transparent_parts_are_white_in_every_kind_of_png():
    assert alike(corners(decode_picture(palette_with_transparency())), [RED, GREEN, BLUE, WHITE])
    assert alike(corners(decode_picture(palette_with_degrees_of_transparency())), [RED, WHITE, RED, WHITE])
    grey = Image.new("LA", (96, 64), (0, 255))
    grey.paste((0, 0), (0, 0, 48, 64))
    assert alike(corners(decode_picture(encoded(grey, "PNG"))), [WHITE, (0, 0, 0), WHITE, (0, 0, 0)])
    colour = quarters().convert("RGBA")
    colour.putalpha(Image.new("L", (96, 64), 128))
    half = decode_picture(encoded(colour, "WEBP", lossless=True))
    assert alike(corners(half)[:1], [tuple((c + 255) // 2 for c in RED)])


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_become_eight(colour, channels):
    ramp = np.linspace(0, 65535, 64).astype(">u2")
    pixels = np.repeat(np.tile(ramp, (16, 1))[..., None], channels, axis=2)
    if channels in (2, 4):
        pixels[..., -1] = 65535
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    rgb = decode_picture(png(64, 16, 16, colour, rows))
    assert rgb.shape == (16, 64, 3)
    assert np.abs(rgb.astype(int) - (ramp.astype(int) >> 8)[None, :, None]).max() <= 1


def test_tiff_of_16_bits_is_read_and_of_floats_is_named():
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (16, 1))
    rgb = decode_picture(encoded(Image.fromarray(ramp), "TIFF"))
    assert np.abs(rgb[..., 0].astype(int) - (ramp >> 8)).max() <= 1
    with pytest.raises(FrameError, match=r"32 bits per pixel.*convert"):
        decode_picture(encoded(Image.fromarray(np.zeros((16, 16), np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_read(kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert alike(corners(decode_picture(data)), [RED] * 4)


def test_twenty_pixels_are_enough_and_seven_are_named(tmp_path):
    assert decode_picture(encoded(quarters((20, 20)), "PNG")).shape == (20, 20, 3)
    path = tmp_path / "dot.png"
    path.write_bytes(encoded(quarters((7, 900)), "PNG"))
    with pytest.raises(FrameError, match=r"dot\.png: has 7×900 pixels; 8×8 is the least"):
        read_picture(path)


def test_a_jpeg_of_100_megapixels_is_decoded_at_a_fraction_of_its_size():
    data = encoded(quarters((12_000, 8_400)), "JPEG", quality=50)
    rgb = decode_picture(data)
    assert rgb.shape[0] * rgb.shape[1] <= 1.05 * pictures.KEPT_PIXELS
    assert abs(rgb.shape[1] / rgb.shape[0] - 12_000 / 8_400) < 0.01
    assert alike(corners(rgb), [RED, GREEN, BLUE, WHITE])


def test_a_png_of_100_megapixels_is_scaled_down_strip_by_strip():
    row = b"\0" + bytes(1500) + b"\xff" * 1000  # 20,000 pixels of one bit, 12,000 of them black
    rgb = decode_picture(png(20_000, 5_000, 1, 0, row * 5_000))
    assert rgb.shape == (1_667, 6_667, 3)
    assert rgb[800, 100].tolist() == [0, 0, 0]
    assert rgb[-1, -100].tolist() == [255, 255, 255]


def test_strips_join_without_seams_and_keep_transparency(monkeypatch):
    monkeypatch.setattr(pictures, "KEPT_PIXELS", 3_000)
    monkeypatch.setattr(pictures, "_STRIP_PIXELS", 1_000)
    colour = quarters((300, 200)).convert("RGBA")
    colour.paste((0, 0, 0, 0), (150, 100, 300, 200))
    rgb = decode_picture(encoded(colour, "PNG"))
    assert rgb.shape == (40, 60, 3)
    assert np.array_equal(rgb, np.asarray(quarters((60, 40))))


def test_a_decompression_bomb_is_named_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.png"
    for width, height in ((12_000, 14_000), (60_000, 60_000)):
        path.write_bytes(png(width, height, 1, 0, b"\0"))
        with pytest.raises(FrameError, match=r"bomb\.png: claims more than 150 million pixels"):
            read_picture(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_files_cut_short_are_named(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    path = tmp_path / f"cut.{kind.lower()}"
    for part in (0.02, 0.5, 0.8):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(FrameError, match=rf"cut\.{kind.lower()}: .*(take it out of the folder|convert it)"):
            read_picture(path)


def test_any_garbage_raises_nothing_but_a_frame_error():
    rng = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = bytearray(encoded(quarters(), kind))
        for _ in range(40):
            broken = bytearray(whole)
            for place in rng.integers(0, len(broken), 6):
                broken[place] = rng.integers(256)
            try:
                decode_picture(bytes(broken))
            except FrameError as error:
                assert str(error)


# issue 15, B9
def test_what_is_no_plain_file_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path):
        with pytest.raises(FrameError, match="is no plain file"):
            read_picture(path)
    (tmp_path / "large.png").write_bytes(encoded(quarters(), "PNG"))
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    with pytest.raises(FrameError, match=r"large\.png: has more than"):
        read_picture(tmp_path / "large.png")


# issue 15, B9
@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC picture: pip install pillow-heif, or convert it to JPEG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "but a film; convert"),
        (b"%PDF-1.7", "but a PDF document; convert"),
        (b"\0\x05\x16\x07\0\x02", "AppleDouble"),
        (b"<!DOCTYPE html><html>404", "fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\xff\x0a\0\0", "JPEG XL"),
    ],
)
def test_files_that_are_no_pictures_are_called_what_they_are(tmp_path, monkeypatch, start, said):
    monkeypatch.setattr(pictures, "HEIC_READERS", ())
    pictures.readable_formats.cache_clear()
    path = tmp_path / "1.jpg"
    path.write_bytes(start + bytes(64))
    with pytest.raises(FrameError, match=said):
        read_picture(path)
    pictures.readable_formats.cache_clear()


@pytest.mark.parametrize("name", ["pillow_heif", "pi_heif"])
def test_heic_is_read_where_a_reader_of_it_is_installed(tmp_path, name):
    pytest.importorskip(name).register_heif_opener()
    quarters().save(tmp_path / "1.HEIC", "HEIF", quality=95)
    assert [file.name for file in picture_files(tmp_path)] == ["1.HEIC"]
    assert alike(corners(read_picture(tmp_path / "1.HEIC")), [RED, GREEN, BLUE, WHITE], 30)


def test_no_other_program_is_asked_to_draw_a_picture():
    with pytest.raises(FrameError, match="is no picture that can be decoded"):
        decode_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")


def test_only_files_that_may_be_pictures_are_listed(tmp_path):
    for name in ("b.JPG", "a.webp", "notes.txt", "c.gif"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    assert [file.name for file in picture_files(tmp_path)] == ["a.webp", "b.JPG", "c.gif"]


def test_what_is_no_file_has_no_format(tmp_path):
    assert picture_format(tmp_path / "gone.jpg") == ""
    assert picture_format(Path(__file__)) == ""


def test_folders_of_no_type_are_others():
    assert [label_of_folder(name) for name in ("Other", "unknown", "Klarus")] == ["others", "others", "Klarus"]

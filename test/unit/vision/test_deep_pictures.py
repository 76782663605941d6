"""Pictures of 10, 12 and 14 bits, as industrial cameras write them: none is black, none is stretched by itself."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from battery_sorting.core.errors import FrameError
from battery_sorting.vision.deep_pictures import camera_bits
from battery_sorting.vision.pictures import decode_picture, read_picture

CAMERA_BITS = (10, 12, 14)


def ramp(bits: int) -> np.ndarray:
    """Grey wedge over everything that a camera of so many bits has, (32, 64)."""
    return np.tile(np.linspace(0, (1 << bits) - 1, 64).astype(np.uint16), (32, 1))


WEDGE = ramp(16) >> 8


def is_the_wedge(rgb: np.ndarray) -> bool:
    return rgb.shape == (32, 64, 3) and int(np.abs(rgb.astype(int) - WEDGE[..., None]).max()) <= 1


def colour(samples: np.ndarray) -> np.ndarray:
    return np.repeat(samples[..., None], 3, axis=2)


def png(samples: np.ndarray, significant: int | None = None) -> bytes:
    data = bytes(cv2.imencode(".png", samples)[1])
    if significant is None:
        return data
    content = bytes([significant] * (1 if samples.ndim == 2 else samples.shape[2]))
    chunk = struct.pack(">I", len(content)) + b"sBIT" + content + struct.pack(">I", zlib.crc32(b"sBIT" + content))
    return data[:33] + chunk + data[33:]


def packed(samples: np.ndarray, bits: int) -> bytes:
    """Rows without gaps between the samples, as TIFF has them."""
    rows = ["".join(format(int(value), f"0{bits}b") for value in row) for row in samples.reshape(len(samples), -1)]
    return b"".join(int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)


def tiff(samples: np.ndarray, bits: int = 16, photometric: int | None = None, **tags: int) -> bytes:
    """A TIFF of one strip; ``tags`` are t281=4095 and the like."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    strip = samples.astype("<u2").tobytes() if bits == 16 else packed(samples, bits)
    kind = photometric if photometric is not None else 1 if channels == 1 else 2
    entries = {256: [64], 257: [32], 258: [bits] * channels, 259: [1], 262: [kind], 273: [0], 277: [channels]}
    entries |= {278: [32], 279: [len(strip)]} | {int(name[1:]): [value] for name, value in tags.items()}
    far = b""
    begin = 8 + 2 + 12 * len(entries) + 4
    end = begin + (6 if channels == 3 else 0)
    directory = struct.pack("<H", len(entries))
    for tag, values in sorted(entries.items()):
        values = [end] if tag == 273 else values
        if len(values) == 1:
            directory += struct.pack("<HHII", tag, 4, 1, values[0])
        else:
            directory += struct.pack("<HHII", tag, 3, len(values), begin + len(far))
            far += struct.pack(f"<{len(values)}H", *values)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + far + strip


# issue 15, B9
@pytest.mark.parametrize("bits", CAMERA_BITS)
def test_pictures_of_a_cameras_bits_in_16_are_not_black(bits):
    for samples in (ramp(bits), colour(ramp(bits))):
        assert is_the_wedge(decode_picture(png(samples)))
        assert is_the_wedge(decode_picture(tiff(samples)))
    opaque = np.dstack([colour(ramp(bits)), np.full((32, 64), 65535, np.uint16)])
    assert is_the_wedge(decode_picture(png(opaque)))
    opaque[..., 3] = (1 << bits) - 1
    assert is_the_wedge(decode_picture(png(opaque)))


@pytest.mark.parametrize("bits", CAMERA_BITS)
def test_bits_that_lie_without_gaps_are_unpacked(bits):
    for samples in (ramp(bits), colour(ramp(bits))):
        whole = tiff(samples, bits)
        assert is_the_wedge(decode_picture(whole))
        with pytest.raises(FrameError, match="cut short"):
            decode_picture(whole[:-200])


@pytest.mark.parametrize("bits", CAMERA_BITS)
def test_what_a_file_declares_counts_for_a_dark_picture_too(bits):
    dark = ramp(bits) // 8
    wanted = (ramp(16) // 8) >> 8
    declared = [png(dark, bits), png(colour(dark), bits), tiff(dark, t281=(1 << bits) - 1)]
    declared += [tiff(colour(dark), t281=(1 << bits) - 1), pgm(dark, (1 << bits) - 1)]
    for data in declared:
        assert np.abs(decode_picture(data).astype(int) - wanted[..., None]).max() <= 1


def pgm(samples: np.ndarray, largest: int) -> bytes:
    return f"P5 64 32 {largest}\n".encode() + samples.astype(">u2").tobytes()


def test_significant_bits_as_the_png_standard_means_them_are_not_shifted_twice():
    scaled_up = ramp(12) << 4
    assert is_the_wedge(decode_picture(png(scaled_up, 12)))
    replicated = (ramp(12) << 4) | (ramp(12) >> 8)
    assert is_the_wedge(decode_picture(png(replicated, 12)))
    dark = decode_picture(png((ramp(12) // 20) << 4, 12))
    assert dark.max() == 12


def test_full_16_bits_stay_as_they_are():
    for samples in (ramp(16), colour(ramp(16))):
        assert is_the_wedge(decode_picture(png(samples)))
        assert is_the_wedge(decode_picture(tiff(samples)))


def test_white_may_be_nought_in_16_bits():
    assert is_the_wedge(decode_picture(tiff(ramp(12)[:, ::-1], photometric=0, t281=4095)))


def test_ome_tiff_says_its_significant_bits():
    buffer = io.BytesIO()
    text = '<OME><Image><Pixels SignificantBits="12" Type="uint16"/></Image></OME>'
    Image.fromarray(ramp(12) // 16).save(buffer, "TIFF", description=text)
    assert decode_picture(buffer.getvalue()).max() == 15


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# issue 15, B9
def test_a_dark_picture_of_a_camera_stays_dark_beside_its_others(tmp_path, caplog):
    dark = write(tmp_path / "frames" / "dark.png", png(ramp(12) // 8))  # would do with 10 bits
    write(tmp_path / "frames" / "light.tif", tiff(ramp(12)))
    with caplog.at_level(logging.WARNING):
        assert read_picture(dark).max() == 31
    assert "2 pictures have 16 bits a sample" in caplog.text
    assert "4095, they are read as 12 bits" in caplog.text


def test_pictures_that_are_read_together_are_of_one_camera(tmp_path):
    dark = write(tmp_path / "A" / "1.png", png(ramp(12) // 8))
    light = write(tmp_path / "B" / "1.png", png(ramp(12)))
    assert camera_bits([dark]) == 10
    assert camera_bits([dark, light]) == 12
    assert read_picture(dark, camera_bits([dark, light])).max() == 31


def test_pictures_that_say_it_themselves_or_have_8_bits_ask_nobody(tmp_path):
    said = write(tmp_path / "1.png", png(ramp(12), 12))
    shallow = write(tmp_path / "2.png", png(WEDGE.astype(np.uint8)))
    assert camera_bits([said, shallow]) is None
    assert is_the_wedge(read_picture(said))


def test_a_brighter_picture_than_those_looked_at_is_not_clipped(tmp_path, caplog):
    path = write(tmp_path / "1.png", png(ramp(14)))
    with caplog.at_level(logging.WARNING):
        assert is_the_wedge(read_picture(path, 10))
    assert "16383, more than the 10 bits" in caplog.text


def test_pictures_that_are_black_beside_the_others_are_told(tmp_path, caplog):
    full = write(tmp_path / "full.png", png(ramp(16)))
    write(tmp_path / "ten.png", png(ramp(10)))
    with caplog.at_level(logging.WARNING):
        assert camera_bits([full]) == 16
    assert "1 of the pictures of 16 bits use no more than 12 (ten.png)" in caplog.text
    assert "save them with 8 bits" in caplog.text


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_deep_colour_pictures_end_upright(orientation):
    samples = colour(ramp(12))
    samples[:8, :16] = (0, 0, 4095)  # blue, as OpenCV would have red
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    stored = np.ascontiguousarray(np.rot90(samples, undo))
    data = bytes(cv2.imencode(".png", np.ascontiguousarray(stored[..., ::-1]))[1])
    content = exif.tobytes()[6:]
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content + struct.pack(">I", zlib.crc32(b"eXIf" + content))
    upright = decode_picture(data[:33] + chunk + data[33:])
    assert upright.shape == (32, 64, 3)
    assert upright[2, 2].tolist() == [0, 0, 255]
    assert upright[20, 63].tolist() == [255, 255, 255]


def test_raw_files_of_cameras_are_no_thumbnails(tmp_path):
    thumbnail = tiff(ramp(16))
    with pytest.raises(FrameError, match=r"1\.NEF: is a camera's raw file.*convert"):
        read_picture(write(tmp_path / "1.NEF", thumbnail))
    with pytest.raises(FrameError, match="raw file"):
        decode_picture(tiff(ramp(16), t50706=1))
    with pytest.raises(FrameError, match="raw file"):
        decode_picture(tiff(ramp(16), photometric=32803))


def test_any_garbage_of_a_deep_picture_raises_nothing_but_a_frame_error():
    rng = np.random.default_rng(2)
    for whole in (
        png(ramp(12), 12),
        png(colour(ramp(12))),
        tiff(ramp(12)),
        tiff(colour(ramp(12))),
        tiff(ramp(12), 12),
    ):
        for _ in range(40):
            broken = bytearray(whole)
            for place in rng.integers(0, min(len(broken), 400), 4):
                broken[place] = rng.integers(256)
            try:
                assert decode_picture(bytes(broken)).dtype == np.uint8
            except FrameError as error:
                assert str(error)
        for cut in range(0, 200, 7):
            with pytest.raises(FrameError):
                decode_picture(whole[:cut])

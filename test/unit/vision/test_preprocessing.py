"""From any picture to what the network sees."""

from __future__ import annotations

import struct
import time

import cv2
import numpy as np
import pytest

from battery_sorting.core.errors import FrameError
from battery_sorting.vision.encodings import decode
from battery_sorting.vision.pictures import decode_picture, read_picture
from battery_sorting.vision.preprocessing import Preprocessing

PREPROCESSING = Preprocessing()


def picture_of_battery(angle: float = 0.0, size: tuple[int, int] = (1280, 1024), grey: int = 105) -> np.ndarray:
    """Red with a blue right end, 400 × 110 pixels, on a grey ground."""
    width, height = size
    canvas = np.full((height, width, 3), grey, np.uint8)
    canvas[:] += np.random.default_rng(0).integers(0, 6, canvas.shape, dtype=np.uint8)
    for left, right, colour in ((-200, 100, (200, 30, 30)), (100, 200, (30, 30, 200))):
        corners = np.array([[left, -55], [right, -55], [right, 55], [left, 55]], float)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        cv2.fillConvexPoly(canvas, (corners @ turn + (width / 2, height / 2)).astype(np.int32), colour)
    return canvas


def to_jpeg(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("angle", np.linspace(0, np.pi, 7))
def test_battery_is_levelled_and_fills_the_width(angle):
    cutout = PREPROCESSING.cut_out(picture_of_battery(angle))
    assert cutout.foreground == "object"
    assert cutout.pixels.shape == (PREPROCESSING.height, PREPROCESSING.width, 3)
    pixels = cutout.pixels.astype(int)
    red, blue = pixels[..., 0] - pixels[..., 2] > 80, pixels[..., 2] - pixels[..., 0] > 80
    columns = np.flatnonzero((red | blue).any(axis=0))
    rows = np.flatnonzero((red | blue).any(axis=1))
    assert len(columns) > 0.88 * PREPROCESSING.width
    assert len(columns) / len(rows) == pytest.approx(400 / 110, rel=0.12)
    assert red.sum() / blue.sum() == pytest.approx(3, rel=0.2)


def test_battery_in_the_middle_counts_not_its_neighbour():
    frame = picture_of_battery()
    frame[300:420, 1150:1280] = (30, 200, 30)
    pixels = PREPROCESSING.cut_out(frame).pixels.astype(int)
    assert not (pixels[..., 1] - pixels[..., 0] > 100).any()


def test_what_the_battery_lies_on_can_be_hidden():
    hiding = PREPROCESSING.model_copy(update={"hide_beyond": 3})
    grounds = [picture_of_battery(0.3, grey=grey) for grey in (30, 210)]
    seen, hidden = ([each.cut_out(ground) for ground in grounds] for each in (PREPROCESSING, hiding))

    def differing(dark, bright) -> float:
        return float((np.abs(dark.pixels.astype(int) - bright.pixels) > 25).any(axis=2).mean())

    assert differing(*seen) > 0.15
    assert differing(*hidden) < 0.06  # the outermost pixels mix with the ground
    for cutout, plain in zip(hidden, seen, strict=True):
        beyond = cv2.dilate(cutout.mask.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
        assert (cutout.pixels[beyond] == hiding.padding).all()
        assert (cutout.mask == plain.mask).all()


def test_a_second_look_hides_nothing():
    hiding = PREPROCESSING.model_copy(update={"hide_beyond": 3})
    picture = picture_of_battery(0.3, grey=30)
    assert (hiding.second_look(picture).pixels == PREPROCESSING.second_look(picture).pixels).all()
    assert (hiding.second_look(picture).pixels != hiding.cut_out(picture).pixels).any()


def test_a_picture_that_is_all_battery_has_nothing_to_hide():
    canvas = np.random.default_rng(1).integers(0, 256, (60, 240, 3), dtype=np.uint8)
    hiding = PREPROCESSING.model_copy(update={"hide_beyond": 0})
    assert (hiding.cut_out(canvas).pixels == PREPROCESSING.cut_out(canvas).pixels).all()


def test_vignetting_is_no_foreground():
    y, x = np.mgrid[-1:1:1024j, -1:1:1280j]
    shade = 1 - 0.25 * (x**2 + y**2) / 2
    bare = np.repeat((130 * shade).astype(np.uint8)[..., None], 3, axis=2)
    assert PREPROCESSING.cut_out(bare).foreground == "none"


def test_picture_that_the_battery_fills_is_kept_whole():
    frame = picture_of_battery(size=(420, 116))
    frame[:2] = frame[-2:] = 105
    assert PREPROCESSING.cut_out(frame).foreground in ("whole", "object")
    pixels = PREPROCESSING.cut_out(frame).pixels.astype(int)
    assert (pixels[..., 0] - pixels[..., 2] > 80).mean() > 0.2


def test_input_of_the_network_is_normalised():
    tensor, foreground = PREPROCESSING(picture_of_battery())
    assert tensor.shape == (1, 3, PREPROCESSING.height, PREPROCESSING.width)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert -1.01 <= tensor.min() < 0 < tensor.max() <= 1.01
    assert foreground == "object"


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 10, 3), np.uint8), np.zeros((50, 50), np.uint8), np.zeros((50, 50, 3))]
)
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(FrameError):
        PREPROCESSING.cut_out(bad)


def test_exif_orientation_is_followed():
    upright = picture_of_battery(size=(600, 300))
    turned = decode_picture(with_orientation(to_jpeg(upright), 6))
    assert turned.shape == (600, 300, 3)
    assert np.abs(turned.astype(int) - np.rot90(upright, -1)).mean() < 8


def test_transparent_parts_become_white():
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[10:30, 10:50] = (30, 30, 200, 255)  # BGRA
    rgb = decode_picture(cv2.imencode(".png", rgba)[1].tobytes())
    assert rgb[0, 0].tolist() == [255, 255, 255]
    assert rgb[20, 30].tolist() == [200, 30, 30]


def test_grey_and_16_bit_pictures_are_read_as_8_bit_rgb():
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (32, 1))
    deep = decode_picture(cv2.imencode(".png", ramp)[1].tobytes())
    grey = decode_picture(cv2.imencode(".png", (ramp >> 8).astype(np.uint8))[1].tobytes())
    assert deep.shape == grey.shape == (32, 64, 3)
    assert np.abs(deep.astype(int) - grey).max() <= 1
    clear = cv2.merge([ramp, ramp, ramp, np.full_like(ramp, 65535)])
    assert np.abs(decode_picture(cv2.imencode(".png", clear)[1].tobytes()).astype(int) - grey).max() <= 1


@pytest.mark.parametrize("content", [b"", b"no picture", to_jpeg(picture_of_battery(size=(64, 64)))[:40]])
def test_broken_files_are_named(tmp_path, content):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(FrameError, match=r"broken\.jpg"):
        read_picture(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FrameError, match=r"gone\.jpg.*check the path"):
        read_picture(tmp_path / "gone.jpg")


def raw_bayer(rgb: np.ndarray) -> np.ndarray:
    raw = np.empty(rgb.shape[:2], np.uint8)
    raw[0::2, 0::2] = rgb[0::2, 0::2, 0]
    raw[0::2, 1::2] = rgb[0::2, 1::2, 1]
    raw[1::2, 0::2] = rgb[1::2, 0::2, 1]
    raw[1::2, 1::2] = rgb[1::2, 1::2, 2]
    return raw


def test_every_encoding_gives_the_same_colours():
    rgb = picture_of_battery(size=(640, 480))
    same = decode(rgb.tobytes(), "rgb8", 480, 640, 1920)
    swapped = decode(rgb[..., ::-1].tobytes(), "bgr8", 480, 640, 1920)
    bayer = decode(raw_bayer(rgb).tobytes(), "bayer_rggb8", 480, 640, 640)
    grey = decode(memoryview(rgb[..., 1].tobytes()), "mono8", 480, 640, 640)
    assert np.array_equal(same, rgb)
    assert np.array_equal(swapped, rgb)
    assert bayer.shape == (240, 320, 3)
    assert np.abs(bayer[120, 160].astype(int) - rgb[240, 320]).max() < 8
    assert np.array_equal(grey[..., 2], rgb[..., 1])


def test_padded_rows_are_cut_off():
    rows = np.full((16, 100), 7, np.uint8)
    rows[:, :64] = 42
    assert (decode(rows.tobytes(), "mono8", 16, 64, 100) == 42).all()


@pytest.mark.parametrize(
    ("size", "encoding", "height", "width", "step"),
    [
        (100, "rgb8", 16, 16, 48),
        (16 * 16 * 2, "mono16", 16, 16, 32),
        (16 * 16, "yuv422", 16, 16, 16),
        (0, "mono8", 0, 0, 0),
        (256, "mono8", 16, 16, 8),
    ],
)
def test_frames_that_are_not_whole_are_refused(size, encoding, height, width, step):
    with pytest.raises(FrameError):
        decode(bytes(size), encoding, height, width, step)


# issue 15, B9
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("names", [("mono", "Mono"), ("bayer_rggb", "BayerRG"), ("rgb", "RGB")])
def test_frames_of_a_cameras_bits_are_not_black(bits, names):
    shallow = np.random.default_rng(3).integers(0, 256, (16, 48), np.uint8)
    deep = (shallow.astype("<u2") << (bits - 8)) + 1
    wanted = decode(shallow.tobytes(), f"{names[0]}8", 16, 48 // (3 if names[0] == "rgb" else 1), 48)
    for name in names:
        width = 16 if names[0] == "rgb" else 48
        assert np.array_equal(decode(deep.tobytes(), f"{name}{bits}", 16, width, 96), wanted)


def test_every_order_of_a_colour_filter_gives_the_same_colours():
    cells = {"rggb": (0, 1, 1, 2), "bggr": (2, 1, 1, 0), "gbrg": (1, 2, 0, 1), "grbg": (1, 0, 2, 1)}
    colour = np.array([200, 100, 30], np.uint8)
    for order, (one, two, three, four) in cells.items():
        raw = np.tile(colour[[[one, two], [three, four]]], (8, 8))
        rgb = decode(raw.tobytes(), f"bayer_{order}8", 16, 16, 16)
        assert rgb.shape == (8, 8, 3)
        assert rgb[3, 3].tolist() == colour.tolist(), order


@pytest.mark.parametrize(
    ("encoding", "remedy"),
    [("mono16", "mono12"), ("bayer_rggb16", "bayer_rggb12"), ("Mono12p", "packed"), ("Mono12Packed", "packed")],
)
def test_frames_that_do_not_say_their_bits_are_refused_with_a_remedy(encoding, remedy):
    with pytest.raises(FrameError, match=remedy):
        decode(bytes(16 * 32), encoding, 16, 16, 32)


def test_a_camera_frame_is_prepared_in_time():
    raw = raw_bayer(picture_of_battery(0.5)).tobytes()
    times = []
    for _ in range(12):
        start = time.perf_counter()
        PREPROCESSING(decode(raw, "bayer_rggb8", 1024, 1280, 1280))
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02  # 5 ms on an idle core


def test_normalising_is_the_formula():
    pixels = np.random.default_rng(0).integers(0, 256, (128, 256, 3), np.uint8)
    mean, std = np.array(PREPROCESSING.mean), np.array(PREPROCESSING.std)
    expected = ((pixels / 255 - mean) / std).transpose(2, 0, 1)[None]
    assert np.abs(PREPROCESSING.normalise(pixels) - expected).max() < 1e-6


def test_bayer_frame_of_odd_size_with_padded_rows_is_binned():
    raw = np.random.default_rng(0).integers(0, 256, (17, 24), np.uint8)
    rgb = decode(raw.tobytes(), "bayer_rggb8", 17, 19, 24)
    assert rgb.shape == (8, 9, 3)
    cells = raw[:16, :18].astype(int)
    assert np.array_equal(rgb[..., 0], cells[0::2, 0::2])
    assert np.array_equal(rgb[..., 2], cells[1::2, 1::2])
    assert np.abs(rgb[..., 1] - (cells[0::2, 1::2] + cells[1::2, 0::2]) / 2).max() <= 0.5


@pytest.mark.parametrize("factor", [1, 2, 4, 7])
def test_battery_is_found_alike_in_pictures_of_every_size(factor):
    small = picture_of_battery(0.4, size=(640, 512))
    large = cv2.resize(small, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    ours, theirs = PREPROCESSING.cut_out(large), PREPROCESSING.cut_out(small)
    assert (ours.mask ^ theirs.mask).mean() < 0.02
    assert np.abs(ours.pixels.astype(int) - theirs.pixels)[theirs.mask].mean() < 6

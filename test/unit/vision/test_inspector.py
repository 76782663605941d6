"""The inspector on drawn cells: verdicts, faces, codes, and pictures that can't be judged."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import zxingcpp

from battery_sorting.core.errors import FrameError, ModelError
from battery_sorting.vision.codes import read_code
from battery_sorting.vision.encodings import STATION, decode
from battery_sorting.vision.framing import CameraDepth, Framing, sharpness, to_bgr, widened
from battery_sorting.vision.inspector import DefectInspector, ViewVerdict, overlay

pytest.importorskip("onnx")
from support.tiny_defect_model import write_defect_model

YELLOW, WHITE = (0, 200, 220), (220, 220, 220)  # BGR: a cover, and a cell's other faces


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_defect_model(tmp_path_factory.mktemp("models") / "lug" / "1")


@pytest.fixture(scope="module")
def inspector(folder):
    return DefectInspector.load(folder)


def station(
    colour=YELLOW, angle=0.0, centre=(640, 512), size=(900, 180), mark=None, frame=(1024, 1280)
) -> np.ndarray:
    """A frame, BGR, of a dark belt with one cell; ``mark`` is the colour of most of its face."""
    picture = np.linspace(35, 65, frame[1]).astype(np.uint8)[None, :, None].repeat(frame[0], 0).repeat(3, 2)
    for share, tone in ((1.0, colour), (0.8, mark)):
        if tone is not None:
            box = cv2.boxPoints((centre, (size[0] * share, size[1] * share), angle))
            cv2.fillPoly(picture, [box.astype(np.int32)], tone)
    return picture


def two_cells(gap: int) -> np.ndarray:
    picture = station(centre=(640, 300))
    other = station(centre=(640, 300 + 180 + gap))
    return np.maximum(picture, other)


def test_a_yellow_cell_is_good_and_its_box_lies_on_it(inspector):
    said = inspector.inspect(station())
    assert (said.verdict, said.reason, said.face, said.view) == ("good", "", "lug", "lug")
    assert said.probability < 0.3
    assert said.box == pytest.approx(np.array([(190, 422), (1090, 422), (1090, 602), (190, 602)]), abs=25)
    assert said.seconds > 0


@pytest.mark.parametrize(("angle", "centre"), [(7.0, (640, 512)), (-12.0, (600, 560)), (0.0, (500, 300))])
def test_a_shifted_or_turned_cell_is_cut_out_alike(inspector, angle, centre):
    straight = inspector.inspect(station())
    said = inspector.inspect(station(angle=angle, centre=centre))
    assert said.verdict == "good"
    assert said.probability == pytest.approx(straight.probability, abs=0.05)


def test_a_red_cover_is_broken(inspector):
    said = inspector.inspect(station(mark=(60, 60, 250)))
    assert (said.verdict, said.kind, said.reason) == ("defective", "broken", "broken")
    assert said.probability > 0.5
    assert sum(said.kinds.values()) == pytest.approx(1.0, abs=1e-5)


def test_a_look_that_no_good_cell_has_is_unsure_though_no_known_defect(folder):
    greenish = station(mark=(60, 250, 60))
    said = DefectInspector.load(folder).inspect(greenish)
    assert (said.verdict, said.reason) == ("unsure", "novel_look")
    assert said.heat is not None
    assert said.heat.max() == 1.0


def test_between_good_and_defective_the_verdict_is_unsure(tmp_path):
    strict = write_defect_model(tmp_path / "lug" / "1", good_below=0.001)
    said = DefectInspector.load(strict).inspect(station())
    assert (said.verdict, said.reason) == ("unsure", "low_confidence")


def test_the_recipes_threshold_overrules_the_cards(folder):
    probability = DefectInspector.load(folder).inspect(station()).probability
    said = DefectInspector.load(folder, threshold=probability * 0.9).inspect(station())
    assert said.verdict == "defective"


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (np.full((1024, 1280, 3), 90, np.uint8), "blank"),
        (np.zeros((1024, 1280, 3), np.uint8), "blank"),
        (np.full((1024, 1280), 40000, np.uint16), "blank"),
        (
            np.where(np.arange(1280)[None, :, None] < 1000, 255, 60).astype(np.uint8).repeat(1024, 0).repeat(3, 2),
            "saturated",
        ),
        (station(size=(20, 10)), "no_cell"),
        (two_cells(60), "several_cells"),
        (station(centre=(1000, 512)), "cut_off"),
        (np.full((40, 50, 3), 90, np.uint8), "wrong_size"),
        (station(colour=WHITE), "wrong_face"),
    ],
    ids=["grey", "black", "16 bits", "saturated", "empty", "two", "cut off", "tiny frame", "upside down"],
)
def test_pictures_that_cannot_be_judged_say_why(inspector, frame, reason):
    said = inspector.inspect(frame)
    assert (said.verdict, said.reason) == ("bad_image", reason)
    assert math.isnan(said.probability)
    assert said.kinds == {}


def test_an_upside_down_cell_shows_the_other_face(inspector):
    assert inspector.inspect(station(colour=WHITE)).face == "case"


def test_cells_that_touch_and_cells_of_another_size_are_refused(tmp_path):
    limits = {"cell_px": [700, 1100], "slenderness": [3.5, 7.0]}
    strict = DefectInspector.load(write_defect_model(tmp_path / "lug" / "1", limits=limits))
    assert strict.inspect(station()).verdict == "good"
    assert strict.inspect(two_cells(0)).reason == "several_cells"
    assert strict.inspect(station(size=(450, 90))).reason == "wrong_size"


def test_a_blurred_cell_is_refused(tmp_path):
    plain = station()
    for x in range(230, 1050, 24):
        plain[440:580, x : x + 12] = (0, 120, 140)
    model = tmp_path / "lug" / "1"
    at = DefectInspector.load(write_defect_model(model)).card.framing
    sharp = sharpness(at.cut(plain, np.array([(190, 422), (1090, 422), (1090, 602), (190, 602)])))
    strict = DefectInspector.load(write_defect_model(model, limits={"sharpness": 0.6 * sharp}))
    assert strict.inspect(plain).verdict == "good"
    assert strict.inspect(cv2.GaussianBlur(plain, (0, 0), 15)).reason == "blurred"


def test_grey_and_deep_frames_are_judged_like_their_8_bits(inspector):
    frame = station()
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    assert inspector.inspect(grey).reason == "wrong_face"  # without colour this finder sees no cover
    deep = inspector.inspect(frame.astype(np.uint16) * 257)
    twelve = inspector.inspect(frame.astype(np.uint16) * 16)
    assert deep.probability == pytest.approx(inspector.inspect(frame).probability)
    assert twelve.probability == pytest.approx(deep.probability)


# issue 15, B9
def test_a_camera_that_does_not_say_its_bits_is_scaled_alike_from_its_first_bright_frame_on():
    dark, bright = np.full((8, 8), 3000, np.uint16), np.full((8, 8), 60_000, np.uint16)
    camera = CameraDepth()
    assert camera.eight_bits(dark).max() == 187 and camera.bits == 12
    assert camera.eight_bits(bright).max() == 234 and camera.bits == 16
    assert camera.eight_bits(dark).max() == 11
    assert CameraDepth().eight_bits(np.full((8, 8), 200, np.uint8)).max() == 200


# issue 15, B9
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("name", ["mono", "Mono", "rgb", "bgr"])
def test_frames_of_a_cameras_bits_are_its_upper_eight(bits, name):
    shallow = np.random.default_rng(4).integers(0, 256, (16, 20, 3), np.uint8)
    shallow = shallow[..., 0] if name.lower() == "mono" else shallow
    deep = shallow if bits == 8 else (shallow.astype("<u2") << (bits - 8)) + 1
    step = deep.nbytes // 16 + 6
    rows = np.zeros((16, step), np.uint8)
    rows[:, : step - 6] = np.ascontiguousarray(deep).view(np.uint8).reshape(16, -1)
    found = decode(rows.tobytes(), f"{name}{bits}", 16, 20, step, STATION)
    assert found.dtype == np.uint8
    assert np.array_equal(found, shallow[..., ::-1] if name == "rgb" else shallow)


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "Mono12p", "yuv422"])
def test_frames_that_the_station_can_not_read_are_refused(encoding):
    with pytest.raises(FrameError, match=r"set the camera"):
        decode(bytes(256), encoding, 16, 16, 16, STATION)
    with pytest.raises(FrameError, match="has 256 bytes"):
        decode(bytes(256), "mono12", 16, 16, 16, STATION)


@pytest.mark.parametrize(
    "frame", [np.zeros((64, 64), np.float32), np.zeros((2, 3, 4, 5), np.uint8), np.zeros((4, 4), np.uint8), "no"]
)
def test_what_is_no_picture_is_an_error(inspector, frame):
    with pytest.raises(FrameError):
        inspector.inspect(frame)


def qr_code():
    return cv2.QRCodeEncoder.create().encode("LF0123ABC")


def data_matrix():
    code = zxingcpp.create_barcode("LF0123ABC", zxingcpp.BarcodeFormat.DataMatrix)
    return np.pad(np.asarray(code.to_image(scale=1)), 2, constant_values=255)


@pytest.mark.parametrize("code", [qr_code(), data_matrix(), 255 - qr_code()], ids=["qr", "data_matrix", "inverted"])
def test_the_code_is_read_on_a_turned_cell(inspector, code):
    code = cv2.resize(code, (130, 130), interpolation=cv2.INTER_NEAREST)
    frame = station()
    frame[447:577, 700:830] = code[..., None]
    turn = cv2.getRotationMatrix2D((640, 512), 6, 1)
    frame = cv2.warpAffine(frame, turn, (1280, 1024), borderValue=(40, 40, 40))
    assert inspector.inspect(frame).code == "LF0123ABC"


def test_a_code_beside_the_cell_is_not_taken_for_its_own(inspector):
    frame = station()
    code = cv2.resize(qr_code(), (130, 130), interpolation=cv2.INTER_NEAREST)
    frame[20:150, 20:150] = code[..., None]
    box = np.array([(200.0, 300), (1000, 300), (1000, 700), (200, 700)])
    assert read_code(frame, box) == ""
    assert read_code(frame, box - (190, 290)) == "LF0123ABC"


def test_other_peoples_pictures_are_judged_whole(tmp_path):
    whole = DefectInspector.load(write_defect_model(tmp_path / "parts" / "3", crop="none"))
    said = whole.inspect(station(colour=(60, 60, 250), size=(1200, 1000)))
    assert (said.verdict, said.box, said.face, said.code) == ("defective", None, "", "")
    assert whole.name == "parts/3"


def test_the_overlay_keeps_the_frames_size_and_shows_box_and_words(inspector):
    frame = station(mark=(60, 60, 250))
    said = inspector.inspect(frame)
    drawn = overlay(frame, said)
    assert drawn.shape == frame.shape
    assert (drawn != frame).any()
    assert (overlay(frame[..., 0], inspector.inspect(np.zeros_like(frame)))).shape == frame.shape


def test_the_heat_covers_what_the_network_saw_and_not_the_bare_box(inspector):
    frame = np.zeros((1024, 1280, 3), np.uint8)
    box = np.array([(200.0, 200), (1000, 200), (1000, 600), (200, 600)])
    drawn = inspector.overlay(frame, ViewVerdict("lug", "defective", heat=np.ones((256, 512), np.float32), box=box))
    margin = round(inspector.card.framing.margin * 800)
    assert margin > 10
    assert drawn[400, 200 - margin + 4].any()
    assert not drawn[400, 200 - margin - 4].any()


def test_a_model_whose_files_do_not_match_is_refused(tmp_path):
    folder = write_defect_model(tmp_path / "lug" / "1")
    (folder / "finder.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"finder\.onnx"):
        DefectInspector.load(folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"good": ["fine"]}))
    with pytest.raises(ModelError, match="none of the labels"):
        DefectInspector.load(folder)
    with pytest.raises(ModelError, match="train defects"):
        DefectInspector.load(tmp_path)


def test_widened_keeps_the_middle_and_grows_all_sides_alike():
    box = np.array([(0.0, 0), (100, 0), (100, 20), (0, 20)])
    assert widened(box, 0.1) == pytest.approx(np.array([(-10, -10), (110, -10), (110, 30), (-10, 30)]))


def test_own_contrast_takes_brightness_out():
    framing = Framing(width=32, height=32, contrast="own")
    picture = np.random.default_rng(1).integers(60, 120, (32, 32, 3)).astype(np.uint8)
    assert framing.normalise(picture) == pytest.approx(framing.normalise(picture * 2), abs=0.06)


def test_a_frame_with_alpha_loses_it():
    assert to_bgr(np.full((16, 16, 4), 7, np.uint8)).shape == (16, 16, 3)

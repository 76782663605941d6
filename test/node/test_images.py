"""Pictures in messages: the same with cv_bridge and without. issue 15, E16."""

from __future__ import annotations

import array
import importlib
import os
import sys

import numpy as np
import pytest
from sensor_msgs.msg import Image
from support.cv_bridge_standin import BROKEN, WORKING, write_cv_bridge

from battery_sorting.core.errors import FrameError
from battery_sorting.drivers.camera.base import Frame
from battery_sorting.ros import images
from battery_sorting.vision.encodings import BELT, FILED, decode

SIZES = [(8, 8), (16, 33), (17, 9)]
BYTES = {"rgb8": 3, "bgr8": 3, "mono8": 1, "bayer_rggb8": 1}


@pytest.fixture
def remarks():
    return []


@pytest.fixture
def fresh(monkeypatch):
    """Nothing has been decided in this process yet, and nothing of this test stays."""
    monkeypatch.setattr(images, "_bridge", None)
    monkeypatch.setattr(images, "_tried", False)
    monkeypatch.setattr(images, "PROBE_S", 120.0)  # machines that test are busy
    sys.modules.pop("cv_bridge", None)
    yield
    sys.modules.pop("cv_bridge", None)


@pytest.fixture
def offer(tmp_path, monkeypatch, remarks, fresh):
    """Offers a cv_bridge to this process and its children, and has it tried."""

    def offer(source: str) -> bool:
        write_cv_bridge(tmp_path, source)
        monkeypatch.syspath_prepend(str(tmp_path))
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        monkeypatch.setenv("PYTHONPATH", path)
        return images.use_cv_bridge(remarks.append)

    return offer


@pytest.fixture(params=["the package", "cv_bridge"])
def converter(request, tmp_path, monkeypatch, fresh):
    """Who converts in this test; that a cv_bridge is found and tried is a test of its own."""
    if request.param == "cv_bridge":
        write_cv_bridge(tmp_path, WORKING)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(images, "_bridge", importlib.import_module("cv_bridge").CvBridge())
    return request.param


def frame(encoding: str, height: int, width: int, padding: int = 0) -> Frame:
    step = width * BYTES[encoding] + padding
    data = np.random.default_rng(1).integers(0, 256, height * step, dtype=np.uint8).tobytes()
    return Frame(1, 1, 1.5, width, height, encoding, step, data)


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("encoding", BYTES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_frame_goes_there_and_back_the_same_with_and_without_cv_bridge(
    converter, encoding, height, width, padding
):
    seen = frame(encoding, height, width, padding)
    message = images.image_message(seen)
    fields = (message.height, message.width, message.encoding, message.step, message.is_bigendian)
    assert fields == (height, width, encoding, seen.step, 0)
    assert bytes(message.data) == seen.data
    assert (message.header.frame_id, message.header.stamp.sec, message.header.stamp.nanosec) == (
        "camera", 1, 500_000_000,
    )  # fmt: skip
    for use in (BELT, FILED):
        picture = images.decoded(message, use)
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, decode(seen.data, encoding, height, width, seen.step, use))
    assert np.array_equal(images.decoded(message, FILED), images.decoded(message)[..., ::-1])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"data": b"\0" * 10}, "is not whole"),
        ({"data": b"\0" * 4000}, "is not whole"),
        ({"width": 15}, "is not whole"),
        ({"height": 0}, "is not whole"),
        ({"height": 7, "data": b"\0" * 7 * 48}, "is not whole"),
        ({"encoding": "yuv422"}, "yuv422"),
        ({"encoding": ""}, "encoding"),
        ({"encoding": "bgra8", "width": 12}, "bgra8"),
    ],
)
def test_what_is_no_whole_frame_is_refused_the_same_with_and_without_cv_bridge(converter, change, why):
    values = {"height": 16, "width": 16, "encoding": "rgb8", "step": 48, "data": bytes(16 * 48)} | change
    values["data"] = array.array("B", values["data"])
    if change == {"width": 15}:
        values["step"] = 44
    with pytest.raises(FrameError, match=why):
        images.decoded(Image(**values))


def test_a_cv_bridge_that_works_really_converts(offer, remarks):
    encodings = ("rgb8", "bgr8", "mono8")
    assert offer(WORKING) and remarks == []
    for encoding in encodings:
        images.decoded(images.image_message(frame(encoding, 16, 16)))
    expected = [(call, encoding) for encoding in encodings for call in ("cv2_to_imgmsg", "imgmsg_to_cv2")]
    assert expected == importlib.import_module("cv_bridge").CALLS


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("built for another NumPy", "ImportError: numpy.core.multiarray failed to import"),
        ("ends the process", "signal 11"),
        ("a part is missing", "cv_bridge.boost"),
        ("other colours", "another picture of bgr8"),
    ],
)
def test_a_cv_bridge_that_cannot_be_used_is_left_with_a_remark(offer, remarks, fault, why):
    assert not offer(BROKEN[fault])
    assert len(remarks) == 1 and why in remarks[0] and "distribution.txt" in remarks[0], remarks
    seen = frame("bgr8", 16, 16)
    picture = images.decoded(images.image_message(seen))
    assert np.array_equal(picture, decode(seen.data, "bgr8", 16, 16, 48))


def test_a_process_looks_for_cv_bridge_once(offer, remarks):
    assert not offer(BROKEN["built for another NumPy"])
    assert not images.use_cv_bridge(remarks.append)
    assert len(remarks) == 1

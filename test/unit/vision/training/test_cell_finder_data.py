"""Frames and masks that the cell finder learns from."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.vision.training import cell_finder


@pytest.fixture
def frames(tmp_path):
    for name in ("frames", "masks"):
        (tmp_path / name).mkdir()
    for number in range(4):
        frame = np.random.default_rng(number).integers(0, 256, (64, 80, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "frames" / f"{number}.png"), frame)
        cv2.imwrite(str(tmp_path / "masks" / f"{number}.png"), np.zeros((64, 80), np.uint8))
    return tmp_path


def test_frames_of_12_bits_are_not_black(frames):
    before, _ = cell_finder._load(frames)
    for file in (frames / "frames").iterdir():
        cv2.imwrite(str(file), cv2.imread(str(file)).astype(np.uint16) * 16)
    after, _ = cell_finder._load(frames)
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


# issue 15, B9
def test_frames_that_would_share_a_mask_are_refused(frames):
    cv2.imwrite(str(frames / "frames" / "1.jpg"), np.zeros((64, 80, 3), np.uint8))
    with pytest.raises(ConfigurationError, match=r"1\.jpg, 1\.png would share a mask"):
        cell_finder._load(frames)


def test_a_frame_that_can_not_be_read_is_named(frames):
    (frames / "frames" / "2.png").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"2\.png: is empty"):
        cell_finder._load(frames)


def test_what_a_system_puts_beside_the_frames_is_no_frame(frames):
    (frames / "frames" / "._1.png").write_bytes(b"\0\5\x16\7")
    assert len(cell_finder._load(frames)[0]) == 4

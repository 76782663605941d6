"""Reads what is printed on a battery. Types that differ in a word alone are told apart by nothing else.

numpy, OpenCV and onnxruntime alone.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import onnxruntime as ort

from battery_sorting.core.errors import ModelError
from battery_sorting.vision.engine import run_bounded
from battery_sorting.vision.preprocessing import Cutout, Preprocessing

READER_FILE = "reader.onnx"
TEXT_FEATURES = 2048
"""Length of `text_features`: pieces of words are counted in so many bins, by their checksum."""

WIDTH, HEIGHT = 512, 256  # of the cut-out that is read
STRIPS = ((0.1, 0.6), (0.4, 0.9))  # of the battery's breadth; they overlap, so that no line is cut by both
STRIP_HEIGHT = 48  # what the network was trained on
STRIP_WIDTHS = (32, 480)
PIECES = (2, 3)  # letters
SURE = 0.6  # least mean probability of a line's letters; less is a pattern, or upside down
SHORTEST = 2


@dataclass(frozen=True, slots=True)
class Line:
    """What was read on one strip: letters and digits, and their mean probability (0..1)."""

    text: str
    confidence: float

    @property
    def evidence(self) -> float:
        """How much of it can be believed: its length, by its confidence."""
        return len(self.text) * self.confidence


class Reader:
    """A line recogniser (CTC) with the characters that it tells apart in its metadata.

    Args:
        weights: Content of an ONNX file: input (1, 3, 48, w), output probabilities (1, steps, 1 + characters).
        source: Its name, for messages.
        threads: Processor threads for one run.

    Raises:
        ModelError: The weights can't be read, or are those of something else.
    """

    def __init__(self, weights: bytes, source: str, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
            self._characters = self._session.get_modelmeta().custom_metadata_map["characters"]
        except Exception as error:  # the run time's own exceptions have no common base
            raise ModelError(
                f"{source}: is no network that reads ({' '.join(str(error).split())}); restore the file that "
                "belongs to the card or train the model again"
            ) from error
        self._input = self._session.get_inputs()[0].name
        self.identity = hashlib.sha256(weights).hexdigest()

    def read(self, rgb: np.ndarray, preprocessing: Preprocessing) -> list[Line]:
        """Lines on the battery in a picture, uint8 RGB (height, width, 3); empty where nothing can be read.

        The first strip is read both ways up, the second as the first turned out to stand.
        """
        size = {"width": WIDTH, "height": HEIGHT}
        battery = _battery(preprocessing.model_copy(update=size).cut_out(rgb))
        upright, turned = battery, battery[::-1, ::-1]
        ways = [(way, self.line(_strip(way, *STRIPS[0]))) for way in (upright, turned)]
        lines = [line for _, line in ways]
        believed = max(line.evidence for line in lines)
        for strip in STRIPS[1:]:
            lines += [self.line(_strip(way, *strip)) for way, line in ways if line.evidence == believed]
        return [line for line in lines if line.text]

    def line(self, strip: np.ndarray) -> Line:
        """What stands on a strip, uint8 RGB (48, w, 3)."""
        scaled = strip[:, :, ::-1].astype(np.float32) / 127.5 - 1.0  # it was trained on BGR
        found = run_bounded(self._session, {self._input: scaled.transpose(2, 0, 1)[None]})[0][0]
        return self._decoded(found)

    def _decoded(self, probabilities: np.ndarray) -> Line:
        """Best path: repeated characters and blanks (number 0) are left out (Graves et al. 2006)."""
        best = probabilities.argmax(axis=1)
        kept = (best != 0) & (best != np.concatenate([[0], best[:-1]]))
        if not kept.any():
            return Line("", 0.0)
        text = "".join(self._characters[number - 1] for number in best[kept])
        return Line(text, float(probabilities.max(axis=1)[kept].mean()))


def text_features(lines: Iterable[Line]) -> np.ndarray:
    """Which pieces of words were read: float32 (`TEXT_FEATURES`,), each the confidence of its line or 0.

    Pieces of two and three letters bear it that some letters were misread, and that a word goes on around the bend.
    """
    found = np.zeros(TEXT_FEATURES, np.float32)
    for line in lines:
        if line.confidence >= SURE:
            for piece in _pieces(line.text):
                number = zlib.crc32(piece.encode()) % TEXT_FEATURES
                found[number] = max(found[number], line.confidence)
    return found


def _pieces(text: str) -> Iterator[str]:
    letters = re.sub("[^A-Z0-9]", "", text.upper())
    if len(letters) < SHORTEST:
        return
    for length in PIECES:
        for start in range(len(letters) - length + 1):
            yield letters[start : start + length]


def _battery(cutout: Cutout) -> np.ndarray:
    """The rectangle around the battery's mask."""
    rows, columns = np.flatnonzero(cutout.mask.any(axis=1)), np.flatnonzero(cutout.mask.any(axis=0))
    if not len(rows):
        return cutout.pixels
    return cutout.pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _strip(battery: np.ndarray, top: float, bottom: float) -> np.ndarray:
    """A part of the battery's breadth, scaled to the height that is read."""
    height = len(battery)
    first = min(int(top * height), height - 1)
    part = battery[first : max(first + 1, int(bottom * height))]
    width = int(np.clip(round(part.shape[1] * STRIP_HEIGHT / len(part)), *STRIP_WIDTHS))
    smooth = cv2.INTER_AREA if len(part) > STRIP_HEIGHT else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(part), (width, STRIP_HEIGHT), interpolation=smooth))

"""Finds the cell in a frame of the inspection station: how many there are, where, and which face they show."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import cv2
import numpy as np

from battery_sorting.vision.engine import Engine, open_engine

FINDER_FILE = "finder.onnx"
WIDTH, HEIGHT = 320, 256
"""Size in which the network looks at a frame, pixels."""
BACKGROUND, CELL, COVER = 0, 1, 2
"""What a place can be: background, a cell, or a cell's cover with its lugs."""
MARGIN = 0.05
"""Share of the frame that is put around it for a second look at a cell that seems cut off."""
LEAST_AREA = 0.008
"""Share of the frame below which something is no cell."""
LEAST_COVER = 0.06
"""Share of a cell from which its cover is seen."""
SECOND = 0.25
"""A second thing counts as a cell from this share of the largest one's area on."""


@dataclass(frozen=True, slots=True)
class FoundCell:
    """What was found in a frame.

    Attributes:
        cells: How many separate things look like cells.
        box: Corners (4, 2) of the largest in the frame's pixels, the long side across: top left, top right, bottom
            right, bottom left; None without a cell.
        face: ``lug`` or ``case``; empty without a cell.
        cut_off: Whether it reaches beyond the frame.
        filled: Share of the box that is cell; several that touch don't fill theirs.
    """

    cells: int
    box: np.ndarray | None = None
    face: str = ""
    cut_off: bool = False
    filled: float = 0.0


class CellFinder:
    """Runs the network that tells cell and cover from background.

    Args:
        weights: Content of ``finder.onnx``.
        source: Its name, for messages.
    """

    def __init__(self, weights: bytes, source: str, threads: int = 1) -> None:
        self._engine: Engine = open_engine(weights, source, threads=threads)
        self.identity = hashlib.sha256(weights).hexdigest()

    def find(self, bgr: np.ndarray) -> FoundCell:
        """Look at a frame, uint8 (h, w, 3)."""
        seen = self._look(bgr)
        if not seen.cut_off:
            return seen
        # A cell near the rim may seem to touch it: the network sees nothing beyond. With a margin it does.
        height, width = bgr.shape[:2]
        down, across = round(height * MARGIN), round(width * MARGIN)
        wider = self._look(cv2.copyMakeBorder(bgr, down, down, across, across, cv2.BORDER_REPLICATE))
        if wider.cut_off or wider.box is None:
            return seen
        return replace(wider, box=wider.box - np.array([across, down]))

    def _look(self, bgr: np.ndarray) -> FoundCell:
        pixels, scale = letterboxed(bgr)
        probabilities = self._engine.run(as_input(pixels)[None])["places"][0]
        return read_places(probabilities, scale, bgr.shape)


def letterboxed(bgr: np.ndarray) -> tuple[np.ndarray, float]:
    """The frame in the network's size, at the top left of it, and the scale."""
    height, width = bgr.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[: size[1], : size[0]] = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    return pixels, scale


def as_input(pixels: np.ndarray) -> np.ndarray:
    """float32 (3, h, w), RGB, -1..1."""
    return np.asarray(pixels[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 127.5 - 1.0)


def read_places(probabilities: np.ndarray, scale: float, shape: tuple[int, ...]) -> FoundCell:
    """What the network's map says.

    Args:
        probabilities: (3, h, w): background, cell, cover.
        scale: Of the frame in the network's picture.
        shape: Of the frame.
    """
    size = (round(shape[1] * scale), round(shape[0] * scale))
    whole = cv2.resize(1.0 - probabilities[BACKGROUND], (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    mask = (whole > 0.5).astype(np.uint8)
    mask[size[1] :] = 0
    mask[:, size[0] :] = 0
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA] if count > 1 else np.zeros(0, int)
    if not areas.size or areas.max() < LEAST_AREA * size[0] * size[1]:
        return FoundCell(0)
    largest = 1 + int(areas.argmax())
    own = (labels == largest).astype(np.uint8)
    cover = cv2.resize(probabilities[COVER], (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    shows_cover = float(((cover > 0.5) & (own > 0)).sum()) / float(areas.max()) > LEAST_COVER
    left, top, width, height = stats[largest, :4]
    cut_off = left <= 1 or top <= 1 or left + width >= size[0] - 1 or top + height >= size[1] - 1
    contours, _ = cv2.findContours(own, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len)
    corners, area = _box(outline)
    return FoundCell(
        cells=int((areas > SECOND * areas.max()).sum()),
        box=(corners + 0.5) / scale - 0.5,
        face="lug" if shows_cover else "case",
        cut_off=bool(cut_off),
        filled=float(areas.max()) / max(area, 1.0),
    )


def _box(outline: np.ndarray) -> tuple[np.ndarray, float]:
    """Corners of the smallest rectangle around the points, the long side across, turned by less than 90°."""
    (x, y), (width, height), degrees = cv2.minAreaRect(outline)
    width, height = width + 1, height + 1
    if height > width:
        width, height, degrees = height, width, degrees + 90
    angle = np.radians((degrees + 90) % 180 - 90)
    across = np.array([np.cos(angle), np.sin(angle)]) * width / 2
    down = np.array([-np.sin(angle), np.cos(angle)]) * height / 2
    middle = np.array([x, y])
    corners = np.array(
        [middle - across - down, middle + across - down, middle + across + down, middle - across + down]
    )
    return corners, float(width * height)

"""Frames of the inspection station with a mask that says where the cell is, to train what finds it.

Pixels of a mask: 0 background, 1 a cell, 2 its cover with the lugs. Frames come from both cameras, and hold a cell
as it should lie, turned over, half flipped, beside a second one, or none.

    python -m battery_sorting.vision.synthetic.prismatic_masks --out DIR --count N --seed S [--size WIDTH]

writes ``frames/*.jpg`` and ``masks/*.png``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from battery_sorting.core.types import View
from battery_sorting.vision.synthetic.prismatic import (
    BESIDE_MM,
    EXPECTED_DEG,
    FRAME_WIDTH,
    KINDS,
    CellLook,
    PinholeCamera,
    Placed,
    PrismaticRenderer,
    displacement,
    sample_look,
)

CELL, COVER = 1, 2
WIDTH = 640


@dataclass(frozen=True, slots=True)
class Framed:
    """A frame, BGR (height, width, 3), and its mask, uint8 (height, width)."""

    frame: np.ndarray
    mask: np.ndarray


class MaskRenderer:
    """Draws frames together with their masks."""

    def __init__(self, seed: int, width: int = WIDTH) -> None:
        self._renderer = PrismaticRenderer(seed, width)
        self._cameras = {view: PinholeCamera(view, width / FRAME_WIDTH) for view in View}

    def draw(self, rng: np.random.Generator) -> Framed:
        """A frame as it may come from the station."""
        view = View.LUG if rng.random() < 0.5 else View.CASE
        look = _look(rng, view)
        expected = EXPECTED_DEG[view]
        what = rng.random()
        if what < 0.08:
            frame = self._renderer.render(view, None, scene=look.scene)
            return Framed(frame, np.zeros(frame.shape[:2], np.uint8))
        turn = expected
        if what < 0.28:
            turn = 180.0 - expected
        elif what < 0.34:
            turn = float(rng.uniform(20, 160))
        beside = _look(rng, view) if 0.34 <= what < 0.46 else None
        frame = self._renderer.render(view, look, turn_deg=turn, beside=beside)
        mask = np.zeros(frame.shape[:2], np.uint8)
        self._fill(mask, self._cameras[view], Placed(look, turn))
        if beside:
            self._fill(mask, self._cameras[view], Placed(beside, turn, BESIDE_MM[view]))
        return Framed(frame, mask)

    def _fill(self, mask: np.ndarray, camera: PinholeCamera, cell: Placed) -> None:
        share = np.linspace(0, 1, 9)
        edge = np.concatenate(
            [
                np.stack([share, 0 * share], 1),
                np.stack([0 * share + 1, share], 1),
                np.stack([share[::-1], 0 * share + 1], 1),
                np.stack([0 * share, share[::-1]], 1),
            ]
        )
        for side, _normal in cell.faces_towards(camera):
            points = side.points(edge)
            shaped = points + displacement(cell.look, points)
            outline = camera.project(cell.to_station(shaped))
            value = COVER if side.name == "cover" else CELL
            cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], value)


def _look(rng: np.random.Generator, view: View) -> CellLook:
    """Any cell, more shifted and turned than the loader leaves it."""
    look = sample_look(rng, view, str(rng.choice(KINDS[view])))
    shift = tuple(np.clip(rng.normal(0, 9, 2), -16, 16).tolist())
    return replace(look, shift_mm=shift, rotation_deg=float(np.clip(rng.normal(0, 6), -14, 14)))


def write_frames(out: Path, count: int, seed: int, width: int) -> None:
    """Write ``count`` frames and masks; frame n depends on ``seed`` and n alone."""
    renderer = MaskRenderer(seed, width)
    for name in ("frames", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        drawn = renderer.draw(np.random.default_rng([seed, number, 3]))
        cv2.imwrite(str(out / "frames" / f"{seed}_{number:05d}.jpg"), drawn.frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
        cv2.imwrite(str(out / "masks" / f"{seed}_{number:05d}.png"), drawn.mask)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Draw frames of the inspection station with masks.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=WIDTH, help="width of the frames in px")
    given = parser.parse_args(arguments)
    try:
        write_frames(given.out, given.count, given.seed, given.size)
    except (OSError, ValueError) as error:
        print(f"prismatic_masks: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Pictures to learn from: drawn batteries and photographs, as the camera over the belt would deliver them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np

from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.vision.deep_pictures import camera_bits
from battery_sorting.vision.encodings import decode
from battery_sorting.vision.picture_folders import find_pictures
from battery_sorting.vision.pictures import Photograph, background_mask, label_of_folder, read_picture
from battery_sorting.vision.preprocessing import Cutout, Preprocessing
from battery_sorting.vision.synthetic.renderer import DrawnRenderer, photograph_on_belt
from battery_sorting.vision.synthetic.strangers import StrangerRenderer
from battery_sorting.vision.training.corrections import Corrections

log = logging.getLogger(__name__)

JUNK_KINDS = ("hand", "packaging", "two_batteries")
"""What is drawn that is no battery by itself."""
JUNK_SEED = 900_000
"""Junk that is drawn for learning begins here, far from what anybody draws to judge by."""
LONGEST = 1000
"""Longer side (pixels) to which photographs are scaled down; the network sees no more than a fraction of it."""
BATTERY_SIZES_MM = ((50.5, 14.5), (50.5, 14.5), (44.5, 10.5), (61.5, 34.2), (69.0, 18.6))


@dataclass(frozen=True, slots=True)
class DrawnItem:
    """What the renderer wants to know of a battery."""

    label: str
    length_mm: float
    diameter_mm: float
    angle_rad: float
    offset_mm: tuple[float, float]
    wear: float
    seed: int


def list_photographs(folder: Path, corrections: Corrections | None = None) -> list[Photograph]:
    """Photographs under ``folder``, one sub-folder per type, as ``corrections`` relabels or drops them.

    What is left out of the folder is logged, see `find_pictures`.

    Raises:
        ConfigurationError: No such folder, or no pictures in it.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            str(folder), ["--data: no such folder; give one with a sub-folder per battery type"]
        )
    tree = find_pictures(folder)
    bits = camera_bits(tree.files)
    found = [Photograph(path, label_of_folder(name), bits) for name, files in tree.types.items() for path in files]
    if corrections is not None:
        found = corrections.apply(found)
    if not found:
        remarks = [str(remark) for remark in tree.remarks]
        raise ConfigurationError(
            str(folder), ["--data: no pictures in its sub-folders; expected TYPE/*.jpg", *remarks]
        )
    tree.told(log.warning)
    return found


def read_photograph(path: Path, longest: int = LONGEST, bits: int | None = None) -> np.ndarray | None:
    """The photograph's pixels, scaled down to ``longest`` pixels; None, and a warning, where it can't be read."""
    try:
        pixels = read_picture(path, bits)
    except FrameError as error:
        log.warning("left out: %s", error)
        return None
    scale = longest / max(pixels.shape[:2])
    if scale < 1:
        size = (max(8, round(pixels.shape[1] * scale)), max(8, round(pixels.shape[0] * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return pixels


class Studio:
    """Draws batteries and lays photographs on belts, as camera frames, and cuts them out."""

    def __init__(self, preprocessing: Preprocessing, seed: int, scenes: int) -> None:
        self._preprocessing = preprocessing
        self.seed = seed
        self._drawn = [DrawnRenderer(seed + n) for n in range(scenes)]

    @cached_property
    def _strangers(self) -> StrangerRenderer:
        """Draws junk; made when it is first asked for, which evaluations never do."""
        return StrangerRenderer(JUNK_SEED + self.seed)

    @property
    def types(self) -> list[str]:
        """Types that are drawn."""
        return list(self._drawn[0].types())

    @property
    def brands(self) -> list[str]:
        """Brands that are drawn and are no type."""
        return list(self._drawn[0].unknown())

    def drawn(self, label: str, seed: int) -> Cutout:
        """Cut-out of a drawn battery with random place, neighbours, light and belt speed."""
        rng = np.random.default_rng([seed, 77])
        item = random_item(label, seed)
        nearby = []
        if rng.random() < 0.5:
            neighbour = random_item(str(rng.choice(self.types)), seed + 1_000_003)
            nearby = [(neighbour, float(rng.choice([-1, 1]) * rng.uniform(75, 110)))]
        renderer = self._drawn[seed % len(self._drawn)]
        frame = renderer.render(item, items_nearby=nearby, **_conditions(rng))
        return self.cut_out_frame(frame)

    def empty(self, seed: int) -> Cutout:
        """Cut-out of a bare belt."""
        rng = np.random.default_rng([seed, 78])
        return self.cut_out_frame(self._drawn[seed % len(self._drawn)].render(None, **_conditions(rng)))

    def junk(self, kind: str, number: int) -> Cutout:
        """Cut-out of a hand, packaging, or two batteries at once: one of `JUNK_KINDS`."""
        return self.cut_out_frame(self._strangers.render(kind, number)[1])

    def on_belt(self, pixels: np.ndarray, seed: int) -> Cutout:
        """Cut-out of a photograph that lies on the belt."""
        rng = np.random.default_rng([seed, 79])
        scene = self._drawn[int(rng.integers(len(self._drawn)))].scene
        frame = photograph_on_belt(scene, pixels, seed, **_conditions(rng))
        return self.cut_out_frame(frame)

    def cut_out_frame(self, frame: np.ndarray) -> Cutout:
        """Through the sensor's colour filter and back, then cut out."""
        height, width = frame.shape[:2]
        raw = to_bayer(frame)
        return self._preprocessing.cut_out(decode(raw.tobytes(), "bayer_rggb8", height, width, width))


def to_bayer(rgb: np.ndarray) -> np.ndarray:
    """What a sensor with an RGGB filter records of ``rgb``: uint8 (h, w)."""
    raw = np.empty(rgb.shape[:2], np.uint8)
    raw[0::2, 0::2] = rgb[0::2, 0::2, 0]
    raw[0::2, 1::2] = rgb[0::2, 1::2, 1]
    raw[1::2, 0::2] = rgb[1::2, 0::2, 1]
    raw[1::2, 1::2] = rgb[1::2, 1::2, 2]
    return raw


def random_item(label: str, seed: int) -> DrawnItem:
    """A battery of the type with random size, direction, place and wear."""
    rng = np.random.default_rng([seed, 80])
    length, diameter = BATTERY_SIZES_MM[rng.integers(len(BATTERY_SIZES_MM))]
    dx, dy = rng.uniform(-5, 5, 2)
    return DrawnItem(
        label=label,
        length_mm=length,
        diameter_mm=diameter,
        angle_rad=float(rng.uniform(0, 2 * np.pi)),
        offset_mm=(float(dx), float(dy)),
        wear=float(rng.uniform(0, 0.9)),
        seed=seed,
    )


def augment(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`augment_cutout` for pictures (uint8 RGB) whose mask is of no interest."""
    return augment_cutout(Cutout(pixels, "whole", np.ones(pixels.shape[:2], bool)), rng).pixels


def augment_cutout(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    """A cut-out as it might also have been: end for end, shifted, other light, out of focus, partly covered.

    Light varies somewhat more than a belt's should (white balance ± 12 %, brightness ± 25 %), and so does contrast.
    """
    pixels, mask = cutout.pixels, cutout.mask
    height, width = pixels.shape[:2]
    turn = 180.0 * rng.integers(2) + rng.uniform(-5, 5)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, float(rng.uniform(0.86, 1.08)))
    matrix[:, 2] += rng.uniform(-0.03, 0.03, 2) * width
    pixels = cv2.warpAffine(pixels, matrix, (width, height), borderValue=(127, 127, 127))
    mask = cv2.warpAffine(mask.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST).astype(bool)
    if rng.random() < 0.4:
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 1.4)))
    pixels = _in_other_light(pixels, rng)
    if rng.random() < 0.25:
        w, h = int(rng.integers(8, width // 5)), int(rng.integers(8, height // 4))
        x, y = int(rng.integers(0, width - w)), int(rng.integers(height // 4, 3 * height // 4 - h))
        pixels[y : y + h, x : x + w] = rng.integers(40, 220, 3)
    return Cutout(pixels, cutout.foreground, mask)


def _in_other_light(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    gain = rng.uniform(0.6, 1.35) * rng.uniform(0.85, 1.15, 3)
    levels = 255 * (np.arange(256)[:, None] / 255 * gain) ** rng.uniform(0.8, 1.25)
    lit = cv2.LUT(pixels, levels.astype(np.float32)[None])
    return cv2.add(lit, 4 * rng.standard_normal(pixels.shape, np.float32), dtype=cv2.CV_8U)


def relight(pixels: np.ndarray, gain: Any) -> np.ndarray:
    """Pixels times ``gain`` (a number, or one per channel), uint8."""
    return np.asarray(np.clip(pixels * np.asarray(gain), 0, 255).astype(np.uint8))


def blurred(pixels: np.ndarray) -> np.ndarray:
    """Out of focus, by a 300th of the picture's longer side."""
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), max(pixels.shape[:2]) / 300))


def turned(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """The whole picture turned about its middle, on what its edge looks like on average."""
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
    size = (round(width * cos + height * sin), round(width * sin + height * cos))
    matrix[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    border = tuple(float(value) for value in np.median(edge, axis=0))
    return np.asarray(cv2.warpAffine(pixels, matrix, size, borderValue=border))


def flips(cutout: Cutout) -> list[Cutout]:
    """The cut-out end for end, and both mirrored."""
    turned = Cutout(cutout.pixels[::-1, ::-1], cutout.foreground, cutout.mask[::-1, ::-1])
    mirrored = [Cutout(view.pixels[:, ::-1], view.foreground, view.mask[:, ::-1]) for view in (cutout, turned)]
    return [turned, *mirrored]


def on_background(pixels: np.ndarray, rng: np.random.Generator, kind: str = "") -> np.ndarray | None:
    """A studio photograph before another background; None where it has no white one to be taken away.

    Args:
        pixels: uint8 RGB (h, w, 3).
        rng: Chooses colour, texture and light.
        kind: ``dark``, ``coloured`` or ``textured``; by chance where empty.
    """
    mask = background_mask(pixels)
    if mask is None:
        return None
    height, width = pixels.shape[:2]
    kind = kind or str(rng.choice(["dark", "coloured", "textured"]))
    colour = rng.uniform(15, 70) * rng.uniform(0.85, 1.15, 3) if kind == "dark" else rng.uniform(30, 225, 3)
    slope = np.linspace(-1, 1, width)[:, None] * rng.uniform(-15, 15)
    behind = 2 * rng.standard_normal((height, width, 3), np.float32) + (colour + slope).astype(np.float32)
    if kind == "textured":
        grain = rng.standard_normal((max(2, height // 12), max(2, width // 40)), np.float32)
        behind += 12 * cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    # A rim of the studio's white would give the battery away: it is worn off, and the edge is soft.
    soft = cv2.GaussianBlur(cv2.erode(255 - mask, np.ones((5, 5), np.uint8)), (0, 0), 1.2)
    alpha = (soft / np.float32(255))[..., None]
    return np.asarray(np.clip(behind + alpha * (pixels - behind), 0, 255).astype(np.uint8))


DISTURBANCES: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "warmer 12 %": lambda pixels: relight(pixels, (1.12, 1.0, 0.88)),
    "colder 12 %": lambda pixels: relight(pixels, (0.88, 1.0, 1.12)),
    "greener 12 %": lambda pixels: relight(pixels, (0.88, 1.12, 0.88)),
    "brighter 25 %": lambda pixels: relight(pixels, 1.25),
    "darker 25 %": lambda pixels: relight(pixels, 0.75),
    "blurred": blurred,
    "turned 30°": lambda pixels: turned(pixels, 30),
    "turned 90°": lambda pixels: turned(pixels, 90),
    "dark background": lambda pixels: on_background(pixels, _own_rng(pixels), "dark"),
    "coloured background": lambda pixels: on_background(pixels, _own_rng(pixels), "coloured"),
    "textured background": lambda pixels: on_background(pixels, _own_rng(pixels), "textured"),
}
"""What may go wrong with a picture (uint8 RGB); None where it can't be done to this one."""


def _own_rng(pixels: np.ndarray) -> np.random.Generator:
    """The same for the same picture."""
    return np.random.default_rng([int(pixels[::7, ::7].sum()), 61])


class _Conditions(TypedDict):
    speed_mps: float
    t_s: float


def _conditions(rng: np.random.Generator) -> _Conditions:
    return {"speed_mps": float(rng.uniform(0.3, 1.25)), "t_s": float(rng.uniform(0, 1000))}

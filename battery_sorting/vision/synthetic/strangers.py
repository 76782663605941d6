"""Pictures of what belongs into no product bin: brands that no model knows, and what else comes along a belt.

    python -m battery_sorting.vision.synthetic.strangers DIR --count 30 --seed 0

writes a folder for each kind, as `battery-sorting evaluate type --strangers DIR` takes them. They only resemble the
real thing; they tell whether a model has learnt what a known battery looks like, or merely what tells known
batteries apart.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from battery_sorting.vision.synthetic.forms import FORMS_MM, TYPE_FORMS
from battery_sorting.vision.synthetic.renderer import HEIGHT, PX_PER_MM, WIDTH, DrawnRenderer, Sprite
from battery_sorting.vision.synthetic.wrappers import TYPES, UNKNOWN_BRANDS, VARIANTS, draw_wrapper

JPEG_QUALITY = 95
SKIN = ((236, 188, 160), (214, 160, 128), (176, 120, 88), (120, 78, 56), (60, 98, 164))
"""Of four people, and of a work glove."""
CARDBOARD = ((178, 142, 100), (232, 230, 224), (90, 94, 98))
FILM = 0.12


@dataclass(frozen=True, slots=True)
class Stray:
    """A battery in the picture, as `renderer.Item`."""

    label: str
    length_mm: float
    diameter_mm: float
    angle_rad: float
    offset_mm: tuple[float, float]
    wear: float
    seed: int


class StrangerRenderer:
    """Frames, uint8 (1024, 1280, 3) RGB, of each kind of stranger; the same for the same number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._drawn = [DrawnRenderer(seed + n) for n in range(3)]
        self.kinds: dict[str, Callable[[int, np.random.Generator], tuple[str, np.ndarray]]] = {
            "unknown_brand": self._unknown_brand,
            "empty_belt": self._empty_belt,
            "hand": self._hand,
            "packaging": self._packaging,
            "two_batteries": self._two_batteries,
        }

    def render(self, kind: str, number: int) -> tuple[str, np.ndarray]:
        """What it shows, as a word, and the frame."""
        return self.kinds[kind](number, np.random.default_rng([self._seed, number, list(self.kinds).index(kind)]))

    def _unknown_brand(self, number: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """By turns one of the brands that were designed to resemble known types, and one that nobody designed."""
        brand = UNKNOWN_BRANDS[number // 2 % len(UNKNOWN_BRANDS)]
        label = brand if number % 2 == 0 else f"stranger {self._seed} {number}"
        return label, self._frame(number, rng, [_stray(label, rng)])

    def _empty_belt(self, number: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        return "belt", self._frame(number, rng, [])

    def _two_batteries(self, number: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """Two known batteries side by side or crossed, in the middle together."""
        first, second = (str(label) for label in rng.choice(TYPES, 2))
        angle = float(rng.uniform(0, 2 * math.pi))
        turned = angle + rng.choice([0.0, math.pi, rng.uniform(0.3, 2.8)])
        one = _stray(first, rng, angle, (0.0, 0.0))
        apart = one.diameter_mm * rng.uniform(0.3, 0.65)
        across = np.array([-math.sin(angle), math.cos(angle)]) * apart
        strays = [
            _stray(label, rng, direction, (float(sign * across[0]), float(sign * across[1])))
            for label, direction, sign in ((first, angle, 1), (second, turned, -1))
        ]
        return f"{first}+{second}", self._frame(number, rng, strays)

    def _hand(self, number: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """A hand that reaches in from an edge, every second time over a battery."""
        reaches_for = number % 2 == 0
        strays = [_stray(str(rng.choice(TYPES)), rng)] if reaches_for else []
        angle = float(rng.uniform(0, 2 * math.pi))
        tip = np.array([WIDTH / 2, HEIGHT / 2]) + rng.uniform(-90, 90, 2)
        sprite, reach = draw_hand(rng)
        centre = tip - reach * np.array([math.cos(angle), math.sin(angle)])
        thing = (sprite, (float(centre[0]), float(centre[1])), angle)
        return "over battery" if reaches_for else "alone", self._frame(number, rng, strays, [thing])

    def _packaging(self, number: int, rng: np.random.Generator) -> tuple[str, np.ndarray]:
        """A printed box, or a blister card with two to four batteries under film."""
        label = str(rng.choice(TYPES))
        sprite = draw_box(label, rng) if number % 2 == 0 else self._blister(label, rng)
        centre = (WIDTH / 2 + float(rng.uniform(-60, 60)), HEIGHT / 2 + float(rng.uniform(-60, 60)))
        thing = (sprite, centre, float(rng.uniform(0, 2 * math.pi)))
        return f"{'box' if number % 2 == 0 else 'blister'} {label}", self._frame(number, rng, [], [thing])

    def _blister(self, label: str, rng: np.random.Generator) -> Sprite:
        """Batteries of one type side by side on a card, film over them."""
        count = int(rng.integers(2, 5))
        length, diameter = FORMS_MM[TYPE_FORMS[label][0]]
        pitch = (diameter + 1.5) * PX_PER_MM
        size = (round((length + 16) * PX_PER_MM), round(count * pitch + 14 * PX_PER_MM))
        scene = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        scene[:] = CARDBOARD[int(rng.integers(len(CARDBOARD)))]
        for n in range(count):
            across = (n - (count - 1) / 2) * pitch / PX_PER_MM
            stray = replace(_stray(label, rng, 0.0, (0.0, across)), length_mm=length, diameter_mm=diameter)
            self._drawn[0].lay_battery(scene, stray, 0.0)
        scene = np.asarray(cv2.addWeighted(scene, 1 - FILM, np.full_like(scene, 255), FILM, 0), np.uint8)
        width, height = min(size[0], WIDTH), min(size[1], HEIGHT)
        left, top = (WIDTH - width) // 2, (HEIGHT - height) // 2
        card = scene[top : top + height, left : left + width].copy()
        return Sprite.of(card, np.full((height, width), 255, np.uint8))

    def _frame(
        self,
        number: int,
        rng: np.random.Generator,
        strays: list[Stray],
        things: list[tuple[Sprite, tuple[float, float], float]] | None = None,
    ) -> np.ndarray:
        """Batteries on a belt, further things (sprite, centre, angle) on top of them, exposed."""
        renderer = self._drawn[number % len(self._drawn)]
        frame = renderer.scene.empty(rng)
        for stray in strays:
            renderer.lay_battery(frame, stray, 0.0)
        for sprite, centre, angle in things or []:
            renderer.scene.lay(frame, sprite, centre, angle)
        return renderer.scene.expose(frame, rng, float(rng.uniform(0.3, 1.25)), float(rng.uniform(0, 1000)))


def draw_hand(rng: np.random.Generator) -> tuple[Sprite, float]:
    """A hand with its forearm, fingers to the right, and how far (pixels) its fingertips are from its middle."""
    height, width = 900, 1900
    alpha = np.zeros((height, width), np.uint8)
    wrist, middle = (900, height // 2), (1120, height // 2)
    cv2.line(alpha, (0, height // 2), wrist, 255, int(rng.integers(280, 360)), cv2.LINE_AA)
    cv2.ellipse(alpha, middle, (290, 230), 0, 0, 360, 255, -1, cv2.LINE_AA)
    lines = np.zeros_like(alpha)
    for n, (length, thick) in enumerate(((430, 88), (500, 96), (480, 96), (390, 80))):
        start = (middle[0] + 120, middle[1] + round((n - 1.5) * 112))
        lean = (n - 1.5) * rng.uniform(0.05, 0.16)
        end = (start[0] + round(length * math.cos(lean)), start[1] + round(length * math.sin(lean)))
        cv2.line(alpha, start, end, 255, thick, cv2.LINE_AA)
        cv2.line(lines, (start[0], start[1] + thick // 2), (end[0], end[1] + thick // 2), 255, 5, cv2.LINE_AA)
    cv2.line(alpha, (middle[0] - 60, middle[1] - 150), (middle[0] + 230, middle[1] - 380), 255, 110, cv2.LINE_AA)
    skin = np.array(SKIN[int(rng.integers(len(SKIN)))], np.float32)
    small = cv2.resize(alpha, (width // 4, height // 4), interpolation=cv2.INTER_AREA)  # so wide a blur is slow
    depth = cv2.resize(cv2.GaussianBlur(small, (0, 0), 7), (width, height)).astype(np.float32)[..., None] / 255
    crease = cv2.GaussianBlur(lines, (0, 0), 4).astype(np.float32)[..., None] / 255
    pixels = np.clip(skin * (0.55 + 0.45 * depth) * (1 - 0.3 * crease), 0, 255).astype(np.uint8)
    return Sprite.of(pixels, alpha), middle[0] + 620 - width / 2


def draw_box(label: str, rng: np.random.Generator) -> Sprite:
    """The face of a carton, printed in the colours of a type."""
    width, height = (round(value * PX_PER_MM) for value in rng.uniform((58, 38), (96, 70)))
    print_ = draw_wrapper(label, int(rng.integers(VARIANTS))).pixels
    pixels = cv2.resize(print_, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.rectangle(pixels, (0, 0), (width - 1, height - 1), CARDBOARD[0], 14)
    return Sprite.of(pixels, np.full((height, width), 255, np.uint8))


def binned(frame: np.ndarray) -> np.ndarray:
    """What the cell sees of a frame: each 2 × 2 pixels of the sensor's colour filter make one."""
    green = (frame[0::2, 1::2, 1].astype(np.uint16) + frame[1::2, 0::2, 1]) // 2
    return np.dstack([frame[0::2, 0::2, 0], green.astype(np.uint8), frame[1::2, 1::2, 2]])


def write_strangers(folder: Path, count: int, seed: int) -> list[Path]:
    """Write ``count`` pictures of each kind into a folder of its own; returns their paths."""
    renderer = StrangerRenderer(seed)
    written = []
    for kind in renderer.kinds:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            shown, frame = renderer.render(kind, number)
            path = folder / kind / f"{number:04d} {shown}.jpg"
            rgb = binned(frame)
            cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            written.append(path)
    return written


def _stray(
    label: str,
    rng: np.random.Generator,
    angle_rad: float | None = None,
    offset_mm: tuple[float, float] | None = None,
) -> Stray:
    forms = TYPE_FORMS.get(label, ("AA", "AAA"))
    length, diameter = FORMS_MM[forms[int(rng.integers(len(forms)))]]
    dx, dy = rng.uniform(-5, 5, 2)
    return Stray(
        label=label,
        length_mm=length,
        diameter_mm=diameter,
        angle_rad=float(rng.uniform(0, 2 * math.pi)) if angle_rad is None else angle_rad,
        offset_mm=(float(dx), float(dy)) if offset_mm is None else offset_mm,
        wear=float(rng.uniform(0, 0.9)),
        seed=int(rng.integers(2**31)),
    )


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m battery_sorting.vision.synthetic.strangers",
        description="Draws what belongs into no product bin.",
    )
    parser.add_argument("folder", type=Path, help="gets a folder for each kind")
    parser.add_argument("--count", type=int, default=30, help="pictures of each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    try:
        written = write_strangers(arguments.folder, arguments.count, arguments.seed)
    except OSError as error:
        parser.error(f"{arguments.folder}: can't be written ({error.strerror}): give another folder")
    print(f"{arguments.folder}: {len(written)} pictures")


if __name__ == "__main__":
    main()

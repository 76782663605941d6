"""Wrappers of household batteries, drawn unrolled: nine types of the BatSort paper, and brands that are none.

A wrapper is a uint8 RGB array of `WRAPPER_LENGTH` columns (along the battery, plus end at the right) and
`WRAPPER_GIRTH` rows (once around it).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

WRAPPER_LENGTH = 505
WRAPPER_GIRTH = 456
VARIANTS = 4
"""Editions of each wrapper: other texts, shades and proportions, as a brand changes them over the years."""

Rgb = tuple[int, int, int]
BLACK: Rgb = (22, 22, 24)
WHITE: Rgb = (240, 240, 238)
SILVER: Rgb = (196, 199, 204)
GREY: Rgb = (128, 130, 134)
COPPER: Rgb = (200, 128, 84)
GOLD: Rgb = (206, 168, 96)
RED: Rgb = (206, 32, 36)
YELLOW: Rgb = (244, 208, 28)
BLUE: Rgb = (32, 72, 168)
GREEN: Rgb = (64, 150, 60)
ORANGE: Rgb = (238, 132, 32)


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A wrapper ready to be rolled around a battery. ``gloss`` (0..1) is how metallic it shines."""

    pixels: np.ndarray
    gloss: float


class Canvas:
    """An unrolled wrapper under the brush. Positions: x from 0 (minus end) to 1 (plus end), angle in degrees."""

    def __init__(self, colour: Rgb) -> None:
        self.pixels = np.empty((WRAPPER_GIRTH, WRAPPER_LENGTH, 3), np.uint8)
        self.pixels[:] = colour

    def band(self, start: float, end: float, colour: Rgb) -> None:
        """Paint a ring around the battery."""
        self.pixels[:, _column(start) : _column(end)] = colour

    def panel(self, start: float, end: float, angle: float, width: float, colour: Rgb) -> None:
        """Paint a rectangle that spans ``width`` degrees around ``angle``."""
        self.pixels[_rows(angle, width), _column(start) : _column(end)] = colour

    def lettering(
        self,
        text: str,
        x: float,
        angle: float,
        height: int,
        colour: Rgb,
        *,
        bold: bool = True,
        slant: float = 0.0,
        outline: Rgb | None = None,
    ) -> None:
        """Write ``text`` along the battery, centred at (x, angle), ``height`` pixels high."""
        mask = _text_mask(text, height, bold, slant)
        if outline is not None:
            self._stamp(cv2.dilate(mask, np.ones((7, 7), np.uint8)), x, angle, outline)
        self._stamp(mask, x, angle, colour)

    def lines(
        self, x: float, angle: float, width: float, count: int, colour: Rgb, rng: np.random.Generator
    ) -> None:
        """Small print: ``count`` lines of it, ``width`` long."""
        for line in range(count):
            words = " ".join("".join(rng.choice(list("aeinorstlcmd"), rng.integers(2, 9))) for _ in range(9))
            length = max(4, int(width * 58 * rng.uniform(0.7, 1.0)))
            self.lettering(words[:length], x, angle + 9.0 * line, 11, colour, bold=False)

    def swoosh(self, x: float, angle: float, size: float, colour: Rgb, *, width: int) -> None:
        """A crescent that crosses the wrapper, ``size`` a fraction of the length."""
        mask = np.zeros((WRAPPER_GIRTH, WRAPPER_LENGTH), np.uint8)
        centre = (_column(x), WRAPPER_GIRTH // 2)
        axes = (int(size * WRAPPER_LENGTH), int(0.24 * WRAPPER_GIRTH))
        cv2.ellipse(mask, centre, axes, 0, -75, 75, 255, width, cv2.LINE_AA)
        shift = round(angle / 360 * WRAPPER_GIRTH) - WRAPPER_GIRTH // 2
        self._blend(np.roll(mask, shift, axis=0), colour)

    def slashes(self, start: float, end: float, angle: float, count: int, colour: Rgb) -> None:
        """Oblique strokes side by side."""
        step = (end - start) / count
        for n in range(count):
            left = _column(start + n * step)
            right = _column(start + (n + 0.5) * step)
            top = round(angle / 360 * WRAPPER_GIRTH)
            corners = np.array([[left, top], [right, top], [right + 22, top + 60], [left + 22, top + 60]])
            cv2.fillConvexPoly(self.pixels, corners.astype(np.int32), colour, cv2.LINE_AA)

    def bin_sign(self, x: float, angle: float, colour: Rgb) -> None:
        """The crossed-out wheeled bin."""
        mask = np.zeros((WRAPPER_GIRTH, WRAPPER_LENGTH), np.uint8)
        cx, cy = _column(x), WRAPPER_GIRTH // 2
        cv2.rectangle(mask, (cx - 10, cy - 12), (cx + 10, cy + 12), 255, 2, cv2.LINE_AA)
        cv2.line(mask, (cx - 18, cy - 18), (cx + 18, cy + 18), 255, 2, cv2.LINE_AA)
        cv2.line(mask, (cx - 18, cy + 18), (cx + 18, cy - 18), 255, 2, cv2.LINE_AA)
        self._blend(np.roll(mask, round(angle / 360 * WRAPPER_GIRTH) - cy, axis=0), colour)

    def _stamp(self, mask: np.ndarray, x: float, angle: float, colour: Rgb) -> None:
        height, width = mask.shape
        left = _column(x) - width // 2
        cut = slice(max(0, -left), min(width, WRAPPER_LENGTH - left))
        if cut.stop <= cut.start:
            return
        rows = (round(angle / 360 * WRAPPER_GIRTH) - height // 2 + np.arange(height)) % WRAPPER_GIRTH
        columns = slice(left + cut.start, left + cut.stop)
        alpha = mask[:, cut, None].astype(np.float32) / 255
        under = self.pixels[rows, columns].astype(np.float32)
        self.pixels[rows, columns] = (under + alpha * (_float(colour) - under)).astype(np.uint8)

    def _blend(self, mask: np.ndarray, colour: Rgb) -> None:
        alpha = mask[..., None].astype(np.float32) / 255
        self.pixels = (self.pixels + alpha * (_float(colour) - self.pixels)).astype(np.uint8)


def draw_wrapper(name: str, variant: int) -> Wrapper:
    """Edition ``variant`` of the wrapper of a type or brand.

    ``unknown_1``, ``unknown_2``, … stand for `UNKNOWN_BRANDS`; any other name gets a look of its own.
    """
    prefix, _, number = name.partition("_")
    if prefix == "unknown" and number.isdecimal():
        name = UNKNOWN_BRANDS[(int(number) - 1) % len(UNKNOWN_BRANDS)]
    rng = np.random.default_rng([zlib.crc32(name.encode()), variant])
    design, gloss = DESIGNS.get(name, (_any_brand, 0.4))
    canvas = design(rng)
    return Wrapper(_tint(canvas.pixels, rng), gloss)


def _tint(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    gain = rng.uniform(0.94, 1.06) * rng.uniform(0.98, 1.02, 3)
    return np.clip(pixels * gain, 0, 255).astype(np.uint8)


def _float(colour: Rgb) -> np.ndarray:
    return np.array(colour, np.float32)


def _column(x: float) -> int:
    return round(min(max(x, 0.0), 1.0) * WRAPPER_LENGTH)


def _rows(angle: float, width: float) -> np.ndarray:
    first = round((angle - width / 2) / 360 * WRAPPER_GIRTH)
    return np.arange(first, first + round(width / 360 * WRAPPER_GIRTH)) % WRAPPER_GIRTH


def _text_mask(text: str, height: int, bold: bool, slant: float) -> np.ndarray:
    font, thickness = (cv2.FONT_HERSHEY_DUPLEX, 3) if bold else (cv2.FONT_HERSHEY_SIMPLEX, 1)
    scale = height / 22.0
    (width, _), baseline = cv2.getTextSize(text, font, scale, thickness)
    lean = int(abs(slant) * height) + 4
    mask = np.zeros((height + 2 * baseline + 12, width + 2 * lean + 8), np.uint8)
    cv2.putText(mask, text, (lean, height + baseline), font, scale, 255, thickness, cv2.LINE_AA)
    if slant:
        shear = np.array([[1, -slant, slant * height], [0, 1, 0]])
        return np.asarray(cv2.warpAffine(mask, shear, (mask.shape[1], mask.shape[0])))
    return mask


def _size(rng: np.random.Generator) -> str:
    return str(rng.choice(["AA", "AA", "AAA"]))


def _duracell(rng: np.random.Generator) -> Canvas:
    canvas = Canvas(BLACK)
    cap = rng.uniform(0.66, 0.74)
    copper: Rgb = COPPER if rng.random() < 0.7 else (206, 142, 78)
    canvas.band(cap, 1.0, copper)
    if rng.random() < 0.4:
        canvas.band(cap - 0.07, cap, (88, 88, 92))
        canvas.lettering("ALKALINE", cap - 0.035, 90, 12, WHITE, bold=False)
    for angle in (60, 240):
        canvas.lettering("DURACELL", cap / 2, angle, 46, WHITE)
        canvas.lettering("+", (cap + 1) / 2, angle + 20, 34, BLACK)
    canvas.lettering(str(rng.choice(["ALKALINE BATTERY", "PLUS POWER", "MN1500 LR6 1.5V"])), cap / 2, 96, 18, WHITE)
    canvas.lines(cap / 2, 130, 0.55, 6, GREY, rng)
    canvas.lettering(_size(rng), (cap + 1) / 2, 130, 20, BLACK)
    canvas.bin_sign(0.1, 320, WHITE)
    return canvas


def _energizer(rng: np.random.Generator, body: Rgb, top: Rgb, cap: float) -> Canvas:
    canvas = Canvas(body)
    canvas.band(cap, 1.0, top)
    letters = WHITE if sum(top) < 300 else BLACK
    for angle in (60, 240):
        canvas.lettering(f"+ | {_size(rng)}", (cap + 1) / 2, angle, 26, letters)
    canvas.lines(0.35, 130, 0.6, 7, GREY, rng)
    canvas.lines(0.3, 310, 0.5, 4, GREY, rng)
    return canvas


def _energizer_alk(rng: np.random.Generator) -> Canvas:
    cap = rng.uniform(0.68, 0.76)
    dark = rng.random() < 0.3
    canvas = _energizer(rng, BLACK if dark else SILVER, BLACK, cap)
    if dark:
        canvas.band(0.0, 0.06, SILVER)
    canvas.band(cap, cap + 0.012, WHITE)
    for angle in (60, 240):
        canvas.swoosh(0.42, angle, 0.26, WHITE, width=58)
        canvas.swoosh(0.40, angle, 0.25, RED, width=34)
        canvas.swoosh(0.44, angle, 0.26, YELLOW, width=10)
        canvas.lettering(
            "Energizer", 0.33, angle, 44, WHITE if dark else BLACK, slant=0.2, outline=None if dark else WHITE
        )
    canvas.lettering("MAX", 0.42, 100, 26, RED, slant=0.2, outline=WHITE)
    return canvas


def _energizer_ind(rng: np.random.Generator) -> Canvas:
    cap = rng.uniform(0.70, 0.78)
    canvas = _energizer(rng, (222, 224, 228), BLACK, cap)
    for angle in (60, 240):
        canvas.swoosh(0.46, angle, 0.24, BLACK, width=50)
        canvas.swoosh(0.44, angle, 0.23, YELLOW, width=36)
        canvas.lettering("Energizer", 0.33, angle, 44, BLACK, slant=0.2, outline=WHITE)
        canvas.lettering("INDUSTRIAL", 0.40, angle + 36, 28, YELLOW, slant=0.2, outline=BLACK)
    return canvas


def _energizer_li(rng: np.random.Generator) -> Canvas:
    cap = rng.uniform(0.76, 0.82)
    canvas = _energizer(rng, (204, 208, 216), (186, 190, 198), cap)
    for line in (0.0, 0.025):
        canvas.band(cap - 0.02 + line, cap - 0.01 + line, (40, 96, 170))
    blue: Rgb = (36, 88, 176) if rng.random() < 0.6 else (52, 130, 196)
    for angle in (60, 240):
        canvas.swoosh(0.50, angle, 0.22, blue, width=26)
        canvas.swoosh(0.54, angle, 0.21, (150, 180, 214), width=8)
        canvas.lettering("Energizer", 0.32, angle, 44, (24, 26, 40), slant=0.2, outline=(230, 232, 236))
        canvas.lettering("ULTIMATE LITHIUM", 0.40, angle + 34, 24, blue, slant=0.15)
    canvas.panel(0.84, 0.97, 100, 30, BLACK)
    canvas.lettering("12-2036", 0.905, 100, 12, WHITE, bold=False)
    return canvas


def _exell(rng: np.random.Generator, body: Rgb, chemistry: str) -> Canvas:
    canvas = Canvas(body)
    ink: Rgb = (30, 40, 30)
    capacity = int(rng.choice([600, 800, 1000, 1500, 2000]))
    name = "EXELL " if rng.random() < 0.7 else ""
    thick = bool(rng.random() < 0.4)
    canvas.lettering(f"+ {name}{chemistry} AA{capacity}mAh 1.2V -", 0.5, 90, 20, ink, bold=thick)
    canvas.lettering("Made in China", 0.5, 112, 16, ink, bold=False)
    if rng.random() < 0.5:
        canvas.bin_sign(0.3, 290, ink)
        canvas.lettering("Rechargeable battery", 0.6, 290, 14, ink, bold=False)
    return canvas


def _exell_green(rng: np.random.Generator) -> Canvas:
    shades: list[Rgb] = [(108, 152, 66), (150, 196, 108), (132, 190, 92), (66, 150, 84), (118, 196, 130)]
    return _exell(rng, shades[rng.integers(len(shades))], "Ni-MH")


def _exell_yellow(rng: np.random.Generator) -> Canvas:
    shades: list[Rgb] = [(224, 212, 92), (236, 222, 80), (240, 214, 60), (246, 190, 48)]
    return _exell(rng, shades[rng.integers(len(shades))], "Ni-Cd")


def _gp(rng: np.random.Generator) -> Canvas:
    canvas = Canvas(GOLD)
    edition = int(rng.integers(3))
    if edition:
        accent = GREEN if edition == 1 else ORANGE
        canvas.band(0.38, 0.84, (214, 216, 218))
        canvas.band(0.84, 1.0, accent)
    else:
        canvas.band(0.96, 1.0, (150, 112, 52))
    word = ("ALKALINE", "Super", "Ultra")[edition]
    for angle in (60, 240):
        canvas.lettering("GP", 0.18, angle, 66, BLACK)
        ink: Rgb = BLACK if edition == 0 else (176, 134, 60)
        canvas.lettering(word, 0.6, angle - 6, 46, ink, outline=WHITE if edition else None)
        canvas.lettering("ALKALINE BATTERY", 0.61, angle + 28, 15, BLACK, bold=False)
    canvas.lines(0.5, 135, 0.6, 5, (96, 76, 40), rng)
    return canvas


def _ikea(rng: np.random.Generator) -> Canvas:
    yellow: Rgb = (232, 206, 44)
    canvas = Canvas(yellow)
    if rng.random() < 0.65:
        canvas.band(0.0, rng.uniform(0.42, 0.5), (206, 208, 210))
    grey: Rgb = (150, 150, 132)
    for angle in (60, 240):
        canvas.lettering("ALKALISK", 0.7, angle - 12, 40, grey)
        for line, text in enumerate(("1.5V LR6", "AA-AM3-MN1500", "0% Cadmium/Mercury")):
            canvas.lettering(text, 0.72, angle + 16 + 14 * line, 16, BLACK, bold=line == 0)
        canvas.panel(0.05, 0.24, angle, 34, BLACK)
        canvas.panel(0.058, 0.232, angle, 28, WHITE)
        canvas.lettering("IKEA", 0.145, angle, 24, BLACK)
        canvas.bin_sign(0.34, angle + 40, BLACK)
    canvas.lettering("+", 0.85, 150, 26, BLACK)
    return canvas


def _klarus(rng: np.random.Generator) -> Canvas:
    red: Rgb = (204, 30, 34)
    if rng.random() < 0.5:
        canvas = Canvas(red)
        canvas.band(0.86, 1.0, BLACK)
        canvas.band(0.0, 0.10, BLACK)
        letters = WHITE
        canvas.panel(0.2, 0.8, 90, 56, BLACK)
    else:
        canvas = Canvas(BLACK)
        canvas.band(0.90, 1.0, red)
        canvas.band(0.0, 0.10, red)
        letters = red
        canvas.slashes(0.5, 0.85, 130, 5, red)
        canvas.panel(0.1, 0.9, 205, 40, red)
    capacity = int(rng.choice([2600, 3100, 3400, 3600, 5000]))
    canvas.lettering(f"{capacity}mAh", 0.5, 90, 44, WHITE)
    canvas.lettering("KLARUS", 0.5, 245, 52, letters if letters is not red else WHITE)
    canvas.lettering("Li-ion 18650 3.6V", 0.5, 62, 16, WHITE, bold=False)
    canvas.lines(0.5, 300, 0.55, 4, WHITE, rng)
    canvas.lettering("WARNING", 0.4, 285, 16, WHITE, bold=False)
    return canvas


def _panasonic_blue(rng: np.random.Generator) -> Canvas:
    canvas = Canvas((28, 66, 160))
    canvas.band(0.0, 0.12, SILVER)
    for angle in (60, 240):
        canvas.lettering("Panasonic", 0.52, angle, 42, WHITE)
        canvas.lettering("METAL", 0.5, angle + 40, 24, RED, outline=YELLOW)
    canvas.lines(0.5, 140, 0.5, 4, SILVER, rng)
    return canvas


def _procell(rng: np.random.Generator) -> Canvas:
    canvas = Canvas((228, 146, 48))
    canvas.panel(0.0, 0.92, 60, 80, BLACK)
    canvas.panel(0.0, 0.92, 240, 80, BLACK)
    for angle in (60, 240):
        canvas.lettering("PROCELL", 0.48, angle, 46, WHITE)
    canvas.lines(0.5, 130, 0.6, 4, BLACK, rng)
    return canvas


def _eveready(rng: np.random.Generator) -> Canvas:
    canvas = Canvas((216, 216, 220))
    canvas.band(0.25, 0.95, (190, 22, 30))
    for angle in (60, 240):
        canvas.lettering("EVEREADY", 0.58, angle, 44, WHITE)
        canvas.lettering("9", 0.12, angle, 50, RED)
    canvas.lines(0.58, 120, 0.5, 3, WHITE, rng)
    return canvas


def _varta(rng: np.random.Generator) -> Canvas:
    canvas = Canvas((22, 48, 120))
    canvas.band(0.7, 0.86, (250, 214, 30))
    canvas.band(0.86, 1.0, SILVER)
    for angle in (60, 240):
        canvas.lettering("VARTA", 0.36, angle, 58, (250, 214, 30))
    canvas.lines(0.35, 120, 0.5, 5, SILVER, rng)
    return canvas


def _eneloop(rng: np.random.Generator) -> Canvas:
    canvas = Canvas((244, 245, 246))
    canvas.band(0.9, 1.0, (210, 222, 236))
    for angle in (60, 240):
        canvas.lettering("eneloop", 0.45, angle, 50, (40, 110, 190))
    canvas.lines(0.45, 110, 0.5, 4, GREY, rng)
    return canvas


def _energizer_recharge(rng: np.random.Generator) -> Canvas:
    canvas = _energizer(rng, (222, 226, 224), (196, 202, 200), 0.78)
    canvas.band(0.76, 0.80, (40, 150, 84))
    for angle in (60, 240):
        canvas.swoosh(0.46, angle, 0.24, (40, 150, 84), width=36)
        canvas.lettering("Energizer", 0.33, angle, 44, BLACK, slant=0.2)
        canvas.lettering("recharge", 0.45, angle + 36, 28, (40, 150, 84), slant=0.2)
    return canvas


def _duracell_recharge(rng: np.random.Generator) -> Canvas:
    canvas = Canvas((52, 158, 84))
    canvas.band(0.74, 1.0, COPPER)
    for angle in (60, 240):
        canvas.lettering("DURACELL", 0.38, angle, 46, WHITE)
        canvas.lettering("Rechargeable", 0.38, angle + 34, 20, WHITE)
    canvas.lines(0.4, 130, 0.5, 5, WHITE, rng)
    return canvas


def _duracell_quantum(rng: np.random.Generator) -> Canvas:
    canvas = Canvas((164, 22, 38))
    canvas.band(0.74, 1.0, COPPER)
    canvas.band(0.62, 0.74, BLACK)
    for angle in (60, 240):
        canvas.lettering("DURACELL", 0.32, angle, 40, WHITE)
        canvas.lettering("QUANTUM", 0.32, angle + 32, 28, SILVER)
    canvas.lines(0.35, 130, 0.45, 5, WHITE, rng)
    return canvas


def _rayovac(rng: np.random.Generator) -> Canvas:
    canvas = Canvas((40, 44, 60))
    canvas.band(0.0, 0.3, (40, 160, 200))
    for angle in (60, 240):
        canvas.lettering("RAYOVAC", 0.64, angle, 44, WHITE)
    canvas.lettering("FUSION", 0.16, 60, 26, WHITE)
    canvas.lines(0.6, 120, 0.5, 4, GREY, rng)
    return canvas


def _toshiba(rng: np.random.Generator) -> Canvas:
    canvas = Canvas((150, 30, 90))
    canvas.band(0.8, 1.0, (236, 236, 236))
    for angle in (60, 240):
        canvas.lettering("TOSHIBA", 0.42, angle, 46, WHITE)
        canvas.lettering("Heavy Duty", 0.42, angle + 34, 24, YELLOW)
    canvas.lines(0.42, 130, 0.5, 4, WHITE, rng)
    return canvas


def _lifepo4(rng: np.random.Generator) -> Canvas:
    canvas = Canvas((198, 200, 196))
    canvas.lettering("LiFePO4 Battery 3.2V 600mAh", 0.5, 90, 22, BLACK, bold=False)
    canvas.lettering("Made in China", 0.5, 112, 16, BLACK, bold=False)
    canvas.lines(0.5, 270, 0.5, 2, BLACK, rng)
    return canvas


def _blue_shrink(rng: np.random.Generator) -> Canvas:
    canvas = Canvas((56, 130, 214))
    canvas.lettering("Ni-Cd AA 800mAh 1.2V CHINA", 0.5, 90, 22, BLACK)
    canvas.bin_sign(0.8, 130, BLACK)
    canvas.lines(0.5, 270, 0.4, 2, BLACK, rng)
    return canvas


def _any_brand(rng: np.random.Generator) -> Canvas:
    """A brand that does not exist: unlike the known types in colour, bands and name."""
    hue = rng.choice([rng.uniform(85, 165), rng.uniform(5, 14)])
    body = _from_hsv(hue, rng.uniform(60, 230), rng.uniform(50, 230))
    second = _from_hsv(rng.uniform(0, 180), rng.uniform(0, 220), rng.uniform(40, 245))
    canvas = Canvas(body)
    for _ in range(rng.integers(1, 4)):
        start = rng.uniform(0.0, 0.85)
        canvas.band(start, start + rng.uniform(0.02, 0.3), second)
    letters = "".join(rng.choice(list("ABDEFGHLMNOPRSTUVXZ"), rng.integers(4, 9)))
    ink = WHITE if sum(body) < 380 else BLACK
    for angle in (60, 240):
        canvas.lettering(letters, rng.uniform(0.4, 0.6), angle, int(rng.integers(30, 56)), ink)
    canvas.lines(0.5, 130, 0.5, int(rng.integers(2, 7)), ink, rng)
    return canvas


def _from_hsv(hue: float, saturation: float, value: float) -> Rgb:
    pixel = np.array([[[hue, saturation, value]]]).astype(np.uint8)
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


Design = Callable[[np.random.Generator], Canvas]
KNOWN: dict[str, tuple[Design, float]] = {
    "Duracell_Alk": (_duracell, 0.7),
    "Energizer_Alk": (_energizer_alk, 0.7),
    "Energizer_Ind": (_energizer_ind, 0.5),
    "Energizer_Li": (_energizer_li, 0.8),
    "Exell_Green": (_exell_green, 0.25),
    "Exell_Yellow": (_exell_yellow, 0.25),
    "GP_Alk": (_gp, 0.9),
    "IKEA_Alk": (_ikea, 0.6),
    "Klarus": (_klarus, 0.3),
}
UNKNOWN: dict[str, tuple[Design, float]] = {
    "Panasonic_Metal": (_panasonic_blue, 0.6),
    "Procell": (_procell, 0.5),
    "Eveready": (_eveready, 0.6),
    "Varta": (_varta, 0.6),
    "Eneloop": (_eneloop, 0.3),
    "Energizer_Recharge": (_energizer_recharge, 0.6),
    "Duracell_Recharge": (_duracell_recharge, 0.6),
    "Duracell_Quantum": (_duracell_quantum, 0.7),
    "Rayovac": (_rayovac, 0.6),
    "Toshiba": (_toshiba, 0.4),
    "LiFePO4_Shrink": (_lifepo4, 0.2),
    "NiCd_Blue_Shrink": (_blue_shrink, 0.2),
}
DESIGNS = KNOWN | UNKNOWN
TYPES = tuple(KNOWN)
UNKNOWN_BRANDS = tuple(UNKNOWN)

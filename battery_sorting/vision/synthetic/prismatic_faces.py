"""Paints the faces of a prismatic cell: cover with its lugs, bottom, and large face, with wear and defects.

Every face is painted flat, seen from outside; `prismatic` folds the faces around the cell and photographs
it. What is random about a face comes from the cell's seed and the face's name alone, what is random about a defect
from a generator of its own, so the same cell can be painted with and without it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

LENGTH_MM, WIDTH_MM, HEIGHT_MM = 148.0, 27.0, 98.0
LUG_X_MM = (23.0, 125.0)
LUG_MM = (23.0, 17.0)
COVER_CODE_MM, CASE_CODE_MM = 20.0, 28.0
QUIET_ZONE = 1.29  # side of the paper over that of the code
COVER_CODE_X_MM = 97.0

Colour = Sequence[float]

ALUMINIUM: Colour = (206, 203, 199)
COPPER: Colour = (112, 142, 190)
SLEEVES: dict[str, Colour] = {
    "blue": (168, 92, 32),
    "navy": (92, 52, 30),
    "black": (44, 42, 42),
    "white": (222, 224, 222),
    "green": (92, 140, 52),
    "bare": (176, 174, 170),
    "grey": (124, 122, 118),
    "orange": (48, 128, 224),
    "cyan": (196, 168, 72),
}
COVERS: dict[str, Colour] = {
    "metal": (190, 188, 184),
    "black": (50, 48, 48),
    "white": (218, 220, 218),
    "film": (160, 96, 44),
    "grey": (138, 136, 130),
}
STAINS: dict[str, Colour] = {
    "burn": (34, 52, 82),
    "soot": (36, 38, 42),
    "verdigris": (136, 152, 70),
    "salt": (238, 242, 240),
    "electrolyte": (72, 146, 176),
    "rust": (44, 78, 140),
}
DIRT: tuple[Colour, ...] = ((66, 74, 84), (48, 48, 50), (92, 106, 122), (120, 126, 130))


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect: ``kind`` is the class folder's name, ``variant`` how it shows, ``severity`` 0 (hidden) to 1."""

    kind: str
    severity: float
    variant: str
    seed: int


@dataclass(frozen=True, slots=True)
class Wear:
    """What use has left on a good cell, each 0 to 1: none of it is a defect."""

    scuffs: float
    dust: float
    dirt: float
    glue: float
    tarnish: float
    label_wear: float


def face_rng(seed: int, name: str) -> np.random.Generator:
    """The generator of one face or one layer of a cell."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def fork(rng: np.random.Generator) -> np.random.Generator:
    """A generator for as many numbers as there are pixels: what is drawn next doesn't depend on the resolution."""
    return np.random.default_rng(int(rng.integers(2**63)))


def patches(rng: np.random.Generator, shape: tuple[int, int], cell_px: float) -> np.ndarray:
    """Smooth noise, float32 of ``shape``, mean 0 and standard deviation about 1, with features of ``cell_px``."""
    height, width = (max(3, math.ceil(side / max(cell_px, 1.0)) + 2) for side in shape)
    coarse = fork(rng).standard_normal((height, width), np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC) * np.float32(1.35)


class Face:
    """A face while it is painted: ``pixels`` uint8 (height, width, 3) BGR; lengths are in mm from the top left."""

    def __init__(self, width_mm: float, height_mm: float, px_per_mm: float, colour: Colour) -> None:
        self.k = px_per_mm
        self.width_mm, self.height_mm = width_mm, height_mm
        self.pixels: np.ndarray = np.empty((round(height_mm * px_per_mm), round(width_mm * px_per_mm), 3), np.uint8)
        self.pixels[:] = np.array(colour, np.uint8)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def point(self, x_mm: float, y_mm: float) -> tuple[int, int]:
        """Pixel of a place."""
        return round(x_mm * self.k), round(y_mm * self.k)

    def polygon(self, points_mm: np.ndarray) -> np.ndarray:
        """Pixels of an outline, (n, 2)."""
        return np.round(points_mm * self.k).astype(np.int32)

    def line_px(self, width_mm: float) -> int:
        """Width of a line, at least one pixel."""
        return max(1, round(width_mm * self.k))

    def fill(self, points_mm: np.ndarray, colour: Colour) -> None:
        """Fill a polygon."""
        cv2.fillPoly(self.pixels, [self.polygon(points_mm)], colour, cv2.LINE_AA)

    def disc(self, x_mm: float, y_mm: float, radius_mm: float, colour: Colour, width_mm: float = 0.0) -> None:
        """A filled disc or, with a width, a ring."""
        width_px = self.line_px(width_mm) if width_mm else -1
        cv2.circle(
            self.pixels, self.point(x_mm, y_mm), max(1, round(radius_mm * self.k)), colour, width_px, cv2.LINE_AA
        )

    def stroke(self, points_mm: np.ndarray, colour: Colour, width_mm: float, *, closed: bool = False) -> None:
        """A line through points."""
        cv2.polylines(self.pixels, [self.polygon(points_mm)], closed, colour, self.line_px(width_mm), cv2.LINE_AA)

    def text(self, text: str, x_mm: float, y_mm: float, height_mm: float, colour: Colour) -> None:
        """Text with its base line at ``y_mm``."""
        scale = height_mm * self.k / 21.0
        width_px = max(1, round(height_mm * self.k / 9.0))
        cv2.putText(
            self.pixels,
            text,
            self.point(x_mm, y_mm),
            cv2.FONT_HERSHEY_SIMPLEX,
            scale,
            colour,
            width_px,
            cv2.LINE_AA,
        )

    def blend(self, colour: Colour, alpha: np.ndarray, left_px: int = 0, top_px: int = 0) -> None:
        """Lay ``colour`` over the face as far as ``alpha`` (0 to 1) covers it.

        The corner of ``alpha`` is at ``left_px``, ``top_px``.
        """
        left, top = max(0, left_px), max(0, top_px)
        right = min(self.shape[1], left_px + alpha.shape[1])
        bottom = min(self.shape[0], top_px + alpha.shape[0])
        if right <= left or bottom <= top:
            return
        region = self.pixels[top:bottom, left:right]
        cover = alpha[top - top_px : bottom - top_px, left - left_px : right - left_px]
        cover = np.ascontiguousarray(np.clip(cover, 0, 1), np.float32)
        paint = np.empty(region.shape, np.uint8)
        paint[:] = np.clip(colour, 0, 255)
        region[:] = cv2.blendLinear(np.ascontiguousarray(region), paint, 1 - cover, cover)

    def shade(self, factor: np.ndarray) -> None:
        """Multiply the brightness."""
        self.pixels = cv2.multiply(self.pixels, cv2.merge([factor.astype(np.float32)] * 3), dtype=cv2.CV_8U)

    def mask(self, draw: Callable[[np.ndarray], object]) -> np.ndarray:
        """What ``draw`` paints with 255 into an empty uint8 picture, as float32 0 to 1."""
        empty = np.zeros(self.shape, np.uint8)
        draw(empty)
        return empty.astype(np.float32) / 255

    def polygon_mask(self, points_mm: np.ndarray) -> np.ndarray:
        """Cover of a polygon, 0 to 1."""
        return self.mask(lambda empty: cv2.fillPoly(empty, [self.polygon(points_mm)], 255, cv2.LINE_AA))


def rectangle(x_mm: float, y_mm: float, width_mm: float, height_mm: float, cut_mm: float = 0.0) -> np.ndarray:
    """Corners (n, 2) of a rectangle around a middle, its corners cut by ``cut_mm``."""
    a, b, c = width_mm / 2, height_mm / 2, cut_mm
    if c <= 0:
        corners = [(-a, -b), (a, -b), (a, b), (-a, b)]
    else:
        corners = [
            (c - a, -b),
            (a - c, -b),
            (a, c - b),
            (a, b - c),
            (a - c, b),
            (c - a, b),
            (-a, b - c),
            (-a, c - b),
        ]
    outline: np.ndarray = np.array(corners) + np.array((x_mm, y_mm))
    return outline


def print_code(
    face: Face,
    text: str,
    x_mm: float,
    y_mm: float,
    side_mm: float,
    ink: Colour = (32, 30, 30),
    paper: Colour = (236,) * 3,
) -> None:
    """The serial number as a QR code (version 1, level M) around a middle, with its quiet zone."""
    settings = cv2.QRCodeEncoder.Params()
    settings.version = 1
    settings.correction_level = cv2.QRCodeEncoder_CORRECT_LEVEL_M
    modules = cv2.QRCodeEncoder.create(settings).encode(text)[2:-2, 2:-2]
    side = round(side_mm * face.k)
    face.fill(rectangle(x_mm, y_mm, side_mm * QUIET_ZONE, side_mm * QUIET_ZONE), paper)
    left, top = face.point(x_mm - side_mm / 2, y_mm - side_mm / 2)
    dark = cv2.resize(
        255 - modules, (side, side), interpolation=cv2.INTER_AREA if side < 84 else cv2.INTER_NEAREST_EXACT
    )
    face.blend(ink, dark.astype(np.float32) / 255, left, top)


# ---- the cover ----


def paint_cover(
    serial: str, seed: int, cover: str, wear: Wear, defect: Defect | None, px_per_mm: float
) -> np.ndarray:
    """The cover with its two lugs, pressure-relief hole, polarity marks and code: uint8 (27, 148 mm, 3) BGR."""
    rng = face_rng(seed, "cover")
    face = Face(LENGTH_MM, WIDTH_MM, px_per_mm, COVERS[cover])
    _grain(face, rng, brushed=cover == "metal")
    _rim(face, rng)
    _vent(face, rng)
    paper = (float(rng.uniform(205, 245)),) * 3
    _cover_print(face, rng, serial, dark_cover=sum(COVERS[cover]) < 330)
    damaged_lug = int(np.random.default_rng(defect.seed).integers(2)) if defect else None
    positive_first = rng.random() < 0.5
    shape = str(rng.choice(["plate", "round", "post"]))
    copper_both = rng.random() < 0.12
    frame_colour = [(40, 40, 42), (214, 216, 214), (120, 118, 116), (140, 84, 40)][int(rng.integers(4))]
    clear = _code_clear_mask(face, COVER_CODE_X_MM, WIDTH_MM / 2, COVER_CODE_MM)
    lugs = np.zeros(face.shape, np.float32)
    for number, x_mm in enumerate(LUG_X_MM):
        copper = copper_both or (number == 0) != positive_first
        hit = defect if number == damaged_lug else None
        mask = _lug(face, face_rng(seed, f"lug {number}"), x_mm, shape, copper, frame_colour, wear, hit)
        lugs = np.maximum(lugs, mask)
    _dirt(face, face_rng(seed, "cover dirt"), wear, clear * (1 - 0.85 * lugs))
    _glue(face, face_rng(seed, "cover glue"), wear.glue * 0.6, clear * (1 - lugs))
    _scuffs(face, face_rng(seed, "cover scuffs"), wear.scuffs, 18)
    _dust(face, face_rng(seed, "cover dust"), wear.dust, clear)
    print_code(face, serial, COVER_CODE_X_MM, WIDTH_MM / 2, COVER_CODE_MM, paper=paper)
    return face.pixels


def _code_clear_mask(face: Face, x_mm: float, y_mm: float, side_mm: float) -> np.ndarray:
    """1 where something may lie, 0 over the code, so that it stays readable."""
    mask = 1 - face.polygon_mask(rectangle(x_mm, y_mm, side_mm * QUIET_ZONE, side_mm * QUIET_ZONE))
    return cv2.blur(mask, (face.line_px(1.0), face.line_px(1.0)))


def _grain(face: Face, rng: np.random.Generator, *, brushed: bool) -> None:
    lines = fork(rng).standard_normal((face.shape[0], max(4, face.shape[1] // (24 if brushed else 2))), np.float32)
    fine = cv2.resize(lines, (face.shape[1], face.shape[0]), interpolation=cv2.INTER_LINEAR)
    coarse = patches(rng, face.shape, 22 * face.k)
    face.shade(1 + (0.035 if brushed else 0.015) * fine + 0.03 * coarse)


def _rim(face: Face, rng: np.random.Generator) -> None:
    """The weld between cover and can."""
    inset = rng.uniform(0.8, 1.6)
    frame = rectangle(
        LENGTH_MM / 2, WIDTH_MM / 2, LENGTH_MM - 2 * inset, WIDTH_MM - 2 * inset, rng.uniform(0.5, 3.0)
    )
    tone = rng.uniform(60, 150)
    face.stroke(frame, (tone, tone, tone), rng.uniform(0.3, 0.9), closed=True)
    face.stroke(frame + 0.35, (215, 215, 215), 0.15, closed=True)


def _vent(face: Face, rng: np.random.Generator) -> None:
    """The pressure-relief hole with its burst disc, and the hole for the electrolyte."""
    x_mm, y_mm = 70 + rng.uniform(-3, 3), WIDTH_MM / 2
    width_mm, height_mm = rng.uniform(11, 16), rng.uniform(7, 10)
    tone = rng.uniform(110, 190)
    outline = np.array(cv2.ellipse2Poly((0, 0), (1000, 1000), 0, 0, 360, 12)) / 1000.0
    stadium = np.sign(outline) * np.abs(outline) ** rng.uniform(0.55, 1.0) * (width_mm / 2, height_mm / 2)
    face.fill(stadium * 1.12 + (x_mm, y_mm), (70, 70, 72))
    face.fill(stadium * 1.0 + (x_mm, y_mm), (tone, tone, tone))
    face.stroke(stadium * 0.72 + (x_mm, y_mm), (tone * 0.6,) * 3, 0.3, closed=True)
    if rng.random() < 0.6:
        face.stroke(
            np.array([(x_mm - width_mm * 0.33, y_mm), (x_mm + width_mm * 0.33, y_mm)]), (tone * 0.6,) * 3, 0.3
        )
    face.stroke(stadium[12:20] * 0.9 + (x_mm, y_mm), (240, 240, 240), 0.35)
    hole_mm = 48 + rng.uniform(-4, 4)
    face.disc(hole_mm, y_mm, 1.9, (90, 90, 92))
    face.disc(hole_mm, y_mm, 1.3, (tone * 0.8,) * 3)


def _cover_print(face: Face, rng: np.random.Generator, serial: str, *, dark_cover: bool) -> None:
    ink: Colour = (225, 225, 225) if dark_cover else (40, 40, 44)
    if rng.random() < 0.8:
        face.text("+", 37.0, 9.0, 4.0, (60, 60, 220) if rng.random() < 0.5 else ink)
        face.text("-", 139.5, 9.0, 4.0, ink)
    if rng.random() < 0.6:
        text = str(rng.choice(["LFP 3.2V", "50Ah", "3.2V 100Ah", "CALB", "EV-G2", serial[-6:]]))
        face.text(text, 40 + rng.uniform(-3, 1), 22.5, 2.2, ink)


def _lug(
    face: Face,
    rng: np.random.Generator,
    x_mm: float,
    shape: str,
    copper: bool,
    frame_colour: Colour,
    wear: Wear,
    defect: Defect | None,
) -> np.ndarray:
    """One lug in its plastic frame; gives its cover, 0 to 1."""
    y_mm = WIDTH_MM / 2
    width_mm, height_mm = LUG_MM[0] * rng.uniform(0.9, 1.05), LUG_MM[1] * rng.uniform(0.92, 1.05)
    if shape == "round":
        frame = rectangle(x_mm, y_mm, width_mm + 2, height_mm + 3, 4.0)
        outline = np.array(cv2.ellipse2Poly((0, 0), (1000, 1000), 0, 0, 360, 10)[:-1]) / 2000.0 * height_mm + (
            x_mm,
            y_mm,
        )
    else:
        frame = rectangle(x_mm, y_mm, width_mm + 3, height_mm + 3, 1.0)
        outline = rectangle(x_mm, y_mm, width_mm, height_mm, rng.uniform(0.4, 2.0))
    face.fill(frame + 0.5, (30, 30, 32))
    face.fill(frame, frame_colour)
    broken = defect if defect and defect.kind == "broken" else None
    damage = np.random.default_rng(defect.seed + 1) if defect else rng
    bend_mm, side = 0.0, 1
    if broken and broken.variant == "bent":
        side = 1 if damage.random() < 0.5 else -1
        outline, bend_mm = _bend(outline, broken.severity, damage, (x_mm, y_mm), side)
    shadow_mm = 0.5 + 0.35 * bend_mm
    face.blend((16, 16, 18), 0.55 * cv2.blur(face.polygon_mask(outline + shadow_mm), (face.line_px(0.8),) * 2))
    mask = face.polygon_mask(outline)
    if broken and broken.variant in ("corner", "torn"):
        mask = mask * (1 - _missing(face, outline, broken, damage))
    metal = _metal(face, rng, COPPER if copper else ALUMINIUM, wear, (x_mm, y_mm), shape)
    if broken and bend_mm:
        metal = _bent_light(face, metal, broken.severity, damage, x_mm, side)
    if broken and broken.variant in ("corner", "torn"):
        metal = _ragged_edge(face, metal, mask)
    if broken and broken.variant == "crack":
        _crack(face, metal, outline, broken, damage)
    if defect and defect.kind == "stained":
        _stain(face, metal, defect, damage, (x_mm, y_mm))
    face.pixels = (face.pixels + mask[..., None] * (metal.astype(np.float32) - face.pixels)).astype(np.uint8)
    return mask


def _metal(
    face: Face, rng: np.random.Generator, tone: Colour, wear: Wear, middle_mm: tuple[float, float], shape: str
) -> np.ndarray:
    """Metal with the ring light in it, and the weld marks and scratches of a lug that was in a pack."""
    x_mm, y_mm = middle_mm
    lug = Face(face.width_mm, face.height_mm, face.k, tone)
    left, right = (max(0, round((x_mm + side * 14) * face.k)) for side in (-1, 1))
    window = Face((right - left) / face.k, face.height_mm, face.k, tone)
    along = (window.shape[0], 4) if rng.random() < 0.5 else (4, window.shape[1])
    brushed = cv2.resize(
        fork(rng).standard_normal(along, np.float32), window.shape[::-1], interpolation=cv2.INTER_LINEAR
    )
    rows, columns = np.mgrid[0 : window.shape[0], 0 : window.shape[1]].astype(np.float32) / face.k
    radius = np.hypot(columns - (x_mm - left / face.k) - rng.uniform(-5, 5), rows - y_mm - rng.uniform(-4, 4))
    ring = np.exp(-(((radius - rng.uniform(3, 9)) / rng.uniform(1.0, 2.6)) ** 2)) * rng.uniform(0.05, 0.3)
    slope = (columns - columns.mean()) * rng.uniform(-0.008, 0.008) + (rows - y_mm) * rng.uniform(-0.01, 0.01)
    window.shade(
        rng.uniform(0.82, 1.08) + ring + slope + 0.035 * brushed + 0.02 * patches(rng, window.shape, 3 * face.k)
    )
    cx = x_mm - left / face.k
    if wear.tarnish > 0.05:
        dull = (tone[0] * 0.62, tone[1] * 0.7, tone[2] * 0.78)
        window.blend(dull, np.full(window.shape, 0.4 * wear.tarnish, np.float32))
    if shape == "post":
        window.disc(cx, y_mm, 4.6, tuple(min(255.0, part * 1.06) for part in tone))
        window.disc(cx, y_mm, 4.6, tuple(part * 0.55 for part in tone), 0.3)
        window.disc(cx, y_mm, 2.5, (52, 52, 54))
        window.disc(cx, y_mm, 1.9, (28, 28, 30))
    elif shape == "round":
        window.disc(cx, y_mm, 5.5, tuple(part * 0.72 for part in tone), 0.35)
    _weld_marks(window, rng, tone, cx)
    _scuffs(window, rng, 0.3 + 0.7 * wear.scuffs, 10)
    lug.pixels[:, left : left + window.shape[1]] = window.pixels[:, : lug.shape[1] - left]
    return lug.pixels


def _weld_marks(window: Face, rng: np.random.Generator, tone: Colour, cx: float) -> None:
    """Where a busbar was welded on and ground off: regular, so not a stain."""
    style = rng.random()
    if style < 0.35:
        y_mm = WIDTH_MM / 2
        darker = tuple(part * rng.uniform(0.72, 0.88) for part in tone)
        for dx in np.linspace(-7, 7, int(rng.integers(3, 7))):
            window.disc(cx + dx, y_mm + rng.uniform(-0.3, 0.3), rng.uniform(0.6, 1.0), darker)
    elif style < 0.55:
        half_mm = rng.uniform(3, 5)
        box = rectangle(cx, WIDTH_MM / 2, 2 * half_mm * 1.5, 2 * half_mm)
        window.stroke(box, tuple(part * 0.7 for part in tone), 0.5, closed=True)


def _bend(
    outline: np.ndarray, severity: float, rng: np.random.Generator, middle: tuple[float, float], side: int
) -> tuple[np.ndarray, float]:
    """The outline of a lug that was bent up on one side, and by how much in mm."""
    points = outline - middle
    beyond = np.clip(side * points[:, 0], 0, None)
    lifted = points.copy()
    lifted[:, 0] -= side * beyond * 0.42 * severity
    lifted[:, 1] += beyond * rng.choice([-1.0, 1.0]) * (0.08 + 0.34 * severity)
    lifted[:, 1] *= 1 + 0.012 * severity * beyond
    return lifted + middle, 1.0 + 5.0 * severity


def _bent_light(
    face: Face, metal: np.ndarray, severity: float, rng: np.random.Generator, x_mm: float, side: int
) -> np.ndarray:
    """Another light on the part that is bent, and the fold between."""
    columns = np.arange(metal.shape[1], dtype=np.float32) / face.k - x_mm
    fold_mm = rng.uniform(-1, 2)
    slope = 0.5 + 0.5 * np.tanh(side * (columns - fold_mm))
    factor = 1 + rng.choice([-1.0, 0.6]) * (0.1 + 0.55 * severity) * slope
    factor -= (0.1 + 0.4 * severity) * np.exp(-(((columns - fold_mm) / 0.5) ** 2))
    lit: np.ndarray = np.clip(metal * factor[None, :, None], 0, 255).astype(np.uint8)
    return lit


def _missing(face: Face, outline: np.ndarray, defect: Defect, rng: np.random.Generator) -> np.ndarray:
    """Cover of what has broken off: a corner, or a side that was torn away."""
    middle = (outline.min(0) + outline.max(0)) / 2
    if defect.variant == "corner":
        angle = math.radians(rng.choice([35.0, 145.0, 215.0, 325.0]) + rng.uniform(-12, 12))
        depth_mm = 1.0 + 7.5 * defect.severity
    else:
        angle = math.pi * rng.integers(2) + rng.uniform(-0.12, 0.12)
        depth_mm = 1.5 + 17.0 * defect.severity
    outward = np.array([math.cos(angle), math.sin(angle)])
    along = np.array([-outward[1], outward[0]])
    reach_mm = float(((outline - middle) @ outward).max())
    edge = middle + (reach_mm - depth_mm) * outward
    fracture = _jagged(rng, edge - 20 * along, edge + 20 * along, 0.3)
    return face.polygon_mask(
        np.vstack([fracture, edge + 20 * along + 40 * outward, edge - 20 * along + 40 * outward])
    )


def _jagged(rng: np.random.Generator, start: np.ndarray, end: np.ndarray, step_mm: float) -> np.ndarray:
    """A broken line from ``start`` to ``end``."""
    length = float(np.hypot(*(end - start)))
    count = max(4, int(length / 0.7))
    way = np.linspace(0, 1, count)[:, None]
    normal = np.array([-(end - start)[1], (end - start)[0]]) / max(length, 1e-6)
    wander = np.cumsum(rng.normal(0, step_mm, count))
    wander -= np.linspace(wander[0], wander[-1], count)
    line: np.ndarray = start + way * (end - start) + wander[:, None] * normal
    return line


def _ragged_edge(face: Face, metal: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Bright and dark along the fracture, as torn metal has."""
    inner = cv2.erode(mask, np.ones((face.line_px(0.5),) * 2, np.uint8))
    edge = np.clip(mask - inner, 0, 1)[..., None]
    ragged: np.ndarray = np.clip(metal * (1 - 0.35 * edge) + 20 * edge, 0, 255).astype(np.uint8)
    return ragged


def _crack(face: Face, metal: np.ndarray, outline: np.ndarray, defect: Defect, rng: np.random.Generator) -> None:
    low, high = outline.min(0), outline.max(0)
    middle, size = (low + high) / 2, high - low
    angle = rng.uniform(0, math.pi)
    direction = np.array([math.cos(angle), math.sin(angle)])
    start = middle + direction * size * 0.48
    end = start - direction * size * (0.2 + 0.8 * defect.severity)
    line = face.polygon(_jagged(rng, start, end, 0.4))
    width_mm = 0.16 + 0.85 * defect.severity
    cv2.polylines(metal, [line + 1], False, (232, 232, 232), face.line_px(width_mm), cv2.LINE_AA)
    depth = 0.35 + 0.6 * min(1.0, 1.6 * defect.severity)
    dark = face.mask(lambda empty: cv2.polylines(empty, [line], False, 255, face.line_px(width_mm), cv2.LINE_AA))
    metal[:] = (metal * (1 - depth * dark[..., None]) + 24 * depth * dark[..., None]).astype(np.uint8)


def _stain(
    face: Face,
    metal: np.ndarray,
    defect: Defect,
    rng: np.random.Generator,
    middle: tuple[float, float],
) -> None:
    """Irregular deposits, heat tint or corrosion on a lug."""
    severity = defect.severity
    left, top = max(0, round((middle[0] - 14) * face.k)), 0
    region = metal[:, left : round((middle[0] + 14) * face.k)]
    shape = (region.shape[0], region.shape[1])
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) / face.k
    cx = middle[0] - left / face.k + rng.uniform(-6, 6)
    cy = middle[1] + rng.uniform(-5, 5) + top
    radius_mm = 2.2 + 9.5 * severity
    field = 1.1 - np.hypot(columns - cx, rows - cy) / radius_mm
    field += 0.34 * patches(rng, shape, 3.5 * face.k) + 0.14 * patches(rng, shape, 1.0 * face.k)
    cover = 1 / (1 + np.exp(-field * (3 + 7 * rng.random())))
    alpha = cover * (0.22 + 0.68 * min(1.0, 1.25 * severity)) * (0.85 + 0.15 * patches(rng, shape, 0.6 * face.k))
    colour = np.array(STAINS[defect.variant], np.float32) * rng.uniform(0.85, 1.12)
    if np.abs(colour - region.reshape(-1, 3).mean(0)).max() < 70:  # of the lug's own colour, it shows by its edge
        colour *= 0.6
    tint = np.clip(colour + 10 * patches(rng, shape, 1.5 * face.k)[..., None], 0, 255)
    if defect.variant == "burn":  # heat tint around it
        halo = np.exp(-(((field + 0.2) / 0.35) ** 2))[..., None] * 0.3 * severity
        region[:] = np.clip(region * (1 - halo) + halo * np.array((150, 90, 120), np.float32), 0, 255).astype(
            np.uint8
        )
    alpha = np.clip(alpha, 0, 1)[..., None]
    region[:] = (region + alpha * (tint - region)).astype(np.uint8)


# ---- what lies on every face ----


def _dirt(face: Face, rng: np.random.Generator, wear: Wear, where: np.ndarray) -> None:
    """Smudges of grease and dirt."""
    if wear.dirt < 0.05:
        return
    sparse = patches(rng, face.shape, 26 * face.k)
    field = patches(rng, face.shape, rng.uniform(3, 12) * face.k) + 0.25 * patches(rng, face.shape, 1.2 * face.k)
    cover = np.clip((field + 0.8 * sparse - (2.7 - 1.5 * wear.dirt)) / rng.uniform(1.0, 3.0), 0, 1)
    colour = DIRT[int(rng.integers(len(DIRT)))]
    face.blend(colour, cover * (0.2 + 0.45 * wear.dirt) * where)


def _glue(face: Face, rng: np.random.Generator, amount: float, where: np.ndarray) -> None:
    """Rests of adhesive or pads: pale, straight, where a neighbour was bonded."""
    if amount < 0.15:
        return
    beads = int(rng.integers(1, 4))
    tone = [(176, 206, 214), (190, 190, 186), (130, 170, 190)][int(rng.integers(3))]
    cover = np.zeros(face.shape, np.float32)
    vertical = rng.random() < 0.5
    for _ in range(beads):
        x, y = rng.uniform(0.1, 0.9) * face.width_mm, rng.uniform(0.1, 0.9) * face.height_mm
        long_mm, wide_mm = rng.uniform(15, 60), rng.uniform(2, 9)
        size = (wide_mm, long_mm) if vertical else (long_mm, wide_mm)
        cover = np.maximum(cover, face.polygon_mask(rectangle(x, y, *size, 0.8)))
    rough = np.clip(0.6 + 0.5 * patches(rng, face.shape, 1.6 * face.k), 0, 1)
    face.blend(tone, cv2.blur(cover, (3, 3)) * rough * (0.2 + 0.5 * amount) * where)


def _scuffs(face: Face, rng: np.random.Generator, amount: float, most: int) -> None:
    for _ in range(int(rng.poisson(amount * most))):
        start = rng.uniform((0, 0), (face.width_mm, face.height_mm))
        angle, length_mm = rng.uniform(0, math.pi), rng.exponential(6.0)
        end = start + length_mm * np.array([math.cos(angle), math.sin(angle)])
        x, y = face.point(*start)
        if not (0 <= x < face.shape[1] and 0 <= y < face.shape[0]):
            continue
        lift = rng.uniform(-35, 45)
        colour = tuple(float(np.clip(part + lift, 0, 255)) for part in face.pixels[y, x])
        cv2.line(face.pixels, (x, y), face.point(*end), colour, face.line_px(rng.uniform(0.08, 0.3)), cv2.LINE_AA)


def _dust(face: Face, rng: np.random.Generator, amount: float, where: np.ndarray) -> None:
    count = int(rng.poisson(260 * amount * face.width_mm * face.height_mm / 4000))
    places = rng.uniform((0, 0), (face.width_mm, face.height_mm), (count, 2))
    for x_mm, y_mm in places:
        x, y = min(int(x_mm * face.k), face.shape[1] - 1), min(int(y_mm * face.k), face.shape[0] - 1)
        if where[y, x] > 0.5:
            tone = float(rng.uniform(70, 225))
            cv2.circle(face.pixels, (x, y), 0 if rng.random() < 0.7 else 1, (tone, tone, tone), -1, cv2.LINE_AA)


# ---- the case ----


def paint_large_face(
    serial: str | None,
    seed: int,
    sleeve: str,
    wear: Wear,
    defect: Defect | None,
    px_per_mm: float,
    light: np.ndarray,
) -> np.ndarray:
    """A large face with the cell's bottom edge above: uint8 (98, 148 mm, 3) BGR.

    Args:
        serial: Printed as a code; None on the face that bears none.
        seed: The cell's.
        sleeve: Name of its colour.
        wear: Wear of a good cell.
        defect: Painted if it is a leak; what changes the shape is the camera's part.
        px_per_mm: Resolution.
        light: Brightness by the shape, any shape (h, w), about 1; beyond it a gloss.
    """
    name = "coded face" if serial else "plain face"
    rng = face_rng(seed, name)
    face = Face(LENGTH_MM, HEIGHT_MM, px_per_mm, SLEEVES[sleeve])
    _grain(face, rng, brushed=sleeve == "bare")
    _sleeve_details(face, rng, sleeve)
    code_x_mm, code_y_mm = rng.uniform(22, 126), rng.uniform(20, 27)
    if rng.random() < 0.85:
        _label(face, rng, wear, (code_x_mm, code_y_mm) if serial else None)
    clear = np.ones(face.shape, np.float32)
    if serial:
        clear = _code_clear_mask(face, code_x_mm, code_y_mm, CASE_CODE_MM)
    _glue(face, face_rng(seed, name + " glue"), wear.glue, clear)
    _dirt(face, face_rng(seed, name + " dirt"), wear, clear)
    if defect and defect.kind == "leaking" and serial:
        _leak(face, defect, clear)
    _scuffs(face, face_rng(seed, name + " scuffs"), wear.scuffs, 50)
    _dust(face, face_rng(seed, name + " dust"), wear.dust, clear)
    if serial:
        print_code(face, serial, code_x_mm, code_y_mm, CASE_CODE_MM)
        face.text(serial, code_x_mm - 9, code_y_mm + 17.2, 1.7, (40, 40, 40))
    face.shade(cv2.resize(light, face.shape[::-1], interpolation=cv2.INTER_LINEAR))
    return face.pixels


def paint_bottom(
    seed: int, sleeve: str, wear: Wear, defect: Defect | None, px_per_mm: float, light: np.ndarray
) -> np.ndarray:
    """The bottom; its lower edge is that of the coded face. uint8 (27, 148 mm, 3) BGR. See `paint_large_face`."""
    rng = face_rng(seed, "bottom")
    open_bottom = rng.random() < 0.45
    face = Face(LENGTH_MM, WIDTH_MM, px_per_mm, SLEEVES["bare" if open_bottom else sleeve])
    _grain(face, rng, brushed=open_bottom)
    if not open_bottom and rng.random() < 0.7:  # folded film
        for x_mm in (rng.uniform(10, 16), LENGTH_MM - rng.uniform(10, 16)):
            tone = tuple(part * 0.8 for part in SLEEVES[sleeve])
            face.stroke(np.array([(x_mm, 0.0), (x_mm + rng.uniform(-4, 4), WIDTH_MM)]), tone, 0.4)
    else:
        face.stroke(
            rectangle(LENGTH_MM / 2, WIDTH_MM / 2, LENGTH_MM - 3, WIDTH_MM - 3, 2),
            (110, 110, 110),
            0.4,
            closed=True,
        )
    clear = np.ones(face.shape, np.float32)
    _glue(face, face_rng(seed, "bottom glue"), wear.glue, clear)
    _dirt(face, face_rng(seed, "bottom dirt"), wear, clear)
    if defect and defect.kind == "leaking":
        _leak_on_bottom(face, defect)
    _scuffs(face, face_rng(seed, "bottom scuffs"), wear.scuffs, 18)
    _dust(face, face_rng(seed, "bottom dust"), wear.dust, clear)
    face.shade(cv2.resize(light, face.shape[::-1], interpolation=cv2.INTER_LINEAR))
    return face.pixels


def paint_side(seed: int, sleeve: str, px_per_mm: float) -> np.ndarray:
    """A narrow side: uint8 (98, 27 mm, 3) BGR."""
    face = Face(WIDTH_MM, HEIGHT_MM, px_per_mm, SLEEVES[sleeve])
    _grain(face, face_rng(seed, "side"), brushed=False)
    face.shade(np.full(face.shape, 0.7, np.float32))
    return face.pixels


def _sleeve_details(face: Face, rng: np.random.Generator, sleeve: str) -> None:
    tone = SLEEVES[sleeve]
    lighter, darker = tuple(min(255.0, part * 1.18 + 8) for part in tone), tuple(part * 0.78 for part in tone)
    if sleeve != "bare":
        if rng.random() < 0.5:  # overlap of the film
            x_mm = rng.uniform(5, 143)
            face.stroke(np.array([(x_mm, 0.0), (x_mm + rng.uniform(-0.5, 0.5), HEIGHT_MM)]), darker, 0.3)
            face.stroke(np.array([(x_mm + 0.4, 0.0), (x_mm + 0.4, HEIGHT_MM)]), lighter, 0.2)
        for _ in range(int(rng.poisson(3))):  # wrinkles
            start = rng.uniform((0, 0), (LENGTH_MM, HEIGHT_MM))
            way = np.cumsum(rng.normal(0, 1.2, (5, 2)) + rng.normal(0, 2, 2), axis=0)
            face.stroke(start + way, lighter if rng.random() < 0.6 else darker, 0.25)
    edge = rng.uniform(1.0, 2.5)
    face.stroke(np.array([(0.0, edge), (LENGTH_MM, edge)]), darker, 0.3)


def _label(face: Face, rng: np.random.Generator, wear: Wear, code_at: tuple[float, float] | None) -> None:
    """A label of some maker, worn."""
    label = Face(rng.uniform(45, 95), rng.uniform(26, 42), face.k, (0, 0, 0))
    paper = [(232, 234, 236), (90, 206, 236), (196, 194, 190), (60, 60, 64), (214, 232, 226)][int(rng.integers(5))]
    ink: Colour = (230, 230, 230) if sum(paper) < 300 else (38, 36, 36)
    label.pixels[:] = paper
    accent = tuple(float(part) for part in rng.uniform(20, 235, 3))
    if rng.random() < 0.6:
        label.fill(rectangle(label.width_mm / 2, 3.5, label.width_mm, 7.0), accent)
    maker = str(rng.choice(["CALB", "EVE", "GOTION", "LISHEN", "SINOWATT", "BAK", "REPT"]))
    label.text(maker, 3, 6, 4.0, ink if rng.random() < 0.5 else (250, 250, 250))
    lines = ["LiFePO4 3.2V", "50Ah 160Wh", "Made in PRC", "Do not short", "LOT 21-0417", "UN38.3", "MAX 2C"]
    for row, text in enumerate(rng.permutation(lines)[: int(rng.integers(2, 5))]):
        label.text(str(text), 3, 12.5 + 4.2 * row, rng.uniform(1.8, 2.6), ink)
    if rng.random() < 0.5:  # bar code
        x_mm = label.width_mm - 24
        for _ in range(24):
            x_mm += rng.uniform(0.5, 1.1)
            if x_mm > label.width_mm - 3:
                break
            label.stroke(
                np.array([(x_mm, label.height_mm - 11), (x_mm, label.height_mm - 3)]), ink, rng.uniform(0.15, 0.5)
            )
    if rng.random() < 0.4:
        label.disc(label.width_mm - 10, 13, 4, ink, 0.5)
        label.stroke(np.array([(label.width_mm - 13, 16), (label.width_mm - 7, 10.0)]), ink, 0.5)
    kept: np.ndarray = np.ones(label.shape, np.float32)
    if wear.label_wear > 0.1:
        field = patches(rng, label.shape, 7 * face.k) + 0.6 * patches(rng, label.shape, 0.7 * face.k)
        rows, columns = (np.abs(np.linspace(-1, 1, side, dtype=np.float32)) ** 6 for side in label.shape)
        field += 1.2 * wear.label_wear * np.maximum(rows[:, None], columns[None, :])  # it begins at the edges
        kept = np.clip((3.1 - 1.5 * wear.label_wear - field) * 2, 0, 1) * (1 - 0.25 * wear.label_wear)
    if rng.random() < 0.3:
        label.pixels = np.ascontiguousarray(label.pixels[::-1, ::-1])
    left_mm = rng.uniform(4, max(5.0, LENGTH_MM - label.width_mm - 4))
    top_mm = (
        rng.uniform(47, HEIGHT_MM - label.height_mm - 3)
        if code_at
        else rng.uniform(6, HEIGHT_MM - label.height_mm - 3)
    )
    left, top = face.point(left_mm, top_mm)
    region = face.pixels[top : top + label.shape[0], left : left + label.shape[1]]
    height, width = region.shape[:2]
    region[:] = (
        region + kept[:height, :width, None] * (label.pixels[:height, :width].astype(np.float32) - region)
    ).astype(np.uint8)


def _leak_place(defect: Defect) -> float:
    """Where along the seam it leaks, mm."""
    return float(np.random.default_rng(defect.seed).uniform(15, LENGTH_MM - 15))


def _leak(face: Face, defect: Defect, clear: np.ndarray) -> None:
    """From the seam at the upper edge: a wet field, tracks, and crystals where it dried."""
    rng = np.random.default_rng(defect.seed + 1)
    x_mm, severity = _leak_place(defect), defect.severity
    rows, columns = np.mgrid[0 : face.shape[0], 0 : face.shape[1]].astype(np.float32) / face.k
    wide_mm, deep_mm = 3.0 + 24.0 * severity, 2.5 + 20.0 * severity
    field = 1.0 - np.hypot((columns - x_mm) / wide_mm, rows / deep_mm)
    field += 0.3 * patches(rng, face.shape, 5 * face.k) * (field > -1)
    if defect.variant != "crystals":
        for _ in range(int(rng.integers(1, 3 + int(4 * severity)))):
            track_x = x_mm + rng.normal(0, 0.45 * wide_mm)
            length_mm = (4 + 55 * severity) * rng.uniform(0.5, 1.2)
            half_mm = rng.uniform(0.5, 0.9 + 1.6 * severity)
            sway = track_x + np.cumsum(fork(rng).normal(0, 0.06, face.shape[0]))[:, None].astype(np.float32)
            track = 1.0 - np.abs(columns - sway) / half_mm
            track = np.where(
                rows < length_mm, track, 1 - np.hypot(columns - sway, rows - length_mm) / (1.5 * half_mm)
            )
            field = np.maximum(field, 0.9 * track)
    wet = 1 / (1 + np.exp(-np.clip(field, -4, 4) * 9))
    strength = 0.22 + 0.5 * min(1.0, 1.2 * severity)
    tone = [(30, 44, 56), (36, 40, 40), (50, 84, 104)][int(rng.integers(3))]
    if defect.variant != "crystals":
        face.blend(tone, wet * strength * (0.35 + 0.65 * clear))
        rim = np.exp(-((field / 0.12) ** 2)) * (0.12 + 0.4 * severity)
        face.blend((228, 232, 234), rim * clear)
        gloss = np.clip(patches(rng, face.shape, 2.2 * face.k) - 1.3, 0, 1) * wet
        face.blend((250, 250, 250), np.clip(gloss * (0.3 + 0.6 * severity), 0, 1) * clear)
    if defect.variant != "wet":
        coarse = fork(rng).random((face.shape[0] // 2 + 1, face.shape[1] // 2 + 1), np.float32)
        grain = cv2.resize(coarse, face.shape[::-1], interpolation=cv2.INTER_LINEAR)
        crust = np.clip(
            field * 2.2 + 0.9 + 1.2 * patches(rng, face.shape, 1.3 * face.k) - (1.7 - 0.7 * severity), 0, 1
        )
        face.blend((240, 244, 242), crust * np.clip(1.5 * grain, 0, 1) * (0.4 + 0.6 * severity) * clear)


def _leak_on_bottom(face: Face, defect: Defect) -> None:
    rng = np.random.default_rng(defect.seed + 2)
    rows, columns = np.mgrid[0 : face.shape[0], 0 : face.shape[1]].astype(np.float32) / face.k
    size_mm = 2.0 + 15.0 * defect.severity
    field = 1.0 - np.hypot((columns - _leak_place(defect)) / (1.3 * size_mm), (WIDTH_MM - rows) / size_mm)
    field += 0.3 * patches(rng, face.shape, 4 * face.k)
    wet = 1 / (1 + np.exp(-np.clip(field, -4, 4) * 9))
    if defect.variant == "crystals":
        grain = np.clip(0.5 + 0.6 * patches(rng, face.shape, 0.8 * face.k), 0, 1)
        face.blend((240, 244, 242), wet * grain * (0.4 + 0.5 * defect.severity))
    else:
        face.blend((40, 52, 60), wet * (0.22 + 0.4 * defect.severity))
        face.blend((228, 232, 234), np.exp(-((field / 0.12) ** 2)) * (0.1 + 0.35 * defect.severity))

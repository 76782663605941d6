"""From a camera frame or a photograph to what the network sees. Training and inference use this one class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from battery_sorting.core.errors import FrameError

Foreground = Literal["object", "whole", "none"]
"""What was cut out: an object, the whole picture (filled by what it shows), or nothing to be seen."""

CLOSE_UP = 1.9  # longer by shorter side of a picture that was cut around one battery; camera frames are squatter
DARK, BRIGHT = 60.0, 200.0
"""Grey levels of the background: the colour of a dark belt is its own, that of bright paper is the light's."""
CLIPPED = 254
"""Grey level from which on a channel may have been brighter than it shows."""
UNEVEN = 0.9  # CIELAB spread of the background; a belt's is above it, a studio's below
CARD_AREA = 0.2  # part of the picture; a D cell, the largest battery, covers 0.16 of a frame

LONGEST = 4.8
"""Length by breadth of the most slender battery (AAA) with something to spare."""
PIECE = 6  # pixels of the thumbnail; less is noise
BROADER = 1.15
"""Pieces in line with each other make a thing no broader than this by the largest one's breadth."""

CONVEX = 0.65  # least part of its convex hull that a single battery's mask covers

SINGULAR = 1e-7
"""Directions of the background fit that its samples determine less than this part of the best are left out."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """What the network sees, and how it was found.

    ``pixels`` is uint8 RGB (height, width, 3); ``mask``, bool (height, width), is True where they show the battery
    itself, and neither what it lies on nor the padding.
    """

    pixels: np.ndarray
    foreground: Foreground
    mask: np.ndarray


class Preprocessing(BaseModel):
    """Finds the battery, turns its long side level, letterboxes it to ``width`` × ``height``, normalises it.

    The battery is told from the belt (or a picture's background) on a thumbnail: the colour of the background is
    fitted to the picture's edge, what differs from it is foreground, and of several things the large one near the
    middle counts, since neighbours reach into the frame.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(default=256, ge=32, le=1024)
    height: int = Field(default=128, ge=32, le=1024)
    mean: tuple[float, float, float] = (0.498, 0.498, 0.498)
    std: tuple[float, float, float] = (0.502, 0.502, 0.502)
    margin: float = Field(
        default=0.03, ge=0, lt=0.5, description="added around the battery, as a fraction of its length"
    )
    padding: int = Field(default=127, ge=0, le=255, description="grey level beside the battery")
    hide_beyond: int | None = Field(
        default=None,
        ge=0,
        le=64,
        description="from so many pixels beyond the battery's mask on all is padding, so that what it lies on does "
        "not count; null: nothing is hidden. A second look always shows all",
    )
    thumbnail: int = Field(
        default=128, ge=64, le=640, description="longer side of the copy on which the battery is sought"
    )
    min_contrast: float = Field(default=13.0, gt=0, description="least CIELAB distance from the background")
    even_contrast: float = Field(
        default=7.0, gt=0, description="the same before a studio's even background: silver is nearly white"
    )
    strict_contrast: float = Field(default=35.0, gt=0, description="the same for a second look")
    max_tint: float = Field(
        default=0.22,
        ge=0,
        lt=1,
        description="a background whose channels are within this fraction of grey is taken for grey, and the white "
        "balance corrected by it; 0: never",
    )
    min_area: float = Field(
        default=0.004, gt=0, lt=1, description="least part of the picture that a battery covers"
    )
    max_area: float = Field(default=0.80, gt=0, le=1, description="a larger foreground is the whole picture")

    def __call__(self, rgb: np.ndarray) -> tuple[np.ndarray, Foreground]:
        """Input of the network, float32 (1, 3, height, width), and what was cut out.

        Raises:
            FrameError: Not a uint8 picture of shape (h, w, 3) with at least 8 × 8 pixels.
        """
        cutout = self.cut_out(rgb)
        return self.normalise(cutout.pixels), cutout.foreground

    def second_look(self, rgb: np.ndarray) -> Cutout:
        """A stricter cut-out: only what differs much from the background, not a shadow, a carton or a pattern.

        Nothing is hidden in it: where the first look left doubt, its mask may have been wrong.
        """
        strict = {"min_contrast": self.strict_contrast, "even_contrast": self.strict_contrast, "hide_beyond": None}
        return self.model_copy(update=strict).cut_out(rgb)

    def cut_out(self, rgb: np.ndarray) -> Cutout:
        """The battery, level and letterboxed. Errors as in `__call__`."""
        check_picture(rgb)
        mask = self._foreground(rgb)
        if mask is None:
            return self._letterbox(rgb, _Found.whole(rgb), "none")
        if not mask.any():
            return self._letterbox(rgb, _Found.whole(rgb), "whole")
        if _is_close_up(mask):
            return self._letterbox(rgb, _Found.whole(rgb), "whole")
        found = _Found.on_thumbnail(rgb, mask)
        if _is_card(mask, found.rectangle, found.scale):
            found = self._battery_on_card(rgb, found.rectangle) or found
        return self._letterbox(rgb, found, "object", _tint(rgb, self.max_tint))

    def _battery_on_card(self, rgb: np.ndarray, card: _Rectangle) -> _Found | None:
        """The battery on something flat and rectangular that lies on the belt, if one stands out from it."""
        left, top, inner = _interior(rgb, card)
        if min(inner.shape[:2]) < 8:
            return None
        mask = self._foreground(inner)
        if mask is None or not 0.03 < mask.mean() < 0.6 or _touches_edge(mask):
            return None
        return _Found.on_thumbnail(inner, mask).moved(left, top)

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """float32 (1, 3, height, width) of a cut-out."""
        tensor = np.empty((1, 3, *pixels.shape[:2]), np.float32)
        for channel, (plane, table) in enumerate(zip(cv2.split(pixels), _normal(self.mean, self.std), strict=True)):
            cv2.LUT(plane, table, tensor[0, channel])
        return tensor

    def _foreground(self, rgb: np.ndarray) -> np.ndarray | None:
        """Mask (bool, thumbnail's size) of the battery; all False: fills the picture; None: nothing there."""
        factor = min(1.0, self.thumbnail / max(rgb.shape[:2]))
        size = (max(8, round(rgb.shape[1] * factor)), max(8, round(rgb.shape[0] * factor)))
        small = _reduce(rgb, size)
        lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        distance, spread = _background_distance(lab)
        contrast = max(self.even_contrast, self.min_contrast * min(1.0, spread / UNEVEN), 3.0 * spread)
        differs = (distance > contrast).astype(np.uint8)
        kernel = np.ones((3, 3), np.uint8)
        closed = cv2.morphologyEx(differs, cv2.MORPH_CLOSE, kernel)
        mask = _most_central(np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, kernel)), whole=spread < UNEVEN)
        share = 0.0 if mask is None else float(mask.mean())
        if mask is None or share < self.min_area:
            return None
        return mask if share <= self.max_area else np.zeros_like(mask)

    def _letterbox(
        self, rgb: np.ndarray, found: _Found, foreground: Foreground, tint: np.ndarray | None = None
    ) -> Cutout:
        rectangle = found.rectangle
        length = rectangle.length * (1 + 2 * self.margin)
        breadth = rectangle.breadth + 2 * self.margin * rectangle.length
        scale = min(self.width / length, self.height / breadth)
        cos, sin = np.cos(rectangle.angle) * scale, np.sin(rectangle.angle) * scale
        rgb, shrink = _shrink(rgb, min(1.0, 2 * scale))
        matrix = np.array(
            [
                [cos / shrink, sin / shrink, self.width / 2 - cos * rectangle.x - sin * rectangle.y],
                [-sin / shrink, cos / shrink, self.height / 2 + sin * rectangle.x - cos * rectangle.y],
            ]
        )
        used = min(self.width, round(length * scale)), min(self.height, round(breadth * scale))
        left, top = (self.width - used[0]) // 2, (self.height - used[1]) // 2
        matrix[:, 2] -= left, top
        pixels: np.ndarray = np.full((self.height, self.width, 3), self.padding, np.uint8)
        inside = pixels[top : top + used[1], left : left + used[0]]
        inside[:] = cv2.warpAffine(rgb, matrix, used, borderValue=(self.padding,) * 3)
        if tint is not None:
            cv2.LUT(inside, _without(tint), inside)
        matrix[:, :2] *= shrink
        mask = np.zeros((self.height, self.width), bool)
        mask[top : top + used[1], left : left + used[0]] = found.warped(matrix, used)
        if foreground == "object" and self.hide_beyond is not None:
            hidden = np.full_like(pixels, self.padding)
            pixels = cv2.copyTo(pixels, _near(mask, self.hide_beyond), hidden)  # NumPy takes 0.6 ms for it
        return Cutout(pixels, foreground, mask)


@dataclass(frozen=True, slots=True)
class _Rectangle:
    """Centre, sides and direction (rad) of the long side, in pixels of the full picture."""

    x: float
    y: float
    length: float
    breadth: float
    angle: float


@dataclass(frozen=True, slots=True)
class _Found:
    """Where the battery is: its rectangle, and its mask on a thumbnail that begins at (left, top)."""

    rectangle: _Rectangle
    mask: np.ndarray
    scale: float
    left: int = 0
    top: int = 0

    @classmethod
    def on_thumbnail(cls, rgb: np.ndarray, mask: np.ndarray) -> _Found:
        scale = rgb.shape[1] / mask.shape[1]
        outline = _outline(mask)
        return cls(_level_rectangle(outline, scale), _solid(outline, mask.shape), scale)

    @classmethod
    def whole(cls, rgb: np.ndarray) -> _Found:
        return cls(_whole(rgb), np.ones(rgb.shape[:2], np.uint8), 1.0)

    def moved(self, left: int, top: int) -> _Found:
        rectangle = replace(self.rectangle, x=self.rectangle.x + left, y=self.rectangle.y + top)
        return replace(self, rectangle=rectangle, left=left, top=top)

    def warped(self, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The mask, bool (height, width), after ``matrix``, which takes the picture's pixels to the cut-out's."""
        to_picture = np.array(
            [
                [self.scale, 0, self.left + (self.scale - 1) / 2],
                [0, self.scale, self.top + (self.scale - 1) / 2],
                [0, 0, 1],
            ]
        )
        return np.asarray(cv2.warpAffine(255 * self.mask, matrix @ to_picture, size)) > 127


def check_picture(rgb: np.ndarray) -> None:
    """Raise `FrameError` unless ``rgb`` is a uint8 picture of at least 8 × 8 pixels with three channels."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise FrameError(f"picture of {rgb.dtype} {rgb.shape} can't be used; give uint8 (height, width, 3)")
    if min(rgb.shape[:2]) < 8:
        raise FrameError(f"picture of {rgb.shape[1]}×{rgb.shape[0]} pixels is too small; 8×8 is the least")


def _reduce(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture in a smaller size, without aliasing.

    Halves are several times as fast as one odd step, and agree with it while the last step averages enough pixels.
    """
    while min(rgb.shape[1] // size[0], rgb.shape[0] // size[1]) >= 4:
        rgb = cv2.resize(rgb, (rgb.shape[1] // 2, rgb.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))


def _tint(rgb: np.ndarray, most: float) -> np.ndarray | None:
    """What the light adds to each channel, float (3,), as far as the edge tells; None where it doesn't.

    These are the edge's channels divided by their mean, in full on a bright background and less on a darker one.
    """
    strips = (rgb[:4:2, ::8], rgb[-4::2, ::8], rgb[::8, :4:2], rgb[::8, -4::2])
    colour = np.median(np.concatenate([strip.reshape(-1, 3) for strip in strips]), axis=0)
    clipped = colour >= CLIPPED
    if clipped.sum() == 1:  # taken to be as much too bright as the other two are too dark
        colour[clipped] = 2 * 255 - colour[~clipped].mean()
    mean = colour.mean()
    trust = min(1.0, (mean - DARK) / (BRIGHT - DARK))
    if trust <= 0 or np.abs(colour - mean).max() > most * mean:
        return None
    return np.asarray((colour / mean) ** trust)


def _without(tint: np.ndarray) -> np.ndarray:
    """What each grey level of each channel becomes without the tint: uint8 (1, 256, 3)."""
    levels = np.arange(256)[:, None] / tint
    return np.asarray(np.clip(np.round(levels), 0, 255).astype(np.uint8)[None])


def _background_distance(lab: np.ndarray) -> tuple[np.ndarray, float]:
    """Distance of each pixel from the background (float32, CIELAB units) and the background's own spread.

    The background is a quadratic surface through the picture's edge; what lies on the edge itself (a neighbour, a
    battery that is cut off) is left out of the fit.
    """
    planes = lab.reshape(-1, 3).T.copy()
    terms, edge, samples = _quadratic(*lab.shape[:2])
    colours = planes.take(edge, axis=1)
    middle = _median(colours)
    keep = _distance(colours, middle) < 30
    for _ in range(3):
        if np.count_nonzero(keep) < 24:
            break
        kept = samples * keep
        fit = np.linalg.lstsq(kept @ samples.T, kept @ colours.T, rcond=SINGULAR)[0].T.astype(np.float32)
        residual = _distance(colours, fit @ terms.take(edge, axis=1))
        spread = float(_median(residual[keep])[0])
        keep = residual < max(6.0, 3 * spread)
    else:
        # Beyond the edge the surface may run away: it never leaves the colours that the edge has.
        surface = fit @ terms
        for plane, colour in zip(surface, colours[:, keep], strict=True):
            np.clip(plane, colour.min() - 3, colour.max() + 8, out=plane)
        return _distance(planes, surface).reshape(lab.shape[:2]), spread
    return _distance(planes, middle).reshape(lab.shape[:2]), 0.0


def _distance(colours: np.ndarray, other: np.ndarray) -> np.ndarray:
    """CIELAB distance (n,) of (3, n), lightness at three quarters: shadows and light count less than colour."""
    difference = colours - other
    difference[0] *= 0.75
    np.multiply(difference, difference, out=difference)
    return np.asarray(np.sqrt(difference.sum(axis=0)))


def _median(values: np.ndarray) -> np.ndarray:
    """Median along the last axis, which is kept; several times as fast as NumPy's on so few numbers."""
    middle = values.shape[-1] // 2
    return np.asarray(np.partition(values, middle, axis=-1)[..., middle : middle + 1])


@lru_cache(maxsize=8)
def _quadratic(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Terms of a quadratic surface over a picture, float32 (5, n), the pixels of its edge, and the terms there.

    The last are float64, for sums of their products are solved for the surface.
    """
    y, x = (axis.ravel() for axis in np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j])
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y])
    inner = np.zeros((height, width), bool)
    inner[3:-3, 3:-3] = True
    edge = np.flatnonzero(~inner)
    return terms.astype(np.float32), edge, terms[:, edge]


@lru_cache(maxsize=8)
def _normal(mean: tuple[float, ...], std: tuple[float, ...]) -> list[np.ndarray]:
    """Of each channel what its 256 grey levels become, float32 (256,)."""
    grey = np.arange(256, dtype=np.float32)
    pairs = zip(np.array(mean, np.float32), np.array(std, np.float32), strict=True)
    return [(grey - 255 * m) / (255 * s) for m, s in pairs]


def _most_central(differs: np.ndarray, whole: bool) -> np.ndarray | None:
    """Mask of the connected thing that is large and near the middle, or None.

    With ``whole`` what lies in line with it belongs to it: white parts of a battery are missing before white paper.
    """
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(differs, connectivity=8)
    if count < 2:
        return None
    height, width = differs.shape
    away = np.linalg.norm((centroids[1:] - (width / 2, height / 2)) / max(width, height), axis=1)
    weight = stats[1:, cv2.CC_STAT_AREA] * np.exp(-((away / 0.3) ** 2))
    chosen = 1 + int(np.argmax(weight))
    mask = np.asarray(labels == chosen)
    return _with_pieces(mask, labels, stats, chosen) if whole and count > 2 else mask


def _with_pieces(mask: np.ndarray, labels: np.ndarray, stats: np.ndarray, chosen: int) -> np.ndarray:
    """The mask with the pieces, nearest first, that make it longer but hardly broader, up to a battery's length."""
    own = points = _points(mask)
    breadth = _sides(own)[1]
    middles = stats[:, :2] + stats[:, 2:4] / 2
    near = np.argsort(np.linalg.norm(middles - middles[chosen], axis=1))
    for piece in (int(n) for n in near if n not in (0, chosen) and stats[n, cv2.CC_STAT_AREA] >= PIECE):
        joined = cv2.convexHull(np.concatenate([points, _points(labels == piece)]))
        length, broad = _sides(joined)
        if broad <= BROADER * breadth and length <= LONGEST * broad:
            points = np.asarray(joined)
    if points is own:
        return mask
    return np.asarray(cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), points, 1)).astype(bool)


def _points(mask: np.ndarray) -> np.ndarray:
    """(n, 1, 2) of the mask's hull."""
    return np.asarray(cv2.convexHull(cv2.findNonZero(mask.view(np.uint8))))


def _sides(points: np.ndarray) -> tuple[float, float]:
    """Long and short side of the smallest rectangle around the points."""
    sides = cv2.minAreaRect(points)[1]
    return max(sides) + 1, min(sides) + 1


def _outline(mask: np.ndarray) -> np.ndarray:
    """Points (n, 1, 2) along the outside of the one thing in the mask."""
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(contours[0])


def _level_rectangle(points: np.ndarray, scale: float) -> _Rectangle:
    """The smallest rectangle around the points; upright where that has no clear long side."""
    (x, y), (width, height), degrees = cv2.minAreaRect(points)
    width, height = width + 1, height + 1
    if height > width:
        width, height, degrees = height, width, degrees + 90
    if width < 1.35 * height:
        left, top, width, height = cv2.boundingRect(points)
        x, y, degrees = left + (width - 1) / 2, top + (height - 1) / 2, 0.0
    centre, angle = ((x + 0.5) * scale, (y + 0.5) * scale), float(np.radians(degrees))
    return _Rectangle(*centre, width * scale, height * scale, angle)


def _solid(outline: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What the outline encloses, uint8, without its rim, where background shines in.

    Silver and white may look like the background and be missing at the ends. A battery is convex, so what its
    outline lacks to that is filled in; but not where much is lacking, as between several batteries.
    """
    solid = cv2.fillPoly(np.zeros(shape, np.uint8), [outline], 1)
    convex = cv2.fillPoly(np.zeros(shape, np.uint8), [cv2.convexHull(outline)], 1)
    if cv2.countNonZero(solid) >= CONVEX * cv2.countNonZero(convex):
        solid = convex
    inner = cv2.erode(solid, np.ones((3, 3), np.uint8))
    return np.asarray(inner if inner.any() else solid)


def _near(mask: np.ndarray, pixels: int) -> np.ndarray:
    """What lies no more than so many pixels beyond the mask, uint8: not 0."""
    return np.asarray(cv2.dilate(mask.view(np.uint8), np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)))


def _is_close_up(mask: np.ndarray) -> bool:
    """Whether a picture as slender as a battery was cut so tight that there is no background along its edge.

    Then what stands out from the edge reaches the edge itself, or is no more than a word on the battery.
    """
    height, width = mask.shape
    if max(height, width) < CLOSE_UP * min(height, width):
        return False
    along = np.flatnonzero(mask.any(axis=0 if width > height else 1))
    return _touches_edge(mask) or along[-1] - along[0] < 0.7 * max(height, width)


def _is_card(mask: np.ndarray, rectangle: _Rectangle, scale: float) -> bool:
    """Whether a rectangle fills its outline, and is squatter and larger than a battery under this camera."""
    filled = mask.sum() * scale**2 / (rectangle.length * rectangle.breadth)
    return bool(mask.mean() > CARD_AREA and filled > 0.85 and rectangle.length < 2.2 * rectangle.breadth)


def _touches_edge(mask: np.ndarray) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _interior(rgb: np.ndarray, card: _Rectangle) -> tuple[int, int, np.ndarray]:
    """The largest upright part of a slightly turned card: its left and top in the picture, and its pixels."""
    turned = abs(np.sin(2 * card.angle)) / 2  # 0 for upright or lying, 0.5 for 45 degrees
    upright = abs(np.cos(card.angle)) < abs(np.sin(card.angle))
    width, height = (card.breadth, card.length) if upright else (card.length, card.breadth)
    half_w = max(1.0, width * 0.47 - turned * height)
    half_h = max(1.0, height * 0.47 - turned * width)
    left, top = max(0, round(card.x - half_w)), max(0, round(card.y - half_h))
    inner = rgb[top : round(card.y + half_h), left : round(card.x + half_w)]
    return left, top, inner


def _shrink(rgb: np.ndarray, factor: float) -> tuple[np.ndarray, float]:
    """The picture scaled down by ``factor`` without aliasing, and the factor; not worth it near 1."""
    if factor > 0.8:
        return rgb, 1.0
    size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)), factor


def _whole(rgb: np.ndarray) -> _Rectangle:
    height, width = rgb.shape[:2]
    if height > width:
        return _Rectangle(width / 2, height / 2, height, width, np.pi / 2)
    return _Rectangle(width / 2, height / 2, width, height, 0.0)

"""What the cameras of the inspection station see: prismatic cells, from above and, after the flip, obliquely.

A cell is a box of 148 x 27 x 98 mm whose faces are painted by `prismatic_faces` and photographed by a
pinhole camera, so a cell that stands upside down, lies on its side in a flipper that jammed, or has a second one
beside it looks as it would. Cell coordinates in mm: x along the cover, y across it, z up, origin in the middle; a
cell is turned about x to be flipped.

    python -m battery_sorting.vision.synthetic.prismatic --out DIR --view lug|case --count N --seed S [--size WIDTH]

writes a folder per class and ``looks.csv``.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from battery_sorting.core.types import View
from battery_sorting.vision.synthetic.prismatic_faces import (
    COVERS,
    HEIGHT_MM,
    LENGTH_MM,
    SLEEVES,
    STAINS,
    WIDTH_MM,
    Defect,
    Wear,
    face_rng,
    paint_bottom,
    paint_cover,
    paint_large_face,
    paint_side,
    patches,
)

FRAME_WIDTH, FRAME_HEIGHT = 1280, 1024
GOOD = "good"
KINDS: dict[View, tuple[str, ...]] = {
    View.LUG: (GOOD, "stained", "broken"),
    View.CASE: (GOOD, "bulging", "dented", "deformed", "leaking"),
}
"""The classes of each view; the folders' names."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "stained": tuple(STAINS),
    "broken": ("corner", "crack", "torn", "bent"),
    "bulging": ("one side", "both sides"),
    "dented": ("one", "several"),
    "deformed": ("corner", "edge", "twist"),
    "leaking": ("wet", "crystals", "both"),
}
SEVERITIES = (0.1, 1.0)
"""Range that `sample_look` draws from; at 0.1 a defect is barely visible."""

CAMERA_MM = {View.LUG: 700.0, View.CASE: 800.0}
PX_PER_MM = {View.LUG: 7.4, View.CASE: 6.5}
ELEVATION_DEG = 32.0  # of the camera that looks at the lower case
EXPECTED_DEG = {View.LUG: 0.0, View.CASE: 180.0}
"""How far a cell is turned in each view: 0 is upright, 180 bottom up."""
BESIDE_MM = {View.LUG: (18.0, 44.0), View.CASE: (18.0, 40.0)}
"""Where a second cell lies, from the first one's place: to the right and away from the operator."""
GRID_PX = 8  # the fold of a face into the picture is computed on a grid and interpolated
MESH_MM = 1.5  # on which the shape of a face is shaded
NOISE_BANK = (1100, 1400, 3)


@dataclass(frozen=True, slots=True)
class CellScene:
    """Where a picture is taken: light, camera and background. None of it says anything about the cell.

    Attributes:
        backdrop: Seed of the background.
        light: Brightness, 1 is normal.
        tint: Gain of blue, green and red.
        slant: Change of brightness across the picture, to the right and downwards.
        noise: Standard deviation of the sensor's noise, grey levels.
        defocus_px: Standard deviation of the blur.
        glare: 0 to 1.
    """

    backdrop: int = 0
    light: float = 1.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    slant: tuple[float, float] = (0.0, 0.0)
    noise: float = 2.0
    defocus_px: float = 0.8
    glare: float = 0.3


@dataclass(frozen=True, slots=True)
class CellLook:
    """One cell as it looks in both views.

    Attributes:
        serial: Printed as a QR code on cover and case, at most 14 of ``0-9A-Z -``.
        seed: Of all details that have no attribute.
        sleeve: Name of the case's colour, see `SLEEVES`.
        cover: Name of the cover's material, see `COVERS`.
        wear: Wear that is no defect.
        defects: At most one per view.
        shift_mm: From the middle of the station, to the right and away from the operator.
        rotation_deg: About the vertical.
        scene: Light, camera and background.
    """

    serial: str
    seed: int
    sleeve: str
    cover: str
    wear: Wear
    defects: tuple[Defect, ...] = ()
    shift_mm: tuple[float, float] = (0.0, 0.0)
    rotation_deg: float = 0.0
    scene: CellScene = CellScene()

    def defect(self, view: View) -> Defect | None:
        """The defect that is to be seen in ``view``."""
        return next((defect for defect in self.defects if defect.kind in KINDS[view]), None)

    def kind(self, view: View) -> str:
        """The class of ``view``."""
        defect = self.defect(view)
        return defect.kind if defect else GOOD


def sample_defect(rng: np.random.Generator, kind: str, severity: float | None = None) -> Defect:
    """Draw how a defect shows, and its severity where none is given.

    Raises:
        ValueError: There is no such kind, or the severity is outside 0 to 1.
    """
    if kind not in VARIANTS:
        raise ValueError(f"no defect is called {kind!r}: there are {', '.join(VARIANTS)}")
    drawn = float(rng.uniform(*SEVERITIES))
    variant = str(rng.choice(VARIANTS[kind]))
    if severity is None:
        severity = drawn
    if not 0 <= severity <= 1:
        raise ValueError(f"severity {severity} isn't within 0 and 1")
    return Defect(kind, float(severity), variant, int(rng.integers(2**31)))


def sample_scene(rng: np.random.Generator) -> CellScene:
    """Draw light, camera and background."""
    return CellScene(
        backdrop=int(rng.integers(2**31)),
        light=float(rng.uniform(0.78, 1.18)),
        tint=tuple(rng.uniform(0.94, 1.06, 3).tolist()),
        slant=tuple(rng.uniform(-0.14, 0.14, 2).tolist()),
        noise=float(rng.uniform(0.8, 3.2)),
        defocus_px=float(rng.uniform(0.6, 1.15)),
        glare=float(rng.beta(1.2, 2.0)),
    )


def sample_cell(
    rng: np.random.Generator, defects: Sequence[Defect] = (), scene: CellScene | None = None
) -> CellLook:
    """Draw a cell with the given defects; what it looks like otherwise doesn't depend on them."""
    letters = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
    serial = "LF" + "".join(letters[index] for index in rng.integers(len(letters), size=9))
    return CellLook(
        serial=serial,
        seed=int(rng.integers(2**31)),
        sleeve=str(rng.choice(list(SLEEVES))),
        cover=str(rng.choice(list(COVERS), p=(0.4, 0.17, 0.13, 0.15, 0.15))),
        wear=Wear(*rng.beta(1.3, 2.2, 6).tolist()),
        defects=tuple(defects),
        shift_mm=tuple(np.clip(rng.normal(0, 3.5, 2), -8, 8).tolist()),
        rotation_deg=float(np.clip(rng.normal(0, 2.2), -7, 7)),
        scene=scene or sample_scene(rng),
    )


def sample_look(rng: np.random.Generator, view: View | str, kind: str, severity: float | None = None) -> CellLook:
    """Draw a cell that belongs to class ``kind`` of ``view`` (the other view is good).

    Raises:
        ValueError: The view has no such class, or the severity is outside 0 to 1.
    """
    view = View(view)
    if kind not in KINDS[view]:
        raise ValueError(f"view {view.value} has no class {kind!r}: there are {', '.join(KINDS[view])}")
    drawn = sample_defect(rng, KINDS[view][1] if kind == GOOD else kind, severity)
    return sample_cell(rng, () if kind == GOOD else (drawn,))


# ---- shape ----


def displacement(look: CellLook, points: np.ndarray) -> np.ndarray:
    """How far the case's surface stands from that of a box, (n, 3) mm for points (n, 3) mm on it."""
    moved = np.zeros_like(points)
    rng = face_rng(look.seed, "shape")
    _swell(moved, points, float(rng.uniform(0.0, 0.35)), 1.0)  # no used cell is flat
    defect = look.defect(View.CASE)
    if defect is None or defect.kind == "leaking":
        return moved
    own = np.random.default_rng(defect.seed)
    if defect.kind == "bulging":
        other_side = 1.0 if defect.variant == "both sides" else 0.15
        _swell(moved, points, 0.7 + 7.0 * defect.severity, other_side)
    elif defect.kind == "dented":
        _dents(moved, points, defect, own)
    else:
        _deform(moved, points, defect, own)
    return moved


def _swell(moved: np.ndarray, points: np.ndarray, height_mm: float, other_side: float) -> None:
    """Gas bows the large faces; the edges hold."""
    along = 1 - (points[:, 0] / (LENGTH_MM / 2)) ** 2
    down = 0.22 + 0.78 * (1 - (points[:, 2] / (HEIGHT_MM / 2)) ** 2)
    side = points[:, 1] / (WIDTH_MM / 2)
    moved[:, 1] += height_mm * along * down * np.where(side > 0, side, other_side * side)


def _dents(moved: np.ndarray, points: np.ndarray, defect: Defect, rng: np.random.Generator) -> None:
    for _ in range(1 if defect.variant == "one" else int(rng.integers(2, 5))):
        severity = defect.severity * rng.uniform(0.75, 1.0)
        depth_mm, radius_mm = 0.35 + 4.2 * severity, (4.0 + 10.0 * severity) * rng.uniform(0.8, 1.2)
        on_face = rng.random() < 0.8
        x_mm, z_mm = rng.uniform(-66, 66), rng.uniform(-44, 38)
        place = np.array([x_mm, WIDTH_MM / 2, z_mm if on_face else -HEIGHT_MM / 2])
        inward = np.array([0.0, -1.0, 0.0]) if on_face else np.array([0.0, -0.6, 0.8])
        stretch = np.array([rng.uniform(0.7, 1.6), 1.0, rng.uniform(0.7, 1.4)])
        distance = np.linalg.norm((points - place) / stretch, axis=1) / radius_mm
        moved += np.outer(depth_mm * np.exp(-(distance**2.6)), inward)


def _deform(moved: np.ndarray, points: np.ndarray, defect: Defect, rng: np.random.Generator) -> None:
    reach_mm = 1.2 + 11.0 * defect.severity
    side = 1.0 if rng.random() < 0.5 else -1.0
    if defect.variant == "corner":
        place = np.array([side * LENGTH_MM / 2, WIDTH_MM / 2, -HEIGHT_MM / 2])
        distance = np.linalg.norm(points - place, axis=1) / (14 + 22 * defect.severity)
        moved += np.outer(reach_mm * np.exp(-(distance**1.6)), np.array([-0.75 * side, -0.4, 0.62]))
    elif defect.variant == "edge":
        place = np.array([rng.uniform(-50, 50), WIDTH_MM / 2, -HEIGHT_MM / 2])
        distance = np.linalg.norm((points - place) / (1.4, 1.0, 0.8), axis=1) / (10 + 16 * defect.severity)
        moved += np.outer(reach_mm * np.exp(-(distance**2)), np.array([0.0, -0.5, 0.86]))
    else:
        lower = np.clip((HEIGHT_MM / 2 - points[:, 2]) / HEIGHT_MM, 0, 1)
        moved[:, 0] += side * 0.8 * reach_mm * lower**2
        moved[:, 2] += 0.35 * side * reach_mm * lower * points[:, 0] / (LENGTH_MM / 2)


@dataclass(frozen=True, slots=True)
class _Side:
    """A face of the box: its top left corner and its two edges as it is painted, seen from outside; mm."""

    name: str
    corner: np.ndarray
    across: np.ndarray
    down: np.ndarray

    def points(self, shares: np.ndarray) -> np.ndarray:
        """Places (n, 3) mm of shares (n, 2) of the painted face's width and height."""
        return self.corner + np.outer(shares[:, 0], self.across) + np.outer(shares[:, 1], self.down)

    @property
    def outward(self) -> np.ndarray:
        """Unit normal."""
        normal = np.cross(self.down, self.across)
        unit: np.ndarray = normal / np.linalg.norm(normal)
        return unit


def _side(name: str, corner: Sequence[float], across: Sequence[float], down: Sequence[float]) -> _Side:
    return _Side(name, *(np.array(vector, np.float64) for vector in (corner, across, down)))


_X, _Y, _Z = LENGTH_MM / 2, WIDTH_MM / 2, HEIGHT_MM / 2
SIDES = (
    _side("cover", (-_X, _Y, _Z), (2 * _X, 0, 0), (0, -2 * _Y, 0)),
    _side("bottom", (-_X, -_Y, -_Z), (2 * _X, 0, 0), (0, 2 * _Y, 0)),
    _side("coded", (-_X, _Y, -_Z), (2 * _X, 0, 0), (0, 0, 2 * _Z)),
    _side("plain", (_X, -_Y, -_Z), (-2 * _X, 0, 0), (0, 0, 2 * _Z)),
    _side("left", (-_X, _Y, _Z), (0, -2 * _Y, 0), (0, 0, -2 * _Z)),
    _side("right", (_X, -_Y, _Z), (0, 2 * _Y, 0), (0, 0, -2 * _Z)),
)


class PinholeCamera:
    """A pinhole camera."""

    def __init__(self, view: View, scale: float) -> None:
        self.size = (round(FRAME_HEIGHT * scale), round(FRAME_WIDTH * scale))
        self.focal_px = PX_PER_MM[view] * CAMERA_MM[view] * scale
        if view is View.LUG:
            self.place = np.array([0.0, 0.0, HEIGHT_MM / 2 + CAMERA_MM[view]])
            self.axes = np.array([(1.0, 0, 0), (0, -1.0, 0), (0, 0, -1.0)])
        else:
            angle = math.radians(ELEVATION_DEG)
            forward = -np.array([0.0, -math.cos(angle), math.sin(angle)])
            self.place = -CAMERA_MM[view] * forward
            right = np.array([1.0, 0, 0])
            self.axes = np.array([right, np.cross(forward, right), forward])

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (n, 2) of places (n, 3) in the station."""
        seen = (points - self.place) @ self.axes.T
        middle = np.array([self.size[1] / 2, self.size[0] / 2]) - 0.5
        pixels: np.ndarray = self.focal_px * seen[:, :2] / seen[:, 2:] + middle
        return pixels


@dataclass(frozen=True, slots=True)
class Placed:
    """A cell in the station."""

    look: CellLook
    turn_deg: float
    beside_mm: tuple[float, float] = (0.0, 0.0)

    def to_station(self, points: np.ndarray) -> np.ndarray:
        """Places (n, 3) mm in the station of points (n, 3) mm of the cell."""
        turn, yaw = math.radians(self.turn_deg), math.radians(self.look.rotation_deg)
        about_x = np.array([(1, 0, 0), (0, math.cos(turn), -math.sin(turn)), (0, math.sin(turn), math.cos(turn))])
        about_z = np.array([(math.cos(yaw), -math.sin(yaw), 0), (math.sin(yaw), math.cos(yaw), 0), (0, 0, 1)])
        shift = np.array([*self.look.shift_mm, 0.0]) + np.array([*self.beside_mm, 0.0])
        placed: np.ndarray = points @ (about_z @ about_x).T + shift
        return placed

    def faces_towards(self, camera: PinholeCamera) -> Iterator[tuple[_Side, np.ndarray]]:
        """The faces that the camera sees, each with its normal in the station."""
        for side in SIDES:
            middle = self.to_station(side.points(np.array([(0.5, 0.5)])))[0]
            normal = (self.to_station(side.outward[None]) - self.to_station(np.zeros((1, 3))))[0]
            if normal @ (camera.place - middle) > 0:
                yield side, normal


class PrismaticRenderer:
    """Makes the pictures.

    Args:
        seed: Of the sensor's noise; everything else comes from the looks.
        width: Of the pictures, px; the height follows. Codes can be read at 1280 only.
    """

    def __init__(self, seed: int = 0, width: int = FRAME_WIDTH) -> None:
        if not 64 <= width <= 4 * FRAME_WIDTH:
            raise ValueError(f"width {width} isn't within 64 and {4 * FRAME_WIDTH} px")
        self._scale = width / FRAME_WIDTH
        self._cameras = {view: PinholeCamera(view, self._scale) for view in View}
        self._noise = np.random.default_rng(seed).standard_normal(NOISE_BANK, np.float32)

    def render(
        self,
        view: View | str,
        look: CellLook | None,
        *,
        turn_deg: float | None = None,
        beside: CellLook | None = None,
        scene: CellScene | None = None,
    ) -> np.ndarray:
        """Photograph a cell: uint8 (1024, 1280, 3) BGR.

        Args:
            view: Which camera.
            look: The cell in the station, None for an empty one.
            turn_deg: How far it is flipped; 0 is upright, 180 bottom up. None: as the view expects it.
            beside: A second cell that lies there as well.
            scene: Light and background in place of the cell's own.
        """
        view = View(view)
        scene = scene or (look.scene if look else CellScene())
        turn = turn_deg if turn_deg is not None else EXPECTED_DEG[view]
        camera = self._cameras[view]
        picture = self._background(view, scene, camera)
        cells = [Placed(look, turn)] if look else []
        if beside:
            cells.append(Placed(beside, turn, BESIDE_MM[view]))
        for cell in sorted(
            cells, key=lambda cell: -float(np.linalg.norm(cell.to_station(np.zeros((1, 3))) - camera.place))
        ):
            self._shadow(picture, cell, camera)
            self._draw(picture, cell, camera, view)
        return self._expose(picture, view, scene)

    # ---- the cell ----

    def _draw(self, picture: np.ndarray, cell: Placed, camera: PinholeCamera, view: View) -> None:
        k = PX_PER_MM[view] * self._scale
        for side, normal in cell.faces_towards(camera):
            self._fold(picture, self._paint(side, cell, normal, k), side, cell, camera)

    def _paint(self, side: _Side, cell: Placed, normal: np.ndarray, k: float) -> np.ndarray:
        look = cell.look
        if side.name == "cover":
            return paint_cover(look.serial, look.seed, look.cover, look.wear, look.defect(View.LUG), k)
        if side.name in ("left", "right"):
            return paint_side(look.seed, look.sleeve, k)
        light = self._light(side, cell, normal)
        defect = look.defect(View.CASE)
        if side.name == "bottom":
            return paint_bottom(look.seed, look.sleeve, look.wear, defect, k, light)
        serial = look.serial if side.name == "coded" else None
        return paint_large_face(serial, look.seed, look.sleeve, look.wear, defect, k, light)

    def _light(self, side: _Side, cell: Placed, normal: np.ndarray) -> np.ndarray:
        """Brightness over a face by its shape: soft light from above, and a gloss that follows the slope."""
        look = cell.look
        width_mm, height_mm = np.linalg.norm(side.across), np.linalg.norm(side.down)
        columns, rows = round(width_mm / MESH_MM), round(height_mm / MESH_MM)
        v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
        moved = displacement(look, side.points(np.stack([u.ravel(), v.ravel()], 1)))
        height = (moved @ side.outward).reshape(rows, columns)
        down, right = np.gradient(height, height_mm / rows, width_mm / columns)
        rng = face_rng(look.seed, "light " + side.name)
        base = 0.80 + 0.22 * max(0.0, float(normal[2])) + rng.uniform(-0.06, 0.06)
        slope = (
            1.0 - rng.uniform(1.3, 2.2) * down * (1 if normal[2] < 0.5 else 0.4) + rng.uniform(-0.8, 0.8) * right
        )
        band = v + rng.uniform(-0.35, 0.35) * u - rng.uniform(1.5, 3.0) * down + rng.uniform(-1.5, 1.5) * right
        gloss = rng.uniform(0.04, 0.22) * np.exp(-(((band - rng.uniform(0.0, 1.0)) / rng.uniform(0.08, 0.25)) ** 2))
        light: np.ndarray = (base * np.clip(slope, 0.3, 1.7) + gloss).astype(np.float32)
        return light

    def _fold(
        self, picture: np.ndarray, painted: np.ndarray, side: _Side, cell: Placed, camera: PinholeCamera
    ) -> None:
        """Warp a painted face into the picture.

        The inverse of the projection of a box's face is a homography; that of the displaced surface is found
        from it by fixed-point iteration, as the displacement is small and smooth.
        """
        corners = np.array([(0.0, 0), (1, 0), (1, 1), (0, 1)])
        seen = camera.project(cell.to_station(side.points(corners)))
        margin = 30 * self._scale + 2 * GRID_PX
        low = np.maximum(np.floor((seen.min(0) - margin) / GRID_PX).astype(int), 0)
        high = np.minimum(
            np.ceil((seen.max(0) + margin) / GRID_PX).astype(int),
            (camera.size[1] // GRID_PX, camera.size[0] // GRID_PX),
        )
        if (high - low < 2).any():
            return
        to_face = cv2.getPerspectiveTransform(seen.astype(np.float32), corners.astype(np.float32))
        gx, gy = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        pixels = (np.stack([gx.ravel(), gy.ravel()], 1) + 0.5) * GRID_PX - 0.5
        shares = _through(to_face, pixels)
        if side.name != "cover":
            for _ in range(3):
                points = side.points(np.clip(shares, -0.1, 1.1))
                flat = camera.project(cell.to_station(points))
                shaped = camera.project(cell.to_station(points + displacement(cell.look, points)))
                shares = _through(to_face, pixels - (shaped - flat))
        height, width = painted.shape[:2]
        grid = (shares * (width, height) - 0.5).astype(np.float32).reshape(*gx.shape, 2)
        size = (gx.shape[1] * GRID_PX, gx.shape[0] * GRID_PX)
        way = cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR)
        columns, rows = cv2.split(way)
        opaque = np.dstack([painted, np.full((height, width), 255, np.uint8)])
        drawn = cv2.remap(opaque, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        top, left = low[1] * GRID_PX, low[0] * GRID_PX
        region = picture[top : top + size[1], left : left + size[0]]
        bare = 255 - drawn[..., 3]  # at the outline the colours have already been weighed with the border's 0
        region[:] = cv2.add(cv2.multiply(region, cv2.merge([bare] * 3), scale=1 / 255), drawn[..., :3])

    def _shadow(self, picture: np.ndarray, cell: Placed, camera: PinholeCamera) -> None:
        corners = np.array([(x, y, z) for x in (-_X, _X) for y in (-_Y, _Y) for z in (-_Z, _Z)], np.float64)
        placed = cell.to_station(corners)
        foot = placed.copy()
        foot[:, 2] = -_Z
        hull = cv2.convexHull(camera.project(np.vstack([foot, foot + np.array((6, 4, 0))])).astype(np.float32))
        reach = max(3, int(16 * self._scale))
        left, top = np.maximum(hull.min((0, 1)).astype(int) - 2 * reach, 0)
        right, bottom = hull.max((0, 1)).astype(int) + 2 * reach
        region = picture[top:bottom, left:right]
        small = 4
        mask = np.zeros((region.shape[0] // small + 1, region.shape[1] // small + 1), np.uint8)
        cv2.fillPoly(mask, [np.round((hull - (left, top)) / small).astype(np.int32)], 150)
        mask = cv2.GaussianBlur(mask, (0, 0), max(1.0, reach / 2 / small))
        light = cv2.resize(255 - mask, region.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        region[:] = cv2.multiply(region, cv2.merge([light] * 3), scale=1 / 255)

    # ---- the station ----

    def _background(self, view: View, scene: CellScene, camera: PinholeCamera) -> np.ndarray:
        """Belt, fixture plate or painted steel, rails and screws: uint8 (height, width, 3)."""
        rng = face_rng(scene.backdrop, "backdrop " + view.value)
        height, width = camera.size
        tones = [
            (52, 50, 50),
            (122, 120, 118),
            (84, 96, 72),
            (150, 132, 110),
            (190, 192, 190),
            (64, 84, 112),
            (34, 32, 32),
        ]
        tone = np.array(tones[int(rng.integers(len(tones)))], np.float32) * rng.uniform(0.8, 1.15)
        small = (height // 2, width // 2)
        texture = 1 + 0.05 * patches(rng, small, 60 * self._scale)
        texture += rng.uniform(0.005, 0.03) * patches(rng, small, rng.uniform(2, 6) * self._scale)
        if rng.random() < 0.35:  # ribs of a belt
            period = rng.uniform(8, 40) * self._scale
            texture += 0.06 * np.sin(np.arange(small[1], dtype=np.float32) * (2 * math.pi / period))[None, :]
        plate = np.clip(np.clip(texture, 0.2, 2)[..., None] * tone, 0, 255).astype(np.uint8)
        picture = cv2.resize(plate, (width, height), interpolation=cv2.INTER_LINEAR)
        if view is View.CASE and rng.random() < 0.7:  # a wall behind the table
            horizon = int(height * rng.uniform(0.12, 0.35))
            picture[:horizon] = cv2.convertScaleAbs(picture[:horizon], alpha=float(rng.uniform(0.35, 0.8)))
        self._fixture(picture, rng, view)
        return picture

    def _fixture(self, picture: np.ndarray, rng: np.random.Generator, view: View) -> None:
        height, width = picture.shape[:2]
        for _ in range(int(rng.integers(0, 4))):  # rails and jaws beside the cell
            thick = int(rng.uniform(14, 60) * self._scale)
            tone = rng.uniform(40, 200)
            upper = rng.random() < 0.5
            if view is View.LUG:
                place = int(rng.uniform(0.02, 0.24) * height) if upper else int(rng.uniform(0.74, 0.95) * height)
            else:
                place = int(rng.uniform(0.01, 0.10) * height) if upper else int(rng.uniform(0.90, 0.97) * height)
            cv2.rectangle(
                picture, (0, place), (width, place + thick), (tone, tone, tone * rng.uniform(0.9, 1.05)), -1
            )
            cv2.line(picture, (0, place), (width, place), (min(255.0, tone * 1.3),) * 3, 2)
            cv2.line(picture, (0, place + thick), (width, place + thick), (tone * 0.5,) * 3, 2)
        for _ in range(int(rng.integers(0, 7))):  # screws and holes
            x = int(rng.uniform(0, width))
            y = int(rng.choice([rng.uniform(0.02, 0.2), rng.uniform(0.84, 0.98)]) * height)
            radius = max(2, int(rng.uniform(6, 20) * self._scale))
            tone = rng.uniform(20, 190)
            cv2.circle(picture, (x, y), radius, (tone,) * 3, -1, cv2.LINE_AA)
            cv2.circle(picture, (x, y), radius, (tone * 0.5,) * 3, 2, cv2.LINE_AA)

    # ---- the camera ----

    def _expose(self, picture: np.ndarray, view: View, scene: CellScene) -> np.ndarray:
        height, width = picture.shape[:2]
        self._glare(picture, view, scene)
        if scene.defocus_px * self._scale > 0.25:
            picture = cv2.GaussianBlur(picture, (0, 0), scene.defocus_px * self._scale)
        across, down = (
            np.linspace(-1, 1, 40, dtype=np.float32)[None, :],
            np.linspace(-1, 1, 32, dtype=np.float32)[:, None],
        )
        fall_off = 0.12 if view is View.LUG else 0.08
        light = scene.light * (
            1 + scene.slant[0] * across + scene.slant[1] * down - fall_off * (across**2 + down**2)
        )
        gain = cv2.resize(light[..., None] * np.array(scene.tint, np.float32), (width, height))
        exposed = cv2.multiply(picture, gain, dtype=cv2.CV_32F)
        rng = face_rng(scene.backdrop, "noise")
        y, x = (int(rng.integers(2**20)) for _ in range(2))
        noise = self._noise_at(y, x, height, width)
        return cv2.addWeighted(exposed, 1.0, noise, scene.noise, 0.0, dtype=cv2.CV_8U)

    def _noise_at(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        bank = self._noise
        if height > bank.shape[0] or width > bank.shape[1]:
            bank = np.tile(bank, (height // bank.shape[0] + 1, width // bank.shape[1] + 1, 1))
        y, x = y % (bank.shape[0] - height + 1), x % (bank.shape[1] - width + 1)
        return bank[y : y + height, x : x + width]

    def _glare(self, picture: np.ndarray, view: View, scene: CellScene) -> None:
        """Reflections of lamps: soft bright spots and the ring light's bow."""
        rng = face_rng(scene.backdrop, "glare " + view.value)
        count = int(rng.poisson(2.2 * scene.glare))
        height, width = picture.shape[:2]
        for _ in range(count):
            x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.3, 0.85) * height
            long_px, wide_px = rng.uniform(20, 130) * self._scale, rng.uniform(6, 30) * self._scale
            angle = rng.uniform(0, math.pi)
            reach = int(2.5 * long_px)
            left, top = max(0, int(x) - reach), max(0, int(y) - reach)
            region = picture[top : int(y) + reach, left : int(x) + reach]
            if not region.size:
                continue
            columns = np.arange(left, left + region.shape[1], dtype=np.float32)[None, :] - x
            rows = np.arange(top, top + region.shape[0], dtype=np.float32)[:, None] - y
            along = columns * math.cos(angle) + rows * math.sin(angle)
            over = rows * math.cos(angle) - columns * math.sin(angle)
            strength = rng.uniform(15, 60) * (0.4 + scene.glare)
            spot = (strength * np.exp(-((along / long_px) ** 2) - (over / wide_px) ** 2)).astype(np.uint8)
            region[:] = cv2.add(region, cv2.merge([spot] * 3))


def _through(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (n, 2) through a homography."""
    mapped = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    through: np.ndarray = mapped[:, :2] / mapped[:, 2:]
    return through


# ---- a set of pictures ----


def class_of(view: View, number: int) -> str:
    """Class of the picture with this number: every other one is good, the defects take turns."""
    defects = KINDS[view][1:]
    return GOOD if number % 2 == 0 else defects[number // 2 % len(defects)]


def write_pictures(out: Path, view: View, count: int, seed: int, width: int) -> None:
    """Write ``count`` pictures into a folder per class, and ``looks.csv``.

    Picture n depends on ``seed`` and n alone.
    """
    renderer = PrismaticRenderer(seed, width)
    for kind in KINDS[view]:
        (out / kind).mkdir(parents=True, exist_ok=True)
    with (out / "looks.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(
            ["file", "serial", "kind", "severity", "variant", "sleeve", "cover", *Wear.__slots__, *_SCENE_COLUMNS]
        )
        for number in range(count):
            look = sample_look(np.random.default_rng([seed, number]), view, class_of(view, number))
            kind, defect = look.kind(view), look.defect(view)
            name = f"{kind}/{view.value}_{seed}_{number:05d}.jpg"
            cv2.imwrite(str(out / name), renderer.render(view, look), [cv2.IMWRITE_JPEG_QUALITY, 95])
            facts = [f"{defect.severity:.4f}", defect.variant] if defect else ["0", ""]
            wear = [f"{getattr(look.wear, column):.3f}" for column in Wear.__slots__]
            scene = [f"{getattr(look.scene, column):.3f}" for column in _SCENE_COLUMNS]
            table.writerow([name, look.serial, kind, *facts, look.sleeve, look.cover, *wear, *scene])


_SCENE_COLUMNS = ("light", "noise", "defocus_px", "glare")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Draw pictures of prismatic cells, a folder per class.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--view", choices=[view.value for view in View], required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=FRAME_WIDTH, help="width of the pictures in px")
    given = parser.parse_args(arguments)
    try:
        write_pictures(given.out, View(given.view), given.count, given.seed, given.size)
    except (OSError, ValueError) as error:
        print(f"prismatic: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

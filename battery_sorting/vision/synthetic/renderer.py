"""What the simulated camera sees: batteries on the belt, drawn or from photographs.

The frame shows 128 mm × 102.4 mm of belt at 10 pixels per millimetre; the belt runs along x.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.vision.deep_pictures import camera_bits
from battery_sorting.vision.picture_folders import find_pictures
from battery_sorting.vision.pictures import background_mask, begins_as_picture, read_picture
from battery_sorting.vision.synthetic.wrappers import (
    TYPES,
    UNKNOWN_BRANDS,
    VARIANTS,
    WRAPPER_GIRTH,
    Wrapper,
    draw_wrapper,
)

_log = logging.getLogger(__name__)

WIDTH, HEIGHT = 1280, 1024
PX_PER_MM = 10.0
EXPOSURE_S = 0.0004
PHOTOGRAPH_PX = 900
OTHER_FOLDERS = frozenset({"other", "others", "unknown"})
BELT_SPARE = 256  # belt texture beyond the frame, so that no two frames show the same piece
CACHED_WRAPPERS = 64
SHADOW = 0.45
BELT_COLOURS = ((104, 106, 108), (84, 100, 94), (122, 116, 108))


class BatteryLooks(Protocol):
    """A battery on the belt, as far as its looks are concerned. Angles in the plane of the belt."""

    @property
    def label(self) -> str: ...  # noqa: D102
    @property
    def length_mm(self) -> float: ...  # noqa: D102
    @property
    def diameter_mm(self) -> float: ...  # noqa: D102
    @property
    def angle_rad(self) -> float: ...  # noqa: D102
    @property
    def offset_mm(self) -> tuple[float, float]: ...  # noqa: D102
    @property
    def wear(self) -> float: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


class Renderer(Protocol):
    """Makes frames, uint8 (1024, 1280, 3) RGB."""

    skipped: list[str]
    """Pictures that could not be read, each with the reason."""

    def types(self) -> list[str]:
        """Known labels, sorted."""
        ...

    def unknown(self) -> list[str]:
        """Labels of what belongs to no type."""
        ...

    def render(
        self,
        item: BatteryLooks | None,
        *,
        speed_mps: float,
        t_s: float,
        items_nearby: Sequence[tuple[BatteryLooks, float]] = (),
    ) -> np.ndarray:
        """The frame exposed with ``item`` at the photo-eye (None: a bare belt) at time ``t_s``.

        ``items_nearby`` are the neighbours with their distance from the photo-eye along the belt, in mm.
        """
        ...


def make_renderer(images: str | None, seed: int) -> Renderer:
    """Renderer of drawn batteries, or of the photographs under ``images`` (one folder per type).

    Raises:
        ConfigurationError: ``images`` is no folder, or no folder in it holds a readable picture.
    """
    return PhotographRenderer(Path(images), seed) if images else DrawnRenderer(seed)


@dataclass(frozen=True, slots=True)
class Sprite:
    """Something that lies on the belt: pixels (h, w, 3), already multiplied by the opacity (h, w), both uint8."""

    weighted: np.ndarray
    alpha: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray, alpha: np.ndarray) -> Sprite:
        """From plain pixels."""
        return cls(np.asarray(cv2.multiply(pixels, cv2.merge([alpha, alpha, alpha]), scale=1 / 255)), alpha)


class BeltScene:
    """The camera over an empty belt: texture, light, lens and sensor."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 11])
        self._belt = _belt_texture(rng, BELT_COLOURS[seed % len(BELT_COLOURS)])
        self._vignette = _vignette()
        self._noise = _noise(rng)
        self._phase = float(rng.uniform(0, 2 * math.pi))

    def empty(self, rng: np.random.Generator) -> np.ndarray:
        """A piece of the belt."""
        x, y = rng.integers(0, BELT_SPARE, 2)
        return self._belt[y : y + HEIGHT, x : x + WIDTH].copy()

    def lay(
        self,
        frame: np.ndarray,
        sprite: Sprite,
        centre: tuple[float, float],
        angle_rad: float,
        scale: float = 1.0,
    ) -> None:
        """Put ``sprite`` on the belt, its middle at ``centre`` (pixels), turned by ``angle_rad`` and scaled."""
        height, width = sprite.alpha.shape
        cos, sin = scale * math.cos(angle_rad), scale * math.sin(angle_rad)
        half_w = (abs(cos) * width + abs(sin) * height) / 2 + 12
        half_h = (abs(sin) * width + abs(cos) * height) / 2 + 12
        left, top = max(0, int(centre[0] - half_w)), max(0, int(centre[1] - half_h))
        right, bottom = min(WIDTH, int(centre[0] + half_w)), min(HEIGHT, int(centre[1] + half_h))
        if right - left < 8 or bottom - top < 8:
            return
        size = (right - left, bottom - top)
        x, y = centre[0] - left, centre[1] - top
        matrix = np.array(
            [
                [cos, -sin, x - cos * width / 2 + sin * height / 2],
                [sin, cos, y - sin * width / 2 - cos * height / 2],
            ]
        )
        pixels = cv2.warpAffine(sprite.weighted, matrix, size)
        alpha = cv2.warpAffine(sprite.alpha, matrix, size)
        shows = cv2.multiply(cv2.bitwise_not(alpha), _shadow(alpha), scale=1 / 255)
        under = frame[top:bottom, left:right]
        under[:] = cv2.add(cv2.multiply(under, cv2.merge([shows, shows, shows]), scale=1 / 255), pixels)

    def expose(self, frame: np.ndarray, rng: np.random.Generator, speed_mps: float, t_s: float) -> np.ndarray:
        """What the sensor makes of it: vignetting, motion blur, drifting light, noise."""
        blur = round(abs(speed_mps) * EXPOSURE_S * 1000 * PX_PER_MM)
        if blur > 1:
            frame = cv2.blur(frame, (blur, 1))
        frame = cv2.multiply(frame, self._vignette, scale=1 / 255)
        gain = self._light(t_s) * rng.uniform(0.97, 1.03)
        noise = cv2.flip(self._noise, int(rng.integers(-1, 2)))
        return cv2.addWeighted(frame, gain, noise, 1.0, -128.0)

    def _light(self, t_s: float) -> float:
        slow = math.sin(2 * math.pi * t_s / 97 + self._phase)
        fast = math.sin(2 * math.pi * t_s / 13 + 2 * self._phase)
        return 1.12 + 0.10 * slow + 0.04 * fast


class DrawnRenderer:
    """Batteries drawn after the real ones, wrapped around a cylinder. Same item, same looks."""

    def __init__(self, seed: int) -> None:
        self.skipped: list[str] = []
        self.scene = BeltScene(seed)
        self._seed = seed
        self._wrappers: OrderedDict[tuple[str, int], Wrapper] = OrderedDict()

    def types(self) -> list[str]:
        """Known labels, sorted."""
        return sorted(TYPES)

    def unknown(self) -> list[str]:
        """Brands that are drawn but are no known type; any other name gets a look of its own."""
        return sorted(UNKNOWN_BRANDS)

    def render(
        self,
        item: BatteryLooks | None,
        *,
        speed_mps: float,
        t_s: float,
        items_nearby: Sequence[tuple[BatteryLooks, float]] = (),
    ) -> np.ndarray:
        """See `Renderer.render`."""
        rng = _frame_rng(item, self._seed, t_s)
        frame = self.scene.empty(rng)
        for neighbour, distance_mm in items_nearby:
            if abs(distance_mm) * PX_PER_MM < WIDTH:
                self.lay_battery(frame, neighbour, distance_mm)
        if item is not None:
            self.lay_battery(frame, item, 0.0)
        return self.scene.expose(frame, rng, speed_mps, t_s)

    def lay_battery(self, frame: np.ndarray, item: BatteryLooks, distance_mm: float) -> None:
        """Put a battery on the belt, ``distance_mm`` along it from the photo-eye."""
        rng = np.random.default_rng([item.seed, 5])
        wrapper = self._wrapper(item.label, int(rng.integers(VARIANTS)))
        sprite = _roll_up(wrapper, item, rng)
        dx, dy = item.offset_mm
        centre = (WIDTH / 2 + (dx + distance_mm) * PX_PER_MM, HEIGHT / 2 + dy * PX_PER_MM)
        self.scene.lay(frame, sprite, centre, item.angle_rad)
        if rng.random() < 0.12:
            self._lay_scrap(frame, item, centre, rng)

    def _lay_scrap(
        self, frame: np.ndarray, item: BatteryLooks, centre: tuple[float, float], rng: np.random.Generator
    ) -> None:
        """A scrap of paper or dirt that covers a little of the battery."""
        reach = 0.5 * item.length_mm * PX_PER_MM * rng.uniform(0.3, 1.0) * rng.choice([-1, 1])
        x = centre[0] + reach * math.cos(item.angle_rad)
        y = centre[1] + reach * math.sin(item.angle_rad)
        self.scene.lay(frame, _scrap(rng), (x, y), float(rng.uniform(0, math.pi)))

    def _wrapper(self, label: str, variant: int) -> Wrapper:
        key = (label, variant)
        wrapper = self._wrappers.pop(key, None) or draw_wrapper(label, variant)
        self._wrappers[key] = wrapper
        if len(self._wrappers) > CACHED_WRAPPERS:
            self._wrappers.popitem(last=False)
        return wrapper


class PhotographRenderer:
    """Photographs laid on the belt, white studio backgrounds cut away, within `PHOTOGRAPH_PX` pixels.

    A photograph keeps its own orientation but for a few degrees. Pictures that can't be decoded are left out and
    noted in `skipped`.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.skipped: list[str] = []
        self.scene = BeltScene(seed)
        self._seed = seed
        self._folder = folder
        self._files = self._list_files()
        self._sprites: dict[Path, tuple[bytes, bytes]] = {}

    def types(self) -> list[str]:
        """Names of the folders that are types, sorted."""
        return sorted(label for label in self._files if label.lower() not in OTHER_FOLDERS)

    def unknown(self) -> list[str]:
        """Names of the folders that hold what belongs to no type (`Other`, `others`, `unknown`)."""
        return sorted(label for label in self._files if label.lower() in OTHER_FOLDERS)

    def render(
        self,
        item: BatteryLooks | None,
        *,
        speed_mps: float,
        t_s: float,
        items_nearby: Sequence[tuple[BatteryLooks, float]] = (),
    ) -> np.ndarray:
        """See `Renderer.render`. Neighbours are left out: photographs are larger than batteries."""
        del items_nearby
        rng = _frame_rng(item, self._seed, t_s)
        frame = self.scene.empty(rng)
        if item is not None and self._files:
            sprite = self._sprite_of(item)
            lay_photograph(self.scene, frame, sprite, np.random.default_rng([item.seed, 7]))
        return self.scene.expose(frame, rng, speed_mps, t_s)

    def _list_files(self) -> dict[str, list[Path]]:
        if not self._folder.is_dir():
            raise ConfigurationError(
                str(self._folder), ["images: no such folder; give one with a sub-folder of pictures per type"]
            )
        tree = find_pictures(self._folder)
        tree.told(_log.warning)
        self._bits = camera_bits(tree.files)
        files = {label: self._readable(found) for label, found in tree.types.items()}
        files = {label: found for label, found in files.items() if found}
        if not any(label.lower() not in OTHER_FOLDERS for label in files):
            raise ConfigurationError(
                str(self._folder),
                [
                    "images: no sub-folder holds a readable picture; give a folder with one sub-folder per type, "
                    f"e.g. {self._folder}/Duracell_Alk/1.jpg ({len(self.skipped)} unreadable files were skipped)",
                    *map(str, tree.remarks),
                ],
            )
        return files

    def _readable(self, files: Sequence[Path]) -> list[Path]:
        """Those whose head is a picture's; what is broken further on is found when it is drawn."""
        found = []
        for file in files:
            try:
                with file.open("rb") as stream:
                    head = stream.read(16)
            except OSError as error:
                self.skipped.append(f"{file}: {error.strerror}")
                continue
            if begins_as_picture(head):
                found.append(file)
            else:
                self.skipped.append(f"{file}: not a picture")
        return found

    def _sprite_of(self, item: BatteryLooks) -> Sprite:
        label = item.label if item.label in self._files else self._stand_in(item)
        files = self._files[label]
        while files:
            file = files[item.seed % len(files)]
            try:
                return self._load(file)
            except FrameError as error:
                self.skipped.append(str(error))
                files.remove(file)
        raise ConfigurationError(
            str(self._folder / label), ["images: none of its pictures can be decoded; replace them"]
        )

    def _stand_in(self, item: BatteryLooks) -> str:
        """Folder for a label without one: an unknown brand is drawn from the folder of unknowns."""
        return (self.unknown() or self.types())[0] if item.label not in self.types() else item.label

    def _load(self, file: Path) -> Sprite:
        """Sprite of a file; kept compressed, since a hundred of them would fill the memory."""
        if file not in self._sprites:
            sprite = cut_out(read_picture(file, self._bits))
            _, pixels = cv2.imencode(".jpg", sprite.weighted, [cv2.IMWRITE_JPEG_QUALITY, 95])
            _, alpha = cv2.imencode(".jpg", sprite.alpha, [cv2.IMWRITE_JPEG_QUALITY, 90])
            self._sprites[file] = (pixels.tobytes(), alpha.tobytes())
        picture, opacity = self._sprites[file]
        return Sprite(_decode(picture, cv2.IMREAD_COLOR), _decode(opacity, cv2.IMREAD_GRAYSCALE))


def _decode(data: bytes, mode: int) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), mode))


def cut_out(rgb: np.ndarray) -> Sprite:
    """Photograph without its white background, scaled to `PHOTOGRAPH_PX` on the longer side."""
    scale = PHOTOGRAPH_PX / max(rgb.shape[:2])
    if scale < 1:
        rgb = _resize(rgb, scale)
    mask = background_mask(rgb)
    alpha = np.full(rgb.shape[:2], 255, np.uint8) if mask is None else cv2.erode(255 - mask, np.ones((3, 3)))
    if cv2.countNonZero(alpha) == 0:
        alpha[:] = 255
    x, y, width, height = cv2.boundingRect(alpha)
    rgb, alpha = rgb[y : y + height, x : x + width], alpha[y : y + height, x : x + width]
    scale = PHOTOGRAPH_PX / max(width, height)
    return Sprite.of(_resize(rgb, scale), _resize(alpha, scale))


def lay_photograph(scene: BeltScene, frame: np.ndarray, sprite: Sprite, rng: np.random.Generator) -> None:
    """Put a photograph on the belt: a little smaller, turned and off the centre each time."""
    scale = float(rng.uniform(0.82, 1.0))
    centre = (WIDTH / 2 + rng.uniform(-40, 40), HEIGHT / 2 + rng.uniform(-20, 20))
    scene.lay(frame, sprite, centre, math.radians(rng.uniform(-8, 8)), scale)


def photograph_on_belt(scene: BeltScene, rgb: np.ndarray, seed: int, *, speed_mps: float, t_s: float) -> np.ndarray:
    """Frame of one photograph on the belt, as `PhotographRenderer` shows it."""
    rng = np.random.default_rng([seed, 3])
    frame = scene.empty(rng)
    lay_photograph(scene, frame, cut_out(rgb), rng)
    return scene.expose(frame, rng, speed_mps, t_s)


def _frame_rng(item: BatteryLooks | None, seed: int, t_s: float) -> np.random.Generator:
    """A frame follows from the item's seed alone; a bare belt from the time."""
    return np.random.default_rng([item.seed, 1] if item is not None else [seed, 2, int(t_s * 1000) & 0xFFFFFFFF])


def _roll_up(wrapper: Wrapper, item: BatteryLooks, rng: np.random.Generator) -> Sprite:
    """The battery as seen from above: half of its wrapper on a shaded cylinder, worn, with its steel ends."""
    length, diameter = round(item.length_mm * PX_PER_MM), round(item.diameter_mm * PX_PER_MM)
    nub_length, nub_width = max(8, round(0.022 * length)), round(0.38 * diameter)
    body = length - nub_length
    height = np.linspace(-1, 1, diameter, dtype=np.float32)
    around = np.arcsin(np.clip(height, -1, 1)) / (2 * math.pi) * WRAPPER_GIRTH
    rows = (around + rng.uniform(0, WRAPPER_GIRTH)).round().astype(int) % WRAPPER_GIRTH
    pixels = cv2.resize(wrapper.pixels[rows], (body, diameter), interpolation=cv2.INTER_AREA)
    pixels[:, :7] = (176, 178, 182)
    pixels[:, -7:] = (176, 178, 182)
    pixels = _age(pixels, item.wear, rng)
    shade = _shade(height, wrapper.gloss, rng.uniform(-0.35, 0.35))
    pixels = cv2.multiply(pixels, np.broadcast_to(shade[:, None, None], pixels.shape).copy(), dtype=cv2.CV_8U)

    canvas = np.full((diameter, length, 3), 170, np.uint8)
    canvas[:, :body] = pixels
    alpha = np.zeros((diameter, length), np.uint8)
    cv2.rectangle(alpha, (4, 0), (body - 5, diameter - 1), 255, -1)
    cv2.rectangle(alpha, (0, 5), (body - 1, diameter - 6), 255, -1)
    top = (diameter - nub_width) // 2
    nub = _shade(np.linspace(-1, 1, nub_width, dtype=np.float32), 0.9, 0.0)
    canvas[top : top + nub_width, body:] = np.clip(188 * nub, 0, 255).astype(np.uint8)[:, None, None]
    alpha[top : top + nub_width, body:] = 255
    return Sprite.of(canvas, alpha)


def _shade(height: np.ndarray, gloss: float, light: float) -> np.ndarray:
    """Brightness across a cylinder lit from above, a little aside; ``height`` runs from -1 to 1."""
    normal = np.sqrt(np.clip(1 - height**2, 0, 1))
    diffuse = 0.42 + 0.62 * np.clip(normal * math.cos(light) + height * math.sin(light), 0, 1)
    highlight = np.exp(-(((height - light) / 0.12) ** 2)) * (0.15 + 0.4 * gloss)
    return np.asarray(diffuse + highlight, np.float32)


def _age(pixels: np.ndarray, wear: float, rng: np.random.Generator) -> np.ndarray:
    """Fading, scratches and dirt for ``wear`` from 0 (new) to 1."""
    if wear <= 0.02:
        return pixels
    height, width = pixels.shape[:2]
    pixels = cv2.addWeighted(pixels, 1 - 0.28 * wear, pixels, 0, 40 * wear)
    for _ in range(int(wear * 14)):
        start = rng.integers(0, (width, height))
        end = start + rng.normal(0, (60, 16)).astype(int)
        tone = int(rng.integers(120, 230))
        cv2.line(pixels, start.tolist(), end.tolist(), (tone, tone, tone), 1, cv2.LINE_AA)
    dirt = np.zeros((height, width), np.uint8)
    for _ in range(int(wear * 9)):
        centre = rng.integers(0, (width, height)).tolist()
        axes = rng.integers(3, 26, 2).tolist()
        cv2.ellipse(dirt, centre, axes, float(rng.uniform(0, 180)), 0, 360, int(rng.integers(60, 190)), -1)
    return _blend(pixels, np.full_like(pixels, (52, 46, 38)), cv2.blur(dirt, (7, 7)))


def _scrap(rng: np.random.Generator) -> Sprite:
    size = int(rng.integers(50, 120))
    points = np.stack([size / 2 + size / 2.1 * rng.uniform(0.5, 1.0, 7) * f(_ANGLES) for f in (np.cos, np.sin)], 1)
    alpha = np.zeros((size, size), np.uint8)
    cv2.fillPoly(alpha, [points.astype(np.int32)], 255, cv2.LINE_AA)
    colours = [(196, 190, 178), (120, 92, 66), (84, 80, 76), (210, 206, 200)]
    pixels = np.empty((size, size, 3), np.uint8)
    pixels[:] = colours[rng.integers(len(colours))]
    return Sprite.of(pixels, alpha)


_ANGLES = np.linspace(0, 2 * math.pi, 7, endpoint=False)


def _shadow(alpha: np.ndarray) -> np.ndarray:
    """How much light the belt gets beside what lies on it, uint8: 255 where there is no shadow."""
    small: Any = cv2.resize(alpha, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    small = cv2.blur(small, (7, 7))
    small = cv2.warpAffine(small, np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 2.0]]), small.shape[::-1])
    light = cv2.addWeighted(small, -SHADOW, small, 0, 255)
    return np.asarray(cv2.resize(light, (alpha.shape[1], alpha.shape[0])))


def _blend(under: np.ndarray, over: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    opacity = cv2.merge([alpha, alpha, alpha])
    return cv2.add(
        cv2.multiply(under, cv2.bitwise_not(opacity), scale=1 / 255), cv2.multiply(over, opacity, scale=1 / 255)
    )


def _resize(pixels: np.ndarray, scale: float) -> np.ndarray:
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _belt_texture(rng: np.random.Generator, colour: tuple[int, int, int]) -> np.ndarray:
    """Woven belt with stains and scuffs, uint8 (HEIGHT + BELT_SPARE, WIDTH + BELT_SPARE, 3)."""
    height, width = HEIGHT + BELT_SPARE, WIDTH + BELT_SPARE
    weave = 2.5 * np.sin(np.arange(width) * 0.9)[None, :] + 2.5 * np.sin(np.arange(height) * 0.9)[:, None]
    grain = cv2.GaussianBlur(9 * rng.standard_normal((height, width), np.float32), (0, 0), 1.2)
    spots = rng.standard_normal((height // 64, width // 64), np.float32)
    stains = 5 * cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC)
    scuffs: Any = np.zeros((height, width), np.float32)
    for _ in range(60):
        x, y, length, drop = rng.integers((0, 0, 40, -4), (width, height, 400, 5)).tolist()
        cv2.line(scuffs, (x, y), (x + length, y + drop), 7.0, 1, cv2.LINE_AA)
    relief = (weave + grain + stains + scuffs)[..., None]
    return np.asarray(np.clip(np.array(colour, np.float32) + relief, 0, 255), np.uint8)


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Sensor noise around a level of 128."""
    grain = rng.standard_normal((HEIGHT, WIDTH, 3), dtype=np.float32)
    return np.asarray(cv2.convertScaleAbs(grain, alpha=3.2, beta=128.0))


def _vignette() -> np.ndarray:
    x = np.linspace(-1, 1, WIDTH, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, HEIGHT, dtype=np.float32)[:, None]
    falloff = 1 - 0.11 * (x**2 + y**2)
    return np.repeat((255 * falloff).astype(np.uint8)[..., None], 3, axis=2)

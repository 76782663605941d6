"""Adapts a pretrained backbone to cut-out batteries, without labels: other light is to change nothing.

Self-distillation: a copy of the network, the student, sees cut-outs in other light, blurred, turned, before other
backgrounds and partly covered, and learns to say of them what the network as it was, the teacher, says of the same
cut-outs undisturbed (a teacher's features as the aim: Romero et al. 2015, FitNets). It learns from drawings of
invented brands and pictures of anything at all; photographs that judge a model later must not be among them.
"""

from __future__ import annotations

import copy
import importlib
import logging
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import affine_grid, conv2d, grid_sample, max_pool2d, normalize, pad

from battery_sorting.core.beside import file_beside
from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.vision.deep_pictures import camera_bits
from battery_sorting.vision.picture_folders import all_pictures
from battery_sorting.vision.pictures import read_picture
from battery_sorting.vision.preprocessing import Preprocessing
from battery_sorting.vision.training.backbone import choose_device, input_config, load_backbone
from battery_sorting.vision.training.data import Studio
from battery_sorting.vision.training.progress import Progress, no_progress

log = logging.getLogger(__name__)

SIZE = Preprocessing()
GREY = SIZE.padding
HIDE_BEYOND = 3
PER_BRAND = 3
"""Drawings of each invented brand."""
BRAND_SEED = 500_000_000
"""Drawings begin here, far from those that models learn from and are judged by."""
WINDOWS = 28
"""Windows that are cut out of a picture without transparent parts."""
FLAT = 25.0
"""Spread (grey levels) below which a window shows nothing."""
STATISTICS = 12  # batches by which features are standardised
WARM_UP = 0.0125  # part of the steps
CLEAN = 0.5
"""Weight of the loss on undisturbed cut-outs: the student is to stay near the teacher there."""
BLUR = (1.0, 4.0, 6.0, 4.0, 1.0)


@dataclass(frozen=True, slots=True)
class AdaptationOptions:
    """What is adapted, to what, and for how long.

    Attributes:
        out: File that the weights are written to (.safetensors), in half precision.
        pictures: Folder of pictures of anything, searched with all that is in it; None: drawings alone.
        most: Cut-outs of pictures at most.
        drawings: Drawings of invented brands.
        steps: Of gradient descent.
        batch: Cut-outs a step.
        rate: Of AdamW, at its highest.
        backbone: What is adapted; it and ``weights`` as for `backbone.load_backbone`.
        seed: Of everything that is drawn.
        device: ``auto``, ``cpu`` or ``cuda``. Minutes on a GPU, hours on a processor.
        processes: That draw and cut out.
        overwrite: Whether a file that is there may be replaced.
    """

    out: Path
    pictures: Path | None = None
    most: int = 4000
    drawings: int = 10_500
    steps: int = 1300
    batch: int = 192
    rate: float = 2e-4
    backbone: str = "lite0"
    weights: Path | None = None
    seed: int = 0
    device: str = "auto"
    processes: int = 1
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class MaskedCutouts:
    """uint8 (n, h, w, 3), RGB, and bool (n, h, w): where they show a thing, and not what lies behind it."""

    pixels: np.ndarray
    mask: np.ndarray


def adapt_backbone(options: AdaptationOptions, progress: Progress = no_progress) -> dict[str, float]:
    """Adapt and write the weights.

    Returns:
        How far the student's features are from the teacher's, as 1 − cosine of standardised features: ``before``
        and ``after``, of disturbed cut-outs, and ``undisturbed``.

    Raises:
        ConfigurationError: Nothing to learn from; ``out`` is a folder, is there and may not be replaced, or can't
            be written.
        ModelError: No weights of the backbone to be had.
    """
    if options.out.is_dir():
        raise ConfigurationError("--out", [f"{options.out} is a folder; give a file, such as own.safetensors"])
    with file_beside(options.out, options.overwrite) as out:  # now, not after hours
        return _adapt(options, out, progress)


def _adapt(options: AdaptationOptions, out: Path, progress: Progress) -> dict[str, float]:
    teacher = load_backbone(options.backbone, options.weights)
    sources = [found for found in (_drawings(options, progress), _pictures(options, progress)) if found is not None]
    if not sources:
        raise ConfigurationError("--drawings, --pictures", ["nothing to learn from: ask for drawings, or pictures"])
    device = choose_device(options.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(options.seed)
        lesson = _Lesson(teacher, sources, options, device)
        figures = lesson.learn(progress)
    state = lesson.student.cpu().state_dict()
    content = importlib.import_module("safetensors.torch").save(
        {name: _half(value).contiguous() for name, value in state.items()}
    )
    out.write_bytes(content)
    return figures


class _Lesson:
    """Teacher and student, and the cut-outs that both see. Each source of cut-outs counts the same."""

    def __init__(
        self, teacher: nn.Module, sources: list[MaskedCutouts], options: AdaptationOptions, device: torch.device
    ) -> None:
        self._options, self._device = options, device
        self._config = input_config(teacher)
        self._teacher = _on(copy.deepcopy(teacher), device).requires_grad_(False)
        self.student = _on(copy.deepcopy(teacher), device).requires_grad_(True)
        pixels = np.concatenate([source.pixels for source in sources])
        mask = np.concatenate([source.mask for source in sources])
        self._pixels = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
        self._mask = torch.from_numpy(mask).to(device)[:, None]
        share = np.concatenate([np.full(len(source.mask), 1 / len(source.mask)) for source in sources])
        self._share = torch.from_numpy(share).to(device)
        with torch.no_grad():
            seen = [normalize(self._features(self._teacher, self._draw()[0])) for _ in range(STATISTICS)]
        self._mean, self._spread = torch.cat(seen).mean(dim=0), torch.cat(seen).std(dim=0) + 1e-6

    def learn(self, progress: Progress) -> dict[str, float]:
        """All steps; what `adapt_backbone` returns."""
        options = self._options
        optimiser = torch.optim.AdamW(self.student.parameters(), options.rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / options.steps))
        before, after, undisturbed = 0.0, 0.0, 0.0
        for step in progress("steps", range(options.steps)):
            pixels, mask = self._draw()
            with torch.no_grad():
                wanted = self._standardised(self._teacher, pixels)
            both = torch.cat([disturbed(*moved(pixels, mask)), pixels])
            said = self._standardised(self.student, both)
            away = 1 - (said * wanted.repeat(2, 1)).sum(dim=1)
            other, clean = away[: len(pixels)].mean(), away[len(pixels) :].mean()
            optimiser.zero_grad()
            torch.autograd.backward(other + CLEAN * clean)
            optimiser.step()
            schedule.step()
            after, undisturbed = float(other.detach()), float(clean.detach())
            before = before if step else after
        self.student.eval()
        return {"before": before, "after": after, "undisturbed": undisturbed}

    def _draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch: float (n, 3, h, w) of 0..255 and bool (n, 1, h, w)."""
        rows = torch.multinomial(self._share, self._options.batch, replacement=True)
        return varied(self._pixels[rows].float(), self._mask[rows])

    def _standardised(self, network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        """Unit features, each centred and scaled, of length 1 again: as the head looks at them."""
        return normalize((normalize(self._features(network, pixels)) - self._mean) / self._spread)

    def _features(self, network: Any, pixels: torch.Tensor) -> torch.Tensor:
        mean, std = (
            torch.tensor(value, device=self._device)[:, None, None]
            for value in (self._config.mean, self._config.std)
        )
        seen = ((pixels / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            maps = network.forward_features(seen)
        pooled: torch.Tensor = maps.float().mean(dim=(2, 3))
        return pooled


def varied(pixels: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """More things to look at: what fills the frame is cut to a battery's outline, mirrored, in other colours.

    Args:
        pixels: float (n, 3, h, w), 0..255.
        mask: bool (n, 1, h, w).
    """
    n, device = len(pixels), pixels.device
    height, width = pixels.shape[2:]
    full = (mask.float().mean(dim=(1, 2, 3)) > 0.97) & _chance(0.6, n, device).flatten()
    tall, wide = _between(0.25, 0.95, n, device) * height / 2, _between(0.8, 1.0, n, device) * width / 2
    y = (torch.arange(height, device=device) - height / 2)[:, None]
    x = torch.arange(width, device=device) - width / 2
    outline = (y.abs() < tall) & (x.abs() < wide)
    mask = torch.where(full[:, None, None, None], outline, mask)
    mirror = _chance(0.5, n, device)
    pixels, mask = torch.where(mirror, pixels.flip(3), pixels), torch.where(mirror, mask.flip(3), mask)
    for channels in ([0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]):
        pixels = torch.where(_chance(0.08, n, device), pixels[:, channels], pixels)
    pixels = (pixels * _between(0.8, 1.05, n, device)).clamp(0, 255)
    return torch.where(mask, pixels, float(GREY)), mask


def moved(pixels: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, end for end by chance, turned by up to 5°, a little larger or smaller, and beside its place."""
    n, device = len(pixels), pixels.device
    aspect = pixels.shape[3] / pixels.shape[2]
    turn = torch.deg2rad(_between(-5.0, 5.0, n, device).flatten())
    size = _between(0.93, 1.1, n, device).flatten() * (2.0 * _chance(0.5, n, device).flatten() - 1)
    shift = 0.1 * torch.rand(n, 2, device=device) - 0.05
    cos, sin = torch.cos(turn) * size, torch.sin(turn) * size
    rows = [
        torch.stack([cos, -sin / aspect, shift[:, 0]], dim=1),
        torch.stack([sin * aspect, cos, shift[:, 1]], dim=1),
    ]
    places = affine_grid(torch.stack(rows, dim=1), list(pixels.shape), align_corners=False)
    there = grid_sample(pixels - GREY, places, padding_mode="zeros", align_corners=False) + GREY
    return there, grid_sample(mask.float(), places, padding_mode="zeros", align_corners=False) > 0.5


def disturbed(pixels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """In other light, with noise, before another background, partly covered, and out of focus.

    Args:
        pixels: float (n, 3, h, w), 0..255.
        mask: bool (n, 1, h, w): where light falls on the thing.

    Returns:
        Like ``pixels``.
    """
    n, device = len(pixels), pixels.device
    gain = _between(0.65, 1.4, n, device) * (0.32 * torch.rand(n, 3, 1, 1, device=device) + 0.84)
    lit = 255 * (pixels / 255 * gain).clamp(min=0) ** _between(0.85, 1.18, n, device)
    lit = (lit + _between(0.0, 4.0, n, device) * torch.randn_like(lit)).clamp(0, 255)
    lit = torch.where(mask, lit, float(GREY))
    lit = _covered(_before_something(lit, mask))
    soft = _chance(0.4, n, device)
    lit = torch.where(soft, _blurred(lit), lit)
    return torch.where(soft & _chance(0.4, n, device), _blurred(lit), lit)


def _before_something(pixels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Of a third a rim shows what lies behind, a colour or something of another picture; of a quarter all of it."""
    n, device = len(pixels), pixels.device
    colour = 255 * torch.rand(n, 3, 1, 1, device=device)
    colour = torch.where(_chance(0.4, n, device), colour * _between(0.1, 0.35, n, device), colour)
    colour = torch.where(_chance(0.3, n, device), _between(225.0, 255.0, n, device), colour)
    slope = _between(-25.0, 25.0, n, device) * torch.linspace(-1, 1, pixels.shape[3], device=device)
    behind = colour + slope + 3 * torch.randn_like(pixels)
    behind = torch.where(_chance(0.2, n, device), 0.5 * behind + 0.5 * pixels.roll(1, 0), behind).clamp(0, 255)
    rim = (max_pool2d(mask.float(), 7, 1, 3) > 0.5) & ~mask
    which = torch.rand(n, 1, 1, 1, device=device)
    shown = torch.where(which < 0.35, rim, (which < 0.6) & ~mask)
    return torch.where(shown, behind, pixels)


def _covered(pixels: torch.Tensor) -> torch.Tensor:
    """One in seven lacks a piece, or something lies on it."""
    n, device = len(pixels), pixels.device
    height, width = pixels.shape[2:]
    left, top = _between(0.0, 0.9, n, device) * width, _between(0.0, 0.86, n, device) * height
    wide, tall = _between(0.06, 0.27, n, device) * width, _between(0.08, 0.39, n, device) * height
    x, y = torch.arange(width, device=device), torch.arange(height, device=device)[:, None]
    box = (x >= left) & (x < left + wide) & (y >= top) & (y < top + tall) & _chance(0.15, n, device)
    colour = 195 * torch.rand(n, 3, 1, 1, device=device) + 30
    return torch.where(box, torch.where(_chance(0.5, n, device), float(GREY), colour), pixels)


def _blurred(pixels: torch.Tensor) -> torch.Tensor:
    row = torch.tensor(BLUR, device=pixels.device)
    kernel = (row[:, None] * row / row.sum() ** 2).repeat(3, 1, 1, 1)
    return conv2d(pad(pixels, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)


def _between(least: float, most: float, n: int, device: torch.device) -> torch.Tensor:
    return (most - least) * torch.rand(n, 1, 1, 1, device=device) + least


def _chance(share: float, n: int, device: torch.device) -> torch.Tensor:
    return torch.rand(n, 1, 1, 1, device=device) < share


def _rate(done: float) -> float:
    """Part of the highest rate: a short rise, then half a cosine."""
    return min(1.0, (done + 1e-3) / WARM_UP) * (0.5 + 0.5 * float(np.cos(np.pi * done)))


def _on(network: nn.Module, device: torch.device) -> nn.Module:
    moved_there: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved_there.eval()  # batch norm keeps its statistics


def _half(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() else value


def _drawings(options: AdaptationOptions, progress: Progress) -> MaskedCutouts | None:
    brands = range(-(-options.drawings // PER_BRAND))
    parts = [part.tolist() for part in np.array_split(np.array(brands), max(1, len(brands) // 25)) if len(part)]
    made = list(_in_processes(partial(_drawn, options.seed), parts, options, "drawings", progress))
    return _joined(made)


def _drawn(seed: int, brands: list[int]) -> MaskedCutouts:
    """Each brand in `PER_BRAND` drawings, in other light and places."""
    studio = Studio(Preprocessing(hide_beyond=HIDE_BEYOND), 77_000 + seed + brands[0], scenes=2)
    found = []
    for brand in brands:
        for n in range(PER_BRAND):
            cutout = studio.drawn(f"invented {1_000_000 + brand}", BRAND_SEED + brand * 10 + n)
            if cutout.foreground == "object":
                around = np.ones((2 * HIDE_BEYOND + 1,) * 2, np.uint8)
                found.append((cutout.pixels, cv2.dilate(cutout.mask.astype(np.uint8), around)))
    return _of_pairs(found)


def _pictures(options: AdaptationOptions, progress: Progress) -> MaskedCutouts | None:
    if options.pictures is None:
        return None
    tree = all_pictures(options.pictures).told(log.warning)
    files = list(tree.here)
    if not files:
        raise ConfigurationError("--pictures", [f"{options.pictures}: no pictures in it or in what is in it"])
    seen = partial(_seen, options.seed, camera_bits(files))
    made = _joined(list(_in_processes(seen, files, options, "pictures", progress)))
    if made is None:
        raise ConfigurationError("--pictures", [f"{options.pictures}: not one picture of it can be used"])
    chosen = np.random.default_rng(options.seed).permutation(len(made.mask))[: options.most]
    return MaskedCutouts(made.pixels[chosen], made.mask[chosen])


def _seen(seed: int, bits: int | None, path: Path) -> MaskedCutouts:
    try:
        picture = Image.fromarray(read_picture(path, bits, transparent=True))
    except FrameError as error:
        log.warning("left out: %s", error)
        return _of_pairs([])
    picture.thumbnail((1600, 1600))
    rgba = np.array(picture)
    if (rgba[..., 3] > 127).mean() < 0.99:
        return _of_pairs(_thing(rgba))
    return _of_pairs(_windows(rgba[..., :3], np.random.default_rng([seed, *rgba.shape])))


def _thing(rgba: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """What isn't transparent, long side level, on grey."""
    solid = rgba[..., 3] > 127
    if solid.mean() < 0.1:
        return []
    y, x = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    own = rgba[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    if min(own.shape[:2]) < 40:
        return []
    if own.shape[0] > own.shape[1]:
        own = np.rot90(own)
    scale = min(SIZE.width / own.shape[1], SIZE.height / own.shape[0])
    size = min(SIZE.width, round(own.shape[1] * scale)), min(SIZE.height, round(own.shape[0] * scale))
    own = cv2.resize(np.ascontiguousarray(own), size, interpolation=cv2.INTER_AREA)
    alpha = own[..., 3:] / 255.0
    left, top = (SIZE.width - size[0]) // 2, (SIZE.height - size[1]) // 2
    pixels = np.full((SIZE.height, SIZE.width, 3), GREY, np.uint8)
    mask = np.zeros((SIZE.height, SIZE.width), np.uint8)
    place = np.s_[top : top + size[1], left : left + size[0]]
    pixels[place] = (own[..., :3] * alpha + GREY * (1 - alpha)).astype(np.uint8)
    mask[place] = alpha[..., 0] > 0.02
    return [(pixels, mask)]


def _windows(rgb: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Windows of the cut-out's shape on which something is to be seen."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    widest = min(900, rgb.shape[1], 2 * rgb.shape[0])
    for _ in range(4 * WINDOWS if widest > 220 else 0):
        width = int(rng.uniform(220, widest))
        height = width * SIZE.height // SIZE.width
        left, top = rng.integers(0, rgb.shape[1] - width + 1), rng.integers(0, rgb.shape[0] - height + 1)
        window = cv2.resize(
            rgb[top : top + height, left : left + width], (SIZE.width, SIZE.height), interpolation=cv2.INTER_AREA
        )
        if window.std() >= FLAT:
            found.append((window, np.ones(window.shape[:2], np.uint8)))
        if len(found) == WINDOWS:
            break
    return found


def _in_processes(
    make: Any, parts: list[Any], options: AdaptationOptions, text: str, progress: Progress
) -> Iterator[MaskedCutouts]:
    if options.processes == 1:
        yield from (make(part) for part in progress(text, parts))
        return
    # Ctrl-C comes to all processes of a terminal; this one ends the others.
    deaf = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(options.processes, initializer=deaf) as pool:
        made = pool.map(make, parts)
        yield from (next(made) for _ in progress(text, parts))


def _of_pairs(found: list[tuple[np.ndarray, np.ndarray]]) -> MaskedCutouts:
    shape = (SIZE.height, SIZE.width)
    pixels = np.array([pixels for pixels, _ in found], np.uint8).reshape(-1, *shape, 3)
    return MaskedCutouts(pixels, np.array([mask for _, mask in found], bool).reshape(-1, *shape))


def _joined(parts: list[MaskedCutouts]) -> MaskedCutouts | None:
    parts = [part for part in parts if len(part.mask)]
    if not parts:
        return None
    return MaskedCutouts(
        np.concatenate([part.pixels for part in parts]), np.concatenate([part.mask for part in parts])
    )

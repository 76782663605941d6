"""Training of the network that finds the cell, on frames with masks."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

from battery_sorting.core.beside import file_beside
from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.vision.cell_finder import HEIGHT, WIDTH, as_input, letterboxed
from battery_sorting.vision.deep_pictures import camera_bits
from battery_sorting.vision.pictures import picture_files, read_picture
from battery_sorting.vision.training.backbone import load_backbone
from battery_sorting.vision.training.onnx_files import export_onnx
from battery_sorting.vision.training.progress import Progress, no_progress
from battery_sorting.vision.training.trunk import Trunk

STRIDES = (4, 8, 16)
PLACES = 3
BATCH = 8
SHARE_TO_JUDGE = 0.15


class FinderNetwork(nn.Module):
    """Maps of three scales side by side, and a small head that says of each place what it is."""

    def __init__(self, trunk: Trunk, channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Sequential(
            nn.Conv2d(channels, 32, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(32, PLACES, 1),
        )

    def joined(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) → (n, channels, h/4, w/4)."""
        maps = self.trunk.maps(pixels)
        fine = maps[0]
        size = (int(fine.shape[2]), int(fine.shape[3]))
        return torch.cat(
            [fine, *(interpolate(m, size=size, mode="bilinear", align_corners=False) for m in maps[1:])], 1
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Probabilities (n, 3, h/4, w/4) of background, cell and cover."""
        return torch.softmax(self.head(self.joined(pixels)), dim=1)


def train_finder(
    data: Path,
    out: Path,
    backbone: nn.Module | None = None,
    epochs: int = 12,
    seed: int = 0,
    progress: Progress = no_progress,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train on ``data/frames`` and ``data/masks`` and write ``out`` (ONNX).

    Returns:
        Figures on frames that were kept back: share of places that are told rightly, and of cell and cover the
        intersection over union (Jaccard), 0..1.

    Raises:
        ConfigurationError: There are no frames, or one has no mask; ``out`` is there and may not be replaced
            (``overwrite``), or can't be written.
    """
    with file_beside(out, overwrite) as written:
        return _train(data, written, backbone, epochs, seed, progress)


def _train(
    data: Path, out: Path, backbone: nn.Module | None, epochs: int, seed: int, progress: Progress
) -> dict[str, Any]:
    frames, masks = _load(data)
    network = _network(backbone or load_backbone())
    judged = np.arange(len(frames)) < max(1, round(SHARE_TO_JUDGE * len(frames)))
    rng = np.random.default_rng(seed)
    joined = _joined(network, frames, progress)
    small = np.stack([_places(mask, joined.shape[2:]) for mask in masks])
    _fit(network.head, joined[~judged], torch.from_numpy(small[~judged]), epochs, rng, progress)
    with torch.no_grad():
        said = network.head.eval()(joined[judged].float()).argmax(dim=1).numpy()
    figures = _figures(said, small[judged])
    export_onnx(network, [torch.zeros(1, 3, HEIGHT, WIDTH)], out, ["places"])
    return figures | {"frames": len(frames), "kept_back": int(judged.sum())}


def _load(data: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    folder = data / "frames"
    files = picture_files(folder) if folder.is_dir() else []
    if len(files) < 4:
        raise ConfigurationError(str(folder), ["holds fewer than 4 pictures; draw some or label your own"])
    stems = Counter(file.stem for file in files)
    twice = [file.name for file in files if stems[file.stem] > 1]
    if twice:
        raise ConfigurationError(
            str(folder),
            [f"{', '.join(twice[:4])} would share a mask; give them names that differ in more than the ending"],
        )
    bits = camera_bits(files)
    frames, masks = [], []
    for file in files:
        mask = cv2.imread(str(data / "masks" / f"{file.stem}.png"), cv2.IMREAD_GRAYSCALE)
        try:
            frame = np.ascontiguousarray(read_picture(file, bits)[..., ::-1])
        except FrameError as error:
            raise ConfigurationError(str(file), [str(error)]) from error
        if mask is None or mask.shape != frame.shape[:2]:
            raise ConfigurationError(str(file), ["has no readable mask of its size under masks/"])
        frames.append(letterboxed(frame)[0])
        scale = min(WIDTH / frame.shape[1], HEIGHT / frame.shape[0])
        size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        full = np.zeros((HEIGHT, WIDTH), np.uint8)
        full[: size[1], : size[0]] = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
        masks.append(full)
    return frames, masks


def _network(backbone: nn.Module) -> FinderNetwork:
    trunk = Trunk(backbone, STRIDES).eval().requires_grad_(False)
    with torch.no_grad():
        channels = sum(level.shape[1] for level in trunk.maps(torch.zeros(1, 3, HEIGHT, WIDTH)))
    return FinderNetwork(trunk, channels).eval()


def _joined(network: FinderNetwork, frames: list[np.ndarray], progress: Progress) -> torch.Tensor:
    """What the frozen part makes of the frames and of their mirror images' colours: float16 (n, c, h, w)."""
    rows = []
    with torch.no_grad():
        for frame in progress("frames", frames):
            rows.append(network.joined(torch.from_numpy(as_input(frame))[None]).half())
    return torch.cat(rows)


def _places(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return np.asarray(cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), np.int64)


def _fit(
    head: nn.Module,
    joined: torch.Tensor,
    places: torch.Tensor,
    epochs: int,
    rng: np.random.Generator,
    progress: Progress,
) -> None:
    torch.manual_seed(int(rng.integers(2**31)))
    optimiser = torch.optim.Adam(head.parameters(), lr=2e-3)
    schedule = importlib.import_module("torch.optim.lr_scheduler").CosineAnnealingLR(optimiser, epochs)
    head.train()
    for _ in progress("finder", range(epochs)):
        order = rng.permutation(len(joined))
        for start in range(0, len(order), BATCH):
            rows = torch.from_numpy(order[start : start + BATCH])
            values, targets = joined[rows].float(), places[rows]
            if rng.random() < 0.5:  # mirrored: the frozen part is nearly indifferent to it
                values, targets = values.flip(3), targets.flip(2)
            loss = cross_entropy(head(values), targets)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
        schedule.step()
    head.eval()


def _figures(said: np.ndarray, true: np.ndarray) -> dict[str, float]:
    figures = {"places_right": round(float((said == true).mean()), 4)}
    for name, wanted, is_true in (("cell", said > 0, true > 0), ("cover", said == 2, true == 2)):
        union = float((wanted | is_true).sum())
        figures[f"{name}_iou"] = round(float((wanted & is_true).sum()) / union, 4) if union else 1.0
    return figures

"""Trunk and head of a defect model, trained together from the pictures: fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from battery_sorting.vision.framing import Framing
from battery_sorting.vision.training.defect_head import LABEL_SMOOTHING, DefectHead, DefectHeadOptions, HeadEnsemble
from battery_sorting.vision.training.progress import Progress, no_progress
from battery_sorting.vision.training.trunk import Trunk

CHUNK = 64
STATISTICS = 200
"""Pictures from which the head learns the scale of the maps."""


@dataclass(frozen=True, slots=True)
class TuningOptions:
    """How trunk and head learn together.

    Attributes:
        epochs: Passes over the pictures; 0: the trunk stays as it was pretrained.
        rate: Largest learning rate of the trunk (one-cycle schedule, Smith and Topin 2018); that of the head is
            three times as high.
        decay: Of the weights.
        batch: Pictures per step.
        hidden: Channels of the head's layers.
        turn_deg: Largest rotation of a training picture,
        scale: largest change of its size as a share,
        shift: and of its place, as a share of the picture: how far the cut-out may be wrong.
        light: Largest change of brightness and, half as much, of single colours, as a share.
        noise: Largest standard deviation of noise, as a share of white.
    """

    epochs: int = 0
    rate: float = 1e-3
    decay: float = 0.02
    batch: int = 48
    hidden: int = 64
    turn_deg: float = 1.0
    scale: float = 0.02
    shift: float = 0.015
    light: float = 0.15
    noise: float = 0.02


@dataclass(frozen=True, slots=True)
class TuningPictures:
    """What trunk and head learn from.

    Attributes:
        framing: Of the pictures.
        cutouts: uint8 (n, h, w, 3), BGR.
        targets: int (n,), 0..labels-1.
        bad: Labels that are defects.
        labels: Number of labels.
    """

    framing: Framing
    cutouts: np.ndarray
    targets: np.ndarray
    bad: Sequence[int]
    labels: int

    @property
    def parts(self) -> int:
        """Parts that lie side by side in a picture: both ends of a cell, or one thing alone."""
        return 2 if self.framing.ends else 1


def tune(
    trunk: Trunk,
    pictures: TuningPictures,
    options: TuningOptions,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = no_progress,
) -> tuple[Trunk, HeadEnsemble]:
    """Train a copy of the trunk and a head on it.

    Args:
        trunk: Pretrained; stays as it is.
        pictures: What is learnt from.
        options: See there.
        seed: Of everything that is drawn.
        device: Where it is trained; the processor if None.
        progress: Called with a text and the epochs to come.
    """
    device = device or torch.device("cpu")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        tuned = copy.deepcopy(trunk).to(device).requires_grad_(True)
        head = _new_head(tuned, pictures, options, device)
        _learn(tuned, head, pictures, options, device, progress)
    tuned = tuned.cpu().eval().requires_grad_(False)
    return tuned, HeadEnsemble([head.cpu().eval()], pictures.bad).eval()


def _new_head(trunk: Trunk, pictures: TuningPictures, options: TuningOptions, device: torch.device) -> DefectHead:
    some = pictures.cutouts[:: max(1, len(pictures.cutouts) // STATISTICS)][:STATISTICS]
    trunk.eval()
    with torch.no_grad():
        grid = torch.cat([trunk(normalised(one[None], pictures.framing, device)).cpu() for one in some]).numpy()
    mean, spread = grid.mean(axis=(0, 2, 3)), grid.std(axis=(0, 2, 3)) + 0.05
    own = DefectHeadOptions(hidden=options.hidden)
    return DefectHead(mean, spread, pictures.labels, pictures.parts, own).to(device)


def _learn(
    trunk: Trunk,
    head: DefectHead,
    pictures: TuningPictures,
    options: TuningOptions,
    device: torch.device,
    progress: Progress,
) -> None:
    framing, cutouts = pictures.framing, pictures.cutouts
    wanted = torch.from_numpy(np.asarray(pictures.targets, np.int64)).to(device)
    batches = max(1, len(cutouts) // options.batch)
    groups = [{"params": trunk.parameters()}, {"params": head.parameters()}]
    rates = [options.rate, 3 * options.rate]
    optimiser = torch.optim.AdamW(groups, options.rate, weight_decay=options.decay)
    steps = options.epochs * batches + 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.15)
    trunk.train()
    head.train()
    for _ in progress("fine-tuning", range(options.epochs)):
        order = torch.randperm(len(cutouts)).numpy()
        for number in range(batches):
            rows = order[number * options.batch : (number + 1) * options.batch]
            pixels = augmented(normalised(cutouts[rows], framing, device), framing, options, pictures.parts)
            pixels = pixels.contiguous(memory_format=torch.channels_last)  # several times as fast on a GPU
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = head(trunk(pixels))
            loss = cross_entropy(logits.float(), wanted[rows], label_smoothing=LABEL_SMOOTHING)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()


def augmented(pixels: torch.Tensor, framing: Framing, options: TuningOptions, parts: int = 1) -> torch.Tensor:
    """Normalised pictures (n, 3, h, w) with other light and noise, mirrored, and a little beside their place.

    Parts that lie side by side are turned and mirrored each for itself. They have no upper side; one thing alone,
    such as a cell before the camera, has.
    """
    count, channels, height, width = pixels.shape
    own = pixels.reshape(count, channels, height, parts, width // parts).permute(0, 3, 1, 2, 4).flatten(0, 1)
    n, device = len(own), pixels.device
    turn = torch.deg2rad((2 * torch.rand(n, device=device) - 1) * options.turn_deg)
    size = 1 + (2 * torch.rand(n, device=device) - 1) * options.scale
    sign = torch.randint(0, 2, (2, n), device=device) * 2.0 - 1.0
    if parts == 1:
        sign[1] = 1.0
    across = own.shape[3] / height
    cos, sin = torch.cos(turn) * size, torch.sin(turn) * size
    shift = (2 * torch.rand(n, 2, device=device) - 1) * 2 * options.shift
    rows = [
        torch.stack([sign[0] * cos, -sin / across, shift[:, 0]], 1),
        torch.stack([sin * across, sign[1] * cos, shift[:, 1]], 1),
    ]
    places = affine_grid(torch.stack(rows, 1), list(own.shape), align_corners=False)
    moved = grid_sample(own, places, mode="bilinear", padding_mode="border", align_corners=False)
    moved = moved.reshape(count, parts, channels, height, width // parts).permute(0, 2, 3, 1, 4)
    moved = moved.reshape(count, channels, height, width)
    mean, std = (torch.tensor(value, device=device)[:, None, None] for value in (framing.mean, framing.std))
    gain = 1 + (2 * torch.rand(count, 1, 1, 1, device=device) - 1) * options.light
    gain = gain * (1 + (torch.rand(count, 3, 1, 1, device=device) - 0.5) * options.light)
    noise = torch.rand(count, 1, 1, 1, device=device) * options.noise / std
    return ((moved * std + mean) * gain - mean) / std + noise * torch.randn_like(moved)


def maps_of(trunk: Trunk, framing: Framing, cutouts: np.ndarray, device: torch.device | None = None) -> np.ndarray:
    """Maps, float16 (n, d, h, w), of cut-outs, uint8 (n, h, w, 3)."""
    device = device or torch.device("cpu")
    there = trunk.to(device).eval()
    rows = []
    with torch.no_grad():
        for start in range(0, len(cutouts), CHUNK):
            rows.append(there(normalised(cutouts[start : start + CHUNK], framing, device)).cpu().numpy())
    trunk.cpu()
    return np.concatenate(rows).astype(np.float16)


def normalised(cutouts: np.ndarray, framing: Framing, device: torch.device) -> torch.Tensor:
    """Cut-outs, uint8 (n, h, w, 3), BGR, as a network wants them: float32 (n, 3, h, w) on ``device``."""
    if framing.contrast == "own" or framing.grey or device.type == "cpu":
        return torch.from_numpy(np.stack([framing.normalise(one) for one in cutouts])).to(device)
    rgb = torch.from_numpy(np.ascontiguousarray(cutouts)).to(device).flip(3).permute(0, 3, 1, 2).float() / 255.0
    mean, std = (torch.tensor(value, device=device)[:, None, None] for value in (framing.mean, framing.std))
    return (rgb - mean) / std

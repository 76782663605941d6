"""Heads on frozen features: which defect, where, and whether the picture resembles good ones at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import nn
from torch.nn.functional import avg_pool2d, cross_entropy

from battery_sorting.vision.training.coreset import farthest_first
from battery_sorting.vision.training.defect_kernel import KernelHead, flipped_scores
from battery_sorting.vision.training.head import log_loss
from battery_sorting.vision.training.progress import Progress, no_progress
from battery_sorting.vision.training.trunk import Trunk, grid_of

SMALL = 1e-6
LABEL_SMOOTHING = 0.05
SHARPEST = 5.0


@dataclass(frozen=True, slots=True)
class DefectHeadOptions:
    """How the head learns.

    Attributes:
        hidden: Channels of its two layers.
        epochs: Passes over the pictures.
        rate: Largest learning rate (one-cycle schedule, Smith and Topin 2018).
        decay: Of the weights.
        dropout: Share of channels that is left out in training.
        batch: Pictures per step.
        members: Heads that are trained from different beginnings and averaged.
        seed: Of everything that is drawn.
    """

    hidden: int = 32
    epochs: int = 30
    rate: float = 4e-3
    decay: float = 0.05
    dropout: float = 0.2
    batch: int = 32
    members: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores to probabilities: sigmoid(slope · score + offset) (Platt 1999), and a softmax over the kinds."""

    slope: float = 1.0
    offset: float = 0.0
    kinds: float = 1.0


class DefectHead(nn.Module):
    """Two small convolutions on frozen maps; of every part the mean and the maximum, of several parts the larger.

    Args:
        mean: (d,) of the maps' channels.
        spread: (d,)
        labels: Number of labels.
        parts: Things that stand side by side in the picture; a defect on one of them counts.
        options: See there.
    """

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self, mean: np.ndarray, spread: np.ndarray, labels: int, parts: int, options: DefectHeadOptions
    ) -> None:
        super().__init__()
        hidden = options.hidden
        self.parts = parts
        self.register_buffer("mean", torch.from_numpy(np.asarray(mean, np.float32))[:, None, None])
        self.register_buffer("spread", torch.from_numpy(np.asarray(spread, np.float32))[:, None, None])
        self.places = nn.Sequential(
            nn.Dropout2d(options.dropout),
            nn.Conv2d(len(mean), hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
        )
        self.picture = nn.Sequential(nn.Dropout(1.5 * options.dropout), nn.Linear(2 * hidden, labels))

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """(n, d, h, w) → logits (n, labels)."""
        maps = self.maps(grid)
        width = int(maps.shape[3]) // self.parts
        parts = [maps[..., number * width : (number + 1) * width] for number in range(self.parts)]
        pooled = torch.stack([torch.cat([part.mean(dim=(2, 3)), part.amax(dim=(2, 3))], dim=1) for part in parts])
        logits: torch.Tensor = self.picture(pooled.amax(dim=0))
        return logits

    def maps(self, grid: torch.Tensor) -> torch.Tensor:
        """What the convolutions make of the maps, (n, hidden, h, w)."""
        maps: torch.Tensor = self.places((grid - self.mean) / self.spread)
        return maps

    def of_places(self, grid: torch.Tensor) -> torch.Tensor:
        """Logits (n, labels, h, w), as if all places looked like each one: class activation (Zhou et al. 2016)."""
        maps = self.maps(grid).permute(0, 2, 3, 1)
        logits: torch.Tensor = self.picture(torch.cat([maps, maps], dim=3)).permute(0, 3, 1, 2)
        return logits


class HeadEnsemble(nn.Module):
    """Heads whose logits are averaged, and told as scores: first *defective or not*, then each label."""

    def __init__(self, heads: Sequence[DefectHead], bad: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.bad = list(bad)

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """(n, d, h, w) → scores (n, 1 + labels); the first is the log-odds of a defect, not calibrated."""
        logits = torch.stack([head(grid) for head in self.heads]).mean(dim=0)
        return torch.cat([self._odds(logits)[:, None], logits], dim=1)

    def of_places(self, grid: torch.Tensor) -> torch.Tensor:
        """(n, d, h, w) → log-odds of a defect of each place, (n, h, w), see `DefectHead.of_places`."""
        logits = [head.of_places(grid) for head in self.heads if isinstance(head, DefectHead)]
        return self._odds(torch.stack(logits).mean(dim=0))

    def _odds(self, logits: torch.Tensor) -> torch.Tensor:
        good = [label for label in range(int(logits.shape[1])) if label not in self.bad]
        return torch.logsumexp(logits[:, self.bad], dim=1) - torch.logsumexp(logits[:, good], dim=1)


def fit_head(
    grid: np.ndarray,
    targets: np.ndarray,
    bad: Sequence[int],
    labels: int,
    parts: int,
    options: DefectHeadOptions,
    progress: Progress = no_progress,
) -> HeadEnsemble:
    """Train the head.

    Args:
        grid: float16 (n, d, h, w), what the frozen trunk makes of n pictures.
        targets: int (n,), 0..labels-1.
        bad: Labels that are defects.
        labels: Number of labels.
        parts: See `DefectHead`.
        options: See there.
        progress: Called with a text and the epochs to come.
    """
    members = range(options.members)
    return HeadEnsemble([_fit_one(grid, targets, labels, parts, options, n, progress) for n in members], bad).eval()


def scores_of(head: HeadEnsemble, grid: np.ndarray) -> np.ndarray:
    """float64 (n, 1 + labels) of maps (n, d, h, w)."""
    rows = []
    with torch.no_grad():
        for start in range(0, len(grid), 64):
            rows.append(head(torch.from_numpy(grid[start : start + 64].astype(np.float32))).numpy())
    return np.concatenate(rows).astype(np.float64)


def fit_calibration(
    scores: np.ndarray, targets: np.ndarray, defective: np.ndarray, bad: Sequence[int]
) -> Calibration:
    """Calibrate on pictures that the head has not seen.

    Args:
        scores: (n, 1 + labels).
        targets: int (n,).
        defective: bool (n,).
        bad: Labels that are defects.
    """
    truth = defective.astype(float)

    def loss(curve: np.ndarray) -> float:
        value = np.exp(curve[0]) * scores[:, 0] + curve[1]
        held = 0.02 * curve[0] ** 2 + 0.02 * curve[1] ** 2  # few pictures must not make certain
        return float(np.mean(np.logaddexp(0, value) - truth * value) + held * 10 / len(truth))

    slope, offset = minimize(loss, np.array([0.0, 0.0]), method="Nelder-Mead").x
    kinds = 1.0
    if defective.any() and len(bad) > 1:
        own = scores[defective][:, [1 + label for label in bad]]
        which = np.array([list(bad).index(target) for target in targets[defective]])
        found = minimize_scalar(
            lambda log: log_loss(np.exp(log) * own, which), bounds=(-2.0, 1.5), method="bounded"
        )
        kinds = float(np.exp(found.x))
    return Calibration(min(float(np.exp(slope)), SHARPEST), float(offset), kinds)


def probabilities_of(scores: torch.Tensor, calibration: Calibration, good: Sequence[int]) -> torch.Tensor:
    """(n, labels) of scores (n, 1 + labels); rows sum to 1, the defects in them to the calibrated probability."""
    labels = scores.shape[1] - 1
    bad = [label for label in range(labels) if label not in good]
    defective = torch.sigmoid(calibration.slope * scores[:, :1] + calibration.offset)
    kinds = torch.softmax(calibration.kinds * scores[:, [1 + label for label in bad]], dim=1) * defective
    rest = torch.softmax(calibration.kinds * scores[:, [1 + label for label in good]], dim=1) * (1 - defective)
    together = torch.cat([rest, kinds], dim=1)
    order = [*good, *bad]
    return together[:, [order.index(label) for label in range(labels)]]


class Novelty(nn.Module):
    """Distance of the strangest place from what good pictures show: PatchCore (Roth et al. 2022).

    Args:
        mean: (d, 1, 1) and
        spread: of places of good pictures.
        memory: (m, d) places of good pictures, standardised: the coreset.
        unit: Distance that no good picture should reach; novelty is given in it.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    memory: torch.Tensor

    def __init__(self, mean: np.ndarray, spread: np.ndarray, memory: np.ndarray, unit: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(np.asarray(mean, np.float32)))
        self.register_buffer("spread", torch.from_numpy(np.asarray(spread, np.float32)))
        self.register_buffer("memory", torch.from_numpy(np.asarray(memory, np.float32)))
        self.unit = unit

    def forward(self, grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, d, h, w) → novelty (n,) and that of each place (n, h, w)."""
        places = (smoothed(grid) - self.mean) / self.spread
        own = (places**2).sum(dim=1)
        cross = nn.functional.conv2d(places, self.memory[:, :, None, None])
        squared = own[:, None] + (self.memory**2).sum(dim=1)[:, None, None] - 2 * cross
        nearest = torch.clamp(squared.min(dim=1).values, min=0).sqrt() / self.unit
        return nearest.flatten(1).max(dim=1).values, nearest


def smoothed(grid: torch.Tensor) -> torch.Tensor:
    """Mean over 3 × 3 places: PatchCore's aggregation of a neighbourhood."""
    return avg_pool2d(grid, 3, stride=1, padding=1, count_include_pad=False)


def fit_novelty(
    good: np.ndarray, memory: int = 600, false_alarm: float = 0.01, seed: int = 0, progress: Progress = no_progress
) -> Novelty:
    """Learn what good pictures look like, from four fifths of them; the last fifth sets the unit.

    Args:
        good: float16 (n, d, h, w) of good pictures; at least 10.
        memory: Places to remember.
        false_alarm: Share of good pictures whose novelty may exceed 1.
        seed: Of what is drawn.
        progress: Called with a text and the places to come.
    """
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(len(good))
    held = order[: max(2, len(good) // 5)]
    grid = torch.from_numpy(good[order[len(held) :]].astype(np.float32))
    places = smoothed(grid)
    mean = places.mean(dim=(0, 2, 3))[:, None, None]
    spread = places.std(dim=(0, 2, 3))[:, None, None] + 0.05
    rows = ((places - mean) / spread).permute(0, 2, 3, 1).reshape(-1, places.shape[1]).numpy()
    if len(rows) > 30 * memory:
        rows = rows[rng.choice(len(rows), 30 * memory, replace=False)]
    kept = coreset(rows, min(memory, len(rows)), rng, progress)
    novelty = Novelty(mean.numpy(), spread.numpy(), rows[kept])
    novelty.unit = float(np.quantile(novelty_of(novelty, good[held]), 1 - false_alarm)) + SMALL
    return novelty.eval()


def novelty_of(novelty: Novelty, grid: np.ndarray) -> np.ndarray:
    """float32 (n,) of maps (n, d, h, w)."""
    rows = []
    with torch.no_grad():
        for start in range(0, len(grid), 32):
            rows.append(novelty(torch.from_numpy(grid[start : start + 32].astype(np.float32)))[0].numpy())
    return np.concatenate(rows) if rows else np.zeros(0, np.float32)


def coreset(rows: np.ndarray, count: int, rng: np.random.Generator, progress: Progress = no_progress) -> np.ndarray:
    """Numbers of ``count`` rows that cover all (n, d), by their random projection (Roth et al., alg. 1)."""
    flat = rows @ rng.standard_normal((rows.shape[1], 32)).astype(np.float32)
    return farthest_first(flat, count, int(rng.integers(len(flat))), partial(progress, "memory"))


class DefectNetwork(nn.Module):
    """What is shipped: trunk, head, calibration, novelty."""

    def __init__(
        self,
        trunk: Trunk,
        head: HeadEnsemble | KernelHead,
        novelty: Novelty | None,
        calibration: Calibration,
        good: Sequence[int],
    ) -> None:
        super().__init__()
        self.trunk, self.head, self.novelty = trunk, head, novelty
        self.calibration, self.good = calibration, list(good)

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` gives."""
        if self.novelty is not None:
            return ["probabilities", "heat", "novelty"]
        return ["probabilities"] if isinstance(self.head, KernelHead) else ["probabilities", "heat"]

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Probabilities (n, L), heat of each place (n, h, w), and with a memory of good ones novelty (n,).

        Heat is the probability of a defect if the whole picture looked like the place; with a kernel head, which
        knows no places, how novel it is.
        """
        maps = self.trunk.maps(pixels)
        grid = grid_of(maps)
        novelty, heat = self.novelty(grid) if self.novelty is not None else (None, None)
        if isinstance(self.head, KernelHead):
            scores = flipped_scores(self.trunk, self.head, pixels, maps)
        else:
            scores = self.head(grid)
            heat = torch.sigmoid(self.calibration.slope * self.head.of_places(grid) + self.calibration.offset)
        said = probabilities_of(scores, self.calibration, self.good)
        return tuple(value for value in (said, heat, novelty) if value is not None)


def _fit_one(
    grid: np.ndarray,
    targets: np.ndarray,
    labels: int,
    parts: int,
    options: DefectHeadOptions,
    member: int,
    progress: Progress,
) -> DefectHead:
    seed = options.seed + member
    rng = np.random.default_rng([seed, 11])
    some = grid[rng.permutation(len(grid))[:200]].astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, spread = some.mean(axis=(0, 2, 3)), some.std(axis=(0, 2, 3)) + 0.05
        head = DefectHead(mean, spread, labels, parts, options).train()
        wanted = torch.from_numpy(np.asarray(targets, np.int64))
        batches = max(1, len(grid) // options.batch)
        optimiser = torch.optim.AdamW(head.parameters(), options.rate, weight_decay=options.decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, options.rate, total_steps=options.epochs * batches + 1
        )
        for _ in progress("head", range(options.epochs)):
            order = rng.permutation(len(grid))
            for number in range(batches):
                rows = order[number * options.batch : (number + 1) * options.batch]
                maps = _flipped(torch.from_numpy(grid[rows].astype(np.float32)), parts, rng)
                loss = cross_entropy(head(maps), wanted[rows], label_smoothing=LABEL_SMOOTHING)
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
                schedule.step()
    return head.eval()


def _flipped(maps: torch.Tensor, parts: int, rng: np.random.Generator) -> torch.Tensor:
    """Maps of pictures whose parts are mirrored, nearly: convolutions are almost indifferent to it."""
    width = int(maps.shape[3]) // parts
    turned = []
    for number in range(parts):
        part = maps[..., number * width : (number + 1) * width]
        part = part.flip(3) if rng.random() < 0.5 else part
        # One thing alone, such as a cell before the camera, has an upper side; its ends have none.
        turned.append(part.flip(2) if parts > 1 and rng.random() < 0.5 else part)
    return torch.cat(turned, dim=3)

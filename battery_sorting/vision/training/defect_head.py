"""Heads on frozen features: which defect, where, and whether the picture resembles good ones at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize, minimize_scalar
from torch import nn
from torch.nn.functional import avg_pool2d

from battery_sorting.vision.training.head import log_loss
from battery_sorting.vision.training.progress import Progress, no_progress
from battery_sorting.vision.training.trunk import Trunk

SMALL = 1e-6
SHARPEST = 30.0


@dataclass(frozen=True, slots=True)
class Features:
    """What the frozen trunk makes of n pictures, the last in v versions (mirrored, …; the picture itself first).

    Attributes:
        grid: float16 (n, d, h, w).
        whole: float16 (n, v, p).
    """

    grid: np.ndarray
    whole: np.ndarray

    def __len__(self) -> int:
        return len(self.grid)

    def take(self, rows: np.ndarray) -> Features:
        """Those pictures; ``rows`` are numbers or a mask."""
        return Features(self.grid[rows], self.whole[rows])


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """How the head learns.

    Attributes:
        width: Of the Gaussian kernel, as a factor of what would be 1 for features of spread 1.
        ridge: Penalty of the regression.
        landmarks: Pictures (with their versions) that the kernel compares to at most.
        seed: Of what is drawn.
    """

    width: float = 0.3
    ridge: float = 0.03
    landmarks: int = 1500
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores to probabilities: sigmoid(slope · score + offset) (Platt 1999), and a softmax over the kinds."""

    slope: float = 3.0
    offset: float = 0.0
    kinds: float = 5.0


class KernelHead(nn.Module):
    """Kernel ridge regression (Saunders et al. 1998) with a Gaussian kernel on what the picture is made of.

    It has one score for *defective or not*, about -1..1, and one for each label. The kernel compares to landmarks
    (subset of regressors, Smola and Bartlett 2001).

    Args:
        mean: (p,) of the features.
        spread: (p,)
        landmarks: (m, p), standardised.
        factor: (m, 1 + labels).
        width: Factor of the squared distance in the kernel's exponent.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    landmarks: torch.Tensor
    factor: torch.Tensor

    def __init__(
        self, mean: np.ndarray, spread: np.ndarray, landmarks: np.ndarray, factor: np.ndarray, width: float
    ) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("spread", spread), ("landmarks", landmarks), ("factor", factor)):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, np.float32)))
        self.width = width

    def forward(self, whole: torch.Tensor) -> torch.Tensor:
        """(n, p) → scores (n, 1 + labels)."""
        rows = (whole - self.mean) / self.spread
        squared = (rows**2).sum(dim=1)[:, None] + (self.landmarks**2).sum(dim=1) - 2 * rows @ self.landmarks.T
        return torch.exp(-self.width * torch.clamp(squared, min=0)) @ self.factor


def fit_head(
    features: Features, targets: np.ndarray, defective: np.ndarray, labels: int, options: HeadOptions
) -> KernelHead:
    """Train the head.

    Args:
        features: Of n pictures.
        targets: int (n,), 0..labels-1.
        defective: bool (n,).
        labels: Number of labels.
        options: See there.
    """
    versions = features.whole.shape[1]
    flat = features.whole.reshape(-1, features.whole.shape[2]).astype(np.float32)
    mean, spread = flat.mean(axis=0), flat.std(axis=0) + 1e-3
    rows = (flat - mean) / spread
    wanted = np.column_stack([2.0 * defective - 1, 2.0 * (targets[:, None] == np.arange(labels)) - 1])
    wanted = np.repeat(wanted, versions, axis=0)
    width = options.width / rows.shape[1]
    rng = np.random.default_rng([options.seed, 5])
    chosen = np.sort(rng.permutation(len(rows))[: options.landmarks])
    landmarks = rows[chosen]
    among = _gaussian(landmarks, landmarks, width)
    if len(chosen) == len(rows):
        factor = cho_solve(cho_factor(among + options.ridge * np.eye(len(among))), wanted)
    else:
        across = _gaussian(rows, landmarks, width)
        normal = across.T @ across + options.ridge * among + 1e-4 * np.eye(len(among))
        factor = cho_solve(cho_factor(normal), across.T @ wanted)
    return KernelHead(mean, spread, landmarks, factor, width).eval()


def scores_of(head: KernelHead, features: Features) -> np.ndarray:
    """float64 (n, 1 + labels) of the pictures as they are."""
    with torch.no_grad():
        return np.asarray(head(torch.from_numpy(features.whole[:, 0].astype(np.float32))).numpy(), np.float64)


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
        held = 0.02 * (curve[0] - np.log(3.0)) ** 2 + 0.02 * curve[1] ** 2  # few pictures must not make certain
        return float(np.mean(np.logaddexp(0, value) - truth * value) + held * 10 / len(truth))

    slope, offset = minimize(loss, np.array([np.log(3.0), 0.0]), method="Nelder-Mead").x
    kinds = 5.0
    if defective.any() and len(bad) > 1:
        own = scores[defective][:, [1 + label for label in bad]]
        which = np.array([list(bad).index(target) for target in targets[defective]])
        found = minimize_scalar(
            lambda log: log_loss(np.exp(log) * own, which), bounds=(-1.0, 3.0), method="bounded"
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
    good: Features, memory: int = 600, false_alarm: float = 0.01, seed: int = 0, progress: Progress = no_progress
) -> Novelty:
    """Learn what good pictures look like, from four fifths of them; the last fifth sets the unit.

    Args:
        good: Features of good pictures; at least 10.
        memory: Places to remember.
        false_alarm: Share of good pictures whose novelty may exceed 1.
        seed: Of what is drawn.
        progress: Called with a text and the places to come.
    """
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(len(good))
    held = order[: max(2, len(good) // 5)]
    grid = torch.from_numpy(good.grid[order[len(held) :]].astype(np.float32))
    places = smoothed(grid)
    mean = places.mean(dim=(0, 2, 3))[:, None, None]
    spread = places.std(dim=(0, 2, 3))[:, None, None] + 0.05
    rows = ((places - mean) / spread).permute(0, 2, 3, 1).reshape(-1, places.shape[1]).numpy()
    if len(rows) > 30 * memory:
        rows = rows[rng.choice(len(rows), 30 * memory, replace=False)]
    kept = coreset(rows, min(memory, len(rows)), rng, progress)
    novelty = Novelty(mean.numpy(), spread.numpy(), rows[kept])
    novelty.unit = float(np.quantile(novelty_of(novelty, good.take(held)), 1 - false_alarm)) + SMALL
    return novelty.eval()


def novelty_of(novelty: Novelty, features: Features) -> np.ndarray:
    """float32 (n,)."""
    rows = []
    with torch.no_grad():
        for start in range(0, len(features), 32):
            rows.append(novelty(torch.from_numpy(features.grid[start : start + 32].astype(np.float32)))[0].numpy())
    return np.concatenate(rows) if rows else np.zeros(0, np.float32)


def coreset(rows: np.ndarray, count: int, rng: np.random.Generator, progress: Progress = no_progress) -> np.ndarray:
    """Numbers of ``count`` rows that cover all (n, d): greedy k-centre (Roth et al., alg. 1)."""
    flat = rows @ rng.standard_normal((rows.shape[1], 32)).astype(np.float32)
    chosen = [int(rng.integers(len(flat)))]
    nearest = ((flat - flat[chosen[0]]) ** 2).sum(axis=1)
    for _ in progress("memory", range(count - 1)):
        chosen.append(int(nearest.argmax()))
        np.minimum(nearest, ((flat - flat[chosen[-1]]) ** 2).sum(axis=1), out=nearest)
    return np.array(chosen)


class DefectNetwork(nn.Module):
    """What is shipped: trunk, head, calibration, novelty."""

    def __init__(
        self, trunk: Trunk, head: KernelHead, novelty: Novelty | None, calibration: Calibration, good: Sequence[int]
    ) -> None:
        super().__init__()
        self.trunk, self.head, self.novelty = trunk, head, novelty
        self.calibration, self.good = calibration, list(good)

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` gives."""
        return ["probabilities", *(["novelty", "heat"] if self.novelty is not None else [])]

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Probabilities (n, L), and with a memory of good ones novelty (n,) and that of each place (n, h, w)."""
        grid, whole = self.trunk(pixels)
        said = probabilities_of(self.head(whole), self.calibration, self.good)
        return (said,) if self.novelty is None else (said, *self.novelty(grid))


def _gaussian(rows: np.ndarray, others: np.ndarray, width: float) -> np.ndarray:
    squared = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * rows @ others.T
    return np.asarray(np.exp(-width * np.maximum(squared, 0)), np.float64)

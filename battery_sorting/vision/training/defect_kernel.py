"""A head for textures: kernel ridge regression on what a picture is made of, wherever in the picture that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from torch import nn

from battery_sorting.vision.training.trunk import Trunk

MARGIN = 4.0
"""Log-odds, roughly, of one unit of a regression on ±1; calibration does the rest."""
FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
"""Axes of pixels (n, 3, height, width): as it is, mirrored, upside down, and both. A texture has no upper side."""
LEAST_SPREAD = 1e-3


@dataclass(frozen=True, slots=True)
class KernelOptions:
    """How the head learns.

    Attributes:
        width: Of the Gaussian kernel exp(-width · squared distance / dimensions) on standardised features.
        ridge: Added to the kernel's diagonal; the more, the smoother.
    """

    width: float = 0.3
    ridge: float = 0.1


class TextureTrunk(nn.Module):
    """A trunk whose maps are summed up: mean, maximum and standard deviation of every channel over the places.

    Args:
        trunk: Gives the maps of each scale.
    """

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def extra_repr(self) -> str:
        """The scales: weights and structure alone don't show them, and what is kept goes by all three."""
        return f"taps={self.trunk.taps}"

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels (n, 3, height, width) → (n, d)."""
        return texture_of(self.trunk.maps(pixels))


def texture_of(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean, maximum and standard deviation over the places, of maps (n, c, h, w) of each scale: (n, d)."""
    summary = []
    for level in maps:
        flat = level.flatten(2)
        mean = flat.mean(dim=2)
        variance = ((flat - mean[:, :, None]) ** 2).mean(dim=2)
        summary += [mean, flat.amax(dim=2), torch.sqrt(variance + 1e-8)]
    return torch.cat(summary, dim=1)


class KernelHead(nn.Module):
    """Regression of *defective or not*, and of each label against the rest, on textures.

    Args:
        mean: (d,) of the textures.
        spread: (d,)
        known: (m, d) standardised textures that were learnt.
        weights: (m, 1 + labels).
        width: See `KernelOptions`.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    known: torch.Tensor
    weights: torch.Tensor

    def __init__(
        self, mean: np.ndarray, spread: np.ndarray, known: np.ndarray, weights: np.ndarray, width: float
    ) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("spread", spread), ("known", known), ("weights", weights)):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, np.float32)))
        self.factor = width / len(mean)

    def forward(self, textures: torch.Tensor) -> torch.Tensor:
        """(n, d) → scores (n, 1 + labels); the first is that of a defect, not calibrated."""
        rows = (textures - self.mean) / self.spread
        squared = (rows**2).sum(dim=1)[:, None] + (self.known**2).sum(dim=1)[None] - 2 * rows @ self.known.T
        scores: torch.Tensor = MARGIN * torch.exp(-self.factor * torch.clamp(squared, min=0)) @ self.weights
        return scores


def fit_kernel(
    textures: np.ndarray, targets: np.ndarray, bad: Sequence[int], labels: int, options: KernelOptions
) -> KernelHead:
    """Train the head: ridge regression in dual variables (Saunders, Gammerman and Vovk 1998).

    Args:
        textures: float32 (n, f, d) of the flips of n pictures; each flip is learnt.
        targets: int (n,), 0..labels-1.
        bad: Labels that are defects.
        labels: Number of labels.
        options: See there.
    """
    rows = textures.reshape(-1, textures.shape[-1]).astype(np.float32)
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + LEAST_SPREAD
    known = (rows - mean) / spread
    each = np.repeat(np.asarray(targets), textures.shape[1])
    wanted = np.column_stack([np.isin(each, list(bad)), each[:, None] == np.arange(labels)]) * 2.0 - 1.0
    lengths = (known**2).sum(axis=1)
    squared = np.maximum(lengths[:, None] + lengths[None] - 2 * known @ known.T, 0)
    kernel = np.exp(-options.width / known.shape[1] * squared)
    kernel[np.diag_indices_from(kernel)] += options.ridge
    weights = cho_solve(cho_factor(kernel, lower=True, overwrite_a=True), wanted.astype(np.float32))
    return KernelHead(mean, spread, known, weights, options.width).eval()


def kernel_scores(head: KernelHead, textures: np.ndarray) -> np.ndarray:
    """float64 (n, 1 + labels), mean over the flips, of textures (n, f, d)."""
    with torch.no_grad():
        each = [head(torch.from_numpy(textures[:, flip].astype(np.float32))) for flip in range(textures.shape[1])]
    return torch.stack(each).mean(dim=0).numpy().astype(np.float64)


def flipped_scores(
    trunk: Trunk, head: KernelHead, pixels: torch.Tensor, maps: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Scores (n, 1 + labels), mean over the flips, of pixels (n, 3, height, width) whose maps are known."""
    scores = [head(texture_of(maps))]
    scores += [head(texture_of(trunk.maps(torch.flip(pixels, list(axes))))) for axes in FLIPS if axes]
    return torch.stack(scores).mean(dim=0)

"""Frozen features of several scales: where in a picture something is, and what the picture is made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from battery_sorting.core.errors import ModelError
from battery_sorting.vision.training.backbone import units

STRIDES = (8, 16)
"""Scales that are looked at: coarser ones know things, and defects are texture."""


class Trunk(nn.Module):
    """The first blocks of a backbone, and what is made of their maps.

    Args:
        backbone: A network that can be cut into a chain of blocks.
        strides: Scales; of each the deepest block counts.
    """

    def __init__(self, backbone: nn.Module, strides: Sequence[int] = STRIDES) -> None:
        super().__init__()
        chain = chain_of(backbone)
        ends = _ends(chain)
        lacking = [stride for stride in strides if stride not in ends]
        if lacking:
            raise ModelError(f"backbone {type(backbone).__name__}: has no maps of stride {lacking[0]}")
        self.taps = tuple(ends[stride] for stride in strides)
        self.chain = nn.ModuleList(chain[: max(self.taps) + 1])

    def maps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Maps of each scale, (n, c, h, w), of normalised pixels (n, 3, height, width)."""
        taken = []
        values = pixels
        for number, unit in enumerate(self.chain):
            values = unit(values)
            if number in self.taps:
                taken.append(values)
        return taken

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """What heads learn from, of normalised pixels; see `grid_of`."""
        return grid_of(self.maps(pixels))


def grid_of(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Maps of all scales as one grid (n, d, h, w) at the coarsest.

    A finer scale shows in it by its mean and its maximum.
    """
    coarse = maps[-1]
    grid = []
    for level in maps[:-1]:
        factor = int(level.shape[-1]) // int(coarse.shape[-1])
        grid += [_fit(avg_pool2d(level, factor), coarse), _fit(max_pool2d(level, factor), coarse)]
    return torch.cat([*grid, coarse], dim=1)


def chain_of(backbone: nn.Module) -> list[nn.Module]:
    """Modules from pixels to the last map; VGG and AlexNet are a chain as they are.

    Raises:
        ModelError: The backbone can't be cut.
    """
    features = getattr(backbone, "features", None)
    if isinstance(features, nn.Sequential):
        return list(features)
    return units(backbone)


def _ends(chain: Sequence[nn.Module]) -> dict[int, int]:
    """Number of the last unit at each stride."""
    ends: dict[int, int] = {}
    values = torch.zeros(1, 3, 256, 256)
    with torch.no_grad():
        for number, unit in enumerate(chain):
            values = unit(values)
            ends[round(256 / int(values.shape[-1]))] = number
    return ends


def _fit(level: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    """Odd sizes: the finer map may lack or have a row."""
    if level.shape[2:] == to.shape[2:]:
        return level
    return interpolate(level, size=to.shape[2:], mode="bilinear", align_corners=False)

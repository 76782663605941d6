"""Frozen features of several scales: where in a picture something is, and what the picture is made of."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from battery_sorting.core.errors import ModelError
from battery_sorting.vision.training.backbone import import_timm, units

STRIDES = (8, 16)
"""Scales that are looked at: coarser ones know things, and defects are texture."""
TOP_SHARE = 0.02
"""Share of a map's places whose mean stands for its strongest answers: a defect covers few places."""


class Trunk(nn.Module):
    """The first blocks of a backbone, and what is made of their maps.

    Args:
        backbone: A network that can be cut into a chain of blocks.
        strides: Scales; of each the deepest block counts.
        parts: The picture holds so many things side by side, which are summed up each by itself.
    """

    def __init__(self, backbone: nn.Module, strides: Sequence[int] = STRIDES, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts
        chain = chain_of(backbone)
        ends = _ends(chain)
        lacking = [stride for stride in strides if stride not in ends]
        if lacking:
            raise ModelError(f"backbone {type(backbone).__name__}: has no maps of stride {lacking[0]}")
        self._taps = tuple(ends[stride] for stride in strides)
        self.chain = nn.ModuleList(chain[: max(self._taps) + 1])

    def maps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Maps of each scale, (n, c, h, w), of normalised pixels (n, 3, height, width)."""
        taken = []
        values = pixels
        for number, unit in enumerate(self.chain):
            values = unit(values)
            if number in self._taps:
                taken.append(values)
        return taken

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What heads learn from.

        Returns:
            A grid (n, d, h, w) at the coarsest scale, in which a finer scale shows by its mean and its maximum; and
            the picture as a whole (n, p): of each map's channel the mean, the spread, and the strongest answers; of
            several parts the mean and the largest of each figure, in which order they stand doesn't matter.
        """
        maps = self.maps(pixels)
        coarse = maps[-1]
        grid = []
        for level in maps[:-1]:
            factor = int(level.shape[-1]) // int(coarse.shape[-1])
            grid += [_fit(avg_pool2d(level, factor), coarse), _fit(max_pool2d(level, factor), coarse)]
        return torch.cat([*grid, coarse], dim=1), self._whole(maps)

    def _whole(self, maps: list[torch.Tensor]) -> torch.Tensor:
        if self.parts == 1:
            return torch.cat([_summary(level) for level in maps], dim=1)
        of_parts = []
        for number in range(self.parts):
            width = [int(level.shape[3]) // self.parts for level in maps]
            cut = [level[..., number * w : (number + 1) * w] for level, w in zip(maps, width, strict=True)]
            of_parts.append(torch.cat([_summary(level) for level in cut], dim=1))
        together = torch.stack(of_parts)
        return torch.cat([together.mean(dim=0), together.amax(dim=0)], dim=1)


def chain_of(backbone: nn.Module) -> list[nn.Module]:
    """Modules from pixels to the last map; VGG and AlexNet are a chain as they are.

    Raises:
        ModelError: The backbone can't be cut.
    """
    features = getattr(backbone, "features", None)
    if isinstance(features, nn.Sequential):
        return list(features)
    return units(backbone)


def torchvision_backbone(name: str) -> nn.Module:
    """AlexNet, which timm doesn't have, with random weights and without its classifier."""
    import_timm()  # prepares torchvision where torch has no CUDA
    network: Any = getattr(importlib.import_module("torchvision.models"), name)(weights=None)
    chosen: nn.Module = network.eval()
    return chosen


def _ends(chain: Sequence[nn.Module]) -> dict[int, int]:
    """Number of the last unit at each stride."""
    ends: dict[int, int] = {}
    values = torch.zeros(1, 3, 256, 256)
    with torch.no_grad():
        for number, unit in enumerate(chain):
            values = unit(values)
            ends[round(256 / int(values.shape[-1]))] = number
    return ends


def _summary(level: torch.Tensor) -> torch.Tensor:
    flat = level.flatten(2)
    most = max(1, round(TOP_SHARE * int(flat.shape[2])))
    middle = flat.mean(dim=2)
    spread = ((flat - middle[..., None]) ** 2).mean(dim=2).sqrt()
    highest = flat.topk(most, dim=2).values.mean(dim=2)
    lowest = (-flat).topk(most, dim=2).values.mean(dim=2)
    return torch.cat([middle, spread, highest, lowest], dim=1)


def _fit(level: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    """Odd sizes: the finer map may lack or have a row."""
    if level.shape[2:] == to.shape[2:]:
        return level
    return interpolate(level, size=to.shape[2:], mode="bilinear", align_corners=False)

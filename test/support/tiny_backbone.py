"""A backbone of a few thousand weights, laid out as timm lays out an EfficientNet."""

from __future__ import annotations

import torch
from torch import nn


class TinyBackbone(nn.Module):
    """Stem, three blocks and a last convolution; the same random weights for the same seed."""

    num_features = 12

    def __init__(self, seed: int = 7) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv_stem, self.bn1 = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6)
            self.blocks = nn.Sequential(nn.Sequential(_block(), _block()), nn.Sequential(_block()))
            self.conv_head, self.bn2 = nn.Conv2d(6, 12, 1), nn.BatchNorm2d(12)
        self.eval()


def _block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), nn.BatchNorm2d(6), nn.ReLU())

"""The head for textures."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from battery_sorting.vision.training.defect_head import Calibration, DefectNetwork, probabilities_of
from battery_sorting.vision.training.defect_kernel import (
    FLIPS,
    KernelOptions,
    TextureTrunk,
    fit_kernel,
    kernel_scores,
    texture_of,
)
from battery_sorting.vision.training.trunk import Trunk


class Backbone(nn.Module):
    """Strides 8 and 16, random weights."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            layers = [nn.Sequential(nn.Conv2d(3 if n == 0 else 5, 5, 3, 2, 1), nn.ReLU()) for n in range(4)]
        self.features = nn.Sequential(*layers)


def textures(count: int, shift: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (count, 2, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def rings():
    """What no line parts: labels 1 and 2 lie around 0, near and far."""
    rng = np.random.default_rng(3)
    turn, targets = rng.uniform(0, 2 * np.pi, 300), np.repeat([0, 1, 2], 100)
    radius = np.array([0.0, 2.0, 4.0])[targets] + rng.normal(0, 0.2, 300)
    points = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)
    return points[:, None].astype(np.float32), targets


def test_what_no_line_parts_is_learnt(rings):
    points, targets = rings
    learnt = np.arange(300) % 3 > 0
    head = fit_kernel(points[learnt], targets[learnt], [1, 2], 3, KernelOptions(width=4.0))
    scores = kernel_scores(head, points[~learnt])
    assert scores.shape == (100, 4)
    assert ((scores[:, 0] > 0) == (targets[~learnt] > 0)).mean() > 0.97
    assert (scores[:, 1:].argmax(axis=1) == targets[~learnt]).mean() > 0.95


def test_with_little_ridge_what_was_learnt_is_known_by_heart():
    points = textures(20, 0.0, 4)
    targets = np.arange(20) % 2
    head = fit_kernel(points, targets, [1], 2, KernelOptions(width=3.0, ridge=1e-3))
    assert kernel_scores(head, points)[:, 0] == pytest.approx(8.0 * targets - 4.0, abs=0.1)


def test_a_channel_that_never_changes_does_no_harm():
    points = textures(20, 0.0, 5)
    points[..., 0] = 7.0
    scores = kernel_scores(fit_kernel(points, np.arange(20) % 2, [1], 2, KernelOptions()), points)
    assert np.isfinite(scores).all()


def test_a_texture_is_mean_maximum_and_spread_of_each_scale():
    fine, coarse = torch.rand(2, 3, 8, 8), torch.rand(2, 4, 4, 4)
    said = texture_of([fine, coarse])
    assert said.shape == (2, 3 * 3 + 3 * 4)
    assert said[:, :3].numpy() == pytest.approx(fine.mean(dim=(2, 3)).numpy(), abs=1e-6)
    assert said[:, 3:6].numpy() == pytest.approx(fine.amax(dim=(2, 3)).numpy(), abs=1e-6)
    assert said[:, 17:].numpy() == pytest.approx(coarse.std(dim=(2, 3), correction=0).numpy(), abs=1e-4)


def test_what_is_shipped_says_what_was_measured():
    """Flips of the pictures (as in training) and flips inside the network (as shipped) come to the same."""
    trunk = Trunk(Backbone()).eval()
    pixels = torch.rand(6, 3, 64, 48)
    with torch.no_grad():
        flips = [TextureTrunk(trunk)(torch.flip(pixels, list(axes))).numpy() for axes in FLIPS]
        seen = np.stack(flips, axis=1)
        head = fit_kernel(seen, np.arange(6) % 3, [1, 2], 3, KernelOptions())
        shipped = DefectNetwork(trunk, head, None, Calibration(), [0])(pixels)[0].numpy()
    measured = probabilities_of(torch.from_numpy(kernel_scores(head, seen)), Calibration(), [0]).numpy()
    assert shipped == pytest.approx(measured, abs=1e-4)


def test_networks_of_other_scales_are_told_apart():
    backbone = Backbone()
    assert str(TextureTrunk(Trunk(backbone, (8, 16)))) != str(TextureTrunk(Trunk(backbone, (4, 16))))

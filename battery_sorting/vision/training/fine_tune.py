"""Training of whole networks by the recipe of Liu et al. 2023: Adam at 1e-4, batches of 48, cross entropy.

The networks are those of the paper's Table 3, and a light one with the same attention for the edge. The same code
runs on a processor, where it is slow, and on CUDA.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.vision.framing import Framing
from battery_sorting.vision.training.backbone import choose_device, import_timm, load_backbone, read_weights
from battery_sorting.vision.training.defect_tuning import normalised
from battery_sorting.vision.training.progress import Progress, no_progress


@dataclass(frozen=True, slots=True)
class Recipe:
    """The paper's settings (section 3.3); ``seed`` is of what is drawn."""

    rate: float = 1e-4
    batch: int = 48
    epochs: int = 100
    seed: int = 0
    device: str = "auto"


def _timm(name: str, **settings: Any) -> Callable[[int], nn.Module]:
    def make(labels: int) -> nn.Module:
        network: nn.Module = import_timm().create_model(name, pretrained=False, num_classes=labels, **settings)
        return network

    return make


def _torchvision(name: str) -> Callable[[int], nn.Module]:
    def make(labels: int) -> nn.Module:
        import_timm()  # prepares torchvision where torch has no CUDA
        network: nn.Module = getattr(importlib.import_module("torchvision.models"), name)(num_classes=labels)
        return network

    return make


def _lite0_cbam(labels: int) -> nn.Module:
    """EfficientNet-Lite0 as it was pretrained, and CBAM (Woo et al. 2018) before the pooling."""
    import_timm()
    backbone: Any = load_backbone("lite0")
    attention = importlib.import_module("timm.layers.cbam").CbamModule(backbone.num_features)
    return _Attended(backbone, attention, labels)


class _Attended(nn.Module):
    def __init__(self, backbone: Any, attention: nn.Module, labels: int) -> None:
        super().__init__()
        self.backbone, self.attention = backbone, attention
        self.head = nn.Linear(backbone.num_features, labels)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        maps = self.attention(self.backbone.forward_features(pixels))
        logits: torch.Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "cbam-resnet50": _timm("resnet50", block_args={"attn_layer": "cbam"}),
    "resnet50": _timm("resnet50"),
    "vgg16": _torchvision("vgg16"),
    "alexnet": _torchvision("alexnet"),
    "cbam-lite0": _lite0_cbam,
}
"""By name."""
PACKAGED = ("cbam-lite0",)
"""Networks that start from pretrained weights without being given any."""
PRETRAINED = {"cbam-resnet50": "resnet50"}
"""Network whose weights another one starts from; what isn't in them, the attention, begins at random."""


def make_network(name: str, labels: int, weights: Path | None = None, scratch: bool = False) -> nn.Module:
    """A network for ``labels`` classes.

    Args:
        name: One of `NETWORKS`.
        labels: Number of classes.
        weights: File of pretrained weights, or a folder with one per network (``resnet50.pth``); what fits by name
            and shape is taken.
        scratch: Without weights begin at random.

    Raises:
        ConfigurationError: There is no such network.
        ModelError: No weights to be had, or the file's don't fit.
    """
    if name not in NETWORKS:
        raise ConfigurationError("--networks", [f"{name!r} is none; choose from {', '.join(NETWORKS)}"])
    network = NETWORKS[name](labels)
    if name in PACKAGED:
        return network
    file = weights_file(name, weights)
    if file is None:
        if scratch:
            return network
        source = PRETRAINED.get(name, name)
        raise ModelError(
            f"no pretrained weights; fetch torchvision's {source} where there is a network, put it as {source}.pth "
            "into a folder and give --weights FOLDER, or ask for --from-scratch"
        )
    given, own = read_weights(file, name), network.state_dict()
    fitting = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
    if len(fitting) < len(given) // 2:
        raise ModelError(f"{file}: {len(fitting)} of {len(given)} weights fit {name}; give those of its own kind")
    network.load_state_dict(fitting, strict=False)
    return network


def weights_file(name: str, weights: Path | None) -> Path | None:
    """The network's file among the weights that were given."""
    if weights is None or weights.is_file():
        return weights
    files = [weights / f"{PRETRAINED.get(name, name)}{ending}" for ending in (".pth", ".safetensors")]
    return next((file for file in files if file.is_file()), None)


def fine_tune(
    network: nn.Module,
    cutouts: np.ndarray,
    targets: np.ndarray,
    framing: Framing,
    recipe: Recipe,
    progress: Progress = no_progress,
) -> nn.Module:
    """Train all of ``network``.

    Args:
        network: Made by `make_network`.
        cutouts: uint8 (n, h, w, 3), BGR.
        targets: int (n,).
        framing: By which pixels are normalised.
        recipe: See there.
        progress: Called with a text and the epochs to come.
    """
    device = choose_device(recipe.device)
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    network = network.to(device).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate)
    for _ in progress("epochs", range(recipe.epochs)):
        order = rng.permutation(len(cutouts))
        for start in range(0, len(order), recipe.batch):
            rows = order[start : start + recipe.batch]
            if len(rows) < 2:  # one picture alone has no batch statistics
                continue
            seen = np.stack([augmented(cutouts[row], rng) for row in rows])
            wanted = torch.from_numpy(np.asarray(targets[rows], np.int64)).to(device)
            loss = cross_entropy(network(normalised(seen, framing, device)), wanted)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
    return network.eval()


def probabilities(network: nn.Module, cutouts: np.ndarray, framing: Framing, device: str = "auto") -> np.ndarray:
    """float32 (n, labels) of cut-outs (n, h, w, 3)."""
    where = choose_device(device)
    network = network.to(where).eval()
    rows = []
    with torch.no_grad():
        for start in range(0, len(cutouts), 32):
            logits = network(normalised(cutouts[start : start + 32], framing, where))
            rows.append(torch.softmax(logits, dim=1).cpu().numpy())
    return np.concatenate(rows)


class Judge(nn.Module):
    """A trained network as a model is shipped: from pictures to probabilities.

    Adaptive pooling becomes a product with fixed matrices, because ONNX has it only where sides divide evenly.

    Args:
        network: From pictures to logits; is changed.
        framing: Of its pictures.
    """

    outputs = ("probabilities",)

    def __init__(self, network: nn.Module, framing: Framing) -> None:
        super().__init__()
        self.network = network.cpu().eval()
        example = torch.zeros(1, 3, framing.height, framing.width)
        for name, pool in [(n, m) for n, m in network.named_modules() if type(m) is nn.AdaptiveAvgPool2d]:
            size = _input_size(network, pool, example)
            if size is not None:
                parent, _, own = name.rpartition(".")
                setattr(network.get_submodule(parent), own, _FixedPool(size, pool))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pictures (n, 3, h, w) → (n, labels)."""
        return torch.softmax(self.network(pixels), dim=1)


class _FixedPool(nn.Module):
    """Adaptive average pooling of maps of one size."""

    down: torch.Tensor
    across: torch.Tensor

    def __init__(self, size: tuple[int, int], pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        wanted = pool.output_size if isinstance(pool.output_size, tuple) else (pool.output_size,) * 2
        for name, side, fewer in zip(("down", "across"), size, wanted, strict=True):
            means = nn.functional.adaptive_avg_pool1d(torch.eye(side), side if fewer is None else int(fewer))
            self.register_buffer(name, means)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.down.T @ maps @ self.across


def _input_size(network: nn.Module, layer: nn.Module, example: torch.Tensor) -> tuple[int, int] | None:
    """Height and width of what ``layer`` gets to see; None: nothing, as the pool of a trunk whose maps are used."""
    seen: list[tuple[int, int]] = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    with torch.no_grad():
        network(example)
    hook.remove()
    return seen[0] if seen else None


def augmented(cutout: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Flips, mirror images and proportional scaling (Liu et al. 2023, section 2.3)."""
    import cv2

    if rng.random() < 0.5:
        cutout = cutout[:, ::-1]
    if rng.random() < 0.5:
        cutout = cutout[::-1]
    scale = float(rng.uniform(0.9, 1.1))
    height, width = cutout.shape[:2]
    matrix = np.array([[scale, 0, (1 - scale) * width / 2], [0, scale, (1 - scale) * height / 2]])
    return np.asarray(
        cv2.warpAffine(np.ascontiguousarray(cutout), matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    )

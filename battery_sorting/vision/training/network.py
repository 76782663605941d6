"""The network that is shipped: frozen backbone, head and their mix in one ONNX file."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import compose, helper, numpy_helper
from torch import nn

from battery_sorting.vision.likeness import SMALL
from battery_sorting.vision.preprocessing import Preprocessing
from battery_sorting.vision.training.head import FLOOR, FastHead
from battery_sorting.vision.training.onnx_files import OPSET, export_onnx


class TypeNetwork(nn.Module):
    """Backbone, global average pooling, a linear head and the likeness to the training views.

    The class activation map is Zhou et al. 2016, eq. 2; with a head that is linear on the pooled features it is the
    same as Grad-CAM (Selvaraju et al. 2017, section 3.1) but for a factor and the cut at zero.
    """

    def __init__(self, backbone: nn.Module, head: FastHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.weight = _constant(head.linear.weight)
        self.bias = _constant(head.linear.bias)
        likeness = head.likeness
        self.mean, self.spread = _constant(likeness.mean), _constant(likeness.spread)
        self.look, self.look_bias = _constant(likeness.weight), _constant(likeness.bias)
        self.reference, self.factor = _constant(likeness.reference.T), _constant(likeness.factor)
        self.sharpness = 2.0 / float(likeness.width)

    def forward(
        self, pixels: torch.Tensor, colour: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(n, 3, h, w), (n, k) → logits (n, L), embedding (n, d), cam (n, L, h', w'), likeness (n, L)."""
        backbone: Any = self.backbone
        maps = backbone.forward_features(pixels)
        pooled = maps.mean(dim=(2, 3))
        logits = pooled @ self.weight.T + self.bias
        embedding = _unit(pooled)
        look = _unit((embedding - self.mean) / self.spread) @ self.look
        alike = torch.exp((_unit(torch.sqrt(torch.relu(colour))) @ self.reference - 1.0) * self.sharpness)
        likeness = look + alike @ self.factor + self.look_bias
        return logits, embedding, nn.functional.conv2d(maps, self.weight[:, :, None, None]), likeness


def write_model(backbone: nn.Module, head: FastHead, size: Preprocessing, path: Path) -> None:
    """Write backbone, head and their calibrated mix as one ONNX file.

    Inputs ``pixels`` (n, 3, h, w) and ``colour`` (n, k); outputs ``probabilities`` (n, L), ``logits`` (n, L),
    ``embedding`` (n, d) and ``cam`` (n, L, h', w').
    """
    example = (torch.zeros(1, 3, size.height, size.width), torch.zeros(1, head.forest.n_features_in_))
    outputs = ["logits", "embedding", "cam", "likeness"]
    export_onnx(TypeNetwork(backbone, head), example, path, outputs, ["pixels", "colour"])
    forest = compose.add_prefix(_forest_model(head), "forest_")
    both = compose.merge_models(onnx.load(path), forest, io_map=[], name="battery_type")
    mixed = compose.merge_models(
        both,
        _mix_model(head),
        io_map=[("logits", "mix_logits"), ("forest_probabilities", "mix_forest"), ("likeness", "mix_likeness")],
        outputs=["probabilities", "logits", "embedding", "cam"],
    )
    _share_input(mixed, "forest_colour", "colour")
    _store_in_half(mixed, head.likeness.reference.T.shape)
    mixed.graph.doc_string = ""  # it quotes names that are drawn at random; the same training gives the same file
    onnx.checker.check_model(mixed)
    path.write_bytes(mixed.SerializeToString())


def _constant(array: np.ndarray) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.ascontiguousarray(array, np.float32)), requires_grad=False)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    scaled: torch.Tensor = rows / (rows.norm(dim=1, keepdim=True) + SMALL)
    return scaled


def _share_input(model: Any, name: str, with_: str) -> None:
    """Lets what reads the input ``name`` read the input ``with_``."""
    for node in model.graph.node:
        for position, given in enumerate(node.input):
            if given == name:
                node.input[position] = with_
    kept = [value for value in model.graph.input if value.name != name]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _store_in_half(model: Any, shape: tuple[int, ...]) -> None:
    """Keeps the constants of this shape in half precision; they are unpacked when the model is loaded."""
    for tensor in [tensor for tensor in model.graph.initializer if tuple(tensor.dims) == shape]:
        name, values = tensor.name, numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        unpack = helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, unpack)


def _forest_model(head: FastHead) -> Any:
    skl2onnx = importlib.import_module("skl2onnx")
    types = importlib.import_module("skl2onnx.common.data_types")
    model = skl2onnx.convert_sklearn(
        head.forest,
        initial_types=[("colour", types.FloatTensorType([None, head.forest.n_features_in_]))],
        options={id(head.forest): {"zipmap": False}},
        target_opset={"": OPSET, "ai.onnx.ml": 3},
    )
    _drop_output(model, "label")
    return _as_version(model)


def _drop_output(model: Any, name: str) -> None:
    kept = [output for output in model.graph.output if output.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _mix_model(head: FastHead) -> Any:
    """probabilities = softmax(a · log softmax(logits) + b · log(forest + floor) + c · likeness): see `FastHead`."""
    shares = dict(zip(("network_share", "forest_share", "likeness_share"), head.shares, strict=True))
    numbers = shares | {"floor": FLOOR}
    constants = [helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value]) for name, value in numbers.items()]
    nodes = [
        helper.make_node("LogSoftmax", ["mix_logits"], ["log_network"], axis=1),
        helper.make_node("Mul", ["log_network", "network_share"], ["part_network"]),
        helper.make_node("Add", ["mix_forest", "floor"], ["forest_above_floor"]),
        helper.make_node("Log", ["forest_above_floor"], ["log_forest"]),
        helper.make_node("Mul", ["log_forest", "forest_share"], ["part_forest"]),
        helper.make_node("Mul", ["mix_likeness", "likeness_share"], ["part_likeness"]),
        helper.make_node("Sum", ["part_network", "part_forest", "part_likeness"], ["evidence"]),
        helper.make_node("Softmax", ["evidence"], ["probabilities"], axis=1),
    ]
    float32 = onnx.TensorProto.FLOAT
    shape: list[str | int | None] = ["n", len(head.labels)]
    graph = helper.make_graph(
        nodes,
        "mix",
        [
            helper.make_tensor_value_info(name, float32, shape)
            for name in ("mix_logits", "mix_forest", "mix_likeness")
        ],
        [helper.make_tensor_value_info("probabilities", float32, shape)],
        constants,
    )
    return _as_version(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]))


def _as_version(model: Any) -> Any:
    """The IR version that torch writes: models of two versions can't be joined."""
    model.ir_version = 8
    return model

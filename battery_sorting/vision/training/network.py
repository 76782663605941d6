"""The network that is shipped: frozen backbone, linear head and colour forest in one ONNX file."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import compose, helper
from torch import nn

from battery_sorting.vision.training.head import FLOOR, FastHead, Head
from battery_sorting.vision.training.onnx_files import OPSET, export_onnx


class TypeNetwork(nn.Module):
    """Backbone, global average pooling and a linear head.

    The class activation map is Zhou et al. 2016, eq. 2; with a head that is linear on the pooled features it is the
    same as Grad-CAM (Selvaraju et al. 2017, section 3.1) but for a factor and the cut at zero.
    """

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.weight = nn.Parameter(torch.from_numpy(head.weight.astype(np.float32)))
        self.bias = nn.Parameter(torch.from_numpy(head.bias.astype(np.float32)))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(n, 3, h, w) normalised → logits (n, L), embedding (n, d) of unit length, cam (n, L, h', w')."""
        backbone: Any = self.backbone
        maps = backbone.forward_features(pixels)
        pooled = maps.mean(dim=(2, 3))
        logits = pooled @ self.weight.T + self.bias
        embedding = pooled / (pooled.norm(dim=1, keepdim=True) + 1e-6)
        return logits, embedding, nn.functional.conv2d(maps, self.weight[:, :, None, None])


def write_model(backbone: nn.Module, head: FastHead, example: torch.Tensor, path: Path) -> None:
    """Write backbone, linear head, colour forest and their calibrated mix as one ONNX file.

    Inputs ``pixels`` (n, 3, h, w) and ``colour`` (n, k); outputs ``probabilities`` (n, L), ``logits`` (n, L),
    ``embedding`` (n, d) and ``cam`` (n, L, h', w').
    """
    export_onnx(TypeNetwork(backbone, head.linear), example, path, ["logits", "embedding", "cam"])
    network = onnx.load(path)
    both = compose.merge_models(network, _forest_model(head), io_map=[], name="battery_type")
    mixed = compose.merge_models(
        both,
        _mix_model(head),
        io_map=[("logits", "mix_logits"), ("forest_probabilities", "mix_forest")],
        outputs=["probabilities", "logits", "embedding", "cam"],
    )
    onnx.checker.check_model(mixed)
    path.write_bytes(mixed.SerializeToString())


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
    return _as_version(compose.add_prefix(model, "forest_", rename_inputs=False))


def _drop_output(model: Any, name: str) -> None:
    kept = [output for output in model.graph.output if output.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _mix_model(head: FastHead) -> Any:
    """probabilities = softmax(a · log softmax(logits) + b · log(forest + floor)): see `FastHead.probabilities`."""
    numbers = {"network_share": head.network_share, "forest_share": head.forest_share, "floor": FLOOR}
    constants = [helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value]) for name, value in numbers.items()]
    nodes = [
        helper.make_node("LogSoftmax", ["mix_logits"], ["log_network"], axis=1),
        helper.make_node("Mul", ["log_network", "network_share"], ["part_network"]),
        helper.make_node("Add", ["mix_forest", "floor"], ["forest_above_floor"]),
        helper.make_node("Log", ["forest_above_floor"], ["log_forest"]),
        helper.make_node("Mul", ["log_forest", "forest_share"], ["part_forest"]),
        helper.make_node("Add", ["part_network", "part_forest"], ["evidence"]),
        helper.make_node("Softmax", ["evidence"], ["probabilities"], axis=1),
    ]
    float32 = onnx.TensorProto.FLOAT
    shape: list[str | int | None] = ["n", len(head.labels)]
    graph = helper.make_graph(
        nodes,
        "mix",
        [helper.make_tensor_value_info(name, float32, shape) for name in ("mix_logits", "mix_forest")],
        [helper.make_tensor_value_info("probabilities", float32, shape)],
        constants,
    )
    return _as_version(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]))


def _as_version(model: Any) -> Any:
    """The IR version that torch writes: models of two versions can't be joined."""
    model.ir_version = 8
    return model

"""A defect model of a few kilobytes: red is broken, blue is stained; and a finder that takes bright for a cell."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from battery_sorting.vision.framing import Framing

pytest.importorskip("onnx", reason="onnx is not installed: requirements/train.txt")
from onnx import TensorProto, checker, helper, numpy_helper

LABELS = ("good", "stained", "broken")
WIDTH, HEIGHT = 160, 32


def write_defect_model(folder: Path, crop: str = "cell", view: str = "lug", **card) -> Path:
    """Model folder; its card is changed by ``card``."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"model.onnx": defect_network()}
    if crop == "cell":
        files["finder.onnx"] = finder_network()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    facts = {
        "kind": "defects",
        "name": folder.parent.name,
        "version": folder.name,
        "view": view if crop == "cell" else "",
        "labels": list(LABELS),
        "good": ["good"],
        "framing": Framing(crop=crop, width=WIDTH, height=HEIGHT).model_dump(mode="json"),
        "defective_from": 0.5,
        "good_below": 0.3,
        "novelty_from": 1.0,
        "sha256": digests.pop("model.onnx"),
        "files": digests,
    }
    (folder / "card.json").write_text(json.dumps(facts | card))
    return folder


def defect_network() -> bytes:
    """Red counts for *broken*, blue for *stained*, both against green; more green than red is novel."""
    # Of normalised RGB (-1..1): stained = blue - green, broken = red - green; times 6, less 3.
    weight = np.array([[0, 0, 0], [0, -6, 6], [6, -6, 0]], np.float32)
    novel = np.array([-1.0, 1.5, 0.0], np.float32).reshape(1, 3, 1, 1)
    constants = {
        "weight": weight.T.copy(),
        "bias": np.array([3.0, 0.0, 0.0], np.float32),
        "novel": novel,
        "axes": np.array([2, 3], np.int64),
        "one": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled_1x1"]),
        helper.make_node("Squeeze", ["pooled_1x1", "axes"], ["pooled"]),
        helper.make_node("MatMul", ["pooled", "weight"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("AveragePool", ["pixels"], ["blocks"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Conv", ["blocks", "novel"], ["heat_4d"]),
        helper.make_node("Squeeze", ["heat_4d", "one"], ["heat"]),
        helper.make_node("ReduceMax", ["heat"], ["novelty"], axes=[1, 2], keepdims=0),
    ]
    inputs = {"pixels": ["n", 3, HEIGHT, WIDTH]}
    outputs = {"probabilities": ["n", 3], "novelty": ["n"], "heat": ["n", HEIGHT // 16, WIDTH // 16]}
    return _model("defects", nodes, inputs, outputs, constants)


def finder_network() -> bytes:
    """Bright places are a cell; those that lack blue are its cover."""
    # Rows: background, cell, cover; columns: red, green, blue, each -1..1.
    weight = np.array([[-6, -6, -6], [12, 12, 12], [12, 12, -8]], np.float32).reshape(3, 3, 1, 1)
    constants = {"weight": weight, "bias": np.array([-6.0, 12.0, 8.0], np.float32)}
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["blocks"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["blocks", "weight", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["places"], axis=1),
    ]
    return _model("finder", nodes, {"pixels": ["n", 3, 256, 320]}, {"places": ["n", 3, 64, 80]}, constants)


def _model(name: str, nodes: list, inputs: dict, outputs: dict, constants: dict[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in inputs.items()],
        [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in outputs.items()],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model.SerializeToString()

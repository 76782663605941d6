"""A battery-type model of a few kilobytes with every input and output of a real one, and its folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from battery_sorting.vision.colour import COLOUR_FEATURES
from battery_sorting.vision.preprocessing import Preprocessing

pytest.importorskip("onnx", reason="onnx is not installed: requirements/train.txt")
from onnx import TensorProto, checker, helper, numpy_helper

LABELS = ("Red", "Green", "Blue")
STRIDE = 32
COLOURS_SAY = (0.2, 0.5, 0.3)
NETWORK_SHARE = 0.5


def write_model(folder: Path, version: str = "1", **card) -> Path:
    """Model that tells red, green and blue batteries apart by their mean colour."""
    folder.mkdir(parents=True, exist_ok=True)
    content = network()
    (folder / "model.onnx").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    facts = {
        "name": "tiny",
        "version": version,
        "labels": list(LABELS),
        "preprocessing": Preprocessing().model_dump(mode="json"),
        "sha256": sha256,
    }
    (folder / "card.json").write_text(json.dumps(facts | card))
    return folder


def network() -> bytes:
    """Features are the colours above grey in 32 × 32 blocks; the head takes each for its own type."""
    weight = (4.0 * np.eye(3) - 2.0 * (1 - np.eye(3))).astype(np.float32)
    constants = {
        "head": weight,
        "head_1x1": weight.T[:, :, None, None].copy(),
        "no_say": np.zeros((COLOUR_FEATURES, 3), np.float32),
        "colours": np.log(np.array(COLOURS_SAY, np.float32)),
        "share": np.array(NETWORK_SHARE, np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node(
            "AveragePool", ["pixels"], ["blocks"], kernel_shape=[STRIDE, STRIDE], strides=[STRIDE, STRIDE]
        ),
        helper.make_node("Conv", ["blocks", "head_1x1"], ["cam"]),
        helper.make_node("GlobalAveragePool", ["blocks"], ["pooled_1x1"]),
        helper.make_node("Squeeze", ["pooled_1x1", "axes"], ["pooled"]),
        helper.make_node("MatMul", ["pooled", "head"], ["logits"]),
        helper.make_node("LpNormalization", ["pooled"], ["embedding"], axis=1, p=2),
        helper.make_node("MatMul", ["colour", "no_say"], ["nothing"]),
        helper.make_node("Add", ["nothing", "colours"], ["votes"]),
        helper.make_node("Mul", ["logits", "share"], ["part"]),
        helper.make_node("Add", ["part", "votes"], ["evidence"]),
        helper.make_node("Softmax", ["evidence"], ["probabilities"], axis=1),
    ]
    shapes = {
        "pixels": ["n", 3, 128, 256],
        "colour": ["n", COLOUR_FEATURES],
        "probabilities": ["n", 3],
        "logits": ["n", 3],
        "embedding": ["n", 3],
        "cam": ["n", 3, 128 // STRIDE, 256 // STRIDE],
    }
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [values.pop("pixels"), values.pop("colour")],
        list(values.values()),
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model.SerializeToString()


def battery(colour: tuple[int, int, int], cap: tuple[int, int, int] | None = None) -> np.ndarray:
    """Picture (240, 320, 3) of a battery that lies level on a dark belt; ``cap`` is the colour of its right end."""
    picture = np.full((240, 320, 3), 40, np.uint8)
    picture[90:150, 60:260] = colour
    if cap is not None:
        picture[90:150, 200:260] = cap
    return picture


def write_picture(path: Path, rgb: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return path

"""Models whose network never ends, or fills the memory, with cards that are as they should be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper
from support.tiny_model import network, write_model


def write_endless_model(folder: Path, version: str = "1") -> Path:
    """The tiny model, but the probabilities go through a loop that never ends."""
    write_model(folder, version)
    model = onnx.load_model_from_string(network())
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["said"], ["said_again"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("said", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("said_again", TensorProto.FLOAT, None),
        ],
    )
    for node in model.graph.node:
        for number, name in enumerate(node.output):
            if name == "probabilities":
                node.output[number] = "once"
    model.graph.initializer.append(helper.make_tensor("for_ever", TensorProto.BOOL, [], [True]))
    model.graph.node.append(helper.make_node("Loop", ["", "for_ever", "once"], ["probabilities"], body=body))
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"sha256": hashlib.sha256(content).hexdigest()}))
    return folder

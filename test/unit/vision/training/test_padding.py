"""Padding that PyTorch exports as a computation."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

onnx = pytest.importorskip("onnx", reason="onnx comes with requirements/train.txt")
from battery_sorting.vision.training.padding import with_static_padding  # noqa: E402

helper = onnx.helper


def constant(name: str, value: object, kind: type = np.float32) -> object:
    return onnx.numpy_helper.from_array(np.asarray(value, kind), name)


def make_model(mode: str = "constant") -> object:
    """A convolution of stride 2 that pads right and below by what it computes from the picture's size."""
    nodes = [
        helper.make_node("Shape", ["pixels"], ["size"], name="shape"),
        helper.make_node("Gather", ["size", "rows"], ["height"], name="gather"),
        helper.make_node("Mod", ["height", "two"], ["odd"], name="odd"),
        helper.make_node("Sub", ["one", "odd"], ["below"], name="below"),
        helper.make_node("Concat", ["zeros", "below", "below"], ["amounts"], axis=0, name="amounts"),
        helper.make_node("Pad", ["pixels", "amounts"], ["padded"], mode=mode, name="pad"),
        helper.make_node("Conv", ["padded", "kernel"], ["maps"], strides=[2, 2], pads=[1, 1, 0, 0], name="conv"),
    ]
    constants = [
        constant("rows", [2], np.int64),
        constant("one", [1], np.int64),
        constant("two", [2], np.int64),
        constant("zeros", [0] * 6, np.int64),
        constant("kernel", np.random.default_rng(0).normal(size=(4, 3, 3, 3))),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("pixels", 1, ["n", 3, 8, 12])],
        [helper.make_tensor_value_info("maps", 1, ["n", 4, 4, 6])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: object, n: int) -> np.ndarray:
    pixels = np.random.default_rng(n).normal(size=(n, 3, 8, 12)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"pixels": pixels})[0]


@pytest.mark.parametrize("n", [1, 3])
def test_the_convolution_pads_by_itself_and_says_the_same(n):
    before = run(make_model(), n)
    model = with_static_padding(make_model())
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert [value.name for value in model.graph.initializer] == ["kernel"]
    assert np.array_equal(run(model, n), before)


def test_padding_that_no_convolution_can_do_stays():
    model = with_static_padding(make_model("reflect"))
    assert "Pad" in [node.op_type for node in model.graph.node]
    assert np.array_equal(run(model, 2), run(make_model("reflect"), 2))


def test_model_without_padding_stays_as_it_is():
    model = with_static_padding(make_model())
    again = with_static_padding(type(model).FromString(model.SerializeToString()))
    assert again == model

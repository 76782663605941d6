"""One network, several run times: the same figures from each, and clear words where one is missing."""

from __future__ import annotations

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.vision.engine import open_engine, precisions

onnx = pytest.importorskip("onnx", reason="onnx comes with requirements/train.txt")
helper = onnx.helper

LABELS = 3
COLOURS = 5


def skip_without(backend: str) -> None:
    """By the specification alone: the engine itself must be the first to import it."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: requirements/openvino.txt")


def tensor_info(name: str, *shape: object) -> object:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", *shape])


def forest_node() -> object:
    """One tree: is the first colour at most 0.5? Then the first label, else the last."""
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["colour"],
        ["forest"],
        domain="ai.onnx.ml",
        n_targets=LABELS,
        nodes_falsenodeids=[2, 0, 0],
        nodes_featureids=[0, 0, 0],
        nodes_hitrates=[1.0, 1.0, 1.0],
        nodes_missing_value_tracks_true=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_nodeids=[0, 1, 2],
        nodes_treeids=[0, 0, 0],
        nodes_truenodeids=[1, 0, 0],
        nodes_values=[0.5, 0.0, 0.0],
        post_transform="NONE",
        target_ids=[0, LABELS - 1],
        target_nodeids=[1, 2],
        target_treeids=[0, 0],
        target_weights=[1.0, 1.0],
    )


def weights(forest: bool = True) -> bytes:
    """A network of one convolution, with a tree on the colours beside it."""
    rng = np.random.default_rng(0)
    kernel = onnx.numpy_helper.from_array(rng.normal(size=(LABELS, 3, 3, 3)).astype(np.float32), "kernel")
    nodes = [
        helper.make_node("Conv", ["pixels", "kernel"], ["maps"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["network"], axis=1),
    ]
    inputs = [tensor_info("pixels", 3, 16, 32)]
    last = "network"
    if forest:
        nodes += [forest_node(), helper.make_node("Add", ["network", "forest"], ["probabilities"])]
        inputs.append(tensor_info("colour", COLOURS))
        last = "probabilities"
    outputs = [tensor_info(last, LABELS), tensor_info("logits", LABELS), tensor_info("maps", LABELS, 8, 16)]
    graph = helper.make_graph(nodes, "test", inputs, outputs, [kernel])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def batch(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    colour = np.zeros((n, COLOURS), np.float32)
    colour[::2, 0] = 1
    return rng.normal(size=(n, 3, 16, 32)).astype(np.float32), colour


@pytest.mark.parametrize("n", [1, 4])
def test_outputs_come_by_name_and_one_row_a_picture(n):
    engine = open_engine(weights(), "model.onnx")
    assert engine.inputs == ("pixels", "colour")
    outputs = engine.run(*batch(n))
    assert set(outputs) == set(engine.outputs) == {"probabilities", "logits", "maps"}
    assert outputs["maps"].shape == (n, LABELS, 8, 16)
    assert outputs["probabilities"].argmax(axis=1).tolist() == [2, 0, 2, 0][:n]


def test_model_without_colour_takes_no_notice_of_it():
    engine = open_engine(weights(forest=False), "model.onnx")
    pixels, colour = batch(2)
    assert np.array_equal(engine.run(pixels)["network"], engine.run(pixels, colour)["network"])


def test_same_weights_are_loaded_once_and_run_from_several_threads():
    engine = open_engine(weights(), "model.onnx")
    assert open_engine(weights(), "copy.onnx") is engine
    assert open_engine(weights(), "model.onnx", threads=2) is not engine
    assert open_engine(weights(forest=False), "model.onnx") is not engine
    alone = engine.run(*batch(3))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda _: engine.run(*batch(3)), range(40)))
    for said in together:
        assert all(np.array_equal(said[name], alone[name]) for name in alone)


def test_threads_that_start_together_load_the_weights_once():
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: open_engine(weights(), "model.onnx", threads=3), range(32)))
    assert len(set(map(id, opened))) == 1


def test_missing_and_misshapen_inputs_are_named():
    engine = open_engine(weights(), "model.onnx")
    pixels, colour = batch(2)
    with pytest.raises(ModelError, match="colour"):
        engine.run(pixels)
    with pytest.raises(ModelError, match=r"pixels float32 \(2, 3, 16, 16\)"):
        engine.run(pixels[..., :16], colour)


@pytest.mark.parametrize("forest", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_openvino_says_the_same_as_onnxruntime(forest, n):
    skip_without("openvino")
    ours = open_engine(weights(forest), "model.onnx").run(*batch(n))
    engine = open_engine(weights(forest), "model.onnx", backend="openvino")
    theirs = engine.run(*batch(n))
    kept = {name: value.copy() for name, value in theirs.items()}
    engine.run(*batch(n + 1))
    assert list(theirs) == list(engine.outputs) == list(ours)
    for name, value in ours.items():
        assert np.abs(theirs[name] - value).max() < 1e-5, name
        assert np.array_equal(theirs[name], kept[name]), "outputs must outlive the next run"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_is_no_model_is_named(backend):
    skip_without(backend)
    with pytest.raises(ModelError, match=r"here/model\.onnx.*restore the file"):
        open_engine(b"no model", str(Path("here") / "model.onnx"), backend=backend)


def test_openvino_reports_to_nobody():
    skip_without("openvino")
    precisions("openvino")
    assert sys.modules["openvino_telemetry"] is None


def test_missing_openvino_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigurationError, match=r"openvino.*pip install.*or choose onnxruntime"):
        open_engine(weights(), "model.onnx", backend="openvino")


def test_precision_that_the_backend_lacks_is_refused():
    with pytest.raises(ConfigurationError, match="no bf16 on this processor; choose one of f32"):
        open_engine(weights(), "model.onnx", precision="bf16")
    with pytest.raises(ConfigurationError, match="unknown; choose onnxruntime or openvino"):
        precisions("tensorrt")
    with pytest.raises(ConfigurationError, match="give 1 or more"):
        open_engine(weights(), "model.onnx", threads=0)

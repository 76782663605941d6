"""A model in 8 bits: still the same answers, and the loss said."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.vision.card import read_card
from battery_sorting.vision.preprocessing import Cutout

onnx = pytest.importorskip("onnx", reason="onnx comes with requirements/train.txt")
from battery_sorting.vision.training import quantise  # noqa: E402

helper = onnx.helper

COLOURS = {"red": (200, 30, 30), "green": (30, 190, 40), "blue": (30, 40, 200)}
SIZE = {"width": 64, "height": 32}


def cutouts(n: int, seed: int = 0) -> list[tuple[Cutout, str]]:
    """Pictures of one colour, a little uneven, with its name."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        label = list(COLOURS)[number % len(COLOURS)]
        noise = rng.normal(0, 12, (SIZE["height"], SIZE["width"], 3))
        pixels = np.clip(np.array(COLOURS[label]) * rng.uniform(0.8, 1.2) + noise, 0, 255).astype(np.uint8)
        made.append((Cutout(pixels, "object", np.ones(pixels.shape[:2], bool)), label))
    return made


def constant(name: str, value: np.ndarray) -> object:
    return onnx.numpy_helper.from_array(value.astype(np.float32), name)


def write_model(folder: Path) -> Path:
    """Three convolutions with a residual sum that hand on which of R, G and B is strongest."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    spread = rng.normal(size=(8, 3))
    gather = np.linalg.pinv(spread)
    mixing = np.eye(8) + 0.01 * rng.normal(size=(8, 8))
    nodes = [
        helper.make_node("Conv", ["pixels", "spread"], ["a"], name="first"),
        helper.make_node("Conv", ["a", "mixing"], ["b"], name="middle"),
        helper.make_node("Add", ["a", "b"], ["c"], name="residual"),
        helper.make_node("Conv", ["c", "gather"], ["maps"], name="last"),
        helper.make_node("Conv", ["maps", "head"], ["cam"], name="cam"),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["embedding"], name="flat"),
        helper.make_node("Softmax", ["embedding"], ["probabilities"], name="softmax", axis=1),
    ]
    constants = [
        constant("spread", spread[:, :, None, None]),
        constant("mixing", mixing[:, :, None, None]),
        constant("gather", 4 * gather[:, :, None, None]),
        constant("head", np.eye(3)[:, :, None, None]),
    ]
    shapes = {"probabilities": [3], "embedding": [3], "cam": [3, 32, 64]}
    info = [helper.make_tensor_value_info(name, 1, ["n", *shape]) for name, shape in shapes.items()]
    pixels = helper.make_tensor_value_info("pixels", 1, ["n", 3, 32, 64])
    graph = helper.make_graph(nodes, "test", [pixels], info, constants)
    opsets = [helper.make_opsetid(domain, 17) for domain in ("", "ai.onnx")]  # both, as in joined models
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    card = {
        "name": "battery_type",
        "version": "7",
        "labels": list(COLOURS),
        "preprocessing": SIZE,
        "sha256": hashlib.sha256(content).hexdigest(),
        "metrics": {"accuracy": 1.0},
    }
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "float")


@pytest.fixture
def pictures():
    return cutouts(12)


def quantised_weights(folder: Path) -> list[str]:
    """Names of the convolutions whose weights are 8-bit."""
    graph = onnx.load(folder / "model.onnx").graph
    scaled = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return [node.name for node in graph.node if node.op_type == "Conv" and node.input[1] in scaled]


def test_quantised_model_is_a_whole_model_with_its_own_card(model, pictures, tmp_path):
    card = quantise.quantise_model(model, [cutout for cutout, _ in pictures], tmp_path / "int8")
    assert card == read_card(tmp_path / "int8")
    assert card.version == "7-int8"
    assert card.sha256 == hashlib.sha256((tmp_path / "int8" / "model.onnx").read_bytes()).hexdigest()
    assert card.metrics == {}, "figures of another model"
    assert quantised_weights(tmp_path / "int8") == ["first", "middle", "last"]


# issue 15, B6
def test_quantised_model_over_one_that_is_there_is_refused(model, pictures, tmp_path):
    some = [cutout for cutout, _ in pictures]
    with pytest.raises(ConfigurationError, match=r"float is there already"):
        quantise.quantise_model(model, some, model)
    card = quantise.quantise_model(model, some, model, overwrite=True)
    assert read_card(model) == card and card.version == "7-int8"


# issue 15, B8
def test_file_of_another_s_model_that_leads_elsewhere_is_not_copied(model, pictures, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (model / "extra.npz").symlink_to(tmp_path / "secret")
    card = json.loads((model / "card.json").read_text())
    (model / "card.json").write_text(
        json.dumps(card | {"files": {"extra.npz": hashlib.sha256(b"secret").hexdigest()}})
    )
    with pytest.raises(ModelError, match="leads out of the model's folder"):
        quantise.quantise_model(model, [cutout for cutout, _ in pictures], tmp_path / "int8")
    assert not (tmp_path / "int8").exists()


def test_loss_is_measured_and_written_down(model, pictures, tmp_path):
    loss = quantise.quantise_within(
        model, [cutout for cutout, _ in pictures], cutouts(30, seed=1), tmp_path / "int8"
    )
    assert loss.pictures == 30
    assert loss.before == loss.after == 1
    assert loss.lost == loss.changed == 0
    assert 0 < loss.probability < 0.05
    noted = read_card(tmp_path / "int8").metrics["quantisation"]
    assert noted["outermost_layers"] is True
    assert noted["after"] == 1


def test_outermost_layers_stay_in_floating_point_where_8_bits_lose_too_much(model, pictures, tmp_path, monkeypatch):
    losses = iter([0.9, 0.998])

    def measured(*_):
        return quantise.Loss(30, before=1.0, after=next(losses), changed=0.1, probability=0.2, embedding=0.9)

    monkeypatch.setattr(quantise, "quantisation_loss", measured)
    loss = quantise.quantise_within(model, [cutout for cutout, _ in pictures], cutouts(3), tmp_path / "int8")
    assert loss.lost == pytest.approx(0.002)
    assert quantised_weights(tmp_path / "int8") == ["middle"]
    assert read_card(tmp_path / "int8").metrics["quantisation"]["outermost_layers"] is False


def test_model_that_loses_too_much_is_not_left_behind(model, pictures, tmp_path):
    wrong = [(cutout, "nothing") for cutout, _ in pictures]
    with pytest.raises(ModelError, match=r"8 bits lose .* keep the model as it is"):
        quantise.quantise_within(
            model, [cutout for cutout, _ in pictures], wrong, tmp_path / "int8", max_loss=-0.01
        )
    assert not (tmp_path / "int8").exists()


def test_too_few_pictures_are_refused(model, pictures, tmp_path):
    with pytest.raises(ModelError, match="too few"):
        quantise.quantise_model(model, [pictures[0][0]], tmp_path / "int8")
    with pytest.raises(ModelError, match="no pictures to judge it by"):
        quantise.quantisation_loss(model, model, [])

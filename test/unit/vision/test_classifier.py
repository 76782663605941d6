"""The model that is shipped, its card, and models that must be refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from battery_sorting.cli.classify import FileVerdict, classify, summarise
from battery_sorting.core.errors import ConfigurationError, FrameError, ModelError
from battery_sorting.core.types import Reason
from battery_sorting.vision.card import read_card
from battery_sorting.vision.classifier import TypeClassifier, load_model
from battery_sorting.vision.encodings import decode
from battery_sorting.vision.reading import TEXT_FEATURES
from battery_sorting.vision.synthetic.renderer import make_renderer
from battery_sorting.vision.synthetic.strangers import StrangerRenderer
from battery_sorting.vision.training.data import random_item, to_bayer

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "models" / "battery_type" / "1"
FRESH = 900_000_000  # seeds that no training uses


@pytest.fixture(scope="module")
def classifier():
    return TypeClassifier(MODEL)


@pytest.fixture(scope="module")
def renderer():
    return make_renderer(None, FRESH)


@pytest.fixture
def model(tmp_path):
    shutil.copytree(MODEL, tmp_path / "model")
    return tmp_path / "model"


def change_card(model: Path, **changes) -> None:
    card = json.loads((model / "card.json").read_text())
    (model / "card.json").write_text(json.dumps(card | changes))


def as_camera_frame(rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    return decode(to_bayer(rgb).tobytes(), "bayer_rggb8", height, width, width)


def seen(renderer, label: str, seed: int) -> np.ndarray:
    return as_camera_frame(renderer.render(random_item(label, seed), speed_mps=0.8, t_s=float(seed % 500)))


def test_shipped_model_names_fresh_drawings(classifier, renderer):
    labels = renderer.types()
    right = sum(
        classifier.classify(seen(renderer, label, FRESH + 10 * n + k)).label == label
        for n in range(10)
        for k, label in enumerate(labels)
    )
    assert right >= 0.97 * 10 * len(labels)


def test_models_with_the_same_weights_share_networks_and_reader():
    first, second, other = load_model(MODEL), load_model(MODEL), load_model(MODEL, threads=2)
    assert first.reader is not None
    assert (first.engine, first.reader) == (second.engine, second.reader)
    assert other.reader is not first.reader


def test_shipped_model_turns_unknown_brands_away(classifier, renderer):
    held_out = renderer.unknown()[1::2]
    accepted = sum(
        classifier.classify(seen(renderer, label, FRESH + 500 + 10 * n + k)).accepted
        for n in range(5)
        for k, label in enumerate(held_out)
    )
    assert accepted <= 0.15 * 5 * len(held_out)


def test_prediction_is_complete(classifier, renderer):
    prediction = classifier.classify(seen(renderer, "Klarus", FRESH))
    assert prediction.accepted
    assert prediction.reason == ""
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-5)
    assert prediction.scores[prediction.label] == prediction.confidence
    assert set(prediction.scores) == set(classifier.card.labels)
    assert prediction.novelty < classifier.card.open_set.threshold
    assert np.linalg.norm(prediction.embedding) == pytest.approx(1, abs=1e-4)
    assert 0 < prediction.inference_s < 1


def test_below_the_recipes_threshold_is_low_confidence(renderer):
    strict = TypeClassifier(MODEL, threshold=1.0)
    prediction = strict.classify(seen(renderer, "Klarus", FRESH))
    assert prediction.label == "Klarus"
    assert not prediction.accepted
    assert prediction.reason == Reason.LOW_CONFIDENCE


def test_unknown_battery_has_its_own_reason(classifier, renderer):
    reasons = {classifier.classify(seen(renderer, "Procell", FRESH + n)).reason for n in range(4)}
    assert str(Reason.UNKNOWN_TYPE) in reasons


@pytest.mark.parametrize(("kind", "least"), [("hand", 15), ("packaging", 13), ("two_batteries", 6)])
def test_shipped_model_tells_junk_from_batteries(classifier, kind, least):
    strangers = StrangerRenderer(FRESH)
    verdicts = [classifier.classify(as_camera_frame(strangers.render(kind, n)[1])) for n in range(20)]
    assert sum(verdict.reason == Reason.NO_SINGLE_BATTERY for verdict in verdicts) >= least
    assert not any(verdict.accepted for verdict in verdicts if verdict.reason)


@pytest.mark.parametrize(
    ("known", "most"),
    [(True, 0.02), (False, 0.05)],  # of an unknown battery only the reason is wrong: it goes to others all the same
)
def test_batteries_are_not_taken_for_junk(classifier, renderer, known, most):
    labels = renderer.types() if known else renderer.unknown()
    verdicts = [
        classifier.classify(seen(renderer, label, FRESH + 900 + 100 * n + k))
        for n in range(8)
        for k, label in enumerate(labels)
    ]
    taken = [verdict.reason == Reason.NO_SINGLE_BATTERY for verdict in verdicts]
    assert sum(taken) <= most * len(taken)


def test_model_without_a_rule_for_junk_calls_nothing_so(model):
    change_card(model, junk=None)
    frame = as_camera_frame(StrangerRenderer(FRESH).render("hand", 1)[1])
    assert TypeClassifier(model).classify(frame).reason != Reason.NO_SINGLE_BATTERY


@pytest.mark.parametrize("level", [0, 3, 128, 255])
def test_frame_that_shows_nothing_is_a_bad_image(classifier, level):
    prediction = classifier.classify(np.full((512, 640, 3), level, np.uint8))
    assert prediction.reason == Reason.BAD_IMAGE
    assert not prediction.accepted
    assert prediction.label == ""
    assert np.isnan(prediction.confidence)
    assert prediction.scores == {}


def test_bare_belt_is_a_bad_image(classifier, renderer):
    frame = as_camera_frame(renderer.render(None, speed_mps=0.8, t_s=3.0))
    assert classifier.classify(frame).reason == Reason.BAD_IMAGE


def test_garbage_is_never_accepted(classifier):
    noise = np.random.default_rng(0).integers(0, 256, (512, 640, 3), dtype=np.uint8)
    assert not classifier.classify(noise).accepted


def test_what_is_no_picture_is_refused(classifier):
    with pytest.raises(FrameError):
        classifier.classify(np.zeros((512, 640), np.uint8))


def test_second_look_only_where_the_first_left_doubt(model, renderer):
    frame = seen(renderer, "Klarus", FRESH)
    change_card(model, views={"most": 2, "sure": 1.0})
    doubting = TypeClassifier(model).classify(frame)
    change_card(model, views={"most": 2, "sure": 0.0})
    sure = TypeClassifier(model).classify(frame)
    assert (doubting.views, sure.views) == (2, 1)
    assert doubting.label == sure.label == "Klarus"


def test_rule_of_another_training_is_refused(model):
    with (model / "open_set.npz").open("ab") as rule:
        rule.write(b"x")
    with pytest.raises(ModelError, match=r"open_set\.npz.*files\.open_set\.npz.*restore both"):
        load_model(model)


def test_others_is_no_type_of_a_model(model):
    change_card(model, labels=[*read_card(model).labels[1:], "others"])
    with pytest.raises(ModelError, match=r"labels: .*told by 'open_set'"):
        load_model(model)


def test_shipped_model_is_small():
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 30e6


def test_percent_for_a_threshold_is_refused():
    with pytest.raises(ValueError, match=r"0\.8 for 80"):
        TypeClassifier(MODEL, threshold=80)


def test_classifier_runs_without_pytorch():
    code = "import sys, battery_sorting.vision.classifier; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_missing_card_is_refused(model):
    (model / "card.json").unlink()
    with pytest.raises(ModelError, match=r"card\.json.*battery-sorting train"):
        load_model(model)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\x01"])
def test_card_that_is_no_json_object_is_refused(model, text):
    (model / "card.json").write_text(text)
    with pytest.raises(ModelError, match=r"card\.json.*restore"):
        load_model(model)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"threshold": 80}, "threshold"),
        ({"labels": ["a"]}, "labels"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"preprocessing": {"width": 1}}, r"preprocessing\.width"),
        ({"preprocessing": {"colour": "bgr"}}, r"preprocessing\.colour"),
        ({"sha256": "abc"}, "sha256"),
        ({"extra": 1}, "extra"),
    ],
)
def test_wrong_key_of_the_card_is_named(model, changes, key):
    change_card(model, **changes)
    with pytest.raises(ModelError, match=rf"card\.json.*{key}.*restore"):
        load_model(model)


def test_missing_weights_are_refused(model):
    (model / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx.*restore"):
        load_model(model)


def test_weights_of_another_training_are_refused(model):
    with (model / "model.onnx").open("ab") as weights:
        weights.write(b"x")
    with pytest.raises(ModelError, match=r"model\.onnx.*sha256.*restore both"):
        load_model(model)


def test_weights_that_are_no_onnx_are_refused(model):
    (model / "model.onnx").write_bytes(b"no network")
    change_card(model, sha256=hashlib.sha256(b"no network").hexdigest())
    with pytest.raises(ModelError, match=r"model\.onnx.*ONNX.*restore"):
        load_model(model)


def test_labels_that_dont_fit_the_outputs_are_refused(model):
    change_card(model, labels=read_card(model).labels[1:])
    with pytest.raises(ModelError, match=r"card\.json: labels: 8 names.*restore"):
        load_model(model)


def test_summary_counts_what_the_folders_say(classifier, renderer):
    klarus = classifier.classify(seen(renderer, "Klarus", FRESH))
    verdicts = [
        FileVerdict(Path("Klarus/1.jpg"), "Klarus", klarus),
        FileVerdict(Path("GP_Alk/1.jpg"), "GP_Alk", klarus),
        FileVerdict(Path("GP_Alk/2.jpg"), "GP_Alk", None, "broken"),
    ]
    summary = summarise(verdicts, classifier)
    assert summary["pictures"] == 3
    assert summary["unreadable"] == 1
    assert summary["accuracy"] == 0.5
    assert summary["coverage"] == 1.0
    assert summary["confusion"]["GP_Alk"] == {"Klarus": 1}


def test_pictures_are_classified_from_files(tmp_path, renderer, capsys):
    import cv2

    (tmp_path / "Klarus").mkdir()
    frame = renderer.render(random_item("Klarus", FRESH), speed_mps=0.0, t_s=0.0)
    cv2.imwrite(str(tmp_path / "Klarus" / "1.png"), frame[..., ::-1])
    (tmp_path / "Klarus" / "2.png").write_bytes(b"broken")
    classify([tmp_path], json=True, model=MODEL, threshold=None)
    answer = json.loads(capsys.readouterr().out)
    assert answer["summary"]["accuracy"] == 1.0
    assert answer["summary"]["unreadable"] == 1
    assert [row.get("label") for row in answer["pictures"]] == ["Klarus", None]
    classify([tmp_path / "Klarus" / "1.png"], json=False, model=MODEL, threshold=None)
    assert "accepted" in capsys.readouterr().out


def test_folder_without_pictures_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="no pictures"):
        classify([tmp_path], json=False, model=MODEL, threshold=None)


def test_model_that_reads_without_its_reader_is_refused(model):
    (model / "reader.onnx").unlink()
    with pytest.raises(ModelError, match=r"reader\.onnx"):
        load_model(model)


def test_belt_s_known_batteries_are_hardly_ever_read(classifier, renderer, monkeypatch):
    asked = []
    monkeypatch.setattr(type(classifier), "_read", lambda _, rgb: asked.append(rgb) or np.zeros(TEXT_FEATURES))
    for n, label in enumerate(renderer.types()):
        classifier.classify(renderer.render(random_item(label, FRESH + n), speed_mps=0.8, t_s=0.0))
    assert len(asked) <= 1

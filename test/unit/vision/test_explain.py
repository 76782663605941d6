"""Why the model decided as it did."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
from support.tiny_model import COLOURS_SAY, LABELS, NETWORK_SHARE, battery, network, write_model, write_picture
from typer.testing import CliRunner

from battery_sorting.cli.main import make_app
from battery_sorting.core.errors import BatterySortingError, ConfigurationError, FrameError, ModelError
from battery_sorting.core.types import Reason
from battery_sorting.ledger.events import Detected, Disposed, Typed
from battery_sorting.ledger.store import ImageStore, Ledger
from battery_sorting.vision.card import read_card
from battery_sorting.vision.classifier import Prediction, TypeClassifier
from battery_sorting.vision.engine import open_engine
from battery_sorting.vision.explain import Explainer, draw_activation, palette, training_picture
from battery_sorting.vision.gallery import Gallery, Neighbour
from battery_sorting.vision.preprocessing import Preprocessing

RED, GREEN, GREY = (220, 30, 30), (30, 200, 40), (150, 150, 150)


def verdict(**changes):
    scores = {"Red": 0.7, "Green": 0.25, "Blue": 0.05}
    facts = {"label": "Red", "confidence": 0.7, "accepted": True, "reason": "", "inference_s": 0.01}
    return Prediction(**(facts | {"scores": scores} | changes))


def explainer(tmp_path, prediction=None, gallery=None, **card):
    card = read_card(write_model(tmp_path / "model", **card))
    return Explainer(card, open_engine(network(), "tiny"), lambda _: prediction or verdict(), 0.8, gallery)


def colours_gallery():
    names = ["Red/1.png", "Green/1.png", "Blue/1.png"]
    return Gallery(np.eye(3) - 0.3, list(LABELS), names, ["0" * 64] * 3)


def test_activation_lies_where_the_colour_of_the_type_is(tmp_path):
    found = explainer(tmp_path).explain(battery(RED, cap=GREEN))
    assert list(found.activation) == ["Red", "Green"]
    assert found.activation["Red"].shape == found.cutout.pixels.shape[:2]
    left, right = np.s_[48:80, 32:120], np.s_[48:80, 216:236]
    assert found.activation["Red"][left].mean() > 0.5 > 0.1 > found.activation["Red"][right].mean()
    assert found.activation["Green"][right].mean() > 0.5 > 0.1 > found.activation["Green"][left].mean()


def test_both_activations_are_on_one_scale(tmp_path):
    found = explainer(tmp_path).explain(battery(RED))
    assert found.activation["Red"].max() == pytest.approx(1, abs=0.05)
    assert found.activation["Green"].max() < 0.2


def test_overlay_changes_only_what_is_active(tmp_path):
    found = explainer(tmp_path).explain(battery(RED, cap=GREEN))
    drawn = found.overlay("Red")
    assert drawn.dtype == np.uint8 and drawn.shape == found.cutout.pixels.shape
    nothing = draw_activation(found.cutout.pixels, np.zeros(drawn.shape[:2], np.float32))
    assert np.array_equal(nothing, found.cutout.pixels)
    assert not np.array_equal(drawn, found.cutout.pixels)


def test_neighbours_follow_the_embedding_of_the_verdict(tmp_path):
    blue = np.array([-0.3, -0.3, 0.7], np.float32)
    by_network = explainer(tmp_path, gallery=colours_gallery()).explain(battery(RED))
    assert by_network.neighbours[0].label == "Red"
    said = verdict(embedding=blue)
    by_verdict = explainer(tmp_path, prediction=said, gallery=colours_gallery()).explain(battery(RED))
    assert by_verdict.neighbours[0].label == "Blue"
    assert by_verdict.neighbours[0].cosine == pytest.approx(1, abs=1e-3)


def test_what_the_network_and_the_likeness_say_is_told_apart(tmp_path):
    share = {"network_share": NETWORK_SHARE}
    found = explainer(tmp_path, metrics=share).explain(battery(RED))
    assert list(found.likeness.values()) == pytest.approx(COLOURS_SAY, abs=1e-5)
    assert sum(found.network.values()) == pytest.approx(1) and max(found.network, key=found.network.get) == "Red"
    product = np.array([found.network[label] * found.likeness[label] for label in LABELS])
    said = TypeClassifier(tmp_path / "model").classify(battery(RED)).scores
    assert list(product / product.sum()) == pytest.approx(list(said.values()), abs=1e-5)


def test_palette_names_the_batterys_colours_and_not_the_belts():
    cutout = Preprocessing().cut_out(battery(RED, cap=GREEN))
    first, second = palette(cutout)[:2]
    assert np.allclose(first.rgb, RED, atol=12) and first.share == pytest.approx(0.7, abs=0.1)
    assert np.allclose(second.rgb, GREEN, atol=12) and second.share == pytest.approx(0.3, abs=0.1)


def test_a_picture_that_shows_nothing_is_explained_without_looking(tmp_path):
    bad = Prediction("", float("nan"), False, str(Reason.BAD_IMAGE), 0.001)
    found = explainer(tmp_path, prediction=bad).explain(np.zeros((64, 64, 3), np.uint8))
    assert "Not looked at" in found.verdict()
    assert not found.activation and not found.neighbours


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Accepted as Red: 70.0% sure"),
        ({"accepted": False, "reason": "low_confidence"}, "70.0% is less than 80%; Green comes to 25.0%"),
        (
            {"accepted": False, "reason": "unknown_type", "novelty": 1.5},
            "no known type: novelty 1.5 is above 1.25; of the known types Red is the most probable (70.0%)",
        ),
        ({"accepted": False, "reason": "no_single_battery"}, "looks like no battery by itself, but like a hand"),
    ],
)
def test_the_verdict_names_its_figures(tmp_path, changes, words):
    rule = {"method": "energy", "threshold": 1.25, "false_reject": 0.05}
    made = explainer(tmp_path, prediction=verdict(**changes), open_set=rule)
    assert words in made.explain(battery(RED)).verdict()


def test_what_the_model_lacks_is_said(tmp_path):
    missing = explainer(tmp_path).explain(battery(RED)).missing
    assert missing == ["tiny/1 has no gallery.npz: similar training pictures can't be found"]


def test_a_model_folder_is_explained_with_its_gallery(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    colours_gallery().save(folder / "gallery.npz")
    sha256 = hashlib.sha256((folder / "gallery.npz").read_bytes()).hexdigest()
    write_model(folder, files={"gallery.npz": sha256})
    found = Explainer.load(folder, threshold=0.4).explain(battery(GREEN))
    assert found.prediction.accepted and found.prediction.label == "Green"
    assert found.neighbours[0].name == "Green/1.png" and not found.missing
    assert found.threshold == 0.4
    (folder / "gallery.npz").write_bytes(b"another")
    with pytest.raises(ModelError, match=r"gallery\.npz.*not of one training"):
        Explainer.load(folder)


def test_a_gallery_of_another_network_is_refused(tmp_path):
    other = Gallery(np.ones((1, 7)), ["Red"], ["Red/1"], [""])
    with pytest.raises(ModelError, match=r"gallery\.npz of tiny/1.*not of one training"):
        explainer(tmp_path, gallery=other).explain(battery(RED))


def neighbour(path, name):
    return Neighbour(name, "Red", 0.9, hashlib.sha256(path.read_bytes()).hexdigest())


def test_training_picture_is_shown_only_if_it_is_the_same_file(tmp_path):
    path = write_picture(tmp_path / "data" / "Red" / "1.png", battery(RED))
    known = neighbour(path, "Red/1.png")
    assert np.array_equal(training_picture(known, tmp_path / "data"), battery(RED))
    write_picture(path, battery(GREEN))
    with pytest.raises(FrameError, match=r"Red/1\.png.*not the picture of the training"):
        training_picture(known, tmp_path / "data")
    path.unlink()
    with pytest.raises(FrameError, match=r"Red/1\.png: can't be read"):
        training_picture(known, tmp_path / "data")


def test_a_gallery_cannot_lead_out_of_the_data_folder(tmp_path):
    outside = write_picture(tmp_path / "secret.png", battery(RED))
    (tmp_path / "data").mkdir()
    with pytest.raises(FrameError, match="leads out"):
        training_picture(neighbour(outside, "../secret.png"), tmp_path / "data")


# ---- command line ----


@pytest.fixture
def trained(tmp_path):
    """Folder with the pictures of the training, and a gallery of them."""
    files = [
        write_picture(tmp_path / "data" / label / "1.png", battery(colour))
        for label, colour in (("Red", RED), ("Green", GREEN), ("Blue", (20, 20, 220)))
    ]
    names = [f"{file.parent.name}/{file.name}" for file in files]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return Gallery(np.eye(3) - 0.3, list(LABELS), names, hashes)


@pytest.fixture
def ledger(tmp_path, trained, monkeypatch):
    """A ledger of three batteries with their pictures, and one without; a stub stands for the classifier."""
    made = explainer(tmp_path, gallery=trained)
    monkeypatch.setattr(Explainer, "load", lambda *_: made)
    monkeypatch.chdir(tmp_path)
    made_by = tmp_path / "models" / "tiny"
    write_model(made_by / "1")
    path, store = tmp_path / "run" / "ledger.sqlite", ImageStore(tmp_path / "run" / "images")
    recipe = {"routes": {"Red": "red", "Green": "green"}, "threshold": 0.8}
    config = {"recipe": recipe, "site": {"model": "models/tiny/1", "images": {"path": "images"}}}
    with Ledger.open(path) as book:
        book.begin_shift("belt", "sim", 1000.0, config=config)
        write_battery(book, store, "one", "Red", "sorted", "red", "tiny/1", battery(RED))
        write_battery(book, store, "two", "Red", "unknown_type", "others", "tiny/0", battery(GREY))
        write_battery(book, store, "three", "Green", "missed", "others", "tiny/1", battery(GREEN))
        write_battery(book, store, "four", "Red", "low_confidence", "others", "tiny/1", None)
    return path


def write_battery(book, store, battery_id, label, reason, bin_, model, picture):
    accepted = reason in {"sorted", "missed"}
    with book.transaction() as tx:
        tx.record(Detected(trigger_count=1, encoder_count=1), battery_id, 1001.0)
        facts = {"label": label, "confidence": 0.7, "accepted": accepted, "reason": "" if accepted else reason}
        tx.record(Typed(**facts, scores={"Red": 0.7, "Green": 0.3}, model=model), battery_id, 1001.1)
        tx.record(Disposed(bin=bin_, reason=reason), battery_id, 1005.0)
        if picture is not None:
            content = write_picture(store.folder / "new.png", picture).read_bytes()
            sha256 = store.put(content)
            where = str(store.path(sha256).relative_to(store.folder))
            tx.add_image(battery_id, sha256, path=where, width=320, height=240, size=len(content), stamp=1001.0)


def call(command, *arguments):
    return CliRunner().invoke(make_app(command), [command, *map(str, arguments)])


def test_a_battery_of_the_ledger_is_explained(ledger):
    done = call("explain", ledger, "--id", "one")
    assert done.exit_code == 0, done.output
    assert "on record: Red (70.0% sure) by tiny/1, accepted; bin: red (sorted)" in done.output
    assert "note:" not in done.output
    assert re.search(r"Red +70\.0 % +\d", done.output)
    assert "Red/1.png" in done.output


def test_another_model_than_the_one_that_decided_is_named(ledger):
    facts = json.loads(call("explain", ledger, "--id", "two", "--json").stdout)[0]
    assert "tiny/0 decided, but tiny/1 explains: its reasons may be others" in facts["notes"]
    assert "on record it was rejected (unknown type); now it is accepted" in facts["notes"]


def test_the_page_holds_everything_and_loads_nothing(ledger, tmp_path):
    done = call("explain", ledger, "--id", "one", "--out", tmp_path / "page.html", "--data", tmp_path / "data")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "page.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == 4 + 3  # picture, cut-out, overlays; three similar
    assert "for Red, the verdict" in page and "for Green, the runner-up" in page
    assert "http" not in page and "<script" not in page


def test_picture_files_are_explained_and_unreadable_ones_named(ledger, tmp_path):
    known = tmp_path / "data" / "Red" / "1.png"
    done = call("explain", "--image", known, tmp_path / "gone.png", "--model", tmp_path / "model", "--json")
    explained, lost = json.loads(done.stdout)
    assert explained["label"] == "Red" and "trained on this very picture" in explained["notes"][0]
    assert "gone.png" in lost["error"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["{ledger}"], ConfigurationError, "--id BATTERY"),
        (["{ledger}", "--id", "nine"], BatterySortingError, "has no battery nine"),
        (["{ledger}", "--id", "four"], FrameError, "four: no picture was kept"),
        (["{ledger}", "--id", "one", "--images", "elsewhere"], FrameError, "can't be read.*--images"),
        (["{ledger}", "--id", "one", "--data", "nowhere"], ConfigurationError, "--data: no such folder"),
        (["--image", "gone.png"], FrameError, "gone.png"),
    ],
)
def test_what_cannot_be_explained_is_named(ledger, arguments, error, words):
    done = call("explain", *(argument.format(ledger=ledger) for argument in arguments))
    assert isinstance(done.exception, error)
    assert re.search(words, str(done.exception), re.DOTALL)


def test_a_model_that_is_gone_is_asked_for(ledger, tmp_path, monkeypatch):
    (tmp_path / "models").rename(tmp_path / "archive")
    done = call("explain", ledger, "--id", "one")
    assert isinstance(done.exception, ConfigurationError) and "--model" in str(done.exception)


def report(ledger, *arguments):
    page = ledger.parent / "report.html"
    done = call("report", ledger, "--html", page, *arguments)
    assert done.exit_code == 0, done.output
    return page.read_text()


def test_the_report_explains_the_decisions_to_learn_from(ledger):
    page = report(ledger)
    cases = re.findall(r"<h3>battery (\w+) <small>· ([\w ]+)</small></h3>", page)
    assert cases == [("two", "no known type"), ("three", "not where its type goes")]
    assert len(page) < 600_000 and "http" not in page


def test_the_report_says_that_the_model_is_gone(ledger, tmp_path):
    (tmp_path / "models").rename(tmp_path / "archive")
    page = report(ledger)
    assert "Not explained" in page and "--model" in page and "<h3>" not in page


def test_the_report_says_that_pictures_are_gone(ledger):
    (ledger.parent / "images").rename(ledger.parent / "moved")
    page = report(ledger)
    assert "can&#39;t be read" in page and "<h3>" not in page

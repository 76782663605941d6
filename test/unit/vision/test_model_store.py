"""Versions of a model: which one is active, going back, what is refused, and how two compare."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.tiny_model import LABELS, battery, write_model, write_picture
from typer.testing import CliRunner

from battery_sorting.belt.shadow import compare_shadows
from battery_sorting.belt.site import BeltSite
from battery_sorting.cli import models
from battery_sorting.cli._exit import NothingFoundError
from battery_sorting.core.active_model import (
    activate,
    activations,
    active_version,
    find_model,
    previous_version,
    roll_back,
    undone_on_failure,
    versions,
)
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.proportions import mcnemar, share_with_interval, wilson
from battery_sorting.core.types import make_battery_id
from battery_sorting.ledger.events import Detected, ShadowTyped, Typed
from battery_sorting.ledger.store import Ledger
from battery_sorting.vision.classifier import TypeClassifier
from battery_sorting.vision.gallery import Gallery
from battery_sorting.vision.model_store import compare_on_pictures, stored_models

ROOT = Path(__file__).parents[3]
SITE = "sim"


def make_family(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "card.json").write_text("{}")
    return folder


@pytest.fixture
def family(tmp_path):
    return make_family(tmp_path / "models" / "battery_type", "10", "2", "1")


def test_versions_are_ordered_by_number(family):
    (family / "notes").mkdir()
    assert versions(family) == ["1", "2", "10"]


def test_only_version_is_active_without_a_word(tmp_path):
    family = make_family(tmp_path / "one", "3")
    assert active_version(family) == "3"
    assert find_model(str(family)) == family / "3"


def test_of_several_none_is_active_until_one_is_chosen(family):
    assert active_version(family) is None
    with pytest.raises(ModelError, match=r"1, 2, 10 and none is active.*models activate battery_type/10"):
        find_model(str(family))
    activate(family, "2", 0.0)
    assert find_model(str(family)) == family / "2"


def test_rollback_goes_back_step_by_step(family):
    for version in ("1", "2", "2", "10"):
        activate(family, version, 1.8e9)
    assert activations(family) == ["1", "2", "10"]
    assert "2027-01-15T08:00:00+00:00" in (family / "active").read_text()
    assert previous_version(family) == "2"
    assert (roll_back(family), active_version(family)) == ("2", "2")
    assert (roll_back(family), active_version(family)) == ("1", "1")
    with pytest.raises(ModelError, match="no version was active before"):
        roll_back(family)
    assert active_version(family) == "1"


@pytest.mark.parametrize("before", [(), ("1",), ("2", "1")])
def test_an_activation_that_fails_half_way_is_undone(family, before):
    for version in before:
        activate(family, version, 0.0)
    with pytest.raises(RuntimeError), undone_on_failure(family):
        activate(family, "10", 0.0)
        raise RuntimeError
    assert activations(family) == list(before)


def test_versions_that_are_gone_are_named(family):
    activate(family, "1", 0.0)
    activate(family, "2", 0.0)
    shutil.rmtree(family / "1")
    with pytest.raises(ModelError, match="'1' was active before, but it is gone"):
        roll_back(family)
    shutil.rmtree(family / "2")
    with pytest.raises(ModelError, match="there is no version '2'"):
        active_version(family)
    with pytest.raises(ModelError, match="there is no version '11'"):
        activate(family, "11", 0.0)


def test_file_can_be_written_by_hand(family):
    (family / "active").write_text("\n1\n10   since Monday\n")
    assert active_version(family) == "10"
    (family / "active").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="restore or remove it"):
        active_version(family)


def test_models_are_found_by_folder_family_and_name(family, monkeypatch):
    monkeypatch.chdir(family.parents[1])
    activate(family, "2", 0.0)
    for name in ("models/battery_type/2", "models/battery_type", "battery_type/2", "battery_type", str(family)):
        assert find_model(name) == family / "2"
    assert find_model("battery_type/10") == family / "10"
    with pytest.raises(ModelError, match="there is no folder 'battery_type/9'"):
        find_model("battery_type/9")


def test_site_may_name_a_version_or_the_family(family):
    assert BeltSite.load(SITE, [f"model={family / '1'}"]).model_directory() == family / "1"
    site = BeltSite.load(SITE, [f"model={family}", f"shadow_model={family / '10'}"])
    with pytest.raises(ConfigurationError, match=r"model: .*none is active"):
        site.model_directory()
    activate(family, "2", 0.0)
    assert site.model_directory() == family / "2"
    assert site.shadow_directory() == family / "10"
    assert BeltSite.load(SITE).shadow_directory() is None
    with pytest.raises(ConfigurationError, match="shadow_model: there is no folder 'nowhere'"):
        BeltSite.load(SITE, ["shadow_model=nowhere"]).shadow_directory()


def test_drift_limits_of_a_site_are_checked_with_it():
    assert BeltSite.load(SITE, ["drift.mix=null"]).drift.mix is None
    with pytest.raises(ConfigurationError, match=r"drift.others.*must be below raise_at"):
        BeltSite.load(SITE, ["drift.others.raise_at=0.2", "drift.others.clear_at=0.3"])


# ---- the store, and two models side by side ----

RED, GREEN, BLUE, GREY = (230, 30, 30), (30, 200, 30), (30, 30, 230), (120, 120, 120)


@pytest.fixture
def store(tmp_path):
    """Two versions; the second takes red for green and knows no figures."""
    store = tmp_path / "models"
    accuracy = {"value": 0.95, "low": 0.9, "high": 0.98, "pictures": 100}
    write_model(
        store / "tiny" / "1", "1", threshold=0.6, metrics={"photographs": {"accuracy": accuracy}, "seconds": 3}
    )
    write_model(store / "tiny" / "2", "2", threshold=0.6, labels=["Green", "Red", "Blue"])
    return store


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    routes = "".join(f"  {label}: {label.lower()}\n" for label in LABELS)
    file.write_text(f"name: trial\nspeed_mps: 0.5\nthreshold: 0.6\nroutes:\n{routes}")
    return file


def run(*arguments) -> object:
    return CliRunner().invoke(models.app, [str(argument) for argument in arguments])


def succeed(*arguments) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_models_are_listed_with_what_is_wrong_with_them(store):
    write_model(store / "tiny" / "3", "1")
    write_model(store / "tiny" / "4", "4")
    (store / "tiny" / "4" / "model.onnx").write_bytes(b"another")
    activate(store / "tiny", "2", 0.0)
    found = stored_models(store)
    assert [model.name for model in found] == ["tiny/1", "tiny/2", "tiny/3", "tiny/4"]
    assert [model.active for model in found] == [False, True, False, False]
    assert [bool(model.card) for model in found] == [True, True, False, False]
    assert "its card says tiny/1, and so would every record" in found[2].problem
    assert "sha256" in found[3].problem
    rows = json.loads(succeed("list", store, "--json"))
    assert rows[0]["figures"]["photographs.accuracy"]["value"] == 0.95 and rows[0]["figures"]["seconds"] == 3
    text = succeed("list", store)
    assert "active" in text and "its card says tiny/1" in text


def test_two_models_are_compared_on_the_same_pictures(store, tmp_path):
    pictures = [
        (write_picture(tmp_path / f"{index}.png", battery(colour)), truth)
        for index, (colour, truth) in enumerate(
            [(RED, "Red"), (RED, "Red"), (GREEN, "Green"), (BLUE, "Blue"), (GREY, "others")]
        )
    ]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    first, second = (TypeClassifier(store / "tiny" / version) for version in ("1", "2"))
    result = compare_on_pictures(first, second, [*pictures, (broken, "Red")])
    assert result["models"] == ["tiny/1", "tiny/2"]
    assert (result["pictures"], len(result["unreadable"])) == (5, 1)
    assert result["accuracy"]["first"] == share_with_interval(4, 4)
    assert result["accuracy"]["second"] == share_with_interval(1, 4)
    assert (result["accuracy"]["only_first_right"], result["accuracy"]["only_second_right"]) == (3, 0)
    assert result["accuracy"]["mcnemar_p"] == 0.25
    assert result["same_outcome"] == pytest.approx(2 / 5)
    assert {one["truth"] for one in result["differences"]} == {"Red", "Green"}


def test_compare_shows_cards_and_pictures(store, tmp_path):
    write_picture(tmp_path / "data" / "Red" / "a.png", battery(RED))
    write_picture(tmp_path / "data" / "Other" / "b.png", battery(GREY))
    both = store / "tiny" / "1", store / "tiny" / "2"
    remembered = hashlib.sha256((tmp_path / "data" / "Red" / "a.png").read_bytes()).hexdigest()
    Gallery(np.eye(1, 3), ["Red"], ["Red/a.png"], [remembered]).save(both[0] / "gallery.npz")
    result = json.loads(succeed("compare", *both, "--json"))
    assert result["figures"]["photographs.accuracy"][1] is None and "on_pictures" not in result
    text = succeed("compare", *both, "--data", tmp_path / "data")
    assert "95.0% (90.0%–98.0%)" in text and "Red / Green" in text
    assert "tiny/1 was trained on 1 of these pictures" in text and "tiny/2 was trained" not in text
    assert isinstance(run("compare", *both, "--data", tmp_path / "none").exception, ConfigurationError)


def test_activate_and_roll_back_check_the_model_first(store, recipe):
    family, options = store / "tiny", ("--recipe", recipe, "--offline")
    for version in ("1", "2"):
        assert f"tiny/{version} is active" in succeed("activate", family / version, *options)
    write_model(family / "3", "3", labels=["Red", "Green", "Varta"])
    refused = run("activate", family / "3", *options).exception
    assert isinstance(refused, ModelError) and "type 'Varta' has no route" in str(refused)
    (family / "4").mkdir()
    (family / "4" / "card.json").write_text("{}")
    assert "card.json" in str(run("activate", family / "4", *options).exception)
    assert "is a family of versions" in str(run("activate", family, *options).exception)
    assert activations(family) == ["1", "2"], "what is refused changes nothing"
    assert "tiny/1 is active" in succeed("rollback", family, *options)
    assert "no version was active before" in str(run("rollback", family, *options).exception)


def test_a_cell_that_runs_takes_the_model_at_once_or_nothing_is_activated(store, recipe, monkeypatch):
    family, asked = store / "tiny", []
    answer = {"success": True, "model": "tiny/2", "message": ""}
    monkeypatch.setattr(models, "ask", lambda *what: asked.append(what) or answer)
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: name)
    activate(family, "1", 0.0)
    text = succeed("activate", family / "2", "--recipe", recipe, "--line", "belt2")
    assert "line belt2 decides with tiny/2 now" in text
    request = {"model": str(family / "2"), "shadow": False}
    assert asked[0][:4] == ("belt2", "classifier/load_model", "LoadModel", request)
    answer.update(success=False, model="tiny/2", message="no memory")
    refused = run("rollback", family, "--recipe", recipe).exception
    assert isinstance(refused, ModelError) and "line belt goes on with tiny/2: no memory" in str(refused)
    assert activations(family) == ["1", "2"]
    answer.update(success=True, model="")
    assert "shadowed by no model" in succeed("candidate", "--end")
    assert asked[-1][3] == {"model": "", "shadow": True}
    assert run("candidate").exit_code != 0


# ---- a candidate beside the active model ----


def note(ledger: Ledger, number: int, active: str, candidate: str | None, stamp: float) -> None:
    """One battery of the belt: what the active model made of it, and the candidate; empty is rejected."""
    battery_id = make_battery_id(7, number)
    with ledger.transaction() as transaction:
        transaction.record(Detected(trigger_count=number, encoder_count=0), battery_id, stamp)
        for kind, label, model in (
            (Typed, active, "tiny/1"),
            (ShadowTyped, candidate, "tiny/2"),
        ):
            if label is not None:
                facts = {"label": label or "Red", "accepted": bool(label), "confidence": 0.9 if label else 0.5}
                transaction.record(kind(model=model, **facts), battery_id, stamp)


@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        ledger.begin_shift("belt", "sim", 0.0)
        verdicts = [("Red", "Red"), ("Red", "Green"), ("Red", None), ("", "Red"), ("", "")]
        for number, (active, candidate) in enumerate(verdicts):
            note(ledger, number, active, candidate, 10.0 + number)
        note(ledger, 9, "Red", None, 100.0)
    return path


def test_shadow_verdicts_are_compared_with_those_that_were_acted_on(ledger):
    with Ledger.open(ledger, read_only=True) as book:
        (one,) = compare_shadows(book)
    assert (one.active, one.candidate, one.batteries, one.not_seen) == ("tiny/1", "tiny/2", 4, 1)
    assert (one.same_outcome, one.same_type) == (0.5, 0.75)
    assert one.accepted_by == {"both": 0.5, "active": 0.0, "candidate": 0.25, "neither": 0.25}
    assert one.confidence == {"active": pytest.approx(0.7), "candidate": pytest.approx(0.8)}
    assert one.disagreements == {"Red": {"Green": 1}, "others": {"Red": 1}}
    assert one.judged is None


def test_the_plants_record_tells_which_model_was_right(ledger):
    truth = ["Red", "Green", "Red", "Red", "Varta"]
    items = [{"trigger_count": n, "label": label, "known": label != "Varta"} for n, label in enumerate(truth)]
    record = {"boot_id": 7, "items": [*items, {"trigger_count": None, "label": "Red", "known": True}]}
    with Ledger.open(ledger, read_only=True) as book:
        judged = compare_shadows(book, record=record)[0].judged
    assert judged.batteries == 4
    assert (judged.active_right["value"], judged.candidate_right["value"]) == (0.5, 1.0)
    assert (judged.only_active_right, judged.only_candidate_right, judged.mcnemar_p) == (0, 2, 0.5)
    assert (judged.active_into_wrong_bin, judged.candidate_into_wrong_bin) == (1, 0)


def test_shadow_command_prints_both_ways(ledger, tmp_path):
    assert json.loads(succeed("shadow", ledger, "--json"))[0]["candidate"] == "tiny/2"
    text = succeed("shadow", ledger)
    assert "tiny/2 in the shadow of tiny/1: 4 batteries" in text and "Red → Green 1" in text
    with Ledger.open(tmp_path / "empty.sqlite") as book:
        book.begin_shift("belt", "sim", 0.0)
    nothing = run("shadow", tmp_path / "empty.sqlite")  # issue 15, D12
    assert isinstance(nothing.exception, NothingFoundError)
    assert "no shadow model has looked at a battery" in str(nothing.exception)


# ---- proportions ----


def test_exact_mcnemar_test_agrees_with_values_by_hand():
    assert mcnemar(0, 0) == 1.0 and mcnemar(3, 3) == 1.0
    assert mcnemar(0, 5) == mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 1024)


def test_wilson_interval_agrees_with_published_values():
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)  # Newcombe 1998, table I
    assert wilson(0, 0) == (0.0, 1.0)
    assert share_with_interval(0, 0)["value"] is None

"""Which batteries a person labels, and what comes back of it."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from battery_sorting.cli.main import make_app
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.ledger import EventKind, ImageStore, Ledger
from battery_sorting.core.types import make_battery_id
from battery_sorting.vision.review import (
    COLUMNS,
    Candidate,
    choose,
    find_candidates,
    margin_uncertainty,
    reviewed_pictures,
    verdicts_on_record,
    write_review,
)

ROUTES = {"Klarus": "klarus", "IKEA": "ikea"}
SURE = {"Klarus": 0.98, "IKEA": 0.02}
CLOSE = {"Klarus": 0.55, "IKEA": 0.45}

# scores, accepted, why not, final bin, final reason, novelty
STORY = [
    (SURE, True, "", "klarus", "sorted", 0.1),
    (CLOSE, False, "low_confidence", "others", "low_confidence", 0.2),
    (SURE, False, "unknown_type", "others", "unknown_type", 0.9),
    (CLOSE, True, "", "klarus", "sorted", 0.1),
    (SURE, True, "", "others", "missed", 0.1),
    ({}, False, "bad_image", "others", "bad_image", None),
    (SURE, True, "", "klarus", "sorted", 0.5),
]


def number(battery):
    return int(battery.battery_id[-6:])


def write_ledger(path, pictures=False):
    """A shift with the batteries of STORY, numbered from 1."""
    store = ImageStore(path.parent / "images")
    with Ledger.open(path) as ledger:
        ledger.begin_shift("belt", "sim", 1000.0, config={"recipe": {"routes": ROUTES}})
        with ledger.transaction() as tx:
            for count, (scores, accepted, reason, bin_, final, novelty) in enumerate(STORY, start=1):
                battery_id, eye = make_battery_id(1, count), 1000.0 + count
                tx.record(EventKind.DETECTED, battery_id, eye, trigger_count=count, encoder_count=count)
                label = max(scores, key=scores.get) if scores else ""
                facts = {"label": label, "confidence": scores.get(label), "accepted": accepted, "reason": reason}
                tx.record(EventKind.TYPED, battery_id, eye, **facts, scores=scores, novelty=novelty, model="gone/7")
                tx.record(EventKind.DISPOSED, battery_id, eye + 4, bin=bin_, reason=final)
                if pictures:
                    content = f"picture {count}".encode()
                    sha256 = store.put(content)
                    where = str(store.path(sha256).relative_to(store.folder))
                    size = {"width": 8, "height": 8, "size": len(content)}
                    tx.add_image(battery_id, sha256, path=where, **size, stamp=eye)


@pytest.fixture
def candidates(tmp_path):
    write_ledger(tmp_path / "ledger.sqlite")
    with Ledger.open(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        return find_candidates(ledger.batteries(), verdicts_on_record(ledger.events()), ROUTES)


def test_candidates_are_what_is_uncertain_novel_or_overruled(candidates):
    assert {number(each): each.reasons for each in candidates} == {
        2: ("low_confidence",),
        3: ("unknown_type",),
        4: ("small_margin",),
        5: ("overruled:missed",),
        7: ("novel",),
    }


def test_a_shadow_model_that_names_another_type_makes_a_candidate(tmp_path):
    write_ledger(tmp_path / "ledger.sqlite")
    with Ledger.open(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        batteries, typed = ledger.batteries(), verdicts_on_record(ledger.events())
    shadow = {
        make_battery_id(1, 1): {"label": "IKEA", "accepted": True},
        make_battery_id(1, 2): {"label": "IKEA", "accepted": False},  # neither is sure: nothing new in that
        make_battery_id(1, 3): {"label": "Klarus", "accepted": True},
    }
    found = {number(each): each for each in find_candidates(batteries, typed, ROUTES, shadow)}
    assert found[1].reasons == ("models_differ",) and found[1].priority == 0.5
    assert found[2].reasons == ("low_confidence",) and found[3].reasons == ("unknown_type",)


def test_the_most_uncertain_and_the_most_novel_come_first(candidates):
    priority = {number(each): each.priority for each in candidates}
    assert [each.priority for each in candidates] == sorted(priority.values(), reverse=True)
    assert priority[2] == pytest.approx(0.9)  # 1 - (0.55 - 0.45)
    assert priority[3] == pytest.approx(5 / 6)  # more novel than five of six
    assert priority[5] == 0.5


def test_margin_uncertainty_is_none_for_one_label_and_full_for_a_draw():
    assert margin_uncertainty({"A": 0.5, "B": 0.5}) == 1
    assert margin_uncertainty({"A": 0.9, "B": 0.06, "C": 0.04}) == pytest.approx(0.16)
    assert margin_uncertainty({"A": 1.0}) == margin_uncertainty({}) == 0


def candidate(name, uncertainty=0.9, label="Klarus", confidence=0.6, reasons=("low_confidence",)):
    return Candidate(name, label, confidence, uncertainty, math.nan, 0.0, reasons)


def directions(*degrees):
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_the_choice_is_diverse():
    of_two_kinds = [candidate("a", 0.9), candidate("b", 0.89), candidate("c", 0.88), candidate("d", 0.5)]
    chosen, _ = choose(of_two_kinds, directions(0, 30, 35, 180), limit=2)
    assert chosen == [0, 3]


def test_near_duplicates_are_left_out_and_counted():
    chosen, duplicates = choose([candidate(name) for name in "abcd"], directions(0, 1, 90, 91), limit=10)
    assert sorted(chosen) in ([0, 2], [0, 3]) and duplicates == 2


def test_without_embeddings_priority_alone_decides():
    assert choose([candidate(name) for name in "abc"], None, limit=2) == ([0, 1], 0)


@pytest.fixture
def exported(tmp_path):
    pictures = [
        (candidate("id-1"), b"one"),
        (candidate("id-2", label="IKEA"), b"two"),
        (candidate("id-3", reasons=("unknown_type",)), b"three"),
        (candidate("id-4", confidence=0.3), b"four"),
    ]
    write_review(tmp_path / "review", pictures, ["IKEA", "Klarus"])
    return tmp_path / "review"


def fill_in(folder, delimiter=",", encoding="utf-8", **labels):
    with (folder / "review.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = labels.get(row["battery_id"].replace("-", "_"), row["label"])
    with (folder / "review.csv").open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def labels_of(folder):
    return {picture.battery_id or picture.path.name: picture.label for picture in reviewed_pictures(folder)}


def test_pictures_lie_in_the_folder_of_the_suggestion_and_keep_their_id(exported):
    found = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert found == {
        "README.txt",
        "review.csv",
        "Klarus/id-1.jpg",
        "IKEA/id-2.jpg",
        "_unsure/id-3.jpg",
        "_unsure/id-4.jpg",
    }
    assert (exported / "Other").is_dir()
    assert (exported / "Klarus" / "id-1.jpg").read_bytes() == b"one"


def test_an_export_that_nobody_reviewed_is_refused(exported):
    with pytest.raises(ConfigurationError, match="nobody has reviewed it"):
        reviewed_pictures(exported)
    (exported / "review.csv").unlink()
    assert labels_of(exported) == {"id-1.jpg": "Klarus", "id-2.jpg": "IKEA"}


def test_moved_pictures_count_where_they_lie(exported):
    (exported / "_unsure" / "id-3.jpg").rename(exported / "Other" / "id-3.jpg")
    (exported / "IKEA" / "id-2.jpg").rename(exported / "Klarus" / "id-2.jpg")
    assert labels_of(exported) == {"id-1": "Klarus", "id-2": "Klarus", "id-3": "Other"}


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8"), (";", "utf-8-sig")])
def test_labels_of_the_table_count_more_than_the_suggestion(exported, delimiter, encoding):
    fill_in(exported, delimiter, encoding, id_1="IKEA", id_2="-", id_3="Klarus")
    assert labels_of(exported) == {"id-1": "IKEA", "id-3": "Klarus"}


def test_a_picture_moved_and_labelled_alike_is_taken(exported):
    (exported / "IKEA" / "id-2.jpg").rename(exported / "Klarus" / "id-2.jpg")
    fill_in(exported, id_2="Klarus")
    assert labels_of(exported)["id-2"] == "Klarus"


def test_contradictions_typing_errors_and_lost_files_are_all_named(exported):
    (exported / "IKEA" / "id-2.jpg").rename(exported / "Klarus" / "id-2.jpg")
    (exported / "_unsure" / "id-3.jpg").rename(exported / "_unsure" / "renamed.jpg")
    fill_in(exported, id_1="Klaurs", id_2="IKEA", id_3="Klarus")
    with pytest.raises(ConfigurationError) as refused:
        reviewed_pictures(exported)
    text = str(refused.value)
    assert len(refused.value.problems) == 3
    assert "lies in 'Klarus' but is labelled 'IKEA'" in text
    assert "'Klaurs' has no folder" in text and "'Klarus'" in text
    assert "id-3.jpg: is labelled 'Klarus', but there is no file" in text


def test_a_new_type_needs_its_folder(exported):
    fill_in(exported, id_3="Acme")
    with pytest.raises(ConfigurationError, match="'Acme' has no folder"):
        reviewed_pictures(exported)
    (exported / "Acme").mkdir()
    assert labels_of(exported)["id-3"] == "Acme"


def test_a_plain_folder_per_type_is_taken_as_it_is(tmp_path):
    (tmp_path / "Acme").mkdir()
    (tmp_path / "Acme" / "1.jpg").write_bytes(b"one")
    assert labels_of(tmp_path) == {"1.jpg": "Acme"}


def test_an_export_does_not_overwrite_a_review(exported):
    with pytest.raises(ConfigurationError, match="is not empty"):
        write_review(exported, [], ["Klarus"])


def test_a_broken_table_is_named(exported):
    (exported / "review.csv").write_text("file,label\nKlarus/id-1.jpg,IKEA\n")
    with pytest.raises(ConfigurationError, match=r"review\.csv(.|\n)*no column 'battery_id'"):
        reviewed_pictures(exported)


def call(*arguments):
    return CliRunner().invoke(make_app("review"), ["review", *map(str, arguments)], catch_exceptions=True)


def test_the_command_exports_what_the_ledger_has_even_if_the_model_is_gone(tmp_path):
    write_ledger(tmp_path / "ledger.sqlite", pictures=True)
    done = call(tmp_path / "ledger.sqlite", "--out", tmp_path / "out", "--limit", 3, "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["candidates"], facts["looked_at"], len(facts["exported"])) == (5, 5, 3)
    assert "gone/7" in facts["notes"][0]
    files = sorted(path.name for path in (tmp_path / "out").rglob("*.jpg"))
    assert files == [f"{make_battery_id(1, count)}.jpg" for count in (2, 3, 4)]


def test_the_command_says_that_no_pictures_were_kept(tmp_path):
    write_ledger(tmp_path / "ledger.sqlite")
    done = call(tmp_path / "ledger.sqlite", "--out", tmp_path / "out")
    assert isinstance(done.exception, ConfigurationError)
    assert "has a picture that can be read" in str(done.exception) and not (tmp_path / "out").exists()


def test_a_changed_picture_is_not_exported(tmp_path):
    write_ledger(tmp_path / "ledger.sqlite", pictures=True)
    for path in (tmp_path / "images").rglob("*.jpg"):
        if path.read_bytes() == b"picture 2":
            path.write_bytes(b"something else")
    facts = json.loads(call(tmp_path / "ledger.sqlite", "--out", tmp_path / "out", "--json").stdout)
    assert facts["without_picture"] == 1 and len(facts["exported"]) == 4

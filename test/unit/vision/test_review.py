"""Which batteries a person labels, and what comes back of it."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import unicodedata

import numpy as np
import pytest
from typer.testing import CliRunner

from battery_sorting.cli.main import make_app
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.types import make_battery_id
from battery_sorting.ledger.events import Detected, Disposed, ShadowTyped, Typed
from battery_sorting.ledger.store import ImageStore, Ledger
from battery_sorting.vision.review import (
    COLUMNS,
    LabelCandidate,
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
                tx.record(Detected(trigger_count=count, encoder_count=count), battery_id, eye)
                label = max(scores, key=scores.get) if scores else ""
                facts = {"label": label, "confidence": scores.get(label), "accepted": accepted, "reason": reason}
                tx.record(Typed(**facts, scores=scores, novelty=novelty, model="gone/7"), battery_id, eye)
                tx.record(Disposed(bin=bin_, reason=final), battery_id, eye + 4)
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
        return find_candidates(ledger.batteries(), verdicts_on_record(ledger.events(kinds=[Typed])), ROUTES)


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
        batteries, typed = ledger.batteries(), verdicts_on_record(ledger.events(kinds=[Typed]))
    shadow = {
        make_battery_id(1, 1): ShadowTyped("IKEA", accepted=True),
        make_battery_id(1, 2): ShadowTyped("IKEA", accepted=False),  # neither is sure: nothing new in that
        make_battery_id(1, 3): ShadowTyped("Klarus", accepted=True),
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
    return LabelCandidate(name, label, confidence, uncertainty, math.nan, 0.0, reasons)


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


# issue 15, B9
def test_folders_of_systems_in_a_review_are_no_types(tmp_path, caplog):
    for name in ("Acme/1.jpg", "@eaDir/1.jpg", "__MACOSX/2.jpg", ".ipynb_checkpoints/1.jpg", "Acme/._1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"one")
    (tmp_path / "Acme" / "2.cr2").write_bytes(b"raw")
    assert labels_of(tmp_path) == {"1.jpg": "Acme"}
    assert "3 (.ipynb_checkpoints/, @eaDir/, __MACOSX/)" in caplog.text
    assert "raw files of cameras: 1 (Acme/2.cr2)" in caplog.text


def test_a_review_says_nothing_of_its_own_files(exported, caplog):
    fill_in(exported, id_1="IKEA")
    labels_of(exported)
    assert caplog.text == ""


def test_a_type_is_one_however_its_accents_are_written(exported):
    for form, file in (("NFD", "1.jpg"), ("NFC", "2.jpg")):
        folder = exported / unicodedata.normalize(form, "Grün")
        folder.mkdir()
        (folder / file).write_bytes(b"new")
    fill_in(exported, id_1=unicodedata.normalize("NFD", "Grün"))
    found = labels_of(exported)
    assert found["1.jpg"] == found["2.jpg"] == found["id-1"] == "Grün"


def test_a_picture_that_was_copied_into_two_folders_is_named(exported):
    [lies] = exported.rglob("id-1.jpg")
    (exported / "IKEA" / "id-1.jpg").write_bytes(lies.read_bytes())
    with pytest.raises(ConfigurationError, match=r"id-1\.jpg: lies in .* and in .*delete it from all but one"):
        reviewed_pictures(exported)


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


# issue 15, B8 and C11
@pytest.mark.parametrize("text", ["../../x", "/tmp/x", "a/b", "..", "x" * 5000, "a\0b", "a\nb", "ends.", "_unsure"])
def test_nothing_is_written_outside_the_folder_whatever_ids_and_labels_say(tmp_path, text):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    folder = tmp_path / "deep" / "er" / "review"
    pictures = [
        (candidate("id-1", label=text), b"one"),
        (candidate(text), b"two"),
        (candidate(text + "2"), b"three"),
    ]
    rows = write_review(folder, pictures, ["Klarus", text])
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert all(file.startswith("deep/er/review/") for file in files)
    assert {path.relative_to(folder).parts[0] for path in folder.rglob("*")} == {
        "Klarus",
        "Other",
        "_unsure",
        "README.txt",
        "review.csv",
    }
    assert (folder / "_unsure" / "id-1.jpg").read_bytes() == b"one"
    assert {(folder / row["file"]).read_bytes() for row in rows} == {b"one", b"two", b"three"}
    assert [row["battery_id"] for row in rows] == ["id-1", text, text + "2"]


# issue 15, C11
def test_the_command_writes_no_file_outside_for_a_ledger_from_elsewhere(tmp_path):
    home = tmp_path / "a"
    home.mkdir()
    path, store = home / "ledger.sqlite", ImageStore(home / "images")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    stolen = hashlib.sha256(b"secret").hexdigest()
    with Ledger.open(path) as ledger:
        routes = {"../../x": "bin", "Klarus": "klarus"}
        ledger.begin_shift("belt", "sim", 1000.0, config={"recipe": {"routes": routes}})
        with ledger.transaction() as tx:
            for count, where in enumerate(["", "../../secret.jpg", str(tmp_path / "secret.jpg")], start=1):
                battery_id = f"6a000001-00000{count}"
                tx.record(Detected(trigger_count=count, encoder_count=count), battery_id, 1000.0)
                facts = {"label": "../../x", "confidence": 0.6, "accepted": False, "reason": "low_confidence"}
                scores = {"../../x": 0.6, "Klarus": 0.4}
                tx.record(Typed(**facts, scores=scores, model="../../../gone/7"), battery_id, 1000.0)
                tx.record(Disposed(bin="others", reason="low_confidence"), battery_id, 1004.0)
                sha256 = stolen if where else store.put(b"picture")
                file = where or str(store.path(sha256).relative_to(store.folder))
                tx.add_image(battery_id, sha256, path=file, width=8, height=8, size=7, stamp=1000.0)
    before = {found for found in tmp_path.rglob("*") if found.is_file()}
    done = call(path, "--out", tmp_path / "b" / "c" / "out", "--json")
    assert done.exit_code == 3 and "path is '../../secret.jpg'" in done.stderr, done.output
    assert json.loads(done.stdout)["without_picture"] == 2, "what lies elsewhere is no picture of the ledger"
    new = {found for found in tmp_path.rglob("*") if found.is_file()} - before
    outside = [found for found in new if not found.is_relative_to(tmp_path / "b" / "c" / "out")]
    assert {found.name for found in outside} <= {"ledger.sqlite-wal", "ledger.sqlite-shm"}, "SQLite's own"
    assert {found.read_bytes() for found in new if found.suffix == ".jpg"} == {b"picture"}


# issue 15, D12
def test_folder_that_holds_something_is_named_before_the_ledger_is_read(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    done = call(tmp_path / "there is none", "--out", tmp_path / "out")
    assert isinstance(done.exception, ConfigurationError)
    assert "is there already; name another" in str(done.exception)

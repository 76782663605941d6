"""What `battery-sorting data check` finds in a folder of pictures."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.vision.training.corrections import Correction, Corrections

for library in ("torch", "sklearn"):
    pytest.importorskip(library, reason="needs requirements/train.txt")
from battery_sorting.cli import data as command  # noqa: E402
from battery_sorting.report.vision.check_page import write_check  # noqa: E402
from battery_sorting.vision.training import label_check  # noqa: E402
from battery_sorting.vision.training.head import HeadOptions  # noqa: E402
from battery_sorting.vision.training.label_check import LabelCheck, check_labels, confidently_other  # noqa: E402

TYPES = {"Blue": (0, 0, 200), "Green": (0, 160, 0), "Red": (200, 0, 0)}


def write(path: Path, colour: tuple[int, int, int], number: int, kind: str = "PNG") -> None:
    """A picture that is known by its number, which stands in its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (32, 32), colour)
    picture.paste((number // 256, number % 256, 0), (0, 0, 16, 16))
    picture.save(path, kind)


def look(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour says the type, the corner's number the shoot: numbers of one ten are nearly alike."""
    number = int(pixels[4, 4, 0]) * 256 + int(pixels[4, 4, 1])
    shoot = np.random.default_rng(number // 10).normal(size=64)
    own = np.random.default_rng([number, 1]).normal(size=64)
    colour = pixels[28, 28].astype(float) / 255
    row = np.concatenate(
        [colour - colour.mean(), 1.2 * shoot / np.linalg.norm(shoot), 0.2 * own / np.linalg.norm(own)]
    )
    views = np.stack([row, row + 0.01]).astype(np.float32)
    return views, np.stack([colour, colour]).astype(np.float32)


def quiet(text, items):
    return items


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr(label_check, "HeadOptions", lambda: HeadOptions(trees=5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for t, (name, colour) in enumerate(TYPES.items()):
        for n in range(10):
            write(tmp_path / "data" / name / f"{n}.png", colour, 1000 * t + 10 * n)
    return tmp_path / "data"


def test_a_clean_folder_has_no_findings(folder):
    found = check_labels(folder, look, quiet)
    assert found == LabelCheck(types={"Blue": 10, "Green": 10, "Red": 10})
    assert found.proposals() == []


def test_a_wrong_label_is_a_suspect_and_what_a_person_said_of_it_ends_that(folder):
    write(folder / "Green" / "odd.png", TYPES["Red"], 4000)
    found = check_labels(folder, look, quiet)
    (suspect,) = found.suspects
    assert (suspect.file, suspect.label, suspect.suggested) == ("Green/odd.png", "Green", "Red")
    assert suspect.confidence > 0.7 > 0.3 > suspect.own
    assert suspect.confident
    assert suspect.like.startswith("Red/")
    (proposal,) = found.proposals()
    assert (proposal.file, proposal.action, proposal.label) == ("Green/odd.png", "keep", "Red")
    for action, red in (("keep", 10), ("drop", 10), ("relabel", 11)):
        said = Corrections([Correction("Green/odd.png", action, "Red")])
        again = check_labels(folder, look, quiet, said)
        assert again.suspects == []
        assert again.types["Red"] == red


def test_confident_learning_wants_a_row_as_sure_as_the_others_of_that_label_are():
    labels = np.array([0, 0, 0, 1, 1, 1])
    sure_of_one = np.array([0.1, 0.2, 0.9, 0.8, 0.8, 0.6])  # on average 0.73 of what is called 1
    rows = np.stack([1 - sure_of_one, sure_of_one], axis=1)
    assert confidently_other(labels, rows).tolist() == [False, False, True, False, False, False]
    rows[2] = 0.3, 0.7  # taken for 1, but not as surely as those are
    assert not confidently_other(labels, rows).any()


def test_pictures_of_no_type_are_no_suspects(folder):
    for n in range(5):
        write(folder / "Other" / f"{n}.png", TYPES["Red"], 9000 + 10 * n)
    found = check_labels(folder, look, quiet)
    assert found.suspects == []
    assert found.types["others"] == 5


def test_copies_are_dropped_but_for_one_and_all_where_labels_contradict(folder):
    shutil.copy(folder / "Red" / "3.png", folder / "Red" / "again.png")
    shutil.copy(folder / "Blue" / "4.png", folder / "Green" / "blue.png")
    found = check_labels(folder, look, quiet)
    assert [(group.files, group.contradict) for group in found.copies] == [
        (["Blue/4.png", "Green/blue.png"], True),
        (["Red/3.png", "Red/again.png"], False),
    ]
    dropped = {entry.file for entry in found.proposals() if entry.action == "drop"}
    assert dropped == {"Blue/4.png", "Green/blue.png", "Red/again.png"}


def test_near_duplicates_are_named_within_and_across_types(folder):
    write(folder / "Red" / "near.png", TYPES["Red"], 2031)
    write(folder / "Green" / "near.png", TYPES["Red"], 2051)
    found = check_labels(folder, look, quiet)
    assert [group.files for group in found.near] == [["Red/3.png", "Red/near.png"]]
    assert [(group.files, group.labels) for group in found.across] == [
        (["Green/near.png", "Red/5.png"], ["Green", "Red"])
    ]
    assert all(0.87 < group.cosine < 1 for group in found.near + found.across)
    assert found.copies == []


def test_files_that_cannot_be_read_are_named_and_stop_nothing(folder):
    (folder / "Red" / "empty.jpg").write_bytes(b"")
    (folder / "Red" / "text.jpg").write_text("no picture")
    cut = (folder / "Red" / "1.png").read_bytes()[:60]
    (folder / "Red" / "cut.png").write_bytes(cut)
    write(folder / "Red" / "dot.png", TYPES["Red"], 1)
    Image.new("RGB", (3, 3)).save(folder / "Red" / "dot.png")
    found = check_labels(folder, look, quiet)
    assert [bad.file for bad in found.unreadable] == [
        f"Red/{n}" for n in ("cut.png", "dot.png", "empty.jpg", "text.jpg")
    ]
    assert all(bad.why and str(folder) not in bad.why for bad in found.unreadable)
    assert {entry.action for entry in found.proposals()} == {"drop"}
    assert found.types["Red"] == 10


def test_endings_that_lie_are_named_and_read(folder):
    write(folder / "Red" / "webp.jpg", TYPES["Red"], 6000, "WEBP")
    write(folder / "Red" / "right.jpeg", TYPES["Red"], 6010, "JPEG")
    found = check_labels(folder, look, quiet)
    assert [(wrong.file, wrong.format) for wrong in found.endings] == [("Red/webp.jpg", "WEBP")]
    assert found.types["Red"] == 12


def test_files_that_are_not_looked_at_are_named(folder):
    (folder / "Red" / "photo.heic").write_bytes(b"x")
    (folder / "Red" / "deeper").mkdir()
    (folder / "Red" / ".hidden").write_bytes(b"x")
    write(folder / "stray.png", TYPES["Red"], 3000)
    found = check_labels(folder, look, quiet)
    assert found.ignored == ["Red/deeper/", "Red/photo.heic", "stray.png"]
    assert found.types["Red"] == 10


# issue 15, B9
def test_what_systems_put_there_is_no_type_and_everything_left_out_has_a_remedy(folder):
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        write(folder / name / "1.png", TYPES["Red"], 5000)
    write(folder / "Red" / "deeper" / "1.png", TYPES["Red"], 5000)
    (folder / "Red" / "1.nef").write_bytes(b"x")
    found = check_labels(folder, look, quiet)
    assert sorted(found.types) == ["Blue", "Green", "Red"]
    assert found.ignored == ["Red/1.nef", "Red/deeper/1.png"]
    told = "\n".join(found.remarks)
    assert "3 (.ipynb_checkpoints/, @eaDir/, __MACOSX/)" in told and "rename one that is" in told
    assert "raw files of cameras: 1 (Red/1.nef); convert them" in told
    assert "pictures in folders below a type's: 1 (Red/deeper/1.png); move them up" in told
    assert found.as_dict()["remarks"] == found.remarks


# issue 15, B9
def test_a_type_is_one_however_its_accents_are_written_and_the_page_shows_it(folder, tmp_path):
    for number, form in enumerate(("NFC", "NFD")):
        for n in range(3):
            name = unicodedata.normalize(form, "Grün")
            write(folder / name / f"{form}{n}.png", (90, 90, 90), 9000 + 100 * number + 10 * n)
    shutil.copy(folder / unicodedata.normalize("NFD", "Grün") / "NFD1.png", folder / "Red" / "copy.png")
    found = check_labels(folder, look, quiet)
    assert found.types["Grün"] == 6
    page = tmp_path / "page.html"
    write_check(page, folder, found)
    assert page.read_text().count("data:image/jpeg") >= 2


def test_empty_classes_single_pictures_and_classes_of_one_shoot_are_named(folder):
    (folder / "Empty").mkdir()
    write(folder / "Single" / "1.png", (120, 120, 0), 7000)
    for n in range(3):
        write(folder / "Shoot" / f"{n}.png", (0, 120, 120), 8000 + n)
    found = check_labels(folder, look, quiet)
    assert (found.empty, found.single, found.unjudged) == (["Empty"], ["Single"], ["Shoot"])
    assert found.suspects == []


def test_one_type_alone_is_checked_as_far_as_possible(tmp_path):
    for n in range(4):
        write(tmp_path / "Red" / f"{n}.png", TYPES["Red"], 10 * n)
    assert check_labels(tmp_path, look, quiet).types == {"Red": 4}


def test_folders_without_a_readable_picture_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"gone.*\n.*no such folder"):
        check_labels(tmp_path / "gone", look, quiet)
    (tmp_path / "Red").mkdir()
    (tmp_path / "Red" / "1.jpg").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="none of its 1 pictures can be read"):
        check_labels(tmp_path, look, quiet)


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(command, "_look", lambda *_: look)
    return lambda *arguments: CliRunner().invoke(command.app, ["check", *map(str, arguments)])


def test_command_shows_tables_and_writes_a_list_that_keeps_decisions(folder, tmp_path, run):
    write(folder / "Green" / "odd.png", TYPES["Red"], 4000)
    (folder / "Red" / "empty.jpg").write_bytes(b"")
    out = tmp_path / "corrections.csv"
    result = run(folder, "--out", out)
    assert result.exit_code == 0, result.output
    for text in ("31 pictures of 3 types", "Unreadable", "Red/empty.jpg", "Suspects", "Green/odd.png"):
        assert text in result.output
    assert {(e.file, e.action, e.label) for e in Corrections.read(out)} == {
        ("Red/empty.jpg", "drop", ""),
        ("Green/odd.png", "keep", "Red"),
    }
    out.write_text(out.read_text().replace("Green/odd.png,Red,keep", "Green/odd.png,Red,relabel"))
    assert run(folder, "--out", out).exit_code == 0
    assert {(e.file, e.action) for e in Corrections.read(out)} == {
        ("Red/empty.jpg", "drop"),
        ("Green/odd.png", "relabel"),
    }


def test_command_writes_a_page_with_the_pictures(folder, tmp_path, run):
    write(folder / "Green" / "odd.png", TYPES["Red"], 4000)
    (folder / "Red" / "<b>.jpg").write_bytes(b"")
    page = tmp_path / "check.html"
    assert run(folder, "--html", page).exit_code == 0
    text = page.read_text()
    assert text.count("data:image/jpeg") == 2
    assert "Green/odd.png" in text
    assert "Red/&lt;b&gt;.jpg: is empty" in text


def test_command_names_a_folder_that_is_not_there(tmp_path, run):
    result = run(tmp_path / "gone")
    assert result.exit_code == 2
    assert "gone" in re.sub(r"[│\s]", "", result.output)  # a long path is wrapped, within a frame


def test_command_prints_json_alone(folder, run):
    shutil.copy(folder / "Blue" / "4.png", folder / "Green" / "blue.png")
    result = run(folder, "--json")
    answer = json.loads(result.stdout)
    assert answer["pictures"] == 31
    assert answer["copies"] == [
        {"files": ["Blue/4.png", "Green/blue.png"], "labels": ["Blue", "Green"], "cosine": 1.0, "contradict": True}
    ]
    assert answer["suspects"][0]["file"] == "Green/blue.png"


def test_picture_itself_is_looked_at_and_its_flips_after_it(monkeypatch):
    from battery_sorting.vision.preprocessing import Preprocessing
    from battery_sorting.vision.training import backbone, views

    class Seen:
        preprocessing = Preprocessing()

        def __init__(self, *_: object) -> None:
            pass

        def __call__(self, cutouts):
            return cutouts

    monkeypatch.setattr(backbone, "load_backbone", lambda *_: None)
    monkeypatch.setattr(views, "Extractor", Seen)
    picture = np.full((120, 200, 3), 255, np.uint8)
    picture[40:80, 30:100], picture[40:80, 100:170] = (200, 0, 0), (0, 0, 200)
    looked = [cutout.pixels for cutout in command._look("lite0", None)(picture)]
    plain = Preprocessing().cut_out(picture).pixels
    turned = [plain[::-1, ::-1], plain[:, ::-1], plain[::-1]]
    assert len(looked) == 4
    assert np.array_equal(looked[0], plain)
    assert all(any(np.array_equal(view, other) for view in looked[1:]) for other in turned)

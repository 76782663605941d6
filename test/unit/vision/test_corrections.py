"""Lists of label corrections, and errors counted by chemistry."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.vision.chemistry import chemistry_errors, read_chemistry
from battery_sorting.vision.training.corrections import Correction, Corrections, file_key

pytest.importorskip("torch", reason="training/data.py draws on what needs requirements/train.txt")
from battery_sorting.vision.pictures import Photograph

SHARED = [folder / "shared/data/batsort" for folder in Path(__file__).resolve().parents]
HEADER = "file,label,action,reason,confidence\n"


def listed(tmp_path: Path, text: str) -> Corrections:
    path = tmp_path / "corrections.csv"
    path.write_text(text, encoding="utf-8")
    return Corrections.read(path)


def photograph(file: str) -> Photograph:
    return Photograph(Path("/data") / file, file.split("/")[0])


def test_a_list_is_read_as_it_was_written(tmp_path):
    written = Corrections(
        [
            Correction("A/1.jpg", "relabel", "B", 'says "B", with a comma', 0.875),
            Correction("A/ü 2 (3).jpg", "drop"),
            Correction("B/3.png", "keep", "A", "two\nlines", 0.5),
        ]
    )
    path = tmp_path / "new" / "corrections.csv"
    written.write(path, "look at these\nand change the action")
    read = Corrections.read(path)
    assert [(e.file, e.action, e.label, e.reason) for e in read] == [
        (e.file, e.action, e.label, e.reason) for e in written
    ]
    assert read.entries[0].confidence == 0.875
    assert math.isnan(read.entries[1].confidence)
    assert [file.name for file in path.parent.iterdir()] == ["corrections.csv"]


def test_pictures_are_relabelled_dropped_and_kept(tmp_path):
    corrections = listed(
        tmp_path, HEADER + "A/1.jpg,B,relabel,,\nA/2.jpg,,drop,,\nA/3.jpg,B,keep,,\nA/5.jpg,Other,relabel,,\n"
    )
    pictures = [photograph(f"A/{n}.jpg") for n in range(1, 6)] + [photograph("B/1.jpg")]
    corrected = corrections.apply(pictures)
    assert [(p.path.name, p.label) for p in corrected] == [
        ("1.jpg", "B"),
        ("3.jpg", "A"),
        ("4.jpg", "A"),
        ("5.jpg", "others"),
        ("1.jpg", "B"),
    ]


def test_accents_match_however_they_are_written(tmp_path):
    corrections = listed(tmp_path, HEADER + "Z\u00fcrich/1.jpg,,drop,,\n")
    assert corrections.apply([photograph("Zu\u0308rich/1.jpg")]) == []


def test_what_spreadsheets_make_of_a_list_is_read(tmp_path):
    text = "\ufeff# a comment\r\nFile;Action;Label;Confidence\r\nA\\1.jpg;Relabel;B;0,75\r\n;;;\r\n"
    (entry,) = listed(tmp_path, text)
    assert (entry.file, entry.action, entry.label, entry.confidence) == ("A/1.jpg", "relabel", "B", 0.75)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"line 1: the header misses file, action: write 'file,label"),
        ("# note\nfile,label,aktion\n", r"line 2: the header misses action"),
        (HEADER + "A/1.jpg,,relable,,\n", r"line 2: action: 'relable' .* did you mean 'relabel'"),
        (HEADER + "A/1.jpg,,relabel,,\n", r"line 2: label: is empty: name the right type"),
        (HEADER + "A/1.jpg,x/B,relabel,,\n", r"line 2: label: .* is a path"),
        (HEADER + "1.jpg,,drop,,\n", r"line 2: file: '1.jpg' is not FOLDER/NAME"),
        (HEADER + "../1.jpg,,drop,,\n", r"line 2: file: .* is not FOLDER/NAME"),
        (HEADER + "A/1.jpg,,drop,,\nA/1.jpg,,keep,,\n", r"line 3: file: A/1.jpg stands in line 2 already"),
        (HEADER + "A/1.jpg,,drop,,90\n", r"line 2: confidence: '90' is no number from 0 to 1"),
        (HEADER + "A/1.jpg,,drop,,nan\n", r"line 2: confidence: 'nan' is no number from 0 to 1"),
        (HEADER + "A/1.jpg,,drop,one, two,\n", r"line 2: reason: .* quotes"),
    ],
)
def test_faults_are_named_with_line_column_and_remedy(tmp_path, text, problem):
    with pytest.raises(ConfigurationError, match=problem):
        listed(tmp_path, text)


def test_all_faults_are_named_at_once_and_lines_are_those_of_the_file(tmp_path):
    text = "# one\n# two\n" + HEADER + 'A/1.jpg,,drop,"two\nlines",\nA/2.jpg,,dorp,,2\n'
    with pytest.raises(ConfigurationError) as caught:
        listed(tmp_path, text)
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == ["line 6", "line 6"]


def test_a_list_that_is_missing_or_no_text_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"gone\.csv.*\n.*no such list"):
        Corrections.load(tmp_path / "gone.csv")
    (tmp_path / "latin.csv").write_bytes("file,action\nA/ü.jpg,drop\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="UTF-8"):
        Corrections.load(tmp_path / "latin.csv")


def test_entries_that_match_nothing_and_mistyped_labels_are_warned_about(tmp_path):
    corrections = listed(
        tmp_path, HEADER + "Klarus/1.jpeg,,drop,,\nKlarus/2.jpg,Exell_Gren,relabel,,\nKlarus/3.jpg,,keep,,\n"
    )
    pictures = [photograph(f) for f in ("Klarus/1.jpg", "Klarus/2.jpg", "Klarus/3.jpg", "Exell_Green/1.jpg")]
    first, second = corrections.audit(pictures)
    assert "Klarus/1.jpeg: no such picture" in first
    assert "did you mean 'Klarus/1.jpg'?" in first
    assert "new type 'Exell_Gren'; did you mean 'Exell_Green'?" in second


def test_what_a_person_decided_is_not_overwritten_by_new_suggestions():
    decided = Corrections([Correction("A/1.jpg", "relabel", "B")])
    both = decided.with_new([Correction("A/1.jpg", "keep", "C"), Correction("A/2.jpg", "keep")])
    assert [(e.file, e.action) for e in both] == [("A/1.jpg", "relabel"), ("A/2.jpg", "keep")]


def test_shipped_list_names_the_known_errors_of_batsort_and_no_other_ending():
    shipped = Corrections.load("batsort")
    assert {e.label for e in shipped if e.action == "relabel"} == {"Energizer_Alk", "Other"}
    assert all(e.reason for e in shipped)
    assert shipped.of(Path("data/Exell_Green/29.jpg")) is not None
    assert shipped.of(Path("data/Exell_Green/29.png")) is None
    assert shipped.of(Path("data/Klarus/29.jpg")) is None


def test_shipped_list_fits_the_photographs_that_are_here():
    here = next((folder for folder in SHARED if folder.is_dir()), None)
    if here is None:
        pytest.skip("needs the BatSort photographs")
    pictures = [photograph(file_key(file)) for file in here.glob("*/*")]
    warnings = Corrections.load("batsort").audit(pictures)
    missing = [warning.split(": ")[1] for warning in warnings]
    assert missing == ["Energizer_Li/15.jpg", "Energizer_Li/16.jpg", "Exell_Green/31.jpg"]


def test_chemistry_counts_brands_of_one_chemistry_as_right_and_leaves_out_what_was_turned_away():
    chemistry = read_chemistry()
    truth = ["GP_Alk", "GP_Alk", "Klarus", "Klarus", "Exell_Yellow", "Other", "others"]
    predicted = ["IKEA_Alk", "GP_Alk", "Exell_Green", "others", "Exell_Yellow", "Exell_Green", "others"]
    errors = chemistry_errors(truth, predicted, chemistry)
    assert (errors.batteries, errors.turned_away, errors.right, errors.li_ion_as_nimh) == (5, 1, 3, 1)
    assert errors.accuracy == 0.75
    assert errors.confusion["alkaline"] == {"alkaline": 2}
    assert errors.unknown_taken_for == {"nimh": 1}
    assert errors.as_dict()["errors"] == 1


def test_nothing_sorted_has_no_accuracy():
    assert math.isnan(chemistry_errors(["Klarus"], ["others"], {"Klarus": "li_ion"}).accuracy)


def test_types_without_chemistry_and_unknown_chemistries_are_named(tmp_path):
    with pytest.raises(ConfigurationError, match="Acme: no chemistry"):
        chemistry_errors(["Acme"], ["Klarus"], read_chemistry())
    path = tmp_path / "chemistry.yaml"
    path.write_text("Klarus: li_ion\nAcme: lion\n")
    with pytest.raises(ConfigurationError, match=r"line 2: Acme: 'lion' is no chemistry"):
        read_chemistry(path)

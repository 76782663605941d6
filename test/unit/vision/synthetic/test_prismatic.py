"""The renderer of prismatic cells: what it draws depends on what it is told, and defects show as graded."""

from __future__ import annotations

import csv
from dataclasses import replace

import cv2
import numpy as np
import pytest

from battery_sorting.core.types import View
from battery_sorting.vision.synthetic.prismatic import (
    KINDS,
    CellLook,
    PrismaticRenderer,
    displacement,
    main,
    sample_cell,
    sample_defect,
    sample_look,
)

DEFECTS = [(view, kind) for view in View for kind in KINDS[view][1:]]


def cell(number: int = 0, *defects) -> CellLook:
    return sample_cell(np.random.default_rng([11, number]), defects)


def changed(renderer: PrismaticRenderer, view: View, look: CellLook, defect) -> float:
    """Share of pixels that are visibly another with the defect than without."""
    bare, hit = (renderer.render(view, replace(look, defects=own)).astype(int) for own in ((), (defect,)))
    return float((np.abs(hit - bare).max(2) > 25).mean())


def test_frames_are_what_the_camera_makes_and_repeat_to_the_bit():
    look = cell()
    for view in View:
        first, second = (PrismaticRenderer(3).render(view, look) for _ in range(2))
        assert (first.shape, first.dtype) == ((1024, 1280, 3), np.uint8)
        assert np.array_equal(first, second)
        assert not np.array_equal(first, PrismaticRenderer(4).render(view, look)), "the noise has its own seed"


@pytest.mark.parametrize("view", list(View))
def test_codes_of_good_cells_can_be_read(view):
    renderer, reader = PrismaticRenderer(1), cv2.QRCodeDetector()
    looks = [sample_look(np.random.default_rng([5, number]), view, "good") for number in range(5)]
    read = [reader.detectAndDecode(renderer.render(view, look))[0] for look in looks]
    assert read == [look.serial for look in looks]


@pytest.mark.parametrize(("view", "kind"), DEFECTS)
def test_worse_defects_change_more_of_the_picture(view, kind):
    renderer = PrismaticRenderer(0, width=256)
    slight, bad = [], []
    for number in range(4):
        look, defect = cell(number), sample_defect(np.random.default_rng([number]), kind, 1.0)
        bad.append(changed(renderer, view, look, defect))
        slight.append(changed(renderer, view, look, replace(defect, severity=0.1)))
    assert min(bad) > 0
    assert np.mean(bad) > 2 * np.mean(slight)


def test_defect_shows_in_its_own_view_only():
    renderer = PrismaticRenderer(0, width=320)
    look = cell(2)
    stained = sample_defect(np.random.default_rng(1), "stained", 1.0)
    assert changed(renderer, View.CASE, look, stained) == 0
    leaking = sample_defect(np.random.default_rng(1), "leaking", 1.0)
    assert changed(renderer, View.LUG, look, leaking) == 0


def test_looks_are_drawn_alike_for_good_and_defective_cells():
    for view in View:
        drawn = {kind: sample_look(np.random.default_rng(9), view, kind) for kind in KINDS[view]}
        assert len({replace(look, defects=()) for look in drawn.values()}) == 1
        assert {kind: look.kind(view) for kind, look in drawn.items()} == {kind: kind for kind in KINDS[view]}


def test_bulge_is_as_high_as_its_severity_says():
    middle = np.array([(0.0, 13.5, 0.0)])
    heights = [
        displacement(cell(0, sample_defect(np.random.default_rng(1), "bulging", severity)), middle)[0, 1]
        for severity in (0.1, 0.5, 1.0)
    ]
    assert heights == sorted(heights)
    assert heights[0] > displacement(cell(0), middle)[0, 1] + 1
    assert 7 < heights[2] < 9


def test_code_is_hidden_in_an_upside_down_or_half_flipped_cell():
    renderer, reader = PrismaticRenderer(1), cv2.QRCodeDetector()
    assert reader.detectAndDecode(renderer.render(View.LUG, cell(), turn_deg=180))[0] == ""
    assert reader.detectAndDecode(renderer.render(View.CASE, cell(), turn_deg=0))[0] == ""


def test_empty_station_and_two_cells_can_be_drawn():
    renderer = PrismaticRenderer(1, width=320)
    alone = renderer.render(View.LUG, cell(0))
    both = renderer.render(View.LUG, cell(0), beside=cell(1))
    empty = renderer.render(View.LUG, None, scene=cell(0).scene)
    assert (np.abs(both.astype(int) - alone) > 30).any(2).mean() > 0.05
    assert (np.abs(alone.astype(int) - empty) > 30).any(2).mean() > 0.05


def test_wrong_words_are_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="stained, broken"):
        sample_look(np.random.default_rng(0), "lug", "bulging")
    with pytest.raises(ValueError, match="isn't within 0 and 1"):
        sample_look(np.random.default_rng(0), "case", "dented", 1.2)
    with pytest.raises(ValueError, match="width 3"):
        PrismaticRenderer(0, width=3)


def test_command_writes_a_folder_per_class_and_the_looks(tmp_path):
    assert main(["--out", str(tmp_path), "--view", "case", "--count", "10", "--seed", "2", "--size", "128"]) == 0
    with (tmp_path / "looks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(row["kind"] == "good" for row in rows) == 5
    assert {row["kind"] for row in rows} == set(KINDS[View.CASE])
    for row in rows:
        assert (tmp_path / row["file"]).parent.name == row["kind"]
        assert cv2.imread(str(tmp_path / row["file"])).shape[1] == 128
        assert (float(row["severity"]) > 0) == (row["kind"] != "good")


def test_command_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file" / "x"), "--view", "lug", "--count", "1"]) == 2
    assert "prismatic: " in capsys.readouterr().err


def test_cell_looks_the_same_at_any_resolution():
    """Details are drawn in mm: the picture of a small width is that of a large one, made smaller."""
    for view in View:
        look = replace(cell(4), defects=(sample_defect(np.random.default_rng(3), KINDS[view][1], 0.8),))
        large = cv2.resize(
            PrismaticRenderer(0, width=960).render(view, look), (120, 96), interpolation=cv2.INTER_AREA
        )
        small = cv2.resize(
            PrismaticRenderer(0, width=480).render(view, look), (120, 96), interpolation=cv2.INTER_AREA
        )
        off = np.abs(large.astype(int) - small).max(2) > 40
        assert off.mean() < 0.01, view

"""Drawn pictures of what belongs into no product bin."""

from __future__ import annotations

import numpy as np
import pytest

from battery_sorting.vision.pictures import picture_files, read_picture
from battery_sorting.vision.preprocessing import Preprocessing
from battery_sorting.vision.synthetic.strangers import StrangerRenderer, binned, main
from battery_sorting.vision.synthetic.wrappers import TYPES

KINDS = ("unknown_brand", "empty_belt", "hand", "packaging", "two_batteries")


@pytest.fixture(scope="module")
def renderer():
    return StrangerRenderer(5)


def test_each_kind_gets_a_folder_of_pictures_as_the_cell_keeps_them(tmp_path, capsys):
    main([str(tmp_path / "strangers"), "--count", "2", "--seed", "1"])
    assert "10 pictures" in capsys.readouterr().out
    assert sorted(folder.name for folder in (tmp_path / "strangers").iterdir()) == sorted(KINDS)
    for kind in KINDS:
        files = picture_files(tmp_path / "strangers" / kind)
        assert len(files) == 2
        assert read_picture(files[0]).shape == (512, 640, 3)


def test_folder_that_can_t_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "file")])
    assert "give another folder" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_same_number_shows_the_same_and_another_one_something_else(renderer, kind):
    shown, frame = renderer.render(kind, 3)
    again, same = StrangerRenderer(5).render(kind, 3)
    assert shown == again and np.array_equal(frame, same)
    assert np.abs(renderer.render(kind, 4)[1].astype(int) - frame).mean() > 2


def test_only_the_empty_belt_shows_nothing(renderer):
    for kind in KINDS:
        for number in range(3):
            cutout = Preprocessing().cut_out(binned(renderer.render(kind, number)[1]))
            assert (cutout.foreground == "none") == (kind == "empty_belt"), (kind, number)


def test_unknown_brands_are_none_of_the_types(renderer):
    shown = {renderer.render("unknown_brand", number)[0] for number in range(8)}
    assert len(shown) == 8
    assert shown.isdisjoint(TYPES)


def test_pixels_are_binned_as_the_colour_filter_has_them():
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 0], frame[0, 1], frame[1, 0], frame[1, 1] = (200, 1, 1), (1, 100, 1), (1, 60, 1), (1, 1, 30)
    assert binned(frame).tolist() == [[[200, 80, 30]]]

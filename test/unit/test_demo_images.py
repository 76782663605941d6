"""`battery-sorting demo --images`: what is wrong with the pictures is said before the cell starts."""

from __future__ import annotations

import pytest
from PIL import Image

from battery_sorting.cli import demo
from battery_sorting.cli.demo import Job, show_belt_line
from battery_sorting.core.errors import ConfigurationError


class CellWouldStartError(Exception):
    """The cell itself is started in test/system."""


def start(*_):
    raise CellWouldStartError


# issue 15, B9
def test_what_is_left_out_of_the_pictures_is_told_before_the_cell_starts(tmp_path, monkeypatch, capsys):
    for name in ("Red/1.png", "@eaDir/1.png", "__MACOSX/1.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    (tmp_path / "Red" / "1.cr2").write_bytes(b"raw")
    monkeypatch.setattr(demo, "sort_batteries", start)
    with pytest.raises(CellWouldStartError):
        show_belt_line(Job(5, 5.0, 0, tmp_path), None)
    told = capsys.readouterr().err
    assert "2 (@eaDir/, __MACOSX/)" in told
    assert "raw files of cameras: 1 (Red/1.cr2); convert them" in told


def test_a_folder_that_is_not_there_is_named_before_the_cell_starts(tmp_path):
    with pytest.raises(ConfigurationError, match=r"--images(.|\n)*nowhere: no such folder"):
        show_belt_line(Job(5, 5.0, 0, tmp_path / "nowhere"), None)

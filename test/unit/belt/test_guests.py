"""Which further lines a classifier serves, as their run files say."""
# issue 16, 6

from __future__ import annotations

import os
from pathlib import Path

import pytest

from battery_sorting.belt.guests import GuestFolders, GuestLine
from battery_sorting.belt.site import BeltSite
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.line.paths import RECIPE_FILE, SITE_FILE


def start(folder: Path, at_ns: int) -> None:
    folder.mkdir(exist_ok=True)
    for name in (SITE_FILE, RECIPE_FILE):
        (folder / name).write_text("")
        os.utime(folder / name, ns=(at_ns, at_ns))


def guest(folder: Path, written: tuple[int, ...] = (), **changes) -> GuestLine:
    site = BeltSite.load("sim").model_copy(update={"line": "second", "own_classifier": False} | changes)
    return GuestLine(folder, written, site, [])


def test_a_line_counts_once_when_all_its_files_are_there_and_again_when_it_starts_anew(tmp_path):
    folders = GuestFolders([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / SITE_FILE).write_text("")
    assert folders.started() == []
    start(tmp_path / "a", 5)
    assert folders.started() == [(tmp_path / "a", (5, 5))]
    assert folders.started() == []
    start(tmp_path / "a", 6)
    assert folders.started() == [(tmp_path / "a", (6, 6))]
    folders.look_again(tmp_path / "a")
    assert folders.started() == [(tmp_path / "a", (6, 6))]


def test_a_line_that_started_again_while_it_was_loaded_is_outdated(tmp_path):
    start(tmp_path / "a", 5)
    assert not guest(tmp_path / "a", (5, 5)).is_outdated
    start(tmp_path / "a", 6)
    assert guest(tmp_path / "a", (5, 5)).is_outdated


def test_a_site_file_that_is_just_being_written_is_told(tmp_path):
    (tmp_path / SITE_FILE).write_text("line: [")
    with pytest.raises(ConfigurationError, match=SITE_FILE):
        GuestLine.load(tmp_path, (1, 1))


def test_a_line_with_a_classifier_or_a_name_of_another_is_not_served(tmp_path):
    line = guest(tmp_path)
    namespace = line.namespace("/plant/first")
    assert namespace == "/plant/second" and line.why_not(namespace, {"/plant/first"}) == ""
    assert "give each a name of its own" in line.why_not(namespace, {namespace})
    assert "own_classifier: false" in guest(tmp_path, own_classifier=True).why_not(namespace, set())

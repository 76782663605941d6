"""Room on a disk: what is missing is told with the remedy, and the line looks where its ledger is."""
# issue 16, 4

from __future__ import annotations

from pathlib import Path

import pytest

from battery_sorting.core.disk import look_at_disk
from battery_sorting.line.paths import ledger_folder
from battery_sorting.lines import load_site


def test_enough_room_is_no_problem(tmp_path):
    seen = look_at_disk(tmp_path, 0.0)
    assert seen.free_mb > 0 and seen.problem == ""


def test_too_little_room_is_told_with_what_is_asked_for(tmp_path):
    seen = look_at_disk(tmp_path, 1e9)
    assert f"{tmp_path}: {seen.free_mb:.0f} MB free, alarms.disk_free_mb asks for 1000000000: make" in seen.problem


def test_folder_that_is_gone_is_told_with_the_remedy(tmp_path):
    seen = look_at_disk(tmp_path / "gone", 0.0)
    assert seen.free_mb == 0.0 and "No such file" in seen.problem and "put the folder or its disk" in seen.problem


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("ledger.sqlite", "/run"),
        ("books/ledger.sqlite", "/run/books"),
        ("/disk/ledger.sqlite", "/disk"),
        ("postgresql://line@host/db", "/run"),
    ],
)
def test_the_disk_that_counts_is_that_of_the_ledger(url, folder):
    site = load_site("sim", (f"ledger.url={url}",))
    assert ledger_folder(site, Path("/run")) == Path(folder)

"""Long work says how far it got, on a terminal and in a log file."""

from __future__ import annotations

import pytest

from battery_sorting.cli import _progress
from battery_sorting.cli._progress import progress


@pytest.fixture
def slow(monkeypatch):
    """A clock that goes on by nine seconds with every look."""
    times = iter(range(0, 10_000, 9))
    monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(times)))


def test_a_log_file_gets_a_line_now_and_then_and_one_at_the_end(slow, capfd):
    assert list(progress("epochs", range(7))) == list(range(7))
    out, error = capfd.readouterr()
    assert out == ""
    assert error.splitlines() == ["epochs 3/7, 27 s", "epochs 6/7, 54 s", "epochs 7/7, 63 s"]


def test_short_work_gets_one_line_and_none_where_there_was_none(capfd):
    assert list(progress("pictures", "abc")) == ["a", "b", "c"]
    assert list(progress("pictures", [])) == []
    assert capfd.readouterr().err == "pictures 3/3, 0 s\n"

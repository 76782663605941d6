"""Fixtures of all tests, and the check that a test leaves nothing behind."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import MARK, Cell, EvLine, Leaks, own_domain, why_no_ros

from battery_sorting.core.settings import find_shared

ALONE = {"node", "launch", "system"}
"""Folders of tests with nodes and cells that work in real time."""


def pytest_configure() -> None:
    # A script that runs the tests in the background has them ignore SIGINT, and a shell can't trap what it was
    # started to ignore. Handled here, it comes to the processes of a test in its normal way.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] in ALONE:
            item.add_marker(pytest.mark.realtime)
    needing = [item for item in items if item.get_closest_marker("ros") or item.get_closest_marker("system")]
    reason = why_no_ros() if needing else ""
    for item in needing:
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(autouse=True)
def leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Leaks]:
    """Fails the test that leaves a process, a thread, a port or shared memory of the middleware behind."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    leaks = Leaks(mark)
    yield leaks
    left = leaks.found()
    assert not left, "left behind:\n" + "\n".join(left)


@pytest.fixture
def domain() -> Iterator[int]:
    """A ROS domain of the test's own."""
    with own_domain() as number:
        yield number


@pytest.fixture
def make_cell(tmp_path: Path, domain: int, leaks: Leaks) -> Callable[..., Cell]:
    """Makes cells that run in the test's own domain and folder."""

    def make(
        items: int,
        rate_per_s: float = 4.0,
        overrides: tuple[str, ...] = (),
        seed: int = 1,
        without: tuple[str, ...] = (),
    ) -> Any:
        cell = Cell(tmp_path / "run", items, rate_per_s, overrides, seed, without)
        cell.before_stop = leaks.note_segments
        return cell

    os.environ["OMP_NUM_THREADS"] = "1"
    return make


@pytest.fixture
def make_ev_line(tmp_path: Path, domain: int, leaks: Leaks) -> Callable[..., EvLine]:
    """Makes EV lines that run in the test's own domain and folder; skips where their models are missing."""
    missing = [view for view in ("lug", "case") if find_shared(f"models/{view}/1/card.json") is None]
    if missing:
        pytest.skip(f"no model of the {' and the '.join(missing)} view in models/")

    def make(items: int, overrides: tuple[str, ...] = (), seed: int = 1) -> EvLine:
        line = EvLine(tmp_path / "run", items, overrides, seed)
        line.before_stop = leaks.note_segments
        return line

    os.environ["OMP_NUM_THREADS"] = "1"
    return make

"""A whole cell under ``use_sim_time``: with a replay's clock at any rate, and without one."""

# issue 15, D14

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from harness import Cell, process_environment

from battery_sorting.belt.report import load_run
from battery_sorting.core.errors import LedgerError
from battery_sorting.line.contract import NODES

pytestmark = pytest.mark.system

TOLD_S = 10.0
"""Within which a line must say that there is no clock; it takes 3 s, and machines that test are busy."""


class Replay:
    """Publishes ``/clock``; the test sets its rate and lets it leap."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def rate(self, rate: float) -> None:
        self._tell(f"rate {rate}")

    def leap(self, seconds: float) -> None:
        self._tell(f"leap {seconds}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


@contextmanager
def replay_beside(cell: Cell) -> Iterator[Replay]:
    command = [sys.executable, str(Path(__file__).parents[1] / "support" / "clock_process.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=process_environment(cell.plan)) as process:
        try:
            yield Replay(process)
        finally:
            cell.before_stop()
            process.kill()


def under_sim_time(cell: Cell) -> Cell:
    nodes = tuple(
        replace(spec, parameters={**spec.parameters, "use_sim_time": True}) if spec.is_node else spec
        for spec in cell.plan.nodes
    )
    before_stop = cell.before_stop
    cell._use(replace(cell.plan, nodes=nodes), cell.items)
    cell.before_stop = before_stop
    return cell


def sorted_so_far(cell: Cell) -> int:
    with cell.ledger() as ledger:
        return sum(battery.bin is not None for battery in load_run(ledger).batteries)


def alarms(cell: Cell) -> dict[str, str]:
    try:
        return cell.alarms
    except LedgerError:  # the line controller is just making it
        return {}


def wait_for_sorted(cell: Cell, more: int) -> None:
    goal = sorted_so_far(cell) + more
    cell.wait_for(lambda: sorted_so_far(cell) >= goal, f"{more} more batteries are sorted")


def test_cell_under_sim_time_without_a_clock_says_so_within_seconds(make_cell):
    """Before, it stood in Stopped for ever and said nothing."""
    with under_sim_time(make_cell(10)) as cell:
        cell.wait_for(lambda: any("no /clock has come" in line for line in cell.told), "it is told", TOLD_S)
        cell.wait_for(lambda: "clock" in alarms(cell), "it is an alarm on record")
        assert "Execute" not in cell.states
        with replay_beside(cell):
            cell.wait_for_state("Execute")
            wait_for_sorted(cell, 3)


def test_cell_sorts_by_a_clock_at_any_rate_and_holds_while_it_stands(make_cell):
    cell = under_sim_time(make_cell(1000))
    with cell, replay_beside(cell) as replay:
        cell.wait_for_state("Execute")
        for rate in (0.1, 10.0, 1.0):
            replay.rate(rate)
            wait_for_sorted(cell, 10)
            replay.leap(-3600.0)  # a bag that is played in a loop
            wait_for_sorted(cell, 10)
            assert set(cell.states) & {"Held", "Aborted"} == set(), f"{rate}: {cell.alarms}"
        replay.rate(0.0)
        cell.wait_for_state("Held", TOLD_S)
        assert "/clock has stood still" in cell.alarms["clock"]
        # A node that dies is noticed all the same.
        cell.wait_for_node("ejector", cell.kill("ejector"))
        cell.wait_for(lambda: "node_ejector" in cell.alarms, "the node's death is told", TOLD_S)
        replay.rate(1.0)
        cell.wait_for_state("Execute")
        wait_for_sorted(cell, 5)


def test_pauses_of_the_replay_shorter_than_three_seconds_hold_nothing(make_cell):
    cell = under_sim_time(make_cell(1000))
    with cell, replay_beside(cell) as replay:
        cell.wait_for_state("Execute")
        for _ in range(3):
            replay.rate(0.0)
            end = time.monotonic() + 1.0
            cell.wait_for(lambda end=end: time.monotonic() > end, "a moment passes")
            replay.rate(1.0)
            wait_for_sorted(cell, 2)
        assert "Held" not in cell.states, cell.alarms
        assert set(cell.supervisor.pids()) == {*NODES, "plant"}

"""A whole cell sorts: judged by the plant's own record."""

from __future__ import annotations

import pytest
from harness import check_account

from battery_sorting.line.contract import NODES

pytestmark = pytest.mark.system

PATIENT = ("timeouts.heartbeat_s=10", "timeouts.belt_state_s=5", "timeouts.frame_s=2")
"""So that a machine which is busy otherwise is not taken for a fault of the cell."""


def test_undisturbed_cell_sorts_everything_where_the_ledger_says(make_cell):
    with make_cell(items=40, overrides=PATIENT) as cell:
        figures, record, batteries = cell.finish()
    check_account(record, batteries)
    assert figures.items == figures.accounted == 40
    assert figures.named_but_misplaced == 0
    assert figures.disagreements == [] and figures.lost == []
    assert (figures.missed, figures.late, figures.double_ejected) == (0, 0, 0)
    assert figures.correct_bin >= 30
    assert 0 < figures.decision_latency_ms["p50"] <= figures.decision_latency_ms["p99"]
    assert figures.position_error_mm["p99"] < 12
    assert cell.states[:3] == ["Resetting", "Idle", "Starting"] and "Aborting" not in cell.states


def test_each_node_may_be_killed_while_batteries_are_on_the_belt(make_cell):
    with make_cell(items=64) as cell:
        for name in NODES:
            cell.wait_for_state("Execute")
            cell.wait_for_triggers(5)
            pulses = len(cell.pulses())
            pid = cell.kill(name)
            cell.wait_for_node(name, other_than=pid)
            cell.wait_for_state("Execute")
            cell.wait_for(lambda before=pulses: len(cell.pulses()) > before, f"sorting goes on without old {name}")
        deaths = cell.supervisor.deaths()
        figures, record, batteries = cell.finish(90)
    assert {name: deaths[name] for name in NODES} == dict.fromkeys(NODES, 1)
    check_account(record, batteries)
    assert "stranger" not in cell.alarms, "until its lease ends one that was killed is listed beside its successor"
    assert figures.items == figures.accounted == 64
    assert figures.double_ejected == 0

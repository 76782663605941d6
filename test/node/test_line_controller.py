"""The line controller alone: commands are refused with a reason, a ledger of newer software ends the start."""

from __future__ import annotations

import sqlite3

import pytest
from battery_sorting.msg import LineState
from battery_sorting.srv import LineCommand
from harness import wait_for

from battery_sorting.core.ledger import EventKind, Ledger

pytestmark = pytest.mark.ros


def test_commands_that_do_not_fit_are_refused_with_a_reason(bench):
    peer = bench.set_up()
    states = peer.listen(LineState, "line_state")
    bench.start("line_controller")
    wait_for(lambda: states, "state of the line")
    assert (states[-1].state, states[-1].state_name) == (LineState.STOPPED, "Stopped")
    refused = peer.call(LineCommand, "line_controller/command", command=LineCommand.Request.UNHOLD)
    assert not refused.accepted and refused.state == LineState.STOPPED
    assert "'unhold' is not allowed while the line is Stopped; allowed are: reset, abort" in refused.message
    nonsense = peer.call(LineCommand, "line_controller/command", command=200)
    assert not nonsense.accepted and "200" in nonsense.message
    taken = peer.call(LineCommand, "line_controller/command", command=LineCommand.Request.ABORT, reason="trial")
    assert taken.accepted
    wait_for(lambda: states[-1].state == LineState.ABORTED, "line is aborted")
    assert any("node_camera: node camera is silent" in alarm for alarm in states[-1].alarms)
    with Ledger.open(bench.plan.run_dir / "ledger.sqlite", read_only=True) as ledger:
        commands = [event.payload for event in ledger.events(kinds=[EventKind.COMMAND])]
    assert commands == [{"command": "abort", "reason": "trial"}]


def test_ledger_of_newer_software_ends_the_start_and_is_left_alone(bench):
    bench.set_up()
    file = bench.plan.run_dir / "ledger.sqlite"
    Ledger.open(file).close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    node = bench.start("line_controller")
    assert node.wait() == 2
    assert f"{file}: has schema 9999, newer than" in node.output
    assert "update battery_sorting, or name another ledger" in node.output
    assert "Traceback" not in node.output

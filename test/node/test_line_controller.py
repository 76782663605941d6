"""The line controller alone: commands are refused with a reason, a ledger of newer software ends the start."""

from __future__ import annotations

import signal
import sqlite3

import pytest
from battery_sorting.msg import LineState
from battery_sorting.srv import LineCommand
from diagnostic_msgs.msg import DiagnosticArray
from harness import wait_for

from battery_sorting.ledger import EventKind
from battery_sorting.ledger.store import Ledger

pytestmark = pytest.mark.ros


def test_commands_that_do_not_fit_are_refused_with_a_reason(bench):
    peer = bench.set_up()
    states = peer.listen(LineState, "line_state")
    bench.start("line_controller")
    wait_for(lambda: states, "state of the line")
    assert (states[-1].state, states[-1].state_name) == (LineState.STOPPED, "Stopped")
    refused = peer.call(LineCommand, "line_controller/command", command=LineCommand.Request.UNHOLD, by="anna")
    assert not refused.accepted and refused.state == LineState.STOPPED
    assert "'unhold' is not allowed while the line is Stopped; allowed are: reset, abort" in refused.message
    nonsense = peer.call(LineCommand, "line_controller/command", command=200, by="anna")
    assert not nonsense.accepted and "200" in nonsense.message
    for name, what in (("", "nobody is named"), ("system: line", "is the line itself"), ("x" * 501, "at most 500")):
        unnamed = peer.call(LineCommand, "line_controller/command", command=LineCommand.Request.ABORT, by=name)
        assert not unnamed.accepted and what in unnamed.message
    order = {"command": LineCommand.Request.ABORT, "by": "anna", "reason": "trial"}
    taken = peer.call(LineCommand, "line_controller/command", **order)
    assert taken.accepted
    wait_for(lambda: states[-1].state == LineState.ABORTED, "line is aborted")
    assert any("node_camera: node camera is silent" in alarm for alarm in states[-1].alarms)
    with Ledger.open(bench.plan.run_dir / "ledger.sqlite", read_only=True) as ledger:
        commands = [event.payload for event in ledger.events(kinds=[EventKind.COMMAND])]
    refused_payload, taken_payload = commands
    assert refused_payload.pop("message").startswith("'unhold' is not allowed")
    assert refused_payload == {"command": "unhold", "by": "anna", "reason": "", "accepted": False}
    assert taken_payload == {"command": "abort", "by": "anna", "reason": "trial", "accepted": True}


# issue 16, 4
def test_disk_of_the_ledger_with_too_little_room_is_a_fault_of_the_line_before_it_is_full(bench):
    peer = bench.set_up("alarms.disk_free_mb=1000000000")
    states = peer.listen(LineState, "line_state")
    bench.start("line_controller")
    told = wait_for(
        lambda: [alarm for state in states[-1:] for alarm in state.alarms if alarm.startswith("disk: ")],
        "the line tells it",
    )
    assert str(bench.plan.run_dir) in told[0] and "MB free, alarms.disk_free_mb asks for" in told[0]


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


def test_counters_and_contents_survive_a_restart_and_a_person_tells_which_bin_is_empty(bench):
    # issue 14, point 10
    peer = bench.set_up("bins[8].capacity=3")
    file = bench.plan.run_dir / "ledger.sqlite"
    with Ledger.open(file) as ledger:
        ledger.begin_shift("belt", "sim", 1.0)
        with ledger.transaction() as tx:
            for number, bin_ in enumerate(("klarus", "klarus", "others"), start=1):
                tx.record("detected", f"0000000a-{number:06d}", 1.0, trigger_count=number, encoder_count=0)
                tx.record("disposed", f"0000000a-{number:06d}", 2.0, bin=bin_, reason="sorted")
    states = peer.listen(LineState, "line_state")
    diagnostics = peer.listen(DiagnosticArray, "/diagnostics")

    def held() -> dict[str, str]:
        told = [status for each in diagnostics for status in each.status if status.hardware_id == "line_controller"]
        return {value.key: value.value for value in told[-1].values} if told else {}

    node = bench.start("line_controller")
    wait_for(lambda: held().get("in klarus") == "2", "contents")
    state = states[-1]
    assert (state.detected, state.sorted, state.others, state.in_flight) == (3, 2, 1, 0)
    command = {"command": LineCommand.Request.EMPTIED, "by": "me", "reason": "lunch"}
    unknown = peer.call(LineCommand, "line_controller/command", bin="glass", **command)
    assert not unknown.accepted
    assert "there is no 'glass' to be emptied" in unknown.message and "klarus, others" in unknown.message
    assert peer.call(LineCommand, "line_controller/command", bin="klarus", **command).accepted
    wait_for(lambda: held().get("in klarus") == "0", "the bin is empty")

    node.signal(signal.SIGKILL)
    node.wait()
    diagnostics.clear()
    states.clear()
    bench.start("line_controller")
    wait_for(lambda: held().get("in others") == "1", "contents")
    assert held().get("in klarus", "0") == "0"
    assert (states[-1].detected, states[-1].sorted, states[-1].others) == (3, 2, 1)
    with Ledger.open(file, read_only=True) as ledger:
        commands = [event.payload for event in ledger.events(kinds=[EventKind.COMMAND])]
    refused, taken = commands
    assert (refused["bin"], refused["accepted"]) == ("glass", False)
    assert taken == {"command": "emptied", "bin": "klarus", "by": "me", "reason": "lunch", "accepted": True}

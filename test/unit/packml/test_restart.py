"""How a line controller goes on where the one before it has ended (issue 14, points 1, 5 and 6)."""

from __future__ import annotations

import pytest

from battery_sorting.core.types import LineStateId as S
from battery_sorting.ledger._reading import read_data
from battery_sorting.ledger.events import Commanded, EventKind, LineStateChanged
from battery_sorting.packml.restart import RestOrder, deactivated_nodes, restart, standing_order


def command(name, by="anna", reason="", **more):
    return Commanded(name, by=by, reason=reason, **{"accepted": True, **more})


def state(which, reason="", run_id="run", **more):
    return LineStateChanged(which, str(which), reason, run_id, **more)


def after(end, *commands, run_id="run", cut_off=True, wanted=False):
    return restart(end, commands, run_id, cut_off=cut_off, wanted=wanted)


@pytest.mark.parametrize("name", ["hold", "stop", "abort", "suspend", "complete"])
def test_an_order_to_rest_stands_until_a_command_that_moves_the_line(name):
    order = command(name, reason="hand in the machine")
    assert standing_order([order]) == RestOrder(name, "anna", "hand in the machine")
    for other in ("clear", "reset", "emptied"):
        assert standing_order([order, command(other)]) is not None
    for lifting in ("start", "unhold", "unsuspend"):
        assert standing_order([order, command(lifting)]) is None
        assert standing_order([order, command(lifting, accepted=False)]) is not None, "it was refused"
        assert standing_order([command(lifting), order]) is not None


def test_an_order_to_rest_counts_even_where_it_was_refused_and_what_the_line_does_itself_does_not():
    assert standing_order([command("stop", accepted=False)]) is not None
    assert standing_order([command("stop", by="system: line")]) is None
    assert standing_order([command("hold"), command("unhold", by="system: line")]) is not None


def test_ledgers_of_before_commands_had_a_name_are_read():
    order = read_data(EventKind.COMMAND, {"command": "hold", "reason": ""})
    assert standing_order([order]) == RestOrder("hold", "a person", "")


@pytest.mark.parametrize("end", [S.HOLDING, S.HELD])
@pytest.mark.parametrize("wanted", [False, True])
def test_a_persons_hold_outlives_a_crash_of_the_controller(end, wanted):
    again = after(state(end, "anna: hand"), command("start"), command("hold", reason="hand"), wanted=wanted)
    assert (again.state, again.auto_start, again.held_by_fault) == (S.HOLDING, False, False)
    assert again.reason == "hold by anna: hand"


@pytest.mark.parametrize("end", list(S))
@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("cut_off", [False, True])
@pytest.mark.parametrize("name", ["hold", "stop", "abort", "suspend", "complete"])
def test_nothing_starts_by_itself_where_a_persons_order_stands(end, wanted, cut_off, name):
    for run_id in ("run", "another", ""):
        again = after(state(end), command("start"), command(name), run_id=run_id, cut_off=cut_off, wanted=wanted)
        assert not again.auto_start and not again.held_by_fault
        assert again.state in {S.STOPPED, S.ABORTED, S.HOLDING, S.SUSPENDING}


@pytest.mark.parametrize("end", list(S))
@pytest.mark.parametrize("cut_off", [False, True])
def test_real_hardware_waits_for_a_person_after_a_new_start(end, cut_off):
    for run_id in ("another", ""):
        again = after(state(end), command("start"), run_id=run_id, cut_off=cut_off)
        assert not again.auto_start
        assert again.state in {S.STOPPED, S.ABORTED}


@pytest.mark.parametrize("end", [S.STARTING, S.EXECUTE, S.UNHOLDING, S.UNSUSPENDING])
def test_what_was_running_goes_on_after_a_crash_of_the_controller_alone(end):
    again = after(state(end), command("start"))
    assert (again.state, again.auto_start) == (S.STOPPED, True)


@pytest.mark.parametrize("end", [S.ABORTING, S.ABORTED, S.CLEARING])
@pytest.mark.parametrize("wanted", [False, True])
def test_an_abort_outlives_every_crash(end, wanted):
    for run_id in ("run", "another"):
        again = after(state(end, "emergency stop"), command("start"), run_id=run_id, wanted=wanted)
        assert (again.state, again.auto_start, again.reason) == (S.ABORTED, False, "emergency stop")


def test_a_hold_by_a_fault_ends_with_the_fault_and_one_that_a_person_must_see_to_waits():
    gone = after(state(S.HELD, "node camera is silent", by_fault=True), command("start"))
    assert (gone.state, gone.held_by_fault) == (S.HOLDING, True)
    latched = {"missed_in_a_row": "check the air"}
    stays = after(state(S.HELD, "check the air", by_fault=True, latched=latched), command("start"))
    assert (stays.state, dict(stays.latched_faults)) == (S.HOLDING, latched)


def test_a_line_that_waits_for_a_full_bin_still_does():
    assert after(state(S.SUSPENDED, "full: klarus"), command("start")).state is S.SUSPENDING


@pytest.mark.parametrize("end", [S.STOPPED, S.RESETTING, S.IDLE])
def test_a_line_that_was_coming_up_by_itself_comes_up(end):
    for wanted in (False, True):
        assert after(state(end, auto_start=True), wanted=wanted).auto_start
        assert not after(state(end, auto_start=False), wanted=wanted).auto_start, "e.g. cleared after an abort"


def test_a_simulated_line_starts_by_itself_where_nobody_minds():
    assert after(None, cut_off=False, wanted=True).auto_start
    assert after(state(S.EXECUTE), command("start"), run_id="another", wanted=True).auto_start


def test_a_persons_word_on_a_node_stands_until_it_is_activated():
    camera = command("deactivate", node="camera")
    assert deactivated_nodes([camera, command("start")]) == {"camera"}
    assert deactivated_nodes([camera, command("activate", node="camera")]) == frozenset()
    for run_id in ("run", "another"):
        assert after(state(S.EXECUTE), camera, run_id=run_id).deactivated == {"camera"}

"""The inspection station on the simulated plant: its action, its topics and its service."""

from __future__ import annotations

import signal
import time

import pytest
from action_msgs.msg import GoalStatus
from battery_sorting.action import FlipCell, InspectCell
from battery_sorting.msg import CellAppearance, LineState, StationState
from harness import ROOT, database_away, wait_for
from sensor_msgs.msg import Image
from support.links import Links, Trouble
from test_sim_time import under_sim_time

from battery_sorting.ledger import EventKind
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.paths import ledger_location
from battery_sorting.packml.fleet import Lifecycle

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(not (ROOT / "models" / "lug").is_dir(), reason="the models of the station are not here"),
]

CELL_S = 60.0
Result = InspectCell.Result


@pytest.fixture
def station(bench):
    """The bench with a shift, and the station at work."""

    def set_up(*overrides: str, items: int = 4, sim_time: bool = False, lug_link: Links | None = None, **faults):
        if lug_link is not None:
            overrides += (f"cameras.lug.settings.port={lug_link.ports['lug']}",)
        peer = bench.set_up_ev(*overrides, items=items)
        if lug_link is not None:
            lug_link.start({"lug": bench.plan.site.plant["lug_camera_port"]})
        if sim_time:
            under_sim_time(bench)
        bench.plant.set_faults(**faults)
        with Ledger.open(ledger_location(bench.plan.site, bench.plan.run_dir)) as ledger:
            ledger.begin_shift(bench.plan.site.line, bench.plan.site.name, time.time())
        bench.states = peer.listen(StationState, "station_state", "STATE")
        bench.appearances = peer.listen(CellAppearance, "cell_appearance", "BATTERY_EVENT")
        bench.bring_up("inspection")
        wait_for(lambda: bench.states and bench.states[-1].connected, "the PLC has been heard")
        return peer

    return set_up


def inspect(peer, **goal):
    return wait_for(lambda: peer.act(InspectCell, "inspect_cell", CELL_S, **goal), "the goal is taken", CELL_S)


# issue 14, point 14
def test_camera_whose_clock_was_set_back_costs_one_picture_and_no_cell(bench, station):
    peer = station(items=2)
    bench.plant.set_faults(**{"lug.clock_ahead_s": 0.5})  # the first frame tells it
    assert inspect(peer).released
    bench.plant.set_faults(**{"lug.clock_ahead_s": 0.0})
    result = inspect(peer)
    assert result.released, result
    assert "lug" in {view.view for view in result.views}, result


# issue 14, point 14
@pytest.mark.parametrize("back_s", [0.17, 0.24])
def test_camera_whose_clock_was_set_back_so_little_that_its_frames_only_seem_slow_costs_one_picture(
    bench, station, back_s
):
    station(items=2, **{"lug.clock_ahead_s": back_s})
    bench.plant.set_faults(**{"lug.clock_ahead_s": 0.0})
    result = inspect(bench.peer)
    assert result.released and list(result.faults) == ["no_frame"], result
    assert "lug" in {view.view for view in result.views}, result
    assert list(inspect(bench.peer).faults) == []


# issue 14, point 18
def test_camera_whose_connection_died_without_a_word_is_connected_anew(bench, station):
    with Links(["lug"]) as links:
        peer = station(items=3, lug_link=links)
        assert list(inspect(peer).faults) == []
        links.set("lug", Trouble.HALF_OPEN)
        result = inspect(peer)
        assert (result.outlet, list(result.faults)) == ("quarantine", ["no_frame", "no_frame"]), result
        links.set("lug", Trouble.NONE)
        wait_for(lambda: bench.plant.state()["camera_clients"]["lug"] == 1, "the camera is connected")
        assert list(inspect(peer).faults) == []
        bench.running["inspection"].signal(signal.SIGINT)  # before its link is closed
        bench.running["inspection"].wait()


# issue 14, point 18
def test_camera_that_is_connected_and_silent_is_connected_anew(bench, station):
    peer = station(items=2, **{"lug.drop": 2})
    assert list(inspect(peer).faults) == ["no_frame", "no_frame"]
    log = bench.running["inspection"].log
    wait_for(lambda: "no frame came for 2 orders: connecting anew" in log.read_text(), "it says so")
    assert list(inspect(peer).faults) == []


# issue 14, point 14
def test_under_sim_time_and_without_a_clock_the_station_waits_for_its_devices_no_longer_than_else(bench, station):
    peer = station(items=1, sim_time=True)
    bench.plant.set_faults(**{"lug.drop": 1})
    result = inspect(peer)
    assert result.released and list(result.faults) == ["no_frame"], result


def test_a_cell_is_seen_from_both_sides_and_an_empty_loader_is_told(bench, station):
    peer = station(items=1)
    pictures = peer.listen(Image, "annotated_image", "PREVIEW")
    result = inspect(peer)
    assert result.released, result
    assert {view.view for view in result.views} <= {"lug", "case"}
    assert result.code == bench.plant.record()["cells"][0]["serial"], result
    assert bench.plant.record()["cells"][0]["outlet"] == result.outlet
    wait_for(lambda: any(seen.view == "fused" for seen in bench.appearances), "the fused verdict")
    assert bench.appearances[0].view == "lug"
    fused = next(seen for seen in bench.appearances if seen.view == "fused")
    assert (fused.battery_id, fused.outlet, fused.verdict) == (result.battery_id, result.outlet, "")
    wait_for(lambda: pictures, "an annotated picture")
    assert pictures[0].encoding == "bgr8"
    with Ledger.open(ledger_location(bench.plan.site, bench.plan.run_dir), read_only=True) as ledger:
        kinds = [event.kind for event in ledger.events(battery_id=result.battery_id)]
        assert (
            kinds.index(EventKind.DECIDED)
            < kinds.index(EventKind.RELEASE_ORDERED)
            < kinds.index(EventKind.RELEASED)
        )
        views = {view.view for view in result.views}  # no cell waits until its pictures are filed
        wait_for(lambda: {image.station for image in ledger.images(result.battery_id)} == views, "both pictures")

    result = inspect(peer)
    assert (result.success, result.error_code, result.battery_id) == (False, Result.EMPTY, "")


def test_a_cell_with_another_code_than_expected_is_quarantined(bench, station):
    peer = station()
    result = inspect(peer, code="LF000000000")
    assert (result.outlet, result.error_code) == ("quarantine", Result.IDENTITY)
    assert result.faults[0] == "identity_mismatch"


def test_one_cell_at_a_time_and_a_cancelled_one_goes_to_quarantine(bench, station):
    peer = station("plant.time_factor=1")
    goal = peer.begin(InspectCell, "inspect_cell")
    wait_for(lambda: bench.states[-1].battery_id, "a cell is in the station")
    # issue 15, E16: goals that are refused say why, and what was cancelled is no success
    busy = (GoalStatus.STATUS_ABORTED, Result.NOT_READY, "the station is not free")
    assert peer.refusal(InspectCell, "inspect_cell") == busy
    flips = (GoalStatus.STATUS_ABORTED, FlipCell.Result.BUSY, "a cell is being inspected: hold the line first")
    assert peer.refusal(FlipCell, "flip_cell") == flips
    peer.cancel(goal)
    result = peer.result(goal, "inspect_cell", CELL_S)
    assert (peer.status(goal), result.success) == (GoalStatus.STATUS_CANCELED, False)
    assert (result.outlet, result.error_code) == ("quarantine", Result.CANCELLED)
    wait_for(lambda: bench.states[-1].step == "idle", "the station is free")
    assert bench.plant.record()["cells"][0]["outlet"] == "quarantine"


def test_flipper_turns_by_hand_while_nothing_is_inspected(bench, station):
    peer = station()
    wait_for(lambda: bench.states[-1].flipper == "upright", "the flipper is at home")
    result = peer.act(FlipCell, "flip_cell")
    assert (result.success, result.position, result.error_msg) == (True, "inverted", "")
    bench.plant.set_faults(**{"flipper.jam": 1})
    result = peer.act(FlipCell, "flip_cell")
    assert (result.success, result.error_code) == (False, FlipCell.Result.FLIPPER)


def test_station_that_dies_with_a_cell_takes_it_up_again(bench, station):
    peer = station("plant.time_factor=1")
    peer.begin(InspectCell, "inspect_cell")
    wait_for(lambda: bench.states[-1].step in {"flip", "lug_verdict"}, "the cell is being inspected")
    battery_id = bench.states[-1].battery_id
    bench.running["inspection"].signal(9)
    bench.running["inspection"].wait()
    bench.peer = bench.join(bench.plan)  # one that never knew the dead node, so that it does not ask it
    bench.bring_up("inspection")
    wait_for(lambda: bench.plant.record()["cells"][0]["outlet"], "the cell leaves the station", CELL_S)
    assert bench.plant.record()["cells"][0]["outlet"] == "quarantine"
    with Ledger.open(ledger_location(bench.plan.site, bench.plan.run_dir), read_only=True) as ledger:
        wait_for(lambda: ledger.battery(battery_id).bin == "quarantine", "its record is closed")
        codes = {event.payload["code"] for event in ledger.events(kinds=[EventKind.STATION_FAULT])}
    # The PLC's watchdog may have tripped meanwhile, which costs another attempt to release.
    assert "interrupted" in codes and codes <= {"interrupted", "watchdog", "release_cancelled", "release_refused"}


def beats_go_by(bench, count: int = 8) -> None:
    begin = len(bench.heartbeats)
    wait_for(lambda: len(bench.heartbeats) >= begin + count, "heartbeats")


def test_a_cell_of_before_stays_in_the_station_until_a_person_starts_the_line(bench, station):
    peer = station("plant.time_factor=1")
    peer.begin(InspectCell, "inspect_cell")
    wait_for(lambda: bench.states[-1].step in {"flip", "lug_verdict"}, "the cell is being inspected")
    bench.running["inspection"].signal(9)
    bench.running["inspection"].wait()
    peer.repeat("line_state", LineState(), 0)
    bench.peer = bench.join(bench.plan)  # one that never knew the dead node, so that it does not ask it
    states = bench.peer.listen(StationState, "station_state", "STATE")
    bench.bring_up("inspection", LineState.HELD)
    for state in (LineState.HELD, LineState.STOPPED, LineState.IDLE):
        bench.peer.repeat("line_state", LineState(state=state), 0.1)
        beats_go_by(bench)
        status, code, text = bench.peer.refusal(InspectCell, "inspect_cell")
        assert (status, code) == (GoalStatus.STATUS_ABORTED, Result.NOT_READY), "no order is taken"
        assert text.startswith("the line is ") and text.endswith(": start it")
        assert (states[-1].step, states[-1].part_present) == ("idle", True), state
    assert bench.plant.record()["cells"][0]["outlet"] is None
    bench.peer.repeat("line_state", LineState(state=LineState.STARTING), 0.1)
    wait_for(lambda: bench.plant.record()["cells"][0]["outlet"] == "quarantine", "the cell is taken up", CELL_S)


def test_a_station_whose_node_is_deactivated_orders_nothing_and_goes_on_from_where_it_was(bench, station):
    peer = station("plant.time_factor=1")
    goal = peer.begin(InspectCell, "inspect_cell")
    wait_for(lambda: bench.states[-1].step in {"flip", "lug_verdict"}, "the cell is being inspected")
    told = peer.listen(InspectCell.Impl.FeedbackMessage, "inspect_cell/_action/feedback", "STREAM")
    assert bench.change("inspection", "deactivate")
    begin = len(bench.states)
    beats_go_by(bench, 2)
    seen, steps = len(bench.appearances), len(told)
    beats_go_by(bench, 13)
    assert (len(bench.appearances), len(told)) == (seen, steps), "nothing is published but the station's state"
    assert len({state.step for state in bench.states[begin + 1 :]}) == 1, "it goes on"
    assert bench.states[-1].part_present
    assert bench.change("inspection", "activate")
    bench.wait_for_heartbeat(lambda beat: beat.lifecycle_state == Lifecycle.ACTIVE and beat.ok, "node is active")
    result = peer.result(goal, "inspect_cell", CELL_S)
    assert result.released, result
    wait_for(lambda: any(view.view == "fused" for view in bench.appearances), "it is told what was seen")
    assert {view.view for view in result.views} == {view.view for view in bench.appearances} - {"fused"}


# ---- issue 14: a stuck station of a halted line, and a ledger that is away ----


def test_a_station_whose_flipper_jams_while_a_person_holds_the_line_stands_until_it_goes_on(bench, station):
    peer = station("plant.time_factor=1")
    bench.plant.set_faults(**{"flipper.jam": 1})
    goal = peer.begin(InspectCell, "inspect_cell")
    wait_for(lambda: bench.states[-1].step == "flip", "the flipper turns", CELL_S)
    peer.repeat("line_state", LineState(state=LineState.HOLDING), 0.05)
    wait_for(lambda: bench.states[-1].step == "stuck", "it jams")
    for state in (LineState.HOLDING, LineState.HELD, LineState.STOPPED, LineState.IDLE):
        peer.repeat("line_state", LineState(state=state), 0.05)
        beats_go_by(bench)
        assert (bench.states[-1].step, bench.states[-1].jam) == ("stuck", True), "it was sent home"
    peer.repeat("line_state", LineState(state=LineState.EXECUTE), 0.05)
    result = peer.result(goal, "inspect_cell", CELL_S)
    assert result.released and result.outlet == "quarantine" and {"flip_jam", "stuck"} <= set(result.faults)


@pytest.mark.parametrize("begun", [False, True], ids=["before the first cell", "between two cells"])
def test_a_station_that_can_not_read_the_ledger_says_so_and_goes_on_when_it_is_back(bench, station, begun):
    peer = station()
    if begun:
        assert inspect(peer).released
        with database_away(bench):
            _, code, text = peer.refusal(InspectCell, "inspect_cell")
            assert code == Result.NOT_READY and "no such table" in text
            bench.wait_for_heartbeat(lambda beat: not beat.ok and "no such table" in beat.detail, "the line hears")
    else:
        bench.peer.repeat("line_state", LineState(state=LineState.HELD), 0.05)
        assert bench.change("inspection", "deactivate")
        assert bench.change("inspection", "cleanup")
        assert bench.change("inspection", "configure")
        with database_away(bench):
            assert bench.change("inspection", "activate")
            bench.peer.repeat("line_state", LineState(state=LineState.EXECUTE), 0.05)
            bench.wait_for_heartbeat(lambda beat: not beat.ok and "no such table" in beat.detail, "the line hears")
    bench.wait_for_heartbeat(lambda beat: beat.ok, "the ledger is back")
    assert inspect(peer).released
    assert bench.running["inspection"].exit_code is None


# issue 14, point 6
@pytest.mark.parametrize("activated", [True, False], ids=["activated at once", "inactive"])
def test_a_flip_that_was_ordered_before_a_deactivation_is_not_carried_out_after_the_activation(
    bench, station, activated
):
    peer = station("station_plc.settings.timeout_s=3")
    wait_for(lambda: bench.states[-1].flipper == "upright", "the flipper is at home")
    bench.plant.set_faults(**{"plc.silent": True})
    beats_go_by(bench, 2)  # by then the station's thread waits for an answer, and sees nothing else
    goal = peer.begin(FlipCell, "flip_cell")
    assert peer.act(FlipCell, "flip_cell") is None, "since the first was taken"
    assert bench.change("inspection", "deactivate")
    if activated:
        assert bench.change("inspection", "activate")
    bench.plant.set_faults(**{"plc.silent": False})
    result = peer.result(goal, "flip_cell", CELL_S)
    assert (result.success, result.error_code) == (False, FlipCell.Result.OTHER), result
    assert "deactivated" in result.error_msg
    if not activated:
        assert bench.change("inspection", "activate")
    bench.wait_for_heartbeat(lambda beat: beat.lifecycle_state == Lifecycle.ACTIVE and beat.ok, "node is active")
    beats_go_by(bench)
    assert bench.states[-1].flipper == "upright"
    assert peer.act(FlipCell, "flip_cell").position == "inverted", "the next one is taken"


# issue 14, point 6
def test_a_cell_that_was_ordered_before_a_deactivation_is_not_loaded_after_the_activation(bench, station):
    peer = station("station_plc.settings.timeout_s=3")
    bench.plant.set_faults(**{"plc.silent": True})
    beats_go_by(bench, 2)
    goal = peer.begin(InspectCell, "inspect_cell")
    assert peer.act(InspectCell, "inspect_cell") is None, "since the first was taken"
    assert bench.change("inspection", "deactivate")
    assert bench.change("inspection", "activate")
    bench.plant.set_faults(**{"plc.silent": False})
    result = peer.result(goal, "inspect_cell", CELL_S)
    assert (result.error_code, result.battery_id) == (Result.NOT_READY, ""), result
    assert inspect(peer).released

"""The inspection station on the simulated plant: its action, its topics and its service."""

from __future__ import annotations

import time

import pytest
from battery_sorting.action import FlipBattery, InspectBattery
from battery_sorting.msg import CellAppearance, StationState
from harness import ROOT, wait_for
from sensor_msgs.msg import Image

from battery_sorting.core.ledger import EventKind, Ledger
from battery_sorting.core.paths import ledger_location

pytestmark = [
    pytest.mark.ros,
    pytest.mark.skipif(not (ROOT / "models" / "lug").is_dir(), reason="the models of the station are not here"),
]

CELL_S = 60.0
Result = InspectBattery.Result


@pytest.fixture
def station(bench):
    """The bench with a shift, and the station at work."""

    def set_up(*overrides: str, items: int = 4):
        peer = bench.set_up_ev(*overrides, items=items)
        with Ledger.open(ledger_location(bench.plan.site, bench.plan.run_dir)) as ledger:
            ledger.begin_shift(bench.plan.site.line, bench.plan.site.name, time.time())
        bench.states = peer.listen(StationState, "station_state", "STATE")
        bench.appearances = peer.listen(CellAppearance, "appearance", "BATTERY_EVENT")
        bench.bring_up("inspection")
        wait_for(lambda: bench.states and bench.states[-1].connected, "the PLC has been heard")
        return peer

    return set_up


def inspect(peer, **goal):
    return wait_for(
        lambda: peer.act(InspectBattery, "inspect_battery", CELL_S, **goal), "the goal is taken", CELL_S
    )


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
    assert (fused.battery_id, fused.verdict) == (result.battery_id, result.outlet)
    wait_for(lambda: pictures, "an annotated picture")
    assert pictures[0].encoding == "bgr8"
    with Ledger.open(ledger_location(bench.plan.site, bench.plan.run_dir), read_only=True) as ledger:
        kinds = [event.kind for event in ledger.events(battery_id=result.battery_id)]
        assert (
            kinds.index(EventKind.DECIDED)
            < kinds.index(EventKind.RELEASE_ORDERED)
            < kinds.index(EventKind.RELEASED)
        )
        assert {image.station for image in ledger.images(result.battery_id)} == {view.view for view in result.views}

    result = inspect(peer)
    assert (result.success, result.error_code, result.battery_id) == (False, Result.EMPTY, "")


def test_a_cell_with_another_code_than_expected_is_quarantined(bench, station):
    peer = station()
    result = inspect(peer, code="LF000000000")
    assert (result.outlet, result.error_code) == ("quarantine", Result.IDENTITY)
    assert result.faults[0] == "identity_mismatch"


def test_one_cell_at_a_time_and_a_cancelled_one_goes_to_quarantine(bench, station):
    peer = station("plant.time_factor=1")
    goal = peer.begin(InspectBattery, "inspect_battery")
    wait_for(lambda: bench.states[-1].battery_id, "a cell is in the station")
    assert peer.act(InspectBattery, "inspect_battery") is None, "the station is busy"
    assert peer.act(FlipBattery, "flip_battery") is None, "nobody flips a cell that is being inspected"
    peer.cancel(goal)
    result = peer.result(goal, "inspect_battery", CELL_S)
    assert (result.outlet, result.error_code) == ("quarantine", Result.CANCELLED)
    wait_for(lambda: bench.states[-1].step == "idle", "the station is free")
    assert bench.plant.record()["cells"][0]["outlet"] == "quarantine"


def test_flipper_turns_by_hand_while_nothing_is_inspected(bench, station):
    peer = station()
    wait_for(lambda: bench.states[-1].flipper == "upright", "the flipper is at home")
    result = peer.act(FlipBattery, "flip_battery")
    assert (result.success, result.position, result.error_msg) == (True, "inverted", "")
    bench.plant.set_faults(**{"flipper.jam": 1})
    result = peer.act(FlipBattery, "flip_battery")
    assert (result.success, result.error_code) == (False, FlipBattery.Result.FLIPPER)


def test_station_that_dies_with_a_cell_takes_it_up_again(bench, station):
    peer = station("plant.time_factor=1")
    peer.begin(InspectBattery, "inspect_battery")
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

"""The thread of the inspection station: what it begins, withdraws and brings to its end, without ROS."""
# issue 16, 6

from __future__ import annotations

import time

import numpy as np
import pytest
from support.station_host import NodeStandIn

from battery_sorting.core.errors import DeviceConnectionError, LedgerError
from battery_sorting.core.types import LineStateId, View
from battery_sorting.drivers.base import DriverSettings
from battery_sorting.drivers.camera.base import Frame
from battery_sorting.drivers.station_plc.base import (
    ActionResult,
    FlipperPosition,
    StationAction,
    StationCommand,
    StationPlc,
    StationStatus,
)
from battery_sorting.ev.faults import FlipError
from battery_sorting.ev.inspection import FlipEnded, Look, Step
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.site import EvSite
from battery_sorting.ev.stations.host import Workers
from battery_sorting.ev.stations.looking import StationInspector
from battery_sorting.ev.stations.station_ledger import StationLedger
from battery_sorting.ev.stations.station_loop import DEACTIVATED, StationLoop
from battery_sorting.vision.inspector import ViewVerdict

PATIENCE_S = 20.0


def until(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.005)


class ScriptedPlc(StationPlc):
    """A PLC that takes every order, and ends it when the test says so."""

    Settings = DriverSettings

    def __init__(self) -> None:
        super().__init__(DriverSettings())
        self.orders: list[StationCommand] = []
        self.emergency_stop = self.cut_off = False
        self.resets = self.reads = 0
        self._active = self._done = self._count = 0
        self._inverted = False

    def connect(self, timeout_s: float = 2.0) -> None:  # noqa: ARG002
        self._reach()

    def disconnect(self) -> None: ...

    @property
    def connected(self) -> bool:
        return not self.cut_off

    def describe(self) -> str:
        return "SIMULATED PLC"

    def _reach(self) -> None:
        if self.cut_off:
            raise DeviceConnectionError("the PLC is cut off")

    def read_status(self) -> StationStatus:
        self._reach()
        self.reads += 1
        return StationStatus(
            host_time=time.monotonic(),
            round_trip_s=0.0,
            boot_id=7,
            time_ms=0,
            emergency_stop=self.emergency_stop,
            watchdog_tripped=False,
            jam=False,
            part_present=False,
            flipper=FlipperPosition.INVERTED if self._inverted else FlipperPosition.UPRIGHT,
            loaded_total=0,
            active_token=self._active,
            done_token=self._done,
            done_result=ActionResult.DONE if self._done else ActionResult.NONE,
            done_count=self._count,
        )

    def send(self, command: StationCommand) -> None:
        self._reach()
        self.orders.append(command)
        self._active = command.token

    def end(self) -> None:
        """What runs has come to its end."""
        self._done, self._active, self._count = self._active, 0, self._count + 1
        self._inverted = not self._inverted

    def refresh_watchdog(self) -> None:
        self._reach()

    def reset_faults(self) -> None:
        self.resets += 1


class Station:
    """A station's loop with its ledger, on a scripted PLC."""

    def __init__(self, folder) -> None:
        self.host, self.plc = NodeStandIn(), ScriptedPlc()
        self.workers = Workers(self.host)
        site = EvSite.load("sim_ev")
        self.ledger = StationLedger(self.host, self.workers, site, folder)
        self.told: list = []
        recipe = EvRecipe.load("lfp_prismatic", ["times.flip_s=1"])
        self.loop = StationLoop(self.host, self.workers, site, recipe, self.plc, self.ledger, self.told.append)
        self.line = site.line

    def open(self) -> None:
        self.ledger.open()
        self.loop.open()
        self.workers.ending.clear()
        self.loop.start()
        self.looks()

    def close(self) -> None:
        self.workers.end(PATIENCE_S)
        self.loop.close()
        self.ledger.close()

    def looks(self) -> None:
        """Some looks at the PLC go by."""
        begin = self.plc.reads
        until(lambda: self.plc.reads > begin + 2, "the PLC is read")

    def rest(self) -> None:
        self.host.active = False
        self.loop.rest()

    def flips(self) -> list[FlipEnded]:
        return [action for action in self.told if isinstance(action, FlipEnded)]


@pytest.fixture
def station(tmp_path):
    station = Station(tmp_path)
    station.open()
    yield station
    station.close()


def test_a_flip_is_ordered_once_and_told_when_it_has_ended(station):
    station.loop.flip_by_hand()
    until(lambda: station.plc.orders, "the order")
    assert station.loop.step is Step.FLIP_BY_HAND and not station.loop.idle
    station.plc.end()
    until(station.flips, "its end")
    assert station.flips() == [FlipEnded(FlipError.NONE)]
    assert [order.action for order in station.plc.orders] == [StationAction.FLIP]
    assert station.loop.status.flipper is FlipperPosition.INVERTED


def test_a_flip_of_an_inactive_node_is_followed_to_its_end(station):
    station.loop.flip_by_hand()
    until(lambda: station.plc.orders, "the order")
    station.rest()
    station.plc.end()
    until(station.flips, "its end")
    assert station.flips() == [FlipEnded(FlipError.NONE)]


def test_a_flip_ends_by_its_time_out_though_the_plc_is_lost(station):
    station.loop.flip_by_hand()
    until(lambda: station.plc.orders, "the order")
    station.plc.cut_off = True
    until(station.flips, "its end")
    assert station.flips() == [FlipEnded(FlipError.FLIPPER, "the flipper has not answered")]
    assert "cut off" in station.loop.why_not_now()


def test_what_was_ordered_before_a_deactivation_is_withdrawn(station):
    station.host.active = False  # so that the thread waits with what it has taken
    refused: list[str] = []
    station.loop.inspect("", refused.append)
    station.loop.flip_by_hand()
    station.looks()
    assert not refused and not station.flips()
    station.loop.rest()
    until(lambda: refused and station.flips(), "both are withdrawn")
    assert (refused, station.flips()) == ([DEACTIVATED], [FlipEnded(FlipError.OTHER, DEACTIVATED)])
    station.host.active = True
    station.looks()
    assert station.plc.orders == [] and station.loop.idle


def test_what_was_ordered_and_had_not_begun_when_the_node_is_closed_is_answered(tmp_path):
    station = Station(tmp_path)
    station.open()
    station.host.active = False
    refused: list[str] = []
    station.loop.inspect("", refused.append)
    station.loop.flip_by_hand()
    station.close()
    assert (refused, station.flips()) == ([DEACTIVATED], [FlipEnded(FlipError.OTHER, DEACTIVATED)])


def test_a_flip_on_its_way_when_the_node_is_closed_is_answered_once(tmp_path):
    station = Station(tmp_path)
    station.open()
    station.loop.flip_by_hand()
    until(lambda: station.plc.orders, "the order")
    station.rest()
    for _ in range(2):  # the way out of a node may close it again
        station.close()
    assert station.flips() == [FlipEnded(FlipError.OTHER, DEACTIVATED)]
    assert station.loop.idle


def test_no_cell_is_loaded_without_a_shift_and_none_while_the_line_stands(station):
    refused: list[str] = []
    station.loop.inspect("", refused.append)
    until(lambda: refused, "an answer")
    station.host.line_is(LineStateId.HELD)
    station.loop.inspect("", refused.append)
    until(lambda: refused[1:], "an answer")
    assert refused == ["no shift is open: the line controller has not begun one", "the line was halted"]
    assert station.plc.orders == []


def test_a_cell_is_loaded_in_a_shift(station):
    station.ledger.ledger.begin_shift(station.line, "sim_ev", time.time())
    station.loop.inspect("", pytest.fail)
    until(lambda: station.plc.orders, "the order")
    assert [order.action for order in station.plc.orders] == [StationAction.LOAD]


def test_an_emergency_stop_is_reset_when_the_line_is_cleared_and_nothing_is_taken_until_it_starts(station):
    station.plc.emergency_stop = True
    station.looks()
    assert "emergency stop" in station.loop.why_not_now()
    assert station.plc.resets == 0
    station.host.line_is(LineStateId.CLEARING)
    until(lambda: station.plc.resets, "the reset")
    station.plc.emergency_stop = False
    station.looks()
    station.host.line_is(LineStateId.CLEARING)
    assert "emergency stop" in station.loop.why_not_now()
    station.loop.flip_by_hand()
    until(station.flips, "an answer")
    assert station.flips() == [FlipEnded(FlipError.OTHER, "emergency stop")] and station.plc.orders == []
    station.host.line_is(LineStateId.EXECUTE)
    assert station.loop.why_not_now() == ""


def test_a_ledger_that_can_not_be_read_is_told_and_asked_again(station, monkeypatch):
    monkeypatch.setattr("battery_sorting.ev.stations.station_ledger.READ_AGAIN_S", 0.0)
    join, away = station.ledger.ledger.join_shift, [True]

    def join_shift(line):
        if away:
            raise LedgerError("no such table")
        return join(line)

    monkeypatch.setattr(station.ledger.ledger, "join_shift", join_shift)
    refused: list[str] = []
    station.loop.inspect("", refused.append)
    until(lambda: refused, "an answer")
    assert refused == ["no such table"] and not station.host.ok
    away.clear()
    until(lambda: station.host.ok, "it is back")


# ---- the inspector's thread ----


class Seeing:
    """An inspector that finds every cell good."""

    name = "eye/1"

    def inspect(self, _):
        return ViewVerdict("lug", "good", face="lug")


def inspector(frames, judged, seen=lambda _: None):
    host = NodeStandIn()
    workers = Workers(host)
    station = StationInspector(
        host,
        workers,
        EvSite.load("sim_ev"),
        EvRecipe.load("lfp_prismatic", ["views.lug.region=[0, 0, 8, 8]"]),
        lambda view, number: frames.get((view, number)),
        judged,
        seen,
    )
    station._inspectors = {View.LUG: Seeing()}
    return station, workers


def frame(width: int = 16, height: int = 8) -> Frame:
    return Frame(3, None, 5.0, width, height, "mono8", width, np.zeros(width * height, np.uint8).tobytes())


def test_a_station_that_was_closed_before_it_had_started_looks_at_pictures_after_the_next_start():
    # A start that fails (no PLC) closes what there is. Before, the thread of the next start ended at once by that.
    judged, seen = [], []
    station, workers = inspector({(View.LUG, 3): frame()}, judged.append, seen.append)
    workers.end(0.0, station.wake)
    workers.ending.clear()
    station.start()
    station.look(Look(View.LUG, 3, "b-1"))
    until(lambda: seen, "a verdict")
    workers.end(PATIENCE_S, station.wake)
    assert [(result.verdict, result.model, result.stamp) for result in judged] == [("good", "eye/1", 5.0)]
    assert (seen[0].battery_id, seen[0].pixels.shape[:2]) == ("b-1", (8, 8))


def test_a_picture_that_the_region_does_not_fit_into_is_a_bad_one_and_is_not_shown():
    judged, seen = [], []
    station, _ = inspector({(View.LUG, 3): frame(height=4)}, judged.append, seen.append)
    station._look(Look(View.LUG, 3, "b-1"))
    assert [(result.verdict, result.number) for result in judged] == [("bad_image", 3)] and seen == []


def test_a_frame_that_is_no_longer_there_is_not_judged():
    judged: list = []
    station, _ = inspector({}, judged.append)
    station._look(Look(View.LUG, 3, "b-1"))
    assert judged == []

"""What is read from the PLC: belt states, detections and exits, also after restarts and cuts."""

from __future__ import annotations

import math

import pytest
from support.plc_in_process import EPOCH_S, PlcInProcess

from battery_sorting.belt.belt_tracker import ENCODER_PATIENCE_S, MOST_OF_A_POLL_S, BeltReading, BeltTracker
from battery_sorting.core.errors import DeviceConnectionError
from battery_sorting.core.types import Detection, ExitDetection, count_difference, make_battery_id
from battery_sorting.drivers.plc.base import EVENTS_KEPT

POLL_S = 0.02
WATCHDOG_S = 0.1  # as in the conveyor's node


class Conveyor:
    """A tracker that polls a PLC, and all that it found."""

    def __init__(self, **config) -> None:
        self.plc = PlcInProcess(**config)
        self.truth: dict[str, tuple[float, float]] = {}  # battery_id → host time, belt travel (mm)
        self.plc.world.edge_listeners.append(self._note)
        self.detections: list[Detection] = []
        self.exits: list[ExitDetection] = []
        self.renew()

    def _note(self, edge) -> None:
        if edge.eye.value == "camera":
            id_ = make_battery_id(self.plc.plc.boot_id, edge.number)
            self.truth[id_] = (self.plc.now - self.plc.world.t_s + edge.t_s, edge.belt_mm)

    def renew(self) -> None:
        """The process is started again."""
        self.tracker = BeltTracker(self.plc, 0.1, 250.0)

    def start(self, speed_mps: float = 0.8) -> None:
        self.plc.refresh_watchdog()
        self.plc.set_belt(True, speed_mps)

    def poll(self) -> BeltReading:
        self.plc.refresh_watchdog()
        reading = self.tracker.poll()
        self.detections += reading.detections
        self.exits += reading.exits
        return reading

    def run(self, seconds: float) -> BeltReading:
        for _ in range(round(seconds / POLL_S)):
            self.plc.wait(POLL_S)
            reading = self.poll()
        return reading

    def ids(self) -> list[str]:
        return [detection.battery_id for detection in self.detections]


@pytest.fixture
def conveyor() -> Conveyor:
    conveyor = Conveyor(seed=2, encoder_start=2**32 - 15_000)
    conveyor.start()
    return conveyor


def test_every_battery_is_detected_once_with_time_place_and_gaps(conveyor):
    conveyor.run(12.0)
    assert conveyor.ids() == list(conveyor.truth)
    assert len(conveyor.detections) > 60
    previous = None
    for detection in conveyor.detections:
        time_s, place_mm = conveyor.truth[detection.battery_id]
        assert detection.stamp == pytest.approx(time_s, abs=0.003)
        assert detection.gate_seen
        if previous is not None:
            assert detection.gap_ahead_mm == pytest.approx(place_mm - previous, abs=5.0)
        previous = place_mm


def test_gap_behind_is_known_before_the_follower_comes(conveyor):
    conveyor.run(6.0)
    places = [conveyor.truth[detection.battery_id][1] for detection in conveyor.detections]
    for index, detection in enumerate(conveyor.detections[:-1]):
        assert detection.gap_behind_mm == pytest.approx(places[index + 1] - places[index], abs=5.0)


def test_first_battery_has_no_gap_ahead(conveyor):
    conveyor.run(3.0)
    assert math.isnan(conveyor.detections[0].gap_ahead_mm)


def test_state_follows_the_belt(conveyor):
    state = conveyor.run(3.0).state
    assert state.connected and state.running and state.encoder_ok
    assert state.speed_mps == pytest.approx(0.8, abs=0.02)
    assert state.speed_setpoint_mps == 0.8
    conveyor.run(9.0)
    assert conveyor.tracker.slip.slip == pytest.approx(conveyor.plc.world.slip, abs=0.004)
    conveyor.plc.world.faults.estop = True
    assert conveyor.run(0.5).state.emergency_stop


def test_exits_come_in_their_order(conveyor):
    conveyor.run(12.0)
    assert [exit_.exit_count for exit_ in conveyor.exits] == list(range(1, len(conveyor.exits) + 1))
    assert len(conveyor.exits) > 40


def test_process_that_is_started_again_delivers_what_the_rings_hold(conveyor):
    conveyor.run(5.0)
    before = conveyor.ids()
    conveyor.plc.refresh_watchdog()
    conveyor.plc.wait(0.4)
    conveyor.renew()
    conveyor.poll()
    again = conveyor.ids()[len(before) :]
    assert len(again) == EVENTS_KEPT
    assert set(again) & set(before), "with the same ids"
    assert conveyor.ids()[: len(before)] + [id_ for id_ in again if id_ not in before] == list(conveyor.truth)


def test_restart_of_the_plc_gives_new_ids(conveyor):
    conveyor.run(5.0)
    number = len(conveyor.detections)
    conveyor.plc.reboot(0x6000_0009)
    conveyor.start()
    state = conveyor.run(5.0).state
    new = conveyor.detections[number:]
    assert new
    assert {detection.battery_id.partition("-")[0] for detection in new} == {"60000009"}
    assert [detection.trigger_count for detection in new] == list(range(1, len(new) + 1))
    assert state.boot_id == 0x6000_0009
    assert state.encoder_ok


@pytest.mark.parametrize("cut", ["read_status", "read_latches gate", "read_latches camera", "read_latches exit"])
def test_nothing_is_lost_or_doubled_when_the_connection_breaks_while_reading(conveyor, cut):
    conveyor.run(4.0)
    for _ in range(100):
        conveyor.plc.wait(POLL_S)
        conveyor.plc.fail = [cut]
        try:
            conveyor.poll()
        except DeviceConnectionError:
            conveyor.poll()
    conveyor.plc.fail = []
    conveyor.run(0.1)
    assert conveyor.ids() == list(conveyor.truth)
    assert [exit_.exit_count for exit_ in conveyor.exits] == list(range(1, len(conveyor.exits) + 1))
    assert all(detection.gate_seen for detection in conveyor.detections)


def test_edges_beyond_the_ring_are_lost_but_no_others():
    conveyor = Conveyor(seed=2, speed_mps=1.0)
    conveyor.plc.set_belt(True, 1.0)  # no watchdog yet: it is armed by its first refresh
    conveyor.plc.wait(2.0)
    conveyor.poll()
    conveyor.plc.refresh_watchdog()
    seen = len(conveyor.detections)
    for _ in range(10):
        conveyor.plc.refresh_watchdog()
        conveyor.plc.wait(0.45)
    conveyor.poll()
    assert len(conveyor.detections) - seen == EVENTS_KEPT
    assert conveyor.ids()[seen:] == list(conveyor.truth)[-EVENTS_KEPT:]


def test_false_edge_is_not_confirmed_by_the_gate(conveyor):
    conveyor.run(5.0)
    conveyor.plc.world.faults.eye_ghost = 3
    conveyor.run(3.0)
    false = {id_ for id_, item in conveyor.plc.items.items() if item is None}
    assert len(false) == 3
    assert {detection.battery_id for detection in conveyor.detections if not detection.gate_seen} == false


def test_battery_that_the_photo_eye_missed_still_shows_in_the_gap_of_the_next():
    conveyor = Conveyor(seed=2, pitch_jitter=0.0)
    conveyor.start()
    conveyor.run(5.0)
    conveyor.plc.world.faults.eye_miss = 1
    conveyor.run(2.0)
    assert max(detection.gap_ahead_mm for detection in conveyor.detections[1:]) < 110.0


def test_encoder_that_does_not_count_is_noticed_once_and_until_reset(conveyor):
    conveyor.run(3.0)
    conveyor.plc.world.faults.encoder_freeze = True
    assert conveyor.run(ENCODER_PATIENCE_S - 0.1).state.encoder_ok
    state = conveyor.run(0.3).state
    assert not state.encoder_ok
    assert "does not count" in state.error
    conveyor.plc.world.faults.encoder_freeze = False
    assert not conveyor.run(0.5).state.encoder_ok, "until somebody has seen to it"
    conveyor.tracker.reset()
    assert conveyor.run(1.0).state.encoder_ok


def test_encoder_that_is_still_frozen_after_the_reset_is_noticed_again(conveyor):
    conveyor.run(3.0)
    conveyor.plc.world.faults.encoder_freeze = True
    conveyor.run(1.0)
    conveyor.plc.set_belt(False, 0.8)
    conveyor.tracker.reset()
    assert conveyor.run(1.0).state.encoder_ok, "the belt stands"
    conveyor.start()
    assert not conveyor.run(0.5).state.encoder_ok


def test_belt_that_stands_is_no_frozen_encoder(conveyor):
    conveyor.run(2.0)
    conveyor.plc.set_belt(False, 0.8)
    assert conveyor.run(2.0).state.encoder_ok
    conveyor.start()
    assert conveyor.run(1.0).state.encoder_ok


def test_belt_started_in_a_pause_of_our_polls_is_no_frozen_encoder(conveyor):
    conveyor.run(1.0)
    conveyor.plc.set_belt(False, 0.8)
    assert conveyor.run(2.0).state.speed_mps == 0.0
    conveyor.plc.wait(3 * ENCODER_PATIENCE_S)
    conveyor.start()
    reading = conveyor.poll()
    assert reading.state.running and reading.state.encoder_ok, "it has run for no time at all"
    assert conveyor.run(1.0).state.encoder_ok


def test_one_answer_that_comes_late_is_no_frozen_encoder(conveyor, monkeypatch):
    """The PLC's program and its answers stand still together: the first answer is of before."""
    conveyor.run(1.0)
    stood_s = 3 * ENCODER_PATIENCE_S
    with monkeypatch.context() as patched:
        patched.setattr(PlcInProcess, "now", property(lambda plc: EPOCH_S + plc.world.t_s + stood_s))
        assert conveyor.poll().state.encoder_ok
        assert conveyor.run(1.0).state.encoder_ok
        conveyor.plc.world.faults.encoder_freeze = True
        assert not conveyor.run(0.5).state.encoder_ok


def test_encoder_lost_on_a_slow_link_is_noticed_all_the_same(conveyor):
    conveyor.run(1.0)
    conveyor.plc.world.faults.encoder_freeze = True
    for _ in range(1 + round(ENCODER_PATIENCE_S / MOST_OF_A_POLL_S) + 1):
        conveyor.poll()
        conveyor.plc.wait(0.15)
    assert not conveyor.poll().state.encoder_ok


def test_exit_and_eye_count_the_same_travel(conveyor):
    conveyor.run(10.0)
    for exit_ in conveyor.exits:
        travels = [count_difference(exit_.encoder_count, d.encoder_count) * 0.1 for d in conveyor.detections]
        assert min(abs(travel - 2100.0) for travel in travels) < 60.0


# issue 14, point 12
@pytest.mark.parametrize("answer_s", [0.02, 0.12, 0.19])
def test_a_plc_whose_answers_are_slow_does_not_miss_its_host(answer_s):
    """One poll may take four requests: with one sign of life per poll the watchdog tripped at 0.12 s each."""

    class SlowPlc(PlcInProcess):
        def read_status(self):
            self.wait(answer_s)
            return super().read_status()

        def read_latches(self, *ring):
            self.wait(answer_s)
            return super().read_latches(*ring)

        def refresh_watchdog(self):
            self.wait(answer_s)
            super().refresh_watchdog()

    plc = SlowPlc()
    refreshed_at = plc.now

    def refresh_when_due() -> None:
        nonlocal refreshed_at
        if plc.now - refreshed_at >= WATCHDOG_S:
            plc.refresh_watchdog()
            refreshed_at = plc.now

    tracker = BeltTracker(plc, 0.1, 250.0, sign_of_life=refresh_when_due)
    plc.refresh_watchdog()
    plc.set_belt(True, 0.8)
    readings = [tracker.poll() for _ in range(200)]
    assert sum(len(reading.detections) for reading in readings) > 50
    assert not any(reading.state.watchdog_tripped for reading in readings)
    assert plc.read_status().watchdog_trips == 0

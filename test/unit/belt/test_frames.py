"""Which frame shows which battery, with clocks that are set, counters that begin anew, and what gets lost."""

from __future__ import annotations

import pytest
from support.matcher_model import Result, Setting, run

from battery_sorting.belt.frames import LATE, SLOW, CapturedFrame, Expected, FrameMatcher

LATENCY_S = 0.02


class Belt:
    """Batteries that come every ``pitch_s``; whoever calls `battery` says what is wrong with it."""

    def __init__(self, pitch_s: float = 0.2) -> None:
        self.matcher = FrameMatcher()
        self.matcher.compared(0.0)
        self.pitch_s, self.now, self.edges, self.triggers = pitch_s, 10.0, 0, 100
        self.series, self.clock_s = "a", 0.0
        self.right: list[int] = []
        self.wrong: list[tuple[str, object]] = []
        self.number = 0

    def battery(
        self,
        *,
        frame: bool = True,
        plc: bool = True,
        camera: bool = True,
        late_s: float = 0.0,
        frame_first: bool = False,
    ) -> bool:
        """Lets one battery pass; returns whether it has its picture when the next one comes."""
        self.number += 1
        name = str(self.number)
        self.edges += plc
        self.triggers += camera
        arrived_at = self.now + LATENCY_S + late_s
        battery = Expected(name, self.now, self.edges, self.series)
        shot = CapturedFrame(self.now + self.clock_s, arrived_at, self.triggers, name)
        pairs = []
        calls = [lambda: self.matcher.expect(battery)] * plc
        calls += [lambda: self.matcher.offer(shot)] * (camera and frame)
        for call in reversed(calls) if frame_first else calls:
            pairs += call()
        for pair in pairs:
            if pair.battery.battery_id == pair.shot.frame:
                self.right.append(int(pair.battery.battery_id))
            else:
                self.wrong.append((pair.battery.battery_id, pair.shot.frame))
        self.now += self.pitch_s
        self.matcher.expire(self.now)
        return self.number in self.right

    def run(self, number: int = 20) -> None:
        for _ in range(number):
            assert self.battery()

    def compare(self) -> None:
        self.clock_s = 0.0
        self.matcher.compared(self.now)


@pytest.fixture
def belt() -> Belt:
    return Belt()


@pytest.mark.parametrize("frame_first", [False, True])
def test_frame_and_battery_meet_in_either_order(belt, frame_first):
    for _ in range(5):
        assert belt.battery(frame_first=frame_first)


def test_frame_belongs_to_one_battery_only(belt):
    belt.run(3)
    belt.triggers -= 1
    belt.matcher.offer(CapturedFrame(belt.now - 0.2, belt.now - 0.19, belt.triggers, "again"))
    assert not belt.wrong


# issue 14, point 7
@pytest.mark.parametrize("step_s", [-37.0, -0.4, -0.2, -0.1, -0.03, 0.03, 0.1, 0.2, 0.4, 37.0])
def test_step_of_the_cameras_clock_names_no_battery_wrongly_and_asks_for_a_comparison(belt, step_s):
    belt.run()
    belt.clock_s = step_s
    for _ in range(2):
        assert not belt.battery()
    assert belt.matcher.is_doubtful(belt.now)
    belt.compare()
    belt.run()
    assert not belt.wrong
    assert not belt.matcher.is_doubtful(belt.now)


# issue 14, point 7: an even feed, a step of just the pitch, and a camera that doesn't count its triggers
@pytest.mark.parametrize("steps", [-2, -1, 1, 2])
def test_step_by_the_pitch_is_noticed_though_every_frame_meets_an_edge(belt, steps):
    belt.run()
    belt.battery(camera=False)  # the edge before has no frame, so the clock would find it free
    belt.clock_s = steps * belt.pitch_s
    for _ in range(10):
        belt.battery()
    assert not belt.wrong
    assert belt.matcher.is_doubtful(belt.now)


@pytest.mark.parametrize("fault", ["frame", "plc", "camera"])
def test_after_a_lost_frame_or_edge_the_pairs_go_on_and_none_is_lost(belt, fault):
    belt.run()
    belt.battery(**{fault: False})
    for _ in range(10):
        belt.battery()
    assert not belt.wrong
    lost = set(range(1, belt.number + 1)) - set(belt.right)
    assert lost == {21}
    assert not belt.matcher.is_doubtful(belt.now)


def test_one_frame_that_speaks_for_other_counts_is_not_believed(belt):
    belt.run()
    belt.triggers += 1
    assert not belt.battery()
    belt.triggers -= 1
    assert belt.battery()


# issue 14, point 7
@pytest.mark.parametrize("compared", [False, True])
def test_counters_that_begin_anew_are_learnt_again(belt, compared):
    belt.run()
    belt.triggers = 0
    if compared:
        belt.compare()
    for _ in range(10):
        belt.battery()
    belt.edges, belt.series = 0, "b"  # the PLC restarts
    for _ in range(10):
        belt.battery()
    assert not belt.wrong
    assert belt.right == sorted(belt.right) and len(set(belt.right)) == 40


def test_counters_wrap():
    belt = Belt()
    belt.edges, belt.triggers = 2**32 - 5, 2**32 - 10
    for _ in range(20):
        belt.edges, belt.triggers = belt.edges % 2**32, belt.triggers % 2**32
        assert belt.battery()


# issue 14, point 7: 75 ppm over 5 minutes, 100 ppm over an hour
@pytest.mark.parametrize(("pause_s", "drift_s"), [(300.0, 0.0225), (300.0, -0.03), (3600.0, 0.36), (3600.0, -0.36)])
def test_clock_that_drifted_while_the_belt_stood_still_costs_no_picture(belt, pause_s, drift_s):
    belt.run()
    belt.now += pause_s
    belt.clock_s += drift_s
    belt.run()
    assert not belt.wrong


def test_drift_is_followed():
    belt = Belt(pitch_s=0.1)
    for _ in range(2000):
        belt.clock_s += 100e-6 * belt.pitch_s * 30
        assert belt.battery()
    assert belt.matcher.bias_s == pytest.approx(belt.clock_s, abs=0.01)


def test_frames_that_a_standstill_of_the_host_delayed_keep_their_batteries(belt):
    belt.run()
    held = []
    for number in range(2):  # both come when the host goes on
        belt.edges, belt.triggers = belt.edges + 1, belt.triggers + 1
        belt.matcher.expect(Expected(f"late {number}", belt.now, belt.edges, "a"))
        held.append((belt.now, belt.triggers, f"late {number}"))
        belt.now += belt.pitch_s
    pairs = []
    for seen_at, count, name in held:
        pairs += belt.matcher.offer(CapturedFrame(seen_at, belt.now, count, name))
    belt.edges, belt.triggers = belt.edges + 1, belt.triggers + 1
    pairs += belt.matcher.expect(Expected("next", belt.now, belt.edges, "a"))
    pairs += belt.matcher.offer(CapturedFrame(belt.now, belt.now + LATENCY_S, belt.triggers, "next"))
    assert {(pair.battery.battery_id, pair.shot.frame) for pair in pairs} == {
        (name, name) for name in ("late 0", "late 1", "next")
    }


def test_camera_that_has_become_slow_is_believed_after_its_clock_was_compared(belt):
    belt.run()
    for _ in range(LATE):
        assert not belt.battery(late_s=0.18)
    assert belt.matcher.is_doubtful(belt.now + 0.2)
    belt.compare()
    for _ in range(5):
        assert belt.battery(late_s=0.18)


def test_camera_that_is_slower_than_the_batteries_is_believed_after_two_comparisons():
    belt = Belt(pitch_s=0.05)
    belt.battery(frame=False)
    comparisons = 0
    for _ in range(4 * SLOW):
        belt.battery(late_s=0.1)
        if belt.matcher.is_doubtful(belt.now):
            belt.compare()
            comparisons += 1
    assert not belt.wrong
    assert comparisons <= 2
    assert len(belt.right) > SLOW


def test_what_can_not_be_told_apart_is_not_matched():
    matcher = FrameMatcher()
    matcher.expect(Expected("a", 10.0, 1))
    matcher.expect(Expected("b", 10.015, 2))
    assert matcher.offer(CapturedFrame(10.008, 10.03, 1, "frame")) == []
    assert [battery.battery_id for battery in matcher.expire(10.6)] == ["a", "b"]


def test_battery_without_a_frame_expires_once():
    matcher = FrameMatcher(timeout_s=0.5)
    matcher.expect(Expected("a", 10.0, 1))
    matcher.expect(Expected("b", 10.3, 2))
    assert matcher.expire(10.4) == []
    assert [battery.battery_id for battery in matcher.expire(10.6)] == ["a"]
    assert matcher.expire(10.6) == []


def test_old_frame_is_not_given_to_a_battery():
    matcher = FrameMatcher(timeout_s=0.5)
    matcher.offer(CapturedFrame(10.0, 10.02, 1, "frame"))
    matcher.expire(10.6)
    assert matcher.expect(Expected("a", 10.0, 1)) == []


def test_frames_of_nobody_do_not_pile_up_and_are_no_fault_of_the_clock():
    matcher = FrameMatcher()
    for index in range(1000):
        matcher.offer(CapturedFrame(10.0 + index, 10.02 + index, index, bytes(10)))
        matcher.expire(10.0 + index)
        assert not matcher.is_doubtful(10.0 + index)
    assert len(matcher._frames) < 50


# ---- the model; bench/matcher.py has the long form ----

FAULTS = {
    "steps": 0.005,
    "lost_frames": 0.002,
    "plc_misses": 0.001,
    "camera_misses": 0.001,
    "camera_restarts": 0.0005,
    "cuts": 0.0005,
    "plc_restarts": 0.0005,
    "stalls": 0.002,
    "stops": 0.001,
}


def of_model(rate: float, counts: bool, **faults: float) -> Result:
    total = Result()
    for jitter in (0.0, 0.1, 0.5):
        for drift in (-100e-6, 75e-6):
            total += run(Setting(batteries=500, rate=rate, jitter=jitter, counts=counts, drift=drift, **faults))
    return total


# issue 14, point 7
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("rate", [2.0, 5.0, 10.0, 20.0])
def test_model_of_a_belt_without_faults_has_every_picture_at_its_battery(rate, counts):
    result = of_model(rate, counts, stops=0.005)
    assert (result.wrong, result.lost, result.right) == (0, 0, result.batteries)


# issue 14, point 7
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("rate", [2.0, 5.0, 10.0, 20.0])
def test_model_of_a_belt_whose_cameras_clock_is_set_has_its_pictures_back_in_2_s(rate, counts):
    result = of_model(rate, counts, steps=0.004)
    assert (result.wrong, result.lost) == (0, 0)
    assert result.faults["steps"] > 5
    assert max(result.back_after_s) < 2.0


# issue 14, point 7
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("rate", [2.0, 5.0, 10.0, 20.0])
def test_model_of_a_belt_with_all_faults_has_no_picture_at_another_battery(rate, counts):
    result = of_model(rate, counts, **FAULTS)
    assert result.wrong == 0
    assert result.right > 0.8 * result.batteries

"""When the camera over the belt is connected anew, and what is no detection of now."""
# issue 16, 6

from __future__ import annotations

import pytest

from battery_sorting.belt.camera_watch import (
    AHEAD_S,
    COMPARE_S,
    IN_VAIN,
    OUTDATED_S,
    UNSEEN,
    CameraWatch,
    Reconnection,
)
from battery_sorting.belt.frames import DOUBTS, CapturedFrame, Expected, FrameMatcher

TIMEOUT_S = 0.5


@pytest.fixture
def watch():
    watch = CameraWatch(FrameMatcher(timeout_s=TIMEOUT_S))
    watch.connected(0.0)
    return watch


def battery(number: int, at: float) -> Expected:
    return Expected(f"a-{number}", at, number, "a")


def shot(number: int, at: float, wrong_s: float = 0.0) -> CapturedFrame:
    return CapturedFrame(at + wrong_s, at + 0.02, number, f"frame {number}")


def disagree(watch: CameraWatch, first: int, at: float) -> None:
    """Frames that fit their batteries by the counts, and by no time."""
    for number in range(first, first + DOUBTS):
        watch.expect(battery(number, at), at)
        assert watch.offer(shot(number, at, wrong_s=5.0)) == []


def test_a_frame_goes_to_its_battery_and_all_is_counted(watch):
    assert watch.expect(battery(1, 1.0), 1.01) == []
    [pair] = watch.offer(shot(1, 1.0))
    watch.miss()
    assert (pair.battery.battery_id, pair.shot.frame) == ("a-1", "frame 1")
    assert watch.figures() == {"frames": 1, "bad_frames": 1, "clock_comparisons": 0}
    assert watch.reconnection(1.1) is None


@pytest.mark.parametrize("age_s", [TIMEOUT_S + 0.1, -AHEAD_S - 0.1])
def test_a_detection_of_another_time_is_none(watch, age_s):
    watch.expect(battery(1, 10.0 - age_s), 10.0)
    assert watch.offer(shot(1, 10.0 - age_s)) == [] and watch.expire(20.0) == []


def test_batteries_without_any_frame_mean_that_the_connection_is_dead(watch):
    for number in range(1, UNSEEN + 1):
        assert watch.reconnection(number) is None
        watch.expect(battery(number, number), number)
        assert [missing.battery_id for missing in watch.expire(number + 0.9)] == [f"a-{number}"]
    reconnection = watch.reconnection(UNSEEN + 1.0)
    assert reconnection is not None and "no frame of" in reconnection.why and not reconnection.fault
    assert watch.reconnection(UNSEEN + 1.0) is None, "it is asked for once"


def test_a_bad_frame_is_a_sign_of_life(watch):
    for number in range(1, UNSEEN + 3):
        watch.expect(battery(number, number), number)
        watch.miss()
        watch.expire(number + 0.9)
        assert watch.reconnection(number + 0.9) is None


def test_clocks_that_never_agree_become_a_fault_and_a_pair_ends_it(watch):
    watch.expect(battery(1, 1.0), 1.0)
    assert watch.offer(shot(1, 1.0)), "the counts are known from now on"
    faults = []
    for turn in range(1, IN_VAIN + 2):
        now = 2.0 * turn
        disagree(watch, 10 * turn, now)
        reconnection = watch.reconnection(now)
        assert reconnection is not None and "compared anew" in reconnection.why
        faults.append(bool(reconnection.fault))
        watch.connected(now)
        disagree(watch, 10 * turn + 5, now)
        assert watch.reconnection(now + COMPARE_S / 2) is None, "the clocks were just compared"
        watch.connected(now)
    assert faults == [False] * IN_VAIN + [True]
    assert watch.figures()["clock_comparisons"] == IN_VAIN + 1
    watch.expect(battery(90, 20.0), 20.0)
    assert watch.offer(shot(90, 20.0))
    disagree(watch, 91, 21.0)
    reconnection = watch.reconnection(21.0)
    assert reconnection is not None and not reconnection.fault


def test_in_a_long_pause_the_clocks_are_compared_now_and_then(watch):
    assert watch.reconnection(OUTDATED_S - 1) is None
    assert watch.reconnection(OUTDATED_S + 1) == Reconnection()
    watch.expect(battery(1, OUTDATED_S), OUTDATED_S)
    assert watch.reconnection(OUTDATED_S + 0.1) is None, "a battery is on its way"

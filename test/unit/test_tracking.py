"""Slip, gaps, clocks and frames: where batteries are and which picture shows which."""

from __future__ import annotations

import math
import random

import pytest

from battery_sorting.core.tracking import MAX_SLIP, ClockOffset, FrameMatcher, Gate, SlipEstimator
from battery_sorting.core.types import count_add

BASELINE_MM = 250.0
JITTER_MM = 0.5


def counts_for(slip: float, jitter_mm: float = 0.0) -> int:
    """Counts of 0.1 mm that a battery needs for the baseline on a belt with ``slip``."""
    return round((BASELINE_MM + jitter_mm) / (0.1 * (1 + slip)))


def feed(estimator: SlipEstimator, slip: float, number: int, noise: random.Random, start_s: float = 0.0) -> None:
    for index in range(number):
        estimator.update(counts_for(slip, noise.gauss(0, JITTER_MM)), start_s + 0.2 * index)


@pytest.mark.parametrize("slip", [-0.02, 0.0, 0.02])
@pytest.mark.parametrize("seed", range(5))
def test_slip_is_known_within_0_15_percent_after_ten_batteries(slip, seed):
    estimator = SlipEstimator(0.1, BASELINE_MM)
    feed(estimator, slip, 10, random.Random(seed))
    assert estimator.slip == pytest.approx(slip, abs=0.0015)
    assert estimator.mm_per_count == pytest.approx(0.1 * (1 + slip), rel=0.0015)


def test_slip_that_drifts_is_followed():
    noise = random.Random(3)
    estimator = SlipEstimator(0.1, BASELINE_MM)
    slips = [0.02 * math.sin(index * 0.2 / 30) for index in range(1500)]  # a period of 190 s
    errors = []
    for index, slip in enumerate(slips):
        feed(estimator, slip, 1, noise, 0.2 * index)
        errors.append(estimator.slip - slip)
    settled = errors[20:]
    assert max(map(abs, settled)) < 0.005
    assert math.sqrt(sum(error**2 for error in settled) / len(settled)) < 0.0015


def test_wrong_pairings_do_not_shake_the_slip():
    estimator = SlipEstimator(0.1, BASELINE_MM)
    feed(estimator, 0.01, 20, random.Random(1))
    before = estimator.slip
    estimator.update(counts_for(0.5), 4.1)
    estimator.update(counts_for(-0.5), 4.2)
    estimator.update(counts_for(0.01, 7.0), 4.3)  # a false edge 7 mm beside the battery
    assert estimator.slip == before


def test_a_step_of_the_slip_is_believed_after_a_while():
    noise = random.Random(1)
    estimator = SlipEstimator(0.1, BASELINE_MM)
    feed(estimator, -0.02, 20, noise)
    feed(estimator, 0.02, 10, noise, start_s=60.0)  # the belt stood for a minute
    assert estimator.slip == pytest.approx(0.02, abs=0.0015)


def test_slip_never_leaves_its_limits():
    noise = random.Random(5)
    estimator = SlipEstimator(0.1, BASELINE_MM)
    for index in range(300):
        estimator.update(noise.randint(1, 6000), 0.2 * index)
        assert abs(estimator.slip) <= MAX_SLIP


def gate_of(*places_mm: float, start: int = 0) -> Gate:
    gate = Gate(BASELINE_MM)
    for place in places_mm:
        gate.add(count_add(start, round(place * 10)))
    return gate


@pytest.mark.parametrize("start", [0, 2**32 - 2000])
def test_gate_pairs_the_edge_of_the_same_battery(start):
    gate = gate_of(0, 100, 200, start=start)
    assert gate.match(count_add(start, 3500), 0.1) == 2500
    assert gate.gap_behind_mm(count_add(start, 3500), 0.1) == pytest.approx(100)
    assert gate.gap_ahead_mm(count_add(start, 3500), 0.1) == pytest.approx(100)


def test_gate_at_full_slip_still_pairs():
    assert gate_of(0).match(counts_for(0.03), 0.1) == counts_for(0.03)
    assert gate_of(0).match(counts_for(-0.03), 0.1) == counts_for(-0.03)


def test_edge_that_the_gate_missed_is_not_paired():
    gate = gate_of(0, 200)
    eye_count = 3500  # the battery that passed the gate at 100 mm, unseen
    assert gate.match(eye_count, 0.1) is None
    assert math.isnan(gate.gap_behind_mm(eye_count, 0.1))
    assert math.isnan(gate.gap_ahead_mm(eye_count, 0.1))


def test_additional_edge_at_the_gate_is_a_gap_and_no_battery():
    gate = gate_of(0, 130, 200)
    assert gate.match(2500, 0.1) == 2500
    assert gate.match(4500, 0.1) == 2500
    assert gate.gap_behind_mm(2500, 0.1) == pytest.approx(130)
    assert gate.gap_ahead_mm(4500, 0.1) == pytest.approx(70)


def test_additional_edge_at_the_eye_is_not_paired():
    assert gate_of(0, 100).match(3000, 0.1) is None


def test_gap_without_neighbours_is_unknown():
    gate = gate_of(0)
    assert math.isnan(gate.gap_behind_mm(2500, 0.1))
    assert math.isnan(gate.gap_ahead_mm(2500, 0.1))
    assert Gate(BASELINE_MM).match(2500, 0.1) is None


HOST_S = 1_700_000_000.0


def test_clock_maps_device_time_to_host_time():
    clock = ClockOffset()
    clock.update(5000, HOST_S, 0.001)
    assert clock.to_host(5250) == pytest.approx(HOST_S + 0.25, abs=1e-6)
    assert clock.to_host(4000) == pytest.approx(HOST_S - 1.0, abs=1e-6)


def test_clock_that_was_never_read_says_so():
    with pytest.raises(ValueError, match="has not been read"):
        ClockOffset().to_host(1)


def test_clock_across_the_wrap_of_the_device():
    clock = ClockOffset()
    for index in range(20):
        clock.update((2**32 - 100 + 10 * index) % 2**32, HOST_S + 0.01 * index, 0.001)
    # An edge from before the wrap is read after it.
    assert clock.to_host(2**32 - 5) == pytest.approx(HOST_S + 0.095, abs=1e-3)
    assert clock.to_host(5) == pytest.approx(HOST_S + 0.105, abs=1e-3)


def test_clock_of_a_device_that_restarted():
    clock = ClockOffset()
    clock.update(900_000, HOST_S, 0.0001)
    clock.update(20, HOST_S + 3.0, 0.01)
    assert clock.to_host(120) == pytest.approx(HOST_S + 3.1, abs=1e-6)


def test_clock_trusts_the_shortest_round_trip():
    noise = random.Random(2)
    clock = ClockOffset(window_s=10.0)
    for index in range(2000):
        delay_s = 0.0005 + noise.expovariate(1 / 0.02)  # all of it on the way back
        sent_s = HOST_S + 0.01 * index
        clock.update(10 * index, sent_s + delay_s / 2, delay_s)
    assert clock.to_host(20_000) == pytest.approx(HOST_S + 20.0, abs=0.001)


def test_clock_follows_a_drift_and_forgets():
    clock = ClockOffset(window_s=10.0)
    for index in range(10_000):
        host_s = HOST_S + 0.01 * index
        clock.update(int((host_s - HOST_S) * 1000 * (1 + 50e-6)), host_s, 0.001)
    assert clock.to_host(100_005) == pytest.approx(HOST_S + 100.0, abs=0.002)
    assert len(clock._samples) <= 1001


@pytest.mark.parametrize("frame_first", [False, True])
def test_frame_and_battery_meet_in_either_order(frame_first):
    matcher = FrameMatcher()
    if frame_first:
        assert matcher.offer(10.003, "frame") is None
        assert matcher.expect("a", 10.0) == "frame"
    else:
        assert matcher.expect("a", 10.0) is None
        assert matcher.offer(10.003, "frame") == "a"
    assert list(matcher.expire(20.0)) == []


def test_frame_belongs_to_one_battery_only():
    matcher = FrameMatcher()
    matcher.expect("a", 10.0)
    assert matcher.offer(10.001, "first") == "a"
    assert matcher.offer(10.002, "second") is None
    assert list(matcher.expire(11.0)) == []


def test_frames_that_come_late_and_out_of_order_are_matched_by_their_time():
    matcher = FrameMatcher()
    for index in range(5):
        matcher.expect(f"b{index}", 10.0 + 0.05 * index)
    for index in (3, 0, 4, 2, 1):
        assert matcher.offer(10.002 + 0.05 * index, index) == f"b{index}"


def test_what_can_not_be_told_apart_is_not_matched():
    matcher = FrameMatcher(tolerance_s=0.02)
    matcher.expect("a", 10.0)
    matcher.expect("b", 10.015)
    assert matcher.offer(10.008, "frame") is None
    assert list(matcher.expire(10.6)) == ["a", "b"]


def test_frame_of_nobody_is_not_matched():
    matcher = FrameMatcher()
    matcher.expect("a", 10.0)
    assert matcher.offer(10.03, "frame") is None
    assert matcher.expect("b", 10.1) is None


def test_bias_of_the_clocks_is_learnt_and_followed():
    matcher = FrameMatcher(tolerance_s=0.02)
    for index in range(200):
        stamp = 10.0 + 0.1 * index
        bias_s = 0.005 + 0.0003 * index  # ends at 65 ms, far beyond the tolerance
        matcher.expect(f"b{index}", stamp)
        assert matcher.offer(stamp + bias_s, index) == f"b{index}"
    assert matcher.bias_s == pytest.approx(0.065, abs=0.01)


def test_battery_without_a_frame_expires_once():
    matcher = FrameMatcher(timeout_s=0.5)
    matcher.expect("a", 10.0)
    matcher.expect("b", 10.3)
    assert list(matcher.expire(10.4)) == []
    assert list(matcher.expire(10.6)) == ["a"]
    assert list(matcher.expire(10.6)) == []
    assert matcher.offer(10.301, "frame") == "b"


def test_old_frame_is_not_given_to_a_battery():
    matcher = FrameMatcher(timeout_s=0.5)
    matcher.offer(10.0, "frame")
    list(matcher.expire(10.6))
    assert matcher.expect("a", 10.0) is None


def test_camera_whose_clock_stands_still_names_one_battery_at_most():
    matcher = FrameMatcher()
    named = []
    for index in range(100):
        matcher.expect(f"b{index}", 10.0 + 0.1 * index)
        named.append(matcher.offer(10.0, index))
        list(matcher.expire(10.0 + 0.1 * index))
    assert [name for name in named if name] == ["b0"]


def test_frames_of_a_camera_ahead_of_time_do_not_pile_up():
    matcher = FrameMatcher()
    for index in range(1000):
        matcher.offer(1e6 + index, bytes(10))
        list(matcher.expire(10.0 + index))
    assert len(matcher._frames) < 50

"""Slip, gaps, clocks and frames: where batteries are and which picture shows which."""

from __future__ import annotations

import math
import random

import pytest

from battery_sorting.belt.tracking import MAX_SLIP, ClockOffset, Gate, SlipEstimator
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


def test_one_false_pair_after_a_long_hold_is_corrected_by_the_next_batteries():
    # issue 14, point 11: after an hour the filter believed whatever came first, and that with certainty
    noise = random.Random(2)
    estimator = SlipEstimator(0.1, BASELINE_MM)
    feed(estimator, 0.01, 20, noise)
    estimator.update(counts_for(0.01, 250.0 * 0.015), 3600.0)
    assert estimator.variance <= MAX_SLIP**2
    feed(estimator, 0.01, 20, noise, 3600.2)
    assert estimator.slip == pytest.approx(0.01, abs=0.003)


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


# issue 14, point 7: a PLC whose clock jumps by less than a second
@pytest.mark.parametrize("jump_ms", [-400, -30, 30, 400])
def test_clock_of_a_device_that_was_set_counts_from_the_next_sample(jump_ms):
    clock = ClockOffset()
    for index in range(100):
        clock.update(5000 + 10 * index, HOST_S + 0.01 * index, 0.0005)
    clock.update(6000 + jump_ms, HOST_S + 1.0, 0.002)
    assert clock.to_host(6000 + jump_ms) == pytest.approx(HOST_S + 1.0, abs=0.001)

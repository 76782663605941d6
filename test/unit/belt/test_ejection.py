"""When a valve must open."""

from __future__ import annotations

import pytest

from battery_sorting.belt.ejection import EXPIRY_MM, Shot, aim, time_left_s
from battery_sorting.belt.site import Ejector
from battery_sorting.core.types import count_add, count_difference

EJECTOR = Ejector(valve=0, offset_mm=600.0, bin="a", delay_ms=8.0, pulse_ms=30)


@pytest.mark.parametrize("eye_count", [0, 123_456, 2**32 - 1000])
@pytest.mark.parametrize("speed_mps", [0.1, 0.5, 1.2])
@pytest.mark.parametrize("mm_per_count", [0.098, 0.1, 0.5])
def test_middle_of_the_pulse_meets_the_battery(eye_count, speed_mps, mm_per_count):
    shot = aim(EJECTOR, eye_count, mm_per_count, speed_mps)
    at_the_switch_mm = count_difference(shot.fire_count, eye_count) * mm_per_count
    at_mid_pulse_mm = at_the_switch_mm + speed_mps * 1000 * (0.008 + 0.015)
    assert at_mid_pulse_mm == pytest.approx(600.0, abs=mm_per_count)


def test_shot_expires_a_few_millimetres_later():
    shot = aim(EJECTOR, 2**32 - 5500, 0.1, 0.5)
    assert count_difference(shot.expiry_count, shot.fire_count) * 0.1 == pytest.approx(EXPIRY_MM)
    assert shot.expiry_count < 2**31, "it lies behind the wrap"


def test_time_left_is_distance_by_speed():
    shot = Shot(count_add(2**32 - 100, 1000), 0)
    assert time_left_s(shot, 2**32 - 100, 0.1, 0.5) == pytest.approx(0.2)
    assert time_left_s(shot, 1000, 0.1, 0.5) == pytest.approx(-0.02)


def test_belt_that_stands_leaves_all_the_time_or_none():
    assert time_left_s(Shot(1000, 1080), 900, 0.1, 0.0) == float("inf")
    assert time_left_s(Shot(1000, 1080), 1000, 0.1, 0.0) < 0
    assert time_left_s(Shot(1000, 1080), 1001, 0.1, 0.0) < 0

"""Messages and the types of the core say the same."""

from __future__ import annotations

import math

import pytest

from battery_sorting import msg
from battery_sorting.core import types
from battery_sorting.ros import convert

THINGS = [
    (
        types.BeltState(1.5, True, True, False, True, False, 7, 2**32 - 1, 0.5, 0.6, 0.101, 0.01, "why"),
        "belt_state",
    ),
    (types.Detection("a-1", 1, 2**32 - 1, 1.5, 100.0, 90.0, False), "detection"),
    (types.ExitDetection(3, 17, 1.5), "exit"),
    (
        types.TypeResult("a-1", 1.5, "Klarus", 0.9, True, "", {"Klarus": 0.9, "others": 0.1}, "m/1", 0.02, 1.5, 2),
        "type",
    ),
    (types.ModelChange(1.5, "m/2", "m/1", "/models/m/2", "0" * 64, True), "model_change"),
    (types.Alarm(1.5, "drift_others", "more than usual", True), "alarm"),
    (types.EjectOrder("a-1", 1, "klarus", 17, 0.101, 1.5), "order"),
    (types.EjectReport("a-1", 1, types.EjectOutcome.LATE, "klarus", 17, 1.5, "why", 0.2), "report"),
]
BACK = {"exit": convert.exit_detection, "type": convert.type_result}


@pytest.mark.parametrize(("thing", "name"), THINGS, ids=[name for _, name in THINGS])
def test_there_and_back_nothing_is_changed(thing, name):
    message = getattr(convert, f"{name}_message")(thing)
    assert BACK.get(name, getattr(convert, name, None))(message) == thing


def test_a_disposition_says_where_and_why():
    placement = types.Placement("a-1", "others", types.Reason.LATE, 1.5, "Klarus", 0.9)
    message = convert.disposition_message(placement)
    assert (message.battery_id, message.bin, message.reason, message.label) == ("a-1", "others", "late", "Klarus")
    assert convert.from_time(message.header.stamp) == 1.5


def test_rubbish_from_others_does_no_harm():
    verdict = convert.type_result(msg.BatteryType(labels=["a", "b"], scores=[0.5]))
    assert verdict.scores == {"a": 0.5}
    assert convert.report(msg.EjectResult(outcome=99)).outcome is types.EjectOutcome.UNKNOWN


def test_times_before_1970_and_without_a_value_are_nought():
    assert convert.from_time(convert.to_time(-5.0)) == 0.0
    assert math.isclose(convert.from_time(convert.to_time(1.8e9 + 0.123456789)), 1.8e9 + 0.123456789, abs_tol=1e-6)

"""Messages and the types of the core say the same."""

from __future__ import annotations

import math
import re

import pytest

from battery_sorting import msg
from battery_sorting.core import types
from battery_sorting.core.errors import MessageError
from battery_sorting.line.controller import NodeSpoke
from battery_sorting.ros import convert

THINGS = [
    (
        types.BeltState(1.5, True, True, False, True, False, 7, 2**32 - 1, 0.5, 0.6, 0.101, 0.01, "why", 4, 9),
        "belt_state",
    ),
    (types.Detection("a-1", 1, 2**32 - 1, 1.5, 100.0, 90.0, False), "detection"),
    (types.ExitDetection(3, 17, 1.5, 7, 5), "exit"),
    (
        types.TypeResult("a-1", 1.5, "Klarus", 0.9, True, "", {"Klarus": 0.9, "others": 0.1}, "m/1", 0.02, 1.5, 2),
        "type",
    ),
    (types.ModelChange(1.5, "m/2", "m/1", "/models/m/2", "0" * 64, True), "model_change"),
    (types.Alarm(1.5, "drift_others", "more than usual", True), "alarm"),
    (types.EjectOrder("a-1", 1, "klarus", 17, 0.101, 1.5), "order"),
    (types.EjectReport("a-1", 1, types.EjectOutcome.LATE, "klarus", 17, 1.5, "why", 0.2, 9), "report"),
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


def test_an_outcome_of_later_software_is_unknown():
    assert convert.report(msg.EjectResult(outcome=99)).outcome is types.EjectOutcome.UNKNOWN


VERDICT = {"battery_id": "a-1", "label": "a", "labels": ["a", "b"], "scores": [0.5, 0.5], "confidence": 0.5}


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (msg.BatteryType(labels=["a", "b"], scores=[0.5]), "2 labels and 1 scores"),
        (msg.BatteryType(**VERDICT | {"confidence": math.nan}), "confidence: nan"),
        (msg.BatteryType(**VERDICT | {"confidence": 1.5}), "confidence: 1.5"),
        (msg.BatteryType(**VERDICT | {"scores": [0.5, math.inf]}), "scores: inf"),
        (msg.BatteryType(**VERDICT | {"label": "c"}), "label: c is not one of the labels"),
        (msg.BatteryType(**VERDICT | {"battery_id": "a\0"}), "battery_id: holds characters"),
        (msg.BatteryType(**VERDICT | {"reason": "x" * 100_000}), "reason: 100000 characters"),
        (msg.BatteryType(accepted=True), "accepted, but without a label"),
        (msg.BatteryDetection(battery_id="x" * 65), "battery_id: 65 characters"),
        (msg.BeltState(speed_mps=math.nan), "speed_mps: nan"),
        (msg.BeltState(mm_per_count=-1.0), "mm_per_count: -1.0"),
        (msg.EjectCommand(bin="x\x1b[2J"), "bin: holds characters"),
        (msg.EjectResult(reason="y" * 2001), "reason: 2001 characters"),
    ],
)
def test_what_no_node_of_the_cell_can_have_sent_is_refused(message, why):  # issue 14, point 17
    to_core = {
        msg.BatteryType: convert.type_result,
        msg.BatteryDetection: convert.detection,
        msg.BeltState: convert.belt_state,
        msg.EjectCommand: convert.order,
        msg.EjectResult: convert.report,
    }[type(message)]
    with pytest.raises(MessageError, match=re.escape(why)):
        to_core(message)


def test_heartbeats_of_absurd_names_are_none_and_absurd_details_are_left_out():
    """What a node says of its emergency stop counts, whatever its device has answered."""
    plain = msg.Heartbeat(node="camera", detail="no answer:\n  - 1\n  - 2")
    assert convert.node_spoke(plain) == NodeSpoke("camera", 0, False, plain.detail)
    assert convert.node_spoke(msg.Heartbeat(node="came\x1bra")) is None
    for detail in ("x" * 100_000, "SAFETY\r"):
        odd = convert.node_spoke(msg.Heartbeat(node="robot", detail=detail, emergency_stop=True))
        assert odd.emergency_stop
        assert odd.detail.startswith("detail: ") and len(odd.detail) < 100


def test_times_before_1970_and_without_a_value_are_nought():
    assert convert.from_time(convert.to_time(-5.0)) == 0.0
    assert math.isclose(convert.from_time(convert.to_time(1.8e9 + 0.123456789)), 1.8e9 + 0.123456789, abs_tol=1e-6)

"""Conversion between messages and the types of `battery_sorting.core`.

Whoever is in the domain can send anything. What arrives is looked at here, where it becomes one of our own types:
what no node of the cell can have sent raises a `MessageError`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

from builtin_interfaces.msg import Time
from sensor_msgs.msg import BatteryState
from std_msgs.msg import Header

from battery_sorting import msg
from battery_sorting.core import types
from battery_sorting.core.errors import MessageError
from battery_sorting.ev.inspection import CellResult
from battery_sorting.ev.measurement import Measurement
from battery_sorting.ev.types import ViewResult

T = TypeVar("T")

MAX_TEXT = 64
"""Characters of a name or an id."""
MAX_REASON = 2000
"""Characters of what is written for people."""
MAX_MONOTONIC_S = 1e10
"""No host is up for longer (s)."""
MAX_LABELS = 1000
MAX_SPEED_MPS = 20.0
MAX_MM_PER_COUNT = 10.0


def to_time(stamp: float) -> Time:
    """Seconds since 1970 as a message; times before 1970 become 0."""
    nanoseconds = max(round(stamp * 1e9), 0)
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)


def from_time(time: Time) -> float:
    """Seconds since 1970."""
    return float(time.sec) + float(time.nanosec) * 1e-9


def header(stamp: float, frame_id: str = "belt") -> Header:
    """A header with the time ``stamp`` (s)."""
    return Header(stamp=to_time(stamp), frame_id=frame_id)


def _message(message_type: Any, thing: Any, **changed: Any) -> Any:
    """A message whose fields are called like those of the dataclass ``thing``; its stamp goes into the header."""
    values = {
        field.name: getattr(thing, field.name) for field in dataclasses.fields(thing) if field.name != "stamp"
    }
    return message_type(header=header(thing.stamp), **{**values, **changed})


def _thing(thing_type: Callable[..., T], message: Any, **changed: Any) -> T:
    """Inverse of `_message`."""
    names = [field.name for field in dataclasses.fields(thing_type)]  # type: ignore[arg-type]
    values = {name: getattr(message, name) for name in names if name != "stamp" and name not in changed}
    return thing_type(stamp=from_time(message.header.stamp), **values, **changed)


def check_text(name: str, text: str, limit: int = MAX_TEXT) -> None:
    """A text of a message: not too long, and all of it can be printed.

    Raises:
        MessageError: It is no such text.
    """
    if len(text) > limit:
        raise MessageError(f"{name}: {len(text)} characters, more than {limit}")
    if not text.isprintable() and not all(letter.isprintable() or letter in "\n\t" for letter in text):
        raise MessageError(f"{name}: holds characters that can't be printed")


def _check_number(name: str, value: float, low: float, high: float, may_be_nan: bool = False) -> None:
    if math.isnan(value) and may_be_nan:
        return
    if not low <= value <= high:  # what is not a number is in no range
        raise MessageError(f"{name}: {value} is not from {low:g} to {high:g}")


def belt_state_message(state: types.BeltState) -> msg.BeltState:
    """BeltState.msg of ``state``."""
    return _message(msg.BeltState, state)


def belt_state(message: msg.BeltState) -> types.BeltState:
    """Inverse of `belt_state_message`.

    Raises:
        MessageError: No node of the cell has sent that.
    """
    check_text("error", message.error, MAX_REASON)
    _check_number("speed_mps", message.speed_mps, -MAX_SPEED_MPS, MAX_SPEED_MPS)
    _check_number("speed_setpoint_mps", message.speed_setpoint_mps, -MAX_SPEED_MPS, MAX_SPEED_MPS)
    _check_number("mm_per_count", message.mm_per_count, 0.0, MAX_MM_PER_COUNT)
    _check_number("slip", message.slip, -1.0, 1.0)
    return _thing(types.BeltState, message)


def detection_message(detection: types.Detection) -> msg.BatteryDetection:
    """BatteryDetection.msg of ``detection``."""
    return _message(msg.BatteryDetection, detection)


def detection(message: msg.BatteryDetection) -> types.Detection:
    """Inverse of `detection_message`.

    Raises:
        MessageError: No node of the cell has sent that.
    """
    check_text("battery_id", message.battery_id)
    for name in ("gap_ahead_mm", "gap_behind_mm"):
        _check_number(name, getattr(message, name), -math.inf, math.inf, may_be_nan=True)
    _check_number("seen_at", message.seen_at, 0.0, MAX_MONOTONIC_S)
    return _thing(types.Detection, message)


def exit_message(detection: types.ExitDetection) -> msg.ExitDetection:
    """ExitDetection.msg of ``detection``."""
    return _message(msg.ExitDetection, detection)


def exit_detection(message: msg.ExitDetection) -> types.ExitDetection:
    """Inverse of `exit_message`."""
    return _thing(types.ExitDetection, message)


def type_message(result: types.TypeResult) -> msg.BatteryType:
    """BatteryType.msg of ``result``."""
    return _message(msg.BatteryType, result, labels=list(result.scores), scores=list(result.scores.values()))


def type_result(message: msg.BatteryType) -> types.TypeResult:
    """Inverse of `type_message`.

    Raises:
        MessageError: No node of the cell has sent that.
    """
    for name in ("battery_id", "label", "reason"):
        check_text(name, getattr(message, name))
    check_text("model", message.model, MAX_REASON)
    if len(message.labels) != len(message.scores) or len(message.labels) > MAX_LABELS:
        raise MessageError(f"{len(message.labels)} labels and {len(message.scores)} scores")
    for label, score in zip(message.labels, message.scores, strict=True):
        check_text("labels", label)
        _check_number("scores", score, 0.0, 1.0)
    if message.label and message.label not in message.labels:
        raise MessageError(f"label: {message.label} is not one of the labels")
    if message.accepted and not message.label:
        raise MessageError("accepted, but without a label")
    _check_number("confidence", message.confidence, 0.0, 1.0, may_be_nan=not message.label)
    for name in ("inference_s", "novelty"):
        _check_number(name, getattr(message, name), -math.inf, math.inf, may_be_nan=True)
    return _thing(types.TypeResult, message, scores=dict(zip(message.labels, message.scores, strict=True)))


def model_change_message(change: types.ModelChange) -> msg.ModelChange:
    """ModelChange.msg of ``change``."""
    return _message(msg.ModelChange, change)


def model_change(message: msg.ModelChange) -> types.ModelChange:
    """Inverse of `model_change_message`."""
    return _thing(types.ModelChange, message)


def alarm_message(alarm: types.Alarm) -> msg.Alarm:
    """Alarm.msg of ``alarm``."""
    return _message(msg.Alarm, alarm)


def alarm(message: msg.Alarm) -> types.Alarm:
    """Inverse of `alarm_message`."""
    return _thing(types.Alarm, message)


def order_message(order: types.EjectOrder) -> msg.EjectCommand:
    """EjectCommand.msg of ``order``."""
    return _message(msg.EjectCommand, order)


def order(message: msg.EjectCommand) -> types.EjectOrder:
    """Inverse of `order_message`.

    Raises:
        MessageError: No node of the cell has sent that.
    """
    check_text("battery_id", message.battery_id)
    check_text("bin", message.bin)
    _check_number("mm_per_count", message.mm_per_count, 1e-6, 1e3)
    return _thing(types.EjectOrder, message)


def report_message(report: types.EjectReport) -> msg.EjectResult:
    """EjectResult.msg of ``report``."""
    return _message(msg.EjectResult, report, outcome=int(report.outcome))


def report(message: msg.EjectResult) -> types.EjectReport:
    """Inverse of `report_message`. An outcome that this version does not know is UNKNOWN.

    Raises:
        MessageError: No node of the cell has sent that.
    """
    check_text("battery_id", message.battery_id)
    check_text("bin", message.bin)
    check_text("reason", message.reason, MAX_REASON)
    _check_number("latency_s", message.latency_s, -math.inf, math.inf, may_be_nan=True)
    known = message.outcome in set(types.EjectOutcome)
    outcome = types.EjectOutcome(message.outcome) if known else types.EjectOutcome.UNKNOWN
    return _thing(types.EjectReport, message, outcome=outcome)


def is_heartbeat(message: msg.Heartbeat) -> bool:
    """Whether a node of the cell can have sent that."""
    try:
        check_text("node", message.node)
    except MessageError:
        return False
    return True


def detail(message: msg.Heartbeat) -> str:
    """What is wrong with the node. Its state and its emergency stop count even where that can't be read."""
    try:
        check_text("detail", message.detail, MAX_REASON)
    except MessageError as error:
        return str(error)
    return str(message.detail)


def disposition_message(placement: types.Placement) -> msg.Disposition:
    """Disposition.msg of ``placement``."""
    return _message(msg.Disposition, placement, reason=str(placement.reason))


def appearance_message(battery_id: str, view: ViewResult) -> msg.CellAppearance:
    """CellAppearance.msg of one view."""
    return msg.CellAppearance(
        header=header(view.stamp, view.view.value),
        battery_id=battery_id,
        view=view.view.value,
        verdict=view.verdict,
        reason=view.reason,
        kind=view.kind,
        probability=view.probability,
        kinds=list(view.kinds),
        kind_probabilities=list(view.kinds.values()),
        novelty=view.novelty,
        code=view.code,
        face=view.face,
        model=view.model,
        inference_s=view.seconds,
    )


def fused_message(result: CellResult, stamp: float) -> msg.CellAppearance:
    """CellAppearance.msg of the verdict of both views."""
    worst = max((view.probability for view in result.views.values()), default=float("nan"))
    return msg.CellAppearance(
        header=header(stamp, "station"),
        battery_id=result.battery_id,
        view="fused",
        outlet=result.verdict.outlet,
        reason="" if result.verdict.reason == "good" else result.verdict.reason,
        probability=worst,
        novelty=float("nan"),
        code=result.code,
        inference_s=sum((view.seconds for view in result.views.values()), 0.0),
    )


def measurement_message(
    battery_id: str, measurement: Measurement, programme: str, stamp: float
) -> msg.CellMeasurement:
    """CellMeasurement.msg of what was measured of a cell."""
    values = {field.name: getattr(measurement, field.name) for field in dataclasses.fields(measurement)}
    dates = {name: value.isoformat() if value else "" for name, value in values.items() if name.endswith("_on")}
    return msg.CellMeasurement(
        header=header(stamp, "tester"),
        battery_id=battery_id,
        battery=_battery_state(measurement, stamp),
        programme=programme,
        **{**values, **dates},
    )


def _battery_state(measurement: Measurement, stamp: float) -> BatteryState:
    return BatteryState(
        header=header(stamp, "tester"),
        voltage=measurement.ocv_v,
        temperature=measurement.temperature_c,
        current=0.0,
        charge=measurement.soc * measurement.capacity_ah,
        capacity=measurement.capacity_ah,
        design_capacity=float("nan"),
        percentage=measurement.soc,
        power_supply_status=BatteryState.POWER_SUPPLY_STATUS_NOT_CHARGING,
        power_supply_technology=BatteryState.POWER_SUPPLY_TECHNOLOGY_UNKNOWN,
        present=True,
    )


def measurement_fields(message: msg.CellMeasurement) -> dict[str, Any]:
    """The plain fields of a measurement, as the ledger keeps them."""
    names = [
        name for name in message.get_fields_and_field_types() if name not in {"header", "battery_id", "battery"}
    ]
    return {name: getattr(message, name) for name in names}

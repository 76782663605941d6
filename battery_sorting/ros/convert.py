"""Conversion between messages and the types of `battery_sorting.core`."""

from __future__ import annotations

import array
import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from sensor_msgs.msg import BatteryState, Image
from std_msgs.msg import Header

from battery_sorting import msg
from battery_sorting.core import types
from battery_sorting.core.ev.inspection import CellResult
from battery_sorting.core.ev.measurement import Measurement
from battery_sorting.core.ev.types import ViewResult
from battery_sorting.drivers.camera.base import Frame

T = TypeVar("T")


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


def belt_state_message(state: types.BeltState) -> msg.BeltState:
    """BeltState.msg of ``state``."""
    return _message(msg.BeltState, state)


def belt_state(message: msg.BeltState) -> types.BeltState:
    """Inverse of `belt_state_message`."""
    return _thing(types.BeltState, message)


def detection_message(detection: types.Detection) -> msg.BatteryDetection:
    """BatteryDetection.msg of ``detection``."""
    return _message(msg.BatteryDetection, detection)


def detection(message: msg.BatteryDetection) -> types.Detection:
    """Inverse of `detection_message`."""
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
    """Inverse of `type_message`. Labels without a score, or scores without a label, are dropped."""
    return _thing(types.TypeResult, message, scores=dict(zip(message.labels, message.scores, strict=False)))


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
    """Inverse of `order_message`."""
    return _thing(types.EjectOrder, message)


def report_message(report: types.EjectReport) -> msg.EjectResult:
    """EjectResult.msg of ``report``."""
    return _message(msg.EjectResult, report, outcome=int(report.outcome))


def report(message: msg.EjectResult) -> types.EjectReport:
    """Inverse of `report_message`. An outcome that this version does not know is UNKNOWN."""
    known = message.outcome in set(types.EjectOutcome)
    outcome = types.EjectOutcome(message.outcome) if known else types.EjectOutcome.UNKNOWN
    return _thing(types.EjectReport, message, outcome=outcome)


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
        verdict=result.verdict.outlet,
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


def image_message(frame: Frame) -> Image:
    """sensor_msgs/Image of a camera frame."""
    return Image(
        header=header(frame.stamp, "camera"),
        height=frame.height,
        width=frame.width,
        encoding=frame.encoding,
        step=frame.step,
        # An array of bytes is taken as it is; anything else is checked and copied element by element.
        data=array.array("B", frame.data),
    )


def image_bytes(image: Image) -> npt.NDArray[np.uint8]:
    """The bytes of an image message, without a copy (1-D)."""
    return np.frombuffer(image.data, dtype=np.uint8)

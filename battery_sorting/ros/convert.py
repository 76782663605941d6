"""Conversion between messages and the types of `battery_sorting.core`."""

from __future__ import annotations

import array

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from battery_sorting import msg
from battery_sorting.core import types
from battery_sorting.drivers.camera.base import Frame


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


def belt_state_message(state: types.BeltState) -> msg.BeltState:
    """BeltState.msg of ``state``."""
    return msg.BeltState(
        header=header(state.stamp),
        connected=state.connected,
        running=state.running,
        emergency_stop=state.emergency_stop,
        watchdog_tripped=state.watchdog_tripped,
        encoder_ok=state.encoder_ok,
        boot_id=state.boot_id,
        encoder_count=state.encoder_count,
        speed_mps=state.speed_mps,
        speed_setpoint_mps=state.speed_setpoint_mps,
        mm_per_count=state.mm_per_count,
        slip=state.slip,
        error=state.error,
    )


def belt_state(message: msg.BeltState) -> types.BeltState:
    """Inverse of `belt_state_message`."""
    return types.BeltState(
        stamp=from_time(message.header.stamp),
        connected=message.connected,
        running=message.running,
        emergency_stop=message.emergency_stop,
        watchdog_tripped=message.watchdog_tripped,
        encoder_ok=message.encoder_ok,
        boot_id=message.boot_id,
        encoder_count=message.encoder_count,
        speed_mps=message.speed_mps,
        speed_setpoint_mps=message.speed_setpoint_mps,
        mm_per_count=message.mm_per_count,
        slip=message.slip,
        error=message.error,
    )


def detection_message(detection: types.Detection) -> msg.BatteryDetection:
    """BatteryDetection.msg of ``detection``."""
    return msg.BatteryDetection(
        header=header(detection.stamp),
        battery_id=detection.battery_id,
        trigger_count=detection.trigger_count,
        encoder_count=detection.encoder_count,
        gap_ahead_mm=detection.gap_ahead_mm,
        gap_behind_mm=detection.gap_behind_mm,
        gate_seen=detection.gate_seen,
    )


def detection(message: msg.BatteryDetection) -> types.Detection:
    """Inverse of `detection_message`."""
    return types.Detection(
        battery_id=message.battery_id,
        trigger_count=message.trigger_count,
        encoder_count=message.encoder_count,
        stamp=from_time(message.header.stamp),
        gap_ahead_mm=message.gap_ahead_mm,
        gap_behind_mm=message.gap_behind_mm,
        gate_seen=message.gate_seen,
    )


def exit_message(detection: types.ExitDetection) -> msg.ExitDetection:
    """ExitDetection.msg of ``detection``."""
    return msg.ExitDetection(
        header=header(detection.stamp), exit_count=detection.exit_count, encoder_count=detection.encoder_count
    )


def exit_detection(message: msg.ExitDetection) -> types.ExitDetection:
    """Inverse of `exit_message`."""
    return types.ExitDetection(
        exit_count=message.exit_count, encoder_count=message.encoder_count, stamp=from_time(message.header.stamp)
    )


def type_message(result: types.TypeResult) -> msg.BatteryType:
    """BatteryType.msg of ``result``."""
    return msg.BatteryType(
        header=header(result.stamp),
        battery_id=result.battery_id,
        label=result.label,
        confidence=result.confidence,
        labels=list(result.scores),
        scores=list(result.scores.values()),
        accepted=result.accepted,
        reason=result.reason,
        model=result.model,
        inference_s=result.inference_s,
    )


def type_result(message: msg.BatteryType) -> types.TypeResult:
    """Inverse of `type_message`."""
    return types.TypeResult(
        battery_id=message.battery_id,
        stamp=from_time(message.header.stamp),
        label=message.label,
        confidence=message.confidence,
        accepted=message.accepted,
        reason=message.reason,
        scores=dict(zip(message.labels, message.scores, strict=True)),
        model=message.model,
        inference_s=message.inference_s,
    )


def order_message(order: types.EjectOrder) -> msg.EjectCommand:
    """EjectCommand.msg of ``order``."""
    return msg.EjectCommand(
        header=header(order.stamp),
        battery_id=order.battery_id,
        token=order.token,
        bin=order.bin,
        encoder_count=order.encoder_count,
        mm_per_count=order.mm_per_count,
    )


def order(message: msg.EjectCommand) -> types.EjectOrder:
    """Inverse of `order_message`."""
    return types.EjectOrder(
        battery_id=message.battery_id,
        token=message.token,
        bin=message.bin,
        encoder_count=message.encoder_count,
        mm_per_count=message.mm_per_count,
        stamp=from_time(message.header.stamp),
    )


def report_message(report: types.EjectReport) -> msg.EjectResult:
    """EjectResult.msg of ``report``."""
    return msg.EjectResult(
        header=header(report.stamp),
        battery_id=report.battery_id,
        token=report.token,
        outcome=int(report.outcome),
        bin=report.bin,
        fire_count=report.fire_count,
        reason=report.reason,
        latency_s=report.latency_s,
    )


def report(message: msg.EjectResult) -> types.EjectReport:
    """Inverse of `report_message`."""
    return types.EjectReport(
        battery_id=message.battery_id,
        token=message.token,
        outcome=types.EjectOutcome(message.outcome),
        bin=message.bin,
        fire_count=message.fire_count,
        stamp=from_time(message.header.stamp),
        reason=message.reason,
        latency_s=message.latency_s,
    )


def disposition_message(placement: types.Placement) -> msg.Disposition:
    """Disposition.msg of ``placement``."""
    return msg.Disposition(
        header=header(placement.stamp),
        battery_id=placement.battery_id,
        bin=placement.bin,
        reason=str(placement.reason),
        label=placement.label,
        confidence=placement.confidence,
    )


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

"""The contract suite of each kind of device finds the driver that breaks a rule of it."""
# issue 16, 7

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from plant_line import Line
from test_every_driver import HARNESSES

from battery_sorting.drivers.camera.frame_server import FrameServerCamera
from battery_sorting.drivers.plc.modbus import ModbusPlc
from battery_sorting.drivers.registry import find_suite
from battery_sorting.drivers.robot.line_socket import LineSocketRobot
from battery_sorting.drivers.station_plc.modbus import ModbusStationPlc
from battery_sorting.drivers.suite import CheckOptions, ContractViolation, DriverBench
from battery_sorting.drivers.tester.scpi import ScpiTester

OF = {
    "plc": ("modbus", ModbusPlc),
    "station_plc": ("modbus", ModbusStationPlc),
    "camera": ("frame_server", FrameServerCamera),
    "robot": ("line_socket", LineSocketRobot),
    "tester": ("scpi", ScpiTester),
}


def changed(call: str, **values: Any) -> Any:
    """A method that gives what the driver's own gives, with other values."""

    def method(driver: Any, *arguments: Any) -> Any:
        own = getattr(super(type(driver), driver), call)(*arguments)
        return replace(own, **{name: value() if callable(value) else value for name, value in values.items()})

    return method


def gives(value: Any) -> Any:
    return lambda *_: value


@pytest.mark.parametrize(
    ("device", "check", "method", "broken", "complaint"),
    [
        ("plc", "tells its status", "read_status", changed("read_status", boot_id=0), "boot_id is 0"),
        ("plc", "tells its status", "read_status", changed("read_status", time_ms=5), "went on by 0 ms"),
        (
            "plc",
            "tells its status",
            "read_status",
            changed("read_status", host_time=time.time),
            "outside the request",
        ),
        ("plc", "keeps edges and acknowledgements", "read_status", changed("read_status", gate_total=3), "gate: "),
        ("plc", "keeps edges and acknowledgements", "read_acks", gives([None] * 21), "21 acknowledgements"),
        ("plc", "set-point is read back", "set_belt", gives(None), "without complaint, holds"),
        ("plc", "impossible speeds are refused", "set_belt", gives(None), r"set_belt\(False, nan\) raised nothing"),
        (
            "plc",
            "encoder moves",
            "read_status",
            changed("read_status", encoder_count=7, running=True),
            "by 0 counts",
        ),
        ("station_plc", "tells its status", "read_status", changed("read_status", boot_id=0), "boot_id is 0"),
        ("station_plc", "impossible commands are refused", "send", gives(None), "raised nothing"),
        ("camera", "delivers frames", "read", changed("read", width=0), "is empty"),
        ("camera", "delivers frames", "read", changed("read", step=1), "not step x height"),
        ("camera", "delivers frames", "read", changed("read", encoding="rgb8"), "the settings say bayer_rggb8"),
        ("camera", "delivers frames", "read", changed("read", exposed_at=0.0), "wrong clock, or stale"),
        ("camera", "delivers frames", "read", changed("read", frame_number=4), "comes after 4"),
        ("camera", "delivers frames", "read", changed("read", trigger_count=4), "has trigger 4, the one before 4"),
        ("robot", "tells its places", "places", gives(frozenset()), "was taught no places"),
        ("robot", "unknown places are refused", "send", gives(None), "raised nothing"),
        ("tester", "tells its channels", "read_progress", changed("read_progress", step=4), "step 4 of 0"),
        (
            "tester",
            "tells its channels",
            "read_progress",
            changed("read_progress", temperature_c=999.0),
            "channel 1: ",
        ),
        ("tester", "other channels are refused", "safe", gives(None), r"\(0\) raised nothing"),
        ("tester", "makes a channel safe", "emergency_stop_stands", gives(True), "its emergency stop stands"),
    ],
)
def test_a_driver_that_breaks_a_rule_is_found(line: Line, device, check, method, broken, complaint):
    kind, sound = OF[device]
    if device == "camera":
        line.run_belt(0.5)
    suite = find_suite(device)
    [rule] = [rule for rule in suite.checks if rule.name == check]
    for driver_class, holds in ((sound, True), (type("Broken", (sound,), {method: broken}), False)):
        settings = HARNESSES[device, kind](line)
        bench = DriverBench(driver_class, suite, settings, CheckOptions(move=True, frames=2, wait_s=3.0))
        try:
            if holds:
                rule.run(bench)
            else:
                with pytest.raises(ContractViolation, match=complaint):
                    rule.run(bench)
        finally:
            bench.clear()

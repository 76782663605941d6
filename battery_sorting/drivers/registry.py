"""Finds the class of a driver by its kind or by a dotted path."""

from __future__ import annotations

import difflib
import importlib

from pydantic import ValidationError

from battery_sorting.drivers.base import Driver, DriverSettings

KINDS: dict[str, dict[str, str]] = {
    "plc": {"modbus": "battery_sorting.drivers.plc.modbus:ModbusPlc"},
    "station_plc": {"modbus": "battery_sorting.drivers.station_plc.modbus:ModbusStationPlc"},
    "camera": {"frame_server": "battery_sorting.drivers.camera.frame_server:FrameServerCamera"},
    "robot": {"line_socket": "battery_sorting.drivers.robot.line_socket:LineSocketRobot"},
    "tester": {"scpi": "battery_sorting.drivers.tester.scpi:ScpiTester"},
}
"""Device → kind → ``module:Class``."""

_BASES = {
    "plc": "battery_sorting.drivers.plc.base:BeltPlc",
    "station_plc": "battery_sorting.drivers.station_plc.base:StationPlc",
    "camera": "battery_sorting.drivers.camera.base:TriggeredCamera",
    "robot": "battery_sorting.drivers.robot.base:Robot",
    "tester": "battery_sorting.drivers.tester.base:CellTester",
}


def find_driver(device: str, name: str) -> type[Driver]:
    """The driver class for ``device`` (a key of `KINDS`) that ``name`` (a kind or ``module:Class``) stands for.

    Raises:
        ValueError: There is no such driver; the message says what to write instead.
    """
    kinds = KINDS[device]
    if ":" in name:
        path = name
    elif name in kinds:
        path = kinds[name]
    else:
        close = difflib.get_close_matches(name, kinds, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known kinds: {', '.join(sorted(kinds))}."
        raise ValueError(f"unknown {device} driver {name!r}; {hint} Your own driver is given as 'module:Class'.")
    module_name, _, class_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # somebody else's module may fail in any way
        raise ValueError(
            f"driver {name!r}: module {module_name!r} can't be imported: {error!r}. "
            "Install it beside battery_sorting, or add its folder to PYTHONPATH"
        ) from error
    driver = getattr(module, class_name, None)
    if not isinstance(driver, type):
        raise ValueError(f"driver {name!r}: module {module_name} has no class {class_name!r}")
    if not issubclass(driver, base_class(device)):
        raise ValueError(f"driver {name!r} is not derived from {base_class(device).__name__}")
    if missing := sorted(getattr(driver, "__abstractmethods__", ())):
        raise ValueError(f"driver {name!r} lacks {', '.join(missing)}")
    if not issubclass(getattr(driver, "Settings", object), DriverSettings):
        raise ValueError(f"driver {name!r} has no Settings derived from DriverSettings")
    return driver


def base_class(device: str) -> type[Driver]:
    """The base class that a driver of ``device`` must have."""
    module_name, _, class_name = _BASES[device].partition(":")
    base: type[Driver] = getattr(importlib.import_module(module_name), class_name)
    return base


def driver_problems(device: str, name: str, settings: dict[str, object]) -> list[str]:
    """Everything that is wrong with this driver and its settings, each as ``path: text``; nothing is opened."""
    try:
        driver = find_driver(device, name)
    except ValueError as error:
        return [f"{device}.driver: {error}"]
    try:
        driver.Settings.model_validate(settings)
    except ValidationError as error:
        return [
            f"{device}.settings.{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            + _closest_key(fault, driver)
            for fault in error.errors()
        ]
    return []


def _closest_key(fault: object, driver: type[Driver]) -> str:
    if not isinstance(fault, dict) or fault.get("type") != "extra_forbidden":
        return ""
    keys = list(driver.Settings.model_fields)
    close = difflib.get_close_matches(str(fault["loc"][-1]), keys, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(keys)}"

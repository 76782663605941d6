"""Finds kinds of device and drivers by their names, or by the dotted path of one that another package brings."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from pydantic import ValidationError

from battery_sorting.drivers.base import DeviceKind, Driver, DriverSettings
from battery_sorting.drivers.suite import Suite

DEVICES = ("plc", "station_plc", "camera", "robot", "tester")
"""Kinds of device that the package brings: each has a folder, which declares it as ``DEVICE``."""


def find_device(device: str) -> DeviceKind:
    """The kind of device that ``device`` (one of `DEVICES`, or ``module:NAME``) stands for.

    Raises:
        ValueError: There is no such kind; the message says what to write instead.
    """
    if device not in DEVICES and ":" not in device:
        raise ValueError(f"{device!r} is none; there are {', '.join(DEVICES)}")
    path = f"{__package__}.{device}:DEVICE" if device in DEVICES else device
    kind = _load(path, f"device {device!r}")
    if not isinstance(kind, DeviceKind):
        module_name, _, name = path.partition(":")
        raise ValueError(f"device {device!r}: module {module_name} has no DeviceKind {name!r}")
    return kind


def find_suite(device: str) -> Suite:
    """The contract suite of a kind of device.

    Raises:
        ValueError: There is no such kind, or it names no suite.
    """
    path = find_device(device).suite
    suite = _load(path, f"device {device!r}")
    if not isinstance(suite, Suite):
        raise ValueError(f"device {device!r}: its suite {path!r} is no Suite of battery_sorting.drivers.suite")
    return suite


def base_class(device: str) -> type[Driver]:
    """The base class that a driver of ``device`` must have.

    Raises:
        ValueError: There is no such kind of device, or it names no interface.
    """
    path = find_device(device).interface
    base = _load(path, f"device {device!r}")
    if not (isinstance(base, type) and issubclass(base, Driver)):
        raise ValueError(f"device {device!r}: its interface {path!r} is not derived from Driver")
    return base


def find_driver(device: str, name: str) -> type[Driver]:
    """The class that ``name`` (a word of the `DeviceKind`, or ``module:Class``) means as a driver of ``device``.

    Raises:
        ValueError: There is no such device or driver; the message says what to write instead.
    """
    kinds = find_device(device).drivers
    if ":" in name:
        path = name
    elif name in kinds:
        path = kinds[name]
    else:
        close = difflib.get_close_matches(name, kinds, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known kinds: {', '.join(sorted(kinds)) or 'none'}."
        raise ValueError(f"unknown {device} driver {name!r}; {hint} Your own driver is given as 'module:Class'.")
    driver = _load(path, f"driver {name!r}")
    if not isinstance(driver, type):
        module_name, _, class_name = path.partition(":")
        raise ValueError(f"driver {name!r}: module {module_name} has no class {class_name!r}")
    base = base_class(device)
    if not issubclass(driver, base):
        raise ValueError(f"driver {name!r} is not derived from {base.__name__}")
    if missing := sorted(getattr(driver, "__abstractmethods__", ())):
        raise ValueError(f"driver {name!r} lacks {', '.join(missing)}")
    if not issubclass(getattr(driver, "Settings", object), DriverSettings):
        raise ValueError(f"driver {name!r} has no Settings derived from DriverSettings")
    return driver


def _load(path: str, what: str) -> Any:
    """What a ``module:name`` names; None if the module has no such name."""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # somebody else's module may fail in any way
        raise ValueError(
            f"{what}: module {module_name!r} can't be imported: {error!r}. "
            "Install it beside battery_sorting, or add its folder to PYTHONPATH"
        ) from error
    return getattr(module, name, None)


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

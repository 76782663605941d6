"""Fault switches of the simulated plant: set by name through the control port."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from battery_sorting.core.errors import ConfigurationError


def switch(name: str, default: Any) -> Any:
    """Field of a switch that is called ``name``, e.g. ``camera.drop``."""
    return field(default=default, metadata={"name": name})


@dataclass
class Switches:
    """Base of a set of fault switches. Numbers of *next n* count down as they take effect."""

    def as_dict(self) -> dict[str, Any]:
        """Switch names, e.g. ``camera.drop``, to values."""
        return {
            entry.metadata["name"]: list(value) if isinstance(value, tuple) else value
            for entry, value in self._entries()
        }

    def set(self, changes: dict[str, Any]) -> None:
        """Set switches by name: all of them or, on an error, none.

        Raises:
            ConfigurationError: Unknown switches or values of the wrong kind, all named.
        """
        attributes = {entry.metadata["name"]: entry for entry, _ in self._entries()}
        defaults = {name: entry.default for name, entry in attributes.items()}
        for name, value in check_switches(changes, defaults).items():
            setattr(self, attributes[name].name, value)

    def _entries(self) -> Iterator[tuple[Any, Any]]:
        for entry in fields(self):
            yield entry, getattr(self, entry.name)


def check_switches(changes: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """``changes``, each in the kind of its default.

    Raises:
        ConfigurationError: Unknown switches or values of the wrong kind, all named.
    """
    accepted: dict[str, Any] = {}
    problems = []
    for name, value in changes.items():
        if name not in defaults:
            problems.append(f"{name}: no such switch; there are {', '.join(sorted(defaults))}")
            continue
        try:
            accepted[name] = _switch_value(value, defaults[name])
        except ValueError as error:
            problems.append(f"{name}: {value!r} {error}")
    if problems:
        raise ConfigurationError("fault switches", problems)
    return accepted


def _switch_value(value: Any, default: Any) -> Any:
    """``value`` in the kind of ``default``; raises ValueError with the remedy."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(default, bool):
        if value in (0, 1):
            return bool(value)
        raise ValueError("isn't true or false")
    if isinstance(default, tuple):
        return _valve_numbers(value)
    if not is_number or not math.isfinite(value) or value < 0:
        raise ValueError("isn't a number from 0 up")
    if isinstance(default, int):
        if value != int(value):
            raise ValueError("isn't a whole number")
        return int(value)
    return float(value)


def _valve_numbers(value: Any) -> tuple[int, ...]:
    numbers = value if isinstance(value, (list, tuple)) else [] if value is None or value == -1 else [value]
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
        raise ValueError("isn't a valve number or a list of them; null or -1 frees all")
    return tuple(numbers)

"""Talks to the simulated plant's control port and reads its record. Knows the protocol only, not the plant.

The plant writes one JSON object per line: see `PlantRecord` for the events. docs/reference/plant.md describes them.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from battery_sorting.core.errors import (
    ConfigurationError,
    DeviceConnectionError,
    DeviceError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from battery_sorting.core.strict_json import to_json


class PlantRecord:
    """What really happened to every battery, folded from the plant's events.

    Times are seconds of the plant's clock since its start.
    """

    def __init__(self) -> None:
        self._boot_id = 0
        self._start_ns = 0
        self._items: dict[int, dict[str, Any]] = {}
        self._pulses: list[dict[str, Any]] = []
        self._false_triggers: list[int] = []
        self._summary: dict[str, Any] = {}

    def apply(self, event: dict[str, Any]) -> None:
        """Take in one event. Kinds that the record doesn't need (faults, stops) are passed over."""
        kind = event.get("event")
        if kind == "start":
            self._boot_id = event["boot_id"]
            self._start_ns = event["start_ns"]
        elif kind == "item":
            self._items[event["index"]] = {
                "index": event["index"],
                "trigger_count": None,
                "trigger_t_s": None,
                "label": event["label"],
                "known": event["known"],
                "bin": None,
                "t_s": event["t_s"],
            }
        elif kind == "trigger":
            self._apply_trigger(event)
        elif kind == "bin":
            self._items[event["index"]].update(bin=event["bin"], t_s=event["t_s"])
        elif kind == "pulse":
            self._pulses.append({key: value for key, value in event.items() if key != "event"})
        elif kind == "summary":
            self._summary = {key: value for key, value in event.items() if key != "event"}

    def _apply_trigger(self, event: dict[str, Any]) -> None:
        if event["index"] is None:
            self._false_triggers.append(event["trigger_count"])
            return
        self._items[event["index"]].update(
            trigger_count=event["trigger_count"], trigger_t_s=event["t_s"], t_s=event["t_s"]
        )

    def as_dict(self) -> dict[str, Any]:
        """The record as data for a report.

        Keys: ``boot_id``, ``start_ns`` (plant time 0 in ns since 1970), ``items``, ``pulses``, ``false_triggers``
        (photo-eye edges without a battery), ``real_time_factor`` and ``tick_lag_ms`` (None without a summary).
        An item's ``bin`` is None while it is on the belt; its ``t_s`` is the time of the last thing that happened
        to it: the fall into the bin, else the photo-eye, else its appearance on the belt.
        """
        return {
            "boot_id": self._boot_id,
            "start_ns": self._start_ns,
            "items": list(self._items.values()),
            "pulses": self._pulses,
            "false_triggers": self._false_triggers,
            "real_time_factor": self._summary.get("real_time_factor"),
            "tick_lag_ms": self._summary.get("tick_lag_ms"),
        }


def load_record(path: str | Path) -> dict[str, Any]:
    """Read a record file of the plant, also that of a plant that was killed while it wrote.

    Raises:
        ConfigurationError: The file is missing or isn't a record of the plant.
    """
    record = PlantRecord()
    fold_record(path, record.apply)
    return record.as_dict()


def fold_record(path: str | Path, apply: Callable[[dict[str, Any]], None]) -> None:
    """Give each event of a record file to ``apply``; see `load_record`."""
    source = Path(path)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            str(source), [f"can't be read as the plant's record ({error}): give the file of the key 'record'"]
        ) from error
    if not lines:
        raise ConfigurationError(
            str(source), ["is empty, no record of the plant: give the file of the key 'record'"]
        )
    for number, line in enumerate(lines, start=1):
        try:
            apply(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines) and number > 1:
                break  # the last line of a plant that was killed
            raise ConfigurationError(
                str(source), [f"line {number} is no event of the plant ({error!r}): give the plant's own record"]
            ) from error


class PlantControl:
    """Client of the plant's control port: one request, one answer, newline-delimited JSON.

    Use it as a context manager, or call `close`.

    Raises:
        DeviceConnectionError: The port can't be reached, or the plant closed it.
        DeviceTimeoutError: No answer within ``timeout_s``.
        DeviceProtocolError: The answer is no JSON.
        DeviceError: The plant refused the request; the message says why.
    """

    def __init__(self, host: str, port: int, timeout_s: float = 2.0) -> None:
        self._where = f"plant control {host}:{port}"
        try:
            self._socket = socket.create_connection((host, port), timeout=timeout_s)
        except OSError as error:
            raise DeviceConnectionError(
                f"{self._where} can't be reached ({error}): is the plant running?"
            ) from error
        self._reader = self._socket.makefile("rb")

    def close(self) -> None:
        """Close the connection; may be called twice."""
        self._reader.close()
        self._socket.close()

    def __enter__(self) -> PlantControl:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def summary(self) -> dict[str, Any]:
        """Counts so far, real-time factor, tick lag in ms."""
        return self._get("summary")

    def record(self) -> dict[str, Any]:
        """The record so far, as of `PlantRecord.as_dict`."""
        return self._get("record")

    def faults(self) -> dict[str, Any]:
        """All fault switches with their values."""
        return self._get("faults")

    def state(self) -> dict[str, Any]:
        """Belt, PLC and camera at this moment."""
        return self._get("state")

    def set_faults(self, **switches: Any) -> dict[str, Any]:
        """Set switches, e.g. ``set_faults(**{"camera.drop": 3})``; all of them or, on an error, none."""
        answer: dict[str, Any] = self._request({"set": switches})
        return answer

    def shutdown(self) -> None:
        """Ask the plant to write its record and end."""
        self._request({"shutdown": True})

    def _get(self, what: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._request({"get": what})
        return answer

    def _request(self, request: dict[str, Any]) -> Any:
        try:
            self._socket.sendall(to_json(request, None).encode() + b"\n")
            line = self._reader.readline()
        except TimeoutError as error:
            raise DeviceTimeoutError(f"{self._where} doesn't answer") from error
        except OSError as error:
            raise DeviceConnectionError(f"{self._where}: connection lost ({error})") from error
        if not line.endswith(b"\n"):
            raise DeviceConnectionError(f"{self._where} closed the connection")
        try:
            answer = json.loads(line)
            accepted = answer["ok"]
        except (ValueError, KeyError, TypeError) as error:
            raise DeviceProtocolError(f"{self._where} answered {line[:80]!r}, which is no answer") from error
        if not accepted:
            raise DeviceError(f"{self._where}: {answer.get('error')}")
        return answer.get("result")

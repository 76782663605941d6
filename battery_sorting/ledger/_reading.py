"""The one place that reads rows into records.

Ledgers get damaged, come from other software and from later versions of this one. What does not fit its record is
*this event can't be read*, with its number and why; whoever reads goes on with the rest. Behind this place nothing
has to be doubted any more: a text is a text, a number is finite, times are times, payloads have the keys of
`docs/reference/ledger.md` in the right kinds. NaN is null, as the ledger itself writes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

from battery_sorting.core.strict_json import to_json
from battery_sorting.core.types import EjectOutcome, LineStateId

from ._records import Event, ImageRecord, Shift
from .events import EVENTS, BatteryRecord, EventData, EventKind

LATEST = 253_402_300_799.0
"""Stamps are from 1970 to the end of the year 9999."""
LARGEST = 1e15
"""No number that is measured or counted here is larger; encoder counts and tokens are whole and may be."""
DEEPEST = 50
"""So deep lists and mappings may be nested."""
LONGEST_NAME = 200
LONGEST_TEXT = 4_000_000
_INTERNED = 64

Check = Callable[[Any], bool]


class UnreadableError(Exception):
    """Why a row is no record. Never leaves the ledger."""


# ---- values ----


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return type(value) in (float, int) and -LARGEST <= value <= LARGEST


def _share(value: Any) -> bool:
    return type(value) in (float, int) and -0.001 <= value <= 1.001


def _whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def _flag(value: Any) -> bool:
    return value is True or value is False


def _stamp(value: Any) -> bool:
    return type(value) in (float, int) and 0 <= value <= LATEST


def _stored_flag(value: Any) -> bool:
    return value in (0, 1) and not isinstance(value, float)


def _name(value: Any) -> bool:
    """Names of batteries become names of files."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_NAME
        and value.isprintable()
        and value[0] != "."
        and "/" not in value
        and "\\" not in value
    )


def _mapping_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(item is None or check(item) for item in value.values())


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(item is None or check(item) for item in value)


def _layout(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 20


def _one_of(*values: Any) -> Check:
    return lambda value: isinstance(value, (str, int)) and not isinstance(value, bool) and value in values


_OUTCOMES: dict[Any, EjectOutcome] = {key: one for one in EjectOutcome for key in (one.value, one.name.lower())}
_STATES = {one.value: one for one in LineStateId}

# ---- payloads ----

_CHECKS: dict[str, Check] = {
    "str": _text, "int": _whole, "float": _number, "bool": _flag, "Share": _share,
    "Shares": _mapping_of(_share), "Counts": _mapping_of(_whole), "Texts": _mapping_of(_text),
    "Probabilities": _list_of(_share), "dict[str, Any]": lambda value: isinstance(value, dict),
    "EjectOutcome": _one_of(*_OUTCOMES), "LineStateId": _one_of(*_STATES), "Any": lambda _: True,
}  # fmt: skip
"""Type of a field → what a value must look like."""
_MEMBERS: dict[str, Mapping[Any, Any]] = {"EjectOutcome": _OUTCOMES, "LineStateId": _STATES}


def _type_name(one: Field[Any]) -> str:
    return str(one.type).removesuffix(" | None")


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of a payload. ``missing`` and ``null`` are what it is then read as; `MISSING`: as the field's default."""

    name: str
    check: Check
    needed: bool
    missing: Any
    null: Any
    members: Mapping[Any, Any] | None

    @classmethod
    def of(cls, one: Field[Any]) -> _Key:
        kind, missing = _type_name(one), one.metadata.get("absent", MISSING)
        needed = one.default is MISSING and one.default_factory is MISSING and missing is MISSING
        null = one.metadata.get("null", missing)
        return cls(one.name, _CHECKS[kind], needed, missing, null, _MEMBERS.get(kind))


_KEYS = {kind: tuple(map(_Key.of, fields(data))) for kind, data in EVENTS.items()}


def read_data(kind: EventKind, payload: Mapping[str, Any]) -> EventData:
    """What an event says. Keys that this software does not know are passed over. Raises as `read_event`."""
    values: dict[str, Any] = {}
    for key in _KEYS[kind]:
        value = payload.get(key.name)
        if value is None:
            if key.needed:
                raise UnreadableError(f"payload of {kind}: {key.name} is missing")
            otherwise = key.null if key.name in payload else key.missing
            if otherwise is not MISSING:
                values[key.name] = otherwise
        elif not key.check(value):
            raise UnreadableError(f"payload of {kind}: {key.name} is {_shown(value)}")
        else:
            values[key.name] = value if key.members is None else key.members[value]
    return EVENTS[kind](**values)


_CONFIG: dict[str, Any] = {
    "site": {
        "name": _text, "kind": _text, "line": _text, "model": _text, "models": _mapping_of(_text),
        "images": {"path": _text, "keep": _text},
        "plant": {"time_factor": _number},
        "measuring": {"channels": _whole, "tester": {"driver": _text}, "robot": {"driver": _text}},
    },
    "recipe": {
        "name": _text, "routes": _mapping_of(_text), "threshold": _share,
        "views": {
            "lug": {"defects": _mapping_of(_text), "threshold": _share},
            "case": {"defects": _mapping_of(_text), "threshold": _share},
        },
        "measuring": {
            "spec": _text,
            "programme": {"name": _text, "steps": _list_of(lambda step: isinstance(step, dict)), "limits": {}},
            "regroup": {"method": _text, "layout": _layout, "across": _flag},
        },
    },
    "cell": {},
}  # fmt: skip
"""Sections of a shift's snapshot that are read later. What does not fit is left out of it, as if it had not been
recorded; the rest of the snapshot stands."""


# ---- rows ----


def read_event(row: Sequence[Any]) -> Event[EventData]:
    """Event of ``id, shift_id, battery_id, stamp, recorded_at, kind, payload`` as they are stored.

    Raises:
        UnreadableError: It is none; the message says why.
    """
    event_id, shift_id, battery_id, stamp, recorded_at, kind_name, stored = row
    _expect("id", event_id, _whole)
    _expect("shift_id", shift_id, _whole)
    if battery_id is not None:
        _expect("battery_id", battery_id, _name)
    _expect("stamp", stamp, _stamp)
    _expect("recorded_at", recorded_at, _stamp)
    try:
        kind = EventKind(kind_name)
    except ValueError:
        raise UnreadableError(f"kind is {_shown(kind_name)}, which this software does not know") from None
    payload = _document("payload", stored)
    data = read_data(kind, payload)
    return Event(event_id, shift_id, battery_id, float(stamp), float(recorded_at), kind, data, payload)


_COLUMN_CHECKS = {
    **_CHECKS, "BatteryId": _name, "Stamp": _stamp, "bool": _stored_flag, "EjectOutcome": _one_of(*EjectOutcome)
}  # fmt: skip
_BATTERY_FIELDS = [
    (one.name, _COLUMN_CHECKS[_type_name(one)], not str(one.type).endswith("None")) for one in fields(BatteryRecord)
]


def read_battery(row: Sequence[Any]) -> BatteryRecord:
    """Battery of the columns in the order of `BatteryRecord`, as they are stored. Raises as `read_event`."""
    values: list[Any] = []
    for (name, check, needed), value in zip(_BATTERY_FIELDS, row, strict=True):
        if value is not None or needed:
            _expect(name, value, check)
        if type(value) is str:
            # Names of types, bins and reasons come again and again: one copy of each does.
            value = sys.intern(value) if len(value) <= _INTERNED and name != "battery_id" else value
        elif value is not None and check is _stored_flag:
            value = bool(value)
        elif value is not None and name == "eject_outcome":
            value = EjectOutcome(value)
        values.append(value)
    return BatteryRecord(*values)


def read_image(row: Sequence[Any]) -> ImageRecord:
    """Picture of the columns in the order of `ImageRecord`. Raises as `read_event`."""
    checks: tuple[Check, ...] = (_name, _sha256, _inside, _whole, _whole, _whole, _stamp, _text)
    for name, value, check in zip(ImageRecord.__dataclass_fields__, row, checks, strict=True):
        _expect(name, value, check)
    return ImageRecord(*row)


def read_shift(row: Sequence[Any]) -> tuple[Shift, list[str]]:
    """Shift of ``id, line, site, started_at, ended_at, software_version, config``, and what of it can't be read.

    A shift is what its batteries hang on, so what does not fit is left empty and the rest stands. Only one without
    a number is none: raises as `read_event`.
    """
    number, line, site, started_at, ended_at, version, stored = row
    _expect("id", number, _whole)
    problems = []

    def checked(name: str, value: Any, check: Check, otherwise: Any) -> Any:
        if check(value):
            return value
        problems.append(f"{name} is {_shown(value)}")
        return otherwise

    try:
        config = _document("config", stored)
    except UnreadableError as error:
        config = {}
        problems.append(str(error))
    problems += _clean(config, _CONFIG, "config")
    shift = Shift(
        number,
        checked("line", line, _text, ""),
        checked("site", site, _text, ""),
        float(checked("started_at", started_at, _stamp, 0.0)),
        ended_at if ended_at is None else checked("ended_at", ended_at, _stamp, None),
        checked("software_version", version, _text, ""),
        config,
    )
    return shift, problems


def _clean(section: dict[str, Any], form: Mapping[str, Any], path: str) -> list[str]:
    """Takes out of a snapshot what does not fit; returns what that was."""
    problems = []
    for key, wanted in form.items():
        value = section.get(key)
        if value is None:
            continue
        here = f"{path}.{key}"
        if isinstance(wanted, Mapping):
            if isinstance(value, dict):
                problems += _clean(value, wanted, here)
                continue
        elif wanted(value) and None not in _items(value):
            continue
        problems.append(f"{here} is {_shown(value)}")
        del section[key]
    return problems


def _items(value: Any) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()


def _sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and all(letter in "0123456789abcdef" for letter in value)


def _inside(value: Any) -> bool:
    """Whether a path stays within its folder."""
    return (
        isinstance(value, str)
        and value.isprintable()
        and value[:1] not in {"", "/"}
        and ".." not in value.split("/")
    )


def _expect(name: str, value: Any, check: Check) -> None:
    if not check(value):
        why = ", which can't be the name of a file" if check is _name and isinstance(value, str) else ""
        raise UnreadableError(f"{name} is {_shown(value)}{why}")


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return "no text"
    try:
        text = ascii(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that can't be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _document(name: str, stored: Any) -> dict[str, Any]:
    """A JSON object that was stored as text."""
    if not isinstance(stored, str):
        raise UnreadableError(f"{name} is {_shown(stored)}")
    if len(stored) > LONGEST_TEXT:
        raise UnreadableError(f"{name} has {len(stored)} characters")
    try:
        found = _DECODER.decode(stored)
    except RecursionError:
        raise UnreadableError(f"{name} is nested too deep") from None
    except ValueError as error:
        raise UnreadableError(f"{name} is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise UnreadableError(f"{name} is {_shown(found)}")
    if stored.count("{") + stored.count("[") > DEEPEST and _depth(found) > DEEPEST:
        raise UnreadableError(f"{name} is nested too deep")
    if "\\u" in stored and not _is_text(found):
        raise UnreadableError(f"{name} holds a text with half a character")
    return found


_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
    return depth


def _is_text(value: Any) -> bool:
    try:
        to_json(value, None, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True

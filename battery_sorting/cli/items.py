"""`battery-sorting items`: the batteries of a shift, or the story of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from battery_sorting.cli._exit import NothingFoundError
from battery_sorting.cli._ledger import JsonOption, LedgerArgument, ShiftOption, end_if_incomplete, find_battery
from battery_sorting.cli._output import say, show, write_json
from battery_sorting.ledger import Event, EventKind
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.reporting import find_shift
from battery_sorting.lines import kind_of
from battery_sorting.report.kept_pictures import KeptPictures
from battery_sorting.report.layout import ItemFilter, place_of
from battery_sorting.report.layouts import layout_of
from battery_sorting.report.words import exact_clock, percent


def items(
    ledger: LedgerArgument,
    battery_id: Annotated[str | None, typer.Option("--id", help="Tell the story of this battery.")] = None,
    as_json: JsonOption = False,
    bin_: Annotated[str | None, typer.Option("--bin", help="Only what went into this bin, outlet or tray.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only what went there for this reason, e.g. missed.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=2**31, help="At most so many batteries.")] = 1000,
    shift: ShiftOption = None,
) -> None:
    """The batteries of a shift, or the story of one battery."""
    with Ledger.open(ledger, read_only=True) as book:
        if battery_id is not None:
            _tell_story(book, battery_id, as_json)
            end_if_incomplete(book.name, book.unreadable)
            return
        chosen = find_shift(book, shift)
        found = layout_of(kind_of(chosen)).items(book, chosen, ItemFilter(bin_, reason, limit))
    if as_json:
        write_json(found.data)
    elif found.data:
        show(found.table)
    end_if_incomplete(book.name, book.unreadable)
    if not found.data:
        raise NothingFoundError(f"{book.name}: shift {chosen.shift_id} has no battery that fits")


def _tell_story(book: Ledger, battery_id: str, as_json: bool) -> None:
    battery = find_battery(book, battery_id)
    events = book.events(battery_id=battery_id)
    images = book.images(battery_id)
    kind = kind_of(find_shift(book, battery.shift_id))
    if as_json:
        story = {
            "battery": asdict(battery),
            "events": [asdict(event) for event in events],
            "images": [asdict(image) for image in images],
        }
        write_json(story | layout_of(kind).story(battery, events))
        return
    say(f"battery {battery_id}: {place_of(battery)} ({battery.reason or 'not decided'})")
    say(f"{kind.entrance} at {exact_clock(battery.detected_at)}, shift {battery.shift_id}")
    for event in events:
        say(f"{event.stamp - battery.detected_at:+9.3f} s  {event.kind:<15} {_describe(event)}")
    kept = KeptPictures(book)
    for image in images:
        seconds = image.stamp - battery.detected_at
        file = kept.path(battery.shift_id, image)
        path = file if os.path.exists(file) else image.path  # noqa: PTH110 - Path.exists fails on names too long
        say(f"{seconds:+9.3f} s  {'image':<15} {path} ({image.width} x {image.height}, {image.station})")


def _describe(event: Event) -> str:
    tell = _TELLERS.get(event.kind, _tell_all)
    return tell(event.payload)


def _tell_all(payload: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_short(value)}" for key, value in payload.items() if value not in (None, ""))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tell_type(payload: dict[str, Any]) -> str:
    known = [(label, score) for label, score in (payload.get("scores") or {}).items() if score is not None]
    scores = sorted(known, key=lambda item: -item[1])[1:3]
    rivals = "".join(f", {label} {percent(score)}" for label, score in scores)
    verdict = "" if payload.get("accepted", True) else f" rejected: {payload.get('reason')}"
    return f"{payload['label'] or 'no type'} {percent(payload.get('confidence'))}{rivals}{verdict}"


def _tell_bin(payload: dict[str, Any]) -> str:
    return f"{payload['bin'] or 'nowhere'}: {payload.get('reason', '')}"


def _tell_look(payload: dict[str, Any]) -> str:
    parts = [f"{payload['view']}: {payload['verdict']}", payload.get("reason") or ""]
    if payload.get("probability") is not None:
        parts.append(f"probability of a defect {percent(payload['probability'])}")
    parts.append(f"code {payload['code']}" if payload.get("code") else "no code read")
    if payload.get("seconds") is not None:
        parts.append(f"{1000 * payload['seconds']:.0f} ms")
    return ", ".join(part for part in (*parts, payload.get("model") or "") if part)


def _tell_fault(payload: dict[str, Any]) -> str:
    return f"{payload['code']}: {payload.get('text', '')}"


def _tell_grade(payload: dict[str, Any]) -> str:
    shares = dict(zip("ABCD", payload.get("probabilities") or (), strict=False))
    told = ", ".join(f"{grade} {percent(share)}" for grade, share in shares.items() if share)
    return f"{payload['grade'] or 'none'} ({payload.get('status')}), {told}{_behind(payload.get('reason'))}"


def _tell_group(payload: dict[str, Any]) -> str:
    return payload["group"] or f"none{_behind(payload.get('leftover'))}"


def _behind(text: str | None) -> str:
    return f": {text}" if text else ""


_TELLERS: dict[EventKind, Callable[[dict[str, Any]], str]] = {
    EventKind.TYPED: _tell_type,
    EventKind.DECIDED: _tell_bin,
    EventKind.DISPOSED: _tell_bin,
    EventKind.LOOKED: _tell_look,
    EventKind.STATION_FAULT: _tell_fault,
    EventKind.GRADED: _tell_grade,
    EventKind.GROUPED: _tell_group,
}

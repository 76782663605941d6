"""`battery-sorting items`: the batteries of a shift, or the story of one."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated, Any

import typer

from battery_sorting.cli._exit import NothingFoundError
from battery_sorting.cli._ledger import JsonOption, LedgerArgument, ShiftOption, end_if_incomplete, find_battery
from battery_sorting.cli._output import say, show, write_json
from battery_sorting.ledger import Event, EventData
from battery_sorting.ledger.events import CellGraded, CellGrouped, Decided, Disposed, Looked, StationFaulted, Typed
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
    events: list[Event[EventData]] = book.events(battery_id=battery_id)
    images = book.images(battery_id)
    kind = kind_of(find_shift(book, battery.shift_id))
    if as_json:
        story = {
            "battery": asdict(battery),
            "events": [_as_stored(event) for event in events],
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


def _as_stored(event: Event[EventData]) -> dict[str, Any]:
    return {name: getattr(event, name) for name in Event.__slots__ if name != "data"}


def _describe(event: Event[EventData]) -> str:
    match event.data:
        case Typed() as typed:
            return _tell_type(typed)
        case Decided(place, reason) | Disposed(place, reason):
            return f"{place or 'nowhere'}: {reason}"
        case Looked() as look:
            return _tell_look(look)
        case StationFaulted(code, text):
            return f"{code}: {text}"
        case CellGraded() as graded:
            return _tell_grade(graded)
        case CellGrouped(group, leftover):
            return group or f"none{_behind(leftover)}"
    told = event.payload.items()
    return ", ".join(f"{key} {_short(value)}" for key, value in told if value not in (None, ""))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tell_type(typed: Typed) -> str:
    known = [(label, score) for label, score in typed.scores.items() if score is not None]
    scores = sorted(known, key=lambda item: -item[1])[1:3]
    rivals = "".join(f", {label} {percent(score)}" for label, score in scores)
    verdict = "" if typed.accepted else f" rejected: {typed.reason}"
    return f"{typed.label or 'no type'} {percent(typed.confidence)}{rivals}{verdict}"


def _tell_look(look: Looked) -> str:
    parts = [f"{look.view}: {look.verdict}", look.reason]
    if look.probability is not None:
        parts.append(f"probability of a defect {percent(look.probability)}")
    parts.append(f"code {look.code}" if look.code else "no code read")
    if look.seconds is not None:
        parts.append(f"{1000 * look.seconds:.0f} ms")
    return ", ".join(part for part in (*parts, look.model) if part)


def _tell_grade(graded: CellGraded) -> str:
    shares = dict(zip("ABCD", graded.probabilities, strict=False))
    told = ", ".join(f"{grade} {percent(share)}" for grade, share in shares.items() if share)
    return f"{graded.grade or 'none'} ({graded.status}), {told}{_behind(graded.reason)}"


def _behind(text: str) -> str:
    return f": {text}" if text else ""

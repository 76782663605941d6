"""`battery-sorting report` and `battery-sorting items`: what a shift came to, and the story of one battery."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import singledispatch
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from battery_sorting.belt.report import ALL, BeltReport, Figures, Run
from battery_sorting.cli._destinations import PAGES, check_file
from battery_sorting.cli._ev_report_text import print_ev_report, stories_table
from battery_sorting.cli._exit import NothingFoundError
from battery_sorting.cli._kept_pictures import ImagesOption, KeptPictures, find_battery
from battery_sorting.cli._output import remark, say, show, width, write_json
from battery_sorting.cli._report_text import bin_columns, percent, row_name
from battery_sorting.cli._unreadable import end_if_incomplete, told
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.ev.report import EvReport, is_ev, load_ev_run, stories_of
from battery_sorting.ledger import BatteryRecord, Event, EventData, Shift
from battery_sorting.ledger.events import CellGraded, CellGrouped, Decided, Disposed, Looked, StationFaulted, Typed
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.reporting import ShiftReport, find_shift
from battery_sorting.lines import kind_of

LedgerArgument = Annotated[str, typer.Argument(help="Ledger: path of the file, or postgresql://…")]
ShiftOption = Annotated[int | None, typer.Option("--shift", help="Number of the shift; the last one by default.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output in place of tables.")]


def report(
    ledger: LedgerArgument,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page.")] = None,
    as_json: JsonOption = False,
    plant: Annotated[Path | None, typer.Option(help="The plant's record (JSONL): the truth to judge by.")] = None,
    shift: ShiftOption = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the training pictures, to show those like a battery on the page.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model that explains on the page; else the one that decided.")
    ] = None,
    images: ImagesOption = None,
) -> None:
    """Figures of a shift. Belt: type by bin, purity, yield, latency. EV line: outlets, faults, grades, packs."""
    check_file("--html", html, PAGES, [Path(ledger)])
    with Ledger.open(ledger, read_only=True) as book:
        kind = kind_of(find_shift(book, shift))
        given = {"--data": data, "--model": model}
        wrong = [f"{name}: is of the belt line only" for name, value in given.items() if value is not None]
        if wrong and not kind.explains:
            raise ConfigurationError(book.name, wrong)
        found = kind.report(book, shift, plant)
        if html is not None:
            write_page_of(found, _Page(html, book, KeptPictures(book, images), model, data))
    if as_json:
        write_json(found.to_dict() | ({"unreadable": book.unreadable} if book.unreadable else {}))
    else:
        print_tables_of(found)
        if found.empty:
            remark(f"{book.name}: shift {found.shift.shift_id} has no {found.item} yet")
        if html is not None:
            say(f"report: {html}")
    end_if_incomplete(book.name, book.unreadable)


# ---- how a report looks: by its class, as tables if there is no layout of its own ----


@dataclass(frozen=True)
class _Page:
    """Where a page is written, and what it shows beside the figures.

    Attributes:
        model: Folder of the model that explains; None: the one that decided.
        data: Folder of the training pictures.
    """

    path: Path
    book: Ledger
    pictures: KeptPictures
    model: Path | None = None
    data: Path | None = None


@singledispatch
def print_tables_of(report: ShiftReport) -> None:
    """Print the tables of a report."""
    for part in report.tables():
        table = Table(*part.heads, title=part.title)
        for row in part.rows:
            table.add_row(*row)
        show(table)


@print_tables_of.register
def _(report: BeltReport) -> None:
    print_report(report.run, report.figures)


@print_tables_of.register
def _(report: EvReport) -> None:
    print_ev_report(report.run, report.figures)


@singledispatch
def write_page_of(report: ShiftReport, page: _Page) -> None:
    """Write a report as a page."""
    from battery_sorting.cli._line_report_html import write_line_html

    write_line_html(page.path, report, page.book.name, told(page.book.unreadable))


@write_page_of.register
def _(report: BeltReport, page: _Page) -> None:
    # Matplotlib takes a second to import, onnxruntime another.
    from battery_sorting.cli._cases import Explainers
    from battery_sorting.cli._instructive import instructive
    from battery_sorting.cli._report_html import write_html

    decisions = instructive(report.run, page.pictures, Explainers(page.model, page.data))
    unreadable = told(page.book.unreadable)
    write_html(page.path, report.run, report.figures, page.book.name, decisions, unreadable)


@write_page_of.register
def _(report: EvReport, page: _Page) -> None:
    # Matplotlib and scikit-learn take seconds to import.
    from battery_sorting.cli._ev_report_html import write_ev_html

    write_ev_html(page.path, report.run, report.figures, page.book, page.pictures)


# ---- batteries ----


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
        if is_ev(chosen):
            _list_stories(book, chosen, as_json, bin_, reason, limit)
            end_if_incomplete(book.name, book.unreadable)
            return
        batteries = book.batteries(chosen.shift_id, bin=bin_, reason=reason, limit=limit)
    if as_json:
        write_json([asdict(battery) for battery in batteries])
    elif batteries:
        show(_batteries_table(chosen, batteries))
    end_if_incomplete(book.name, book.unreadable)
    _refuse_if_none(book.name, chosen, batteries)


def _list_stories(
    book: Ledger, shift: Shift, as_json: bool, bin_: str | None, reason: str | None, limit: int
) -> None:
    stories = [
        story
        for story in load_ev_run(book, shift.shift_id).stories
        if (bin_ is None or bin_ in {story.outlet, story.bin})
        and (reason is None or reason in {story.reason, story.bin_reason, *(fault.code for fault in story.faults)})
    ][:limit]
    if as_json:
        write_json([story.to_dict() for story in stories])
    elif stories:
        show(stories_table(f"Shift {shift.shift_id}, started {_clock(shift.started_at)}", stories))
    end_if_incomplete(book.name, book.unreadable)
    _refuse_if_none(book.name, shift, stories)


def _refuse_if_none(name: str, shift: Shift, found: Sequence[object]) -> None:
    if not found:
        raise NothingFoundError(f"{name}: shift {shift.shift_id} has no battery that fits")


def print_report(run: Run, figures: Figures) -> None:
    """Print the figures of a run as tables."""
    show(_type_table(figures, width()))
    if figures.correct_bin is not None:
        show(_share_table(figures))
    show(_key_table(run, figures))
    if figures.others_reasons:
        table = Table("why", "batteries", title="Into others")
        table.columns[1].justify = "right"
        for name, count in figures.others_reasons.items():
            table.add_row(name.replace("_", " "), str(count))
        show(table)


def _type_table(figures: Figures, width: int | None) -> Table:
    """Types by bins. Where the names of the bins don't fit, they are numbered and named below the table."""
    bins = bin_columns(figures)
    names = [row_name(type_, figures) for type_ in figures.table]
    heads = [*bins, ALL]
    caption = None
    needed = sum(len(head) + 3 for head in heads) + max(map(len, names), default=0) + 4
    if width is not None and needed > width:
        heads = [*(str(number) for number, _ in enumerate(bins, start=1)), ALL]
        caption = ", ".join(f"{number} {name}" for number, name in zip(heads, bins, strict=False))
    table = Table(
        title="True type by bin" if figures.correct_bin is not None else "Type as named by bin", caption=caption
    )
    table.add_column("type", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for name, row in zip(names, figures.table.values(), strict=True):
        table.add_row(name, *(str(row.get(bin_, "·")) for bin_ in bins), str(sum(row.values())))
    return table


def _share_table(figures: Figures) -> Table:
    table = Table("bin", "purity", "yield", title="Purity and yield")
    table.columns[1].justify = table.columns[2].justify = "right"
    for name, purity in figures.purity.items():
        if name == ALL:
            table.add_section()
        table.add_row(name, percent(purity), percent(figures.yield_[name]))
    return table


def _key_table(run: Run, figures: Figures) -> Table:
    table = Table("figure", "value", title=f"Shift {run.shift.shift_id} of {run.shift.site}/{run.shift.line}")
    table.columns[1].justify = "right"
    rows: list[tuple[str, Any]] = [
        ("batteries", figures.items),
        ("accounted for", figures.accounted),
        ("in the right bin", figures.correct_bin),
        ("in a wrong bin", figures.wrong_bin),
        ("named right, not in their bin", figures.named_but_misplaced),
        ("into others", figures.others),
        ("missed", figures.missed),
        ("late", figures.late),
        ("ejected twice", figures.double_ejected),
        ("ledger and plant disagree", None if figures.correct_bin is None else len(figures.disagreements)),
        ("type accuracy", None if figures.type_accuracy is None else percent(figures.type_accuracy)),
        ("decision latency p50 / p99 / max, ms", _numbers(figures.decision_latency_ms)),
        ("position error p50 / p99 / p99.9, mm", _numbers(figures.position_error_mm)),
        ("start to first sorted, s", _number(figures.startup_s)),
        ("memory of the cell, MB", _number((figures.memory_mb or {}).get(ALL))),
        ("CPU of the cell, % of a core", _number((figures.cpu_percent or {}).get(ALL))),
        ("real-time factor", _number(figures.real_time_factor, 2)),
    ]
    for name, value in rows:
        if value is not None:
            table.add_row(name, str(value))
    return table


def _numbers(spread: dict[str, float | None]) -> str | None:
    values = list(spread.values())
    return None if not values or values[0] is None else " / ".join(_number(value) or "–" for value in values)


def _number(value: float | None, digits: int = 1) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _batteries_table(shift: Shift, batteries: Iterable[BatteryRecord]) -> Table:
    table = Table(title=f"Shift {shift.shift_id}, started {_clock(shift.started_at)}")
    for name in ("battery", "at, s", "type", "sure", "bin", "reason"):
        table.add_column(name, no_wrap=True, justify="right" if name in {"at, s", "sure"} else "left")
    for battery in batteries:
        table.add_row(
            battery.battery_id,
            f"{battery.detected_at - shift.started_at:.2f}",
            battery.label or "–",
            percent(battery.confidence),
            _place(battery),
            battery.reason or battery.decided_reason or "",
        )
    return table


def _place(battery: BatteryRecord) -> str:
    return "on its way" if battery.bin is None else battery.bin or "nowhere"


def _tell_story(book: Ledger, battery_id: str, as_json: bool) -> None:
    battery = find_battery(book, battery_id)
    events: list[Event[EventData]] = book.events(battery_id=battery_id)
    images = book.images(battery_id)
    if as_json:
        story = {
            "battery": asdict(battery),
            "events": [_as_stored(event) for event in events],
            "images": [asdict(image) for image in images],
        }
        if is_ev(find_shift(book, battery.shift_id)):
            story["story"] = stories_of([battery], events)[0].to_dict()
        write_json(story)
        return
    say(f"battery {battery_id}: {_place(battery)} ({battery.reason or 'not decided'})")
    entrance = kind_of(find_shift(book, battery.shift_id)).entrance
    say(f"{entrance} at {_clock(battery.detected_at)}, shift {battery.shift_id}")
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


def _clock(stamp: float) -> str:
    return datetime.fromtimestamp(stamp, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"

"""The report of a belt line as tables, and its key figures as tiles of the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.table import Table

from battery_sorting.belt.report import ALL, ON_BELT, UNACCOUNTED, UNKNOWN, BeltReport, Figures
from battery_sorting.core.types import OTHERS
from battery_sorting.report.words import number, percent, words


def belt_tables(report: BeltReport, width: int | None) -> Iterator[Table]:
    """The figures as tables; ``width`` as in `ReportLayout.parts`."""
    figures = report.figures
    yield type_table(figures, width)
    if figures.correct_bin is not None:
        yield _share_table(figures)
    yield _key_table(report)
    if figures.others_reasons:
        table = Table("why", "batteries", title="Into others")
        table.columns[1].justify = "right"
        for name, count in figures.others_reasons.items():
            table.add_row(words(name), str(count))
        yield table


def type_table(figures: Figures, width: int | None) -> Table:
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


# ---- key figures: a line on the terminal, a tile on the page ----


def _key_table(report: BeltReport) -> Table:
    shift = report.shift
    table = Table("figure", "value", title=f"Shift {shift.shift_id} of {shift.site}/{shift.line}")
    table.columns[1].justify = "right"
    for name, value in _key_rows(report.figures):
        if value is not None:
            table.add_row(name, str(value))
    return table


def _key_rows(figures: Figures) -> list[tuple[str, object]]:
    """Name and value; what is None can't be said, and has no line."""
    return [
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


class Tile(NamedTuple):
    """A key figure on the page; ``good`` says whether it is as it must be (None: nothing must)."""

    name: str
    value: object
    note: str = ""
    good: bool | None = None


def key_tiles(figures: Figures) -> list[Tile]:
    """The key figures of the page; those that can't be said are left out."""
    judged = figures.correct_bin is not None
    latency, position = figures.decision_latency_ms, figures.position_error_mm
    tiles: list[Tile | None] = [
        Tile("batteries", figures.items, f"{figures.accounted} accounted for", figures.items == figures.accounted),
        Tile("in the right bin", figures.correct_bin) if judged else None,
        _none_wanted("in a wrong bin", figures.wrong_bin) if judged else None,
        Tile("into others", figures.others),
        _none_wanted("named right, not in their bin", figures.named_but_misplaced) if judged else None,
        _none_wanted("ledger and plant disagree", len(figures.disagreements)) if judged else None,
        _none_wanted("missed", figures.missed),
        _none_wanted("late", figures.late),
        _none_wanted("ejected twice", figures.double_ejected),
        Tile("type accuracy", percent(figures.type_accuracy)) if judged else None,
        Tile("purity", percent(figures.purity[ALL]), "of the product bins") if judged else None,
        Tile("yield", percent(figures.yield_[ALL]), "of the known types") if judged else None,
        Tile(
            "decision latency, median",
            f"{number(latency['p50'], 1)} ms",
            f"p99 {number(latency['p99'], 1)}, max {number(latency['max'], 1)} ms",
        ),
    ]
    if position["p50"] is not None:
        note = f"p99 {number(position['p99'], 1)}, p99.9 {number(position['p999'], 1)} mm"
        tiles.append(Tile("position error, median", f"{number(position['p50'], 1)} mm", note))
    if figures.startup_s is not None:
        tiles.append(Tile("start to first sorted", f"{figures.startup_s:.1f} s"))
    if figures.memory_mb:
        memory_mb = figures.memory_mb.get(ALL, sum(figures.memory_mb.values()))
        tiles.append(Tile("memory of the cell", f"{memory_mb:.0f} MB"))
    return [tile for tile in tiles if tile is not None]


def _none_wanted(name: str, count: int | None) -> Tile:
    return Tile(name, count, "", count == 0)


def _numbers(spread: dict[str, float | None]) -> str | None:
    values = list(spread.values())
    return None if not values or values[0] is None else " / ".join(_number(value) or "–" for value in values)


def _number(value: float | None, digits: int = 1) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


# ---- words of the belt ----


def bin_columns(figures: Figures) -> list[str]:
    """The bins of the table: product bins by name, then *others*, then what is in none."""
    last = [OTHERS, UNACCOUNTED, ON_BELT]
    bins = {name for row in figures.table.values() for name in row}
    return [*sorted(bins - set(last)), *(name for name in last if name in bins)]


def row_name(type_: str, figures: Figures) -> str:
    """Type as a row of the table shows it."""
    if type_ != UNKNOWN:
        return type_
    return "not named" if figures.correct_bin is None else "unknown brand"

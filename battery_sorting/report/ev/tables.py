"""The report of an EV line as tables, its key figures as tiles of the page, and the stories of its cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from battery_sorting.ev.report import QUANTITIES, CellStory, EvFigures, EvJudgement, EvReport, InspectedFrame
from battery_sorting.report.words import number, percent, words

UNITS = {"capacity_ah": ("capacity", "Ah"), "resistance_mohm": ("resistance", "mΩ"), "ocv_v": ("OCV", "V")}
MOST_ROWS = 30


def ev_parts(report: EvReport, width: int | None) -> Iterator[Table | str]:
    """The figures as tables and lines; ``width`` as in `ReportLayout.parts`."""
    figures, most = report.figures, None if width is None else MOST_ROWS
    yield _outlet_table(figures)
    if figures.verdicts:
        yield _verdict_table(figures)
    if figures.faults:
        yield _counts("What went wrong with cells", ("fault", "cells"), figures.faults)
    if figures.groups:
        yield _group_table(figures, most)
    yield _key_table(report)
    if figures.judged is not None:
        yield from _judgement_parts(figures.judged, most)


def _outlet_table(figures: EvFigures) -> Table:
    table = Table("outlet", "cells", "why", title="Where the station has released the cells to")
    table.columns[1].justify = "right"
    for outlet, count in figures.outlets.items():
        reasons = sorted(figures.reasons.get(outlet, {}).items(), key=lambda item: -item[1])
        table.add_row(outlet, str(count), ", ".join(f"{words(name)} {n}" for name, n in reasons))
    return table


def _verdict_table(figures: EvFigures) -> Table:
    names = list(dict.fromkeys(name for verdicts in figures.verdicts.values() for name in verdicts))
    table = Table("view", *map(words, names), title="What the inspector said")
    for column in table.columns[1:]:
        column.justify = "right"
    for view, verdicts in figures.verdicts.items():
        table.add_row(view, *(str(verdicts.get(name, "·")) for name in names))
    return table


def _group_table(figures: EvFigures, most: int | None) -> Table:
    table = Table("group", "tray", "cells", "grades", title="Packs and groups, with the range of their cells")
    for _, (name, unit) in UNITS.items():
        table.add_column(f"{name}, {unit}", justify="right")
    shown = figures.groups[:most]
    for group in shown:
        grades = ", ".join(f"{grade} {count}" for grade, count in group.grades.items())
        ranges = [number(group.ranges[quantity], 3) for quantity in QUANTITIES]
        table.add_row(group.name, group.tray or "–", str(len(group.cells)), grades, *ranges)
    if len(figures.groups) > len(shown):
        table.caption = f"and {len(figures.groups) - len(shown)} more"
    return table


def _key_table(report: EvReport) -> Table:
    shift = report.shift
    table = Table("figure", "value", title=f"Shift {shift.shift_id} of {shift.site}/{shift.line}")
    table.columns[1].justify = "right"
    for name, value in key_rows(report.figures):
        table.add_row(name, value)
    return table


def key_rows(figures: EvFigures) -> list[tuple[str, str]]:
    """Figures of a run in words; those that can't be said are left out."""
    rows: list[tuple[str, Any]] = [
        ("cells", figures.cells),
        ("accounted for", figures.accounted),
        ("on their way", figures.open or None),
        ("measured", figures.measured or None),
        ("measured more than once", figures.measured_again or None),
        ("grades", ", ".join(f"{grade} {count}" for grade, count in figures.grades.items()) or None),
        ("left over", ", ".join(f"{count}: {words(why)}" for why, count in figures.leftover.items()) or None),
        ("trays", ", ".join(f"{tray} {count}" for tray, count in sorted(figures.trays.items())) or None),
        ("moves of the robot", ", ".join(f"{words(name)} {n}" for name, n in figures.moves.items()) or None),
        ("in the station, median / p95, s", _spread(figures.station_s)),
        ("cell to cell, median / p95, s", _spread(figures.cycle_s)),
        ("inference of both views, median / p95, ms", _spread(figures.inference_s, 1000, 0)),
        ("looking at both views, median / p95, ms", _spread(figures.looking_s, 1000, 0)),
        ("a test, median / p95, s of the clock", _spread(figures.test_s)),
        ("start to first cell released, s", number(figures.startup_s, 1)),
        ("memory of the line, MB", number((figures.memory_mb or {}).get("all"), 0)),
        ("CPU of the line, % of a core", number((figures.cpu_percent or {}).get("all"), 0)),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "–")]


def _judgement_parts(judged: EvJudgement, most: int | None) -> Iterator[Table | str]:
    table = Table("by the plant's record", "value", title="Judged by what was really there")
    table.columns[1].justify = "right"
    for name, value, _ in judgement_rows(judged):
        table.add_row(name, value)
    yield table
    if judged.defects:
        yield _defect_table(judged)
    if judged.errors:
        yield _error_table(judged)
    for title, rows in trouble_lists(judged):
        yield f"{title}:"
        for row in rows[:most]:
            yield f"  {trouble_text(row)}"


def judgement_rows(judged: EvJudgement) -> list[tuple[str, str, bool | None]]:
    """Name, value, and whether it is as it must be (None: nothing must)."""
    rejected = sum(judged.good_rejected.values())
    why = ", ".join(f"{words(name)} {count}" for name, count in judged.good_rejected.items())
    elsewhere = len(judged.hazards_elsewhere)
    return [
        ("cells that came", str(judged.cells), None),
        ("lost by the ledger", str(len(judged.lost)), not judged.lost),
        ("in another place than the ledger says", str(len(judged.disagreements)), not judged.disagreements),
        ("with a fault, and a product", str(len(judged.faulty_products)), not judged.faulty_products),
        ("faults that struck", str(sum(judged.faults.values())), None),
        ("faults without a name in the ledger", str(len(judged.faults_unnamed)), not judged.faults_unnamed),
        ("faults by another name", str(len(judged.faults_named_otherwise)), None),
        ("defective cells that became a product", str(len(judged.escapes)), None),
        ("good cells rejected", f"{rejected} of {judged.good}" + (f" ({why})" if why else ""), None),
        ("hazardous cells not in hazardous", f"{elsewhere} of {judged.hazards}", None),
    ]


def trouble_lists(judged: EvJudgement) -> list[tuple[str, list[dict[str, Any]]]]:
    """Cells that a person wants to see, by what is the matter; no empty lists."""
    lists = [
        ("Lost by the ledger", judged.lost),
        ("In another place than the ledger says", judged.disagreements),
        ("Had a fault, and became a product", judged.faulty_products),
        ("Defective, and became a product", judged.escapes),
        ("Hazardous, and elsewhere", judged.hazards_elsewhere),
        ("Faults without a name in the ledger", judged.faults_unnamed),
        ("Faults by another name", judged.faults_named_otherwise),
    ]
    return [(title, rows) for title, rows in lists if rows]


def trouble_text(row: Mapping[str, Any]) -> str:
    """One such cell in a line."""
    parts = [row.get("fault"), row.get("serial"), row.get("battery_id") or "not in the ledger"]
    kinds = {kind: row.get("severities", {}).get(kind) for kind in (row.get("lug"), row.get("case")) if kind}
    parts += [
        kind if severity is None else f"{kind} (severity {severity:.2f})"
        for kind, severity in kinds.items()
        if kind != "good"
    ]
    if row.get("faults"):
        parts.append(f"faults {', '.join(row['faults'])}")
    if "named" in row:
        parts.append(f"ledger: {', '.join(row['named']) or 'nothing'}")
    if "outlet" in row:
        parts.append(f"in {row.get('place') or row['outlet'] or 'the station'}")
    if "ledger_outlet" in row:
        parts.append(f"by the ledger in {row['ledger_place'] or row['ledger_outlet'] or 'the station'}")
    if row.get("reason"):
        parts.append(words(row["reason"]))
    return ", ".join(str(part) for part in parts if part)


def _defect_table(judged: EvJudgement) -> Table:
    table = Table("defect", "cells", "became a product", title="Defects and escapes")
    table.columns[1].justify = table.columns[2].justify = "right"
    for kind, counts in sorted(judged.defects.items()):
        table.add_row(kind, str(counts["cells"]), str(counts["escaped"]))
    return table


def _error_table(judged: EvJudgement) -> Table:
    heads = ("measurement", "cells", "mean error", "median of |error|", "largest", "within its limit of error")
    table = Table(*heads, title="Measurements against the truth")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in error_rows(judged):
        table.add_row(*row)
    return table


def error_rows(judged: EvJudgement) -> list[tuple[str, ...]]:
    """The errors of each quantity, as text."""
    found = []
    for quantity, error in judged.errors.items():
        name, unit = UNITS[quantity]
        values = (f"{error[key]:.3g}" for key in ("mean", "median_abs", "max_abs"))
        within = f"{error['within_limit']} of {error['with_limit']}"
        found.append((f"{name}, {unit}", str(error["cells"]), *values, within))
    return found


def _counts(title: str, heads: tuple[str, str], counts: Mapping[str, int]) -> Table:
    table = Table(*heads, title=title)
    table.columns[1].justify = "right"
    for name, count in counts.items():
        table.add_row(words(name), str(count))
    return table


def stories_table(title: str, stories: Iterable[CellStory]) -> Table:
    """Cells one per line."""
    heads = ("cell", "code", "lug", "case", "outlet: why", "grade", "place")
    table = Table(*heads, title=title, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for story in stories:
        views = story.views
        table.add_row(
            story.battery_id,
            story.code or "–",
            brief_look(views.get("lug")),
            brief_look(views.get("case")),
            f"{story.outlet or '–'}: {words(story.reason)}",
            story.grade,
            f"{story.where}{f' ({story.group})' if story.group else ''}",
        )
    return table


def brief_look(look: InspectedFrame | None) -> str:
    """A look in a word: the reason says more than the verdict."""
    return "–" if look is None else words(look.reason or look.verdict)


def short_look(look: InspectedFrame | None) -> str:
    """A look in a word or two."""
    if look is None:
        return "–"
    reason = "" if look.verdict == "good" else f" ({words(look.reason)})"
    probability = "" if look.probability is None else f" {percent(look.probability)}"
    return f"{words(look.verdict)}{reason}{probability}"


def _spread(spread: Mapping[str, float | None], factor: float = 1.0, digits: int = 2) -> str | None:
    median, high = spread.get("median"), spread.get("p95")
    return None if median is None or high is None else f"{median * factor:.{digits}f} / {high * factor:.{digits}f}"

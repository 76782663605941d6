"""The report of an EV line as one HTML file: what the template ev_report.html.j2 needs."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from battery_sorting.ev.report import QUANTITIES, EvFigures, EvJudgement, EvReport, EvRun, WhatIf, what_if
from battery_sorting.report.ev.cells import Measured, measured_cells
from battery_sorting.report.ev.pictures import DrawnView, Example, examples
from battery_sorting.report.ev.plots import ev_plots
from battery_sorting.report.ev.tables import (
    UNITS,
    error_rows,
    judgement_rows,
    key_rows,
    short_look,
    trouble_lists,
    trouble_text,
)
from battery_sorting.report.layout import PageRequest
from battery_sorting.report.page import page_environment, write_page
from battery_sorting.report.vision.case_page import picture_uri
from battery_sorting.report.words import clock, number, percent, told, words

MOST_ROWS = 500
PICTURE_PX = 420


def write_ev_page(report: EvReport, request: PageRequest) -> None:
    """Write the page.

    Raises:
        BatterySortingError: The file can't be written.
    """
    run, figures, book = report.run, report.figures, request.book
    measured = measured_cells(run, figures)
    shown = examples(run, book, request.pictures)
    judged = figures.judged
    environment = page_environment()
    environment.filters["words"] = words
    page = environment.get_template("ev_report.html.j2").render(
        run=run,
        figures=figures,
        ledger=book.name,
        unreadable=told(book.unreadable),
        started=clock(run.shift.started_at),
        tiles=_tiles(figures, measured),
        keys=key_rows(figures),
        judgement=[] if judged is None else judgement_rows(judged),
        defects=[] if judged is None else sorted(judged.defects.items()),
        errors=[] if judged is None else error_rows(judged),
        troubles=[] if judged is None else _troubles(judged),
        examples=[_example(example) for example in shown.found],
        examples_note=shown.note,
        faults=_fault_rows(run),
        plots=ev_plots(report, measured),
        quantities=[f"{name}, {unit}" for name, unit in UNITS.values()],
        groups=_group_rows(figures, measured),
        j=_j(measured),
        measured_note="" if measured is None else measured.note,
        channels=_channels(what_if(run, figures)),
        cells=_cell_rows(run),
        left_out=max(0, len(run.stories) - MOST_ROWS),
    )
    write_page(request.path, page, "report")


def _tiles(figures: EvFigures, measured: Measured | None) -> list[tuple[str, str, str, bool | None]]:
    """Value, name, remark, and whether it is as it must be (None: nothing must)."""
    tiles: list[tuple[str, str, str, bool | None]] = [
        (str(figures.cells), "cells", f"{figures.accounted} accounted for", figures.cells == figures.accounted)
    ]
    tiles += [(str(count), outlet, "by this outlet", None) for outlet, count in figures.outlets.items()]
    if figures.judged is not None:
        tiles += _judged_tiles(figures.judged)
    inference = f"inference {_ms(figures.inference_s)}"
    tiles.append((_ms(figures.looking_s), "looking at both views, median", inference, None))
    tiles.append((f"{number(figures.station_s.get('median'), 1)} s", "in the station, median", "", None))
    if figures.measured:
        grades = ", ".join(f"{grade} {count}" for grade, count in figures.grades.items())
        tiles.append((str(figures.measured), "measured", grades, None))
        j = _j(measured)
        tiles.append((str(len(figures.groups)), "packs or groups", f"J {j}" if j else "", None))
    return tiles


def _judged_tiles(judged: EvJudgement) -> list[tuple[str, str, str, bool | None]]:
    struck, unnamed = sum(judged.faults.values()), len(judged.faults_unnamed)
    faulty, apart = len(judged.faulty_products), len(judged.lost) + len(judged.disagreements)
    defects = sum(counts["cells"] for counts in judged.defects.values())
    rejected = sum(judged.good_rejected.values())
    return [
        (str(faulty), "with a fault, and a product", f"{struck} faults struck", not faulty),
        (str(struck - unnamed), "faults named in the ledger", f"{unnamed} not", not unnamed),
        (str(apart), "lost, or not where the ledger says", "", not apart),
        (str(len(judged.escapes)), "defective, and a product", f"of {defects} defects", None),
        (str(rejected), "good, and no product", f"of {judged.good} good cells", None),
    ]


def _troubles(judged: EvJudgement) -> list[tuple[str, list[str]]]:
    return [(title, [trouble_text(row) for row in rows]) for title, rows in trouble_lists(judged)]


def _ms(spread: dict[str, float | None]) -> str:
    median = spread.get("median")
    return "–" if median is None else f"{1000 * median:.0f} ms"


def _j(measured: Measured | None) -> str:
    if measured is None or measured.packs is None or not math.isfinite(measured.packs.j):
        return ""
    return f"{measured.packs.j:.3f}"


def _fault_rows(run: EvRun) -> list[dict[str, Any]]:
    """Per code: how many cells, where they went, and the text of one."""
    cells: Counter[str] = Counter()
    outlets: dict[str, Counter[str]] = {}
    texts: dict[str, str] = {}
    for story in run.stories:
        for code in {fault.code for fault in story.faults}:
            cells[code] += 1
            outlets.setdefault(code, Counter())[story.outlet or "none"] += 1
        for fault in story.faults:
            texts.setdefault(fault.code, fault.text)
    return [
        {
            "code": code,
            "cells": count,
            "outlets": ", ".join(f"{name} {n}" for name, n in outlets[code].most_common()),
            "text": texts[code],
        }
        for code, count in cells.most_common()
    ]


def _example(example: Example) -> dict[str, Any]:
    story = example.story
    return {
        "title": example.title,
        "id": story.battery_id,
        "code": story.code or "no code read",
        "text": story.text,
        "faults": ", ".join(dict.fromkeys(fault.code for fault in story.faults)),
        "shots": [_shot(shot) for shot in example.shots],
    }


def _shot(shot: DrawnView) -> dict[str, str]:
    look = shot.look
    novelty = "" if look.novelty is None else f", novelty {look.novelty:.2f}"
    probability = "" if look.probability is None else f"probability of a defect {percent(look.probability)}"
    return {
        "uri": picture_uri(shot.pixels[..., ::-1], PICTURE_PX),
        "view": look.view,
        "verdict": look.verdict,
        "text": words(look.verdict) + (f", {words(look.reason)}" if look.reason else ""),
        "detail": f"{probability}{novelty}",
        "note": shot.note,
    }


def _group_rows(figures: EvFigures, measured: Measured | None) -> list[dict[str, Any]]:
    costs: dict[str, float] = {}
    if measured is not None and measured.packs is not None:
        for rows, cost in zip(measured.packs.members.tolist(), measured.packs.costs.tolist(), strict=True):
            costs |= {measured.packs.ids[row]: cost for row in rows}
    return [
        {
            "name": group.name,
            "tray": group.tray or "–",
            "cells": len(group.cells),
            "grades": ", ".join(f"{grade} {count}" for grade, count in group.grades.items()),
            "ranges": [number(group.ranges[quantity], 4) for quantity in QUANTITIES],
            "cost": number(costs.get(group.cells[0]), 3),
        }
        for group in figures.groups
    ]


def _channels(found: WhatIf | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "test_h": f"{found.test_h:.1f}",
        "cycle_s": f"{found.cycle_s:.1f}",
        "products_per_h": f"{found.products_per_h:.0f}",
        "now": found.channels_now,
        "needed": found.needed,
        "rows": [
            {
                "channels": row.channels,
                "per_h": f"{row.tested_per_h:.1f}",
                "per_day": f"{24 * row.tested_per_h:.0f}",
                "share": percent(row.station_share),
            }
            for row in found.rows
        ],
    }


def _cell_rows(run: EvRun) -> list[dict[str, Any]]:
    """Cells that need a look first: those with a fault or without a last word."""
    order = sorted(run.stories, key=lambda story: (story.accounted and not story.faults, story.loaded_at))
    return [
        {
            "id": story.battery_id,
            "code": story.code or "–",
            "at": f"{story.loaded_at - run.shift.started_at:.1f}",
            "lug": short_look(story.views.get("lug")),
            "case": short_look(story.views.get("case")),
            "faults": ", ".join(dict.fromkeys(fault.code for fault in story.faults)),
            "outlet": story.outlet or "–",
            "reason": words(story.reason),
            "measurement": _measurement(story.measurement),
            "grade": story.grade,
            "group": story.group or words(story.leftover),
            "where": story.where,
        }
        for story in order[:MOST_ROWS]
    ]


def _measurement(values: dict[str, Any] | None) -> str:
    if values is None:
        return ""
    known = [(values.get(name), unit) for name, (_, unit) in UNITS.items()]
    return ", ".join(f"{value:.4g} {unit}" for value, unit in known if isinstance(value, (int, float)))

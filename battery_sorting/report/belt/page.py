"""The report of a belt line as one HTML file: figures, tables and plots, nothing loaded from elsewhere."""

from __future__ import annotations

from typing import Any

from battery_sorting.belt.report import ALL, BeltReport
from battery_sorting.report.belt.instructive import Instructive, instructive
from battery_sorting.report.belt.plots import belt_plots
from battery_sorting.report.belt.tables import bin_columns, key_tiles, row_name
from battery_sorting.report.layout import PageRequest
from battery_sorting.report.page import page_environment, write_page
from battery_sorting.report.vision.case_page import ABOUT, case_view
from battery_sorting.report.vision.cases import Explainers
from battery_sorting.report.words import clock, percent, told

_CASE_PICTURE = 320
"""Longer side of a battery's picture, in pixels: nine decisions come to about half a megabyte."""


def write_belt_page(report: BeltReport, request: PageRequest) -> None:
    """Write the page; the decisions that teach most are explained on it.

    Raises:
        BatterySortingError: The file can't be written, or there is no such folder of training pictures.
    """
    run, figures, book = report.run, report.figures, request.book
    decisions = instructive(run, request.pictures, Explainers(request.model, request.data))
    environment = page_environment()
    environment.filters["percent"] = percent
    environment.filters["row_name"] = row_name
    page = environment.get_template("belt_report.html.j2").render(
        run=run,
        figures=figures,
        ledger=book.name,
        unreadable=told(book.unreadable),
        started=clock(run.shift.started_at),
        tiles=key_tiles(figures),
        columns=bin_columns(figures),
        targets=run.routes,
        plots=belt_plots(report),
        decisions=_decisions(decisions),
        about_cases=ABOUT,
        troubles=[battery for battery in run.batteries if battery.reason != "sorted"][:100],
        ALL=ALL,
    )
    write_page(request.path, page, "report")


def _decisions(decisions: Instructive) -> dict[str, Any] | None:
    if not (decisions.cases or decisions.note):
        return None
    cases = [case_view(case, kind, _CASE_PICTURE) for kind, case in decisions.cases]
    return {"cases": cases, "note": decisions.note}

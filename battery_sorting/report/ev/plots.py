"""Plots of an EV line's report: time per cell, detection against severity, grades, packs and groups."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from battery_sorting.ev.report import EvJudgement, EvReport, EvRun
from battery_sorting.report.ev.cells import Measured
from battery_sorting.report.grading.grades import grade_map_svg
from battery_sorting.report.grading.groups import groups_svg
from battery_sorting.report.grading.packs import ranges_svg
from battery_sorting.report.plots import svg

_LOOKING, _MECHANICS = "#2b6cb0", "#cbd2d9"
_KINDS = {
    "stained": "#b7791f", "broken": "#7d5ba6", "bulging": "#b8323f",
    "dented": "#2b6cb0", "deformed": "#2f855a", "leaking": "#1c9aa8",
}  # fmt: skip
_MARKS = {"defective": "o", "unsure": "s", "good": "x", "bad_image": "+"}


def ev_plots(report: EvReport, measured: Measured | None) -> dict[str, str]:
    """SVG of every plot, by its name in the template; empty or left out where there are no data."""
    plots = {"times": _times_svg(report.run), **({} if measured is None else _measured_plots(measured))}
    if report.figures.judged is not None:
        plots["severity"] = _severity_svg(report.figures.judged)
    return plots


def _times_svg(run: EvRun) -> str:
    """Time in the station of every cell: looking, and mechanics. Empty where no cell was released."""
    known = [(story, story.station_s) for story in run.stories if story.station_s is not None]
    if not known:
        return ""
    looking = np.array([sum(look.said_s for look in story.looks) for story, _ in known])
    whole = np.array([seconds for _, seconds in known])
    figure, axes = plt.subplots(figsize=(11, 2.8), layout="constrained")
    places = np.arange(1, len(known) + 1)
    axes.bar(places, looking, width=0.9, color=_LOOKING, label="looking: exposure to verdict in the ledger")
    axes.bar(places, np.maximum(whole - looking, 0), 0.9, looking, color=_MECHANICS, label="mechanics and waiting")
    struck = np.array([bool(story.faults) for story, _ in known])
    if struck.any():
        axes.plot(places[struck], whole[struck], "v", color="#b8323f", ms=5, label="with a fault")
    axes.set(xlabel="cell", ylabel="in the station, s", xlim=(0.4, len(known) + 0.6))
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper right")
    return _svg(figure)


def _severity_svg(judged: EvJudgement) -> str:
    """Probability that the inspector gave each defect, over its true severity. Empty where there is none."""
    seen = [
        entry for entry in judged.detections if entry["severity"] is not None and entry["probability"] is not None
    ]
    if not seen:
        return ""
    figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
    for kind, colour in _KINDS.items():
        for verdict, mark in _MARKS.items():
            chosen = [entry for entry in seen if entry["kind"] == kind and entry["verdict"] == verdict]
            points = np.array([(entry["severity"], entry["probability"]) for entry in chosen]).reshape(-1, 2)
            axes.plot(*points.T, mark, color=colour, ms=6, ls="", label=kind if len(points) else None)
    handles: dict[str, Any] = {}
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        handles.setdefault(label, handle)
    axes.legend(
        handles.values(), handles.keys(), frameon=False, fontsize=8, bbox_to_anchor=(1.01, 1), loc="upper left"
    )
    axes.set(
        xlabel="severity by the plant's record",
        ylabel="probability of a defect",
        ylim=(-0.03, 1.03),
        xlim=(0, 1.02),
    )
    return _svg(figure)


def _measured_plots(measured: Measured) -> dict[str, str]:
    """Grade map, ranges of packs, cells of groups in space; what there are data for."""
    plots = {}
    if measured.grader is not None and len(measured.table):
        plots["grades"] = grade_map_svg(measured.table, measured.grades, measured.grader)
    if measured.packs is not None:
        plots["packs"] = ranges_svg(measured.table, measured.packs)
    if measured.groups is not None and measured.groups.counts():
        plots["groups"] = groups_svg(measured.table, measured.groups)
    return plots


def _svg(figure: Any) -> str:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return svg(figure)

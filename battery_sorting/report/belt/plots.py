"""Plots of a belt line's report: types, latency, reasons, and every battery from the photo-eye to its bin."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from battery_sorting.belt.report import UNKNOWN, BeltReport, Figures, Timeline, decision_latencies_ms, timelines
from battery_sorting.core.types import OTHERS
from battery_sorting.ledger import EventKind
from battery_sorting.report.words import words

_COLOURS = (
    "#2f6db5", "#e07b39", "#3a9a5b", "#c23b4e", "#7d5ba6",
    "#1c9aa8", "#b8952f", "#d6679f", "#5f7a2f", "#8a5a44",
)  # fmt: skip
_GREY = "#9aa3ad"
_INK = "#1f2933"
_BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#c9dcf0", "#2f6db5", "#173a63"])
_REDS = LinearSegmentedColormap.from_list("reds", ["#ffffff", "#f6d3d3", "#c23b4e", "#7a1420"])
_MARKS = {
    "typed": ("typed_s", "|", "#7b8794", 10),
    "ordered": ("ordered_s", ".", _INK, 8),
    "fired": ("fired_s", "D", None, 14),
    "seen at the end": ("exited_s", "s", "#52606d", 9),
    "disposed": ("disposed_s", "|", "#c4ccd4", 10),
}
"""Label: field of `Timeline`, marker, colour (``None``: that of the bin), size in square points."""
_VECTOR_LIMIT = 150
"""Timelines of more batteries than this are drawn as pixels, which keeps the file small."""

_MOST_LINES = 3000
"""More timelines can't be told apart on the page."""

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": "#c4ccd4",
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "svg.fonttype": "path",
}


def belt_plots(report: BeltReport) -> dict[str, str]:
    """SVG of every plot that there are data for, by its name in the template."""
    with mpl.rc_context(_STYLE):
        return _plots(report.figures, report)


def _plots(figures: Figures, report: BeltReport) -> dict[str, str]:
    latencies = decision_latencies_ms(report.run.each(EventKind.EJECT_REPORTED))
    lines = timelines(report.run)
    plots: dict[str, str] = {}
    if figures.confusion:
        size = len(figures.confusion)
        plots["confusion"] = _svg(
            (1.9 + 0.46 * size, 1.5 + 0.42 * size), lambda axes: _draw_confusion(axes, figures)
        )
    if latencies:
        plots["latency"] = _svg((5.6, 3.0), lambda axes: _draw_latencies(axes, latencies, figures))
    if figures.others_reasons:
        height = 0.9 + 0.34 * len(figures.others_reasons)
        plots["others"] = _svg((5.6, height), lambda axes: _draw_reasons(axes, figures))
    if lines:
        height = min(13.0, max(3.0, 1.2 + 0.035 * len(lines)))
        step = -(-len(lines) // _MOST_LINES)
        plots["timeline"] = _svg((11.6, height), lambda axes: _draw_timeline(axes, lines[::step], step))
    return plots


def _svg(size: tuple[float, float], draw: Callable[[Axes], None]) -> str:
    """One plot as an SVG element for an HTML page."""
    figure = Figure(figsize=size, dpi=130, layout="constrained")
    draw(figure.subplots())
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # In HTML the name spaces are implied; without them the page names no outside address at all.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    tag, rest = svg.split(">", 1)
    # The page gives it its size.
    tag = re.sub(r' (width|height)="[^"]*"', "", tag)
    return f"{tag}>{rest}"


def _draw_confusion(axes: Axes, figures: Figures) -> None:
    """Rows: true type, columns: the name it was sorted under. Right is blue, wrong is red."""
    confusion = figures.confusion
    rows = list(confusion)
    columns = sorted(
        {*rows, *(name for row in confusion.values() for name in row)}, key=lambda n: (n == UNKNOWN, n)
    )
    for y, true in enumerate(rows):
        total = sum(confusion[true].values())
        for x, named in enumerate(columns):
            count = confusion[true].get(named, 0)
            share = count / total
            # Not to name a battery costs yield, not purity: drawn in blue like what is right.
            colour = (_BLUES if named in {true, UNKNOWN} else _REDS)(share if count == 0 else max(share, 0.12))
            axes.add_patch(_cell(x, y, colour))
            if count:
                axes.text(x, y, str(count), ha="center", va="center", color="white" if share > 0.5 else _INK)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(
        range(len(columns)), ["not named" if c == UNKNOWN else c for c in columns], rotation=45, ha="right"
    )
    axes.set_yticks(range(len(rows)), ["unknown brand" if r == UNKNOWN else r for r in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("named")
    axes.set_ylabel("true type")


def _cell(x: int, y: int, colour: Any) -> Rectangle:
    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, facecolor=colour, edgecolor="#e4e8ec", linewidth=0.6)


def _draw_latencies(axes: Axes, latencies: list[float], figures: Figures) -> None:
    top = max(latencies)
    axes.hist(
        latencies, bins=40, range=(0, max(top * 1.05, 1)), color=_COLOURS[0], edgecolor="white", linewidth=0.4
    )
    for name, colour in (("p50", _COLOURS[2]), ("p99", _COLOURS[3])):
        value = figures.decision_latency_ms.get(name)
        if value is not None:
            axes.axvline(value, color=colour, linewidth=1.4, label=f"{name} {value:.1f} ms")
    axes.set_xlabel("end of exposure to acknowledgement by the PLC, ms")
    axes.set_ylabel("batteries")
    axes.legend(frameon=False)


def _draw_reasons(axes: Axes, figures: Figures) -> None:
    names = [words(name) for name in figures.others_reasons]
    counts = list(figures.others_reasons.values())
    bars = axes.barh(names, counts, color=_GREY, height=0.62)
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, max(counts) * 1.12)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("batteries")


def _draw_timeline(axes: Axes, lines: list[Timeline], step: int = 1) -> None:
    """One row per battery, or every ``step``-th one: its time on the belt in the colour of its bin, then pale until
    it was disposed."""
    bins = sorted({line.bin for line in lines if line.bin} - {OTHERS})
    colours: dict[str | None, str] = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(bins)}
    own = [colours.get(line.bin, _GREY) for line in lines]
    raster = len(lines) > _VECTOR_LIMIT
    height_pt = axes.get_figure(root=True).get_figheight() * 72 * 0.88  # type: ignore[union-attr]
    thickness = min(4.0, 0.62 * height_pt / len(lines))
    rows = [line.detected_at - lines[0].detected_at for line in lines]
    left_belt = [_left_belt(line) for line in lines]
    ends = [_end(line) for line in lines]
    axes.hlines(rows, left_belt, ends, colors="#e4e8ec", linewidth=thickness, rasterized=raster)
    axes.hlines(rows, 0, left_belt, colors=own, linewidth=thickness, rasterized=raster)
    for name, marker, colour, size in _MARKS.values():
        seconds = [getattr(line, name) if getattr(line, name) is not None else math.nan for line in lines]
        axes.scatter(
            seconds,
            rows,
            marker=marker,
            c=own if colour is None else colour,
            s=size * min(1.0, 3 * thickness / 2),
            zorder=3,
            linewidths=0.8,
            rasterized=raster,
        )
    axes.set_ylim(max(rows) * 1.01 + 0.3, -max(rows) * 0.01 - 0.3)
    axes.set_xlim(left=min(-0.02, *ends))
    axes.set_xlabel("time since the photo-eye, s")
    axes.set_ylabel("time of the shift, s" + (f"; one of {step} batteries is drawn" if step > 1 else ""))
    axes.legend(handles=_timeline_legend(colours), frameon=False, loc="upper left", bbox_to_anchor=(1.005, 1))


def _left_belt(line: Timeline) -> float:
    for left in (line.exited_s, line.fired_s, line.disposed_s):
        if left is not None:
            return left
    return _end(line)


def _end(line: Timeline) -> float:
    marks = (line.disposed_s, line.exited_s, line.fired_s, line.ordered_s, line.typed_s)
    return max((mark for mark in marks if mark is not None), default=0.0)


def _timeline_legend(colours: dict[str | None, str]) -> list[Line2D]:
    ways = [Line2D([], [], color=colour, linewidth=2.5, label=name) for name, colour in colours.items()]
    ways.append(Line2D([], [], color=_GREY, linewidth=2.5, label="others, or none yet"))
    return ways + [
        Line2D([], [], linestyle="", marker=marker, color=colour or _INK, markersize=5, label=label)
        for label, (_, marker, colour, _) in _MARKS.items()
    ]

"""Finds the highest rate at which the belt line still sorts without a fault, and says what limits it.

    scripts/run-in-environment python bench/belt.py [--rates 5,8,10,12] [--items 200] [--runs 3] [--json FILE]

Every rate is run several times on the simulated plant in real time; the lowest rate is the baseline. A rate holds
if every run of it holds: every battery is accounted for, every one that was named correctly is in its bin, nothing
is missed, late or ejected twice, and the plant kept real time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.runtime.demo import BeltJob, DemoOutcome, run_demo

REAL_TIME = 0.98
"""A plant that is slower than this cheats: its batteries wait for the cell."""
TOO_CLOSE = 0.02
"""A larger share of batteries that lie too close to be ejected means that the belt is too slow for the rate."""


def main() -> int:
    """Runs the benchmark. Exit code 1 if not even the baseline holds."""
    arguments = parse_arguments()
    console = Console()
    rows = []
    for rate in arguments.rates:
        row = measure(rate, arguments, console)
        rows.append(row)
        if not row["holds"]:
            break
    held = [row for row in rows if row["holds"]]
    result = {
        "highest_rate_per_s": held[-1]["rate_per_s"] if held else None,
        "limited_by": rows[-1]["limits"] if not rows[-1]["holds"] else [],
        "cpus": os.cpu_count(),
        "rates": rows,
    }
    print_table(console, rows)
    console.print(
        f"highest rate that holds: {result['highest_rate_per_s']}/s; limited by: {result['limited_by'] or '-'}"
    )
    if arguments.json is not None:
        best = held[-1] if held else rows[-1]
        arguments.json.write_text(json.dumps({**best["figures"], **result}, indent=2) + "\n", encoding="utf-8")
    return 0 if held else 1


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rates = [5.0, 8.0, 10.0, 12.0, 14.0, 16.0]
    parser.add_argument("--rates", type=lambda text: [float(part) for part in text.split(",")], default=rates)
    parser.add_argument("--items", type=int, default=200, help="batteries per run")
    parser.add_argument("--runs", type=int, default=3, help="runs per rate")
    parser.add_argument("--images", type=Path, help="pictures in place of the renderer's")
    parser.add_argument("--json", type=Path, help="write the results, with the keys of the demo for the best rate")
    return parser.parse_args()


def measure(rate: float, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All runs at one rate: the figures of the median run by p99 latency, and what went wrong in any run."""
    outcomes: list[DemoOutcome] = []
    problems: list[str] = []
    for run in range(arguments.runs):
        with tempfile.TemporaryDirectory(prefix="belt-") as folder:
            job = BeltJob(arguments.items, run, Path(folder), rate_per_s=rate, images=arguments.images)
            try:
                outcomes.append(run_demo(job))
            except BatterySortingError as error:
                problems.append(str(error).splitlines()[0])
        console.print(
            f"{rate:g}/s, run {run + 1} of {arguments.runs}: {describe(outcomes, problems)}", soft_wrap=True
        )
    problems += [text for outcome in outcomes for text in outcome.report.failures]
    outcomes.sort(key=lambda outcome: outcome.report.figures.decision_latency_ms.get("p99") or 0.0)
    middle = outcomes[len(outcomes) // 2] if outcomes else None
    limits = find_limits(outcomes, problems)
    return {
        "rate_per_s": rate,
        "speed_mps": middle.plan.recipe.speed_mps if middle else None,
        "holds": not problems and not limits and len(outcomes) == arguments.runs,
        "problems": problems,
        "limits": limits,
        "latency_p99_ms_of_runs": [outcome.report.figures.decision_latency_ms.get("p99") for outcome in outcomes],
        "figures": middle.figures.to_dict() if middle else {},
    }


def describe(outcomes: list[DemoOutcome], problems: list[str]) -> str:
    """One line on the last run."""
    if problems:
        return problems[-1]
    figures = outcomes[-1].figures
    latency = figures.decision_latency_ms
    return (
        f"{figures.accounted}/{figures.items} accounted, named but misplaced {figures.named_but_misplaced}, "
        f"late {figures.late}, latency p50 {latency['p50']:.0f} p99 {latency['p99']:.0f} ms"
    )


def find_limits(outcomes: list[DemoOutcome], problems: list[str]) -> list[str]:
    """What stands in the way of this rate."""
    limits = []
    if not outcomes:
        return problems
    figures = [outcome.report.figures for outcome in outcomes]
    recipe, site = outcomes[0].plan.recipe, outcomes[0].plan.site
    first_mm = min(ejector.offset_mm for ejector in site.ejectors)
    time_ms = first_mm / recipe.speed_mps
    if statistics.median(one.real_time_factor or 0.0 for one in figures) < REAL_TIME:
        limits.append("the plant can't keep real time: processor")
    if any(one.late for one in figures):
        limits.append(f"decisions come later than {time_ms:.0f} ms, the way to the first ejector")
    too_close = sum(one.others_reasons.get("too_close", 0) for one in figures) / sum(one.items for one in figures)
    if too_close > TOO_CLOSE:
        limits.append(
            f"{too_close:.0%} of batteries closer than {recipe.min_gap_mm:g} mm at {recipe.speed_mps:g} m/s"
        )
    if limits and statistics.median((one.cpu_percent or {}).get("all", 0.0) for one in figures) > 80 * (
        os.cpu_count() or 1
    ):
        limits.append("processor: the cell takes more than 80 % of all cores")
    return limits


def print_table(console: Console, rows: list[dict[str, Any]]) -> None:
    """Results of all rates."""
    table = Table("rate /s", "m/s", "holds", "p50 ms", "p99 ms", "p99 mm", "CPU %", "MB")
    for row in rows:
        figures = row["figures"] or {}
        latency, position = figures.get("decision_latency_ms") or {}, figures.get("position_error_mm") or {}
        table.add_row(
            f"{row['rate_per_s']:g}",
            f"{row['speed_mps'] or 0:g}",
            "yes" if row["holds"] else "no",
            f"{latency.get('p50') or 0:.0f}",
            f"{latency.get('p99') or 0:.0f}",
            f"{position.get('p99') or 0:.1f}",
            f"{(figures.get('cpu_percent') or {}).get('all', 0):.0f}",
            f"{(figures.get('memory_mb') or {}).get('all', 0):.0f}",
        )
    console.print(table)
    for row in rows:
        for text in dict.fromkeys([*row["problems"], *row["limits"]]):
            console.print(f"{row['rate_per_s']:g}/s: {text}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

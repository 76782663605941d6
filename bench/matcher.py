"""Judges which frame is taken for which battery, by a model with clocks that are set and all else that goes wrong.

    scripts/run-in-environment python bench/matcher.py [--batteries 1000000] [--seed 0] [--json FILE]

The batteries are shared among rates of 2 to 20/s, jitter of 0 to 50 % of the pitch, drift of up to 100 ppm either
way, cameras that count their triggers and such that don't, and transports of 5 to 30 ms. Each has a third without a
fault but stops of up to an hour, a third whose camera's clock is set, and a third with all faults at once. The exit
code is 1 if a frame was taken for another battery's, if more than 1 in 10,000 pictures was lost without a fault
and after the first one, or if it took more than 2 s after a step of the clock until right pairs were back.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))
from support.matcher_model import Result, Setting, run

RATES = (2.0, 5.0, 10.0, 20.0)
JITTERS = (0.0, 0.02, 0.1, 0.25, 0.5)
DRIFTS = (-100e-6, 0.0, 75e-6)
LATENCIES_S = (0.005, 0.015, 0.03)
STEPS = "steps of the clock"
KINDS: dict[str, dict[str, float]] = {
    "no fault": {"stops": 0.001},
    STEPS: {"steps": 0.003},
    "all faults": {
        "steps": 0.003,
        "lost_frames": 0.002,
        "plc_misses": 0.001,
        "camera_misses": 0.001,
        "camera_restarts": 0.0005,
        "cuts": 0.0005,
        "plc_restarts": 0.0005,
        "stalls": 0.002,
        "stops": 0.001,
    },
}
MOST_LOST = 1e-4
BACK_S = 2.0


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batteries", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    results = measure(arguments.batteries, arguments.seed)
    show(results)
    clean = [result for (kind, _), result in results.items() if kind == "no fault"]
    lost = sum(result.lost for result in clean) / sum(result.batteries for result in clean)
    back = max(
        (after_s for (kind, _), result in results.items() if kind == STEPS for after_s in result.back_after_s),
        default=0.0,
    )
    wrong = sum(result.wrong for result in results.values())
    if arguments.json is not None:
        told: dict[str, Any] = {
            "batteries": sum(result.batteries for result in results.values()),
            "seed": arguments.seed,
            "wrong": wrong,
            "lost_without_a_fault": lost,
            "lost_at_start": sum(result.lost_at_start for result in results.values()),
            "seconds": round(time.perf_counter() - begin, 1),
            "results": [
                {"kind": kind, "counts": counts, **figures(one)} for (kind, counts), one in results.items()
            ],
        }
        arguments.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return int(wrong > 0 or lost > MOST_LOST or back > BACK_S)


def measure(batteries: int, seed: int) -> dict[tuple[str, bool], Result]:
    """Kind of faults, and whether the camera counts, to what came of it."""
    grid = list(itertools.product(RATES, JITTERS, DRIFTS, LATENCIES_S))
    each = max(batteries // (len(grid) * 2 * len(KINDS)), 1)
    results = {(kind, counts): Result() for kind in KINDS for counts in (True, False)}
    for (kind, counts), total in results.items():
        for rate, jitter, drift, latency_s in grid:
            setting = Setting(each, seed, rate, jitter, counts, drift, latency_s)
            total += run(Setting(**{**asdict(setting), **KINDS[kind]}))
    return results


def figures(result: Result) -> dict[str, Any]:
    """For programs."""
    back = sorted(result.back_after_s)
    return {
        **{key: value for key, value in asdict(result).items() if key != "back_after_s"},
        "back_after_s": {str(share): back[int(share * (len(back) - 1))] for share in (0.5, 0.99, 1.0) if back},
    }


def show(results: dict[tuple[str, bool], Result]) -> None:
    """Prints a table."""
    table = Table(
        "faults",
        "counts",
        "batteries",
        "wrong",
        "lost",
        "at start",
        "lost by faults",
        "faults",
        "comparisons",
        "back (s)",
    )
    for (kind, counts), result in results.items():
        back = figures(result)["back_after_s"].values()
        table.add_row(
            kind,
            "yes" if counts else "no",
            f"{result.batteries:,}",
            f"{result.wrong}",
            f"{result.lost}",
            f"{result.lost_at_start}",
            f"{result.lost_after_faults:,}",
            f"{sum(result.faults.values()):,}",
            f"{result.comparisons:,}",
            " / ".join(f"{value:.2f}" for value in back) if kind == STEPS else "",
        )
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())

"""Packs from real cells and from many drawn ones, against three simple ways to make them.

    scripts/run-in-environment python bench/packs.py [FOLDER] [--large 1000000] [--generator normal] [--json]

FOLDER holds PulseBat's CSV files. Baselines, on the same cells: the kd-split alone (halves along the widest
feature), the cells sorted by capacity and cut, and the groups of DBSCAN-GMM, each sorted by capacity and cut, what
remains of the groups at last. Seconds are without the compilation, which is done before on a few cells.

Generators of --large, all scaled by 1.4826 · MAD as always:
    normal      capacity 30 ± 1.5 Ah, resistance 1.5 ± 0.12 mΩ, OCV 3.3 V ± 5 mV, independent normal
    correlated  the same with correlations of −0.6 (capacity, resistance), 0.3 (capacity, OCV), −0.2
    uniform     evenly within ± 1.5 Ah, ± 0.12 mΩ, ± 5 mV of these, independent
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _pulsebat import FILES, SPECS, read_pulsebat
from rich.console import Console
from rich.progress import Progress

from battery_sorting.cli._cells import finite
from battery_sorting.grading.grader import CellGrader
from battery_sorting.grading.packing.annealing import kd_packs, keep
from battery_sorting.grading.packs import PackBuilder, PackPlan, Tolerances
from battery_sorting.grading.regrouping import DBSCANGMM

SIZE = 8
MIDDLE = np.array([30.0, 1.5, 3.3])
SPREAD = np.array([1.5, 0.12, 0.005])
CORRELATIONS = np.array([[1.0, -0.6, 0.3], [-0.6, 1.0, -0.2], [0.3, -0.2, 1.0]])
BY_TOLERANCE = Tolerances.parse(["capacity=2% resistance=10% ocv=10mV"])
CASES: dict[str, dict[str, Any]] = {
    "8s within": {"layout": "8s"},
    "8s across": {"layout": "8s", "within_grade": False, "reject": ()},
    "8s within, scales 2 % 10 % 10 mV": {"layout": "8s", "scale": BY_TOLERANCE},
    "8s within, these scales, even weights": {"layout": "8s", "scale": BY_TOLERANCE, "weights": (1, 1, 1)},
    "8s across, these scales": {"layout": "8s", "scale": BY_TOLERANCE, "within_grade": False, "reject": ()},
    "4s4p across": {"layout": "4s4p", "within_grade": False, "reject": ()},
}


def main() -> int:
    arguments = parse_arguments()
    console = Console(stderr=arguments.json)
    PackBuilder("2s2p", effort=1e-3).fit(draw("normal", 40, 0))  # compiles
    kd_packs(draw("normal", 16, 0), np.arange(16), SIZE)
    result: dict[str, Any] = {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    if arguments.folder is not None:
        result["real"] = real(arguments.folder)
        show(console, result["real"])
    if arguments.large:
        result["large"] = large(arguments)
        console.print(result["large"])
    if arguments.json:
        print(json.dumps(result, indent=1))
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="folder of PulseBat's CSV files")
    parser.add_argument("--large", type=int, default=0, metavar="CELLS", help="also so many drawn cells")
    parser.add_argument("--generator", choices=("normal", "correlated", "uniform"), default="normal")
    parser.add_argument("--no-bound", action="store_true", help="leave out the lower bound of drawn cells")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser.parse_args()


def real(folder: Path) -> list[dict[str, Any]]:
    """One row per material and case, with the baselines on the same cells."""
    rows = []
    for material in FILES:
        table = read_pulsebat(folder, material)
        grades = CellGrader(SPECS[material]).fit(table).predict(table)
        for name, options in CASES.items():
            plan = PackBuilder(**options).fit(table, grades).plan_
            rows.append({"material": material, "case": name, **figures(plan), **baselines(plan, table.as_array())})
    return rows


def figures(plan: PackPlan) -> dict[str, Any]:
    return {
        "j": round(plan.j, 4),
        "j_lower_bound": finite(plan.j_lower_bound, 4),
        "gap": finite(plan.gap, 3),
        "packs": len(plan.members),
        "leftover": plan.leftover,
        "rejected": plan.counts()["rejected"],
        "utilisation": round(plan.utilisation, 5),
        "mean_ranges": np.round(plan.ranges.mean(axis=0), 5).tolist(),
        "seconds": round(plan.seconds, 2),
    }


def baselines(plan: PackPlan, rows: np.ndarray) -> dict[str, float]:
    """J of as many packs of the same cells, made in simple ways; within a grade where the plan is."""
    assert plan.objective is not None
    size, used = plan.layout.size, np.sort(plan.members.ravel())
    kinds = [used]
    if plan.within_grade and plan.grades is not None:
        kinds = [used[plan.grades[used] == grade] for grade in np.unique(plan.grades[used])]
    points = plan.objective.points(rows)
    ways: dict[str, Any] = {
        "kd_split": lambda kind: kd_packs(points, kind, size),
        "by_capacity": lambda kind: cut(rows, [kind], size),
        "clusters": lambda kind: cut(rows, clusters(rows, kind), size),
    }
    return {
        f"j_{name}": round(
            float(plan.objective.costs(rows, np.concatenate([make(kind) for kind in kinds])).mean()), 4
        )
        for name, make in ways.items()
    }


def clusters(rows: np.ndarray, kind: np.ndarray) -> list[np.ndarray]:
    labels = np.asarray(DBSCANGMM().fit_predict(rows[kind]))
    return [kind[labels == label] for label in np.unique(labels)]


def cut(rows: np.ndarray, groups: list[np.ndarray], size: int) -> np.ndarray:
    """Each group by capacity in pieces of ``size``; the pieces too small are put together at last."""
    whole, rest = [], []
    for group in groups:
        order = group[np.argsort(rows[group, 0], kind="stable")]
        full = len(order) // size * size
        whole.append(order[:full])
        rest.append(order[full:])
    return np.concatenate([*whole, *rest]).reshape(-1, size)


def draw(generator: str, count: int, seed: int) -> np.ndarray:
    """(count, 3) cells."""
    random = np.random.default_rng(seed)
    shape = (count, 3)
    deviations = random.uniform(-1, 1, shape) if generator == "uniform" else random.standard_normal(shape)
    if generator == "correlated":
        deviations = deviations @ np.linalg.cholesky(CORRELATIONS).T
    return MIDDLE + SPREAD * deviations


def large(arguments: argparse.Namespace) -> dict[str, Any]:
    """Many drawn cells: J by kd-split alone and by block annealing, seconds, memory."""
    rows = draw(arguments.generator, arguments.large, arguments.seed)
    builder = PackBuilder(f"{SIZE}s", seed=arguments.seed, bound=not arguments.no_bound)
    begin, busy = time.perf_counter(), time.process_time()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("annealing", total=len(rows))
        plan = builder.fit(rows, report=lambda cells: progress.advance(task, cells)).plan_
    whole, busy = time.perf_counter() - begin, time.process_time() - busy
    assert plan.objective is not None
    points = plan.objective.points(rows)
    chosen = keep(points, np.zeros(len(rows)), plan.members.size)
    begin = time.perf_counter()
    split = kd_packs(points, chosen, SIZE)
    split_seconds = time.perf_counter() - begin
    by_split = float(plan.objective.costs(rows, split).mean())
    by_capacity = float(plan.objective.costs(rows, cut(rows, [chosen], SIZE)).mean())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "cells": len(rows),
        "generator": arguments.generator,
        **figures(plan),
        "j_kd_split": round(by_split, 5),
        "j": round(plan.j, 5),
        "j_by_split": round(plan.j / by_split, 4),
        "j_by_capacity": round(by_capacity, 4),
        "seconds_kd_split": round(split_seconds, 2),
        "seconds_with_bound": round(whole, 2),
        "processor_seconds_with_bound": round(busy, 2),
        "peak_memory_gb": round(peak / 1e9, 2),
    }


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    for material in dict.fromkeys(row["material"] for row in rows):
        console.print(
            f"[bold]{material}[/]: J, bound; kd-split, by capacity, clusters; left over, usable, ΔmΩ, seconds"
        )
        for row in (row for row in rows if row["material"] == material):
            others = ", ".join(f"{row[name]:.3f}" for name in ("j_kd_split", "j_by_capacity", "j_clusters"))
            rest = f"{row['leftover']}, {row['utilisation']:.4f}, {row['mean_ranges'][1]:.3f}, {row['seconds']:.1f}"
            console.print(f"{row['case']}: {row['j']:.4f}, {row['j_lower_bound']:.4f}; {others}; {rest}")


if __name__ == "__main__":
    sys.exit(main())

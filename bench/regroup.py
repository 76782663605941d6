"""Regroups real cells within their grades by every method, and a million drawn ones.

    scripts/run-in-environment python bench/regroup.py FOLDER [--subsets 20] [--large 1000000] [--json]

FOLDER holds PulseBat's CSV files. All methods are judged in the scale of the cells' specification, look for
groups in it (but for the published one, which goes by the cells' spread), and get the same number of groups.
Random methods run from ten random starts; the table gives the mean of their indices, the JSON also the best start
by silhouette. Noise is counted against a method: in the silhouette index (SI) as 0, in the Davies–Bouldin index
(DBI) with the nearest centre; `kept` are the indices without it. With --subsets, random four fifths of the cells
are graded and regrouped as well, to see whether the order of the methods hangs on a few cells.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _pulsebat import FILES, SPECS, read_pulsebat
from rich.console import Console
from rich.progress import track
from rich.table import Table

from battery_sorting.grading.baselines import Baseline, BaselineGrouper
from battery_sorting.grading.grader import CellGrader
from battery_sorting.grading.grouper import Grouper, RegroupStatus
from battery_sorting.grading.groups import REGROUPED
from battery_sorting.grading.regrouping import DBSCANGMM
from battery_sorting.grading.specification import CellSpec

STARTS = 10
GROUPS: tuple[int | None, ...] = (2, 3, 4, 5, None)
FEWEST_CELLS = 12
"""Smaller grades tell nothing about a method."""
OURS = "dbscan-gmm"
RANDOM = (str(Baseline.GMM), str(Baseline.KMEANS))
CENTRES = np.array([[20.0, 1.5, 3.20], [19.0, 1.8, 3.21], [18.2, 2.0, 3.19], [17.0, 2.4, 3.20]])
SPREAD = np.array([0.25, 0.09, 0.004])


def main() -> None:
    arguments = parse_arguments()
    console = Console(stderr=arguments.json)
    result: dict[str, Any] = {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    if arguments.folder is not None:
        sets = {material: read_pulsebat(arguments.folder, material).as_array() for material in FILES}
        result["table"] = list(whole_sets(sets))
        result["targets"] = targets(result["table"])
        print_table(console, result["table"])
        if arguments.subsets:
            result["subsets"] = on_subsets(sets, arguments.subsets)
            print_subsets(console, result["subsets"])
    if arguments.large:
        result["large"] = large(arguments.large)
        console.print(result["large"])
    if "targets" in result:
        console.print(result["targets"])
    if arguments.json:
        print(json.dumps(result, indent=1))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="folder of PulseBat's CSV files")
    parser.add_argument("--subsets", type=int, default=0, metavar="N", help="also on N random subsets of each set")
    parser.add_argument("--large", type=int, default=0, metavar="CELLS", help="also on so many drawn cells")
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to standard error")
    return parser.parse_args()


def grades_of(material: str, cells: np.ndarray) -> dict[str, np.ndarray]:
    """Cells of each grade that has enough of them."""
    grades = CellGrader(SPECS[material]).fit(cells).predict(cells)
    parts = {grade: cells[grades == grade] for grade in REGROUPED}
    return {grade: part for grade, part in parts.items() if len(part) >= FEWEST_CELLS}


def whole_sets(sets: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """One row per set, grade, number of groups and method."""
    parts = [
        (material, grade, part) for material in sets for grade, part in grades_of(material, sets[material]).items()
    ]
    for material, grade, part in track(parts, "regrouping", console=Console(stderr=True)):
        for wanted in GROUPS:
            for method, estimators in methods(wanted, units_of(material)).items():
                row = {"set": material, "grade": grade, "cells": len(part), "wanted": wanted, "method": method}
                yield row | judged(estimators, part)


def units_of(material: str) -> np.ndarray:
    """What a difference of one means in each feature, by the specification."""
    return np.array(CellSpec.load(SPECS[material]).units())


def methods(wanted: int | None, scale: np.ndarray) -> dict[str, list[Grouper]]:
    """The estimators of each method, several where it is random."""
    found: dict[str, list[Grouper]] = {
        OURS: [DBSCANGMM(wanted, scale=scale)],
        "dbscan-gmm, one-cell groups allowed": [DBSCANGMM(wanted, min_group_size=1, scale=scale)],
        "dbscan-gmm as published": [DBSCANGMM(wanted, variant="published", min_group_size=1, scale=scale)],
        "dbscan-gmm, noise apart": [DBSCANGMM(wanted, noise="apart", scale=scale)],
        "dbscan": [BaselineGrouper("dbscan", wanted, scale=scale)],
        "agglomerative": [BaselineGrouper("agglomerative", wanted, scale=scale)],
    }
    for method in RANDOM:
        found[method] = [
            BaselineGrouper(method, wanted, starts=1, seed=seed, scale=scale) for seed in range(STARTS)
        ]
    return found


def judged(estimators: list[Grouper], cells: np.ndarray) -> dict[str, Any]:
    """Mean indices over the starts that gave groups, and the best start by silhouette."""
    begin = time.perf_counter()
    found = [estimator.fit(cells) for estimator in estimators]
    seconds = (time.perf_counter() - begin) / len(found)
    grouped = [estimator.validity_ for estimator in found if estimator.status_ is RegroupStatus.GROUPED]
    grouped = [validity for validity in grouped if np.isfinite(validity.si)]
    row: dict[str, Any] = {"status": str(found[0].status_), "starts": len(found), "grouped": len(grouped)}
    if grouped:
        for key in ("si", "dbi", "si_kept", "dbi_kept", "noise_fraction", "groups", "smallest"):
            row[key] = round(float(np.mean([getattr(validity, key) for validity in grouped])), 4)
        best = max(grouped, key=lambda validity: validity.si)
        row["best_start"] = {"si": round(best.si, 4), "dbi": round(best.dbi, 4), "smallest": best.smallest}
    return row | {"seconds": round(seconds, 4)}


def targets(table: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures that were aimed at."""

    def of(method: str, material: str, grade: str, wanted: int | None) -> dict[str, Any]:
        keys = {"set": material, "grade": grade, "wanted": wanted, "method": method}
        return next((row for row in table if keys.items() <= row.items()), {})

    two, free = of(OURS, "LFP", "B", 2), of(OURS, "LFP", "B", None)
    duels = []
    for row in table:
        if row["method"] != OURS or not row["wanted"] or "si" not in row:
            continue
        for rival in (str(Baseline.GMM), str(Baseline.DBSCAN), str(Baseline.KMEANS), str(Baseline.AGGLOMERATIVE)):
            other = of(rival, row["set"], row["grade"], row["wanted"])
            if "si" in other:
                better = [row["si"] >= other["si"], row["dbi"] <= other["dbi"]]
                where = f"{row['set']} {row['grade']} k={row['wanted']}"
                duels.append({"against": rival, "where": where, "si": better[0], "dbi": better[1]})
    lost = [f"{duel['where']} against {duel['against']}" for duel in duels if not (duel["si"] and duel["dbi"])]
    return {
        "lfp_b_k2_si": two.get("si"),
        "lfp_b_k2_dbi": two.get("dbi"),
        "lfp_b_free_si": free.get("si"),
        "lfp_b_free_dbi": free.get("dbi"),
        "duels": len(duels),
        "not_better_in_both": lost,
    }


def on_subsets(sets: dict[str, np.ndarray], count: int) -> list[dict[str, Any]]:
    """How often DBSCAN-GMM is at least as good as the mean start of a rival, on random four fifths of the cells."""
    wins: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    for seed in track(range(count), "subsets", console=Console(stderr=True)):
        for material, cells in sets.items():
            chosen = np.random.default_rng(seed).permutation(len(cells))[: 4 * len(cells) // 5]
            for part in grades_of(material, cells[chosen]).values():
                for wanted in (2, 3):
                    table = methods(wanted, units_of(material))
                    ours = judged(table[OURS], part)
                    for rival in ("gmm", "kmeans", "agglomerative", "dbscan"):
                        other = judged(table[rival], part)
                        if "si" in ours and "si" in other:
                            better = (ours["si"] >= other["si"], ours["dbi"] <= other["dbi"])
                            wins.setdefault((material, rival), []).append(better)
    return [
        {
            "set": material,
            "against": rival,
            "trials": len(each),
            "si": round(float(np.mean([si for si, _ in each])), 3),
            "dbi": round(float(np.mean([dbi for _, dbi in each])), 3),
            "both": round(float(np.mean([si and dbi for si, dbi in each])), 3),
        }
        for (material, rival), each in wins.items()
    ]


def drawn(count: int, seed: int = 0) -> np.ndarray:
    """Cells (count, 3) of four batches, normal about their centres, and 0.1 % anywhere between; meter's digits."""
    random = np.random.default_rng(seed)
    cells = CENTRES[random.integers(0, len(CENTRES), count)] + SPREAD * random.normal(size=(count, 3))
    stray = random.random(count) < 0.001
    low, high = CENTRES.min(axis=0) - 4 * SPREAD, CENTRES.max(axis=0) + 4 * SPREAD
    cells[stray] = low + (high - low) * random.random((int(stray.sum()), 3))
    digits = np.array([1e3, 1e4, 1e5])
    return np.round(cells * digits) / digits


def large(count: int) -> dict[str, Any]:
    """Time and memory of regrouping ``count`` cells."""
    cells = drawn(count)
    begin = time.perf_counter()
    found = DBSCANGMM().fit(cells)
    seconds = time.perf_counter() - begin
    return {
        "cells": count,
        "seconds": round(seconds, 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "groups": found.n_groups_,
        "si": round(found.validity_.si, 4),
        "dbi": round(found.validity_.dbi, 4),
        "noise_found": int(found.noise_found_.sum()),
        "load": round(os.getloadavg()[0], 2),
    }


def print_table(console: Console, rows: list[dict[str, Any]]) -> None:
    """SI / DBI of every method, one line per set, grade and number of groups."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    view = Table("cells", "k", *names, title="SI / DBI, noise counted (noise %)")
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault((f"{row['set']} {row['grade']} ({row['cells']})", str(row["wanted"] or "free")), {})
        line[row["method"]] = "–" if "si" not in row else shown(row)
    for (cells, wanted), line in lines.items():
        view.add_row(cells, wanted, *(line[name] for name in names))
    console.print(view)


def shown(row: dict[str, Any]) -> str:
    text = f"{row['si']:.3f} / {row['dbi']:.2f}"
    if row["wanted"] is None:
        text += f", k {row['groups']:g}"
    return text + (f" ({row['noise_fraction']:.0%})" if row["noise_fraction"] else "")


def print_subsets(console: Console, rows: list[dict[str, Any]]) -> None:
    view = Table(
        "set", "against", "trials", "SI", "DBI", "both", title="Share in which dbscan-gmm is as good or better"
    )
    for row in rows:
        shares = (f"{row[key]:.0%}" for key in ("si", "dbi", "both"))
        view.add_row(row["set"], row["against"], str(row["trials"]), *shares)
    console.print(view)


if __name__ == "__main__":
    main()

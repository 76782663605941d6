"""How many cells one added outlier re-grades: compared with the batch, as published, and with the specification.

    scripts/run-in-environment python bench/grade_outlier.py FOLDER [--json]

FOLDER holds PulseBat's CSV files. Each outlier is one cell added to all cells of a material; its values are
plausible, so that no check takes it out before.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from _pulsebat import FILES, SPECS, read_pulsebat
from rich.console import Console
from rich.table import Table

from battery_sorting.grading import CellGrader, CellSpec

NORMS = ("batch", "spec")


def outliers(median: np.ndarray) -> dict[str, np.ndarray]:
    """Retired cells as they come along now and then."""
    capacity, resistance, voltage = median
    return {
        "weak: half the capacity, twice the resistance": np.array([capacity / 2, 2 * resistance, voltage]),
        "worn out: 10 % of the capacity": np.array([capacity / 10, resistance, voltage]),
        "bad contact: ten times the resistance": np.array([capacity, 10 * resistance, voltage]),
        "deeply discharged: 1 V": np.array([capacity, resistance, 1.0]),
        "all of it": np.array([capacity / 10, 10 * resistance, 1.0]),
    }


def regraded(cells: np.ndarray, outlier: np.ndarray, spec: CellSpec, norm: str) -> int:
    """Cells whose grade differs when ``outlier`` is graded with them."""
    before = CellGrader(spec, norm).fit(cells).predict(cells)  # type: ignore[arg-type]
    more = np.vstack([cells, outlier])
    after = CellGrader(spec, norm).fit(more).predict(more)[:-1]  # type: ignore[arg-type]
    return int((before != after).sum())


def measure(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for material in FILES:
        cells = read_pulsebat(folder, material).as_array()
        spec = CellSpec.load(SPECS[material])
        for name, outlier in outliers(np.median(cells, axis=0)).items():
            counts = {norm: regraded(cells, outlier, spec, norm) for norm in NORMS}
            rows.append({"material": material, "cells": len(cells), "outlier": name, **counts})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of PulseBat's CSV files")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(options.folder)
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    table = Table("material", "cells", "outlier", "re-graded in the batch", "by specification")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("material", "cells", "outlier", *NORMS)))
    Console().print(table)


if __name__ == "__main__":
    main()

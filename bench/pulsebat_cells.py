"""Writes real PulseBat cells as a table for `battery-sorting grade`, `regroup` and `packs`.

scripts/run-in-environment python bench/pulsebat_cells.py FOLDER --material LFP --out cells.csv
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from _pulsebat import FILES, read_pulsebat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of PulseBat's CSV files")
    parser.add_argument("--material", choices=tuple(FILES), default="LFP")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write")
    options = parser.parse_args()
    cells = read_pulsebat(options.folder, options.material)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "capacity_ah", "resistance_mohm", "ocv_v"])
        for name, row in zip(cells.ids, cells.as_array().tolist(), strict=True):
            writer.writerow([name, *(round(value, 6) for value in row)])


if __name__ == "__main__":
    main()

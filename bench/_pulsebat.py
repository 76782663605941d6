"""Real retired cells of PulseBat (Tao et al., Nature Communications 2024) as tables of cells."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.grading.table import CellTable

FILES = {"LFP": "LFP_35Ah.csv", "LMO": "LMO_10Ah.csv", "NMC": "NMC_21Ah.csv"}
SPECS = {"LFP": "lfp-35ah", "LMO": "lmo-10ah", "NMC": "nmc-21ah"}
SOC = "50"


def read_pulsebat(folder: Path, material: str) -> CellTable:
    """Cells of one material. Resistance: mean of the 1 C charge and discharge jumps at SOC 50; OCV: U1 there.

    Raises:
        ConfigurationError: The data aren't there.
    """
    path = folder / FILES[material]
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.DictReader(file) if row["SOC"] == SOC]
    except OSError as error:
        raise ConfigurationError(str(path), [f"can't be read ({error.strerror}); name the folder"]) from error

    def column(name: str) -> np.ndarray:
        return np.array([float(row[name]) for row in rows])

    # U9 and U13 are the last voltages of the rests before the 1 C pulses, U10 and U14 the first within them.
    resistance_mohm = 1000 * ((column("U10") - column("U9")) + (column("U13") - column("U14"))) / 2 / column("Qn")
    return CellTable.of_arrays(column("Q"), resistance_mohm, column("U1"), [row["ID"] for row in rows])

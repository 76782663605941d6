"""A ledger of an EV line as its nodes write it: cells looked at, measured, graded and put into packs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.site import EvSite
from battery_sorting.grading import CellGrader, CellSpec, CellTable
from battery_sorting.ledger import EventData
from battery_sorting.ledger.events import CellGraded, CellGrouped, CellMeasured, Detected, Disposed, Looked
from battery_sorting.ledger.store import Ledger

REAL = ("plant=null", "name=plant_7")
METER, CYCLER = "HIOKI BT3562A", "ACME CYCLER-8"
BEGAN = 1_770_000_000.0


def config(site: Sequence[str] = REAL, recipe: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """Snapshot of the settings as the line's controller records it."""
    return {"site": _site(tuple(site)), "recipe": _recipe(tuple(recipe)), **more}


@cache
def _site(overrides: tuple[str, ...]) -> dict[str, Any]:
    return EvSite.load("sim_ev", overrides).model_dump(mode="json")


@cache
def _recipe(overrides: tuple[str, ...]) -> dict[str, Any]:
    return EvRecipe.load("lfp_prismatic", overrides).model_dump(mode="json")


@cache
def _grader() -> CellGrader:
    return CellGrader(CellSpec.load("lfp-20ah")).fit(np.empty((0, 3)))


@dataclass
class LineOnRecord:
    """Records cells one after the other; each method is what one station says of a cell."""

    ledger: Ledger
    now: float = BEGAN
    arrived: int = 0
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def begin(cls, path: Path, settings: dict[str, Any] | None = None) -> LineOnRecord:
        ledger = Ledger.open(path)
        line = cls(ledger)
        line.begin_shift(settings)
        return line

    def begin_shift(self, settings: dict[str, Any] | None = None) -> None:
        settings = config() if settings is None else settings
        name = str((settings.get("site") or {}).get("name", "plant_7"))
        self.ledger.begin_shift("ev", name, self.now, software_version="0.9.0", config=settings)

    def record(self, data: EventData, battery_id: str) -> None:
        self.now += 1.0
        with self.ledger.transaction() as transaction:
            transaction.record(data, battery_id, self.now)

    def arrive(self) -> str:
        self.arrived += 1
        battery_id = f"0000abcd-{self.arrived:08d}"
        self.record(Detected(trigger_count=self.arrived, encoder_count=0), battery_id)
        return battery_id

    def look(self, battery_id: str, view: str, /, code: str = "", **payload: Any) -> None:
        said = {
            "view": view,
            "frame": self.arrived,
            "verdict": "good",
            "reason": "",
            "kind": "stained",  # the most probable one, even of a good view
            "probability": 0.01,
            "kinds": {"good": 0.99, "stained": 0.01},
            "novelty": 0.2,
            "code": code or f"LFP-{battery_id[-4:]}",
            "face": view,
            "model": f"{view}/1",
            "seconds": 0.02,
        }
        self.record(Looked(**said | payload), battery_id)

    def measure(self, battery_id: str, **payload: Any) -> None:
        said = {
            "programme": "capacity_20ah",
            "capacity_ah": 19.0,
            "capacity_uncertainty_ah": 0.02,
            "resistance_mohm": 1.6,
            "resistance_uncertainty_mohm": 0.013,
            "resistance_method": "AC 1 kHz",
            "dc_resistance_mohm": 2.5,
            "dc_resistance_uncertainty_mohm": 0.2,
            "dc_seconds": 10.0,
            "ocv_v": 3.199,
            "ocv_uncertainty_v": 0.0006,
            "rest_s": 1800.0,
            "soc": 0.5,
            "soc_uncertainty": 0.002,
            "temperature_c": 24.5,
            "temperature_uncertainty_c": 1.0,
            "contact_mohm": 0.4,
            "instrument": METER,
            "calibrated_on": "2026-01-15",
            "capacity_instrument": CYCLER,
            "capacity_calibrated_on": "",
        }
        self.measured[battery_id] = said | payload
        self.record(CellMeasured(**self.measured[battery_id]), battery_id)

    def grade(self, battery_id: str, **payload: Any) -> None:
        said = self.measured[battery_id]
        names = ("capacity_ah", "resistance_mohm", "ocv_v")
        values = [[math.nan if said[name] is None else said[name]] for name in names]
        grades = _grader().grade(CellTable.of_arrays(*values))
        grade = str(grades.grades[0])
        graded = {
            "grade": "" if grade == "invalid" else grade,
            "status": "invalid" if grade == "invalid" else "ok",
            "relation_degree": float(grades.degrees[0]),
            "probabilities": [float(share) for share in grades.probabilities[0]],
            "reason": grades.reasons.get(0, ""),
        }
        self.record(CellGraded(**graded | payload), battery_id)

    def group(self, groups: dict[str, str], leftover: dict[str, str] | None = None) -> None:
        """A batch, which is grouped at once."""
        self.now += 1.0
        with self.ledger.transaction() as transaction:
            for battery_id in {**groups, **(leftover or {})}:
                payload = {"group": groups.get(battery_id, ""), "leftover": (leftover or {}).get(battery_id, "")}
                transaction.record(CellGrouped(**payload), battery_id, self.now)

    def dispose(self, battery_id: str, place: str, reason: str = "grouped") -> None:
        self.record(Disposed(bin=place, reason=reason), battery_id)

    def good_cell(self, **measurement: Any) -> str:
        """A cell up to its grade."""
        battery_id = self.arrive()
        self.look(battery_id, "lug")
        self.look(battery_id, "case")
        self.measure(battery_id, **measurement)
        self.grade(battery_id)
        return battery_id

    def pack(self, cells: int = 8, name: str = "pack_1", tray: str = "tray_1") -> list[str]:
        """A batch that is one pack, in its tray."""
        ids = [self.good_cell(capacity_ah=19.0 + 0.1 * number) for number in range(cells)]
        self.group(dict.fromkeys(ids, name))
        for battery_id in ids:
            self.dispose(battery_id, tray)
        return ids

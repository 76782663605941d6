"""Packs from the cells there are: which cells, in which place, and why a cell is left over.

See docs/explanation/packs.md.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.grading.packing.annealing import Report, Search
from battery_sorting.grading.packing.arrangement import arrange, group_capacities
from battery_sorting.grading.packing.bound import lower_bound
from battery_sorting.grading.packing.incremental import IncrementalPackBuilder
from battery_sorting.grading.packing.layout import Layout
from battery_sorting.grading.packing.names import REJECTED, grade_named
from battery_sorting.grading.packing.objective import WEIGHTS, Objective, Tolerances, heard, quiet
from battery_sorting.grading.table import INDICATORS, CellTable, Floats

LEFT_OVER = -1
"""Number of the pack of cells that are in none."""
__all__ = [
    "LEFT_OVER",
    "REJECTED",
    "WEIGHTS",
    "IncrementalPackBuilder",
    "Layout",
    "Left",
    "PackBuilder",
    "PackPlan",
    "PackStatus",
    "Tolerances",
]


class PackStatus(str, Enum):
    """How pack building ended. All but `BUILT` leave J undefined."""

    BUILT = "built"
    NO_CELLS = "no_cells"
    NO_USABLE_CELLS = "no_usable_cells"
    TOO_FEW_CELLS = "too_few_cells"
    NONE_WITHIN_TOLERANCE = "none_within_tolerance"

    def __str__(self) -> str:
        return self.value


class Left(IntEnum):
    """Why a cell is in no pack."""

    NOT = 0
    FAULT = 1
    REJECTED = 2
    TOO_FEW = 3
    REMAINDER = 4
    TOLERANCE = 5


@dataclass(frozen=True)
class PackPlan:
    """Packs of n cells.

    Attributes:
        ids: Names of the n cells.
        layout: Of every pack.
        status: How it ended.
        pack: (n,) number of each cell's pack, from 0; `LEFT_OVER` for cells in none.
        group: (n,) its place in series within the pack, from 0; −1 for cells in none.
        left: (n,) `Left`.
        members: (packs, cells) row numbers; each ``layout.parallel`` in a row stand side by side.
        costs: (packs,) Σ λ_r · range_r / scale_r.
        ranges: (packs, 3) of capacity (Ah), resistance (mΩ), OCV (V).
        group_ah: (packs, series) capacity of each parallel group in Ah.
        j: Mean of the costs, NaN without packs.
        j_lower_bound: No way to build as many packs (of each grade) has a lower J; NaN if not asked for.
        objective: Scales, weights and caps in use; None without usable cells.
        seconds: How long it took, without the bound.
    """

    ids: Sequence[str]
    layout: Layout
    status: PackStatus
    pack: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]
    left: npt.NDArray[np.int8]
    members: npt.NDArray[np.int64]
    costs: Floats
    ranges: Floats
    group_ah: Floats
    j: float
    j_lower_bound: float
    objective: Objective | None
    seconds: float
    faults: dict[int, str] = field(repr=False)
    grades: npt.NDArray[np.str_] | None = field(repr=False)
    within_grade: bool = True

    @classmethod
    def of(
        cls,
        table: CellTable,
        layout: Layout,
        members: npt.NDArray[np.int64],
        objective: Objective | None,
        *,
        status: PackStatus,
        left: npt.NDArray[np.int8],
        grades: npt.NDArray[np.str_] | None,
        within_grade: bool,
    ) -> PackPlan:
        """The plan of packs (packs, cells) of the cells of a table; bound and seconds are not known."""
        rows = table.as_array()
        pack, group = (np.full(len(rows), LEFT_OVER, np.int64) for _ in range(2))
        pack[members] = np.arange(len(members))[:, None]
        group[members] = np.arange(layout.size)[None, :] // layout.parallel
        costs = np.zeros(0) if objective is None else objective.costs(rows, members)
        return cls(
            ids=table.ids,
            layout=layout,
            status=status,
            pack=pack,
            group=group,
            left=left,
            members=members,
            costs=costs,
            ranges=np.zeros((0, len(INDICATORS))) if objective is None else objective.ranges(rows, members),
            group_ah=group_capacities(rows, members, layout),
            j=float(costs.mean()) if len(costs) else float("nan"),
            j_lower_bound=float("nan"),
            objective=objective,
            seconds=float("nan"),
            faults=dict(table.faults),
            grades=grades,
            within_grade=within_grade,
        )

    @property
    def gap(self) -> float:
        """How far J may be above the best there is, as a share of J (0..1); NaN if not known."""
        return 1 - self.j_lower_bound / self.j if self.j > 0 else self.j - self.j_lower_bound

    @property
    def utilisation(self) -> float:
        """Share of the packed cells' capacity that can be used, 0..1: a pack ends with its weakest group."""
        total = float(self.group_ah.sum())
        return float(self.layout.series * self.group_ah.min(axis=1).sum() / total) if total > 0 else float("nan")

    @property
    def leftover(self) -> int:
        """Cells in no pack."""
        return int((self.pack == LEFT_OVER).sum())

    def reason(self, row: int) -> str:
        """Why a cell is in no pack; empty for cells that are in one."""
        why = Left(self.left[row])
        if why is Left.FAULT:
            return self.faults[row]
        grade = "" if self.grades is None else f" of grade {self.grades[row]}"
        alike = grade if self.within_grade else ""
        return {
            Left.NOT: "",
            Left.REJECTED: f"cells{grade} are not used",
            Left.TOO_FEW: f"there are fewer than {self.layout.size} usable cells{alike}",
            Left.REMAINDER: f"the usable cells{alike} are no multiple of {self.layout.size}",
            Left.TOLERANCE: "no pack that it would be in is within the tolerances",
        }[why]

    def counts(self) -> dict[str, int]:
        """Cells, those packed, packs, and those left over by reason."""
        found = Counter(self.left.tolist())
        names = {why.name.lower(): found[why] for why in Left if why is not Left.NOT}
        return {"cells": len(self.pack), "packed": self.members.size, "packs": len(self.members), **names}


@dataclass
class PackBuilder:
    """Builds packs of one layout so that the cells of each are alike.

    It lowers J, the mean over packs of Σ_r λ_r · range_r / scale_r over capacity, resistance and OCV (`Objective`);
    parallel groups are then made equal in capacity and alike in the other two. The same cells, seed and effort give
    the same packs, whatever the order of threads.

    Attributes:
        layout: `Layout`, or its text.
        within_grade: Only cells of one grade share a pack, where grades are given.
        tolerance: Caps on the ranges in a pack. A pack beyond one is not built.
        scale: Scales of the objective; what it does not name is 1.4826 · MAD of the usable cells.
        weights: λ of capacity, resistance, OCV.
        reject: Grades whose cells are not used.
        seed: Of the random moves.
        effort: Factor on the number of moves; less is quicker and worse.
        bound: Whether to compute the lower bound, too.
        threads: Used at the same time; None: one per processor.
    """

    layout: Layout | str = "8s"
    within_grade: bool = True
    tolerance: Tolerances | None = None
    scale: Tolerances | None = None
    weights: Sequence[float] = WEIGHTS
    reject: Sequence[str] = REJECTED
    seed: int = 0
    effort: float = 1.0
    bound: bool = True
    threads: int | None = None

    def heard(self) -> tuple[str, ...]:
        """The quantities that have a say: those with a weight or a cap. Others may be missing."""
        return heard(self.weights, self.tolerance)

    def fit(
        self,
        cells: CellTable | npt.ArrayLike,
        grades: npt.ArrayLike | None = None,
        priority: npt.ArrayLike | None = None,
        report: Report | None = None,
    ) -> PackBuilder:
        """Build packs; ``plan_`` is the `PackPlan`, ``labels_`` (n,) the number of each cell's pack.

        Args:
            cells: A table, or (n, 3) of capacity in Ah, resistance in mΩ, OCV in V.
            grades: (n,) grade of each cell.
            priority: (n,) numbers. Where not all cells are needed, those with a higher number are used; only caps
                may leave them over. Not given: all the same.
            report: Is told of progress, in cells.

        Raises:
            ConfigurationError: Layout, weights, grades or priorities make no sense, or numba is missing.
        """
        self.plan_ = _Build(self, _table(cells), grades, priority, report).plan()
        self.labels_ = self.plan_.pack
        return self

    def fit_predict(self, cells: CellTable | npt.ArrayLike, grades: npt.ArrayLike | None = None) -> Any:
        """(n,) number of each cell's pack, `LEFT_OVER` for those in none."""
        return self.fit(cells, grades).labels_


class _Build:
    """One call of `PackBuilder.fit`."""

    def __init__(
        self,
        builder: PackBuilder,
        table: CellTable,
        grades: npt.ArrayLike | None,
        priority: npt.ArrayLike | None,
        report: Report | None,
    ) -> None:
        self.heard = builder.heard()
        self.builder, self.table, self.report = builder, table.heard(self.heard), report
        layout = builder.layout
        self.layout = layout if isinstance(layout, Layout) else Layout.parse(layout)
        self.threads = builder.threads or os.cpu_count() or 1
        count = len(table)
        named = None if grades is None else np.asarray(grades)
        if named is not None and named.ndim == 1:
            named = np.array([grade_named(grade) for grade in named.tolist()], dtype=np.str_)
        self.grades = named
        self.rejected = [grade_named(grade) for grade in builder.reject]
        self.priority = np.zeros(count) if priority is None else np.array(priority, float)
        if self.grades is not None and self.grades.shape != (count,):
            raise ConfigurationError("grades", [f"give one for each of the {count} cells, not {self.grades.shape}"])
        if self.priority.shape != (count,) or not np.isfinite(self.priority).all():
            raise ConfigurationError("priority", [f"give a finite number for each of the {count} cells"])
        if not builder.effort > 0:
            raise ConfigurationError("effort", [f"must be above 0, not {builder.effort:g}"])

    def plan(self) -> PackPlan:
        started = time.monotonic()
        rows = self.table.as_array()
        rows[self.table.valid] = quiet(rows[self.table.valid], self.heard)
        left = np.full(len(rows), Left.NOT, np.int8)
        left[~self.table.valid] = Left.FAULT
        if self.grades is not None:
            left[(left == Left.NOT) & np.isin(self.grades, self.rejected)] = Left.REJECTED
        usable = left == Left.NOT
        if not usable.any():
            Objective.of(np.zeros((1, 3)), self.builder.weights)  # wrong weights are wrong without cells, too
            status = PackStatus.NO_USABLE_CELLS if len(rows) else PackStatus.NO_CELLS
            return self._plan(rows, left, [], status, None, started)
        objective = Objective.of(rows[usable], self.builder.weights, self.builder.scale, self.builder.tolerance)
        parts = []
        for of_grade in self._kinds(usable):
            members = self._packs(rows, of_grade, objective)
            parts.append((of_grade, members))
            unused = np.setdiff1d(of_grade, members.ravel(), assume_unique=True)
            possible = len(of_grade) // self.layout.size
            left[unused] = self._why(possible, len(members))
        status = PackStatus.BUILT
        if not any(len(members) for _, members in parts):
            too_few = all(len(of_grade) < self.layout.size for of_grade, _ in parts)
            status = PackStatus.TOO_FEW_CELLS if too_few else PackStatus.NONE_WITHIN_TOLERANCE
        return self._plan(rows, left, parts, status, objective, started)

    @staticmethod
    def _why(possible: int, built: int) -> Left:
        if possible == 0:
            return Left.TOO_FEW
        return Left.TOLERANCE if built < possible else Left.REMAINDER

    def _kinds(self, usable: np.ndarray) -> list[np.ndarray]:
        """Rows of the cells that may share packs."""
        if self.grades is None or not self.builder.within_grade:
            return [np.flatnonzero(usable)]
        return [np.flatnonzero(usable & (self.grades == grade)) for grade in np.unique(self.grades[usable])]

    def _packs(self, rows: Floats, of_grade: np.ndarray, objective: Objective) -> np.ndarray:
        builder = self.builder
        search = Search(
            self.layout.size, objective.weighted_caps(), builder.seed, builder.effort, self.threads, self.report
        )
        # The cells in an order of their own, so that the order in the file decides nothing.
        order = of_grade[np.lexsort((*rows[of_grade].T, self.priority[of_grade]))]
        found = order[search.packs(objective.points(rows[order]), self.priority[order])]
        return arrange(rows, found, self.layout, objective, builder.seed, self.threads)

    def _plan(
        self,
        rows: Floats,
        left: npt.NDArray[np.int8],
        parts: list[tuple[np.ndarray, np.ndarray]],
        status: PackStatus,
        objective: Objective | None,
        started: float,
    ) -> PackPlan:
        members = np.concatenate([np.zeros((0, self.layout.size), np.int64), *(found for _, found in parts)])
        plan = PackPlan.of(
            self.table,
            self.layout,
            members,
            objective,
            status=status,
            left=left,
            grades=self.grades,
            within_grade=self.builder.within_grade,
        )
        seconds = time.monotonic() - started
        return replace(plan, seconds=seconds, j_lower_bound=self._bound(rows, parts, objective))

    def _bound(
        self, rows: Floats, parts: list[tuple[np.ndarray, np.ndarray]], objective: Objective | None
    ) -> float:
        packs = sum(len(members) for _, members in parts)
        if not self.builder.bound or not packs or objective is None:
            return float("nan")
        totals = [
            lower_bound(objective.points(rows[of_grade]), self.layout.size, len(members), self.threads)
            for of_grade, members in parts
        ]
        return sum(totals) / packs


def _table(cells: CellTable | npt.ArrayLike) -> CellTable:
    if isinstance(cells, CellTable):
        return cells
    values = np.asarray(cells, float)
    if values.size == 0:
        values = values.reshape(0, len(INDICATORS))
    if values.ndim != 2 or values.shape[1] != len(INDICATORS):
        problem = f"give (n, 3) of capacity (Ah), resistance (mΩ) and OCV (V), not {values.shape}"
        raise ConfigurationError("cells", [problem])
    return CellTable.of_arrays(values[:, 0], values[:, 1], values[:, 2])

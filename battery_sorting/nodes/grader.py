"""Grades measured cells and puts them together to packs or groups."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from battery_sorting.action import RegroupCells
from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.grading import CellGrader, CellSpec, CellTable
from battery_sorting.msg import CellGrade
from battery_sorting.ros.long_action import LongActionServer, Refusal
from battery_sorting.ros.node import EvNode
from battery_sorting.ros.process import run
from battery_sorting.srv import GradeCells

_Result = RegroupCells.Result
FROM_LIMIT = 1 / math.sqrt(3)
"""Standard uncertainty of an error that is anywhere within its limit with the same probability (GUM, 4.3.7)."""


class GraderNode(EvNode):
    """Serves GradeCells, and RegroupCells in a thread."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("grader", **kwargs)
        recipe = self.settings.recipe.measuring
        if recipe is None:
            problem = "measuring: this section is missing, nothing says how cells are graded"
            raise ConfigurationError(f"recipe {self.settings.recipe.name}", [problem])
        self._recipe = recipe
        self._grader: CellGrader | None = None
        self._thread: threading.Thread | None = None
        self.create_service(GradeCells, "~/grade_cells", self._on_grade)
        ended = (_Result.CANCELLED,)
        self._server = LongActionServer(self, RegroupCells, "regroup_cells", self._why_not, self._begin, ended)

    def open(self) -> None:
        """Reads the specification, and has the slow first start of the pack builder behind."""
        self._grader = CellGrader(CellSpec.load(self._recipe.spec)).fit(np.empty((0, 3)))
        if self._recipe.regroup.method == "packs":
            self._packs(
                CellTable.of_arrays([1.0, 1.1, 1.2], [1.0, 1.1, 1.2], [3.0, 3.1, 3.2]), None, "2s", "", True
            )

    # ---- grades ----

    def _on_grade(self, request: GradeCells.Request, response: GradeCells.Response) -> GradeCells.Response:
        if self._grader is None or not self.active:
            response.message = "the grader is not active"
            return response
        table = _table(request.cells)
        grades = self._grader.grade(table)
        response.success = True
        response.grades = [
            CellGrade(
                battery_id=str(grades.ids[row]),
                status={"graded": "ok"}.get(str(grades.statuses[row]), str(grades.statuses[row])),
                grade="" if grades.grades[row] == "invalid" else str(grades.grades[row]),
                relation_degree=float(grades.degrees[row]),
                probabilities=[float(share) for share in grades.probabilities[row]],
                reason=grades.reasons.get(row, ""),
            )
            for row in range(len(grades))
        ]
        return response

    # ---- groups and packs ----

    def _why_not(self, goal: RegroupCells.Goal) -> Refusal | None:
        if not self.active:
            return Refusal(_Result.NOT_READY, f"the node is {self.lifecycle.name.lower()}: activate it")
        if self._thread is not None and self._thread.is_alive():
            return Refusal(_Result.NOT_READY, "another batch is being regrouped: ask again when it is done")
        if len(goal.cells) != len(goal.grades):
            text = f"{len(goal.cells)} cells and {len(goal.grades)} grades: give a grade for each cell"
            return Refusal(_Result.INVALID, text)
        return None

    def _begin(self, handle: Any) -> None:
        self._thread = self.start_thread("regroup", lambda: self._server.finish(handle, self._result(handle)))

    def _result(self, handle: Any) -> RegroupCells.Result:
        """What nobody wants any more is not handed out; the search itself is short, and goes on to its end."""
        result = self._regroup(handle)
        if self._server.cancel_requested(handle):
            return _Result(error_code=_Result.CANCELLED, error_msg="cancelled: nothing was put together")
        return result

    def _regroup(self, handle: Any) -> RegroupCells.Result:
        goal, recipe = handle.request, self._recipe.regroup
        table, grades = _table(goal.cells), np.array([str(grade) for grade in goal.grades])
        method = goal.method or recipe.method
        across = bool(goal.across) or recipe.across
        tolerance = goal.tolerance or " ".join(f"{name}={value}" for name, value in recipe.tolerance.items())
        try:
            if method == "packs":
                told = self._progress_of(handle, len(table))
                return self._packs(table, grades, goal.layout or recipe.layout, tolerance, across, told)
            return _groups(table, grades, method, across, CellSpec.load(self._recipe.spec).units())
        except (BatterySortingError, ValueError) as error:
            return _Result(error_code=_Result.INVALID, error_msg=str(error))

    def _progress_of(self, handle: Any, cells: int) -> Callable[[float], None]:
        """What the search for packs reports its progress to, in cells; called by threads of its own."""
        done = 0.0

        def report(step: float) -> None:
            nonlocal done
            done += step
            self._server.feedback(handle, RegroupCells.Feedback(progress=min(1.0, done / cells)))

        return report

    def _packs(
        self,
        table: CellTable,
        grades: np.ndarray | None,
        layout: str,
        tolerance: str,
        across: bool,
        report: Callable[[float], None] | None = None,
    ) -> RegroupCells.Result:
        from battery_sorting.grading.packing.objective import Tolerances
        from battery_sorting.grading.packs import PackBuilder

        caps = Tolerances.parse([tolerance]) if tolerance else None
        builder = PackBuilder(layout, within_grade=not across, tolerance=caps, threads=1)
        plan = builder.fit(table, grades, report=report).plan_
        rows = range(len(table))
        return _Result(
            success=True,
            group_of=[f"pack_{number + 1}" if number >= 0 else "" for number in plan.pack.tolist()],
            leftover=[plan.reason(row) for row in rows],
            objective=float(plan.j),
            objective_lower_bound=float(plan.j_lower_bound),
            silhouette=math.nan,
            davies_bouldin=math.nan,
            noise_fraction=math.nan,
        )


def _groups(
    table: CellTable, grades: np.ndarray, method: str, across: bool, scale: tuple[float, ...]
) -> RegroupCells.Result:
    from battery_sorting.grading.groups import Method, RegroupOptions, regroup

    found = regroup(table.as_array(), grades, RegroupOptions(Method(method), across=across, scale=scale))
    return _Result(
        success=True,
        group_of=[str(name) for name in found.groups],
        leftover=[found.reasons.get(row, "") for row in range(len(table))],
        objective=math.nan,
        objective_lower_bound=math.nan,
        silhouette=found.si(),
        davies_bouldin=found.dbi(),
        noise_fraction=found.noise_fraction(),
    )


def _table(cells: list[Any]) -> CellTable:
    """The cells of messages, with standard uncertainties."""
    limits = [
        [cell.capacity_uncertainty_ah, cell.resistance_uncertainty_mohm, cell.ocv_uncertainty_v] for cell in cells
    ]
    return CellTable.of_arrays(
        [cell.capacity_ah for cell in cells],
        [cell.resistance_mohm for cell in cells],
        [cell.ocv_v for cell in cells],
        [cell.battery_id for cell in cells],
        np.array(limits).reshape(-1, 3) * FROM_LIMIT,
    )


def main() -> None:
    """Entry point."""
    run(GraderNode)

"""Packs while cells still arrive: a buffer of cells, from which a pack is released when it is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.grading.packing.arrangement import arrange
from battery_sorting.grading.packing.compiled import kernels
from battery_sorting.grading.packing.layout import Layout
from battery_sorting.grading.packing.names import REJECTED, grade_named
from battery_sorting.grading.packing.objective import WEIGHTS, Objective, Tolerances, heard, quiet
from battery_sorting.grading.table import CellTable, Floats

_STEPS = 20_000_000
"""So many steps are spent on the cheapest pack around one cell: some hundredths of a second."""


@dataclass(frozen=True, slots=True)
class ReleasedPack:
    """A pack that can be built now.

    Attributes:
        ids: Its cells; each ``layout.parallel`` in a row stand side by side.
        grade: Of the cells; empty where grades don't count.
        cost: Σ λ_r · range_r / scale_r.
        ranges: Of capacity (Ah), resistance (mΩ), OCV (V).
        good_enough: False if it was released only because the buffer was full or emptied.
    """

    ids: tuple[str, ...]
    grade: str
    cost: float
    ranges: tuple[float, float, float]
    good_enough: bool


@dataclass(frozen=True, slots=True)
class SetAside:
    """A cell that goes into no pack, and why."""

    cell_id: str
    reason: str


@dataclass
class Answer:
    """What follows from an arrival: packs to build, cells to take out of the buffer."""

    packs: list[ReleasedPack] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)


@dataclass(frozen=True)
class _Cell:
    name: str
    values: tuple[float, float, float]


@dataclass(eq=False, repr=False)
class IncrementalPackBuilder:
    """Builds packs from cells that arrive one by one and wait in a buffer, one buffer for each grade.

    The cheapest pack around the cell that arrives is found, exactly in all but very large buffers. It is released
    if it costs no more than ``good_enough``. When the buffer is full, its cheapest pack is released whatever it
    costs; if none is within the tolerances, the cell that is hardest to match is set aside. So a buffer never holds
    more than ``buffer`` cells.

    Attributes:
        layout: `Layout`, or its text.
        buffer: Cells that can wait, for each grade; at least one pack.
        good_enough: Cost in units of J; None: packs are released only from a full buffer.
        scale: Scales of the objective. What it does not name is 1.4826 · MAD of the first buffer that is full; no
            pack is released before, and percentages are of that buffer's median, too.
        tolerance: Caps on the ranges in a pack.
        weights: λ of capacity, resistance, OCV.
        within_grade: Only cells of one grade share a pack.
        reject: Grades whose cells are set aside at once.
        seed: Of the swaps between parallel groups.

    Raises:
        ConfigurationError: The layout is none, or the buffer is smaller than a pack.
    """

    layout: Layout | str
    buffer: int = 64
    good_enough: float | None = None
    scale: Tolerances | None = None
    tolerance: Tolerances | None = None
    weights: Sequence[float] = WEIGHTS
    within_grade: bool = True
    reject: Sequence[str] = REJECTED
    seed: int = 0

    def __post_init__(self) -> None:
        self._layout = self.layout if isinstance(self.layout, Layout) else Layout.parse(self.layout)
        self.layout = self._layout
        if self.buffer < self._layout.size:
            needs = f"a pack of {self._layout} needs: at least {self._layout.size}"
            raise ConfigurationError("buffer", [f"{self.buffer} cells are fewer than {needs}"])
        self.reject = tuple(map(grade_named, self.reject))
        self._heard = heard(self.weights, self.tolerance)
        self._objective: Objective | None = None
        self._waiting: dict[str, list[_Cell]] = {}

    def waiting(self) -> dict[str, int]:
        """Cells in the buffer of each grade."""
        return {grade: len(cells) for grade, cells in self._waiting.items() if cells}

    def add(
        self, cell_id: str, capacity_ah: float, resistance_mohm: float, ocv_v: float, grade: str = ""
    ) -> Answer:
        """A cell arrives. Its grade is empty where there are none."""
        grade = grade_named(grade) if grade else ""
        if grade in self.reject:
            return Answer(set_aside=[SetAside(cell_id, f"cells of grade {grade} are not used")])
        values = (capacity_ah, resistance_mohm, ocv_v)
        table = CellTable.of_arrays([capacity_ah], [resistance_mohm], [ocv_v]).heard(self._heard)
        fault = table.faults.get(0)
        if fault is None and any(cell.name == cell_id for cells in self._waiting.values() for cell in cells):
            fault = f"a cell with the id '{cell_id}' is already waiting"
        if fault is not None:
            return Answer(set_aside=[SetAside(cell_id, fault)])
        kind = grade if self.within_grade else ""
        cells = self._waiting.setdefault(kind, [])
        cells.append(_Cell(cell_id, values))
        return self._released(kind, cells)

    def flush(self) -> Answer:
        """No more cells arrive: build what can be built; the rest is set aside."""
        answer = Answer()
        for kind, cells in self._waiting.items():
            while len(cells) >= self._layout.size:
                found = self._cheapest(cells, range(len(cells)))
                if found is None:
                    break
                answer.packs.append(self._take(kind, cells, *found))
            few = f"fewer than {self._layout.size} cells are left" + (f" of grade {kind}" if kind else "")
            reason = (
                few if len(cells) < self._layout.size else "no pack that it would be in is within the tolerances"
            )
            answer.set_aside += [SetAside(cell.name, reason) for cell in cells]
            cells.clear()
        return answer

    def _released(self, kind: str, cells: list[_Cell]) -> Answer:
        answer = Answer()
        if self._objective is None and self._needs_cells() and len(cells) < self.buffer:
            return answer
        found = self._cheapest(cells, [len(cells) - 1])
        if found is not None and self.good_enough is not None and found[0] <= self.good_enough:
            answer.packs.append(self._take(kind, cells, *found))
        elif len(cells) >= self.buffer:
            best = self._cheapest(cells, range(len(cells)))
            if best is not None:
                answer.packs.append(self._take(kind, cells, *best))
            else:
                answer.set_aside.append(self._drop_hardest(cells))
        return answer

    def _needs_cells(self) -> bool:
        """Whether scales or caps can be known only from cells."""
        scale, caps = self.scale, self.tolerance
        amounts = () if scale is None else (scale.capacity, scale.resistance, scale.ocv)
        limits = () if caps is None else (caps.capacity, caps.resistance, caps.ocv)
        return (
            not amounts or None in amounts or any(one is not None and one.relative for one in (*amounts, *limits))
        )

    def _objective_of(self, rows: Floats) -> Objective:
        if self._objective is None:
            self._objective = Objective.of(rows, self.weights, self.scale, self.tolerance)
        return self._objective

    def _cheapest(self, cells: list[_Cell], around: Sequence[int]) -> tuple[float, np.ndarray] | None:
        """Cost and cells of the cheapest pack around one of ``around``; None if none is within the caps."""
        size = self._layout.size
        if len(cells) < size:
            return None
        rows = quiet(np.array([cell.values for cell in cells]), self._heard)
        objective = self._objective_of(rows)
        points = objective.points(rows)
        if size == 1:
            return 0.0, np.array([around[0]])
        order = np.argsort(points[:, -1], kind="stable")
        ranked = np.ascontiguousarray(points[order])
        place = np.argsort(order)
        chosen, caps = np.empty(size, np.int64), objective.weighted_caps()
        least, best = np.inf, None
        for number in around:
            cell = int(place[number])
            near = np.argsort(np.abs(ranked - ranked[cell]).sum(axis=1), kind="stable")[:size]
            sides = np.ptp(ranked[near], axis=0)
            if (sides <= caps).all() and sides.sum() < least:  # a pack to begin with
                least, best = float(sides.sum()), order[near]
            cost = kernels().smallest_box(ranked, cell, size, caps, least, _STEPS, chosen)
            if 0 <= cost < least:
                least, best = float(cost), order[chosen]
        return None if best is None else (least, best)

    def _take(self, kind: str, cells: list[_Cell], cost: float, members: np.ndarray) -> ReleasedPack:
        measured = np.array([cell.values for cell in cells])
        rows = quiet(measured, self._heard)
        objective = self._objective_of(rows)
        members = np.sort(members)[None, :]
        placed = arrange(rows, members, self._layout, objective, self.seed, threads=1)
        ranges = objective.ranges(measured, members)[0].tolist()
        names = tuple(cells[number].name for number in placed[0].tolist())
        good = self.good_enough is not None and cost <= self.good_enough
        gone = set(members[0].tolist())
        cells[:] = [cell for number, cell in enumerate(cells) if number not in gone]
        return ReleasedPack(names, kind, float(objective.costs(rows, members)[0]), (*ranges,), good)

    def _drop_hardest(self, cells: list[_Cell]) -> SetAside:
        """The cell whose neighbours are farthest leaves the buffer."""
        rows = quiet(np.array([cell.values for cell in cells]), self._heard)
        points = self._objective_of(rows).points(rows)
        distances = np.abs(points[:, None] - points[None]).sum(axis=2)
        hardest = int(np.sort(distances, axis=1)[:, self._layout.size - 1].argmax())
        return SetAside(cells.pop(hardest).name, f"no pack within the tolerances among {self.buffer} cells")

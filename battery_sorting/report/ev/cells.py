"""The measured cells of a shift in the grading's own terms, so that its plots and its J can be had of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.ev.report import QUANTITIES, CellStory, EvFigures, EvRun
from battery_sorting.grading import CellGrader, CellSpec, CellTable, Grades
from battery_sorting.grading.grouper import RegroupStatus
from battery_sorting.grading.groups import ACROSS, RegroupedPart, Regrouping
from battery_sorting.grading.packing.layout import Layout
from battery_sorting.grading.packing.objective import Objective
from battery_sorting.grading.packs import Left, PackPlan, PackStatus
from battery_sorting.grading.validity import Validity


@dataclass(frozen=True)
class Measured:
    """Cells that were measured and graded, in the order of loading, as the ledger has them.

    Attributes:
        table: One row per cell.
        grades: As they were given when the cells were graded.
        grader: By the specification of the recipe; None if that is not to be had.
        packs: The packs that were built; None where cells were not put into packs.
        groups: The packs or groups as groups.
        note: Why something is missing.
    """

    table: CellTable
    grades: Grades
    grader: CellGrader | None
    packs: PackPlan | None
    groups: Regrouping
    note: str = ""


def measured_cells(run: EvRun, figures: EvFigures) -> Measured | None:
    """The cells of a run that were measured and graded; None if none was."""
    stories = [story for story in run.stories if story.measurement is not None and story.grade_status]
    if not stories:
        return None
    capacity, resistance, ocv = ([_value(story, name) for story in stories] for name in QUANTITIES)
    table = CellTable.of_arrays(capacity, resistance, ocv, [story.battery_id for story in stories])
    recipe = run.recipe.get("measuring") or {}
    note, grader = "", None
    try:
        grader = CellGrader(CellSpec.load(str(recipe.get("spec")))).fit(np.empty((0, 3)))
    except BatterySortingError as error:
        note = f"Without the map of grades: {error}"
    rows = {story.battery_id: row for row, story in enumerate(stories)}
    members = [[rows[name] for name in group.cells if name in rows] for group in figures.groups]
    regroup = recipe.get("regroup") or {}
    packs = None
    if regroup.get("method", "packs") == "packs":
        packs = _packs(table, stories, members, str(regroup.get("layout", "8s")), bool(regroup.get("across")))
    return Measured(table, _grades(stories), grader, packs, _groups(len(stories), figures, members), note)


def _value(story: CellStory, name: str) -> float:
    value = (story.measurement or {}).get(name)
    return math.nan if value is None else float(value)


def _grades(stories: list[CellStory]) -> Grades:
    shares = np.full((len(stories), 4), np.nan)
    for row, story in enumerate(stories):
        if len(story.probabilities) == shares.shape[1]:
            shares[row] = [math.nan if share is None else share for share in story.probabilities]
    return Grades(
        [story.battery_id for story in stories],
        np.array([story.grade or "invalid" for story in stories]),
        np.array([math.nan if story.relation_degree is None else story.relation_degree for story in stories]),
        np.array([{"ok": "graded"}.get(story.grade_status, story.grade_status) for story in stories]),
        {},
        shares,
    )


def _packs(
    table: CellTable, stories: list[CellStory], members: list[list[int]], layout_name: str, across: bool
) -> PackPlan | None:
    """The packs of the ledger with their costs. J is scaled by all cells that were regrouped."""
    try:
        layout = Layout.parse(layout_name)
    except BatterySortingError:
        return None
    values = table.as_array()
    regrouped = np.array([story.grouped_at is not None for story in stories]) & table.valid
    whole = [rows for rows in members if len(rows) == layout.size and table.valid[rows].all()]
    if not regrouped.any():
        return None
    packed = np.array(whole, np.int64).reshape(-1, layout.size)
    left = np.full(len(table), Left.REMAINDER, np.int8)
    left[packed] = Left.NOT
    return PackPlan.of(
        table,
        layout,
        packed,
        Objective.of(values[regrouped]),
        status=PackStatus.BUILT if len(packed) else PackStatus.TOO_FEW_CELLS,
        left=left,
        grades=np.array([story.grade for story in stories]),
        within_grade=not across,
    )


def _groups(cells: int, figures: EvFigures, members: list[list[int]]) -> Regrouping:
    names = np.full(cells, "", dtype=object)
    counts = {}
    for group, rows in zip(figures.groups, members, strict=True):
        label = group.name if group.name not in counts else f"{group.name} in {group.tray}"
        names[rows] = label
        counts[label] = len(rows)
    unknown = Validity(
        math.nan, math.nan, math.nan, math.nan, math.nan, len(counts), min(counts.values(), default=0)
    )
    part = RegroupedPart(
        ACROSS, RegroupStatus.GROUPED, cells, counts, unknown, math.nan, 0, weak=False, seconds=math.nan
    )
    return Regrouping(names.astype(str), {}, [part])

"""The specification of a cell that a passport goes by: the one that the shift ran with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.grading.grader import CellGrader
from battery_sorting.grading.passport._dossiers import Dossier, section
from battery_sorting.grading.specification import CellSpec
from battery_sorting.grading.table import COLUMNS, CellTable
from battery_sorting.ledger import Shift

FROM_SHIFT = "configuration of the shift"
TOLERANCE = 1e-6
"""Of relation degrees: grading is arithmetic, and gives the same again."""


@dataclass(frozen=True)
class Specification:
    """A cell specification and where it was read.

    Attributes:
        spec: None where none can be used; ``problem`` says why.
        taken_from: Where it was read.
        problem: Why it can't be used; empty if it can.
        values: As it stood there.
    """

    spec: CellSpec | None
    taken_from: str
    problem: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


def specification_in(shift: Shift) -> Specification | None:
    """The specification in the configuration of the shift (key ``cell``), None where it only names one."""
    values = section(shift.config, "cell")
    if not values:
        return None
    try:
        return Specification(CellSpec.model_validate(dict(values)), FROM_SHIFT, values=values)
    except ValidationError as error:
        problem = f"shift {shift.shift_id} holds a cell specification that this software can't read: {error}"
        return Specification(None, FROM_SHIFT, problem)


def specification_from_file(name: str, dossiers: Sequence[Dossier]) -> Specification:
    """The specification of this name, or in this file, as it stands there today.

    It may have been changed since the cells were graded, so they are graded by it once more.

    Args:
        name: Name of a file in config/cells, or a path.
        dossiers: Cells that were graded by it.
    """
    taken_from = f"file '{name}', read at the export"
    try:
        spec = CellSpec.load(name)
    except ConfigurationError as error:
        problem = f"the shift names the cell specification '{name}' only, and it can't be read: {error.problems[0]}"
        return Specification(None, taken_from, problem)
    contradiction = _contradiction(spec, dossiers)
    if contradiction:
        return Specification(
            None, taken_from, f"the cell specification '{name}' was changed since: {contradiction}"
        )
    return Specification(spec, taken_from, values=spec.model_dump(mode="json"))


def _contradiction(spec: CellSpec, dossiers: Sequence[Dossier]) -> str:
    """A cell whose grade on record isn't that of the specification; empty if there is none."""
    graded = [
        (dossier, dossier.measured.data, dossier.graded.data)
        for dossier in dossiers
        if dossier.measured is not None and dossier.graded is not None
    ]
    if not graded:
        return ""
    columns = [[_float(getattr(measured, name)) for _, measured, _ in graded] for name in COLUMNS.values()]
    table = CellTable.of_arrays(columns[0], columns[1], columns[2])
    again = CellGrader(spec).fit(np.empty((0, 3))).grade(table)
    for (dossier, _, on_record), degree, grade in zip(graded, again.degrees, again.grades, strict=True):
        before = _float(on_record.relation_degree)
        letter = "" if grade == "invalid" else str(grade)
        same = bool(np.isclose(before, degree, rtol=0, atol=TOLERANCE, equal_nan=True))
        if not same or letter != on_record.grade:
            return (
                f"cell {dossier.battery_id} was graded {on_record.grade or 'invalid'} ({before:.4f}), "
                f"by the file of today it is {letter or 'invalid'} ({degree:.4f})"
            )
    return ""


def _float(value: float | None) -> float:
    return float("nan") if value is None else float(value)

"""From measurement to packs: grades, groups and packs of cells.

Names are imported when they are first used: what needs scikit-learn costs nothing where it isn't asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from battery_sorting.grading.ahp import ComparisonError, Priorities, priorities, synthesise
    from battery_sorting.grading.grader import CellGrader, Grades
    from battery_sorting.grading.relational import RelationalNorm, relation_degree
    from battery_sorting.grading.specification import CellSpec
    from battery_sorting.grading.table import CellTable, Column, TableError

__all__ = [
    "CellGrader",
    "CellSpec",
    "CellTable",
    "Column",
    "ComparisonError",
    "Grades",
    "Priorities",
    "RelationalNorm",
    "TableError",
    "priorities",
    "relation_degree",
    "synthesise",
]

_MODULES = {
    "ahp": ("ComparisonError", "Priorities", "priorities", "synthesise"),
    "grader": ("CellGrader", "Grades"),
    "relational": ("RelationalNorm", "relation_degree"),
    "specification": ("CellSpec",),
    "table": ("CellTable", "Column", "TableError"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

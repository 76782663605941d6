"""From two views and what went wrong to one verdict: where the cell goes, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from battery_sorting.core.types import LookVerdict, View
from battery_sorting.ev.faults import StationFault
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.site import HAZARDOUS, PRODUCT, QUARANTINE
from battery_sorting.ev.types import ViewResult

UNKNOWN_DEFECT = "unknown_defect"
"""Reason of a defect of a kind that the recipe has no outlet for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that keeps a cell from being a product."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class CellVerdict:
    """Where a cell goes. ``reason`` is ``good`` for a product, else the defect or fault that decided."""

    outlet: str
    reason: str
    text: str = ""


def fuse(recipe: EvRecipe, views: Iterable[ViewResult], faults: Iterable[Finding]) -> CellVerdict:
    """The worst that is known of a cell decides: hazard, fault, defect, doubt; only then it is a product.

    A hazard outweighs a fault, since a leaking cell must not lie in quarantine with others. A view that was never
    judged is a fault, whether or not the recipe lets cells with faults pass.
    """
    seen = {view.view: view for view in views if view.verdict != LookVerdict.BAD_IMAGE}
    found = [_judge(recipe, view) for view in seen.values()]
    hazard = [verdict for verdict in found if verdict.outlet == HAZARDOUS]
    fault = _fault_verdict(recipe, seen, list(faults))
    defects = [verdict for verdict in found if verdict.outlet not in {PRODUCT, HAZARDOUS}]
    certain = [verdict for verdict in defects if verdict.reason != "unsure"]
    for verdicts in (hazard, [fault] if fault else [], certain, defects):
        if verdicts:
            return verdicts[0]
    return CellVerdict(PRODUCT, "good", "both views are good")


def _fault_verdict(recipe: EvRecipe, seen: dict[View, ViewResult], faults: list[Finding]) -> CellVerdict | None:
    missing = [view.value for view in View if view not in seen]
    lug = seen.get(View.LUG)
    early = lug is not None and lug.verdict == LookVerdict.DEFECTIVE and lug.kind in recipe.early_reject
    if faults and (missing or not recipe.faulty_may_pass or not _only_retried(faults)):
        return CellVerdict(QUARANTINE, faults[0].reason, faults[0].text)
    if missing and not early:
        return CellVerdict(QUARANTINE, "missing_view", f"no {' and no '.join(missing)} view")
    return None


def _only_retried(faults: list[Finding]) -> bool:
    known = [StationFault.of(fault.reason) for fault in faults]
    return all(fault is not None and fault.mended_by_retry for fault in known)


def _judge(recipe: EvRecipe, view: ViewResult) -> CellVerdict:
    name = view.view.value
    if view.verdict == LookVerdict.GOOD:
        return CellVerdict(PRODUCT, "good")
    if view.verdict == LookVerdict.UNSURE:
        return CellVerdict(recipe.unsure, "unsure", f"the inspector is not sure of the {name} view")
    defects: dict[str, str] = getattr(recipe.views, name).defects
    if view.verdict == LookVerdict.DEFECTIVE and view.kind in defects:
        return CellVerdict(defects[view.kind], view.kind, f"the {name} is {view.kind}")
    return CellVerdict(QUARANTINE, UNKNOWN_DEFECT, f"the {name} view shows something unknown: {view.reason}")

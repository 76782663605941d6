"""The recipe: which battery goes into which bin, how fast, and how sure the classifier must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BeforeValidator, Field

from battery_sorting.belt.frames import FRAME_TOLERANCE_S
from battery_sorting.belt.site import BeltSite
from battery_sorting.core.settings import (
    RecipeSettings,
    not_in_metres,
    not_in_seconds,
    share_not_percent,
    suggest,
)
from battery_sorting.core.types import OTHERS

COMFORTABLE_LEAD_MS = 150.0
"""Time for exposure, transfer and classification that the first ejector should leave."""


class BeltRecipe(RecipeSettings):
    """What happens to which battery. Whatever it doesn't name goes to *others*."""

    name: str = Field(min_length=1, description="name of the recipe")
    speed_mps: float = Field(gt=0, le=5, allow_inf_nan=False, description="speed of the belt, in metres per second")
    threshold: Annotated[float, BeforeValidator(share_not_percent)] = Field(
        default=0.8, ge=0, le=1, description="confidence below which a battery goes to others, 0..1"
    )
    min_gap_mm: Annotated[float, BeforeValidator(not_in_metres)] = Field(
        default=60.0, ge=0, le=1000, description="batteries closer than this both go to others, in millimetres"
    )
    min_lead_ms: Annotated[float, BeforeValidator(not_in_seconds)] = Field(
        default=40.0, ge=0, le=2000, description="a decision must be at the PLC this long before the valve opens"
    )
    routes: dict[str, str] = Field(min_length=1, description="battery type: bin")


@dataclass
class RecipeCheck:
    """What is wrong (``problems``) and what is odd (``warnings``) about a recipe at a site."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(recipe: BeltRecipe, site: BeltSite, model_labels: Sequence[str] | None = None) -> RecipeCheck:
    """Does ``recipe`` fit to ``site`` and to the labels that the model knows (None: not looked at)?"""
    result = RecipeCheck()
    _check_routes(recipe, site, model_labels, result)
    _check_speed(recipe, site, result)
    return result


def _check_routes(recipe: BeltRecipe, site: BeltSite, labels: Sequence[str] | None, result: RecipeCheck) -> None:
    bins = site.bin_names
    for label, bin_name in recipe.routes.items():
        if bin_name not in bins:
            result.problems.append(
                f"routes.{label}: site '{site.name}' has no bin '{bin_name}'; {suggest(bin_name, bins)}"
            )
        if labels is not None and label not in labels:
            result.problems.append(f"routes.{label}: the model doesn't know this type; {suggest(label, labels)}")
    used = {*recipe.routes.values(), OTHERS}
    result.warnings += [f"bins: nothing is routed to bin '{name}'" for name in bins if name not in used]
    unrouted = [label for label in labels or () if label not in recipe.routes]
    if unrouted:
        result.warnings.append(f"routes: the model also knows {', '.join(unrouted)}: they go to '{OTHERS}'")


def _check_speed(recipe: BeltRecipe, site: BeltSite, result: RecipeCheck) -> None:
    low, high = site.belt.min_speed_mps, site.belt.max_speed_mps
    if not low <= recipe.speed_mps <= high:
        result.problems.append(f"speed_mps: {recipe.speed_mps:g} m/s is outside the belt's {low:g}..{high:g} m/s")
    apart_ms = recipe.min_gap_mm / recipe.speed_mps
    if apart_ms / 2 <= FRAME_TOLERANCE_S * 1000:
        result.problems.append(
            f"min_gap_mm: at {recipe.speed_mps:g} m/s batteries {recipe.min_gap_mm:g} mm apart come within "
            f"{apart_ms:.0f} ms, too close to tell their frames apart: raise it to "
            f"{2 * FRAME_TOLERANCE_S * 1000 * recipe.speed_mps + 1:.0f} mm or lower speed_mps"
        )
    first = min(site.ejectors, key=lambda ejector: ejector.offset_mm)
    left_ms = first.offset_mm / recipe.speed_mps - first.delay_ms - recipe.min_lead_ms
    if left_ms < COMFORTABLE_LEAD_MS:
        result.warnings.append(
            f"speed_mps: at {recipe.speed_mps:g} m/s the ejector at {first.offset_mm:g} mm leaves {left_ms:.0f} ms "
            f"to decide, less than {COMFORTABLE_LEAD_MS:.0f} ms: batteries may come too late for it"
        )

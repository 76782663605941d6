"""The recipe of the EV line: which defect sends a cell where, how sure to be, how often to try again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from battery_sorting.core.settings import (
    RecipeSettings,
    Settings,
    share_not_percent,
    suggest,
)
from battery_sorting.ev.measurement import Programme
from battery_sorting.ev.site import PRODUCT, EvSite

Share = Annotated[float, BeforeValidator(share_not_percent), Field(ge=0, le=1)]
Region = Annotated[tuple[int, int, int, int], Field(strict=False)]


class ViewRecipe(Settings):
    """How one view is judged."""

    defects: dict[str, str] = Field(min_length=1, description="kind of defect: outlet")
    threshold: Share | None = Field(
        default=None, description="probability of a defect from which a cell is defective; none: the model's own"
    )
    region: Region | None = Field(
        default=None, description="part of the image that is looked at: [x, y, width, height] in pixels"
    )


class Views(Settings):
    """The two views."""

    lug: ViewRecipe = Field(description="the look at the lugs, from above")
    case: ViewRecipe = Field(description="the look at the lower case, after the flip")


class Retries(Settings):
    """How often a step is tried again before the inspection of the cell is given up."""

    load: int = Field(default=1, ge=0, le=5, description="after a jam of the loader")
    capture: int = Field(default=1, ge=0, le=5, description="after a missing or useless picture")
    flip: int = Field(default=1, ge=0, le=5, description="after a jam of the flipper that could be homed")


class StepTimes(Settings):
    """After how long a step counts as failed, in seconds."""

    load_s: float = Field(default=5.0, gt=0, le=120, description="from the order to load until a cell is there")
    capture_s: float = Field(
        default=2.0, gt=0, le=30, description="from the order to take a picture until it is here"
    )
    look_s: float = Field(default=5.0, gt=0, le=60, description="from the picture to the inspector's verdict")
    flip_s: float = Field(
        default=5.0, gt=0, le=120, description="from the order to flip until the end switch says so"
    )
    release_s: float = Field(
        default=5.0, gt=0, le=120, description="from the order to release until the cell is gone"
    )
    recover_s: float = Field(default=5.0, gt=0, le=120, description="for the PLC to come home after a fault")


class RegroupRecipe(Settings):
    """How measured cells are put together."""

    method: Literal["packs", "dbscan-gmm", "gmm", "dbscan", "kmeans", "agglomerative"] = Field(
        default="packs", description="packs of a layout, or groups by a clustering method"
    )
    layout: str = Field(default="8s", min_length=1, description="of a pack, for example 8s or 4s4p")
    across: bool = Field(default=False, description="whether cells of different grades may go together")
    tolerance: dict[Literal["capacity", "resistance", "ocv"], str] = Field(
        default={}, description="largest range within a pack, for example capacity: 2%, ocv: 10mV"
    )


class MeasuringRecipe(Settings):
    """What is measured of a good cell, and what follows from it."""

    spec: str = Field(min_length=1, description="name of a specification in config/cells, or path of a file")
    programme: Programme = Field(description="what the tester does with a cell")
    reject: tuple[Literal["A", "B", "C", "D"], ...] = Field(
        strict=False, default=("D",), description="grades that go to the recycling tray"
    )
    batch: int = Field(
        default=0, ge=0, description="so many cells are regrouped at once; 0: when the loader is empty"
    )
    reseats: int = Field(
        default=1, ge=0, le=5, description="so often a cell is seated again after bad contact or a doubtful grade"
    )
    regroup: RegroupRecipe = Field(default=RegroupRecipe(), description="how measured cells are put together")


class EvRecipe(RecipeSettings):
    """What happens to which cell. What it doesn't name goes to quarantine."""

    name: str = Field(min_length=1, description="name of the recipe")
    kind: Literal["ev"] = Field(description="kind of the line that the recipe is for")
    views: Views = Field(description="how the two views are judged")
    unsure: str = Field(
        default="review", min_length=1, description="outlet of a cell that the inspector is unsure of"
    )
    reinspect: int = Field(
        default=0, ge=0, le=3, description="so often an unsure view is looked at again before it counts as unsure"
    )
    early_reject: tuple[str, ...] = Field(
        strict=False, default=(), description="defects of the lugs after which the cell is not flipped any more"
    )
    identity: Literal["required", "if_read"] = Field(
        default="required",
        description="the code must be read in both views (required), or only not differ where it was (if_read)",
    )
    faulty_may_pass: bool = Field(
        default=False,
        description="whether a cell whose flip or picture only came at a second try may still become a product",
    )
    measuring: MeasuringRecipe | None = Field(
        default=None, description="what is measured of good cells; needed where the site has a tester"
    )
    retries: Retries = Field(default=Retries(), description="how often a step is tried again")
    times: StepTimes = Field(default=StepTimes(), description="after how long a step counts as failed")


def problems_at(recipe: EvRecipe, site: EvSite) -> list[str]:
    """What keeps ``recipe`` from running at ``site``."""
    outlets = site.outlet_names
    found = []
    for view in ("lug", "case"):
        defects: dict[str, str] = getattr(recipe.views, view).defects
        for kind, outlet in defects.items():
            if outlet == PRODUCT:
                found.append(f"views.{view}.defects.{kind}: a defective cell is no product: name another outlet")
            elif outlet not in outlets:
                found.append(
                    f"views.{view}.defects.{kind}: there is no outlet '{outlet}'; {suggest(outlet, outlets)}"
                )
    if recipe.unsure == PRODUCT:
        found.append("unsure: a cell that nobody is sure of is no product: name 'review' or 'quarantine'")
    elif recipe.unsure not in outlets:
        found.append(f"unsure: there is no outlet '{recipe.unsure}'; {suggest(recipe.unsure, outlets)}")
    if site.measuring is not None and recipe.measuring is None:
        found.append(f"measuring: is missing, and site '{site.name}' has a tester: say what is measured")
    lug_defects = list(recipe.views.lug.defects)
    found += [
        f"early_reject: '{kind}' is no defect under views.lug.defects; {suggest(kind, lug_defects)}"
        for kind in recipe.early_reject
        if kind not in lug_defects
    ]
    return found

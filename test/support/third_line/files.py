"""Site file and recipe of the weighing line."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from battery_sorting.core.settings import Document, RecipeSettings, Settings, SiteSettings
from battery_sorting.line.site import Device, ImageSettings, LedgerSettings, Name


class Timeouts(Settings):
    """After how long silence is a fault, in seconds."""

    start_s: float = Field(default=10.0, gt=0, description="for all nodes to come up")
    heartbeat_s: float = Field(default=1.0, gt=0, description="without a heartbeat, a node counts as dead")


class WeighingSite(SiteSettings):
    """One scale."""

    name: Name = Field(description="name of the site")
    kind: Literal["weighing"] = Field(description="kind of the line")
    line: Name = Field(default="weighing", description="name of the line")
    recipe: str = Field(min_length=1, description="name or file of a recipe")
    balance: Device = Field(description="driver of the scale's balance and its settings")
    ledger: LedgerSettings = Field(default=LedgerSettings(), description="where the records go")
    images: ImageSettings = Field(default=ImageSettings(), description="which pictures are kept")
    timeouts: Timeouts = Field(default=Timeouts(), description="after how long silence is a fault")

    @property
    def devices(self) -> dict[str, tuple[str, Device]]:
        """Path in the site file → kind of device and its driver."""
        return {"balance": ("support.third_line.balance:BALANCE", self.balance)}

    @property
    def used_by(self) -> dict[str, tuple[str, ...]]:
        """Node → paths of the devices that it talks to."""
        return {"scale": ("balance",)}

    @classmethod
    def misfits(cls, document: Document, site: WeighingSite | None) -> list[str]:  # noqa: ARG003
        """Nothing in it can disagree."""
        return []


class WeighingRecipe(RecipeSettings):
    """How heavy a cell is at the least."""

    name: str = Field(description="name of the recipe")
    kind: Literal["weighing"] = Field(description="kind of the line that the recipe is for")
    least_g: float = Field(gt=0, le=5000, description="a lighter cell has lost its electrolyte, in grams")

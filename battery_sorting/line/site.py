"""What the site files of all lines have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import Field, StringConstraints

from battery_sorting.core.secrets import LedgerUrl
from battery_sorting.core.settings import Network, Settings

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Device(Settings):
    """A device, named by the kind of its driver or by the dotted path of the driver's class."""

    driver: str = Field(min_length=1, description="kind of driver, or 'package.module:Class'")
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of that driver")


class LedgerSettings(Settings):
    """Where the records go."""

    url: LedgerUrl = Field(
        default=LedgerUrl("ledger.sqlite"), description="file (relative to the run folder) or database URL"
    )


class ImageSettings(Settings):
    """Which pictures are kept, and where."""

    path: str = Field(
        default="images", min_length=1, description="folder of the pictures, relative to the run folder"
    )
    keep: Literal["all", "rejected", "none"] = Field(default="all", description="which pictures are kept")
    quality: int = Field(default=90, ge=1, le=100, description="JPEG quality")


LineSiteT = TypeVar("LineSiteT", bound="LineSite")


class LineSite(Protocol):
    """What is asked of the site of any line; `belt.site.BeltSite` and `ev.site.EvSite` are such."""

    @property
    def name(self) -> str:
        """Of the site."""

    @property
    def kind(self) -> str:
        """Of its line, a key of `battery_sorting.lines.LINES`."""

    @property
    def line(self) -> str:
        """Name of the line, the namespace of its nodes."""

    @property
    def recipe(self) -> str:
        """Name or file of the recipe that it has unless another is given."""

    @property
    def network(self) -> Network:
        """Whom its nodes listen to."""

    @property
    def plant(self) -> dict[str, Any] | None:
        """Settings of the simulated plant; None: real hardware."""

    @property
    def simulated(self) -> bool:
        """Whether it has a simulated plant."""

    @property
    def ledger(self) -> LedgerSettings:
        """Where its records go."""

    @property
    def images(self) -> ImageSettings:
        """Which pictures are kept."""

    @property
    def devices(self) -> dict[str, tuple[str, Device]]:
        """Path in the site file → kind of driver, and the device."""

    @property
    def used_by(self) -> Mapping[str, tuple[str, ...]]:
        """Node → paths of the devices that it talks to. The line's controller claims all of them."""

    def model_copy(self: LineSiteT, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> LineSiteT:
        """A copy in which the fields in ``update`` are other ones."""

    def save_resolved(self, path: Path) -> None:
        """Write what was checked, for the nodes."""

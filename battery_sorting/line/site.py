"""What the site files of all lines have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, StringConstraints

from battery_sorting.core.secrets import LedgerUrl
from battery_sorting.core.settings import Settings

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


class LineSite(Protocol):
    """What is asked of the site of any line; `belt.site.BeltSite` and `ev.site.EvSite` are such."""

    @property
    def line(self) -> str:
        """Name of the line, the namespace of its nodes."""

    @property
    def ledger(self) -> LedgerSettings:
        """Where its records go."""

    @property
    def images(self) -> ImageSettings:
        """Which pictures are kept."""

    @property
    def devices(self) -> dict[str, tuple[str, Device]]:
        """Path in the site file → kind of driver, and the device."""

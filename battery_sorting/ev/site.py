"""The site file of an EV line: its station, cameras, outlets and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from battery_sorting.core.active_model import find_model
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.settings import (
    Document,
    Settings,
    SiteSettings,
    suggest,
)
from battery_sorting.ev.flow import FlowLayout
from battery_sorting.ev.places import FIXED_TRAYS
from battery_sorting.line.site import Device, ImageSettings, LedgerSettings, Name

PRODUCT = "product"
QUARANTINE = "quarantine"
HAZARDOUS = "hazardous"
REQUIRED_OUTLETS = (PRODUCT, QUARANTINE, HAZARDOUS)


class Cameras(Settings):
    """The station's two cameras."""

    lug: Device = Field(description="driver of the camera above the lugs and its settings")
    case: Device = Field(description="driver of the camera at the lower case and its settings")


class InspectionModels(Settings):
    """Folders of the models that judge the views."""

    lug: str = Field(default="models/lug/1", min_length=1, description="folder of the model of the lug view")
    case: str = Field(default="models/case/1", min_length=1, description="folder of the model of the case view")


class Outlet(Settings):
    """A place where the station can release a cell to."""

    name: str = Field(min_length=1, description="name of the outlet, as recipes use it")
    number: int = Field(ge=1, le=255, description="number of the outlet in the PLC, from 1")
    capacity: int | None = Field(
        default=None, gt=0, description="cells that it holds; the line waits when it is full"
    )


class Tray(Settings):
    """A tray that the robot fills."""

    name: Name = Field(description="name of the tray: letters, digits and _")
    slots: int = Field(gt=0, le=1000, description="cells that it holds")


class Measuring(Settings):
    """What stands behind the product outlet: a robot, a tester, a buffer and trays."""

    tester: Device = Field(description="driver of the tester and its settings")
    robot: Device = Field(description="driver of the robot and its settings")
    channels: int = Field(ge=1, le=64, description="channels of the tester that the robot reaches")
    buffer: int = Field(ge=1, le=1000, description="slots in which measured cells wait for their group")
    trays: tuple[Tray, ...] = Field(strict=False, min_length=4, description="list of the trays")


class EvTimeouts(Settings):
    """After how long silence is a fault, in seconds."""

    start_s: float = Field(default=20.0, gt=0, le=600, description="for all nodes and devices to come up")
    heartbeat_s: float = Field(default=1.0, gt=0, le=60, description="without a heartbeat, a node counts as dead")


class EvAlarms(Settings):
    """What raises an alarm."""

    faults_in_a_row: int = Field(
        default=3, ge=1, description="cells sent to quarantine for a fault, one after the other: the line holds"
    )


class EvSite(SiteSettings):
    """One EV line: its hardware and its files."""

    name: Name = Field(description="name of the site: letters, digits and _")
    kind: Literal["ev"] = Field(description="kind of the line")
    line: Name = Field(
        default="ev", description="name of the line, the namespace of its nodes: letters, digits and _"
    )
    recipe: str = Field(min_length=1, description="name of a recipe in config/recipes, or path of a file")
    models: InspectionModels = Field(default=InspectionModels(), description="models that judge the views")
    station_plc: Device = Field(description="driver of the inspection station's PLC and its settings")
    cameras: Cameras = Field(description="the station's two cameras")
    outlets: tuple[Outlet, ...] = Field(strict=False, min_length=3, description="list of the outlets")
    measuring: Measuring | None = Field(
        default=None, description="tester, robot and trays; without them the cells end at the outlets"
    )
    ledger: LedgerSettings = Field(default=LedgerSettings(), description="where the records go")
    images: ImageSettings = Field(default=ImageSettings(), description="which pictures are kept")
    timeouts: EvTimeouts = Field(default=EvTimeouts(), description="after how long silence is a fault")
    alarms: EvAlarms = Field(default=EvAlarms(), description="what raises an alarm")

    @property
    def outlet_names(self) -> tuple[str, ...]:
        """Names of all outlets."""
        return tuple(outlet.name for outlet in self.outlets)

    @property
    def hand_over(self) -> tuple[str, ...]:
        """Outlets from which cells go on to another station of the line."""
        return () if self.measuring is None else (PRODUCT,)

    @property
    def devices(self) -> dict[str, tuple[str, Device]]:
        """Path in the site file → kind of device and its driver."""
        found = {
            "station_plc": ("station_plc", self.station_plc),
            "cameras.lug": ("camera", self.cameras.lug),
            "cameras.case": ("camera", self.cameras.case),
        }
        if self.measuring is not None:
            found["measuring.tester"] = ("tester", self.measuring.tester)
            found["measuring.robot"] = ("robot", self.measuring.robot)
        return found

    @property
    def used_by(self) -> dict[str, tuple[str, ...]]:
        """Node → paths of the devices that it talks to."""
        return {
            "inspection": ("station_plc", "cameras.lug", "cameras.case"),
            "tester": ("measuring.tester",),
            "robot": ("measuring.robot",),
        }

    def flow_layout(self, batch: int, reseats: int, reject: frozenset[str]) -> FlowLayout:
        """The places behind the station; the rest is the recipe's. Only where there is a section ``measuring``."""
        assert self.measuring is not None
        trays = {tray.name: tray.slots for tray in self.measuring.trays}
        channels = tuple(range(1, self.measuring.channels + 1))
        return FlowLayout(channels, self.measuring.buffer, trays, batch, reseats, reject)

    def model_directory(self, view: str) -> Path:
        """Absolute path of the folder of the model that judges ``view``.

        Raises:
            ConfigurationError: There is no such folder, or none of its versions is active.
        """
        try:
            return find_model(getattr(self.models, view))
        except ModelError as error:
            raise ConfigurationError(f"site {self.name}", [f"models.{view}: {error}"]) from error

    @classmethod
    def misfits(cls, document: Document, site: EvSite | None) -> list[str]:
        """Outlets and trays that are missing or not told apart."""
        return [] if site is None else [*_outlet_problems(document, site), *_tray_problems(document, site)]


def _outlet_problems(document: Document, site: EvSite) -> list[str]:
    problems = []
    for key in ("name", "number"):
        first: dict[Any, int] = {}
        for index, outlet in enumerate(site.outlets):
            value = getattr(outlet, key)
            if value in first:
                problem = f"{value!r} is also that of outlets[{first[value]}]: give each outlet its own"
                problems.append(document.describe(("outlets", index, key), problem))
            first.setdefault(value, index)
    for name in REQUIRED_OUTLETS:
        if name not in site.outlet_names:
            close = suggest(name, site.outlet_names)
            problems.append(document.describe(("outlets",), f"an outlet '{name}' is needed; {close}"))
    return problems


def _tray_problems(document: Document, site: EvSite) -> list[str]:
    if site.measuring is None:
        return []
    names = [tray.name for tray in site.measuring.trays]
    where = ("measuring", "trays")
    problems = [
        document.describe(where, f"a tray '{name}' is needed; {suggest(name, names)}")
        for name in FIXED_TRAYS
        if name not in names
    ]
    problems += [
        document.describe((*where, index, "name"), f"'{name}' is also that of another tray: give each its own")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
    if not set(names) - set(FIXED_TRAYS):
        problems.append(document.describe(where, "there is no tray for the groups: add at least one more"))
    return problems

"""The site file: which hardware one cell has, where it stands, and how to reach it.

Offsets are belt travel in millimetres from the photo-eye that triggers the camera, positive downstream.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from battery_sorting.belt.drift import DriftLimits
from battery_sorting.core.active_model import find_model
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.settings import (
    Document,
    Settings,
    SiteSettings,
    not_in_metres,
    not_in_seconds,
    parts_that_parse,
    suggest,
)
from battery_sorting.core.types import OTHERS
from battery_sorting.line.site import Device, ImageSettings, LedgerSettings, Name

MIN_EJECTOR_DISTANCE_MM = 40.0
MAX_VALVES = 16

Length = Annotated[float, BeforeValidator(not_in_metres), Field(allow_inf_nan=False)]
Duration = Annotated[float, BeforeValidator(not_in_seconds), Field(allow_inf_nan=False)]


class Belt(Settings):
    """The conveyor and its eyes."""

    min_speed_mps: float = Field(
        default=0.1, gt=0, le=5, description="lowest speed of the drive, in metres per second"
    )
    max_speed_mps: float = Field(
        default=1.2, gt=0, le=5, description="highest speed of the drive, in metres per second"
    )
    gate_offset_mm: Length = Field(
        default=-250.0, lt=0, description="gate eye ahead of the camera, negative, in millimetres"
    )
    exit_offset_mm: Length = Field(default=2100.0, gt=0, description="eye at the belt's end, in millimetres")
    mm_per_count: float = Field(
        default=0.1, gt=0, le=10, description="nominal belt travel per encoder count, in millimetres"
    )


class Ejector(Settings):
    """An air nozzle beside the belt."""

    valve: int = Field(ge=0, lt=MAX_VALVES, description="number of the valve in the PLC, from 0")
    offset_mm: Length = Field(gt=0, description="nozzle's middle, downstream of the photo-eye, in millimetres")
    bin: str = Field(min_length=1, description="name of the bin that it blows into")
    delay_ms: Duration = Field(
        default=8.0, ge=0, le=500, description="from the PLC's output to air, in milliseconds"
    )
    pulse_ms: Annotated[int, BeforeValidator(not_in_seconds)] = Field(
        default=30, ge=5, le=1000, description="how long the valve opens, a whole number of milliseconds"
    )


class Bin(Settings):
    """A bin. The one called `others` stands at the belt's end and needs no ejector."""

    name: str = Field(min_length=1, description="name of the bin, as recipes use it")
    capacity: int | None = Field(
        default=None, gt=0, description="batteries that it holds; an alarm is raised when it is full"
    )


class Timeouts(Settings):
    """After how long silence is a fault, in seconds."""

    start_s: float = Field(default=10.0, gt=0, le=600, description="for all nodes and devices to come up")
    heartbeat_s: float = Field(default=1.0, gt=0, le=60, description="without a heartbeat, a node counts as dead")
    belt_state_s: float = Field(
        default=0.5, gt=0, le=10, description="without a belt state, the PLC counts as lost"
    )
    frame_s: float = Field(default=0.5, gt=0, le=10, description="from the photo-eye to its frame")


class Alarms(Settings):
    """What raises an alarm."""

    missed_in_a_row: int = Field(
        default=3, ge=1, description="ejections missed one after the other: the line holds"
    )
    no_image_in_a_row: int = Field(default=5, ge=1, description="batteries without a frame: the line holds")
    no_verdict_in_a_row: int = Field(
        default=20, ge=1, description="batteries of which the classifier says nothing: the line holds"
    )
    disk_free_mb: float = Field(
        default=200.0,
        ge=0,
        description="free space in megabytes: with less on the ledger's disk the line holds, on the pictures' "
        "there is an alarm",
    )


class BeltSite(SiteSettings):
    """One cell: its hardware, its geometry and its files."""

    name: Name = Field(description="name of the site: letters, digits and _")
    kind: Literal["belt"] = Field(default="belt", description="kind of the line")
    line: Name = Field(
        default="belt", description="name of the line, the namespace of its nodes: letters, digits and _"
    )
    recipe: str = Field(min_length=1, description="name of a recipe in config/recipes, or path of a file")
    model: str = Field(
        default="models/battery_type/1",
        min_length=1,
        description="folder of the battery-type model; a folder of versions: the active one",
    )
    shadow_model: str | None = Field(
        default=None,
        min_length=1,
        description="a candidate that looks at the same pictures; recorded, never acted on",
    )
    serves: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="run folders of further lines whose pictures this line's classifier looks at, too",
    )
    own_classifier: bool = Field(
        default=True, description="false: the classifier of another line serves this one (its `serves`)"
    )
    belt: Belt = Field(default=Belt(), description="the conveyor")
    plc: Device = Field(description="driver of the PLC and its settings")
    camera: Device = Field(description="driver of the camera and its settings")
    ejectors: tuple[Ejector, ...] = Field(strict=False, min_length=1, description="list of the ejectors")
    bins: tuple[Bin, ...] = Field(strict=False, min_length=1, description="list of the bins")
    ledger: LedgerSettings = Field(default=LedgerSettings(), description="where the records go")
    images: ImageSettings = Field(default=ImageSettings(), description="which pictures are kept")
    timeouts: Timeouts = Field(default=Timeouts(), description="after how long silence is a fault")
    alarms: Alarms = Field(default=Alarms(), description="what raises an alarm")
    drift: DriftLimits = Field(default=DriftLimits(), description="what tells that the model no longer fits")

    @field_validator("recipe", "model", "shadow_model")
    @classmethod
    def _no_surrounding_space(cls, value: str | None) -> str | None:
        return None if value is None else value.strip()

    @model_validator(mode="after")
    def _whose_classifier(self) -> BeltSite:
        if self.serves and not self.own_classifier:
            raise ValueError("serves: names lines to serve, but own_classifier is false: remove one of the two")
        return self

    @property
    def devices(self) -> dict[str, tuple[str, Device]]:
        """Path in the site file → kind of device and its driver."""
        return {"plc": ("plc", self.plc), "camera": ("camera", self.camera)}

    @property
    def used_by(self) -> dict[str, tuple[str, ...]]:
        """Node → paths of the devices that it talks to."""
        return {"conveyor": ("plc",), "ejector": ("plc",), "camera": ("camera",)}

    @property
    def bin_names(self) -> tuple[str, ...]:
        """All bins, *others* last."""
        return (*(b.name for b in self.bins if b.name != OTHERS), OTHERS)

    def ejectors_of(self, bin_name: str) -> tuple[Ejector, ...]:
        """Ejectors that blow into ``bin_name``, in the order in which a battery meets them."""
        return tuple(sorted((e for e in self.ejectors if e.bin == bin_name), key=lambda e: e.offset_mm))

    def model_directory(self) -> Path:
        """Absolute path of the model's folder: the one that is active now where ``model`` is a folder of versions.

        Raises:
            ConfigurationError: It is neither in the working directory nor in the package's share directory, or none
                of the versions is active.
        """
        return self._find_model("model", self.model)

    def shadow_directory(self) -> Path | None:
        """Absolute path of the candidate's folder, None where there is none. Raises as `model_directory`."""
        return None if self.shadow_model is None else self._find_model("shadow_model", self.shadow_model)

    def _find_model(self, key: str, name: str) -> Path:
        try:
            return find_model(name)
        except ModelError as error:
            raise ConfigurationError(f"site {self.name}", [f"{key}: {error}"]) from error

    @classmethod
    def misfits(cls, document: Document, site: BeltSite | None) -> list[str]:  # noqa: ARG003
        """Faults of where things stand, also beside faults of the parts."""
        return _layout_problems(document)


def _layout_problems(document: Document) -> list[str]:
    """Faults of where things stand. Looks at the well-formed parts only, so that it can run beside other faults."""
    data = document.data
    ejectors = list(parts_that_parse(Ejector, data.get("ejectors")))
    bins = list(parts_that_parse(Bin, data.get("bins")))
    belt = next((b for _, b in parts_that_parse(Belt, [data.get("belt") or {}])), None)
    return [
        *_belt_problems(document, belt),
        *_bin_problems(document, ejectors, bins),
        *_ejector_problems(document, ejectors, bins, belt),
        *_place_problems(document, ejectors),
    ]


def _length(items: Any) -> int:
    return len(items) if isinstance(items, list) else 0


def _belt_problems(document: Document, belt: Belt | None) -> list[str]:
    if belt is None or belt.min_speed_mps <= belt.max_speed_mps:
        return []
    problem = f"{belt.min_speed_mps:g} is above max_speed_mps {belt.max_speed_mps:g}: swap them"
    return [document.describe(("belt", "min_speed_mps"), problem)]


def _bin_problems(
    document: Document, ejectors: list[tuple[int, Ejector]], bins: list[tuple[int, Bin]]
) -> list[str]:
    problems = []
    served = {ejector.bin for _, ejector in ejectors}
    all_ejectors_known = len(ejectors) == _length(document.data.get("ejectors"))
    first: dict[str, int] = {}
    for index, bin_ in bins:
        if bin_.name in first:
            problem = f"'{bin_.name}' is also the name of bins[{first[bin_.name]}]: give each bin its own"
            problems.append(document.describe(("bins", index, "name"), problem))
        first.setdefault(bin_.name, index)
        if bin_.name != OTHERS and bin_.name not in served and all_ejectors_known:
            problem = f"no ejector blows into bin '{bin_.name}': add one under ejectors or remove the bin"
            problems.append(document.describe(("bins", index), problem))
    return problems


def _ejector_problems(
    document: Document, ejectors: list[tuple[int, Ejector]], bins: list[tuple[int, Bin]], belt: Belt | None
) -> list[str]:
    problems = []
    names = [bin_.name for _, bin_ in bins]
    all_bins_known = len(bins) == _length(document.data.get("bins"))
    for index, ejector in ejectors:
        if ejector.bin == OTHERS:
            problem = f"'{OTHERS}' stands at the belt's end and takes what nobody ejects: name a product bin"
            problems.append(document.describe(("ejectors", index, "bin"), problem))
        elif ejector.bin not in names and all_bins_known:
            problem = f"there is no bin '{ejector.bin}'; {suggest(ejector.bin, names)}"
            problems.append(document.describe(("ejectors", index, "bin"), problem))
        if belt is not None and ejector.offset_mm >= belt.exit_offset_mm:
            problem = (
                f"{ejector.offset_mm:g} mm is not before the exit eye at {belt.exit_offset_mm:g} mm: "
                "correct it or belt.exit_offset_mm"
            )
            problems.append(document.describe(("ejectors", index, "offset_mm"), problem))
    return problems


def _place_problems(document: Document, ejectors: list[tuple[int, Ejector]]) -> list[str]:
    problems = []
    valve_of: dict[int, int] = {}
    for index, ejector in ejectors:
        if ejector.valve in valve_of:
            problem = f"valve {ejector.valve} is also that of ejectors[{valve_of[ejector.valve]}]: each has its own"
            problems.append(document.describe(("ejectors", index, "valve"), problem))
        valve_of.setdefault(ejector.valve, index)
    by_place = sorted(ejectors, key=lambda item: item[1].offset_mm)
    for (one, before), (other, after) in itertools.pairwise(by_place):
        distance = after.offset_mm - before.offset_mm
        if distance < MIN_EJECTOR_DISTANCE_MM:
            problem = (
                f"{distance:g} mm from ejectors[{one}], which can't both stand there: "
                f"at least {MIN_EJECTOR_DISTANCE_MM:g} mm are needed"
            )
            problems.append(document.describe(("ejectors", other, "offset_mm"), problem))
    return problems

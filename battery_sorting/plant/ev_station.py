"""The mechanics of the simulated inspection station: magazine, loader, flipper, outlets. No I/O; time is given.

A cell is brought from the magazine into the flipper, looked at, turned by half a turn, looked at again, and
released to an outlet. One `Motion` runs at a time. What goes wrong is drawn per cell from `fault_rates`, or ordered
through the fault switches, and is told to the record when it happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from battery_sorting.core.types import View
from battery_sorting.drivers.station_plc.base import ActionResult, FlipperPosition, StationAction
from battery_sorting.ev.plant_record import BY_HAND
from battery_sorting.plant.cells import Record
from battery_sorting.plant.switches import check_switches
from battery_sorting.vision.synthetic.prismatic import (
    EXPECTED_DEG,
    KINDS,
    SEVERITIES,
    CellLook,
    sample_cell,
    sample_defect,
    sample_scene,
)
from battery_sorting.vision.synthetic.prismatic_faces import Defect

SWITCH_DEG = 2.0  # reach of the flipper's end switches
SECOND_ANSWER_S = 0.15
WAIT_S = 0.02
LOOKAHEAD = 2  # cells whose pictures are made before they come

FRAME_FAULTS = ("drop", "late", "wrong_size", "blank", "saturated", "blurred", "gray", "depth16", "disconnect")
MECHANICAL_FAULTS = {
    "loader.jam": "the loader jams and brings nothing",
    "loader.no_cell": "the loader brings nothing, but the part sensor says it has",
    "loader.two_cells": "the loader brings two cells at once",
    "loader.upside_down": "the cell is loaded with its lugs down",
    "flipper.jam": "the flipper stops half way and says so",
    "flipper.half": "the flipper stops half way and reports that it is done",
    "flipper.silent": "the flipper doesn't move and never answers",
    "flipper.twice": "the flipper answers twice",
    "flipper.late": "the flipper answers after late_answer_s",
    "station.swap": "somebody puts another cell into the station between the two pictures",
    "plc.restart": "the PLC restarts during the flip",
}
FAULTS = (*MECHANICAL_FAULTS, *(f"{view.value}.{fault}" for view in View for fault in FRAME_FAULTS))
"""What can be drawn per cell, and ordered for the next n times by the switch of the same name."""

_STATES: dict[str, Any] = {
    "estop": False,
    "plc.disconnect": False,
    "plc.silent": False,
    "plc.garbage": False,
    "plc.busy": 0.0,
    "lug.unplugged": False,
    "case.unplugged": False,
    "lug.clock_ahead_s": 0.0,
    "case.clock_ahead_s": 0.0,
}


class EvWorldConfig(BaseModel):
    """The station's build and what comes to it. docs/reference/plant.md explains each key."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    items: int = Field(0, ge=0, description="cells in the magazine, 0 is endless")
    outlets: dict[str, int] = Field(
        default_factory=lambda: {"product": 1, "quarantine": 2, "hazardous": 3, "review": 4, "reject": 5},
        min_length=1,
    )
    defective: float = Field(0.35, ge=0, le=1, description="share of cells with a defect")
    both_views: float = Field(0.1, ge=0, le=1, description="share of those that have one in each view")
    kinds: dict[str, float] = Field(
        default_factory=lambda: {kind: 1.0 for view in View for kind in KINDS[view][1:]},
        description="how often each defect comes, in proportion",
    )
    severity: tuple[float, float] = SEVERITIES
    fault_rates: dict[str, float] = Field(default_factory=dict, description="share of cells with each fault")
    load_s: float = Field(1.2, gt=0)
    flip_s: float = Field(1.5, gt=0)
    capture_s: float = Field(0.12, gt=0)
    release_s: float = Field(0.8, gt=0)
    late_answer_s: float = Field(7.0, gt=0)
    late_frame_s: float = Field(3.0, gt=0)
    time_factor: float = Field(1.0, gt=0, le=100, description="the mechanics run so many times as fast")

    @field_validator("severity")
    @classmethod
    def _range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] <= 1:
            raise ValueError("is [lowest, highest], both within 0 and 1")
        return value

    @field_validator("kinds")
    @classmethod
    def _known_kinds(cls, value: dict[str, float]) -> dict[str, float]:
        known = [kind for view in View for kind in KINDS[view][1:]]
        if unknown := sorted(set(value) - set(known)):
            raise ValueError(f"no such defect: {', '.join(unknown)}; there are {', '.join(known)}")
        if min(value.values(), default=0) < 0 or sum(value.values()) <= 0:
            raise ValueError("needs numbers from 0 up, at least one of them above 0")
        return value

    @field_validator("fault_rates")
    @classmethod
    def _known_faults(cls, value: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(value) - set(FAULTS)):
            raise ValueError(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
        if not all(0 <= rate <= 1 for rate in value.values()):
            raise ValueError("rates are shares of all cells, within 0 and 1")
        return value

    @field_validator("outlets")
    @classmethod
    def _own_numbers(cls, value: dict[str, int]) -> dict[str, int]:
        if len(set(value.values())) != len(value):
            raise ValueError("each outlet needs a number of its own")
        return value


class EvFaults:
    """The fault switches: states, and numbers of *next n* that count down as they take effect."""

    def __init__(self) -> None:
        self._defaults = {**_STATES, **dict.fromkeys(FAULTS, 0)}
        self._values = dict(self._defaults)

    def as_dict(self) -> dict[str, Any]:
        """Switch names to values."""
        return dict(self._values)

    def set(self, changes: dict[str, Any]) -> None:
        """Set switches by name: all of them or, on an error, none.

        Raises:
            ConfigurationError: Unknown switches or values of the wrong kind, all named.
        """
        self._values.update(check_switches(changes, self._defaults))

    def is_on(self, name: str) -> bool:
        """Whether a state is switched on."""
        return bool(self._values[name])

    def clock_ahead_s(self, view: View) -> float:
        """By how much a camera's clock is ahead (s)."""
        return float(self._values[f"{view.value}.clock_ahead_s"])

    def take(self, name: str) -> bool:
        """Whether a fault is ordered; if so, it is one less."""
        ordered = bool(self._values[name] > 0)
        self._values[name] -= ordered
        return ordered

    @property
    def plc_disconnect(self) -> bool:
        """The PLC's connections are dropped and refused."""
        return self.is_on("plc.disconnect")

    @property
    def plc_silent(self) -> bool:
        """The PLC takes requests and doesn't answer."""
        return self.is_on("plc.silent")

    @property
    def plc_busy(self) -> float:
        """Share of requests that the PLC has no time for."""
        return float(self._values["plc.busy"])

    @property
    def plc_garbage(self) -> bool:
        """The PLC answers with nonsense."""
        return self.is_on("plc.garbage")


@dataclass(eq=False, slots=True)
class EvCell:
    """One cell. ``faults`` are those of its way that have not struck yet; ``place`` is where it is."""

    index: int
    look: CellLook
    faults: set[str]
    upside_down: bool = False
    place: str = "magazine"

    @property
    def serial(self) -> str:
        """Printed on it."""
        return self.look.serial


@dataclass(frozen=True, slots=True)
class StationScene:
    """What a camera of the station sees: cells, and how far they are turned (0: lugs up, 180: bottom up)."""

    view: View
    cells: tuple[CellLook, ...]
    turn_deg: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Exposure:
    """A camera was fired. ``faults`` are the names of `FRAME_FAULTS` that befall this frame."""

    number: int
    t_s: float
    scene: StationScene
    indices: tuple[int, ...]
    faults: frozenset[str]


@dataclass(slots=True)
class Motion:
    """What moves. ``stop_deg`` is where the flipper will be at the end, ``answer_s`` when it says so."""

    action: StationAction
    argument: int
    begin_s: float
    end_s: float
    from_deg: float
    stop_deg: float
    result: ActionResult
    answer_s: list[float] = field(default_factory=list)
    tag: int = 0
    moved: bool = False


class EvWorld:
    """Everything in the station that a PLC or a camera can see or move.

    ``answer_listeners`` are called with every answer of the mechanics, also with those that come twice or too late;
    ``exposure_listeners`` when a camera is fired; ``restart_listeners`` when the PLC loses its supply;
    ``coming_listeners`` with the scenes that the cameras will probably see. The loader waits until ``may_arrive``
    says yes to those of its cell: a picture that is slow to draw delays the loader, not the frame.

    Args:
        config: Build.
        seed: Same seed, same cells and faults.
        record: Called with every event.
    """

    def __init__(self, config: EvWorldConfig, seed: int = 0, record: Record = lambda _: None) -> None:
        self.config = config
        self.faults = EvFaults()
        self.t_s = 0.0
        self.jam = False
        self.answer_listeners: list[Callable[[int, ActionResult], None]] = []
        self.exposure_listeners: list[Callable[[Exposure], None]] = []
        self.restart_listeners: list[Callable[[], None]] = []
        self.coming_listeners: list[Callable[[list[StationScene]], None]] = []
        self.may_arrive: Callable[[list[StationScene]], bool] = lambda _: True
        self.in_station: list[EvCell] = []
        self.outlets: dict[str, deque[EvCell]] = {name: deque() for name in config.outlets}
        self.counts: dict[str, int] = {}
        self.drawn = 0
        self._returned: deque[EvCell] = deque()
        self._ahead: deque[EvCell] = deque()
        self._coming: list[EvCell] = []
        self._ghost_comes = False
        self._seed = seed
        self._record = record
        self._scene = sample_scene(np.random.default_rng([seed, 1]))
        self._ghost = False  # the part sensor says that there is a cell
        self._deg = 0.0
        self._motion: Motion | None = None
        self._late: list[tuple[float, int, ActionResult]] = []
        self._triggers = dict.fromkeys(View, 0)
        self._names = {number: name for name, number in config.outlets.items()}
        self._stop_rng = np.random.default_rng([seed, 2])

    # ---- sensors ----

    @property
    def part_present(self) -> bool:
        """The part sensor."""
        return bool(self.in_station) or self._ghost

    @property
    def flipper(self) -> FlipperPosition:
        """The flipper's end switches."""
        if self.flipper_deg <= SWITCH_DEG:
            return FlipperPosition.UPRIGHT
        return FlipperPosition.INVERTED if self.flipper_deg >= 180 - SWITCH_DEG else FlipperPosition.BETWEEN

    @property
    def flipper_deg(self) -> float:
        """Angle of the flipper, 0 to 180."""
        motion = self._motion
        if motion is None or motion.moved:
            return self._deg
        share = min(1.0, (self.t_s - motion.begin_s) / max(motion.end_s - motion.begin_s, 1e-9))
        return motion.from_deg + share * (motion.stop_deg - motion.from_deg)

    @property
    def moving(self) -> bool:
        """Whether an action has not been answered yet."""
        return self._motion is not None

    @property
    def empty(self) -> bool:
        """Whether the magazine is empty."""
        return bool(self.config.items) and self.drawn >= self.config.items and not self._returned

    # ---- what the PLC does ----

    def knows_outlet(self, number: int) -> bool:
        """Whether there is an outlet of this number."""
        return number in self._names

    def start(self, action: StationAction, argument: int = 0, tag: int = 0) -> None:
        """Begin an action. Its answers go to ``answer_listeners``, with ``tag``.

        Raises:
            RuntimeError: Something moves already.
        """
        if self._motion is not None:
            raise RuntimeError(f"{self._motion.action.name} is still running")
        begin = {
            StationAction.LOAD: self._start_load,
            StationAction.FLIP: self._start_flip,
            StationAction.RELEASE: self._start_release,
        }.get(action, self._start_capture)
        self._motion = begin(action, argument)
        self._motion.tag = tag

    def abort(self) -> None:
        """Everything stops where it is. A late answer that is under way still comes."""
        stopped_deg = self.flipper_deg
        motion, self._motion = self._motion, None
        if motion is None:
            return
        self._deg = stopped_deg
        self._return_coming()
        self._late += [(at_s, motion.tag, motion.result) for at_s in motion.answer_s if at_s > motion.end_s]
        self._tell("aborted", action=motion.action.name.lower(), flipper_deg=round(self._deg, 1))

    def home(self, tag: int = 0) -> None:
        """Bring the flipper back to where cells are loaded; frees what is jammed. Answers as an action does."""
        self.abort()
        self.jam = False
        self._motion = self._plain(StationAction.NONE, 0, self.config.flip_s * self._deg / 180 + 0.02, 0.0)
        self._motion.tag = tag

    def advance(self, t_s: float) -> None:
        """Move on to ``t_s``."""
        while (due := self._next_due()) is not None and due <= t_s:
            self.t_s = max(self.t_s, due)
            self._happen()
        self.t_s = max(self.t_s, t_s)

    def look_ahead(self) -> None:
        """Tell ``coming_listeners`` what comes next, so that its pictures are there in time."""
        known = self.drawn + len(self._ahead)
        until = self.drawn + LOOKAHEAD
        for index in range(known, min(until, self.config.items) if self.config.items else until):
            cell = self._make_cell(index)
            self._ahead.append(cell)
            self._announce([cell])

    def take(self, outlet: str) -> EvCell | None:
        """Let the robot take the cell that lies at an outlet's pick place; None if there is none.

        Raises:
            KeyError: There is no such outlet.
        """
        waiting = self.outlets[outlet]
        if not waiting:
            return None
        cell = waiting.popleft()
        cell.place = "taken"
        self._tell("taken", index=cell.index, outlet=outlet)
        return cell

    # ---- motions ----

    def _plain(self, action: StationAction, argument: int, seconds: float, stop_deg: float) -> Motion:
        end_s = self.t_s + seconds / self.config.time_factor
        return Motion(action, argument, self.t_s, end_s, self._deg, stop_deg, ActionResult.DONE, [end_s])

    def _start_load(self, action: StationAction, argument: int) -> Motion:
        motion = self._plain(action, argument, self.config.load_s, self._deg)
        if self.empty:
            motion.result = ActionResult.EMPTY
            return motion
        coming = self._draw()
        self._coming = [coming]
        if self._strikes("loader.jam", coming):
            self._return_coming()
            motion.result = ActionResult.JAM
        elif self._strikes("loader.no_cell", coming):
            self._return_coming()
            self._ghost_comes = True
        else:
            coming.upside_down = self._strikes("loader.upside_down", coming)
            if not self.empty and self._strikes("loader.two_cells", coming):
                self._coming.append(self._draw())
        self._announce(self._coming)
        self.look_ahead()
        return motion

    def _announce(self, cells: list[EvCell]) -> None:
        for listener in self.coming_listeners:
            listener(self._scenes(cells))

    def _scenes(self, cells: list[EvCell]) -> list[StationScene]:
        """What the two cameras will see of these cells if all goes well."""
        return [self._scene_of(view, cells, deg) for view, deg in EXPECTED_DEG.items()]

    def _start_flip(self, action: StationAction, argument: int) -> Motion:
        goal = 180.0 if self._deg < 90 else 0.0
        motion = self._plain(action, argument, self.config.flip_s, goal)
        between = 90 + float(self._stop_rng.uniform(-55, 55))
        cells = self.in_station
        if cells and not self.empty and self._strikes("station.swap", *cells):
            self._swap()
        if self._strikes("plc.restart", *cells):
            self._late.append((self.t_s + 0.5 * (motion.end_s - motion.begin_s), 0, ActionResult.NONE))
        if self._strikes("flipper.jam", *cells):
            motion.stop_deg, motion.result = between, ActionResult.JAM
        elif self._strikes("flipper.half", *cells):
            motion.stop_deg = between
        elif self._strikes("flipper.silent", *cells):
            motion.stop_deg, motion.answer_s = self._deg, []
        elif self._strikes("flipper.twice", *cells):
            motion.answer_s.append(motion.end_s + SECOND_ANSWER_S)
        elif self._strikes("flipper.late", *cells):
            motion.answer_s = [max(motion.end_s, self.t_s + self.config.late_answer_s)]
        return motion

    def _start_release(self, action: StationAction, argument: int) -> Motion:
        way_home_s = self.config.flip_s * self._deg / 180
        return self._plain(action, argument, self.config.release_s + way_home_s, 0.0)

    def _start_capture(self, action: StationAction, argument: int) -> Motion:
        return self._plain(action, argument, self.config.capture_s, self._deg)

    def _next_due(self) -> float | None:
        motion = self._motion
        dues = [at_s for at_s, _, _ in self._late]
        if motion is not None and not motion.moved:
            dues.append(motion.end_s)
        elif motion is not None:
            dues += motion.answer_s[:1]
        return min(dues, default=None)

    def _happen(self) -> None:
        """Do what is due now."""
        due = [entry for entry in self._late if entry[0] <= self.t_s]
        self._late = [entry for entry in self._late if entry[0] > self.t_s]
        for entry in due:
            if entry[2] is ActionResult.NONE:
                self._tell("plc_restarts")
                self._late.clear()
                for listen in self.restart_listeners:
                    listen()
            else:
                self._answer(*entry[1:])
        motion = self._motion
        if motion is None:
            return
        if not motion.moved and motion.end_s <= self.t_s:
            if motion.action is StationAction.LOAD and not self.may_arrive(self._scenes(self._coming)):
                motion.end_s += WAIT_S
                motion.answer_s = [at_s + WAIT_S for at_s in motion.answer_s]
                return
            self._arrive(motion)
        elif motion.moved and motion.answer_s and motion.answer_s[0] <= self.t_s:
            self._late += [(at_s, motion.tag, motion.result) for at_s in motion.answer_s[1:]]
            self._motion = None
            self._answer(motion.tag, motion.result)

    def _arrive(self, motion: Motion) -> None:
        self._deg, motion.moved = motion.stop_deg, True
        self.jam = self.jam or motion.result is ActionResult.JAM
        if motion.action is StationAction.LOAD and motion.result is ActionResult.DONE:
            self._place_loaded()
        elif motion.action is StationAction.RELEASE:
            self._release(motion.argument)
        elif motion.action is StationAction.CAPTURE_LUG:
            self._expose(View.LUG)
        elif motion.action is StationAction.CAPTURE_CASE:
            self._expose(View.CASE)
        self._tell(
            "action",
            action=motion.action.name.lower() if motion.action else "home",
            argument=motion.argument,
            result=motion.result.name.lower(),
            begin_s=round(motion.begin_s, 6),
            cells=[cell.index for cell in self.in_station],
            flipper_deg=round(self._deg, 1),
        )

    def _answer(self, tag: int, result: ActionResult) -> None:
        for listener in self.answer_listeners:
            listener(tag, result)

    # ---- cells ----

    def _draw(self) -> EvCell:
        """The next cell of the magazine."""
        if self._returned:
            return self._returned.popleft()
        self.look_ahead()
        cell = self._ahead.popleft()
        self.drawn += 1
        self._tell_cell(cell)
        return cell

    def _return_coming(self) -> None:
        """What the loader had gripped stays in the magazine."""
        self._returned.extendleft(reversed(self._coming))
        self._coming, self._ghost_comes = [], False

    def _make_cell(self, index: int) -> EvCell:
        config, rng = self.config, np.random.default_rng([self._seed, 3, index])
        defects: list[Defect] = []
        if rng.random() < config.defective:
            names, weights = list(config.kinds), np.array(list(config.kinds.values()))
            first = str(rng.choice(names, p=weights / weights.sum()))
            defects.append(sample_defect(rng, first, float(rng.uniform(*config.severity))))
            others = [name for name in names if (name in KINDS[View.LUG]) != (first in KINDS[View.LUG])]
            if others and rng.random() < config.both_views:
                defects.append(sample_defect(rng, str(rng.choice(others)), float(rng.uniform(*config.severity))))
        look = sample_cell(rng, defects)
        dice = np.random.default_rng([self._seed, 4, index])
        faults = {name for name, rate in config.fault_rates.items() if dice.random() < rate}
        return EvCell(index, look, faults)

    def _place_loaded(self) -> None:
        self.in_station, self._coming = self._coming, []
        self._ghost, self._ghost_comes = self._ghost_comes, False
        for cell in self.in_station:
            cell.place = "station"
        self._tell("loaded", cells=[cell.index for cell in self.in_station])

    def _swap(self) -> None:
        for cell in self.in_station:
            cell.place = BY_HAND
            self._tell("outlet", index=cell.index, outlet=BY_HAND)
        other = self._draw()
        other.place = "station"
        self._tell("swapped", taken=[cell.index for cell in self.in_station], put=other.index)
        self.in_station = [other]

    def _release(self, number: int) -> None:
        name = self._names[number]
        for cell in self.in_station:
            cell.place = name
            self.outlets[name].append(cell)
            self.counts[name] = self.counts.get(name, 0) + 1
            self._tell("outlet", index=cell.index, outlet=name)
        self.in_station, self._ghost = [], False

    def _expose(self, view: View) -> None:
        self._triggers[view] += 1
        struck = {fault for fault in FRAME_FAULTS if self._strikes(f"{view.value}.{fault}", *self.in_station)}
        exposure = Exposure(
            self._triggers[view],
            self.t_s,
            self._scene_of(view, self.in_station, self._deg),
            tuple(cell.index for cell in self.in_station),
            frozenset(struck),
        )
        self._tell("exposure", view=view.value, number=exposure.number, cells=list(exposure.indices))
        for listener in self.exposure_listeners:
            listener(exposure)

    def triggers(self, view: View) -> int:
        """How often a camera was fired."""
        return self._triggers[view]

    def _scene_of(self, view: View, cells: Iterable[EvCell], deg: float) -> StationScene:
        cells = list(cells)
        turns = tuple(round((deg + 180.0 * cell.upside_down) % 360, 1) for cell in cells)
        return StationScene(view, tuple(cell.look for cell in cells), turns)

    def _strikes(self, fault: str, *cells: EvCell) -> bool:
        """Whether a fault happens now, be it the cell's or ordered; it is told if so."""
        hit = next((cell for cell in cells if fault in cell.faults), None)
        if hit is not None:
            hit.faults.discard(fault)
        elif not self.faults.take(fault):
            return False
        befallen = [] if fault in _OF_THE_LOADER else [cell.index for cell in cells]
        self._tell("injected", name=fault, cells=befallen)
        return True

    def _tell_cell(self, cell: EvCell) -> None:
        defects = {defect.kind: defect for defect in cell.look.defects}
        self._tell(
            "cell",
            index=cell.index,
            serial=cell.look.serial,
            lug=cell.look.kind(View.LUG),
            case=cell.look.kind(View.CASE),
            severities={kind: round(defect.severity, 4) for kind, defect in defects.items()},
            variants={kind: defect.variant for kind, defect in defects.items()},
            planned_faults=sorted(cell.faults),
        )

    def _tell(self, event: str, **facts: Any) -> None:
        self._record({"event": event, "t_s": round(self.t_s, 6), **facts})


_OF_THE_LOADER = {"loader.jam", "loader.no_cell"}  # the cell stays in the magazine and comes the next time

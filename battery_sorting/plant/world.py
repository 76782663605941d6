"""The physics of the simulated plant: belt, batteries, photo-eyes, air valves. No I/O; time is given by the caller.

Positions along the belt are in mm from the photo-eye at the camera, positive downstream. A battery doesn't move
on the belt, so it is described by the belt travel at which its centre stands at the photo-eye (`Item.belt_mm`).
Steps are at most `STEP_S` long with a constant acceleration, and what happens inside a step (an eye is crossed, a
count is reached, a jet meets a battery) is solved for exactly. Slip changes on a fixed grid of time, so a run
doesn't depend on how often `World.advance` is called.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from battery_sorting.core.types import OTHERS
from battery_sorting.plant.switches import Switches, switch
from battery_sorting.vision.synthetic.forms import FORMS_MM, TYPE_FORMS

STEP_S = 0.005
MIN_JET_S = 0.008  # the jet must meet a battery for this long to move it
JET_REACH_MM = 15.0  # half of the length over which a nozzle blows, for batteries that are shorter than that
PULSE_LOOK_MM = 100.0  # a position error is reported for a battery that is nearer than this
OTHERS_OFFSET_MM = 50.0  # from the exit eye to the belt's end
MIN_SPACING_MM = 60.0
MIN_GAP_MM = 10.0  # between neighbours, as the feeder separates them
TIGHT_SPACING_MM = (25.0, 40.0)
EYE_RESOLUTION_MM = 1.0  # a gap that is shorter doesn't let the beam through
GHOST_SPACING_MM = (30.0, 120.0)
LOOKAHEAD = 36  # batteries that are known before they appear, so that their pictures can be made in time
DELAY_LIMIT_S = 0.002  # deviation of a valve's delay is clipped here


Record = Callable[[dict[str, Any]], None]


class PhotoEye(str, Enum):
    """The photo-eyes along the belt."""

    GATE = "gate"
    CAMERA = "camera"
    EXIT = "exit"


class ValveConfig(BaseModel):
    """One air valve: number on the PLC, nozzle's place in mm from the photo-eye, bin it blows into."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    valve: int = Field(ge=0, le=15)
    offset_mm: float = Field(gt=0)
    bin: str = Field(min_length=1)


def _default_valves() -> list[ValveConfig]:
    return [
        ValveConfig(valve=number, offset_mm=600.0 + 150.0 * number, bin=label)
        for number, label in enumerate(TYPE_FORMS)
    ]


class WorldConfig(BaseModel):
    """The plant's build. Units stand in the names; docs/reference/plant.md explains each key."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    items: int = Field(0, ge=0, description="batteries in all, 0 is endless")
    pitch_mm: float = Field(100.0, ge=MIN_SPACING_MM)
    pitch_jitter: float = Field(0.25, ge=0, le=0.5)
    types: list[str] = Field(default_factory=lambda: list(TYPE_FORMS), min_length=1)
    unknown_types: list[str] = Field(default_factory=lambda: ["unknown brand"], min_length=1)
    unknown_fraction: float = Field(0.08, ge=0, le=1)
    speed_mps: float = Field(0.5, gt=0, le=1.5, description="set-point until the PLC is told another")
    ramp_mps2: float = Field(1.5, gt=0)
    estop_ramp_mps2: float = Field(10.0, gt=0)
    slip_max: float = Field(0.02, ge=0, le=0.1)
    slip_time_s: float = Field(30.0, gt=0)
    mm_per_count: float = Field(0.1, gt=0)
    encoder_start: int = Field(0, ge=0, lt=2**32)
    spawn_offset_mm: float = Field(-600.0, lt=0)
    gate_offset_mm: float = Field(-250.0, lt=0)
    exit_offset_mm: float = Field(2100.0, gt=0)
    valves: list[ValveConfig] = Field(default_factory=_default_valves)
    eye_jitter_mm: float = Field(0.4, ge=0)
    valve_delay_ms: float = Field(8.0, ge=7)
    valve_delay_sd_ms: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _geometry_is_in_order(self) -> WorldConfig:
        if self.spawn_offset_mm >= self.gate_offset_mm - MIN_SPACING_MM:
            raise ValueError("spawn_offset_mm must lie at least 60 mm upstream of gate_offset_mm")
        numbers = [valve.valve for valve in self.valves]
        if len(set(numbers)) != len(numbers):
            raise ValueError("valves: each valve number may stand only once")
        for valve in self.valves:
            if valve.offset_mm >= self.exit_offset_mm:
                raise ValueError(f"valves: valve {valve.valve} lies behind exit_offset_mm")
        return self


@dataclass
class Faults(Switches):
    """The fault switches. Numbers of *next n* count down as they take effect."""

    feeder_tight_pair: int = switch("feeder.tight_pair", 0)
    feeder_empty: bool = switch("feeder.empty", False)
    encoder_freeze: bool = switch("encoder.freeze", False)
    eye_miss: int = switch("eye.miss", 0)
    eye_ghost: int = switch("eye.ghost", 0)
    valve_stick: tuple[int, ...] = switch("valve.stick", ())
    valve_delay_ms: float = switch("valve.delay_ms", 0.0)
    camera_drop: int = switch("camera.drop", 0)
    camera_delay_s: float = switch("camera.delay_s", 0.0)
    camera_freeze: bool = switch("camera.freeze", False)
    camera_corrupt: int = switch("camera.corrupt", 0)
    camera_miss: int = switch("camera.miss", 0)
    camera_clock_ahead_s: float = switch("camera.clock_ahead_s", 0.0)
    camera_restart: int = switch("camera.restart", 0)
    camera_disconnect: bool = switch("camera.disconnect", False)
    plc_disconnect: bool = switch("plc.disconnect", False)
    plc_garbage: bool = switch("plc.garbage", False)
    plc_silent: bool = switch("plc.silent", False)
    plc_busy: float = switch("plc.busy", 0.0)
    estop: bool = switch("estop", False)


@dataclass(slots=True, eq=False)
class Item:
    """One battery on the belt.

    ``offset_mm`` is the place of its centre in the picture, (along the belt, across), from the picture's centre;
    ``angle_rad`` its direction to the belt. ``trigger_count`` is the photo-eye edge that it made, if it made one of
    its own; ``bin`` is None while it lies on the belt.
    """

    index: int
    label: str
    known: bool
    length_mm: float
    diameter_mm: float
    angle_rad: float
    offset_mm: tuple[float, float]
    wear: float
    seed: int
    belt_mm: float
    merged: bool = False
    trigger_count: int | None = None
    bin: str | None = None

    @property
    def half_extent_mm(self) -> float:
        """Half of the length that it covers along the belt."""
        along = self.length_mm * abs(math.cos(self.angle_rad)) + self.diameter_mm * abs(math.sin(self.angle_rad))
        return along / 2


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge of a photo-eye. ``item`` is None for a false one; ``encoder_count`` is that of the PLC's counter."""

    eye: PhotoEye
    number: int
    t_s: float
    encoder_count: int
    belt_mm: float
    item: Item | None


@dataclass(slots=True)
class Segment:
    """A stretch of time with constant acceleration and slip."""

    t_s: float
    dt_s: float
    speed_mm_s: float
    accel_mm_s2: float
    slip: float
    belt_mm: float
    encoder_mm: float
    encoder_moves: bool

    def roller_travel(self, tau_s: float) -> float:
        """Travel of the drive roller, in mm, ``tau_s`` after the start of the segment."""
        return (self.speed_mm_s + 0.5 * self.accel_mm_s2 * tau_s) * tau_s

    def belt_at(self, tau_s: float) -> float:
        """Belt travel since the plant's start, in mm."""
        return self.belt_mm + (1.0 + self.slip) * self.roller_travel(tau_s)

    def encoder_at(self, tau_s: float) -> float:
        """Travel that the encoder has seen since the plant's start, in mm."""
        return self.encoder_mm + (self.roller_travel(tau_s) if self.encoder_moves else 0.0)

    def tau_at_belt(self, belt_mm: float) -> float:
        """Time into the segment at which the belt has travelled to ``belt_mm``, within 0..dt_s."""
        return self._tau_at_roller((belt_mm - self.belt_mm) / (1.0 + self.slip))

    def tau_at_encoder(self, encoder_mm: float) -> float:
        """Time into the segment at which the encoder reaches ``encoder_mm``, within 0..dt_s."""
        return self._tau_at_roller(encoder_mm - self.encoder_mm)

    def _tau_at_roller(self, travel_mm: float) -> float:
        if travel_mm <= 0.0:
            return 0.0
        root = math.sqrt(max(0.0, self.speed_mm_s**2 + 2.0 * self.accel_mm_s2 * travel_mm))
        if self.speed_mm_s + root <= 0.0:
            return self.dt_s
        return min(2.0 * travel_mm / (self.speed_mm_s + root), self.dt_s)


@dataclass(slots=True)
class _Jet:
    """One pulse of air."""

    token: int
    valve: ValveConfig
    on_s: float
    off_s: float
    mid_belt_mm: float = math.nan
    overlap_s: dict[Item, float] = field(default_factory=dict)
    hit: list[Item] = field(default_factory=list)

    @property
    def mid_s(self) -> float:
        return (self.on_s + self.off_s) / 2


class _SlipProcess:
    """Ornstein-Uhlenbeck process that stays within the given limit; its standard deviation is a third of it."""

    def __init__(self, limit: float, time_s: float, rng: np.random.Generator) -> None:
        self._limit = limit
        self._keep = math.exp(-STEP_S / time_s)
        self._sd = limit / 3 * math.sqrt(1.0 - self._keep**2)
        self._rng = rng
        self._noise: Iterator[float] = iter(())
        self.value = self._clip(limit / 3 * float(rng.standard_normal()))

    def step(self) -> None:
        noise = next(self._noise, None)
        if noise is None:
            self._noise = iter(self._rng.standard_normal(4096).tolist())
            noise = next(self._noise)
        self.value = self._clip(self._keep * self.value + self._sd * noise)

    def _clip(self, value: float) -> float:
        return min(max(value, -self._limit), self._limit)


class _Feeder:
    """Lays batteries on the belt."""

    def __init__(self, config: WorldConfig, rng: np.random.Generator) -> None:
        self._config = config
        self._rng = rng
        self._count = 0
        self._last: Item | None = None

    def next_item(self) -> Item | None:
        """The battery that comes next, None when there are no more."""
        if self._config.items and self._count >= self._config.items:
            return None
        item = self._make_item()
        self._place(item)
        self._count += 1
        self._last = item
        return item

    def _make_item(self) -> Item:
        rng = self._rng
        known = bool(rng.random() >= self._config.unknown_fraction)
        labels = self._config.types if known else self._config.unknown_types
        label = labels[int(rng.integers(len(labels)))]
        forms = TYPE_FORMS.get(label, ("AA", "AAA"))
        length_mm, diameter_mm = FORMS_MM[forms[int(rng.integers(len(forms)))]]
        along = float(rng.normal(0.0, self._config.eye_jitter_mm))
        across = float(np.clip(rng.normal(0.0, 3.0), -8.0, 8.0))
        return Item(
            index=self._count,
            label=label,
            known=known,
            length_mm=length_mm,
            diameter_mm=diameter_mm,
            angle_rad=float(rng.uniform(0.0, 2 * math.pi)),
            offset_mm=(along, across),
            wear=float(rng.beta(1.5, 4.0)),
            seed=int(rng.integers(2**31)),
            belt_mm=0.0,
        )

    def _place(self, item: Item) -> None:
        jitter = self._config.pitch_jitter
        spacing = self._config.pitch_mm * float(self._rng.uniform(1 - jitter, 1 + jitter))
        if self._last is None:
            item.belt_mm = -self._config.spawn_offset_mm + spacing
            return
        extents = item.half_extent_mm + self._last.half_extent_mm
        item.belt_mm = self._last.belt_mm + max(spacing, MIN_SPACING_MM, extents + MIN_GAP_MM)


class World:
    """Everything that the PLC and the camera can see or move.

    Controllers register callbacks: ``scan_listeners`` are called at the start of every step and may set the drive,
    ``edge_listeners`` for every photo-eye edge, ``motion_listeners`` after every step with its `Segment` (that is
    where counts are compared), ``air_listeners`` with a pulse's token when its air comes.

    ``upcoming`` are the batteries that come next, ``on_belt`` those that lie on the belt, in their order;
    ``set_point_mps`` is the speed at which the belt runs when it runs.
    """

    def __init__(self, config: WorldConfig, seed: int, record: Record | None = None) -> None:
        slip_rng, feeder_rng, self._eye_rng, self._valve_rng = (
            np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)
        )
        self.config = config
        self.faults = Faults()
        self.t_s = 0.0
        self.belt_mm = 0.0
        self.encoder_mm = 0.0
        self.on_belt: list[Item] = []
        self.upcoming: deque[Item] = deque()
        self.spawned = 0
        self.scan_listeners: list[Callable[[], None]] = []
        self.edge_listeners: list[Callable[[Edge], None]] = []
        self.motion_listeners: list[Callable[[Segment], None]] = []
        self.air_listeners: list[Callable[[int], None]] = []
        self.set_point_mps = config.speed_mps
        self._record: Record = record or (lambda _event: None)
        self._slip = _SlipProcess(config.slip_max, config.slip_time_s, slip_rng)
        self._feeder = _Feeder(config, feeder_rng)
        self._fill_feeder()
        self._tick = 0
        self._speed_mm_s = 0.0
        self._target_mm_s = 0.0
        self._ramp_mm_s2 = config.ramp_mps2 * 1000.0
        self._edge_numbers = dict.fromkeys(PhotoEye, 0)
        # batteries on their way to an eye, with the belt travel at which it will see them
        self._gate: deque[tuple[Item, float]] = deque()
        self._eye: deque[tuple[Item, float]] = deque()
        self._exit: deque[tuple[Item, float]] = deque()
        self._last_out: Item | None = None
        self._ghost_mm = math.inf
        self._valves = {valve.valve: valve for valve in config.valves}
        self._jets: list[_Jet] = []

    @property
    def speed_mps(self) -> float:
        """Speed of the drive roller's surface."""
        return self._speed_mm_s / 1000.0

    @property
    def slip(self) -> float:
        """Belt travel = (1 + slip) * roller travel, now."""
        return self._slip.value

    @property
    def encoder_count(self) -> int:
        """The PLC's counter: 32 bits, wraps."""
        return self.count_at(self.encoder_mm)

    @property
    def finished(self) -> bool:
        """All batteries that come have come, and each is in a bin."""
        return (not self.upcoming or self.faults.feeder_empty) and not self.on_belt

    def count_at(self, encoder_mm: float) -> int:
        """Counter at a travel of the encoder since the plant's start."""
        return (self.config.encoder_start + self.counts_at(encoder_mm)) % 2**32

    def counts_at(self, encoder_mm: float) -> int:
        """Counts since the plant's start; these don't wrap."""
        return math.floor(encoder_mm / self.config.mm_per_count + 1e-6)

    def set_drive(self, speed_mps: float, ramp_mps2: float) -> None:
        """Let the drive run to a speed (0: stand still) with a ramp."""
        self._target_mm_s = speed_mps * 1000.0
        self._ramp_mm_s2 = ramp_mps2 * 1000.0

    def open_valve(self, valve: int, at_s: float, pulse_ms: float, token: int) -> bool:
        """Switch a valve on at ``at_s`` for ``pulse_ms``; air comes after its delay. False: no feedback."""
        if valve in self.faults.valve_stick:
            self._tell("valve_stuck", at_s, valve=valve, token=token)
            return False
        scatter = float(self._valve_rng.normal(0.0, self.config.valve_delay_sd_ms / 1000.0))
        scatter = min(max(scatter, -DELAY_LIMIT_S), DELAY_LIMIT_S)
        on_s = at_s + (self.config.valve_delay_ms + self.faults.valve_delay_ms) / 1000.0 + scatter
        self._jets.append(_Jet(token, self._valves[valve], on_s, on_s + pulse_ms / 1000.0))
        return True

    def close_valves(self) -> list[int]:
        """Shut all valves now. Returns the tokens of those pulses whose air hadn't come yet: it won't."""
        blowing = [jet for jet in self._jets if jet.on_s < self.t_s]
        never_blew = [jet.token for jet in self._jets if jet.on_s >= self.t_s]
        for jet in blowing:
            jet.off_s = min(jet.off_s, self.t_s)
            if math.isnan(jet.mid_belt_mm) and jet.mid_s <= self.t_s:
                jet.mid_belt_mm = self.belt_mm
            self._finish(jet)
        self._jets = []
        return never_blew

    def advance(self, t_s: float) -> None:
        """Move the world on to ``t_s``; nothing happens if that isn't later than now."""
        while self.t_s < t_s:
            self._step(t_s)

    def _step(self, t_s: float) -> None:
        for scan in self.scan_listeners:
            scan()
        boundary = (self._tick + 1) * STEP_S
        until = min(t_s, boundary)
        segment = self._move(until)
        if self.faults.feeder_empty:
            for item in self.upcoming:
                item.belt_mm += self.belt_mm - segment.belt_mm
        self._spawn()
        self._cross_eyes(segment)
        self._fall_off()
        for listener in self.motion_listeners:
            listener(segment)
        if self._jets:
            self._blow(segment)
        if self.t_s >= boundary:
            self._tick += 1
            self._slip.step()

    def _move(self, until: float) -> Segment:
        """Integrate the motion up to ``until``, or to the end of the ramp if that is earlier."""
        speed, target, dt_s = self._speed_mm_s, self._target_mm_s, until - self.t_s
        accel = 0.0
        end_speed = speed
        if speed != target:
            accel = math.copysign(self._ramp_mm_s2, target - speed)
            ramp_s = (target - speed) / accel
            if ramp_s <= dt_s:
                end_speed, dt_s = target, ramp_s
                until = min(until, self.t_s + ramp_s)
            else:
                end_speed = speed + accel * dt_s
        segment = Segment(
            self.t_s,
            dt_s,
            speed,
            accel,
            self._slip.value,
            self.belt_mm,
            self.encoder_mm,
            not self.faults.encoder_freeze,
        )
        self.belt_mm = segment.belt_at(dt_s)
        self.encoder_mm = segment.encoder_at(dt_s)
        self._speed_mm_s = end_speed
        self.t_s = until
        return segment

    def _spawn(self) -> None:
        while self.upcoming and self.belt_mm >= self.upcoming[0].belt_mm + self.config.spawn_offset_mm:
            item = self.upcoming.popleft()
            self._fill_feeder()
            self._crowd(item)
            self.on_belt.append(item)
            gate_jitter, exit_jitter = self._eye_rng.normal(0.0, self.config.eye_jitter_mm, 2).tolist()
            self._gate.append((item, item.belt_mm + self.config.gate_offset_mm + gate_jitter))
            self._eye.append((item, item.belt_mm + item.offset_mm[0]))
            self._exit.append((item, item.belt_mm + self.config.exit_offset_mm + exit_jitter))
            self.spawned += 1
            self._tell("item", self.t_s, index=item.index, label=item.label, known=item.known)

    def _fill_feeder(self) -> None:
        while len(self.upcoming) < LOOKAHEAD and (item := self._feeder.next_item()) is not None:
            self.upcoming.append(item)

    def _crowd(self, item: Item) -> None:
        """If a fault says so, let the next battery follow ``item`` too closely."""
        if self.faults.feeder_tight_pair == 0 or not self.upcoming:
            return
        self.faults.feeder_tight_pair -= 1
        follower = self.upcoming[0]
        spacing = float(self._eye_rng.uniform(*TIGHT_SPACING_MM))
        follower.merged = spacing - item.half_extent_mm - follower.half_extent_mm < EYE_RESOLUTION_MM
        nearer_mm = follower.belt_mm - item.belt_mm - spacing
        for later in self.upcoming:
            later.belt_mm -= nearer_mm

    def _cross_eyes(self, segment: Segment) -> None:
        while self._gate and self._gate[0][1] <= self.belt_mm:
            item, place_mm = self._gate.popleft()
            if not item.merged:
                self._edge(PhotoEye.GATE, place_mm, segment, item)
        while (place_mm := self._next_at_camera()) <= self.belt_mm:
            self._cross_camera(place_mm, segment)
        while self._exit and self._exit[0][1] <= self.belt_mm:
            item, place_mm = self._exit.popleft()
            if item.bin is None and self._stands_alone(item):
                self._edge(PhotoEye.EXIT, place_mm, segment, item)

    def _next_at_camera(self) -> float:
        """Belt travel at which the photo-eye at the camera sees something next: a battery, or a false edge."""
        if self.faults.eye_ghost == 0:
            self._ghost_mm = math.inf
        elif self._ghost_mm == math.inf:
            self._ghost_mm = self.belt_mm + float(self._eye_rng.uniform(*GHOST_SPACING_MM))
        return min(self._eye[0][1], self._ghost_mm) if self._eye else self._ghost_mm

    def _cross_camera(self, place_mm: float, segment: Segment) -> None:
        if place_mm == self._ghost_mm:
            self._ghost_mm = math.inf
            self.faults.eye_ghost -= 1
            self._edge(PhotoEye.CAMERA, place_mm, segment, None)
            return
        item, _ = self._eye.popleft()
        if item.merged:
            return
        if self.faults.eye_miss > 0:
            self.faults.eye_miss -= 1
            return
        item.trigger_count = self._edge_numbers[PhotoEye.CAMERA] + 1
        self._edge(PhotoEye.CAMERA, place_mm, segment, item)

    def _stands_alone(self, item: Item) -> bool:
        """Whether the beam of the exit eye is free between this battery and the one that passed before."""
        before, self._last_out = self._last_out, item
        if before is None:
            return True
        gap_mm = item.belt_mm - before.belt_mm - item.half_extent_mm - before.half_extent_mm
        return gap_mm >= EYE_RESOLUTION_MM

    def _edge(self, eye: PhotoEye, belt_mm: float, segment: Segment, item: Item | None) -> None:
        tau_s = segment.tau_at_belt(belt_mm)
        self._edge_numbers[eye] += 1
        edge = Edge(
            eye=eye,
            number=self._edge_numbers[eye],
            t_s=segment.t_s + tau_s,
            encoder_count=self.count_at(segment.encoder_at(tau_s)),
            belt_mm=segment.belt_at(tau_s),
            item=item,
        )
        if eye is PhotoEye.CAMERA:
            index = None if item is None else item.index
            self._tell("trigger", edge.t_s, index=index, trigger_count=edge.number)
        elif eye is PhotoEye.EXIT and item is not None:
            self._tell("exit", edge.t_s, index=item.index, exit_count=edge.number)
        for listener in self.edge_listeners:
            listener(edge)

    def _fall_off(self) -> None:
        end_mm = self.config.exit_offset_mm + OTHERS_OFFSET_MM
        while self.on_belt and self.on_belt[0].belt_mm + end_mm <= self.belt_mm:
            self._drop(self.on_belt.pop(0), OTHERS, self.t_s)

    def _drop(self, item: Item, bin_name: str, t_s: float) -> None:
        item.bin = bin_name
        self._tell("bin", t_s, index=item.index, bin=bin_name)

    def _blow(self, segment: Segment) -> None:
        ended = []
        for jet in self._jets:
            if segment.t_s <= jet.on_s < self.t_s:
                for listener in self.air_listeners:
                    listener(jet.token)
            start_s = max(jet.on_s, segment.t_s)
            end_s = min(jet.off_s, self.t_s)
            if end_s > start_s:
                self._push(jet, segment, start_s - segment.t_s, end_s - segment.t_s)
            if segment.t_s <= jet.mid_s <= self.t_s:
                jet.mid_belt_mm = segment.belt_at(jet.mid_s - segment.t_s)
            if jet.off_s <= self.t_s:
                ended.append(jet)
        for jet in ended:
            self._jets.remove(jet)
            self._finish(jet)

    def _push(self, jet: _Jet, segment: Segment, start_s: float, end_s: float) -> None:
        """Let the jet blow on what lies before the nozzle from ``start_s`` to ``end_s`` into the segment."""
        belt_start = segment.belt_at(start_s) - jet.valve.offset_mm
        belt_end = segment.belt_at(end_s) - jet.valve.offset_mm
        for item in list(self.on_belt):
            reach_mm = max(0.6 * item.half_extent_mm, JET_REACH_MM)
            if item.belt_mm + reach_mm < belt_start or item.belt_mm - reach_mm > belt_end:
                continue
            came_s = segment.tau_at_belt(item.belt_mm - reach_mm + jet.valve.offset_mm)
            left_s = end_s
            if item.belt_mm + reach_mm < belt_end:
                left_s = segment.tau_at_belt(item.belt_mm + reach_mm + jet.valve.offset_mm)
            met_s = max(0.0, min(left_s, end_s) - max(came_s, start_s))
            jet.overlap_s[item] = jet.overlap_s.get(item, 0.0) + met_s
            if jet.overlap_s[item] >= MIN_JET_S - 1e-9:
                jet.hit.append(item)
                self.on_belt.remove(item)
                self._drop(item, jet.valve.bin, segment.t_s + end_s)

    def _finish(self, jet: _Jet) -> None:
        error_mm = self._position_error(jet)
        self._tell(
            "pulse",
            jet.mid_s,
            token=jet.token,
            valve=jet.valve.valve,
            bin=jet.valve.bin,
            hit=[item.index for item in jet.hit],
            position_error_mm=None if error_mm is None else round(error_mm, 3),
            empty=not jet.hit,
        )

    def _position_error(self, jet: _Jet) -> float | None:
        """Place of the nearest battery's centre from the nozzle at mid-pulse, None if there is none near."""
        middle = jet.mid_belt_mm - jet.valve.offset_mm
        errors = [middle - item.belt_mm for item in {*self.on_belt, *jet.hit}]
        nearest = min(errors, key=abs, default=math.inf)
        return nearest if abs(nearest) <= PULSE_LOOK_MM else None

    def _tell(self, event: str, t_s: float, **facts: Any) -> None:
        self._record({"event": event, "t_s": round(t_s, 6), **facts})

"""The multi-channel cycler of the simulated plant: its channels run programmes on `Cells`, and it speaks SCPI.

Each channel has a contact head (opened and closed on command), regulators for current and voltage with errors of
their own, a temperature sensor and a record of finished steps. Limits are watched at every step of the model. A
watchdog switches everything off when the host falls silent. docs/reference/tester.md describes the language.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from battery_sorting.core import readings
from battery_sorting.drivers.tester.cycler import (
    ESTOP_ERROR,
    OPEN_ERROR,
    OPEN_OHM,
    RUNNING_ERROR,
    format_number,
)
from battery_sorting.plant.cells import Cells, Record, rounded
from battery_sorting.plant.scpi import ErrorQueue, Handler, Instrument, ScpiError, choice, number

STEP_S = {"REST": 60.0, "CHARGE": 10.0, "DISCHARGE": 10.0, "PULSE": 0.5}
"""Longest step of the model in each kind of step."""
MAX_STEPS = 50
BAD_CONTACT_OHM = 0.08
GOOD_CONTACT_OHM = 0.0003
SHOWN = ("voltage", "current", "temperature", "charge", "elapsed")
"""Readings of ``MEASure:CHANnel?``, in their order; ``contact`` is that of ``MEASure:CONTact?``."""
STEP_SHOWN = tuple(
    f"step_{name}" for name in ("seconds", "charge", "energy", "before", "end", "current", "temperature")
)
"""Readings of ``FETCh:STEP?``."""
EMPTY_TOLERANCE_V = 0.0005
NEAR_FULL_V, NEAR_EMPTY_V = 0.2, 0.5  # further off, no step of the model can reach the end voltage
NOISE_V = 0.0001
NOISE_C = 0.1
VOLTAGE_ERROR_V, CURRENT_ERROR_SHARE, CURRENT_ERROR_A, TEMPERATURE_ERROR_C = 0.001, 0.0005, 0.003, 1.0
"""Limits of error; each channel's own errors are drawn within them."""
MIN_LIMITS = (0.0, 5.0, 60.0)  # voltage from, to, temperature to: what the instrument itself can stand


class CyclerSwitches(Protocol):
    """The fault switches that the cycler follows."""

    open_contact: tuple[int, ...]
    bad_contact: int
    reversed: tuple[int, ...]
    hot: tuple[int, ...]
    flat: tuple[int, ...]
    estop: bool


@dataclass(slots=True)
class _Step:
    kind: str
    values: tuple[float, ...]

    @property
    def max_s(self) -> float:
        position = {"REST": 0, "CHARGE": 3, "DISCHARGE": 2, "PULSE": 1}[self.kind]
        return self.values[position]

    @property
    def set_current_a(self) -> float:
        signs = {"REST": 0.0, "CHARGE": 1.0, "DISCHARGE": -1.0, "PULSE": 1.0}
        return signs[self.kind] * self.values[0]


@dataclass(slots=True)
class _Channel:
    number: int
    voltage_error_v: float
    current_gain: float
    current_error_a: float
    temperature_error_c: float
    cell: int | None = None
    closed: bool = False
    contact_ohm: float = OPEN_OHM
    limits: tuple[float, float, float] = MIN_LIMITS
    steps: list[_Step] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    state: str = "IDLE"
    fault: str = "NONE"
    at: int = 0
    t_s: float = 0.0
    run_from_s: float = 0.0
    step_from_s: float = 0.0
    current_a: float = 0.0
    charge_as: float = 0.0
    step_charge_as: float = 0.0
    step_energy_ws: float = 0.0
    before_v: float = 0.0
    hottest_c: float = 0.0

    @property
    def running(self) -> bool:
        return self.state == "RUN"

    @property
    def step(self) -> _Step:
        return self.steps[self.at]


class Cycler(Instrument):
    """The cycler.

    Args:
        channels: How many; they are numbered from 1.
        cells: What may lie in them.
        now: Time of the cells, s.
        clock: Real time, s; for the watchdog.
        faults: Its switches disturb contacts, cells and emergency stop.
        record: Takes the plant's events.
        seed: For the errors and the noise.
    """

    def __init__(
        self,
        channels: int,
        cells: Cells,
        now: Callable[[], float],
        clock: Callable[[], float],
        faults: CyclerSwitches,
        record: Record,
        seed: int = 0,
    ) -> None:
        super().__init__(self._language(channels))
        self.cells = cells
        self.scanned: int | None = None
        self._now = now
        self._clock = clock
        self._faults = faults
        self._record = record
        self._random = random.Random(seed)
        self._errors = ErrorQueue()
        self._channels = [self._new_channel(index + 1) for index in range(channels)]
        self._removed_s: dict[int, float] = {}
        self._estop = False
        self._watchdog_s = 0.0
        self._heard_s = clock()

    def _language(self, channels: int) -> dict[str, Handler]:
        """Headers → what carries them out."""
        return {
            "*IDN": lambda _query, _arguments: f"SIMULATED,CYCLER-{channels},SIM1,1.0",
            "*RST": self._reset,
            "*CLS": lambda _query, _arguments: self._errors.clear(),
            "*OPC": lambda query, _arguments: "1" if query else None,
            "SYSTem:ERRor": lambda _query, _arguments: self._errors.take(),
            "SYSTem:CHANnels": lambda _query, _arguments: str(channels),
            "CALibration:DATE": lambda _query, _arguments: "2026,1,15",
            "ROUTe:CLOSe": self._close,
            "ROUTe:OPEN": self._open,
            "ROUTe:SCANner": self._scan,
            "ROUTe:SCANner:OPEN": self._scan_nothing,
            "LIMit": self._set_limits,
            "PROGram:CLEar": self._clear_programme,
            "PROGram:STEP": self._set_step,
            "PROGram:COUNt": lambda _query, arguments: str(len(self._channel(arguments).steps)),
            "OUTPut:STARt": self._start,
            "OUTPut:STOP": self._stop,
            "OUTPut:STATe": lambda _query, arguments: str(int(self._channel(arguments).running)),
            "OUTPut:ESTop": self._emergency_stop,
            "OUTPut:ESTop:RESet": self._reset_emergency_stop,
            "OUTPut:WATChdog": self._set_watchdog,
            "MEASure:CHANnel": self._measure,
            "MEASure:CONTact": self._measure_contact,
            "FETCh:COUNt": lambda _query, arguments: str(len(self._channel(arguments).results)),
            "FETCh:STEP": self._fetch_step,
        }

    def _new_channel(self, index: int) -> _Channel:
        def within(limit: float) -> float:
            return self._random.uniform(-0.8, 0.8) * limit

        return _Channel(
            number=index,
            voltage_error_v=within(VOLTAGE_ERROR_V),
            current_gain=1.0 + within(CURRENT_ERROR_SHARE),
            current_error_a=within(CURRENT_ERROR_A),
            temperature_error_c=within(TEMPERATURE_ERROR_C),
        )

    def execute(self, message: str) -> tuple[str, float]:
        """Bring the cells up to now, then carry out the message."""
        self._heard_s = self._clock()
        self.advance()
        return super().execute(message)

    def complain(self, error: ScpiError) -> None:
        """Queue the error."""
        self._errors.put(error)

    # ---- what happens beside the language ----

    def insert(self, channel: int, cell: int) -> None:
        """The robot puts a cell into a channel.

        Raises:
            ValueError: There is no such channel or cell, the channel is taken, or the cell lies elsewhere.
        """
        self.advance()
        place = self._place(channel)
        if not 0 <= cell < len(self.cells):
            raise ValueError(f"there is no cell {cell}, they are 0..{len(self.cells) - 1}")
        if place.cell is not None:
            raise ValueError(f"channel {channel} already holds cell {place.cell}")
        if any(other.cell == cell for other in self._channels):
            raise ValueError(f"cell {cell} already lies in a channel")
        now = self._now()
        idle_s = now - self._removed_s.pop(cell, now)
        self.cells.advance(np.array([cell]), np.zeros(1), np.array([idle_s]))
        place.cell, place.t_s = cell, now
        self._tell("tester_insert", place, **self.cells.truth(cell))

    def remove(self, channel: int) -> int | None:
        """The robot takes the cell out of a channel, or finds none there. Contacts that are closed are torn off."""
        self.advance()
        place = self._place(channel)
        if place.cell is None:
            return None
        if place.closed:
            self._tell("tester_torn", place)
            if place.running:
                self._fail(place, "OPEN")
            self._open_contacts(place, "robot")
        cell = place.cell
        self._tell("tester_remove", place, **self.cells.truth(cell))
        place.cell = None
        self._removed_s[cell] = self._now()
        return cell

    @property
    def closed_channels(self) -> list[int]:
        """Channels whose contacts are closed: current may flow."""
        return [place.number for place in self._channels if place.closed]

    def cell_in(self, channel: int) -> int | None:
        """The cell in a channel."""
        return self._place(channel).cell

    def touched_by_meter(self) -> tuple[float, float] | None:
        """R0 (Ω) and terminal voltage (V) of the cell that the scanner connects to the meter; None if open."""
        self.advance()
        place = None if self.scanned is None else self._channels[self.scanned - 1]
        if place is None or place.cell is None or not self._connected(place):
            return None
        index = np.array([place.cell])
        sign = -1.0 if place.number in self._faults.reversed else 1.0
        volts = self.cells.voltage(index, np.array([place.current_a]))[0]
        return float(self.cells.r0(index)[0]), sign * float(volts)

    def watch(self) -> None:
        """Bring the cells up to now; act on emergency stop and watchdog. Call it every few ms."""
        self.advance()
        if self._faults.estop and not self._estop:
            self._switch_all_off("ESTOP")
            self._estop = True
        silent_s = self._clock() - self._heard_s
        if 0 < self._watchdog_s < silent_s and any(place.closed for place in self._channels):
            self._switch_all_off("WATCHDOG")

    def advance(self) -> None:
        """Let the programmes run until now."""
        now = self._now()
        self._disturb_cells()
        while active := [place for place in self._channels if place.running and place.t_s < now]:
            self._run_a_step(active, now)
        idle = [place for place in self._channels if place.cell is not None and place.t_s < now]
        if idle:
            index = np.array([place.cell for place in idle])
            self.cells.advance(index, np.zeros(len(idle)), np.array([now - place.t_s for place in idle]))
        for place in idle:
            place.t_s = now

    def _disturb_cells(self) -> None:
        for place in self._channels:
            if place.cell is None:
                continue
            if place.number in self._faults.hot:
                self.cells.temperature_c[place.cell] = 75.0
            if place.number in self._faults.flat:
                self.cells.soc[place.cell] = -0.045  # about 1.2 V

    # ---- programmes ----

    def _run_a_step(self, active: Sequence[_Channel], now: float) -> None:
        """One step of the model for all that run, each no further than ``now`` and the end of what it does."""
        for place in active:
            if not self._connected(place):
                self._fail(place, "OPEN")
        active = [place for place in active if place.running]
        if not active:
            return
        index = np.array([place.cell for place in active])
        dt = np.array([self._longest_s(place, now) for place in active])
        amps = np.array([self._true_current(place) for place in active])
        amps = self._hold_voltage(active, index, amps, dt)
        ended = np.array([self._is_full(place, amp) for place, amp in zip(active, amps, strict=True)])
        amps[ended], dt[ended] = 0.0, 0.0
        dt = self._up_to_charge_limit(active, amps, dt)
        begin_v = self.cells.voltage(index, amps)
        dt = self._up_to_empty(active, index, amps, dt, begin_v)
        self.cells.advance(index, amps, dt)
        end_v = self.cells.voltage(index, amps)
        for position, place in enumerate(active):
            middle_v = (begin_v[position] + end_v[position]) / 2
            self._account(place, float(amps[position]), float(dt[position]), float(middle_v))
            self._judge(place, float(end_v[position]), bool(ended[position]))

    def _longest_s(self, place: _Channel, now: float) -> float:
        left_s = place.step.max_s - (place.t_s - place.step_from_s)
        return max(0.0, min(STEP_S[place.step.kind], now - place.t_s, left_s))

    @staticmethod
    def _true_current(place: _Channel) -> float:
        """What really flows when the channel's own meter shows the set current."""
        wanted = place.step.set_current_a
        return (wanted - place.current_error_a) / place.current_gain if wanted else 0.0

    @staticmethod
    def _shown_current(place: _Channel, amps: float) -> float:
        return amps * place.current_gain + place.current_error_a if amps else 0.0

    def _hold_voltage(self, active: Sequence[_Channel], index: Any, amps: Any, dt: Any) -> Any:
        if not any(place.step.kind == "CHARGE" for place in active):
            return amps
        ceiling = np.array(
            [
                place.step.values[1] - place.voltage_error_v if place.step.kind == "CHARGE" else np.inf
                for place in active
            ]
        )
        if not np.any(self.cells.voltage(index, amps) > ceiling - NEAR_FULL_V):
            return amps
        charging = np.isfinite(ceiling)
        held = self.cells.current_for(index, np.where(charging, ceiling, 0.0), dt, np.maximum(amps, 0.0))
        return np.where(charging, np.maximum(held, 0.0), amps)

    def _is_full(self, place: _Channel, amps: float) -> bool:
        return place.step.kind == "CHARGE" and self._shown_current(place, amps) <= place.step.values[2]

    def _up_to_charge_limit(self, active: Sequence[_Channel], amps: Any, dt: Any) -> Any:
        for position, place in enumerate(active):
            if place.step.kind == "CHARGE" and place.step.values[4] > 0 and amps[position] > 0:
                left_as = place.step.values[4] * 3600.0 - place.step_charge_as
                dt[position] = min(dt[position], max(left_as, 0.0) / self._shown_current(place, amps[position]))
        return dt

    def _up_to_empty(self, active: Sequence[_Channel], index: Any, amps: Any, dt: Any, begin_v: Any) -> Any:
        """Shortens the step of a discharge that would go below its end voltage."""
        if not any(place.step.kind == "DISCHARGE" for place in active):
            return dt
        floor = np.array(
            [
                place.step.values[1] - place.voltage_error_v if place.step.kind == "DISCHARGE" else -np.inf
                for place in active
            ]
        )
        if not np.any(begin_v < floor + NEAR_EMPTY_V):
            return dt
        before = (self.cells.soc[index], self.cells.v1_v[index], self.cells.temperature_c[index])
        self.cells.advance(index, amps, dt)
        end_v = self.cells.voltage(index, amps)
        self.cells.soc[index], self.cells.v1_v[index], self.cells.temperature_c[index] = before
        beyond = end_v < floor
        drop = np.where(beyond, begin_v - end_v, 1.0)
        share = np.clip((begin_v - np.where(beyond, floor, 0.0)) / np.where(drop > 0, drop, 1.0), 0.0, 1.0)
        return np.where(beyond, dt * share, dt)

    def _account(self, place: _Channel, amps: float, dt_s: float, volts: float) -> None:
        shown_a = self._shown_current(place, amps)
        place.current_a = amps
        place.t_s += dt_s
        place.charge_as += shown_a * dt_s
        place.step_charge_as += shown_a * dt_s
        place.step_energy_ws += shown_a * dt_s * volts
        assert place.cell is not None
        place.hottest_c = max(place.hottest_c, float(self.cells.temperature_c[place.cell]))

    def _judge(self, place: _Channel, volts: float, full: bool) -> None:
        """Ends the step, or the run, after a step of the model."""
        step, shown_v = place.step, volts + place.voltage_error_v
        low, high, hottest_c = place.limits
        if place.number in self._faults.reversed:
            self._fail(place, "POLARITY")
        elif self._temperature(place) > hottest_c:
            self._fail(place, "TEMPERATURE")
        elif not low <= shown_v <= high:
            self._fail(place, "VOLTAGE")
        elif full or self._has_its_charge(place) or self._is_empty(place, shown_v):
            self._finish_step(place, shown_v, "DONE")
        elif place.t_s - place.step_from_s >= step.max_s - 1e-9:
            by_itself = step.kind in ("REST", "PULSE")
            self._finish_step(place, shown_v, "DONE" if by_itself else "TIME")

    @staticmethod
    def _has_its_charge(place: _Channel) -> bool:
        step = place.step
        return step.kind == "CHARGE" and 0 < step.values[4] * 3600.0 <= place.step_charge_as + 1e-6

    @staticmethod
    def _is_empty(place: _Channel, shown_v: float) -> bool:
        return place.step.kind == "DISCHARGE" and shown_v <= place.step.values[1] + EMPTY_TOLERANCE_V

    def _finish_step(self, place: _Channel, end_v: float, end: str) -> None:
        seconds = place.t_s - place.step_from_s
        values = (
            seconds,
            place.step_charge_as / 3600.0,
            place.step_energy_ws / 3600.0,
            place.before_v,
            self._noisy_voltage(end_v),
            place.step_charge_as / seconds if seconds > 0 else 0.0,
            place.hottest_c + place.temperature_error_c,
        )
        place.results.append(",".join([place.step.kind, end, *map(format_number, values)]))
        truth = (
            {} if place.cell is None else {"cell": place.cell, "soc": round(float(self.cells.soc[place.cell]), 6)}
        )
        self._tell("tester_step", place, kind=place.step.kind, end=end, number=place.at + 1, **truth)
        place.current_a = 0.0
        if end == "TIME" or place.at + 1 == len(place.steps):
            place.state = "DONE"
        else:
            self._begin_step(place, place.at + 1)

    def _begin_step(self, place: _Channel, position: int) -> None:
        place.at = position
        place.step_from_s = place.t_s
        place.step_charge_as = place.step_energy_ws = 0.0
        place.before_v = self._shown_voltage(place)
        assert place.cell is not None
        place.hottest_c = float(self.cells.temperature_c[place.cell])

    def _fail(self, place: _Channel, fault: str) -> None:
        place.state, place.fault, place.current_a = "FAULT", fault, 0.0
        self._tell("tester_fault", place, fault=fault)

    def _switch_all_off(self, fault: str) -> None:
        for place in self._channels:
            if place.running or place.closed:
                self._fail(place, fault)
            self._open_contacts(place, fault.lower())

    # ---- what the channels see ----

    def _connected(self, place: _Channel) -> bool:
        return (
            place.closed
            and place.cell is not None
            and place.contact_ohm < OPEN_OHM
            and place.number not in self._faults.open_contact
        )

    def _shown_voltage(self, place: _Channel) -> float:
        if place.cell is None or not self._connected(place):
            return self._noisy_voltage(0.0)
        sign = -1.0 if place.number in self._faults.reversed else 1.0
        volts = float(self.cells.voltage(np.array([place.cell]), np.array([place.current_a]))[0])
        return self._noisy_voltage(sign * volts + place.voltage_error_v)

    def _noisy_voltage(self, volts: float) -> float:
        return round(volts + self._random.uniform(-NOISE_V, NOISE_V), 4)

    def _temperature(self, place: _Channel) -> float:
        ambient_c = self.cells.settings.ambient_c
        true_c = ambient_c if place.cell is None else float(self.cells.temperature_c[place.cell])
        return true_c + place.temperature_error_c

    def _tell(self, event: str, place: _Channel, **values: Any) -> None:
        at = {"channel": place.number, "tester_s": round(place.t_s, 3)}
        self._record({"event": event, **at, **rounded(values)})

    # ---- the language ----

    def _place(self, index: int) -> _Channel:
        if not 1 <= index <= len(self._channels):
            raise ValueError(f"there is no channel {index}, they are 1..{len(self._channels)}")
        return self._channels[index - 1]

    def _channel(self, arguments: list[str]) -> _Channel:
        if not arguments:
            raise ScpiError(-109, "Missing parameter")
        text = arguments[0]
        if not (text.startswith("(@") and text.endswith(")") and re.fullmatch(r"\s*\d{1,9}\s*", text[2:-1])):
            raise ScpiError(-170, f"Expression error;{text[:40]}")
        try:
            return self._place(readings.integer(text[2:-1], 1, len(self._channels)))
        except readings.AnswerError:
            raise ScpiError(-222, f"Data out of range;{text[:40]}") from None

    def _reset(self, _query: bool, _arguments: list[str]) -> None:
        for place in self._channels:
            self._end_run(place)
            self._open_contacts(place, "command")
            place.steps.clear()
            place.limits = MIN_LIMITS
        self.scanned = None
        self._watchdog_s = 0.0

    def _close(self, query: bool, arguments: list[str]) -> str | None:
        place = self._channel(arguments)
        if query:
            return str(int(place.closed))
        if self._estop:
            raise ScpiError(ESTOP_ERROR, "Emergency stop")
        if not place.closed:
            place.closed = True
            self._tell("tester_close", place)
            place.contact_ohm = GOOD_CONTACT_OHM * self._random.lognormvariate(0.0, 0.3)
            if self._faults.bad_contact > 0:
                self._faults.bad_contact -= 1
                place.contact_ohm = BAD_CONTACT_OHM
        return None

    def _open(self, _query: bool, arguments: list[str]) -> None:
        place = self._channel(arguments)
        if place.running:
            raise ScpiError(RUNNING_ERROR, "Channel runs")
        self._open_contacts(place, "command")

    def _open_contacts(self, place: _Channel, by: str) -> None:
        """``by`` says to the record who has done it: a command, the robot, the watchdog or the emergency stop."""
        if place.closed:
            self._tell("tester_open", place, by=by)
        place.closed = False
        place.contact_ohm = OPEN_OHM
        if self.scanned == place.number:
            self.scanned = None

    def _scan(self, query: bool, arguments: list[str]) -> str | None:
        if query:
            return str(self.scanned or 0)
        self.scanned = self._channel(arguments).number
        return None

    def _scan_nothing(self, _query: bool, _arguments: list[str]) -> None:
        self.scanned = None

    def _set_limits(self, query: bool, arguments: list[str]) -> str | None:
        place = self._channel(arguments)
        if query:
            return ",".join(map(format_number, place.limits))
        self._must_stand(place)
        low = number(arguments, 1, MIN_LIMITS[0], MIN_LIMITS[1])
        high = number(arguments, 2, low, MIN_LIMITS[1])
        place.limits = (low, high, number(arguments, 3, -20.0, MIN_LIMITS[2]))
        return None

    def _clear_programme(self, _query: bool, arguments: list[str]) -> None:
        place = self._channel(arguments)
        self._must_stand(place)
        place.steps.clear()
        place.results.clear()
        place.state, place.fault = "IDLE", "NONE"

    def _set_step(self, query: bool, arguments: list[str]) -> str | None:
        place = self._channel(arguments)
        if query:
            position = round(number(arguments, 1, 1, len(place.steps)))
            step = place.steps[position - 1]
            return ",".join([step.kind, *map(format_number, step.values)])
        self._must_stand(place)
        position = round(number(arguments, 1, 1, min(len(place.steps) + 1, MAX_STEPS)))
        step = self._parse_step(arguments[2:])
        place.steps[position - 1 : position] = [step]
        return None

    @staticmethod
    def _parse_step(arguments: list[str]) -> _Step:
        kind = choice(arguments, 0, "REST", "CHARge", "DISCharge", "PULSe")
        ranges = {
            "REST": [(0.001, 1e6)],
            "CHARGE": [(0.001, 100.0), (0.1, 5.0), (0.001, 100.0), (0.001, 1e6), (0.0, 1e4)],
            "DISCHARGE": [(0.001, 100.0), (0.1, 5.0), (0.001, 1e6)],
            "PULSE": [(-100.0, 100.0), (0.001, 60.0)],
        }[kind]
        if len(arguments) - 1 > len(ranges):
            raise ScpiError(-108, "Parameter not allowed")
        values = [number(arguments, position + 1, low, high) for position, (low, high) in enumerate(ranges)]
        return _Step(kind, tuple(values))

    @staticmethod
    def _must_stand(place: _Channel) -> None:
        if place.running:
            raise ScpiError(RUNNING_ERROR, "Channel runs")

    def _start(self, _query: bool, arguments: list[str]) -> None:
        place = self._channel(arguments)
        self._must_stand(place)
        if self._estop:
            raise ScpiError(ESTOP_ERROR, "Emergency stop")
        if not place.steps:
            raise ScpiError(-221, "Settings conflict;no programme")
        if not place.closed:
            raise ScpiError(OPEN_ERROR, "Contacts open")
        place.results.clear()
        place.state, place.fault = "RUN", "NONE"
        if not self._connected(place):
            self._fail(place, "OPEN")
            return
        place.charge_as = 0.0
        place.run_from_s = place.t_s
        self._begin_step(place, 0)
        self._tell("tester_start", place, cell=place.cell, steps=len(place.steps))

    def _stop(self, _query: bool, arguments: list[str]) -> None:
        self._end_run(self._channel(arguments))

    def _end_run(self, place: _Channel) -> None:
        if place.running:
            self._tell("tester_stop", place, cell=place.cell)
        place.state, place.fault, place.current_a = "IDLE", "NONE", 0.0

    def _emergency_stop(self, query: bool, _arguments: list[str]) -> str | None:
        if query:
            return str(int(self._estop))
        self._switch_all_off("ESTOP")
        self._estop = True
        return None

    def _reset_emergency_stop(self, _query: bool, _arguments: list[str]) -> None:
        if self._faults.estop:
            raise ScpiError(ESTOP_ERROR, "Emergency stop;the button is pressed")
        self._estop = False

    def _set_watchdog(self, query: bool, arguments: list[str]) -> str | None:
        if query:
            return format_number(self._watchdog_s)
        self._watchdog_s = number(arguments, 0, 0.0, 3600.0)
        return None

    def _measure(self, _query: bool, arguments: list[str]) -> str:
        place = self._channel(arguments)
        running = place.running
        values = (
            self._shown_voltage(place),
            self._shown_current(place, place.current_a),
            self._temperature(place) + self._random.uniform(-NOISE_C, NOISE_C),
            place.charge_as / 3600.0,
            place.t_s - place.run_from_s if place.state != "IDLE" else 0.0,
        )
        counts = [str(place.at + 1 if running else 0), str(len(place.steps))]
        shown = self._shown(place, SHOWN, [format_number(value) for value in values])
        return ",".join([place.state, *counts, *shown, place.fault])

    def _shown(self, place: _Channel, names: Sequence[str], texts: Sequence[str]) -> list[str]:
        """The readings with these names, or what the switch ``cycler.shows`` has in their place."""
        shows = self.shows()
        return [
            shows.get(f"{name}@{place.number}", shows.get(name, text))
            for name, text in zip(names, texts, strict=True)
        ]

    def _measure_contact(self, _query: bool, arguments: list[str]) -> str:
        place = self._channel(arguments)
        ohms = place.contact_ohm if self._connected(place) else OPEN_OHM
        return self._shown(place, ("contact",), [format_number(ohms)])[0]

    def _fetch_step(self, _query: bool, arguments: list[str]) -> str:
        place = self._channel(arguments)
        kind, end, *texts = place.results[round(number(arguments, 1, 1, len(place.results))) - 1].split(",")
        return ",".join([kind, end, *self._shown(place, STEP_SHOWN, texts)])

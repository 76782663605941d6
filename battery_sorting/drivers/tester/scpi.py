"""A tester made of an AC resistance meter of the BT356x kind, a scanner and a cycler, both over SCPI on TCP."""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field

from battery_sorting.core.errors import (
    CellTestError,
    DeviceError,
    DeviceProtocolError,
    DeviceSettingsError,
    OpenContactError,
    ReversedPolarityError,
    TesterStoppedError,
)
from battery_sorting.core.ev.measurement import (
    ChannelPhase,
    ChannelState,
    ContactReading,
    CyclerRun,
    ResistanceReading,
    StepEnd,
    StepResult,
)
from battery_sorting.core.settings import share_not_percent
from battery_sorting.drivers.base import DriverSettings
from battery_sorting.drivers.tester import bt356x, cycler
from battery_sorting.drivers.tester.base import CellTester
from battery_sorting.drivers.tester.link import ScpiLink

REVERSED_BELOW_V = -0.05
"""A voltage that is lower shows that the cell lies the wrong way round."""

_Parsed = TypeVar("_Parsed")
Share = Annotated[float, BeforeValidator(share_not_percent), Field(ge=0, lt=1)]


class ScpiTesterSettings(DriverSettings):
    """Where cycler and meter are, and how exact they are. The accuracies are those of the instruments' manuals."""

    host: str = Field(min_length=1)
    """Of the cycler, whose channels also carry the scanner of the meter."""
    port: int = Field(default=5025, ge=1, le=65535)
    meter_host: str | None = Field(default=None, min_length=1)
    """Of the AC meter; without it the same as ``host``."""
    meter_port: int = Field(default=23, ge=1, le=65535)
    channels: int = Field(default=8, ge=1, le=64)
    timeout_s: float = Field(default=1.0, gt=0, le=10)
    """For every answer; the meter's sampling time comes on top."""
    watchdog_s: float = Field(default=20.0, gt=0, le=600)
    """After such a silence of the host the cycler switches off and opens all contacts."""
    contact_max_mohm: float = Field(default=5.0, gt=0)
    meter_range_mohm: Literal[3, 30, 300, 3000] = 3
    """Range to begin with; a cell that is beyond it is measured in the next one."""
    meter_rate: Literal["EXFAST", "FAST", "MEDIUM", "SLOW"] = "SLOW"
    meter_calibrated_on: date | None = Field(default=None, strict=False)
    """From its certificate; the meter itself doesn't know."""
    scanner_settle_s: float = Field(default=0.05, ge=0, le=5)
    voltage_noise_v: float = Field(default=0.0002, gt=0)
    """Limit of error of a difference of two voltages of the same channel."""
    current_accuracy: Share = 0.0005
    """Limit of error of the current, as a share of it."""
    current_offset_a: float = Field(default=0.003, ge=0)
    """Limit of error of the current besides that."""


class ScpiTester(CellTester):
    """Client of both instruments. Threads may use different channels; any may `disconnect`."""

    Settings: ClassVar[type[DriverSettings]] = ScpiTesterSettings

    def __init__(self, settings: ScpiTesterSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._cycler = ScpiLink("cycler", settings.host, settings.port, cycler.TERMINATOR)
        self._meter = ScpiLink(
            "AC meter", settings.meter_host or settings.host, settings.meter_port, bt356x.TERMINATOR
        )
        self._scanning = threading.Lock()
        self._meter_name = self._cycler_name = ""
        self._cycler_calibrated_on: date | None = None

    @property
    def channels(self) -> tuple[int, ...]:
        """1 to the number in the settings."""
        return tuple(range(1, self._settings.channels + 1))

    @property
    def connected(self) -> bool:
        """Whether both links are open."""
        return self._cycler.is_open and self._meter.is_open

    def resistance_uncertainty_mohm(self, resistance_mohm: float) -> float:
        """As in the meter's manual, at the rate of the settings."""
        entry = bt356x.range_for(resistance_mohm / 1000.0, self._ranges())
        return bt356x.resistance_error_mohm(resistance_mohm, entry, self._settings.meter_rate)

    # ---- life ----

    def connect(self, timeout_s: float = 2.0) -> None:
        """Opens both links, checks what answers, and sets the meter and the watchdog. No channel is touched."""
        if self.connected:
            return
        self.disconnect()
        deadline = time.monotonic() + timeout_s
        try:
            self._cycler.open(timeout_s)
            self._identify_cycler(deadline)
            self._meter.open(max(deadline - time.monotonic(), 1e-3))
            self._identify_meter(deadline)
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Closes both links. What runs in the channels goes on until the cycler's watchdog ends it."""
        self._cycler.close()
        self._meter.close()

    def _identify_cycler(self, deadline: float) -> None:
        self._cycler_name = " ".join(self._name_of(self._cycler, deadline))
        self._say(self._cycler, "*CLS")
        channels = self._parse(self._cycler, "SYST:CHAN?", int, deadline)
        if channels < self._settings.channels:
            raise DeviceSettingsError(
                f"{self._cycler.where} has {channels} channels, the settings say {self._settings.channels}"
            )
        self._cycler_calibrated_on = self._parse(self._cycler, "CAL:DATE?", _parse_date, deadline)
        wanted = cycler.format_number(self._settings.watchdog_s)
        held = self._ask(self._cycler, f"OUTP:WATC {wanted};WATC?", deadline)
        if held != wanted:
            raise DeviceSettingsError(f"{self._cycler.where} was told a watchdog of {wanted} s, but holds {held}")

    def _identify_meter(self, deadline: float) -> None:
        maker, model = self._name_of(self._meter, deadline)
        if not re.match(bt356x.MODELS, model):
            raise DeviceProtocolError(f"{self._meter.where} is a {maker} {model}, not one of the BT356x kind")
        self._meter_name = f"{maker} {model}"
        self._say(self._meter, ":SYST:HEAD OFF")
        self._ask(self._meter, "*ESR?", deadline)  # what happened before doesn't matter
        settings: dict[str, tuple[str, str | float]] = {
            ":FUNC": ("RV", "RV"),
            ":AUT": ("OFF", "OFF"),
            ":VOLT:RANG": ("6", 6.0),
            ":SAMP:RATE": (self._settings.meter_rate, self._settings.meter_rate),
            ":TRIG:SOUR": ("IMM", "IMMEDIATE"),
            ":INIT:CONT": ("OFF", "OFF"),
        }
        for header, (value, expected) in settings.items():
            self._set_meter(header, value, expected, deadline)
        self._set_range(self._settings.meter_range_mohm / 1000.0, deadline)
        status = self._parse(self._meter, "*ESR?", int, deadline)
        if status & (bt356x.COMMAND_ERROR | bt356x.EXECUTION_ERROR | bt356x.DEVICE_ERROR):
            raise DeviceSettingsError(f"{self._meter.where} didn't take its settings: *ESR? is {status}")

    def _name_of(self, link: ScpiLink, deadline: float) -> tuple[str, str]:
        answer = self._ask(link, "*IDN?", deadline)
        fields = [field.strip() for field in answer.split(",")]
        if len(fields) != 4:
            raise DeviceProtocolError(f"{link.where} answers *IDN? with {answer[:80]!r}")
        return fields[0], fields[1]

    def _set_meter(self, header: str, value: str, expected: str | float, deadline: float) -> None:
        self._say(self._meter, f"{header} {value}")
        held = self._ask(self._meter, f"{header}?", deadline)
        if isinstance(expected, float):
            with contextlib.suppress(ValueError):
                if math.isclose(float(held.replace(" ", "")), expected, rel_tol=1e-3):
                    return
        elif held.upper() == expected:
            return
        raise DeviceSettingsError(f"{self._meter.where} was told {header} {value}, but holds {held[:40]!r}")

    def _set_range(self, ohms: float, deadline: float) -> None:
        self._set_meter(":RES:RANG", f"{ohms:.0E}", ohms, deadline)

    # ---- contacts and resistance ----

    def check_contact(self, channel: int) -> ContactReading:
        """Opens and closes the contacts, asks for their resistance and looks at the voltage."""
        place = self._place(channel)
        try:
            self._order(f"OUTP:STOP {place}")
            self._order(f"ROUT:OPEN {place}")
            self._order(f"ROUT:CLOS {place}")
            return self._read_contact(channel)
        except CellTestError:
            self._order(f"ROUT:OPEN {place}")
            raise

    def _read_contact(self, channel: int) -> ContactReading:
        place = self._place(channel)
        ohms = self._parse(self._cycler, f"MEAS:CONT? {place}", _finite)
        limit_mohm = self._settings.contact_max_mohm
        if ohms * 1000.0 > limit_mohm:
            shown = "open" if ohms >= cycler.OPEN_OHM else f"{ohms * 1000:.3g} mΩ"
            raise OpenContactError(
                f"channel {channel} of the {self._cycler.where}: contact {shown}, allowed are {limit_mohm:g} mΩ: "
                "seat the cell again, clean the contacts"
            )
        state = self.read_progress(channel)
        if state.voltage_v < REVERSED_BELOW_V:
            raise ReversedPolarityError(
                f"channel {channel} of the {self._cycler.where}: {state.voltage_v:.3f} V: "
                "the cell lies the wrong way round"
            )
        return ContactReading(ohms * 1000.0, state.voltage_v, state.temperature_c)

    def measure_resistance(self, channel: int) -> ResistanceReading:
        """Connects the scanner, triggers the meter, and disconnects the scanner. One channel after the other."""
        place = self._place(channel)
        with self._scanning:
            state = self.read_progress(channel)
            if state.state is ChannelPhase.RUNNING:
                raise CellTestError(
                    f"channel {channel} of the {self._cycler.where} runs: stop it before its resistance is measured"
                )
            self._order(f"ROUT:SCAN {place}")
            try:
                time.sleep(self._settings.scanner_settle_s)
                ohms, volts, entry = self._read_meter()
            finally:
                if self._cycler.is_open:
                    self._order("ROUT:SCAN:OPEN")
        if volts >= bt356x.CONTACT_FAULT or ohms >= bt356x.CONTACT_FAULT:
            raise OpenContactError(
                f"channel {channel}: the {self._meter.where} has no contact: seat the cell again"
            )
        if abs(volts) >= bt356x.OVER_RANGE or ohms >= bt356x.OVER_RANGE:
            raise CellTestError(f"channel {channel}: resistance or voltage is beyond the {self._meter.where}")
        if volts < REVERSED_BELOW_V:
            raise ReversedPolarityError(f"channel {channel}: {volts:.3f} V: the cell lies the wrong way round")
        rate = self._settings.meter_rate
        return ResistanceReading(
            resistance_mohm=ohms * 1000.0,
            ocv_v=volts,
            resistance_uncertainty_mohm=bt356x.resistance_error_mohm(ohms * 1000.0, entry, rate),
            ocv_uncertainty_v=bt356x.voltage_error_v(volts, bt356x.VOLTAGE_RANGES[0], rate),
            temperature_c=state.temperature_c,
            instrument=self._meter_name,
            calibrated_on=self._settings.meter_calibrated_on,
        )

    def _ranges(self) -> tuple[bt356x.Range, ...]:
        first_ohm = self._settings.meter_range_mohm / 1000.0
        return tuple(entry for entry in bt356x.RESISTANCE_RANGES if entry.name >= first_ohm * 0.99)

    def _read_meter(self) -> tuple[float, float, bt356x.Range]:
        """Ω, V and the range of the resistance: the first one from that of the settings which isn't exceeded."""
        first_ohm = self._settings.meter_range_mohm / 1000.0
        ranges = self._ranges()
        try:
            for entry in ranges:
                if entry is not ranges[0]:
                    self._set_range(entry.name, self._deadline())
                ohms, volts = self._parse(self._meter, ":READ?", bt356x.parse_reading, self._sampling_deadline())
                if not bt356x.OVER_RANGE <= ohms < bt356x.CONTACT_FAULT:
                    break
        finally:
            if entry is not ranges[0] and self._meter.is_open:
                self._set_range(first_ohm, self._deadline())
        return ohms, volts, entry

    # ---- runs ----

    def start(self, channel: int, run: CyclerRun) -> None:
        """Stops what runs, hands over limits and steps, compares what the cycler holds, and starts."""
        place = self._place(channel)
        self._order(f"OUTP:STOP {place}")
        self._order(f"PROG:CLE {place}")
        limits = (run.limits.voltage_min_v, run.limits.voltage_max_v, run.limits.temperature_max_c)
        self._order_and_compare("LIM", place, ",".join(map(cycler.format_number, limits)))
        for index, step in enumerate(run.steps):
            text = cycler.format_step(step, run.charge_limit_ah(index))
            self._order_and_compare("PROG:STEP", f"{place},{index + 1}", text)
        held = self._parse(self._cycler, f"PROG:COUN? {place}", int)
        if held != len(run.steps):
            raise DeviceSettingsError(
                f"{self._cycler.where} was given {len(run.steps)} steps, but holds {held} in channel {channel}"
            )
        self._order(f"OUTP:STAR {place}")

    def read_progress(self, channel: int) -> ChannelState:
        """One query."""
        return self._parse(self._cycler, f"MEAS:CHAN? {self._place(channel)}", _parse_state)

    def read_results(self, channel: int) -> tuple[StepResult, ...]:
        """One query per step."""
        place = self._place(channel)
        count = self._parse(self._cycler, f"FETC:COUN? {place}", int)
        return tuple(self._read_result(place, index + 1) for index in range(count))

    def _read_result(self, place: str, index: int) -> StepResult:
        settings = self._settings

        def parse(text: str) -> StepResult:
            kind, end, *rest = text.split(",")
            seconds, charge_ah, energy_wh, before_v, end_v, current_a, hottest_c = map(_finite, rest)
            offset_share = settings.current_offset_a / abs(current_a) if current_a else 0.0
            error_as = settings.current_accuracy * abs(charge_ah) * 3600.0 + (
                settings.current_offset_a * seconds if current_a else 0.0
            )
            return StepResult(
                number=index,
                kind=kind.lower(),
                end=StepEnd(end.lower()),
                seconds=seconds,
                charge_ah=charge_ah,
                energy_wh=energy_wh,
                before_v=before_v,
                end_v=end_v,
                current_a=current_a,
                temperature_c=hottest_c,
                charge_uncertainty_ah=error_as / 3600.0,
                voltage_noise_v=settings.voltage_noise_v,
                current_uncertainty=settings.current_accuracy + offset_share,
                instrument=self._cycler_name,
                calibrated_on=self._cycler_calibrated_on,
            )

        return self._parse(self._cycler, f"FETC:STEP? {place},{index}", parse)

    def stop(self, channel: int) -> None:
        """Switches the current off and reads that back."""
        place = self._place(channel)
        self._order(f"OUTP:STOP {place}")
        self._must_hold(f"OUTP:STAT? {place}", "0", f"the current of channel {channel} is still on")

    def safe(self, channel: int) -> None:
        """Current off, contacts open, both read back."""
        place = self._place(channel)
        self._order(f"OUTP:STOP {place}")
        self._order(f"ROUT:OPEN {place}")
        self._must_hold(f"OUTP:STAT? {place}", "0", f"the current of channel {channel} is still on")
        self._must_hold(f"ROUT:CLOS? {place}", "0", f"the contacts of channel {channel} are still closed")

    def emergency_stop(self) -> None:
        """One message for all channels."""
        self._order("OUTP:EST")
        self._must_hold("OUTP:EST?", "1", "its emergency stop has not tripped")

    # ---- talking ----

    def _place(self, channel: int) -> str:
        if channel not in self.channels:
            raise DeviceSettingsError(
                f"the {self._cycler.where} has no channel {channel}, it has 1..{self._settings.channels}"
            )
        return f"(@{channel})"

    def _deadline(self) -> float:
        return time.monotonic() + self._settings.timeout_s

    def _sampling_deadline(self) -> float:
        return self._deadline() + bt356x.SECONDS[self._settings.meter_rate] + bt356x.RESPONSE_S

    def _say(self, link: ScpiLink, message: str) -> None:
        try:
            link.write(message)
        except DeviceError:
            self.disconnect()
            raise

    def _ask(self, link: ScpiLink, message: str, deadline: float | None = None) -> str:
        left_s = (deadline or self._deadline()) - time.monotonic()
        try:
            return link.query(message, max(left_s, 1e-3))
        except DeviceError:
            self.disconnect()
            raise

    def _parse(
        self, link: ScpiLink, message: str, parse: Callable[[str], _Parsed], deadline: float | None = None
    ) -> _Parsed:
        answer = self._ask(link, message, deadline)
        try:
            return parse(answer)
        except (ValueError, KeyError) as error:
            self.disconnect()
            raise DeviceProtocolError(f"{link.where} answers {message!r} with {answer[:80]!r}") from error

    def _order(self, message: str) -> None:
        """Has the cycler do something, and asks at once whether it did."""
        answer = self._ask(self._cycler, f"{message};:SYST:ERR?")
        number, comma, _ = answer.partition(",")
        if not comma or not re.fullmatch(r"[+-]?\d+", number):
            self.disconnect()
            raise DeviceProtocolError(f"{self._cycler.where} answers {message!r} with {answer[:80]!r}")
        if int(number) == 0:
            return
        refusal = f"{self._cycler.where} refused {message!r}: {answer}"
        if int(number) == cycler.ESTOP_ERROR:
            raise TesterStoppedError(f"{refusal}: release the emergency stop and reset it at the tester")
        if int(number) == cycler.OPEN_ERROR:
            raise OpenContactError(refusal)
        if -300 < int(number) <= -200 or int(number) > 0:
            raise DeviceSettingsError(refusal)
        raise DeviceProtocolError(refusal)

    def _order_and_compare(self, header: str, place: str, values: str) -> None:
        self._order(f"{header} {place},{values}")
        held = self._ask(self._cycler, f"{header}? {place}")
        if not _same(held, values):
            raise DeviceSettingsError(
                f"{self._cycler.where} was told {header} {place},{values}, but holds {held[:120]}"
            )

    def _must_hold(self, query: str, expected: str, complaint: str) -> None:
        if self._ask(self._cycler, query) != expected:
            raise DeviceSettingsError(f"{self._cycler.where}: {complaint}: switch it off by hand")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def _parse_date(text: str) -> date:
    year, month, day = map(int, text.split(","))
    return date(year, month, day)


def _same(held: str, wanted: str) -> bool:
    """Whether two lists of words and numbers mean the same."""
    pairs: list[Any] = [held.split(","), wanted.split(",")]
    if len(pairs[0]) != len(pairs[1]):
        return False
    for one, other in zip(*pairs, strict=True):
        try:
            if not math.isclose(float(one), float(other), rel_tol=1e-6, abs_tol=1e-9):
                return False
        except ValueError:
            if one.strip().upper() != other.strip().upper():
                return False
    return True


def _parse_state(text: str) -> ChannelState:
    state, step, steps, volts, amps, temperature_c, charge_ah, elapsed_s, fault = text.split(",")
    return ChannelState(
        state=cycler.PHASES[state],
        step=int(step),
        steps=int(steps),
        voltage_v=_finite(volts),
        current_a=_finite(amps),
        temperature_c=_finite(temperature_c),
        charge_ah=_finite(charge_ah),
        elapsed_s=_finite(elapsed_s),
        fault="" if fault == "NONE" else cycler.FAULTS[fault].code,
    )

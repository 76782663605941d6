"""A tester made of an AC resistance meter of the BT356x kind, a scanner and a cycler, both over SCPI on TCP."""

from __future__ import annotations

import functools
import math
import re
import threading
import time
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field

from battery_sorting.core import readings
from battery_sorting.core.errors import (
    CellTestError,
    DeviceError,
    DeviceProtocolError,
    DeviceSettingsError,
    OpenContactError,
    ReadingError,
    ReversedPolarityError,
    TesterEmergencyStopError,
)
from battery_sorting.core.settings import share_not_percent
from battery_sorting.drivers.base import DriverSettings
from battery_sorting.drivers.tester import bt356x, cycler
from battery_sorting.drivers.tester.base import (
    CellTester,
    ChannelPhase,
    ChannelState,
    ContactReading,
    CyclerRun,
    ResistanceReading,
    StepResult,
)
from battery_sorting.drivers.tester.link import ScpiLink

REVERSED_BELOW_V = -0.05
"""A voltage that is lower shows that the cell lies the wrong way round."""
MOST = 65535
"""No tester has more channels, steps or results."""

_Parsed = TypeVar("_Parsed")
Share = Annotated[float, BeforeValidator(share_not_percent), Field(ge=0, lt=1)]


class ScpiTesterSettings(DriverSettings):
    """Where cycler and meter are, and how exact they are. The accuracies are those of the instruments' manuals."""

    host: str = Field(
        min_length=1,
        description="name or address of the cycler, whose channels also carry the scanner of the meter",
    )
    port: int = Field(default=5025, ge=1, le=65535, description="TCP port of the cycler")
    meter_host: str | None = Field(
        default=None, min_length=1, description="name or address of the AC meter; none: the same as `host`"
    )
    meter_port: int = Field(default=23, ge=1, le=65535, description="TCP port of the AC meter")
    channels: int = Field(default=8, ge=1, le=64, description="channels of the cycler")
    timeout_s: float = Field(
        default=1.0, gt=0, le=10, description="for each answer, in seconds; the meter's sampling time is added"
    )
    watchdog_s: float = Field(
        default=20.0,
        gt=0,
        le=600,
        description="without a word from the host for this long, the cycler switches off and opens all contacts",
    )
    contact_max_mohm: float = Field(
        default=5.0, gt=0, description="highest resistance of a good contact, in milliohms"
    )
    meter_range_mohm: Literal[3, 30, 300, 3000] = Field(
        default=3,
        description="range to begin with, in milliohms; a cell that exceeds it is measured in the next one",
    )
    meter_rate: Literal["EXFAST", "FAST", "MEDIUM", "SLOW"] = Field(
        default="SLOW", description="sampling rate of the meter"
    )
    meter_calibrated_on: date | None = Field(
        default=None, strict=False, description="date on the meter's certificate; the meter itself doesn't know it"
    )
    scanner_settle_s: float = Field(
        default=0.05, ge=0, le=5, description="from the scanner's switching to the reading, in seconds"
    )
    voltage_noise_v: float = Field(
        default=0.0002,
        gt=0,
        description="limit of error of the difference of two voltages of one channel, in volts",
    )
    current_accuracy: Share = Field(
        default=0.0005, description="limit of error of the current, as a share of it (0..1)"
    )
    current_offset_a: float = Field(
        default=0.003, ge=0, description="limit of error of the current in addition to that, in amperes"
    )


class ScpiTester(CellTester):
    """Client of both instruments. Threads may use different channels; any may `disconnect`."""

    Settings: ClassVar[type[DriverSettings]] = ScpiTesterSettings

    def __init__(self, settings: ScpiTesterSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._cycler = ScpiLink("cycler", settings.host, settings.port, cycler.TERMINATOR, numbered=True)
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

    @property
    def answers_dropped(self) -> int:
        """How many answers nobody had asked for, since the driver was made."""
        return self._cycler.dropped + self._meter.dropped

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
        channels = self._parse(self._cycler, "SYST:CHAN?", _count, deadline)
        if channels < self._settings.channels:
            raise DeviceSettingsError(
                f"{self._cycler.where} has {channels} channels, the settings say {self._settings.channels}"
            )
        self._cycler_calibrated_on = self._parse(self._cycler, "CAL:DATE?", _parse_date, deadline)
        wanted = cycler.format_number(self._settings.watchdog_s)
        held = self._ask(self._cycler, f"OUTP:WATC {wanted};WATC?", deadline)
        if not _same(held, wanted):
            raise DeviceSettingsError(f"{self._cycler.where} was told a watchdog of {wanted} s, but holds {held}")

    def _identify_meter(self, deadline: float) -> None:
        maker, model = self._name_of(self._meter, deadline)
        if not re.match(bt356x.MODELS, model):
            raise DeviceProtocolError(f"{self._meter.where} is a {maker} {model}, not one of the BT356x kind")
        self._meter_name = f"{maker} {model}"
        self._say(self._meter, ":SYST:HEAD OFF")
        self._ask(self._meter, "*ESR?", deadline)  # what happened before doesn't matter
        settings: dict[str, tuple[str, str | float | bool]] = {
            ":FUNC": ("RV", "RV"),
            ":AUT": ("OFF", False),
            ":VOLT:RANG": ("6", 6.0),
            ":SAMP:RATE": (self._settings.meter_rate, self._settings.meter_rate),
            ":TRIG:SOUR": ("IMM", "IMMEDIATE"),
            ":INIT:CONT": ("OFF", False),
        }
        for header, (value, expected) in settings.items():
            self._set_meter(header, value, expected, deadline)
        self._set_range(self._settings.meter_range_mohm / 1000.0, deadline)
        status = self._parse(self._meter, "*ESR?", _register, deadline)
        if status & (bt356x.COMMAND_ERROR | bt356x.EXECUTION_ERROR | bt356x.DEVICE_ERROR):
            raise DeviceSettingsError(f"{self._meter.where} didn't take its settings: *ESR? is {status}")

    def _name_of(self, link: ScpiLink, deadline: float) -> tuple[str, str]:
        answer = self._ask(link, "*IDN?", deadline)
        fields = [field.strip() for field in answer.split(",")]
        if len(fields) != 4:
            raise DeviceProtocolError(f"{link.where} answers *IDN? with {answer[:80]!r}")
        return fields[0], fields[1]

    def _set_meter(self, header: str, value: str, expected: str | float | bool, deadline: float) -> None:
        self._say(self._meter, f"{header} {value}")
        held = self._ask(self._meter, f"{header}?", deadline)
        if _means(held, expected):
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
        query = f"MEAS:CONT? {place}"
        contact_mohm, text = self._parse(self._cycler, query, _parse_contact)
        limit_mohm = self._settings.contact_max_mohm
        if not 0 <= contact_mohm <= limit_mohm:  # what is not a number is in no range
            raise OpenContactError(
                f"channel {channel} of the {self._cycler.where}: contact {_contact(contact_mohm)}, "
                f"allowed are {limit_mohm:g} mΩ ({query!r} is answered {text[:40]!r}): {readings.CONTACT.remedy}"
            )
        state = self._read_state(channel, measured=True)
        if state.voltage_v < REVERSED_BELOW_V:
            raise ReversedPolarityError(
                f"channel {channel} of the {self._cycler.where}: {state.voltage_v:.3f} V: "
                "the cell lies the wrong way round"
            )
        return ContactReading(contact_mohm, state.voltage_v, state.temperature_c)

    def measure_resistance(self, channel: int) -> ResistanceReading:
        """Connects the scanner, triggers the meter, and disconnects the scanner. One channel after the other."""
        place = self._place(channel)
        with self._scanning:
            state = self._read_state(channel, measured=True)
            if state.state is ChannelPhase.RUNNING:
                raise CellTestError(
                    f"channel {channel} of the {self._cycler.where} runs: stop it before its resistance is measured"
                )
            self._order(f"ROUT:SCAN {place}")
            try:
                time.sleep(self._settings.scanner_settle_s)
                ohms, volts, text, entry = self._read_meter()
            finally:
                if self._cycler.is_open:
                    self._order("ROUT:SCAN:OPEN")
        if bt356x.is_contact_fault(volts) or bt356x.is_contact_fault(ohms):
            raise OpenContactError(
                f"channel {channel}: the {self._meter.where} has no contact: seat the cell again"
            )
        try:
            ocv_v = readings.VOLTAGE.check(volts)
            if ocv_v < REVERSED_BELOW_V:
                raise ReversedPolarityError(f"channel {channel}: {ocv_v:.3f} V: the cell lies the wrong way round")
            resistance_mohm = readings.RESISTANCE.check(readings.meaning(ohms) * 1000.0)
        except ReadingError as error:
            answers = f"{self._meter.where} answers ':READ?' with {text[:80]!r}"
            raise type(error)(f"channel {channel}: {answers}: {error}") from error
        rate = self._settings.meter_rate
        return ResistanceReading(
            resistance_mohm=resistance_mohm,
            ocv_v=ocv_v,
            resistance_uncertainty_mohm=bt356x.resistance_error_mohm(resistance_mohm, entry, rate),
            ocv_uncertainty_v=bt356x.voltage_error_v(ocv_v, bt356x.VOLTAGE_RANGES[0], rate),
            temperature_c=state.temperature_c,
            instrument=self._meter_name,
            calibrated_on=self._settings.meter_calibrated_on,
        )

    def _ranges(self) -> tuple[bt356x.Range, ...]:
        first_ohm = self._settings.meter_range_mohm / 1000.0
        return tuple(entry for entry in bt356x.RESISTANCE_RANGES if entry.name >= first_ohm * 0.99)

    def _read_meter(self) -> tuple[float, float, str, bt356x.Range]:
        """Ω and V, which may be marks, the text of both, and the range: the first one that shows the resistance."""
        first_ohm = self._settings.meter_range_mohm / 1000.0
        ranges = self._ranges()
        try:
            for entry in ranges:
                if entry is not ranges[0]:
                    self._set_range(entry.name, self._deadline())
                ohms, volts, text = self._read_once()
                if not bt356x.is_over_range(ohms):
                    break
        finally:
            if entry is not ranges[0] and self._meter.is_open:
                self._set_range(first_ohm, self._deadline())
        return ohms, volts, text, entry

    def _read_once(self) -> tuple[float, float, str]:
        """One reading, and whether it is the one that was asked for.

        The meter takes nothing behind a query in the same message. So the number is written ahead of the query and
        asked for behind its answer: an answer too many, of whatever it may be, makes that one come in its place.
        """
        number = self._meter.next_number()
        query = f"*ESE {number};:READ?"
        reading = self._parse(self._meter, query, _parse_reading, self._sampling_deadline())
        echo = self._ask(self._meter, "*ESE?")
        if not _same(echo, str(number)):
            self.disconnect()
            text = f"{self._meter.where} answers '*ESE?' with {echo[:80]!r}, not {number}"
            raise DeviceProtocolError(f"{text}: its reading may be another's")
        return reading

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
        held = self._parse(self._cycler, f"PROG:COUN? {place}", _count)
        if held != len(run.steps):
            raise DeviceSettingsError(
                f"{self._cycler.where} was given {len(run.steps)} steps, but holds {held} in channel {channel}"
            )
        self._order(f"OUTP:STAR {place}")

    def read_progress(self, channel: int) -> ChannelState:
        """One query. What a channel shows that runs must be readings, else it raises a `ReadingError`."""
        return self._read_state(channel)

    def _read_state(self, channel: int, measured: bool = False) -> ChannelState:
        """``measured``: whether there must be readings even if it doesn't run."""
        parse = functools.partial(_parse_state, measured=measured)
        return self._parse(self._cycler, f"MEAS:CHAN? {self._place(channel)}", parse)

    def read_results(self, channel: int) -> tuple[StepResult, ...]:
        """One query per step."""
        place = self._place(channel)
        count = self._parse(self._cycler, f"FETC:COUN? {place}", _count)
        return tuple(self._read_result(place, index + 1) for index in range(count))

    def _read_result(self, place: str, index: int) -> StepResult:
        settings = self._settings

        def parse(text: str) -> StepResult:
            kind, end, *rest = readings.fields(text, 9)
            seconds = readings.TIME.read(rest[0])
            charge_ah = readings.CHARGE.read(rest[1])
            energy_wh = readings.ENERGY.read_if_measured(rest[2])  # nothing follows from it
            before_v, end_v = readings.VOLTAGE.read(rest[3]), readings.VOLTAGE.read(rest[4])
            current_a = readings.CURRENT.read(rest[5])
            hottest_c = readings.TEMPERATURE.read(rest[6])
            offset_share = settings.current_offset_a / abs(current_a) if current_a else 0.0
            error_as = settings.current_accuracy * abs(charge_ah) * 3600.0 + (
                settings.current_offset_a * seconds if current_a else 0.0
            )
            return StepResult(
                number=index,
                kind=readings.word(kind, cycler.KINDS),
                end=readings.word(end, cycler.ENDS),
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
        self._must_hold(f"OUTP:STAT? {place}", False, f"the current of channel {channel} is still on")

    def safe(self, channel: int) -> None:
        """Current off, contacts open, both read back."""
        place = self._place(channel)
        self._order(f"OUTP:STOP {place}")
        self._order(f"ROUT:OPEN {place}")
        self._must_hold(f"OUTP:STAT? {place}", False, f"the current of channel {channel} is still on")
        self._must_hold(f"ROUT:CLOS? {place}", False, f"the contacts of channel {channel} are still closed")

    def emergency_stop(self) -> None:
        """One message for all channels."""
        self._order("OUTP:EST")
        self._must_hold("OUTP:EST?", True, "its emergency stop has not tripped")

    def emergency_stop_stands(self) -> bool:
        """One query."""
        return self._parse(self._cycler, "OUTP:EST?", readings.flag)

    def reset_emergency_stop(self) -> None:
        """Refused while the button is pressed."""
        self._order("OUTP:EST:RES")

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
        """What the answer says. An answer that says that there is no reading leaves the link open."""
        answer = self._ask(link, message, deadline)
        text = f"{link.where} answers {message!r} with {answer[:120]!r}"
        try:
            return parse(answer)
        except ReadingError as error:
            raise type(error)(f"{text}: {error}") from error
        except ValueError as error:
            self.disconnect()
            raise DeviceProtocolError(
                f"{text}: {error}: docs/reference/tester.md says what it must speak"
            ) from error

    def _order(self, message: str) -> None:
        """Has the cycler do something, and asks at once whether it did."""
        number, answer = self._parse(self._cycler, f"{message};:SYST:ERR?", _parse_error)
        if number == 0:
            return
        refusal = f"{self._cycler.where} refused {message!r}: {answer}"
        if number == cycler.ESTOP_ERROR:
            raise TesterEmergencyStopError(f"{refusal}: release the emergency stop and reset it at the tester")
        if number == cycler.OPEN_ERROR:
            raise OpenContactError(refusal)
        if -300 < number <= -200 or number > 0:
            raise DeviceSettingsError(refusal)
        raise DeviceProtocolError(refusal)

    def _order_and_compare(self, header: str, place: str, values: str) -> None:
        self._order(f"{header} {place},{values}")
        held = self._ask(self._cycler, f"{header}? {place}")
        if not _same(held, values):
            raise DeviceSettingsError(
                f"{self._cycler.where} was told {header} {place},{values}, but holds {held[:120]}"
            )

    def _must_hold(self, query: str, expected: bool, complaint: str) -> None:
        if self._parse(self._cycler, query, readings.flag) is not expected:
            raise DeviceSettingsError(f"{self._cycler.where}: {complaint}: switch it off by hand")


def _count(text: str) -> int:
    return readings.integer(text, 0, MOST)


def _register(text: str) -> int:
    """A register of IEEE 488.2."""
    return readings.integer(text, 0, 255)


def _contact(shown_mohm: float) -> str:
    """A contact resistance, or what it is in its place, for people."""
    known = readings.meaning(shown_mohm)
    if math.isnan(known):
        return "not measured"
    return "open" if math.isinf(known) else f"{known:.3g} mΩ"


def _parse_contact(text: str) -> tuple[float, str]:
    """mΩ, which may be a mark, and the text of it."""
    return readings.CONTACT.printed(text), text


def _parse_reading(text: str) -> tuple[float, float, str]:
    """Ω, V and the text of both."""
    return (*bt356x.parse_reading(text), text)


def _parse_date(text: str) -> date:
    year, month, day = readings.fields(text, 3)
    return date(readings.integer(year, 1970, 9999), readings.integer(month, 1, 12), readings.integer(day, 1, 31))


def _parse_error(text: str) -> tuple[int, str]:
    """Number of an error, and the whole text."""
    number, comma, _ = text.partition(",")
    if not comma:
        raise readings.AnswerError("no number and text of an error")
    return readings.integer(number, -32768, 32767), text


def _means(held: str, expected: str | float | bool) -> bool:
    """Whether an answer is the word, the number or the yes or no that is expected."""
    try:
        if isinstance(expected, bool):
            return readings.flag(held) is expected
        if isinstance(expected, float):
            return math.isclose(readings.number(held), expected, rel_tol=1e-3)
    except readings.AnswerError:
        return False
    return held.strip("\"'").upper() == expected


def _same(held: str, wanted: str) -> bool:
    """Whether two lists of words and numbers mean the same."""
    pairs: list[Any] = [held.split(","), wanted.split(",")]
    if len(pairs[0]) != len(pairs[1]):
        return False
    for one, other in zip(*pairs, strict=True):
        try:
            if not math.isclose(readings.number(one), readings.number(other), rel_tol=1e-6, abs_tol=1e-9):
                return False
        except readings.AnswerError:
            if one.strip(" \"'").upper() != other.strip().upper():
                return False
    return True


def _parse_state(text: str, measured: bool) -> ChannelState:
    """A channel. What it shows without running may be nothing (NaN): no cell, or a fault that says why."""
    state, step, steps, volts, amps, temperature_c, charge_ah, elapsed_s, fault = readings.fields(text, 9)
    phase = readings.word(state, cycler.PHASES)
    measured = measured or phase in (ChannelPhase.RUNNING, ChannelPhase.DONE)

    def read(quantity: readings.Quantity, shown: str) -> float:
        return quantity.read(shown) if measured else quantity.read_if_measured(shown)

    return ChannelState(
        state=phase,
        step=_count(step),
        steps=_count(steps),
        voltage_v=read(readings.VOLTAGE, volts),
        current_a=read(readings.CURRENT, amps),
        temperature_c=read(readings.TEMPERATURE, temperature_c),
        charge_ah=read(readings.CHARGE, charge_ah),
        elapsed_s=read(readings.TIME, elapsed_s),
        fault=readings.word(fault, cycler.FAULT_CODES),
    )

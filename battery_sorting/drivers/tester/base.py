"""What the EV line needs from a tester: contacts, an AC resistance meter and a cycler for several channels.

Currents and charges are positive when they go into the cell. NaN is "not measured". An uncertainty is the limit of
error (±) that follows from the instrument's specification.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from battery_sorting.core.settings import Settings, share_not_percent
from battery_sorting.drivers.base import Driver

NAN = math.nan
AC_METHOD = "AC 1 kHz"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400, allow_inf_nan=False)]


# ---- what a channel is told ----


class Rest(Settings):
    """No current."""

    kind: Literal["rest"] = "rest"
    seconds: Seconds = Field(description="how long, in seconds")


class Charge(Settings):
    """Constant current, then constant voltage until the current has fallen to ``cutoff_a``."""

    kind: Literal["charge"] = "charge"
    current_a: Positive = Field(description="constant current, in amperes")
    voltage_v: Positive = Field(description="constant voltage, in volts")
    cutoff_a: Positive = Field(description="current at which the cell counts as full, in amperes")
    max_s: Seconds = Field(description="a step that takes longer has failed, in seconds")
    to_soc: Annotated[float, BeforeValidator(share_not_percent)] | None = Field(
        default=None, gt=0, lt=1, description="end at this share of the capacity measured before, from empty"
    )


class Discharge(Settings):
    """Constant current down to ``voltage_v``. After a full charge its charge is the capacity."""

    kind: Literal["discharge"] = "discharge"
    current_a: Positive = Field(description="constant current, in amperes, without sign")
    voltage_v: Positive = Field(description="the cell counts as empty here, in volts")
    max_s: Seconds = Field(description="a step that takes longer has failed, in seconds")


class Pulse(Settings):
    """A current pulse for the DC resistance: ΔU/ΔI from just before its begin to its end."""

    kind: Literal["pulse"] = "pulse"
    current_a: float = Field(allow_inf_nan=False, description="current, in amperes; negative discharges")
    seconds: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = Field(description="how long, in seconds")

    @model_validator(mode="after")
    def _has_current(self) -> Pulse:
        if self.current_a == 0:
            raise ValueError("current_a: a pulse of 0 A tells nothing; negative discharges")
        return self


CyclerStep = Rest | Charge | Discharge | Pulse
"""What the cycler does by itself."""


class Limits(Settings):
    """Outside of these the tester switches the current off, whatever the step says."""

    voltage_min_v: Positive = Field(description="lowest voltage of a sound cell, in volts")
    voltage_max_v: Positive = Field(description="highest voltage of a sound cell, in volts")
    temperature_max_c: float = Field(
        default=45.0, ge=10, le=80, allow_inf_nan=False, description="highest temperature of the cell, in °C"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Limits:
        if self.voltage_min_v >= self.voltage_max_v:
            raise ValueError(f"voltage_min_v ({self.voltage_min_v:g}) must lie below voltage_max_v")
        return self


@dataclass(frozen=True, slots=True)
class CyclerRun:
    """What is handed to the cycler at once, and done by it without the host.

    ``charge_limits_ah`` holds for each step the charge at which it ends, or None.
    """

    steps: tuple[CyclerStep, ...]
    limits: Limits
    charge_limits_ah: tuple[float | None, ...] = ()

    def charge_limit_ah(self, index: int) -> float | None:
        """Charge at which the step with this index ends, or None."""
        return self.charge_limits_ah[index] if index < len(self.charge_limits_ah) else None


# ---- what it answers ----


class ChannelPhase(str, Enum):
    """What a channel of the tester is doing."""

    IDLE = "idle"
    RUNNING = "running"
    DONE = "done"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class ChannelState:
    """A channel at this moment. While it runs, and when it is done, all values are readings; else they may be NaN.

    Attributes:
        step: Number of the running step from 1, 0 if none.
        steps: How many steps were handed over.
        elapsed_s: Time since the start of the run on the tester's clock.
        charge_ah: Charge into the cell since the start of the run, less what came out.
        fault: Error code of a `CellTestError`, empty without a fault.
    """

    state: ChannelPhase
    step: int
    steps: int
    voltage_v: float
    current_a: float
    temperature_c: float
    charge_ah: float
    elapsed_s: float
    fault: str = ""


@dataclass(frozen=True, slots=True)
class ContactReading:
    """Contacts that are closed and good. ``contact_mohm`` is the worse of the two current contacts."""

    contact_mohm: float
    voltage_v: float
    temperature_c: float


@dataclass(frozen=True, slots=True)
class ResistanceReading:
    """One reading of the AC meter.

    Attributes:
        temperature_c: Of the cell at that time.
        instrument: Maker and model, as the instrument names itself.
        calibrated_on: None if the site file doesn't tell.
    """

    resistance_mohm: float
    ocv_v: float
    resistance_uncertainty_mohm: float
    ocv_uncertainty_v: float
    temperature_c: float
    method: str = AC_METHOD
    instrument: str = ""
    calibrated_on: date | None = None


class StepEnd(str, Enum):
    """Why a step ended: by its own condition, or because its time was up."""

    DONE = "done"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What the cycler recorded of one finished step.

    Attributes:
        number: From 1, within the run.
        before_v: Voltage just before the step.
        end_v: Voltage at its end, with the current still on.
        current_a: Mean current.
        voltage_noise_v: Limit of error of a difference of two voltages.
    """

    number: int
    kind: str
    end: StepEnd
    seconds: float
    charge_ah: float
    energy_wh: float
    before_v: float
    end_v: float
    current_a: float
    temperature_c: float
    charge_uncertainty_ah: float = NAN
    voltage_noise_v: float = NAN
    current_uncertainty: float = NAN
    """Limit of error of the current, as a share of it."""
    instrument: str = ""
    calibrated_on: date | None = None

    @property
    def resistance_mohm(self) -> float:
        """DC resistance: ΔU/ΔI over the step (for a pulse that starts from rest)."""
        return (self.end_v - self.before_v) / self.current_a * 1000.0 if self.current_a else NAN

    @property
    def resistance_uncertainty_mohm(self) -> float:
        """Limit of error of `resistance_mohm`."""
        if not self.current_a:
            return NAN
        from_voltage = self.voltage_noise_v / abs(self.current_a) * 1000.0
        return from_voltage + self.current_uncertainty * abs(self.resistance_mohm)


# ---- the interface ----


class CellTester(Driver):
    """A tester with channels that work independently of each other. Its calls may come from several threads.

    A call with a channel that the tester doesn't have raises DeviceSettingsError. What an instrument shows in place
    of a reading (over-range, not measured, what can't be true) raises a ReadingError: `core.readings` knows it.
    """

    @property
    @abstractmethod
    def channels(self) -> tuple[int, ...]:
        """Numbers of the channels, from 1. Known without the device."""

    @property
    def answers_dropped(self) -> int:
        """How many answers the tester has given that nobody had asked for: it or the link should be looked at."""
        return 0

    @abstractmethod
    def resistance_uncertainty_mohm(self, resistance_mohm: float) -> float:
        """Limit of error of a reading of ``resistance_mohm``, mΩ. Known without the device, for a site check."""

    @abstractmethod
    def check_contact(self, channel: int) -> ContactReading:
        """Closes the contacts anew and checks them. If that fails, they are open again.

        Raises:
            OpenContactError: A contact is open or bad, or its resistance is no reading.
            ReadingError: Voltage or temperature is no reading.
            ReversedPolarityError: The cell lies the wrong way round.
        """

    @abstractmethod
    def measure_resistance(self, channel: int) -> ResistanceReading:
        """AC resistance and open-circuit voltage. The contacts must be closed, and no current may flow.

        Raises:
            OpenContactError: The meter has no contact.
            ReadingError: What it shows is no reading, or the cell's temperature is none.
            ReversedPolarityError: It shows a negative voltage.
            CellTestError: The channel runs.
        """

    @abstractmethod
    def start(self, channel: int, run: CyclerRun) -> None:
        """Hands over steps and limits, reads them back, and starts. What ran in that channel is stopped.

        Raises:
            OpenContactError: The contacts aren't closed.
            DeviceSettingsError: The tester holds other steps or limits than it was given, or can't do them.
            TesterEmergencyStopError: Its emergency stop is pressed.
        """

    @abstractmethod
    def read_progress(self, channel: int) -> ChannelState:
        """What a channel is doing. A fault of the channel is no exception, but stands in the state.

        Raises:
            ReadingError: It runs, and something that it shows is no reading.
        """

    @abstractmethod
    def read_results(self, channel: int) -> tuple[StepResult, ...]:
        """What was recorded of the finished steps of the last run.

        Raises:
            ReadingError: Something in it is no reading. Energy may be NaN.
        """

    @abstractmethod
    def stop(self, channel: int) -> None:
        """Switches the current off; the contacts stay as they are."""

    @abstractmethod
    def safe(self, channel: int) -> None:
        """Switches the current off and opens the contacts. Comes back only when both have been read back.

        Raises:
            DeviceSettingsError: They were ordered, and didn't happen: a person must look.
        """

    @abstractmethod
    def emergency_stop(self) -> None:
        """Switches all channels off and opens all contacts, at once. A person releases it at the tester."""

    @abstractmethod
    def emergency_stop_stands(self) -> bool:
        """Whether the emergency stop is pressed, or was and has not been reset since."""

    @abstractmethod
    def reset_emergency_stop(self) -> None:
        """Lets the tester work again after its emergency stop was released; nothing starts by that.

        Raises:
            TesterEmergencyStopError: It is still pressed.
        """

"""The words of the cycler's SCPI that driver and instrument share. docs/reference/tester.md has all of it."""

from __future__ import annotations

from battery_sorting.core.errors import (
    CellTestError,
    OpenContactError,
    OverTemperatureError,
    ReversedPolarityError,
    TesterEmergencyStopError,
    TesterStoppedError,
    VoltageWindowError,
)
from battery_sorting.drivers.tester.base import ChannelPhase, Charge, CyclerStep, Discharge, Pulse, Rest, StepEnd

TERMINATOR = "\n"
OPEN_OHM = 9.9e37
"""SCPI's infinity: no contact at all."""
ESTOP_ERROR, OPEN_ERROR, RUNNING_ERROR = 101, 102, 103
"""Numbers of the instrument's own in its error queue: why it refuses."""

PHASES = {
    "IDLE": ChannelPhase.IDLE,
    "RUN": ChannelPhase.RUNNING,
    "DONE": ChannelPhase.DONE,
    "FAULT": ChannelPhase.FAULT,
}
FAULTS: dict[str, type[CellTestError]] = {
    "OPEN": OpenContactError,
    "POLARITY": ReversedPolarityError,
    "TEMPERATURE": OverTemperatureError,
    "VOLTAGE": VoltageWindowError,
    "ESTOP": TesterEmergencyStopError,
    "WATCHDOG": TesterStoppedError,
}
"""Word of the instrument → error that it stands for. ``NONE`` is no fault."""
FAULT_CODES = {"NONE": "", **{name: error.code for name, error in FAULTS.items()}}
KINDS = {"REST": "rest", "CHARGE": "charge", "DISCHARGE": "discharge", "PULSE": "pulse"}
ENDS = {"DONE": StepEnd.DONE, "TIME": StepEnd.TIME}


def format_number(value: float) -> str:
    """A number as it is sent: nine digits, which every value of a programme has room in."""
    return f"{value:.9g}"


def format_step(step: CyclerStep, charge_limit_ah: float | None) -> str:
    """A step as arguments of ``PROGram:STEP``; ``charge_limit_ah`` of None is sent as 0, which means none."""
    if isinstance(step, Rest):
        return f"REST,{format_number(step.seconds)}"
    if isinstance(step, Charge):
        values = (step.current_a, step.voltage_v, step.cutoff_a, step.max_s, charge_limit_ah or 0.0)
        return ",".join(["CHARGE", *map(format_number, values)])
    if isinstance(step, Discharge):
        return ",".join(["DISCHARGE", *map(format_number, (step.current_a, step.voltage_v, step.max_s))])
    assert isinstance(step, Pulse)
    return ",".join(["PULSE", *map(format_number, (step.current_a, step.seconds))])

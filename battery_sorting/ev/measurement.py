"""What is measured of a retired cell: the programme that the tester runs, and what its readings add up to.

Pure data and arithmetic; `battery_sorting.ev.cell_test` runs the test, docs/reference/tester.md explains the
programme. Signs, NaN and uncertainties are those of `battery_sorting.drivers.tester.base`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from battery_sorting.core.settings import Settings
from battery_sorting.drivers.tester.base import (
    NAN,
    Charge,
    CyclerStep,
    Discharge,
    Limits,
    Pulse,
    ResistanceReading,
    Rest,
    StepEnd,
    StepResult,
)

TEMPERATURE_UNCERTAINTY_C = 1.0
"""Of the tester's sensors."""

# ---- the programme ----


class Measure(Settings):
    """Resistance and open-circuit voltage by the AC meter, with the cell cut off from the cycler."""

    kind: Literal["measure"] = "measure"


Step = Annotated[Rest | Charge | Discharge | Pulse | Measure, Field(discriminator="kind")]


class Programme(Settings):
    """What is done with a cell, step by step, and within which limits."""

    name: str = Field(min_length=1, description="name of the programme")
    limits: Limits = Field(description="outside of these the tester switches off")
    steps: tuple[Step, ...] = Field(strict=False, min_length=1, max_length=50, description="list of the steps")

    @model_validator(mode="after")
    def _makes_sense(self) -> Programme:
        problems = [
            f"steps[{index}].{problem}"
            for index, step in enumerate(self.steps)
            for problem in self._problems_of(index, step)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems_of(self, index: int, step: Step) -> list[str]:
        low, high = self.limits.voltage_min_v, self.limits.voltage_max_v
        found = []
        if isinstance(step, (Charge, Discharge)) and not low <= step.voltage_v <= high:
            found.append(f"voltage_v: {step.voltage_v:g} V lies outside limits {low:g}..{high:g} V")
        if isinstance(step, Charge) and step.cutoff_a >= step.current_a:
            found.append(f"cutoff_a: {step.cutoff_a:g} A is not below current_a, so the step would end at once")
        if isinstance(step, Charge) and step.to_soc is not None and not self._capacity_known_before(index):
            found.append("to_soc: needs a full charge and a discharge before it, which measure the capacity")
        return found

    def _capacity_known_before(self, index: int) -> bool:
        kinds = [step.kind for step in self.steps[:index] if not isinstance(step, (Rest, Measure))]
        return kinds[-2:] == ["charge", "discharge"]

    @property
    def segments(self) -> tuple[tuple[CyclerStep, ...] | Measure, ...]:
        """The steps as the host hands them out: runs of the cycler, and readings of the meter between them.

        A charge ``to_soc`` begins a run of its own, as its charge follows from the discharge before it.
        """
        parts: list[tuple[CyclerStep, ...] | Measure] = []
        run: list[CyclerStep] = []
        for step in self.steps:
            if run and (isinstance(step, Measure) or (isinstance(step, Charge) and step.to_soc is not None)):
                parts.append(tuple(run))
                run = []
            if isinstance(step, Measure):
                parts.append(step)
            else:
                run.append(step)
        return (*parts, tuple(run)) if run else tuple(parts)

    @classmethod
    def capacity_test(
        cls,
        nominal_ah: float,
        voltage_min_v: float = 2.5,
        voltage_max_v: float = 3.65,
        rate: float = 0.5,
        rest_s: float = 1800.0,
        margin_v: float = 0.05,
        name: str = "capacity",
    ) -> Programme:
        """Charge, discharge, and half a charge, then the readings at half charge. Voltages default to LFP's.

        Args:
            nominal_ah: Nominal capacity; currents follow from it.
            voltage_min_v: End of discharge.
            voltage_max_v: Constant voltage of the charge.
            rate: Current as a multiple of ``nominal_ah`` per hour.
            rest_s: Rest before each reading, and between charge and discharge.
            margin_v: By how much the limits lie outside the two voltages.
            name: Name of the programme.
        """
        current_a = rate * nominal_ah
        max_s = 3600.0 / rate * 1.5
        charge = Charge(
            current_a=current_a, voltage_v=voltage_max_v, cutoff_a=0.05 * nominal_ah, max_s=max_s + 3600
        )
        return cls(
            name=name,
            limits=Limits(voltage_min_v=voltage_min_v - margin_v, voltage_max_v=voltage_max_v + margin_v),
            steps=(
                Rest(seconds=60.0),
                charge,
                Rest(seconds=rest_s),
                Discharge(current_a=current_a, voltage_v=voltage_min_v, max_s=max_s),
                Rest(seconds=rest_s),
                charge.model_copy(update={"to_soc": 0.5}),
                Rest(seconds=rest_s),
                Measure(),
                Pulse(current_a=-current_a, seconds=10.0),
            ),
        )


# ---- the measurement ----


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is known of a cell after its test. Each value with its limit of error; NaN is "not measured".

    Attributes:
        capacity_ah: Charge of the full discharge.
        resistance_mohm: By the AC meter where the programme has it measured, else by a DC pulse.
        dc_resistance_mohm: By the last DC pulse; ``dc_seconds`` is how long that was.
        ocv_v: Open-circuit voltage after a rest of ``rest_s``.
        soc: State of charge at the reading, 0..1, of ``capacity_ah``.
        temperature_c: Of the cell at the reading.
        contact_mohm: Of the worse contact at the check before the test.
        instrument: That measured resistance and OCV.
        capacity_instrument: That measured the capacity.
    """

    capacity_ah: float = NAN
    capacity_uncertainty_ah: float = NAN
    resistance_mohm: float = NAN
    resistance_uncertainty_mohm: float = NAN
    resistance_method: str = ""
    dc_resistance_mohm: float = NAN
    dc_resistance_uncertainty_mohm: float = NAN
    dc_seconds: float = NAN
    ocv_v: float = NAN
    ocv_uncertainty_v: float = NAN
    rest_s: float = NAN
    soc: float = NAN
    soc_uncertainty: float = NAN
    temperature_c: float = NAN
    temperature_uncertainty_c: float = NAN
    contact_mohm: float = NAN
    instrument: str = ""
    calibrated_on: date | None = None
    capacity_instrument: str = ""
    capacity_calibrated_on: date | None = None


@dataclass(frozen=True, slots=True)
class _Moment:
    """The meter's last reading, and where it stood in the course of charge (Ah since the begin of the test)."""

    reading: ResistanceReading
    net_ah: float
    moved_uncertainty_ah: float
    rest_s: float


def measurement_of(course: Sequence[StepResult | ResistanceReading], contact_mohm: float) -> Measurement:
    """What the results of a whole test, in the order of their occurrence, add up to.

    The state of charge at the reading is counted from the end of the capacity discharge, where it is 0.
    """
    net_ah = moved_ah = rest_s = 0.0
    charged = False
    capacity: StepResult | None = None
    empty_ah = empty_moved_ah = NAN
    moment: _Moment | None = None
    pulse: StepResult | None = None
    for entry in course:
        if isinstance(entry, ResistanceReading):
            moment = _Moment(entry, net_ah, moved_ah, rest_s)
            continue
        net_ah += entry.charge_ah
        moved_ah += entry.charge_uncertainty_ah if entry.charge_ah else 0.0
        rest_s = rest_s + entry.seconds if entry.kind == "rest" else 0.0
        if entry.kind == "charge":
            charged = entry.end is StepEnd.DONE
        elif entry.kind == "discharge" and charged and entry.end is StepEnd.DONE:
            capacity, charged = entry, False
            empty_ah, empty_moved_ah = net_ah, moved_ah
        elif entry.kind == "pulse":
            pulse = entry
    values: dict[str, object] = {"contact_mohm": contact_mohm}
    if capacity is not None:
        values["capacity_ah"] = -capacity.charge_ah
        values["capacity_uncertainty_ah"] = capacity.charge_uncertainty_ah
        values["capacity_instrument"] = capacity.instrument
        values["capacity_calibrated_on"] = capacity.calibrated_on
    if pulse is not None:
        values |= _of_pulse(pulse)
    if moment is not None:
        values |= _of_reading(moment)
        if capacity is not None and capacity.charge_ah < 0:
            full_ah = -capacity.charge_ah
            between_ah = moment.net_ah - empty_ah
            values["soc"] = between_ah / full_ah
            values["soc_uncertainty"] = (
                abs(moment.moved_uncertainty_ah - empty_moved_ah)
                + abs(between_ah) / full_ah * capacity.charge_uncertainty_ah
            ) / full_ah
    return Measurement(**values)  # type: ignore[arg-type]


def _of_pulse(pulse: StepResult) -> dict[str, object]:
    value, uncertainty = pulse.resistance_mohm, pulse.resistance_uncertainty_mohm
    return {
        "dc_resistance_mohm": value,
        "dc_resistance_uncertainty_mohm": uncertainty,
        "dc_seconds": pulse.seconds,
        "resistance_mohm": value,
        "resistance_uncertainty_mohm": uncertainty,
        "resistance_method": f"DC pulse {pulse.seconds:g} s",
        "temperature_c": pulse.temperature_c,
        "instrument": pulse.instrument,
        "calibrated_on": pulse.calibrated_on,
    }


def _of_reading(moment: _Moment) -> dict[str, object]:
    reading = moment.reading
    return {
        "resistance_mohm": reading.resistance_mohm,
        "resistance_uncertainty_mohm": reading.resistance_uncertainty_mohm,
        "resistance_method": reading.method,
        "ocv_v": reading.ocv_v,
        "ocv_uncertainty_v": reading.ocv_uncertainty_v,
        "rest_s": moment.rest_s,
        "temperature_c": reading.temperature_c,
        "temperature_uncertainty_c": TEMPERATURE_UNCERTAINTY_C,
        "instrument": reading.instrument,
        "calibrated_on": reading.calibrated_on,
    }


# ---- is the meter good enough? ----

NEEDED_SHARE = 0.02
"""A quarter of the scatter of resistance among retired LFP cells of one make (8.5 % of the mean, PulseBat)."""


@dataclass(frozen=True, slots=True)
class MeterVerdict:
    """Whether a meter can tell such cells apart. ``text`` says it with the numbers."""

    good_enough: bool
    share: float
    needed_mohm: float
    text: str


def meter_is_good_enough(
    uncertainty_mohm: float, cell_resistance_mohm: float, needed_share: float = NEEDED_SHARE
) -> MeterVerdict:
    """Compares a meter's limit of error with what cells of ``cell_resistance_mohm`` need.

    Args:
        uncertainty_mohm: Limit of error at that resistance (±).
        cell_resistance_mohm: Of a good cell.
        needed_share: Largest error that can be tolerated, as a share of the cell's resistance.

    Raises:
        ValueError: A value is not a positive finite number.
    """
    for name, value in (
        ("uncertainty_mohm", uncertainty_mohm),
        ("cell_resistance_mohm", cell_resistance_mohm),
        ("needed_share", needed_share),
    ):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}, it must be above 0")
    share = uncertainty_mohm / cell_resistance_mohm
    needed_mohm = needed_share * cell_resistance_mohm
    good = uncertainty_mohm <= needed_mohm * (1 + 1e-9)
    text = (
        f"the meter's ±{uncertainty_mohm * 1000:.3g} µΩ are {share:.1%} of a cell of {cell_resistance_mohm:g} mΩ; "
        f"{needed_share:.1%} (±{needed_mohm * 1000:.3g} µΩ) is needed"
    )
    text += "" if good else ": take a meter or a range with a smaller limit of error"
    return MeterVerdict(good, share, needed_mohm, text)

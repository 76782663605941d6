"""Retired cells of the simulated plant: a vectorised Thevenin model. No I/O; time is given by the caller.

Terminal voltage U = OCV(SOC) + v1 + I·R0 with dv1/dt = I/C1 − v1/(R1·C1): one RC pair (Plett, Battery Management
Systems vol. I, 2015, chapter 2). Current is positive into the cell. RC pair and heat balance are solved exactly for
a step of constant current; a step at constant voltage finds its current implicitly, so that it is stable at any
length. R0 is what an AC meter sees at 1 kHz. Resistances follow the temperature by Arrhenius' law.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

NEWTON_STEPS = 5
KELVIN = 273.15
REFERENCE_C = 25.0
ACTIVATION_K = 2400.0  # 20 kJ/mol over the gas constant: R0 at 0 °C is about twice that at 25 °C
Record = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Chemistry:
    """OCV over SOC (shape of public curves; the middle of LFP, NMC and LMO follows PulseBat's means) and ratios.

    The ends are steep, so that a charge at constant voltage ends near SOC 1 and a discharge near SOC 0: capacity is
    defined as the charge between the OCVs of the two end voltages.
    """

    name: str
    soc: tuple[float, ...]
    ocv_v: tuple[float, ...]

    @property
    def voltage_min_v(self) -> float:
        """End of discharge."""
        return self.ocv_v[0]

    @property
    def voltage_max_v(self) -> float:
        """End of charge."""
        return self.ocv_v[-1]


CHEMISTRIES = {
    "LFP": Chemistry(
        "LFP",
        (0.0, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.95, 0.98, 0.99, 1.0),
        (
            *(2.5, 2.8, 3.09, 3.186, 3.218, 3.236, 3.267, 3.289, 3.301, 3.306, 3.307, 3.312, 3.331),
            *(3.334, 3.338, 3.36, 3.42, 3.65),
        ),
    ),
    "NMC": Chemistry(
        "NMC",
        (0.0, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        (3.0, 3.2, 3.38, 3.451, 3.485, 3.527, 3.569, 3.601, 3.619, 3.648, 3.689, 3.79, 3.89, 3.98, 4.08, 4.2),
    ),
    "LMO": Chemistry(
        "LMO",
        (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        (2.5, 2.7, 2.872, 3.022, 3.15, 3.262, 3.362, 3.454, 3.541, 3.622, 3.693, 3.768, 3.87, 3.95, 4.02, 4.1, 4.2),
    ),
}


class CellSettings(BaseModel):
    """The cells that come to the tester. Resistances and capacities scatter around what their age gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    chemistry: Literal["LFP", "NMC", "LMO"] = "LFP"
    nominal_ah: float = Field(default=20.0, gt=0)
    soh_mean: float = Field(default=0.85, gt=0, le=1.1)
    soh_sd: float = Field(default=0.06, ge=0, le=0.3)
    fresh_r0_mohm: float = Field(default=1.5, gt=0)
    """Resistance at 1 kHz of a new cell at 25 °C."""
    r0_growth: float = Field(default=2.0, ge=0)
    """R0 grows by this share per share of capacity lost."""
    r0_scatter: float = Field(default=0.08, ge=0, le=0.5)
    r1_over_r0: float = Field(default=0.8, gt=0)
    tau_s: float = Field(default=40.0, gt=0)
    soc_range: tuple[float, float] = (0.15, 0.5)
    """State of charge with which the cells come."""
    ambient_c: float = Field(default=25.0, ge=-20, le=60)
    heat_capacity_j_per_k_ah: float = Field(default=25.0, gt=0)
    """Heat capacity per ampere hour of nominal capacity."""
    cooling_w_per_k_ah: float = Field(default=0.02, gt=0)
    temperature_sd_c: float = Field(default=0.7, ge=0)


class Cells:
    """Any number of cells, told apart by their index. All arrays have one entry per cell.

    Attributes:
        chemistry: Common to all.
        nominal_ah: Common to all.
        capacity_ah: True capacity.
        r0_mohm: Resistance at 1 kHz and 25 °C.
        r1_mohm: Of the RC pair at 25 °C.
        tau_s: Time constant of the RC pair.
        soc: State of charge, of ``capacity_ah``.
        v1_v: Overvoltage of the RC pair.
        temperature_c: Of the cell.
    """

    def __init__(self, count: int, settings: CellSettings | None = None, seed: int = 0) -> None:
        self.settings = settings = settings or CellSettings()
        self.chemistry = CHEMISTRIES[settings.chemistry]
        self.nominal_ah = settings.nominal_ah
        random = np.random.default_rng([seed, 0xCE11])
        soh = np.clip(random.normal(settings.soh_mean, settings.soh_sd, count), 0.3, 1.05)
        growth = 1.0 + settings.r0_growth * np.maximum(1.0 - soh, 0.0)
        scatter = np.exp(random.normal(0.0, settings.r0_scatter, (2, count)))
        self.capacity_ah: Floats = settings.nominal_ah * soh
        self.r0_mohm: Floats = settings.fresh_r0_mohm * growth * scatter[0]
        self.r1_mohm: Floats = self.r0_mohm * settings.r1_over_r0 * scatter[1]
        self.tau_s: Floats = settings.tau_s * np.exp(random.normal(0.0, 0.1, count))
        self.soc: Floats = random.uniform(*settings.soc_range, count)
        self.v1_v: Floats = np.zeros(count)
        self.temperature_c: Floats = random.normal(settings.ambient_c, settings.temperature_sd_c, count)
        self._heat_j_per_k = settings.heat_capacity_j_per_k_ah * settings.nominal_ah
        self._cooling_w_per_k = settings.cooling_w_per_k_ah * settings.nominal_ah
        self._curve = (np.array(self.chemistry.soc), np.array(self.chemistry.ocv_v))
        self._slopes = np.diff(self._curve[1]) / np.diff(self._curve[0])

    def __len__(self) -> int:
        return len(self.soc)

    def truth(self, cell: int) -> dict[str, Any]:
        """What the plant's record says of a cell: true values at this moment, resistances at its temperature."""
        index = np.array([cell])
        return {
            "cell": cell,
            "chemistry": self.chemistry.name,
            "nominal_ah": self.nominal_ah,
            "capacity_ah": float(self.capacity_ah[cell]),
            "resistance_mohm": float(self.r0(index)[0] * 1000.0),
            "resistance_25c_mohm": float(self.r0_mohm[cell]),
            "ocv_v": float(self.ocv(index)[0]),
            "rest_voltage_v": float(self.voltage(index, np.zeros(1))[0]),
            "soc": float(self.soc[cell]),
            "temperature_c": float(self.temperature_c[cell]),
        }

    # ---- what can be measured ----

    def ocv(self, index: Indices) -> Floats:
        """Open-circuit voltage after an endless rest, V. Beyond SOC 0 and 1 it goes on as steep as at the end."""
        return self._curve_at(self.soc[index])

    def _curve_at(self, soc: Floats) -> Floats:
        knots, volts = self._curve
        inside = np.interp(soc, knots, volts)
        beyond = np.where(
            soc > 1.0, (soc - 1.0) * self._slopes[-1], np.where(soc < 0.0, soc * self._slopes[0], 0.0)
        )
        values: Floats = inside + beyond
        return values

    def r0(self, index: Indices) -> Floats:
        """R0 at the cell's temperature, Ω."""
        values: Floats = self.r0_mohm[index] / 1000.0 * self._warmth(index)
        return values

    def _slope_at(self, soc: Floats) -> Floats:
        segment = np.searchsorted(self._curve[0], soc, side="right") - 1
        values: Floats = self._slopes[np.clip(segment, 0, len(self._slopes) - 1)]
        return values

    def voltage(self, index: Indices, current_a: Floats) -> Floats:
        """Terminal voltage under ``current_a``, V."""
        values: Floats = self.ocv(index) + self.v1_v[index] + current_a * self.r0(index)
        return values

    def _warmth(self, index: Indices) -> Floats:
        kelvin = self.temperature_c[index] + KELVIN
        values: Floats = np.exp(ACTIVATION_K * (1.0 / kelvin - 1.0 / (REFERENCE_C + KELVIN)))
        return values

    # ---- how they change ----

    def advance(self, index: Indices, current_a: Floats, dt_s: Floats) -> None:
        """Let constant currents flow. ``index`` names each cell at most once; all arrays have its length."""
        decay = np.exp(-dt_s / self.tau_s[index])
        warmth = self._warmth(index)
        r0, r1 = self.r0_mohm[index] / 1000.0 * warmth, self.r1_mohm[index] / 1000.0 * warmth
        v1 = self.v1_v[index]
        heat_w = current_a**2 * r0 + v1**2 / r1
        self.soc[index] += current_a * dt_s / 3600.0 / self.capacity_ah[index]
        self.v1_v[index] = v1 * decay + current_a * r1 * (1.0 - decay)
        settled_c = self.settings.ambient_c + heat_w / self._cooling_w_per_k
        cooling = np.exp(-dt_s * self._cooling_w_per_k / self._heat_j_per_k)
        self.temperature_c[index] = settled_c + (self.temperature_c[index] - settled_c) * cooling

    def current_for(self, index: Indices, voltage_v: Floats, dt_s: Floats, max_a: Floats) -> Floats:
        """The constant current after which, at the end of ``dt_s``, the terminals have ``voltage_v``; or ``max_a``.

        Newton's method from ``max_a`` on; towards the end of a charge the curve is convex, so that it converges.
        """
        decay = np.exp(-dt_s / self.tau_s[index])
        warmth = self._warmth(index)
        r0, r1 = self.r0_mohm[index] / 1000.0 * warmth, self.r1_mohm[index] / 1000.0 * warmth
        ohms = r0 + r1 * (1.0 - decay)
        soc, soc_per_a = self.soc[index], dt_s / 3600.0 / self.capacity_ah[index]
        missing = voltage_v - self.v1_v[index] * decay
        amps: Floats = np.asarray(max_a, float)
        for _ in range(NEWTON_STEPS):
            end_soc = soc + amps * soc_per_a
            excess = self._curve_at(end_soc) + amps * ohms - missing
            amps = np.clip(amps - excess / (ohms + soc_per_a * self._slope_at(end_soc)), 0.0, max_a)
        return amps

    def record(self, record: Record, t_s: float = 0.0) -> None:
        """Write the true values of all cells into the plant's record."""
        for cell in range(len(self)):
            record({"event": "cell", "t_s": t_s, **rounded(self.truth(cell))})


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` as the plant's record takes them: no number has more than seven places."""
    return {key: round(value, 7) if isinstance(value, float) else value for key, value in values.items()}

"""What a good pack is: the objective J, its scales, and caps that a pack must keep to."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import suggest
from battery_sorting.grading.scaling import constant, deviation, told_apart
from battery_sorting.grading.table import INDICATORS, OVERLOAD, UNITS, Floats

WEIGHTS = (0.3176, 0.4548, 0.2276)
"""λ of capacity, resistance and OCV: the AHP weights of Liu et al., Sustainability 15 (2023) 15523, Table 6."""
MAD_TO_DEVIATION = 1.4826
"""Median absolute deviation of a normal distribution × this = its standard deviation."""
_LEAST_WEIGHT = 1e-9
"""A feature of weight 0 keeps this one, so that its cap can still be checked in weighted units."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A range of one feature: absolute in the unit of the cell table, or a share (0..1) of the feature's median."""

    value: float
    relative: bool = False

    def absolute(self, median: float) -> float:
        """In the unit of the cell table."""
        return self.value * abs(median) if self.relative else self.value


@dataclass(frozen=True)
class Tolerances:
    """Ranges of features; None where there is none. They serve as caps of a pack and as scales of the objective."""

    capacity: Amount | None = None
    resistance: Amount | None = None
    ocv: Amount | None = None

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Tolerances:
        """Of texts like ``capacity=2%``, ``resistance=0.3mohm`` and ``ocv=10mV``, each one or several.

        Raises:
            ConfigurationError: With every fault found.
        """
        found: dict[str, Amount] = {}
        problems: list[str] = []
        for text in (part for whole in texts for part in re.split(r"[,\s]+", whole) if part):
            name, _, value = text.partition("=")
            name = name.strip().lower()
            try:
                if name not in INDICATORS:
                    raise ValueError(suggest(name, list(INDICATORS)))
                if name in found:
                    raise ValueError(f"{name} is given twice")
                found[name] = _amount(name, value)
            except ValueError as error:
                problems.append(f"'{text}': {error}")
        if problems:
            raise ConfigurationError("tolerance", problems)
        return cls(**found)

    def absolute(self, median: Floats) -> Floats:
        """(3,) in the units of the cell table, NaN where there is none."""
        amounts = [getattr(self, name) for name in INDICATORS]
        return np.array(
            [math.nan if a is None else a.absolute(m) for a, m in zip(amounts, median.tolist(), strict=True)]
        )


def _amount(name: str, text: str) -> Amount:
    form = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*(%|[a-zµμΩω]+)\s*", text, re.IGNORECASE)
    units = UNITS[name]
    if not form:
        raise ValueError(f"write {name}=2% or with a unit ({', '.join(units)})")
    try:
        value = float(form[1])
    except ValueError:
        raise ValueError(f"'{form[1]}' is not a number") from None
    if not 0 < value < math.inf:
        raise ValueError("must be above 0")
    unit = form[2].lower().replace("ω", "ohm").replace("µ", "u").replace("μ", "u")
    if unit == "%":
        return Amount(value / 100, relative=True)
    if unit not in units:
        raise ValueError(f"the unit of {name} is one of %, {', '.join(units)}")
    return Amount(value * units[unit])


@dataclass(frozen=True)
class Objective:
    """J = mean over packs of Σ_r λ_r · range_r / scale_r.

    ``range_r`` is the largest minus the smallest value of feature r (capacity, resistance, OCV) among the cells of
    a pack. Less is better; 0 is a pack of identical cells.

    Attributes:
        scale: (3,) positive, in the units of the cell table.
        weights: (3,) λ, of sum 1.
        caps: (3,) largest range of a pack that is built, inf where anything goes.
    """

    scale: Floats
    weights: Floats
    caps: Floats

    @classmethod
    def of(
        cls,
        rows: Floats,
        weights: Sequence[float] = WEIGHTS,
        scale: Tolerances | None = None,
        caps: Tolerances | None = None,
    ) -> Objective:
        """The objective for cells ``rows`` (n, 3), n ≥ 1, finite.

        Where ``scale`` names none, a feature's scale is 1.4826 · MAD over all rows; where more than half of them
        are alike, the standard deviation; where all are, 1, as their range is 0. It is no less than what
        measurements tell apart (`scaling.TOLD_APART`), as packs are not to be chosen by noise. Percentages are of
        the median.

        Raises:
            ConfigurationError: The weights are negative, not finite or all 0.
        """
        shares = np.asarray(weights, float)
        if (
            shares.shape != (len(INDICATORS),)
            or not np.isfinite(shares).all()
            or (shares < 0).any()
            or not shares.any()
        ):
            raise ConfigurationError(
                "weights", ["give three numbers of at least 0, not all 0: capacity,resistance,ocv"]
            )
        median = np.median(rows, axis=0)
        scales = _robust_scale(rows, median)
        if scale is not None:
            given = scale.absolute(median)
            scales = np.where(given > 0, given, scales)
        limits = np.full(len(INDICATORS), np.inf) if caps is None else caps.absolute(median)
        return cls(scales, shares / shares.sum(), np.where(np.isnan(limits), np.inf, limits))

    @property
    def factors(self) -> Floats:
        """(3,) what values are multiplied with, so that a pack's cost is the plain sum of its ranges."""
        return np.maximum(self.weights, _LEAST_WEIGHT) / self.scale

    def points(self, rows: Floats) -> Floats:
        """Rows (n, 3) in weighted units."""
        return np.ascontiguousarray(rows * self.factors)

    def weighted_caps(self) -> Floats:
        """(3,) caps in weighted units, a hair wider than asked, so that rounding refuses no pack on its cap."""
        return self.caps * self.factors * (1 + 1e-9)

    def costs(self, rows: Floats, members: np.ndarray) -> Floats:
        """(packs,) cost of packs given as row numbers (packs, cells)."""
        ranges = np.where(self.weights > 0, self.ranges(rows, members), 0.0)  # what has no say may be missing
        return np.asarray(ranges @ (self.weights / self.scale))

    def ranges(self, rows: Floats, members: np.ndarray) -> Floats:
        """(packs, 3) ranges in the units of the cell table."""
        if not len(members):
            return np.zeros((0, len(INDICATORS)))
        return pack_ranges(rows, members)


def heard(weights: Sequence[float], caps: Tolerances | None) -> tuple[str, ...]:
    """The indicators that have a say: those with a weight, and those with a cap."""
    shares = [float(weight) for weight in weights] if len(tuple(weights)) == len(INDICATORS) else [1.0] * 3
    return tuple(
        name
        for name, share in zip(INDICATORS, shares, strict=True)
        if share != 0 or (caps is not None and getattr(caps, name) is not None)
    )


def quiet(rows: Floats, names: Sequence[str]) -> Floats:
    """Rows (n, 3) with 1 for a quantity that is not among ``names`` and not usable in every row: it has no say."""
    usable = np.isfinite(rows) & (rows > 0) & (rows < OVERLOAD)
    return np.where(np.isin(INDICATORS, names) | usable.all(axis=0), rows, 1.0)


def pack_ranges(rows: Floats, members: np.ndarray) -> Floats:
    """(packs, d) ranges of rows (n, d) within packs given as row numbers (packs, cells)."""
    columns = [np.ptp(rows[:, feature][members], axis=1) for feature in range(rows.shape[1])]
    return np.stack(columns, axis=1)


def _robust_scale(rows: Floats, median: Floats) -> Floats:
    robust = MAD_TO_DEVIATION * np.median(np.abs(rows - median), axis=0)
    scale = np.where(robust > 1e-9 * np.ptp(rows, axis=0), robust, np.maximum(deviation(rows), 1e-300))
    least = told_apart(rows)
    if least is not None:
        scale = np.maximum(scale, least)
    return np.where(constant(rows), 1.0, scale)

"""Grey relational analysis: how near a cell is to the ideal one, from 0 to 1.

Source: equations 9 to 12 of Liu et al., Sustainability 15 (2023) 15523. `RelationalNorm.of_batch` is the method as
published, with the sign of equation 9 mended; `RelationalNorm.of_spec` judges each cell by its specification alone.
docs/explanation/grading.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BELOW, BOTH, ABOVE = -1, 0, 1
"""On which side of the ideal a distance counts: too little capacity, any voltage off, too much resistance."""
SIDES = (BELOW, ABOVE, BOTH)
"""Of capacity, resistance and open-circuit voltage in `RelationalNorm.of_spec`."""


@dataclass(frozen=True)
class RelationalNorm:
    """Turns values into relational coefficients ξ = (least + reach) / (Δ + reach) with Δ = |x − ideal| / scale.

    Attributes:
        ideal: (r,) the reference F*.
        scale: (r,) differences that make Δ = 1.
        sides: (r,) on which side of the ideal a distance counts.
        least: The least Δ of a batch; 0 for a specification.
        reach: ρ, or ρ times the largest Δ of a batch. NaN: the batch has nothing to compare.
    """

    ideal: Floats
    scale: Floats
    sides: tuple[int, ...]
    least: float
    reach: float

    @classmethod
    def of_spec(
        cls, ideal: npt.ArrayLike, worst: npt.ArrayLike, rho: float = 0.5, sides: tuple[int, ...] = SIDES
    ) -> RelationalNorm:
        """ξ = ρ / (Δ + ρ) with Δ = |x − F*| / |W − F*|: 1 at the ideal, ρ/(1 + ρ) at the worst, 0 far from both.

        Args:
            ideal: (r,) values F* of the ideal cell.
            worst: (r,) values W, none of them that of ``ideal``.
            rho: Distinguishing coefficient, above 0.
            sides: (r,) on which side of the ideal a distance counts.
        """
        reference = np.asarray(ideal, float)
        return cls(reference, np.abs(np.asarray(worst, float) - reference), sides, 0.0, rho)

    @classmethod
    def of_batch(cls, values: npt.ArrayLike, ideal: npt.ArrayLike, rho: float = 0.5) -> RelationalNorm:
        """As printed: scaled by the least and largest value of the batch (equations 9 and 10), ξ by equation 11.

        Equation 9 is taken as (j − j_min) / (j_max − j_min), as equation 10 and the text want it. Since both
        equations are linear, |h* − h| is |F* − j| / (j_max − j_min) for all indicators. A column without spread is
        scaled by its distance from the ideal.

        Args:
            values: (m, r) finite values of the batch.
            ideal: (r,) values F* of the ideal cell.
            rho: Distinguishing coefficient, above 0.
        """
        batch, reference = np.asarray(values, float), np.asarray(ideal, float)
        sides = (BOTH,) * len(reference)
        if len(batch) == 0:
            return cls(reference, np.ones_like(reference), sides, 0.0, np.nan)
        span = np.ptp(batch, axis=0)
        constant = span <= 1e-12 * np.maximum(np.abs(batch).max(axis=0), np.abs(reference))
        away = np.abs(batch[0] - reference)
        scale = np.where(constant, np.where(away > 0, away, 1.0), span)
        distance = np.abs(batch - reference) / scale
        comparable = not constant.all()
        return cls(
            reference, scale, sides, float(distance.min()), rho * float(distance.max()) if comparable else np.nan
        )

    def coefficients(self, values: npt.ArrayLike) -> Floats:
        """ξ (m, r) of values (m, r); NaN where a value is, or where the batch has nothing to compare.

        Each is 0..1, but above 1 for a cell that is nearer to the ideal than all of the batch.
        """
        table = np.asarray(values, float)
        return np.stack([self.coefficient(column, table[:, column]) for column in range(len(self.ideal))], axis=1)

    def coefficient(self, indicator: int, values: Floats) -> Floats:
        """ξ of one indicator, of any shape."""
        off, side = values - self.ideal[indicator], self.sides[indicator]
        distance = (np.abs(off) if side == BOTH else np.maximum(0, side * off)) / self.scale[indicator]
        return np.asarray((self.least + self.reach) / (distance + self.reach))

    def farthest(self, coefficient: Floats) -> Floats:
        """The largest Δ that still has ξ ≥ ``coefficient``, of any shape; ∞ where any has, negative where none."""
        with np.errstate(divide="ignore"):
            return np.asarray((self.least + self.reach) / np.maximum(coefficient, 0.0) - self.reach)

    def interval(self, indicator: int, distance: Floats) -> tuple[Floats, Floats]:
        """Lowest and highest value of an indicator with Δ ≤ ``distance``; where that is negative: an empty one."""
        away = distance * self.scale[indicator]
        side = self.sides[indicator]
        none = distance < 0
        low = np.full_like(away, -np.inf) if side == ABOVE else self.ideal[indicator] - away
        high = np.full_like(away, np.inf) if side == BELOW else self.ideal[indicator] + away
        return np.where(none, np.inf, low), np.where(none, np.inf, high)


def relation_degree(coefficients: npt.ArrayLike, weights: npt.ArrayLike) -> Floats:
    """R (m,) of coefficients (m, r) and weights (r,), equation 12."""
    return np.asarray(np.asarray(coefficients, float) @ np.asarray(weights, float))

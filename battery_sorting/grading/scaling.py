"""What a difference of one means in each feature: by the cells' spread, or as a specification says. numpy alone.

By its spread alone every feature weighs the same, so that two lots which differ in capacity and in nothing else are
hidden by a milliohm of noise. So a specification's units are used where there is one, and where there is none a
difference counts by how well measurements of cells can tell it from none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NORMAL_IQR = 1.3489795
"""Interquartile range of a normal distribution with standard deviation 1."""
TOLD_APART = np.array([0.01, 0.05, 0.001])
"""What can be told apart of capacity, resistance and open-circuit voltage, as shares of the cells' median.

Two measurements of one cell differ by so much, contacts, temperature and the rest after charging included: 1 % of
the capacity, 5 % of the resistance (1 mΩ of 20 mΩ), 0.1 % of the voltage (4 mV of 3.7 V)."""


@dataclass(frozen=True, slots=True)
class RobustScale:
    """Centre and unit of each feature.

    Attributes:
        centre: (d,).
        width: (d,), positive.
        constant: (d,) bool, features without a say: the same for all cells, or of weight 0.
    """

    centre: np.ndarray
    width: np.ndarray
    constant: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> RobustScale:
        """By the spread of rows (n, d), n ≥ 1, finite: a few outlying cells don't set the scale.

        The interquartile range is divided by 1.349, so that a normal feature comes out with standard deviation 1.
        Where more than half of the values are the same the range is zero, and the standard deviation takes its
        place. A constant feature becomes 0 and has no say.
        """
        centre, width = _spread(rows)
        alike = constant(rows)
        return cls(centre, np.where(alike, 1.0, width), alike)

    @classmethod
    def by_units(cls, rows: np.ndarray, units: np.ndarray) -> RobustScale:
        """Differences of rows (n, d) in ``units`` (d,), those of a specification; infinite: a feature has no say.

        All widths are then multiplied by one number, so that the widest feature has about standard deviation 1:
        that changes no ratio of distances.
        """
        silent = ~np.isfinite(units)
        used = np.where(silent, 0.0, rows)
        centre, width = _spread(used)
        alike = silent | constant(used)
        units = np.where(alike, 1.0, units)
        common = float(np.max(np.where(alike, 0.0, width / units), initial=0.0))
        return cls(centre, np.where(alike, 1.0, units * (common if common > 0 else 1.0)), alike)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n, d) in units of the widths, (n, d)."""
        return np.asarray(np.where(self.constant, 0.0, (rows - self.centre) / self.width))


def told_apart(rows: np.ndarray) -> np.ndarray | None:
    """(3,) `TOLD_APART` in units of rows (n, 3) of capacity, resistance, voltage; None where it makes no sense."""
    if rows.shape[1] != len(TOLD_APART):
        return None
    least = TOLD_APART * np.abs(np.median(rows, axis=0))
    return least if (least > 0).all() else None


def _spread(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, centre, high = np.percentile(rows, [25, 50, 75], axis=0)
    width = (high - low) / NORMAL_IQR
    return centre, np.where(width > 1e-9 * np.ptp(rows, axis=0), width, deviation(rows))


def deviation(rows: np.ndarray) -> np.ndarray:
    """Standard deviation (d,) of rows (n, d), also of values whose squares are beyond float64."""
    largest = _largest(rows)
    return np.asarray((rows / largest).std(axis=0) * largest)


def constant(rows: np.ndarray) -> np.ndarray:
    """(d,) bool, features of rows (n, d) that are the same for all: differences in the last digits are none."""
    return np.asarray(np.ptp(rows, axis=0) <= 1e-12 * _largest(rows))


def _largest(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(np.abs(rows).max(axis=0), np.finfo(float).tiny))

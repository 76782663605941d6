"""Scales features so that a few outlying cells don't set the scale. numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NORMAL_IQR = 1.3489795
"""Interquartile range of a normal distribution with standard deviation 1."""


@dataclass(frozen=True, slots=True)
class RobustScale:
    """Median and interquartile range of each feature.

    The range is divided by 1.349, so that a normal feature comes out with standard deviation 1. Where more than
    half of the values are the same the range is zero, and the standard deviation takes its place; a constant
    feature becomes 0 and has no say.

    Attributes:
        centre: (d,).
        width: (d,), positive.
        constant: (d,) bool, features that are the same for all cells.
    """

    centre: np.ndarray
    width: np.ndarray
    constant: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> RobustScale:
        """The scale of rows (n, d), n ≥ 1, finite."""
        low, centre, high = np.percentile(rows, [25, 50, 75], axis=0)
        width = (high - low) / NORMAL_IQR
        width = np.where(width > 1e-9 * np.ptp(rows, axis=0), width, deviation(rows))
        alike = constant(rows)
        return cls(centre, np.where(alike, 1.0, width), alike)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows (n, d) in units of the widths, (n, d)."""
        return np.asarray(np.where(self.constant, 0.0, (rows - self.centre) / self.width))


def deviation(rows: np.ndarray) -> np.ndarray:
    """Standard deviation (d,) of rows (n, d), also of values whose squares are beyond float64."""
    largest = _largest(rows)
    return np.asarray((rows / largest).std(axis=0) * largest)


def constant(rows: np.ndarray) -> np.ndarray:
    """(d,) bool, features of rows (n, d) that are the same for all: differences in the last digits are none."""
    return np.asarray(np.ptp(rows, axis=0) <= 1e-12 * _largest(rows))


def _largest(rows: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(np.abs(rows).max(axis=0), np.finfo(float).tiny))

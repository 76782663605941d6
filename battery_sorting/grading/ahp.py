"""Analytic hierarchy process: weights from comparisons in pairs, refused where these contradict each other.

Source: T. L. Saaty, The Analytic Hierarchy Process (1980); equations 5 to 8 of Liu et al., Sustainability 15 (2023)
15523, whose figures come out to four digits (CI and CR are truncated there). A hierarchy of more levels is
`synthesise` applied from the bottom up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from battery_sorting.core.errors import BatterySortingError

Floats = npt.NDArray[np.float64]

RANDOM_INDEX = {1: 0.0, 2: 0.0, 3: 0.58, 4: 0.90, 5: 1.12, 6: 1.24, 7: 1.32, 8: 1.41, 9: 1.45, 10: 1.49}
"""Mean consistency index of random comparisons of n things, after Saaty (1980). Two can't contradict each other."""
MAX_RATIO = 0.1
"""Comparisons with a consistency ratio above this are refused."""
_RECIPROCAL_TOLERANCE = 0.02
"""0.33 is taken for 1/3."""


class ComparisonError(BatterySortingError, ValueError):
    """Comparisons are no reciprocal matrix of positive numbers, or contradict each other."""

    code = "comparison"


@dataclass(frozen=True)
class Priorities:
    """What follows from one matrix of comparisons.

    Attributes:
        weights: (n,) of sum 1: the principal eigenvector.
        largest_eigenvalue: λ_max, n where nothing contradicts anything.
        consistency_index: (λ_max − n) / (n − 1), equation 8.
        consistency_ratio: The index by that of random comparisons.
    """

    weights: Floats
    largest_eigenvalue: float
    consistency_index: float
    consistency_ratio: float


def priorities(comparisons: npt.ArrayLike, names: Sequence[str] | None = None) -> Priorities:
    """Weights of n things that were compared in pairs.

    Args:
        comparisons: (n, n), n up to 10. Row i, column j: how much more important i is than j, on Saaty's scale of
            1/9 to 9; the reciprocal stands at (j, i).
        names: What the things are called in errors.

    Raises:
        ComparisonError: This is no such matrix, or its consistency ratio is above `MAX_RATIO`; names the comparison
            that contradicts the others most, and what they say about it.
    """
    matrix = np.asarray(comparisons, dtype=float)
    size = len(matrix) if matrix.ndim == 2 else 0
    labels = list(names) if names is not None else [f"{number}" for number in range(1, size + 1)]
    matrix = _reciprocal(matrix, labels)
    found = _evaluate(matrix)
    if found.consistency_ratio > MAX_RATIO:
        raise ComparisonError(_contradiction(matrix, labels, found.consistency_ratio))
    return found


def synthesise(criteria: Priorities, indicators: Sequence[Priorities]) -> Floats:
    """Weights (n,) of the indicators: those under each criterion, weighted by the criteria, after Table 6.

    Args:
        criteria: Of m criteria.
        indicators: For each of them in turn that of the same n indicators.
    """
    return np.asarray(criteria.weights @ np.array([each.weights for each in indicators]))


def _reciprocal(matrix: Floats, names: Sequence[str]) -> Floats:
    """The matrix with exact reciprocals, or an error that says where it isn't one."""
    size = len(names)
    if matrix.ndim != 2 or matrix.shape != (size, size) or not size:
        raise ComparisonError(f"comparisons of {size or 'n'} things must have as many rows as columns")
    if size > max(RANDOM_INDEX):
        raise ComparisonError(
            f"{size} things are too many to be compared in pairs: group them under criteria of at most "
            f"{max(RANDOM_INDEX)}"
        )
    if not np.all(np.isfinite(matrix) & (matrix > 0)):
        raise ComparisonError("comparisons must be positive numbers: 3, or 1/3 for the other way round")
    for row in range(size):
        if abs(matrix[row, row] - 1) > 1e-9:
            raise ComparisonError(f"'{names[row]}' compared with itself must be 1, not {matrix[row, row]:g}")
        for column in range(row + 1, size):
            here, there = matrix[row, column], matrix[column, row]
            if abs(here * there - 1) > _RECIPROCAL_TOLERANCE:
                raise ComparisonError(
                    f"'{names[row]}' against '{names[column]}' is {_ratio(here)}, so the other way round must be "
                    f"{_ratio(1 / here)}, not {_ratio(there)}"
                )
    return np.where(matrix >= 1, matrix, 1 / matrix.T)  # of 3 and 0.33 it is the 3 that was meant


def _evaluate(matrix: Floats) -> Priorities:
    size = len(matrix)
    values, vectors = np.linalg.eig(matrix)
    principal = int(np.argmax(values.real))
    vector = np.abs(vectors[:, principal].real)
    largest = max(float(values[principal].real), float(size))  # never below n but by rounding
    index = (largest - size) / (size - 1) if size > 1 else 0.0
    random = RANDOM_INDEX[size]
    return Priorities(vector / vector.sum(), largest, index, index / random if random else 0.0)


def _contradiction(matrix: Floats, names: Sequence[str], ratio: float) -> str:
    """The comparison without which the others agree best, and the value that they imply for it."""
    best = (ratio, 0, 1, matrix[0, 1])
    for row in range(len(matrix)):
        for column in range(row + 1, len(matrix)):
            implied = _implied(matrix, row, column)
            changed = matrix.copy()
            changed[row, column], changed[column, row] = implied, 1 / implied
            best = min(best, (round(_evaluate(changed).consistency_ratio, 9), row, column, implied))
    left, row, column, implied = best
    return (
        f"the comparisons contradict each other: consistency ratio {ratio:.3f}, at most {MAX_RATIO:g} is allowed. "
        f"'{names[row]}' against '{names[column]}' (row {row + 1}, column {column + 1}) is "
        f"{_ratio(matrix[row, column])}, the others say about {_ratio(implied)}, which would give {left:.3f}"
    )


def _implied(matrix: Floats, row: int, column: int) -> float:
    """What the other comparisons say of one, by leaving it out (Harker, Mathematical Modelling 9 (1987) 353)."""
    without = matrix.copy()
    without[row, column] = without[column, row] = 0
    without[row, row] = without[column, column] = 2
    values, vectors = np.linalg.eig(without)
    vector = np.abs(vectors[:, int(np.argmax(values.real))].real)
    return float(vector[row] / vector[column])


def _ratio(value: float) -> str:
    return f"{value:.3g}" if value >= 1 else f"1/{1 / value:.3g}"

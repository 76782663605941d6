"""Probability that a cell has at least a grade, if the errors of its measurement are normal and independent.

The relation degree is a sum of one coefficient per indicator. For given values of all but one indicator, "at least
this grade" is an interval of the last, whose probability is exact; the others are integrated over by Gauss-Legendre
quadrature. Nothing is drawn at random. The coefficient of a one-sided indicator is flat on the good side of the
ideal; that side is taken as a case of its own, since the probability would jump at its edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations

import numpy as np
import numpy.typing as npt

from battery_sorting.grading.relational import ABOVE, BELOW, BOTH, RelationalNorm

Floats = npt.NDArray[np.float64]

REACH = 5.0
"""Standard uncertainties on either side that are integrated over; 6e-7 lies beyond."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_CHUNK = 512


@dataclass(frozen=True)
class Question:
    """What is asked: does ``norm`` with ``weights`` reach ``limits``, and do the values pass the gates?

    Attributes:
        norm: Of r indicators.
        weights: (r,) how much each counts.
        limits: (k,) relation degrees that are to be reached.
        gates: Lowest and highest values (r,) that pass.
    """

    norm: RelationalNorm
    weights: Floats
    limits: Floats
    gates: tuple[Floats, Floats]

    def probabilities(self, values: Floats, spread: Floats) -> Floats:
        """(n, k) for measured values and standard uncertainties, both (n, r)."""
        result = np.zeros((len(values), len(self.limits)))
        for axes, rows in _groups(spread > 0):
            certain = [axis for axis in range(values.shape[1]) if axis not in axes]
            known = np.zeros(len(rows))
            passing = np.ones(len(rows), bool)
            for axis in certain:
                measured = values[rows, axis]
                known += self._contribution(axis, measured)
                passing &= (measured >= self.gates[0][axis]) & (measured <= self.gates[1][axis])
            rows, known = rows[passing], known[passing]
            one_sided = [axis for axis in axes if self.norm.sides[axis] != BOTH]
            for flat in chain.from_iterable(combinations(one_sided, size) for size in range(len(one_sided) + 1)):
                steep = [axis for axis in axes if axis not in flat]
                result[rows] += self._case(values[rows], spread[rows], known, flat, steep)
        return np.clip(result, 0, 1)

    def _case(
        self, values: Floats, spread: Floats, known: Floats, flat: Sequence[int], steep: Sequence[int]
    ) -> Floats:
        """(n, k) of the case that the ``flat`` indicators are on the good side of the ideal, ``steep`` ones not."""
        mass = np.ones(len(values))
        for axis in flat:
            low, high = self._good_side(axis)
            mass *= _mass(low, high, values[:, axis], spread[:, axis])
            known = known + self.weights[axis]
        if not steep:
            return np.asarray(mass[:, None] * (np.round(known[:, None], 9) >= self.limits))
        result = np.zeros((len(values), len(self.limits)))
        likely = np.flatnonzero(mass > 0)
        last = self._steepest(values[likely], spread[likely], steep)
        for axis in steep:
            others = [other for other in steep if other != axis]
            rows = likely[last == axis]
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                part = self._integral(values[chunk], spread[chunk], known[chunk], axis, others)
                result[chunk] = mass[chunk, None] * part
        return result

    def _integral(self, values: Floats, spread: Floats, known: Floats, last: int, others: Sequence[int]) -> Floats:
        """(n, k): exact in ``last``, by quadrature in ``others``."""
        total, weight = known[:, None], np.ones((len(values), 1))
        for axis in others:
            nodes, node_weights = self._quadrature(values[:, axis], spread[:, axis], axis)
            total = (total[:, :, None] + self._contribution(axis, nodes)[:, None, :]).reshape(len(values), -1)
            weight = (weight[:, :, None] * node_weights[:, None, :]).reshape(len(values), -1)
        mean, sigma = values[:, last, None], spread[:, last, None]
        bottom, top = self._bad_side(last)
        columns = []
        for limit in self.limits:
            low, high = self._needed(last, limit - total)
            chance = _mass(np.maximum(low, bottom), np.minimum(high, top), mean, sigma)
            columns.append((weight * chance).sum(axis=1))
        return np.column_stack(columns)

    def _needed(self, axis: int, missing: Floats) -> tuple[Floats, Floats]:
        """Interval of an indicator in which it contributes ``missing`` or more."""
        weight = self.weights[axis]
        wanted = missing / weight if weight > 0 else np.where(missing > 0, np.inf, 0.0)
        return self.norm.interval(axis, self.norm.farthest(wanted))

    def _steepest(self, values: Floats, spread: Floats, axes: Sequence[int]) -> npt.NDArray[np.intp]:
        """(n,) the one of ``axes`` whose uncertainty moves the relation degree most."""
        moves = []
        for axis in axes:
            middle, away = values[:, axis], spread[:, axis]
            around = np.stack([self._contribution(axis, middle + step * away) for step in (-1, 0, 1)])
            moves.append(np.ptp(around, axis=0))
        return np.asarray(np.asarray(axes)[np.argmax(moves, axis=0)])

    def _quadrature(self, mean: Floats, sigma: Floats, axis: int) -> tuple[Floats, Floats]:
        """Nodes and weights (n, 24) on the bad side of the ideal, within the gates; two panels."""
        low, high = (np.clip((edge - mean) / sigma, -REACH, REACH) for edge in self._bad_side(axis))
        high = np.maximum(low, high)
        kink = (self.norm.ideal[axis] - mean) / sigma
        middle = np.where((kink > low) & (kink < high), kink, np.clip(0.0, low, high))
        nodes, weights = [], []
        for start, end in ((low, middle), (middle, high)):
            half = (end - start)[:, None] / 2
            place = (start + end)[:, None] / 2 + half * _NODES
            nodes.append(mean[:, None] + sigma[:, None] * place)
            weights.append(half * _WEIGHTS * np.exp(-(place**2) / 2) / np.sqrt(2 * np.pi))
        return np.concatenate(nodes, axis=1), np.concatenate(weights, axis=1)

    def _contribution(self, axis: int, values: Floats) -> Floats:
        """λ ξ of one indicator, of any shape."""
        return np.asarray(self.weights[axis] * self.norm.coefficient(axis, values))

    def _good_side(self, axis: int) -> tuple[float, float]:
        low, high, ideal = self.gates[0][axis], self.gates[1][axis], self.norm.ideal[axis]
        return (max(low, ideal), high) if self.norm.sides[axis] == BELOW else (low, min(high, ideal))

    def _bad_side(self, axis: int) -> tuple[float, float]:
        low, high, ideal = self.gates[0][axis], self.gates[1][axis], self.norm.ideal[axis]
        side = self.norm.sides[axis]
        return (max(low, ideal) if side == ABOVE else low, min(high, ideal) if side == BELOW else high)


def _groups(uncertain: npt.NDArray[np.bool_]) -> Iterator[tuple[list[int], npt.NDArray[np.intp]]]:
    """Rows that are uncertain in the same indicators, with those indicators."""
    codes = uncertain @ (1 << np.arange(uncertain.shape[1]))
    for code in np.unique(codes):
        yield [axis for axis in range(uncertain.shape[1]) if code >> axis & 1], np.flatnonzero(codes == code)


def _mass(low: Floats | float, high: Floats | float, mean: Floats, sigma: Floats) -> Floats:
    """Probability of an interval, 0 if it is empty."""
    from scipy.special import ndtr

    return np.asarray(np.maximum(ndtr((high - mean) / sigma) - ndtr((low - mean) / sigma), 0))

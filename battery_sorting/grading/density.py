"""DBSCAN (Ester et al. 1996) for cells: its parameters by a rule, and batches that don't fit into memory in pieces.

Scaled rows throughout, see `scaling`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from sklearn.cluster import DBSCAN

from battery_sorting.grading.validity import NOISE, Distances, spread_out

MIN_PTS = (3, 4, 6, 8, 12)
"""Values of MinPts that are tried: 2·d = 6 is the rule of thumb for three features (Sander et al. 1998)."""
EPS_SHARES = np.linspace(0.3, 0.98, 12)
"""Eps is tried so that about these shares of the cells are core cells."""
SEARCH_CELLS = 600
"""Parameters are searched on so many cells of a batch; the groups are then found in all of them."""
EXACT_CELLS = 20_000
"""More cells are merged into bins before DBSCAN."""
BINS_PER_EPS = 4
"""Bins have the side Eps / this: a distance is off by at most √3 / 4 · Eps, by a tenth of Eps on average."""
MOST_KINDS = 32
"""So many kinds of identical cells can be groups of their own, where the number of groups is to be found."""
KINDS_COVER = 0.8
"""They are looked at if so large a share of the cells has twins: coarse readings, as chargers show them."""


@dataclass(frozen=True, slots=True)
class Merged:
    """Rows that stand for several cells each.

    Attributes:
        rows: (m, d), mean of the cells merged.
        weights: (m,), how many there are.
        inverse: (n,), row of each cell.
    """

    rows: np.ndarray
    weights: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, side: float) -> Merged:
        """Merges rows (n, d) that share a bin with sides ``side``; the bins come sorted."""
        bins = np.floor(rows / side).astype(np.int64)
        bins -= bins.min(axis=0)
        key = np.zeros(len(rows), np.int64)
        for column, count in zip(bins.T, bins.max(axis=0) + 1, strict=True):
            key = key * count + column
        _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
        means = [np.bincount(inverse, column, len(counts)) / counts for column in rows.T]
        return cls(np.stack(means, axis=1), counts.astype(float), inverse)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Eps, in units of the scaled features, and MinPts, a cell itself included."""

    eps: float
    min_pts: int

    def for_batch(self, searched: int, cells: int) -> Parameters:
        """The same density in a batch of ``cells``, of which ``searched`` were looked at."""
        return Parameters(self.eps, max(self.min_pts, round(self.min_pts * cells / searched)))


Density = tuple[Parameters, np.ndarray]
"""A DBSCAN and its labels (n,)."""


def trials(rows: np.ndarray) -> Iterator[Parameters]:
    """Eps and MinPts worth a try for rows (n, d).

    A cell is a core cell if its MinPts-th neighbour, itself included, is no farther than Eps. So for each of
    `MIN_PTS` Eps goes over the quantiles of that distance, which is the sorted k-distance plot taken at even steps
    rather than at its knee. Where that distance is 0, since cells have twins, Eps is half the least distance
    between cells that differ: twins are then neighbours of each other and of nothing else.
    """
    counts = [count for count in MIN_PTS if count <= max(3, len(rows) // 3)]
    counts = [count for count in counts if count <= len(rows)]
    if not counts:
        return
    distances, _ = cKDTree(rows).query(rows, k=list(counts))
    for place, count in enumerate(counts):
        for eps in np.unique(np.quantile(distances[:, place], EPS_SHARES)):
            used = float(eps) or _least_distance(rows) / 2
            if used > 0:
                yield Parameters(used, count)


def _least_distance(rows: np.ndarray) -> float:
    """Between rows (n, d) that differ; 0 where all are the same."""
    different = np.unique(rows, axis=0)
    if len(different) < 2:
        return 0.0
    distances, _ = cKDTree(different).query(different, k=2)
    return float(distances[:, 1].min())


def kinds(rows: np.ndarray, least: int) -> np.ndarray | None:
    """Labels (n,) by kinds of identical rows (n, d) with at least ``least`` cells each, `NOISE` for other cells.

    None where there are fewer than two kinds, more than `MOST_KINDS`, or too few cells are of one (`KINDS_COVER`).
    """
    _, inverse, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    large = counts >= max(2, least)
    if not 2 <= large.sum() <= MOST_KINDS or counts[large].sum() < KINDS_COVER * len(rows):
        return None
    numbers = np.where(large, np.cumsum(large) - 1, NOISE)
    return np.asarray(numbers[inverse])


def densities(rows: np.ndarray, eps: float | None = None, min_pts: int | None = None) -> Iterator[Density]:
    """Clusterings of rows (n, d) that differ from each other; ``eps`` and ``min_pts`` where they are given."""
    if eps is not None and min_pts is not None:
        parameters = [Parameters(eps, min_pts)]
    else:
        parameters = [Parameters(eps or trial.eps, min_pts or trial.min_pts) for trial in trials(rows)]
    seen = set()
    for chosen in dict.fromkeys(parameters):
        labels = dbscan(rows, chosen)
        if labels.tobytes() not in seen:
            seen.add(labels.tobytes())
            yield chosen, labels


def by_rule(found: Iterable[Density], distances: Distances, counts: Collection[int]) -> list[Density]:
    """The rule for Eps and MinPts: the largest silhouette index first, with every noise cell counted as 0.

    Of clusterings with a number of clusters that is among ``counts``; of equals the first is taken.
    """
    usable = [density for density in found if density[1].max() + 1 in counts]
    return sorted(usable, key=lambda density: -distances.si(density[1]))


def search_part(rows: np.ndarray) -> np.ndarray:
    """Indices of the rows (n, d) on which parameters are searched, in their order: all, or `SEARCH_CELLS`."""
    return spread_out(rows, SEARCH_CELLS) if len(rows) > SEARCH_CELLS else np.arange(len(rows))


def dbscan(rows: np.ndarray, parameters: Parameters) -> np.ndarray:
    """Labels (n,) of rows (n, d), noise is `NOISE`.

    A border cell goes to the cluster of its nearest core cell; the original lets the order of the cells decide. Up
    to `EXACT_CELLS` rows that is all; more are merged into bins with weights, so that memory grows with the
    occupied bins and not with the pairs of cells.
    """
    if len(rows) <= EXACT_CELLS:
        return _dbscan(rows, None, parameters)
    merged = Merged.of(rows, parameters.eps / BINS_PER_EPS)
    return np.asarray(_dbscan(merged.rows, merged.weights, parameters)[merged.inverse])


def _dbscan(rows: np.ndarray, weights: np.ndarray | None, parameters: Parameters) -> np.ndarray:
    found = DBSCAN(eps=parameters.eps, min_samples=parameters.min_pts).fit(rows, sample_weight=weights)
    labels = np.full(len(rows), NOISE)
    core = found.core_sample_indices_
    if not len(core):
        return labels
    distances, nearest = cKDTree(rows[core]).query(rows, distance_upper_bound=parameters.eps * (1 + 1e-12))
    reached = np.isfinite(distances)
    labels[reached] = found.labels_[core][nearest[reached]]
    return labels

"""How good a grouping is: silhouette index and Davies–Bouldin index, with and without the noise.

Source: Liu et al., "Research on Appearance Detection, Sorting, and Regrouping Technology of Retired Batteries for
Electric Vehicles", equations 22 and 23. Equation 22 is printed with e and f swapped; the silhouette of a cell is
(f − e) / max(e, f) with e its mean distance to its own group and f to the nearest other group (Rousseeuw 1987).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_score

NOISE = -1
"""Label of a cell that belongs to no group."""
INVALID = -2
"""Label of a cell with a value that is missing, infinite or impossible: it was left out."""
CLOUD_CELLS = 400
"""Cells of the cloud that groups are compared with, at most."""
MAX_SILHOUETTE_CELLS = 5_000
"""The silhouette of more cells is that of so many of them: distances between all would take n² memory."""


@dataclass(frozen=True, slots=True)
class Validity:
    """Indices of one grouping. NaN where there are fewer than two groups.

    Attributes:
        si: Silhouette index with the noise counted: a cell that was left out has silhouette 0.
        dbi: Davies–Bouldin index with the noise counted: a cell that was left out goes to the nearest centre.
        si_kept: Silhouette index of the cells that were kept, as usually published.
        dbi_kept: Davies–Bouldin index of the cells that were kept.
        noise_fraction: Share of the valid cells that is in no group.
        groups: Number of groups.
        smallest: Number of cells in the smallest group.
    """

    si: float
    dbi: float
    si_kept: float
    dbi_kept: float
    noise_fraction: float
    groups: int
    smallest: int

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON: None in place of what is not finite."""
        return {key: value if np.isfinite(value) else None for key, value in asdict(self).items()}


def judge(rows: np.ndarray, labels: np.ndarray) -> Validity:
    """Indices of a grouping of scaled rows (n, d) with labels (n,); `NOISE` is counted, `INVALID` is not."""
    valid = labels != INVALID
    rows, labels = rows[valid], labels[valid]
    kept = labels != NOISE
    noise = 1.0 - float(kept.mean()) if len(labels) else 0.0
    names, sizes = np.unique(labels[kept], return_counts=True)
    if len(names) < 2 or kept.sum() <= len(names):
        smallest = int(sizes.min()) if len(sizes) else 0
        return Validity(np.nan, np.nan, np.nan, np.nan, noise, len(names), smallest)
    places = np.searchsorted(names, labels)
    places[~kept] = NOISE
    si = _silhouette(rows[kept], places[kept])
    dbi = davies_bouldin(rows[kept], places[kept])
    counted = davies_bouldin(rows, places) if noise else dbi
    return Validity(si * (1.0 - noise), counted, si, dbi, noise, len(names), int(sizes.min()))


def _silhouette(rows: np.ndarray, labels: np.ndarray) -> float:
    if len(rows) <= MAX_SILHOUETTE_CELLS:
        return float(silhouette_score(rows, labels))
    part = spread_out(rows, MAX_SILHOUETTE_CELLS)
    if len(np.unique(labels[part])) < 2:
        return float("nan")
    return float(silhouette_score(rows[part], labels[part]))


def spread_out(rows: np.ndarray, wanted: int) -> np.ndarray:
    """Indices (wanted,) of rows at even steps in their sorted order: the same rows in whatever order they come."""
    order = sorted_order(rows)
    return np.asarray(order[np.linspace(0, len(rows) - 1, wanted).round().astype(int)])


def sorted_order(rows: np.ndarray) -> np.ndarray:
    """Indices (n,) that sort rows (n, d) by the first column, then the second, and so on."""
    return np.lexsort(rows.T[::-1])


def one_cloud_si(rows: np.ndarray, groups: int) -> float:
    """Silhouette index of one normal cloud with the variances of scaled rows (n, d), cut into so many groups.

    The flatter a cloud, the larger it is: 0.25 of three equal axes, over 0.5 of a line. Drawn with a fixed seed and
    cut by Ward's tree; NaN where the rows don't spread, or are too few.
    """
    count = min(len(rows), CLOUD_CELLS)
    if not 2 <= groups < count:
        return float("nan")
    variances = np.linalg.eigvalsh(np.atleast_2d(np.cov(rows.T)))
    if not np.isfinite(variances).all() or variances.max() <= 0:
        return float("nan")
    axes = np.sqrt(np.maximum(variances / variances.max(), 0.0))
    cloud = axes * np.random.default_rng(0).normal(size=(CLOUD_CELLS, len(axes)))[:count]
    # SciPy 1.11, which Ubuntu 24.04 has, gives one group too few by fcluster where all but two cells stand alone.
    return float(silhouette_score(cloud, cut_tree(linkage(cloud, "ward"), groups)[:, 0]))


class Distances:
    """Silhouettes of many groupings of the same cells, from distances that are computed once.

    Args:
        rows: (n, d) scaled; n² distances are kept.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self.between = cdist(rows, rows)

    def sums(self, labels: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums of distances from every cell to every group (n, groups), and the sizes of the groups (groups,)."""
        member = np.zeros((len(labels), groups))
        kept = np.flatnonzero(labels >= 0)
        member[kept, labels[kept]] = 1.0
        return self.between @ member, member.sum(axis=0)

    def si(self, labels: np.ndarray) -> float:
        """Mean silhouette of labels (n,) from 0 to k − 1, noise counted as 0."""
        groups = int(labels.max(initial=-1)) + 1
        if groups < 2:
            return float("nan")
        return float(silhouettes(*self.sums(labels, groups), labels).mean())


def davies_bouldin(rows: np.ndarray, labels: np.ndarray) -> float:
    """Davies–Bouldin index (equation 23) of rows (n, d) with labels (n,) from 0 to k − 1; NaN where k < 2.

    `NOISE` is counted with the nearest centre, which is then computed anew.
    """
    groups = int(labels.max(initial=NOISE)) + 1
    if groups < 2:
        return float("nan")
    centres = group_means(rows, labels, groups)
    if (labels < 0).any():
        labels = np.where(labels < 0, np.argmin(cdist(rows, centres), axis=1), labels)
        centres = group_means(rows, labels, groups)
    away = np.linalg.norm(rows - centres[labels], axis=1)
    width = np.bincount(labels, away, groups) / np.bincount(labels, minlength=groups)
    apart = cdist(centres, centres)
    np.fill_diagonal(apart, np.inf)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = np.nan_to_num((width[:, None] + width) / apart, nan=0.0, posinf=np.inf)
        return float(ratios.max(axis=1).mean())


def group_means(rows: np.ndarray, labels: np.ndarray, groups: int) -> np.ndarray:
    """Means (k, d) of rows (n, d) by labels (n,) from 0 to k − 1; rows with other labels have no part in it."""
    kept = labels >= 0
    sizes = np.bincount(labels[kept], minlength=groups)
    sums = [np.bincount(labels[kept], column[kept], groups) for column in rows.T]
    return np.stack(sums, axis=1) / sizes[:, None]


def silhouettes(sums: np.ndarray, sizes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Silhouettes (n,) from sums of distances (n, k) and sizes of groups (k,). Noise, and a cell alone, has 0."""
    cells = np.arange(len(labels))
    own_size = sizes[labels]
    own = sums[cells, labels] / np.maximum(own_size - 1.0, 1.0)
    mean = np.where(sizes > 0, sums / np.maximum(sizes, 1.0), np.inf)
    mean[cells, labels] = np.inf
    other = mean.min(axis=1)
    result = (other - own) / np.maximum(np.maximum(own, other), np.finfo(float).tiny)
    return np.where((labels < 0) | (own_size <= 1), 0.0, result)

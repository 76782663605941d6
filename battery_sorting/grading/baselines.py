"""The methods that DBSCAN-GMM is compared with, on the same scaled features."""

from __future__ import annotations

import warnings
from enum import Enum

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from battery_sorting.grading.density import by_rule, dbscan, densities, search_part
from battery_sorting.grading.grouper import Grouper, Noise, RegroupStatus
from battery_sorting.grading.validity import NOISE, Distances

MOST_AGGLOMERATED = 20_000
"""Cells that can be clustered agglomeratively: all distances between them are kept."""


class Baseline(str, Enum):
    """A method of scikit-learn's."""

    GMM = "gmm"
    """Gaussian mixture with full covariances, started at random cells."""
    DBSCAN = "dbscan"
    KMEANS = "kmeans"
    """Started at random cells."""
    AGGLOMERATIVE = "agglomerative"
    """Ward's."""

    def __str__(self) -> str:
        return self.value


class BaselineGrouper(Grouper):
    """One of the baselines.

    Args:
        method: A `Baseline`.
        n_groups: Number of groups wanted; None to find it, by the largest silhouette index.
        noise: Of DBSCAN: ``"apart"``, or ``"assign"`` to give noise to the nearest centre.
        starts: Random starts of k-means and the mixture, of which the likeliest is taken.
        seed: Of the random starts.
        max_groups: Most groups where their number is to be found; None: 8, or the kinds of identical cells.
        scale: (d,) what a difference of one means in each feature, see `DBSCANGMM`.
    """

    min_group_size = 1

    def __init__(
        self,
        method: str = "kmeans",
        n_groups: int | None = None,
        *,
        noise: str = "apart",
        starts: int = 10,
        seed: int = 0,
        max_groups: int | None = None,
        scale: np.ndarray | None = None,
    ) -> None:
        self.method = method
        self.n_groups = n_groups
        self.noise = noise
        self.starts = starts
        self.seed = seed
        self.max_groups = max_groups
        self.scale = scale

    def _check(self) -> None:
        super()._check()
        Baseline(self.method)
        Noise(self.noise)

    def _find(self, scaled: np.ndarray, places: np.ndarray) -> np.ndarray:  # noqa: ARG002
        if Baseline(self.method) is Baseline.DBSCAN:
            return self._density(scaled)
        count = self.n_groups or self._count(scaled[search_part(scaled)])
        if not count:
            self.status_ = RegroupStatus.ONE_GROUP
            return np.zeros(len(scaled), int)
        return self._labels(scaled, count)

    def _count(self, rows: np.ndarray) -> int:
        """The number of groups with the largest silhouette index, 0 if there is none."""
        distances = Distances(rows)
        most = len(np.unique(rows, axis=0))
        counts = [count for count in self.counts(rows) if count <= most]
        found = {count: distances.si(self._labels(rows, count)) for count in counts}
        found = {count: si for count, si in found.items() if si == si}
        return max(found, key=lambda count: found[count], default=0)

    def _labels(self, rows: np.ndarray, count: int) -> np.ndarray:
        method = Baseline(self.method)
        if method is Baseline.KMEANS:
            fitted = KMeans(count, init="random", n_init=self.starts, random_state=self.seed)
        elif method is Baseline.GMM:
            fitted = GaussianMixture(
                count,
                init_params="random_from_data",
                n_init=self.starts,
                random_state=self.seed,
                reg_covar=1e-4,  # constant columns and groups of two cells must not stop it
            )
        else:
            fitted = AgglomerativeClustering(count)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # fewer kinds of cells than groups: told by the status
            labels = fitted.fit_predict(rows)
        return np.asarray(np.unique(labels, return_inverse=True)[1])  # a mixture may lose groups

    def _density(self, scaled: np.ndarray) -> np.ndarray:
        part = search_part(scaled)
        found = list(densities(scaled[part]))
        ranked = by_rule(found, Distances(scaled[part]), self.counts(scaled[part]))
        if not ranked:
            clusters = any(labels.max() >= 0 for _, labels in found)
            self.status_ = (
                RegroupStatus.NOT_REACHED
                if self.n_groups
                else RegroupStatus.ONE_GROUP
                if clusters
                else RegroupStatus.ALL_NOISE
            )
            return np.zeros(len(scaled), int)
        used = ranked[0][0].for_batch(len(part), len(scaled))
        self.eps_, self.min_pts_ = used.eps, used.min_pts
        labels = ranked[0][1] if len(part) == len(scaled) else dbscan(scaled, used)
        if labels.max() < 1:
            self.status_ = RegroupStatus.ONE_GROUP if labels.max() == 0 else RegroupStatus.ALL_NOISE
        elif Noise(self.noise) is Noise.ASSIGN:
            centres = np.stack([scaled[labels == group].mean(axis=0) for group in range(labels.max() + 1)])
            labels = np.where(labels == NOISE, np.argmin(cdist(scaled, centres), axis=1), labels)
        return labels

"""What all methods of regrouping have in common: trivial batches, the order of cells and groups, the indices."""

from __future__ import annotations

from enum import Enum

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin

from battery_sorting.grading.density import kinds
from battery_sorting.grading.scaling import RobustScale, told_apart
from battery_sorting.grading.validity import INVALID, judge, one_cloud_si, sorted_order

WEAK_SI = 0.25
"""Silhouette index below which Kaufman and Rousseeuw (1990) see no substantial structure."""
ABOVE_CLOUD = 0.1
"""Clusters have a silhouette index at least so much above that of one cloud cut into as many pieces."""
MOST_GROUPS = 8
"""Groups at most where their number is to be found and nothing is said; kinds of identical cells may be more."""


class RegroupStatus(str, Enum):
    """How a regrouping ended: with `GROUPED` in groups, with `NOT_REACHED` in more or fewer than wanted."""

    GROUPED = "grouped"
    NO_CELLS = "no_cells"
    NO_VALID_CELLS = "no_valid_cells"
    ONE_CELL = "one_cell"
    IDENTICAL_CELLS = "identical_cells"
    TOO_FEW_CELLS = "too_few_cells"
    ONE_GROUP = "one_group"
    ALL_NOISE = "all_noise"
    NOT_REACHED = "number_of_groups_not_reached"

    def __str__(self) -> str:
        return self.value


class Noise(str, Enum):
    """What becomes of the cells that DBSCAN calls noise."""

    ASSIGN = "assign"
    """They go to their likeliest group, as published."""
    APART = "apart"
    """They stay in no group."""

    def __str__(self) -> str:
        return self.value


class Grouper(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the methods. Nothing raises for the sake of the cells' values: see `status_`.

    Attributes:
        labels_: (n,) 0 to k − 1, by falling mean of the first feature; `NOISE`; `INVALID` for cells with a value
            that is NaN or infinite.
        status_: A `RegroupStatus`.
        n_groups_: k.
        eps_: Eps of DBSCAN in scaled features, NaN where there was none.
        min_pts_: MinPts of DBSCAN, 0 where there was none.
        scale_: `RobustScale` of the features, or None.
        validity_: `Validity` of the grouping.
        weak_: Whether the groups are pieces of one cloud: their silhouette index is below `WEAK_SI`, or hardly
            above that of a normal cloud of the same shape cut into as many.
    """

    n_groups: int | None
    min_group_size: int
    max_groups: int | None
    scale: np.ndarray | None

    def fit(self, X: np.ndarray, y: object = None) -> Grouper:  # noqa: N803, ARG002
        """Group cells with features X (n, d), for example capacity, resistance and open-circuit voltage.

        Raises:
            ValueError: X is not a table, or an argument of the estimator is none of its values.
        """
        rows = np.asarray(X, float)
        if rows.ndim != 2 or not rows.shape[1]:
            raise ValueError(f"expected a table of cells (n, features), got shape {rows.shape}")
        self._check()
        units = self._units(rows.shape[1])
        rows, valid = heard(rows, units)
        self.labels_ = np.where(valid, 0, INVALID)
        self.n_features_in_ = rows.shape[1]
        self.n_groups_ = min(int(valid.sum()), 1)
        self.eps_, self.min_pts_ = float("nan"), 0
        self.scale_: RobustScale | None = None
        self._reset(len(rows))
        self.status_ = self._trivial(rows, valid, units)
        if self.status_ is RegroupStatus.GROUPED and self.scale_ is not None:
            places = np.flatnonzero(valid)
            places = places[sorted_order(rows[places])]  # so that sums come out the same in whatever order
            self._name(places, self._find(self.scale_(rows[places]), places), rows)
        judged_by = self.scale_
        if judged_by is not None and units is not None:
            judged_by = RobustScale.by_units(rows[valid], units)
        scaled = judged_by(rows[valid]) if judged_by else rows[valid]
        self.validity_ = judge(scaled, self.labels_[valid])
        self.weak_ = bool(self.validity_.si < WEAK_SI)
        if np.isfinite(self.validity_.si) and not self.weak_:
            self.weak_ = bool(self.validity_.si < one_cloud_si(scaled, self.n_groups_) + ABOVE_CLOUD)
        return self

    def _find(self, scaled: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Labels (m,) of scaled rows (m, d), which stand at ``places`` (m,). May set `status_`."""
        raise NotImplementedError

    def _reset(self, cells: int) -> None:
        """Set the attributes of a method to what they are without groups."""

    def _reorder(self, order: np.ndarray) -> None:
        """Bring the attributes of a method into the order of the groups: ``order`` (k,) of old labels."""

    def _scale_of(self, rows: np.ndarray, units: np.ndarray | None) -> RobustScale:
        """The scale that groups are looked for in, of rows (n, d)."""
        if units is not None:
            return RobustScale.by_units(rows, units)
        least = told_apart(rows)
        return RobustScale.of(rows) if least is None else RobustScale.by_units(rows, least)

    def counts(self, scaled: np.ndarray) -> list[int]:
        """Numbers of groups that are looked for in scaled rows (n, d)."""
        if self.n_groups:
            return [self.n_groups]
        most = min(self.max_groups or MOST_GROUPS, len(scaled) // self.min_group_size)
        counts = list(range(2, most + 1))
        found = kinds(scaled, self.min_group_size) if self.max_groups is None else None
        if found is not None and found.max() + 1 > most:
            counts.append(int(found.max()) + 1)
        return counts

    def _units(self, features: int) -> np.ndarray | None:
        if self.scale is None:
            return None
        units = np.asarray(self.scale, float)
        if units.shape != (features,) or not (units > 0).all():
            raise ValueError(f"scale must be {features} numbers above 0 (infinite: no say), not {self.scale}")
        return units

    def _check(self) -> None:
        if self.n_groups is not None and self.n_groups < 1:
            raise ValueError(f"n_groups is {self.n_groups}: give 1 or more, or None")
        if self.min_group_size < 1 or (self.max_groups is not None and self.max_groups < 2):
            raise ValueError("min_group_size must be 1 or more and max_groups 2 or more")

    def _trivial(self, rows: np.ndarray, valid: np.ndarray, units: np.ndarray | None) -> RegroupStatus:
        """What can be said without looking for groups; sets the scale."""
        if not len(rows):
            return RegroupStatus.NO_CELLS
        count = int(valid.sum())
        if not count:
            return RegroupStatus.NO_VALID_CELLS
        if count == 1:
            return RegroupStatus.ONE_CELL
        self.scale_ = self._scale_of(rows[valid], units)
        if self.scale_.constant.all():
            return RegroupStatus.IDENTICAL_CELLS
        if self.n_groups == 1:
            return RegroupStatus.ONE_GROUP
        wanted = self.n_groups or 2
        if count < wanted * self.min_group_size or len(np.unique(self.scale_(rows[valid]), axis=0)) < wanted:
            return RegroupStatus.TOO_FEW_CELLS
        return RegroupStatus.GROUPED

    def _name(self, places: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> None:
        """Put labels (m,) at their places in the batch, groups by falling mean of the first feature."""
        self.n_groups_ = int(labels.max()) + 1
        first = rows[places, 0]
        order = np.argsort([-first[labels == group].mean() for group in range(self.n_groups_)], kind="stable")
        rank = np.empty(len(order), int)
        rank[order] = np.arange(len(order))
        self.labels_[places] = labels
        kept = labels >= 0
        self.labels_[places[kept]] = rank[labels[kept]]
        self._reorder(order)
        if self.status_ is RegroupStatus.GROUPED and self.n_groups not in (None, self.n_groups_):
            self.status_ = RegroupStatus.NOT_REACHED  # a mixture may lose groups


def heard(rows: np.ndarray, units: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, d) with 0 for features that have no say, and (n,) whether all the others are finite."""
    heard = np.ones(rows.shape[1], bool) if units is None else np.isfinite(units)
    return np.where(heard, rows, 0.0), np.isfinite(rows[:, heard]).all(axis=1)

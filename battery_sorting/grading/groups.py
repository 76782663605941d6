"""Regroups a batch of graded cells: within each grade, or across them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.grading.baselines import MOST_AGGLOMERATED, Baseline, BaselineGrouper
from battery_sorting.grading.grouper import Grouper, Noise, RegroupStatus
from battery_sorting.grading.regrouping import DBSCANGMM, Variant
from battery_sorting.grading.table import OVERLOAD
from battery_sorting.grading.validity import INVALID, NOISE, Validity

REGROUPED = ("A", "B", "C")
"""Grades whose cells are regrouped; those of grade D go to recycling."""
ACROSS = "all"
"""Name of the part that holds the cells of all grades."""


class Method(str, Enum):
    """A method of regrouping."""

    DBSCAN_GMM = "dbscan-gmm"
    PUBLISHED = "dbscan-gmm-published"
    GMM = str(Baseline.GMM)
    DBSCAN = str(Baseline.DBSCAN)
    KMEANS = str(Baseline.KMEANS)
    AGGLOMERATIVE = str(Baseline.AGGLOMERATIVE)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class RegroupOptions:
    """How a batch shall be regrouped.

    Attributes:
        method: The method.
        n_groups: Groups wanted in each grade; None to find it.
        noise: What becomes of noise; only DBSCAN and DBSCAN-GMM know any.
        across: Whether cells of different grades may share a group.
        min_group_size: Least cells of a group, for DBSCAN-GMM.
        max_groups: Most groups of a grade where their number is to be found; None: 8, or the kinds of cells where
            (nearly) all cells have identical ones.
        seed: Of the random starts of k-means and the Gaussian mixture.
        scale: What a difference of one means in capacity (Ah), resistance (mΩ) and voltage (V), `CellSpec.units`;
            infinite: no say. All methods but the published one look in this scale, and all are judged in it. None:
            what measurements tell apart.
    """

    method: Method = Method.DBSCAN_GMM
    n_groups: int | None = None
    noise: Noise = Noise.ASSIGN
    across: bool = False
    min_group_size: int = 2
    max_groups: int | None = None
    seed: int = 0
    scale: tuple[float, ...] | None = None

    def estimator(self) -> Grouper:
        """The estimator, not fitted."""
        if self.method in (Method.DBSCAN_GMM, Method.PUBLISHED):
            return DBSCANGMM(
                self.n_groups,
                variant=str(Variant.REFINED if self.method is Method.DBSCAN_GMM else Variant.PUBLISHED),
                noise=str(self.noise),
                min_group_size=self.min_group_size,
                max_groups=self.max_groups,
                scale=None if self.scale is None else np.array(self.scale),
            )
        return BaselineGrouper(
            str(self.method),
            self.n_groups,
            noise=str(self.noise),
            max_groups=self.max_groups,
            seed=self.seed,
            scale=None if self.scale is None else np.array(self.scale),
        )


@dataclass(frozen=True, slots=True)
class RegroupedPart:
    """Cells that were regrouped together: those of one grade, or all.

    Attributes:
        name: The grade, or `ACROSS`.
        status: How it ended.
        cells: How many there are.
        groups: Cells of each group.
        validity: Indices.
        eps: Eps of DBSCAN in scaled features; NaN where there was none.
        min_pts: MinPts of DBSCAN; 0 where there was none.
        weak: Whether the groups are a cut through one cloud rather than clusters.
        seconds: It took.
    """

    name: str
    status: RegroupStatus
    cells: int
    groups: Mapping[str, int]
    validity: Validity
    eps: float
    min_pts: int
    weak: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Regrouping:
    """The groups of a batch.

    Attributes:
        groups: (n,) name of each cell's group, such as ``B1``; empty for cells in none.
        reasons: Row → why it is in no group.
        parts: What was regrouped together.
        seconds: It took in all.
    """

    groups: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)
    parts: list[RegroupedPart] = field(default_factory=list)
    seconds: float = 0.0

    def counts(self) -> dict[str, int]:
        """Cells of each group."""
        return {name: cells for part in self.parts for name, cells in part.groups.items()}

    def si(self) -> float:
        """Mean silhouette of all cells of the parts that have groups, noise counted as 0; NaN if none has."""
        return self._mean("si")

    def dbi(self) -> float:
        """Davies–Bouldin index, mean over those parts weighted by their cells; NaN if none has groups."""
        return self._mean("dbi")

    def noise_fraction(self) -> float:
        """Share of the cells that were regrouped and are noise."""
        cells = sum(part.cells for part in self.parts)
        return sum(part.validity.noise_fraction * part.cells for part in self.parts) / cells if cells else 0.0

    def _mean(self, index: str) -> float:
        grouped = [part for part in self.parts if part.status is RegroupStatus.GROUPED]
        if not grouped:
            return float("nan")
        values = [getattr(part.validity, index) for part in grouped]
        return float(np.average(values, weights=[part.cells for part in grouped]))


def regroup(
    values: np.ndarray,
    grades: np.ndarray | None = None,
    options: RegroupOptions | None = None,
    on_part: Callable[[str], Any] | None = None,
) -> Regrouping:
    """Regroup cells.

    Args:
        values: (n, 3) capacity in Ah, resistance in mΩ, open-circuit voltage in V. Cells with a value that is
            missing, infinite, 0 or negative are left out, if it has a say.
        grades: (n,) grades; cells of others than `REGROUPED` are left out. None: all cells are of one.
        options: How; DBSCAN-GMM within the grades by default.
        on_part: Called with the name of each part before it is regrouped.

    Raises:
        ConfigurationError: There are too many cells for the method.
    """
    options = options or RegroupOptions()
    begin = time.perf_counter()
    values = np.asarray(values, float)
    result = Regrouping(np.full(len(values), "", dtype=object))
    heard = np.ones(values.shape[1], bool) if options.scale is None else np.isfinite(options.scale)
    usable = (np.isfinite(values) & (values > 0) & (values < OVERLOAD))[:, heard].all(axis=1)
    result.reasons.update(dict.fromkeys(np.flatnonzero(~usable).tolist(), "a value is missing or impossible"))
    for name, rows in _parts(grades, usable, options.across, result.reasons).items():
        if on_part is not None:
            on_part(name)
        _regroup_part(values, name, rows, options, result)
    return Regrouping(result.groups, result.reasons, result.parts, time.perf_counter() - begin)


def _parts(
    grades: np.ndarray | None, usable: np.ndarray, across: bool, reasons: dict[int, str]
) -> dict[str, np.ndarray]:
    """Rows of each part; cells of grades that aren't regrouped get a reason."""
    if grades is None:
        return {ACROSS: np.flatnonzero(usable)}
    wanted = np.isin(grades, REGROUPED)
    for row in np.flatnonzero(usable & ~wanted).tolist():
        reasons[row] = f"grade {grades[row]} is not regrouped"
    usable = usable & wanted
    if across:
        return {ACROSS: np.flatnonzero(usable)}
    rows = {grade: np.flatnonzero(usable & (grades == grade)) for grade in REGROUPED}
    return {grade: places for grade, places in rows.items() if len(places)}


def _regroup_part(
    values: np.ndarray, name: str, rows: np.ndarray, options: RegroupOptions, result: Regrouping
) -> None:
    if options.method is Method.AGGLOMERATIVE and len(rows) > MOST_AGGLOMERATED:
        raise ConfigurationError(
            f"{len(rows)} cells of {name}",
            [f"agglomerative clustering keeps n² distances: take at most {MOST_AGGLOMERATED} cells, or dbscan-gmm"],
        )
    begin = time.perf_counter()
    estimator = options.estimator().fit(values[rows])
    labels = estimator.labels_
    prefix = "G" if name == ACROSS else name
    counts: dict[str, int] = {}
    for group in range(int(labels.max(initial=NOISE)) + 1):
        chosen = labels == group
        counts[f"{prefix}{group + 1}"] = int(chosen.sum())
        result.groups[rows[chosen]] = f"{prefix}{group + 1}"
    for label, why in ((NOISE, "noise: too few cells are like it"), (INVALID, "a value is missing or impossible")):
        result.reasons.update(dict.fromkeys(rows[labels == label].tolist(), why))
    validity = estimator.validity_
    seconds = time.perf_counter() - begin
    result.parts.append(
        RegroupedPart(
            name,
            estimator.status_,
            len(rows),
            counts,
            validity,
            estimator.eps_,
            estimator.min_pts_,
            estimator.weak_,
            seconds,
        )
    )

"""DBSCAN-GMM: regroups cells that belong together, without being told how many groups there are.

Source: Liu et al., "Research on Appearance Detection, Sorting, and Regrouping Technology of Retired Batteries for
Electric Vehicles", section 5. What was mended is said in `mixture` and in docs/explanation/regrouping.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist

from battery_sorting.grading.density import Density, Parameters, by_rule, dbscan, densities, kinds, search_part
from battery_sorting.grading.grouper import Grouper, Noise, RegroupStatus, heard
from battery_sorting.grading.mixture import Fitter, Mixture, Shape
from battery_sorting.grading.scaling import RobustScale
from battery_sorting.grading.validity import (
    INVALID,
    NOISE,
    Distances,
    davies_bouldin,
    group_means,
    silhouettes,
)

DBI_WEIGHT = 0.1
"""Of the Davies–Bouldin index beside the silhouette index, where groupings are compared: the first is less even."""
FINALISTS = 6
"""So many of the best groupings, at least three of each number, have border cells exchanged first."""
CELLS_TRIED = 16
"""In each round the cells with the lowest silhouettes are tried in another group: so many."""
MOVES_JUDGED = 4
"""Of those moves the best by silhouette index are judged by the score: so many."""
STARTS = 8
"""Mixtures start from so many of the clusterings by DBSCAN for each number of groups."""


class Variant(str, Enum):
    """Which DBSCAN-GMM."""

    PUBLISHED = "published"
    """DBSCAN, then expectation maximisation with full covariances."""
    REFINED = "refined"
    """Expectation maximisation from many DBSCANs, in three shapes; the best of them, its border cells exchanged."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class GroupingCandidate:
    """A grouping that was tried.

    Attributes:
        labels: (n,) of the cells searched on.
        parameters: Of the DBSCAN that it began with; of the one by the rule if it began with Ward's tree.
        shape: Of the covariances.
        score: What is compared: `_score`.
    """

    labels: np.ndarray
    parameters: Parameters
    shape: Shape
    score: float


class DBSCANGMM(Grouper):
    """DBSCAN finds how many groups there are and where; a Gaussian mixture that starts there assigns the cells.

    The same cells give the same groups in whatever order they come; nothing is random. Nothing raises for the sake
    of the cells' values: see `status_`.

    Args:
        n_groups: Number of groups wanted; None to find it.
        variant: ``"refined"`` or ``"published"``, see `Variant`.
        eps: Eps of DBSCAN in units of the scaled features; None for the rule in docs/explanation/regrouping.md.
        min_pts: MinPts of DBSCAN, the cell itself included; None for the rule.
        noise: ``"assign"`` or ``"apart"``, see `Noise`.
        min_group_size: No group has fewer cells, for example those of a pack.
        max_groups: Most groups where their number is to be found; None: 8, or as many as there are kinds of cells
            where (nearly) all cells have identical ones, as coarse meters show them.
        scale: (d,) what a difference of one means in each feature, in its unit, as a specification says
            (`CellSpec.units`); infinite: the feature has no say, and may be missing. None: of capacity, resistance
            and voltage what measurements tell apart (`scaling.TOLD_APART`), of other features their spread.
            The published variant always goes by the spread alone; ``scale`` then is for the indices only.

    Attributes:
        noise_found_: (n,) bool, cells that DBSCAN calls noise, whatever became of them.
        shape_: `Shape` of the covariances, or None.
        mixture_: `Mixture` of the groups in scaled features, or None.
        Further those of `Grouper`.
    """

    def __init__(
        self,
        n_groups: int | None = None,
        *,
        variant: str = "refined",
        eps: float | None = None,
        min_pts: int | None = None,
        noise: str = "assign",
        min_group_size: int = 2,
        max_groups: int | None = None,
        scale: np.ndarray | None = None,
    ) -> None:
        self.n_groups = n_groups
        self.variant = variant
        self.eps = eps
        self.min_pts = min_pts
        self.noise = noise
        self.min_group_size = min_group_size
        self.max_groups = max_groups
        self.scale = scale

    def predict(self, X: np.ndarray) -> np.ndarray:  # noqa: N803
        """Groups (n,) of further cells X (n, d), by the mixture that was fitted."""
        rows = np.asarray(X, float)
        rows, valid = heard(rows, self._units(rows.shape[1]))
        labels = np.where(valid, 0, INVALID)
        if self.mixture_ is not None and self.scale_ is not None and (labels == 0).any():
            labels[labels == 0] = self.mixture_.assign(self.scale_(rows[labels == 0]))
        return labels

    def _check(self) -> None:
        super()._check()
        for value, kind in ((self.variant, Variant), (self.noise, Noise)):
            kind(value)
        if (self.eps is not None and not self.eps > 0) or (self.min_pts is not None and self.min_pts < 1):
            raise ValueError("eps must be above 0 and min_pts 1 or more")

    def _reset(self, cells: int) -> None:
        self.noise_found_ = np.zeros(cells, bool)
        self.shape_: Shape | None = None
        self.mixture_: Mixture | None = None

    def _reorder(self, order: np.ndarray) -> None:
        if self.mixture_ is None:
            return
        self.mixture_ = replace(
            self.mixture_,
            means=self.mixture_.means[order],
            covariances=self.mixture_.covariances[order],
            shares=self.mixture_.shares[order],
        )

    def _scale_of(self, rows: np.ndarray, units: np.ndarray | None) -> RobustScale:
        if Variant(self.variant) is Variant.PUBLISHED:
            return RobustScale.of(rows)
        return super()._scale_of(rows, units)

    def _find(self, scaled: np.ndarray, places: np.ndarray) -> np.ndarray:
        part = search_part(scaled)
        search = _Search(scaled[part], self)
        best = search.best()
        if best is None:
            one = search.clusters() > 0
            self.status_ = RegroupStatus.ONE_GROUP if one else RegroupStatus.ALL_NOISE
            self.noise_found_[places] = not one
            return np.full(len(scaled), 0 if one else NOISE)
        used = best.parameters.for_batch(len(part), len(scaled))
        self.eps_, self.min_pts_ = used.eps, used.min_pts
        noise = dbscan(scaled, used) == NOISE
        self.noise_found_[places] = noise
        self.shape_ = best.shape
        self.mixture_ = Fitter(scaled[part], np.ones(len(part)), best.shape).start(best.labels, medoids=False)
        if len(part) == len(scaled):
            return best.labels
        labels = self.mixture_.assign(scaled)
        if Noise(self.noise) is Noise.APART:
            labels[noise] = NOISE
        return labels


class _Search:
    """Looks for the best grouping of scaled rows (n, d)."""

    def __init__(self, rows: np.ndarray, settings: DBSCANGMM) -> None:
        self.rows = rows
        self.settings = settings
        self.distances = Distances(rows)
        self.weights = np.ones(len(rows))
        self.apart = Noise(settings.noise) is Noise.APART
        self.counts = settings.counts(rows)
        self.found = list(densities(rows, settings.eps, settings.min_pts))

    def clusters(self) -> int:
        """Most clusters that a DBSCAN has found."""
        return max((int(labels.max()) + 1 for _, labels in self.found), default=0)

    def best(self) -> GroupingCandidate | None:
        """The best grouping, None where there are not two groups."""
        if Variant(self.settings.variant) is Variant.PUBLISHED:
            return self._published()
        alike = self._kinds()
        if alike is not None and alike.score == 1.0:
            return alike  # silhouette 1 and Davies–Bouldin 0: nothing can be better
        tried: dict[int, list[GroupingCandidate]] = {} if alike is None else {int(alike.labels.max()): [alike]}
        for candidate in self._refined():
            tried.setdefault(int(candidate.labels.max()), []).append(candidate)
        finalists = []
        for candidates in tried.values():
            candidates.sort(key=lambda candidate: -candidate.score)
            finalists += candidates[: max(3, FINALISTS // len(tried))]
        return max((self._exchanged(each) for each in finalists), key=lambda each: each.score, default=None)

    def _kinds(self) -> GroupingCandidate | None:
        """Groups of identical cells, others with the nearest kind or apart; None if there are none."""
        labels = kinds(self.rows, self.settings.min_group_size) if self.settings.eps is None else None
        if labels is None or labels.max() + 1 not in self.counts:
            return None
        if not self.apart:
            centres = group_means(self.rows, labels, int(labels.max()) + 1)
            labels = np.where(labels < 0, np.argmin(cdist(self.rows, centres), axis=1), labels)
        rule = by_rule(self.found, self.distances, self.counts) or self.found
        parameters = rule[0][0] if rule else Parameters(float("nan"), 0)
        return GroupingCandidate(labels, parameters, Shape.SPHERICAL, self._score(labels))

    def _published(self) -> GroupingCandidate | None:
        """What the mixture makes of the best DBSCAN; of the next one where it loses groups that are wanted."""
        wanted = self.settings.n_groups
        starts = by_rule(self.found, self.distances, self.counts)
        if not starts and wanted:
            starts = by_rule(self._from_densities([wanted]), self.distances, self.counts)
        candidates = (self._mixed(labels, parameters, Shape.FULL) for parameters, labels in starts)
        found = [candidate for candidate in candidates if candidate is not None]
        kept = [candidate for candidate in found if candidate.labels.max() + 1 == wanted]
        return next(iter(kept or found), None)

    def _refined(self) -> Iterator[GroupingCandidate]:
        for starts in self._starts(self.counts).values():
            seen = set()
            for parameters, labels in starts:
                for shape in Shape:
                    candidate = self._mixed(labels, parameters, shape)
                    if candidate is not None and candidate.labels.tobytes() not in seen:
                        seen.add(candidate.labels.tobytes())
                        yield candidate

    def _starts(self, counts: Sequence[int]) -> dict[int, list[Density]]:
        """The best of the DBSCANs, brought to each number of clusters, to start mixtures from."""
        starts: dict[int, dict[bytes, tuple[float, Parameters, np.ndarray]]] = {count: {} for count in counts}
        for parameters, labels in (*self._from_densities(counts), *self._from_tree(counts)):
            known = starts[int(labels.max()) + 1]
            if labels.tobytes() not in known:
                known[labels.tobytes()] = (self._score(labels), parameters, labels)
        chosen = {}
        for count, known in starts.items():
            ranked = sorted(known.values(), key=lambda start: -start[0])
            chosen[count] = [(parameters, labels) for _, parameters, labels in ranked[:STARTS]]
        return chosen

    def _from_densities(self, counts: Sequence[int]) -> Iterator[Density]:
        for parameters, found in self.found:
            if found.max() >= 0:
                for labels in self._brought_to(found, counts):
                    yield parameters, labels

    def _from_tree(self, counts: Sequence[int]) -> Iterator[Density]:
        """Every cell a cluster of its own, as DBSCAN with MinPts = 1 has it at the least Eps, merged (Ward's).

        Such a start knows no noise, so there is none where noise is to stay apart.
        """
        if self.apart or not self.found:
            return
        rule = by_rule(self.found, self.distances, self.counts)
        tree = linkage(self.rows, "ward")
        for count in counts:
            labels = fcluster(tree, count, "maxclust") - 1
            if labels.max() + 1 == count:
                yield (rule or self.found)[0][0], labels

    def _mixed(self, labels: np.ndarray, parameters: Parameters, shape: Shape) -> GroupingCandidate | None:
        """The grouping by a mixture that starts at the clusters in ``labels``; None if it loses groups."""
        used = labels >= 0 if self.apart else np.ones(len(labels), bool)
        fitter = Fitter(self.rows[used], self.weights[used], shape)
        mixture = fitter.fit(fitter.start(labels[used]))
        result = np.full(len(labels), NOISE)
        result[used] = mixture.assign(self.rows[used])
        groups = len(mixture.means)
        sizes = np.bincount(result[used], minlength=groups)
        if sizes.min() < self.settings.min_group_size:
            if Variant(self.settings.variant) is Variant.REFINED or np.count_nonzero(sizes) < 2:
                return None
            result[used] = np.unique(result[used], return_inverse=True)[1]
        return GroupingCandidate(result, parameters, shape, self._score(result))

    def _score(self, labels: np.ndarray) -> float:
        return self.distances.si(labels) - DBI_WEIGHT * davies_bouldin(self.rows, labels)

    def _brought_to(self, found: np.ndarray, counts: Sequence[int]) -> Iterator[np.ndarray]:
        """Clusters merged (Ward's) or split (along their longest axis) to each number that can be reached."""
        labels = found
        while labels.max() + 1 > min(counts):
            if labels.max() + 1 in counts:
                yield labels
            labels = self._merged(labels)
        if labels.max() + 1 in counts:
            yield labels
        split: np.ndarray | None = found
        while split is not None and split.max() + 1 < max(counts):
            split = self._split(split)
            if split is not None and split.max() + 1 in counts:
                yield split

    def _merged(self, labels: np.ndarray) -> np.ndarray:
        groups = int(labels.max()) + 1
        sizes = np.bincount(labels[labels >= 0], minlength=groups)
        centres = group_means(self.rows, labels, groups)
        cost = cdist(centres, centres, "sqeuclidean") * np.outer(sizes, sizes) / np.add.outer(sizes, sizes)
        cost[np.tril_indices(groups)] = np.inf
        first, second = np.unravel_index(np.argmin(cost), cost.shape)
        merged = np.where(labels == second, first, labels)
        return np.where(merged > second, merged - 1, merged)

    def _split(self, labels: np.ndarray) -> np.ndarray | None:
        groups = int(labels.max()) + 1
        spread = []
        for group in range(groups):
            members = self.rows[labels == group]
            spread.append(((members - members.mean(axis=0)) ** 2).sum())
        widest = int(np.argmax(spread))
        if spread[widest] <= 0:
            return None
        places = np.flatnonzero(labels == widest)
        away = self.rows[places] - self.rows[places].mean(axis=0)
        axis = np.linalg.svd(away, full_matrices=False)[2][0]
        axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
        beyond = away @ axis > 0
        if beyond.all() or not beyond.any():  # twins, but for the last digits: there is nothing to split
            return None
        labels = labels.copy()
        labels[places[beyond]] = groups
        return labels

    def _exchanged(self, candidate: GroupingCandidate) -> GroupingCandidate:
        """Moves one cell at a time, that which raises the score most, until none does."""
        labels, score = candidate.labels.copy(), candidate.score
        groups = int(labels.max()) + 1
        for _ in range(len(labels)):
            sums, sizes = self.distances.sums(labels, groups)
            best = None
            for cell, other in self._moves(labels, sums, sizes):
                own, labels[cell] = labels[cell], other
                new = self._score(labels)
                labels[cell] = own
                if new > score + 1e-9:
                    best, score = (cell, other), new
            if best is None:
                break
            labels[best[0]] = best[1]
        return GroupingCandidate(labels, candidate.parameters, candidate.shape, score)

    def _moves(self, labels: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Moves (m, 2) of a cell to another group, those that raise the silhouette index most."""
        each = silhouettes(sums, sizes, labels)
        each[(labels < 0) | (sizes[labels] <= self.settings.min_group_size)] = np.inf
        cells = np.argsort(each, kind="stable")[:CELLS_TRIED]
        cells = cells[np.isfinite(each[cells])]
        groups = len(sizes)
        moves = np.stack([np.repeat(cells, groups), np.tile(np.arange(groups), len(cells))], axis=1)
        moves = moves[labels[moves[:, 0]] != moves[:, 1]]
        indices = []
        for cell, other in moves:
            own, column = labels[cell], self.distances.between[:, cell]
            new_sums, new_sizes = sums.copy(), sizes.copy()
            new_sums[:, own] -= column
            new_sums[:, other] += column
            new_sizes[own] -= 1
            new_sizes[other] += 1
            labels[cell] = other
            indices.append(silhouettes(new_sums, new_sizes, labels).mean())
            labels[cell] = own
        return np.asarray(moves[np.argsort(-np.asarray(indices), kind="stable")[:MOVES_JUDGED]])

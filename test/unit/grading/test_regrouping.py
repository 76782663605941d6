"""DBSCAN-GMM, its parts and its baselines."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score, davies_bouldin_score, silhouette_score

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.grading import density
from battery_sorting.grading.baselines import Baseline, BaselineGrouper
from battery_sorting.grading.density import Parameters, dbscan, densities, trials
from battery_sorting.grading.grouper import RegroupStatus
from battery_sorting.grading.groups import Method, RegroupOptions, regroup
from battery_sorting.grading.mixture import Fitter, Mixture, Shape
from battery_sorting.grading.regrouping import DBSCANGMM
from battery_sorting.grading.scaling import TOLD_APART, RobustScale
from battery_sorting.grading.validity import (
    INVALID,
    NOISE,
    Distances,
    davies_bouldin,
    judge,
    silhouettes,
)

CENTRES = np.array([[20.0, 1.5, 3.30], [18.5, 1.9, 3.31], [17.0, 2.4, 3.29]])
SPREAD = np.array([0.15, 0.06, 0.002])
VARIANTS = ("refined", "published")


def batches(cells: int = 20, seed: int = 0, centres: np.ndarray = CENTRES) -> tuple[np.ndarray, np.ndarray]:
    """Cells of some batches and the batch of each."""
    random = np.random.default_rng(seed)
    batch = np.repeat(np.arange(len(centres)), cells)
    return centres[batch] + SPREAD * random.normal(size=(len(batch), 3)), batch


def blob(cells: int = 40, seed: int = 1) -> np.ndarray:
    return batches(cells, seed, CENTRES[:1])[0]


# Groups


@pytest.mark.parametrize("variant", VARIANTS)
def test_batches_are_found_and_counted(variant):
    cells, batch = batches()
    found = DBSCANGMM(variant=variant, max_groups=5).fit(cells)
    assert found.status_ is RegroupStatus.GROUPED
    assert found.n_groups_ == 3
    assert adjusted_rand_score(batch, found.labels_) == 1.0
    assert not found.weak_
    assert found.validity_.si > 0.6


def test_groups_are_numbered_by_falling_capacity():
    cells, batch = batches(10)
    labels = DBSCANGMM(3).fit_predict(cells[::-1])
    assert (labels == batch[::-1]).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("wanted", [2, 3, 5])
def test_as_many_groups_as_wanted(variant, wanted):
    found = DBSCANGMM(wanted, variant=variant).fit(batches(12)[0])
    assert found.n_groups_ == wanted
    assert set(found.labels_) == set(range(wanted))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DBSCANGMM(max_groups=3),
        lambda: DBSCANGMM(variant="published"),
        lambda: BaselineGrouper("dbscan"),
    ],
)
def test_a_shuffled_batch_gives_the_same_groups(make):
    random = np.random.default_rng(3)
    cells = np.vstack([batches(10)[0], CENTRES[1] + 5 * SPREAD * random.normal(size=(20, 3))])
    cells = np.vstack([cells, cells[:5]])  # some are measured twice
    labels = make().fit_predict(cells)
    for _ in range(2):
        order = random.permutation(len(cells))
        assert (make().fit_predict(cells[order]) == labels[order]).all()


def test_units_do_not_matter():
    cells = batches(8)[0]
    assert (DBSCANGMM(3).fit_predict(cells) == DBSCANGMM(3).fit_predict(cells * [1000.0, 1e-3, 1.0])).all()


def test_groups_have_as_many_cells_as_a_pack():
    random = np.random.default_rng(5)
    cells = CENTRES[0] + SPREAD * random.standard_t(2, size=(60, 3))
    found = DBSCANGMM(min_group_size=8, max_groups=4).fit(cells)
    assert np.bincount(found.labels_).min() >= 8


def test_refined_is_at_least_as_good_as_published_and_as_the_baselines():
    random = np.random.default_rng(6)
    for _ in range(3):
        cells = CENTRES[0] + SPREAD * random.standard_t(4, size=(30, 3))
        refined = DBSCANGMM(2, min_group_size=1).fit(cells).validity_
        rivals = [DBSCANGMM(2, variant="published").fit(cells)]
        rivals += [BaselineGrouper(str(method), 2, starts=1).fit(cells) for method in Baseline]
        for rival in rivals:
            if rival.status_ is RegroupStatus.GROUPED:
                ours = refined.si - 0.1 * refined.dbi
                assert ours >= rival.validity_.si - 0.1 * rival.validity_.dbi - 1e-9


def test_noise_is_assigned_or_kept_apart():
    cells, _ = batches(15)
    stray = np.array([[18.9, 1.5, 3.32], [17.5, 1.6, 3.28]])
    cells = np.vstack([cells, stray])
    assigned = DBSCANGMM(3).fit(cells)
    assert assigned.validity_.noise_fraction == 0.0
    apart = DBSCANGMM(3, noise="apart", eps=0.3, min_pts=3).fit(cells)
    assert (apart.labels_[-2:] == NOISE).all()
    assert apart.noise_found_[-2:].all()
    assert apart.validity_.noise_fraction == pytest.approx(2 / len(cells))
    assert apart.validity_.si < apart.validity_.si_kept


def test_eps_and_min_pts_can_be_given():
    cells, batch = batches(15)
    found = DBSCANGMM(variant="published", eps=0.6, min_pts=3).fit(cells)
    assert (found.eps_, found.min_pts_) == (0.6, 3)
    assert adjusted_rand_score(batch, found.labels_) > 0.9


def test_new_cells_go_to_the_group_they_are_like():
    cells, _ = batches()
    found = DBSCANGMM(3).fit(cells)
    new, batch = batches(5, seed=9)
    assert (found.predict(new) == batch).all()
    assert found.predict([[np.nan, 1, 3]]) == [INVALID]


def test_one_cloud_is_said_to_be_weak():
    for shape in ([1, 1, 1], [9, 2, 1], [20, 1, 1]):  # a line cut in pieces has a silhouette above 0.5
        cloud = CENTRES[0] * (1 + TOLD_APART * shape * np.random.default_rng(4).normal(size=(80, 3)))
        for wanted in (2, 4):
            assert DBSCANGMM(wanted).fit(cloud).weak_
        assert DBSCANGMM(scale=np.array([6.0, 1.5, 0.1])).fit(cloud).weak_


def test_parameters_can_be_read_and_set_as_in_scikit_learn():
    estimator = clone(DBSCANGMM(2)).set_params(noise="apart", n_groups=3)
    assert estimator.get_params() == {
        "n_groups": 3, "variant": "refined", "eps": None, "min_pts": None,
        "noise": "apart", "min_group_size": 2, "max_groups": None, "scale": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"variant": "best"}, {"noise": "drop"}, {"n_groups": 0}, {"eps": -1.0}, {"min_pts": 0}, {"max_groups": 1}],
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError):
        DBSCANGMM(**wrong).fit(blob())


@pytest.mark.parametrize("shape", [(5,), (5, 0), (2, 2, 2)])
def test_anything_but_a_table_is_refused(shape):
    with pytest.raises(ValueError, match="expected a table"):
        DBSCANGMM().fit(np.zeros(shape))


# Batches that have no groups

TRIVIAL = {
    "no cells": (np.empty((0, 3)), RegroupStatus.NO_CELLS),
    "only NaN": (np.full((3, 3), np.nan), RegroupStatus.NO_VALID_CELLS),
    "only infinite": (np.full((3, 3), np.inf), RegroupStatus.NO_VALID_CELLS),
    "one cell": (CENTRES[:1], RegroupStatus.ONE_CELL),
    "one valid cell": (np.vstack([CENTRES[:1], [[np.nan, 1, 3]]]), RegroupStatus.ONE_CELL),
    "identical cells": (np.repeat(CENTRES[:1], 9, axis=0), RegroupStatus.IDENTICAL_CELLS),
    "two cells": (CENTRES[:2], RegroupStatus.TOO_FEW_CELLS),
}


@pytest.mark.parametrize(
    "make", [DBSCANGMM, *(lambda method=method: BaselineGrouper(method) for method in Baseline)]
)
@pytest.mark.parametrize("name", TRIVIAL)
def test_trivial_batches_end_in_a_status(name, make):
    cells, status = TRIVIAL[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = make().fit(cells)
    if make is DBSCANGMM:
        assert found.status_ is status
    assert found.status_ is not RegroupStatus.GROUPED or name == "two cells"
    assert len(found.labels_) == len(cells)
    assert ((found.labels_ == INVALID) == ~np.isfinite(cells).all(axis=1)).all()


def odd_batches() -> dict[str, np.ndarray]:
    cells = batches(6)[0]
    constant = cells.copy()
    constant[:, 2] = 3.3
    line = np.outer(np.linspace(-1, 1, 16), SPREAD) + CENTRES[0]
    holes = cells.copy()
    holes[3, 1], holes[7, 0], holes[9, 2] = np.nan, np.inf, -np.inf
    far = np.vstack([blob(12), [[1e9, 1.5, 3.3]], [[1e9, 1.6, 3.3]]])
    return {
        "constant column": constant,
        "two constant columns": np.column_stack([cells[:, 0], np.full((18, 2), 1.0)]),
        "cells on a line": line,
        "a column mostly the same": np.column_stack([cells[:, :2], [3.3] * 16 + [3.2, 3.4]]),
        "NaN and infinity": holes,
        "negative": -cells,
        "a group of two far away": far,
        "two values many times": np.repeat(CENTRES[:2], 10, axis=0),
        "identical cells and one other": np.vstack([np.repeat(CENTRES[:1], 10, axis=0), CENTRES[1:2]]),
        "three cells": CENTRES,
        "four cells": np.vstack([CENTRES, CENTRES[:1] * 1.1]),
        "huge": cells * 1e200,
        "tiny": cells * 1e-200,
        "one feature": cells[:, :1],
        "mAh among Ah": np.vstack([cells, [[29000.0, 1.5, 3.3]]]),
    }


@pytest.mark.parametrize("wanted", [None, 5])
@pytest.mark.parametrize(
    "make",
    [
        lambda wanted: DBSCANGMM(wanted, max_groups=2),
        lambda wanted: DBSCANGMM(wanted, noise="apart", min_group_size=1, max_groups=2),
        lambda wanted: DBSCANGMM(wanted, variant="published"),
        *(lambda wanted, method=method: BaselineGrouper(method, wanted, starts=1) for method in Baseline),
    ],
)
def test_odd_batches_end_in_a_status(make, wanted):
    for name, cells in odd_batches().items():
        found = make(wanted).fit(cells)
        assert isinstance(found.status_, RegroupStatus), name
        grouped = found.labels_[found.labels_ >= 0]
        assert found.n_groups_ == len(np.unique(grouped)), name
        if found.status_ is RegroupStatus.GROUPED:
            assert found.n_groups_ >= 2, name
            assert np.isfinite(found.validity_.dbi) or found.n_groups_ == len(grouped), name


def test_a_constant_column_has_no_say():
    cells, batch = batches()
    cells[:, 2] = 3.3
    found = DBSCANGMM(3).fit(cells)
    assert list(found.scale_.constant) == [False, False, True]
    assert adjusted_rand_score(batch, found.labels_) == 1.0


def test_cells_too_far_from_each_other_are_all_noise():
    found = DBSCANGMM(eps=1e-3, min_pts=3).fit(blob(10))
    assert found.status_ is RegroupStatus.ALL_NOISE
    assert (found.labels_ == NOISE).all()


def test_one_cluster_is_one_group_as_published():
    found = DBSCANGMM(variant="published", eps=10.0, min_pts=3).fit(blob(10))
    assert found.status_ is RegroupStatus.ONE_GROUP
    assert (found.labels_ == 0).all()


# Repeated values, and two lots that differ in one quantity. Issue 15, point 3

SPEC_18650 = (2.6, 200.0, 2.5)
"""What a difference of one means for an 18650 cell of 2.6 Ah: from ideal to worst, by weight."""


def steps(seed: int, count: int, capacities: int, resistances: int, capacity: float = 0.1) -> np.ndarray:
    """Cells as chargers show them: in steps of 100 mAh and 10 mΩ."""
    random = np.random.default_rng(seed)
    first = np.round(2.0 + capacity * random.integers(0, capacities, count), 3)
    return np.column_stack([first, 50.0 + 10.0 * random.integers(0, resistances, count), np.full(count, 4.1)])


HANGS = [
    [2.2, 50, 4.1],
    [2.2, 60, 4.1],
    [2, 50, 4.1],
    [2, 50, 4.1],
    [2.2, 60, 4.1],
    [2, 60, 4.1],
    [2, 50, 4.1],
    [2, 60, 4.1],
]
CRASHES = [[2.2, 60, 4.1]] * 3 + [[2.0, 50, 4.1]] * 2 + [[2.0, 60, 4.1]]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("scale", [None, SPEC_18650])
@pytest.mark.parametrize(
    "make",
    [
        lambda scale: DBSCANGMM(scale=scale),
        lambda scale: DBSCANGMM(scale=scale, noise="apart", min_group_size=1),
        lambda scale: DBSCANGMM(variant="published", scale=scale),
        lambda scale: DBSCANGMM(4, scale=scale),
        *(lambda scale, method=method: BaselineGrouper(method, starts=1, scale=scale) for method in Baseline),
    ],
)
def test_repeated_values_end_in_groups_or_a_status(make, scale):
    random = np.random.default_rng(1)
    sets = [np.array(HANGS), np.array(CRASHES), np.repeat([[2.0, 50.0, 4.1]], 5, axis=0), np.empty((0, 3))]
    sets += [np.array(HANGS)[:count] for count in (1, 2, 3, 4, 5)]
    sets += [steps(seed, *random.integers([4, 1, 1], [40, 5, 5]).tolist()) for seed in range(12)]
    sets += [
        steps(seed, 24, 2, 1) + 1e-13 * random.normal(size=(24, 3)) for seed in range(2)
    ]  # but for last digits
    for cells in sets:
        with warnings.catch_warnings():
            warnings.simplefilter("error", category=RuntimeWarning)
            found = make(scale).fit(cells)
        assert len(found.labels_) == len(cells)
        grouped = found.labels_[found.labels_ >= 0]
        assert found.n_groups_ == len(np.unique(grouped))


@settings(max_examples=25, deadline=20_000, derandomize=True)
@given(data=st.data())
def test_any_set_of_ties_twins_and_single_cells_ends(data):
    values = [[1.9, 2.0, 2.0000000000000004, 2.2], [40.0, 50.0, 60.0], [3.6, 4.1]]
    chosen = [data.draw(st.lists(st.sampled_from(each), min_size=1, unique=True)) for each in values]
    rows = data.draw(st.lists(st.tuples(*(st.sampled_from(each) for each in chosen)), max_size=16))
    cells = np.array(rows, float).reshape(-1, 3)
    found = DBSCANGMM(scale=data.draw(st.sampled_from([None, SPEC_18650]))).fit(cells)
    assert (found.labels_ >= 0).all() or found.status_ is not RegroupStatus.GROUPED
    again = DBSCANGMM(scale=found.scale).fit(cells[::-1])
    assert again.validity_.si == pytest.approx(found.validity_.si, nan_ok=True)


@pytest.mark.parametrize("scale", [None, SPEC_18650])
@pytest.mark.parametrize("count", [60, 500, 1500])
def test_twelve_kinds_of_identical_cells_are_twelve_groups(scale, count):
    cells = steps(2, count, 4, 3)
    found = DBSCANGMM(scale=scale).fit(cells)
    assert found.n_groups_ == len(np.unique(cells, axis=0)) == 12
    assert found.validity_.si == pytest.approx(1.0)
    for group in range(12):
        assert len(np.unique(cells[found.labels_ == group], axis=0)) == 1
    assert DBSCANGMM(max_groups=5, scale=scale).fit(cells).n_groups_ <= 5  # what is said counts


def test_two_values_are_two_groups_for_every_method():
    cells = np.repeat([[2.2, 50.0, 4.1], [2.0, 50.0, 4.1]], 6, axis=0)
    for make in (
        DBSCANGMM,
        lambda: DBSCANGMM(variant="published"),
        *(lambda m=m: BaselineGrouper(m) for m in Baseline),
    ):
        found = make().fit(cells)
        assert found.n_groups_ == 2
        assert found.validity_.si == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [None, SPEC_18650])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("resistance", "draw"), [(45.0, "uniform"), (20.0, "uniform"), (45.0, "normal"), (80.0, "normal")]
)
def test_two_lots_that_differ_in_capacity_alone_are_two_groups(scale, seed, resistance, draw):
    random = np.random.default_rng(seed)
    noise = random.uniform(-1, 1, (120, 3)) if draw == "uniform" else random.normal(size=(120, 3))
    cells = np.column_stack([np.repeat([2.2, 1.7], 60), np.full(120, resistance), np.full(120, 3.65)])
    cells += noise * [0.01, 1.0, 0.002]  # ±10 mAh, ±1 mΩ, ±2 mV
    found = DBSCANGMM(scale=scale).fit(cells)
    assert found.n_groups_ == 2
    assert (found.labels_ == np.repeat([0, 1], 60)).all()
    assert found.validity_.si > 0.9


def test_what_has_no_weight_has_no_say_in_groups_and_may_be_missing():
    cells, batch = batches(12)
    cells[:, 2] = np.nan
    cells[3, 2] = 9.9e37
    found = regroup(cells, options=RegroupOptions(scale=(6.0, 1.5, np.inf), n_groups=3))
    assert not found.reasons
    assert adjusted_rand_score(batch, found.groups) == 1.0
    assert regroup(cells, options=RegroupOptions(scale=(6.0, 1.5, 0.1))).reasons


def test_all_methods_are_judged_in_the_scale_of_the_specification():
    cells, batch = batches(12)
    scale = np.array([6.0, 1.5, 0.1])
    expected = silhouette_score(cells / scale, batch)
    for make in (
        lambda: DBSCANGMM(3, scale=scale),
        lambda: DBSCANGMM(3, variant="published", scale=scale),
        lambda: BaselineGrouper("kmeans", 3, scale=scale),
    ):
        found = make().fit(cells)
        assert adjusted_rand_score(batch, found.labels_) == 1.0
        assert found.validity_.si == pytest.approx(expected)


# DBSCAN


def test_dbscan_is_that_of_scikit_learn_but_for_border_cells():
    cells = RobustScale.of(batches(30)[0])(batches(30)[0])
    for parameters in trials(cells):
        known = DBSCAN(eps=parameters.eps, min_samples=parameters.min_pts).fit(cells)
        ours = dbscan(cells, parameters)
        core = known.core_sample_indices_
        assert ((ours == NOISE) == (known.labels_ == NOISE)).all()
        assert (ours[core] == known.labels_[core]).all()


def test_bins_give_the_labels_of_plain_dbscan_but_for_a_few_border_cells(monkeypatch):
    cells = RobustScale.of(batches(1500)[0])(batches(1500)[0])
    parameters = Parameters(0.15, 20)
    plain = dbscan(cells, parameters)
    monkeypatch.setattr(density, "EXACT_CELLS", 1000)
    binned = dbscan(cells, parameters)
    assert plain.max() == binned.max() == 2
    assert adjusted_rand_score(plain, binned) > 0.98


def test_trials_cover_one_cluster_to_mostly_noise():
    cells = RobustScale.of(batches()[0])(batches()[0])
    found = list(densities(cells))
    noise = [(labels == NOISE).mean() for _, labels in found]
    assert min(noise) < 0.05 and max(noise) > 0.3
    assert len({labels.tobytes() for _, labels in found}) == len(found)


def test_a_large_batch_is_grouped_from_a_part_of_it(monkeypatch):
    monkeypatch.setattr(density, "SEARCH_CELLS", 120)
    monkeypatch.setattr(density, "EXACT_CELLS", 1000)
    cells, batch = batches(500)
    found = DBSCANGMM(max_groups=4).fit(cells)
    assert adjusted_rand_score(batch, found.labels_) > 0.999
    assert found.min_pts_ > 20  # as many more neighbours as there are more cells
    assert found.noise_found_.mean() < 0.2
    order = np.random.default_rng(0).permutation(len(cells))
    assert (DBSCANGMM(max_groups=4).fit_predict(cells[order]) == found.labels_[order]).all()


# Mixture


def test_log_likelihood_never_falls_much_and_responsibilities_sum_to_one():
    rows = RobustScale.of(batches()[0])(batches()[0])
    fitter = Fitter(rows, np.ones(len(rows)))
    mixture = fitter.start(np.arange(len(rows)) % 3)
    before = -np.inf
    for _ in range(20):
        mixture = Fitter(rows, np.ones(len(rows)), max_iterations=2, tolerance=0).fit(mixture)
        assert mixture.log_likelihood > before - 0.02  # the prior is maximised too
        before = mixture.log_likelihood
    assert np.allclose(mixture.responsibilities(rows).sum(axis=1), 1)
    assert mixture.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("shape", Shape)
def test_a_group_of_two_cells_has_a_covariance_that_can_be_inverted(shape):
    rows = np.vstack([np.random.default_rng(0).normal(size=(20, 3)), [[30.0, 0, 0], [30.0, 0, 1e-9]]])
    mixture = Fitter(rows, np.ones(22), shape).start(np.repeat([0, 1], [20, 2]))
    mixture = Fitter(rows, np.ones(22), shape).fit(mixture)
    assert np.linalg.cond(mixture.covariances).max() < 1000
    assert (mixture.assign(rows) == np.repeat([0, 1], [20, 2])).all()


@pytest.mark.parametrize("shape", Shape)
def test_covariances_approach_those_of_the_cells(shape):
    random = np.random.default_rng(2)
    root = np.array([[2.0, 0, 0], [1.0, 1.0, 0], [0, 0, 0.5]])
    rows = random.normal(size=(20_000, 3)) @ root.T
    covariance = Fitter(rows, np.ones(len(rows)), shape).start(np.zeros(len(rows), int)).covariances[0]
    true = root @ root.T
    if shape is Shape.DIAGONAL:
        true = np.diag(np.diag(true))
    elif shape is Shape.SPHERICAL:
        true = np.trace(true) / 3 * np.eye(3)
    assert np.allclose(covariance, true, atol=0.1)


def test_weights_count_like_repeated_rows():
    rows = np.random.default_rng(0).normal(size=(30, 2))
    weights = np.random.default_rng(1).integers(1, 4, 30)
    labels = (rows[:, 0] > 0).astype(int)
    weighted = Fitter(rows, weights.astype(float))
    repeated = Fitter(np.repeat(rows, weights, axis=0), np.ones(weights.sum()))
    first = weighted.fit(weighted.start(labels, medoids=False))
    second = repeated.fit(repeated.start(np.repeat(labels, weights), medoids=False))
    means = [weighted.rows[labels == group].mean(axis=0) for group in (0, 1)]
    assert np.allclose(first.means, second.means)
    assert np.allclose(first.covariances, second.covariances)
    assert isinstance(first, Mixture) and len(means) == 2


# Indices


def test_indices_are_those_of_scikit_learn_without_noise():
    rows = np.random.default_rng(0).normal(size=(50, 3))
    labels = np.arange(50) % 3
    found = judge(rows, labels)
    assert found.si == found.si_kept == pytest.approx(silhouette_score(rows, labels))
    assert found.dbi == found.dbi_kept == pytest.approx(davies_bouldin_score(rows, labels))
    assert Distances(rows).si(labels) == pytest.approx(found.si)


def test_noise_lowers_the_silhouette_and_goes_to_the_nearest_centre():
    rows, labels = batches(10)
    rows = RobustScale.of(rows)(rows)
    dropped = labels.copy()
    dropped[::4] = NOISE
    found = judge(rows, dropped)
    kept = dropped != NOISE
    assert found.noise_fraction == pytest.approx((~kept).mean())
    assert found.si_kept == pytest.approx(silhouette_score(rows[kept], labels[kept]))
    assert found.si == pytest.approx(found.si_kept * kept.mean())
    assert found.dbi == pytest.approx(davies_bouldin_score(rows, labels))
    assert Distances(rows).si(dropped) == pytest.approx(found.si)


def test_invalid_cells_are_not_counted():
    rows, labels = batches(10)
    with_invalid = judge(np.vstack([rows, [[np.nan] * 3]]), np.append(labels, INVALID))
    assert with_invalid == judge(rows, labels)


def test_one_group_has_no_indices():
    found = judge(np.zeros((4, 3)), np.zeros(4, int))
    assert np.isnan(found.si) and np.isnan(found.dbi)
    assert found.as_dict()["si"] is None
    assert np.isnan(davies_bouldin(np.zeros((4, 3)), np.zeros(4, int)))


def test_a_cell_alone_has_silhouette_zero():
    rows = np.array([[0.0], [0.1], [5.0]])
    labels = np.array([0, 0, 1])
    distances = Distances(rows)
    assert silhouettes(*distances.sums(labels, 2), labels)[2] == 0


# Scale


def test_scale_is_not_set_by_an_outlier():
    cells = blob(50)
    plain, spoilt = RobustScale.of(cells), RobustScale.of(np.vstack([cells, [[1e6, 1e6, 1e6]]]))
    assert np.allclose(spoilt.width, plain.width, rtol=0.1)


def test_normal_features_come_out_with_deviation_one():
    assert np.allclose(RobustScale.of(blob(20_000))(blob(20_000)).std(axis=0), 1, atol=0.03)


# Batches of graded cells


def test_groups_stay_within_the_grades_and_have_their_names():
    cells, batch = batches()
    grades = np.array(["A", "B", "C"])[batch]
    found = regroup(cells, grades, RegroupOptions(n_groups=2))
    assert [part.name for part in found.parts] == ["A", "B", "C"]
    assert set(found.counts()) == {"A1", "A2", "B1", "B2", "C1", "C2"}
    assert sum(found.counts().values()) == len(cells)
    assert all(group[0] == grade for group, grade in zip(found.groups, grades, strict=True))


def test_across_the_grades_batches_are_found():
    cells, batch = batches()
    found = regroup(
        cells, np.array(["A", "B", "C"])[(batch + np.arange(60)) % 3], RegroupOptions(across=True, max_groups=4)
    )
    assert [part.name for part in found.parts] == ["all"]
    assert adjusted_rand_score(batch, found.groups.astype(str)) == 1.0
    assert found.si() == pytest.approx(found.parts[0].validity.si)


def test_cells_in_no_group_have_a_reason():
    cells, _ = batches()
    cells[0, 0], cells[1, 1], cells[2, 2] = np.nan, -1.0, np.inf
    grades = np.array(["B"] * 57 + ["D"] * 2 + ["invalid"])
    found = regroup(cells, grades, RegroupOptions(n_groups=3))
    assert (found.groups[[0, 1, 2, 57, 58, 59]] == "").all()
    assert set(found.reasons) == {0, 1, 2, 57, 58, 59}
    assert "D" in found.reasons[57]
    assert (found.groups[3:57] != "").all()


def test_nothing_to_regroup_is_no_error():
    found = regroup(np.empty((0, 3)), np.empty(0, str))
    assert found.counts() == {} and np.isnan(found.si()) and found.noise_fraction() == 0.0
    found = regroup(CENTRES, np.array(["D", "D", "D"]))
    assert found.parts == []


@pytest.mark.parametrize("method", Method)
def test_every_method_regroups(method):
    cells, batch = batches()
    found = regroup(cells, None, RegroupOptions(method, 3))
    assert adjusted_rand_score(batch, found.groups.astype(str)) > 0.8


def test_too_many_cells_for_a_method_is_said(monkeypatch):
    monkeypatch.setattr("battery_sorting.grading.groups.MOST_AGGLOMERATED", 10)
    with pytest.raises(ConfigurationError, match="dbscan-gmm"):
        regroup(blob(20), None, RegroupOptions(Method.AGGLOMERATIVE, 2))

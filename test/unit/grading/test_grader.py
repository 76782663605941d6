"""Grades: what they depend on, what keeps a cell from one, and how sure they are."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.grading import CellGrader, CellSpec, CellTable
from battery_sorting.grading.specification import Weights

SPEC = CellSpec.load("lfp-20ah")
GOOD = [19.5, 1.55, 3.2]

values = st.floats(allow_nan=True, allow_infinity=True, width=64)
measured = st.tuples(st.floats(0, 30), st.floats(0.2, 50), st.floats(0, 4.2))
cell = st.one_of(measured, st.tuples(values, values, values))


def grader(norm="spec", batch=(GOOD,), **changes):
    spec = SPEC.model_copy(update=changes) if changes else SPEC
    return CellGrader(spec, norm).fit(np.array(batch, float).reshape(-1, 3))


def grades(rows, **options):
    rows = np.array(rows, float).reshape(-1, 3)
    return CellGrader(SPEC, **options).fit(rows).grade(rows)


# ---- what a grade depends on ----


@given(st.lists(cell, min_size=1, max_size=20), st.lists(cell, max_size=10))
@settings(max_examples=80, deadline=None)
def test_a_cells_grade_depends_on_nothing_but_the_cell(cells, others):
    alone = [grades([each]).grades[0] for each in cells]
    together = grades([*cells, *others])
    assert together.grades[: len(cells)].tolist() == alone


@given(st.lists(cell, min_size=1, max_size=20), st.floats(-1e12, 1e12), st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_an_added_outlier_changes_no_grade(cells, outlier, column):
    bad = list(GOOD)
    bad[column] = outlier
    assert grades([*cells, bad]).grades[:-1].tolist() == grades(cells).grades.tolist()


@given(st.lists(cell, min_size=2, max_size=20), st.randoms())
@settings(max_examples=50, deadline=None)
def test_a_shuffle_changes_nothing(cells, random):
    order = list(range(len(cells)))
    random.shuffle(order)
    for norm in ("spec", "batch"):
        plain, shuffled = grades(cells, norm=norm), grades([cells[row] for row in order], norm=norm)
        assert shuffled.grades.tolist() == plain.grades[order].tolist()
        assert np.array_equal(shuffled.degrees, plain.degrees[order], equal_nan=True)


def test_in_a_batch_an_outlier_does_change_the_others():
    rng = np.random.default_rng(1)
    cells = np.column_stack([rng.uniform(15, 19, 50), rng.uniform(1.6, 2.2, 50), rng.uniform(3.15, 3.2, 50)])
    outlier = [7, 6, 2.5]
    changed = grades([*cells, outlier], norm="batch").grades[:-1] != grades(cells, norm="batch").grades
    assert changed.sum() > 10


# ---- grades, gates, mistakes ----


def with_degree(degree):
    """Capacity at which a cell that is ideal else has this relation degree: ξ = ρ / (Δ + ρ)."""
    weight = SPEC.weight_array()[0]
    coefficient = (degree - (1 - weight)) / weight
    return 20 - 6 * (0.5 / coefficient - 0.5)


def test_grades_begin_at_the_boundaries():
    exact = {"weights": SPEC.weights}
    at_a = grader(**exact).predict([[with_degree(0.8), 1.5, 3.2], [with_degree(0.8) - 0.001, 1.5, 3.2]])
    assert at_a.tolist() == ["A", "B"]


@pytest.mark.parametrize(
    ("distance", "degree", "grade"), [(0.125, 0.8, "A"), (1 / 3, 0.6, "B"), (7 / 6, 0.3, "D"), (1.16, 0.301, "C")]
)
def test_a_and_b_include_their_boundary_and_c_does_not(distance, degree, grade):
    cells = [[20 - 6 * distance, 1.5 + 1.5 * distance, 3.2 - 0.05 * distance]]
    assert grader().decision_function(cells)[0] == pytest.approx(degree, abs=1e-3)
    assert grader().predict(cells)[0] == grade


def test_too_little_capacity_is_grade_d_whatever_the_rest():
    found = grades([[5.9, 1.5, 3.2], [6.0, 1.5, 3.2]])
    assert found.grades.tolist() == ["D", "B"]
    assert found.reasons == {0: "capacity_ah 5.9 is below the limit of 6"}
    assert found.degrees[0] > 0.6


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([29000, 1.5, 3.2], "capacity_ah 29000 is not within 0 to 30"),
        ([19000, 1.5, 3.2], "is it in mAh?"),
        ([19, 0.0015, 3.2], "is it in Ω?"),
        ([19, 1500, 3.2], "is it in µΩ?"),
        ([19, 1.5, 3200], "is it in mV?"),
        ([np.nan, 1.5, 3.2], "capacity_ah is not a finite number"),
        ([19, np.inf, 3.2], "resistance_mohm is not a finite number"),
        ([19, 1.5, -3.2], "ocv_v is negative"),
    ],
)
def test_what_can_not_be_is_invalid_and_says_why(values, expected):
    found = grades([GOOD, values])
    assert found.grades.tolist() == ["A", "invalid"]
    assert found.statuses.tolist() == ["graded", "invalid"]
    assert expected in found.reasons[1]
    assert np.isnan(found.degrees[1])
    assert np.isnan(found.probabilities[1]).all()
    assert found.counts() == {"A": 1, "B": 0, "C": 0, "D": 0, "invalid": 1}


@pytest.mark.parametrize("norm", ["spec", "batch"])
@pytest.mark.parametrize(
    "cells",
    [
        np.zeros((0, 3)),
        [GOOD],
        [GOOD] * 5,
        [[18, 1.6, 3.2], [17, 1.6, 3.2], [16, 1.6, 3.2]],
        [[np.nan] * 3] * 3,
        [[np.inf, -np.inf, np.nan], [-1, -1, -1]],
        [[0, 0.2, 0]],
    ],
)
def test_edge_cases_end_in_a_status(norm, cells):
    found = grades(cells, norm=norm)
    assert len(found) == len(np.array(cells).reshape(-1, 3))
    assert set(found.grades.tolist()) <= {"A", "B", "C", "D", "invalid"}
    assert all(row in found.reasons for row in np.flatnonzero(found.grades == "invalid"))


def test_identical_cells_can_not_be_compared_in_a_batch():
    found = grades([GOOD] * 3, norm="batch")
    assert found.grades.tolist() == ["invalid"] * 3
    assert "use norm 'spec'" in found.reasons[0]


# ---- uncertainty ----


def by_drawing(model, values, spread, count=100_000):
    rng = np.random.default_rng(3)
    drawn = np.abs(np.asarray(values) + rng.normal(size=(count, 3)) * spread)
    wide = model.spec_.plausible.model_copy(
        update=dict.fromkeys(("capacity_ah", "resistance_mohm", "ocv_v"), (0.0, 1e6))
    )
    wide_model = CellGrader(model.spec_.model_copy(update={"plausible": wide}), model.norm).fit([GOOD])
    wide_model.norm_ = model.norm_
    found = wide_model.predict(drawn)
    return np.array([(found == grade).mean() for grade in "ABCD"])


@pytest.mark.parametrize("norm", ["spec", "batch"])
@pytest.mark.parametrize(
    ("values", "spread"),
    [
        ([18.5, 1.7, 3.19], [0.5, 0.1, 0.01]),
        ([19.9, 1.53, 3.19], [0.9, 0.3, 0.0]),  # the ideal within reach: flat on its good side
        ([6.3, 1.6, 3.2], [0.5, 0.05, 0.0]),  # a gate within reach
        ([15, 2.5, 3.2], [0, 0, 0.05]),
        ([12, 3.5, 3.1], [1.0, 0.0, 0.03]),
    ],
)
def test_probabilities_are_those_of_drawing_errors(norm, values, spread):
    batch = [[18, 1.6, 3.19], [15, 2.2, 3.15], [17, 1.9, 3.21], [12, 2.0, 3.1]]
    model = grader(norm, batch)
    found = model.predict_proba([values], spread)[0]
    assert found.sum() == pytest.approx(1)
    assert found == pytest.approx(by_drawing(model, values, spread), abs=0.008)


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.5, 0)])
def test_probabilities_hold_where_an_indicator_does_not_count(weights):
    chosen = dict(zip(("capacity", "resistance", "ocv"), map(float, weights), strict=True))
    model = grader(comparisons=None, weights=Weights.model_validate(chosen))
    found = model.predict_proba([[18.5, 1.8, 3.19]], [0.6, 0.2, 0.01])[0]
    assert found == pytest.approx(by_drawing(model, [18.5, 1.8, 3.19], [0.6, 0.2, 0.01]), abs=0.008)


@pytest.mark.parametrize("spread", [1e300, 1e-300])
def test_absurd_uncertainties_still_give_probabilities(spread):
    found = grader().predict_proba([[18.5, 1.8, 3.19]], [spread] * 3)[0]
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()


def test_a_grade_without_uncertainty_is_certain():
    assert grader().predict_proba([GOOD, [5, 9, 2.9]]).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]


def test_a_toss_up_is_to_be_measured_again():
    capacity = with_degree(0.8)
    found = grader().grade([[capacity, 1.5, 3.2], [19.9, 1.5, 3.2]], [0.3, 0.01, 0.001])
    assert found.statuses.tolist() == ["re-measure", "graded"]
    assert "leaves the grade open: A " in found.reasons[0]
    assert found.undecided == 1


def test_uncertainties_of_the_table_come_before_those_of_the_site():
    capacity = with_degree(0.8) + 0.2
    table = CellTable.of_arrays(
        [capacity] * 2, [1.5] * 2, [3.2] * 2, uncertainty=[[0.01, 0, 0], [np.nan, np.nan, np.nan]]
    )
    site = SPEC.ideal.model_copy(update={"capacity_ah": 1.0, "resistance_mohm": 0.0, "ocv_v": 0.0})
    found = grader(uncertainty=site).grade(table)
    assert found.statuses.tolist() == ["graded", "re-measure"]


# ---- an estimator ----


def test_it_is_an_estimator():
    model = CellGrader("lfp-35ah", norm="batch")
    assert model.get_params() == {"spec": "lfp-35ah", "norm": "batch"}
    twin = clone(model).set_params(norm="spec")
    assert (twin.spec, twin.norm, model.norm) == ("lfp-35ah", "spec", "batch")
    assert twin.fit([GOOD]).predict([GOOD]).shape == (1,)
    pipeline = make_pipeline(FunctionTransformer(), CellGrader("lfp-20ah"))
    assert pipeline.fit([GOOD]).predict([GOOD]).tolist() == ["A"]
    with pytest.raises(ValueError, match="'kind' is no parameter"):
        model.set_params(kind="x")


def test_misuse_is_told():
    with pytest.raises(ValueError, match="fit the grader"):
        CellGrader(SPEC).predict([GOOD])
    with pytest.raises(ValueError, match="must be 'spec' or 'batch'"):
        CellGrader(SPEC, norm="lot").fit([GOOD])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must be \(n, 3\)"):
        grader().predict([[1, 2]])
    with pytest.raises(ValueError, match="not negative"):
        grader().predict_proba([GOOD], [-1, 0, 0])
    with pytest.raises(ConfigurationError, match="did you mean 'lfp-20ah'"):
        CellGrader("lfp-20a").fit([GOOD])


def test_grading_does_not_import_scikit_learn():
    program = (
        "import sys; from battery_sorting.grading import CellGrader\n"
        "CellGrader('lfp-20ah').fit([[19, 1.6, 3.2]]).grade([[19, 1.6, 3.2]], [1, .1, .01])\n"
        "sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# ---- specifications ----


@pytest.mark.parametrize("name", ["lfp-20ah", "lfp-35ah", "lmo-10ah", "nmc-21ah"])
def test_shipped_specifications_load_with_the_papers_weights(name):
    spec = CellSpec.load(name)
    assert spec.weight_array().round(4).tolist() == [0.3176, 0.4548, 0.2276]
    assert CellGrader(spec).fit([GOOD]).predict([spec.ideal.as_array()]).tolist() == ["A"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["boundaries={a: 0.5, b: 0.6, c: 0.3}"], "must descend from a to c"),
        (["boundaries.a=80"], "given in percent"),
        (["comparisons.indicators.security=[[1,1/5,9],[5,1,3],[1/9,1/3,1]]"], "indicators.security: .*contradict"),
        (["comparisons.importance=[[1,3],[1/3,1]]"], "as many rows|2 things"),
        (["comparisons.criteria=[security]"], "one matrix for each of the criteria"),
        (["comparisons=null"], "either weights or comparisons"),
        (["comparisons=null", "weights={capacity: 0.5, resistance: 0.4, ocv: 0.2}"], "add up to 1"),
        (["worst.capacity_ah=25"], "worst.capacity_ah must be below"),
        (["worst.ocv_v=3.2"], "worst.ocv_v must differ"),
        (["plausible.capacity_ah=[30, 0]"], "ascending order"),
        (["plausible.resistance_mohm=[2, 50]"], "ideal.resistance_mohm is 1.5, but plausible"),
        (["columns={capacity: {unit: kwh}}"], "must be one of ah, mah, not 'kwh'"),
        (["columns={weight: {unit: g}}"], "must be one of id, capacity"),
        (["rho=0"], "rho"),
        (["idael=1"], "did you mean 'ideal'"),
    ],
)
def test_faults_of_a_specification_are_told_with_their_place(changes, expected):
    with pytest.raises(ConfigurationError, match=expected):
        CellSpec.load("lfp-20ah", changes)


def test_a_specification_may_be_a_file_or_a_name_with_its_ending(tmp_path):
    assert CellSpec.load("lfp-20ah.yaml").name == "lfp-20ah"
    own = tmp_path / "own.yaml"
    text = (
        "name: own\nchemistry: NMC\nnominal_capacity_ah: 50\n"
        "ideal: {capacity_ah: 50, resistance_mohm: 0.8, ocv_v: 3.7}\n"
        "worst: {capacity_ah: 35, resistance_mohm: 1.6, ocv_v: 3.6}\n"
        "weights: {capacity: 0.5, resistance: 0.3, ocv: 0.2}\n"
        "plausible: {capacity_ah: [0, 75], resistance_mohm: [0.1, 20], ocv_v: [0, 4.5]}\n"
    )
    own.write_text(text, encoding="utf-8")
    assert CellSpec.load(str(own)).weight_array().tolist() == [0.5, 0.3, 0.2]


def test_what_has_neither_weight_nor_gate_may_be_missing():
    """Issue 15, point 4."""
    spec = CellSpec.load("lfp-20ah", ["comparisons=null", "weights={capacity: 0.6, resistance: 0.4, ocv: 0}"])
    no_gate = spec.model_copy(update={"gates": spec.gates.model_copy(update={"min_ocv_v": None})})
    values = [[19.5, 1.55, np.nan], [19.5, 1.55, 9.9e37], [19.5, np.nan, 3.2], [0.0, 1.55, 3.2]]
    grades = CellGrader(no_gate).fit(values).grade(values, uncertainty=[0.1, 0.01, 0.001])
    assert grades.grades.tolist() == ["A", "A", "invalid", "invalid"]
    assert np.isfinite(grades.probabilities[:2]).all()
    assert spec.heard() == ("capacity", "resistance", "ocv")  # with its gate the voltage has a say
    assert CellGrader(spec).fit(values).predict(values).tolist()[0] == "invalid"
    assert no_gate.units()[2] == np.inf

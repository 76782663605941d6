"""Grey relational analysis, as published and against a specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from battery_sorting.grading.relational import RelationalNorm, relation_degree

IDEAL, WORST = [20, 1.5, 3.2], [14, 3.0, 3.1]
WEIGHTS = [0.3176, 0.4548, 0.2276]
SPEC = RelationalNorm.of_spec(IDEAL, WORST)


def as_printed(batch, ideal, rho=0.5):
    """Equations 9 (its sign mended) to 11, word by word."""
    batch, ideal = np.asarray(batch, float), np.asarray(ideal, float)
    low, high = batch.min(axis=0), batch.max(axis=0)
    h, reference = (batch - low) / (high - low), (ideal - low) / (high - low)
    h[:, 1], reference[1] = ((high - batch) / (high - low))[:, 1], ((high - ideal) / (high - low))[1]
    distance = np.abs(reference - h)
    return (distance.min() + rho * distance.max()) / (distance + rho * distance.max())


def test_batch_norm_is_the_published_one():
    batch = np.array([[18, 1.6, 3.19], [15, 2.2, 3.15], [17, 1.9, 3.21], [12, 2.0, 3.1]])
    found = RelationalNorm.of_batch(batch, IDEAL).coefficients(batch)
    assert found == pytest.approx(as_printed(batch, IDEAL))


def test_batch_degree_cannot_fall_below_a_third():
    batch = np.array([[18, 1.6, 3.19], [2, 30, 1.0], [17, 1.9, 3.21]])
    degrees = relation_degree(RelationalNorm.of_batch(batch, IDEAL).coefficients(batch), WEIGHTS)
    assert degrees.min() >= 1 / 3 - 1e-12


def test_spec_norm_is_one_at_the_ideal_and_a_third_at_the_worst():
    assert SPEC.coefficients([IDEAL, WORST]) == pytest.approx(np.array([[1, 1, 1], [1 / 3, 1 / 3, 1 / 3]]))


def test_better_than_ideal_is_no_fault_in_capacity_and_resistance_but_in_voltage():
    assert SPEC.coefficients([[25, 1.0, 3.3]]) == pytest.approx(np.array([[1, 1, 1 / 3]]))


def test_spec_degree_falls_below_grade_c():
    assert relation_degree(SPEC.coefficients([[5, 6, 2.9]]), WEIGHTS)[0] < 0.3


def test_the_distinguishing_coefficient_sets_the_degree_at_the_worst():
    norm = RelationalNorm.of_spec(IDEAL, WORST, rho=1.0)
    assert norm.coefficients([WORST]) == pytest.approx(np.array([[0.5, 0.5, 0.5]]))


@given(arrays(float, (20, 3), elements=st.floats(0.01, 100)), st.floats(0.05, 1.0))
def test_farthest_and_interval_undo_the_coefficient(values, wanted):
    for indicator in range(3):
        low, high = SPEC.interval(indicator, SPEC.farthest(np.array(wanted)))
        reached = SPEC.coefficient(indicator, values[:, indicator]) >= wanted
        inside = (values[:, indicator] >= low) & (values[:, indicator] <= high)
        edge = np.isclose(SPEC.coefficient(indicator, values[:, indicator]), wanted)
        assert (reached == inside)[~edge].all()


def test_a_column_without_spread_is_scaled_by_its_distance_from_the_ideal():
    batch = np.array([[18, 1.6, 3.1], [15, 2.2, 3.1], [17, 1.9, 3.1]])
    found = RelationalNorm.of_batch(batch, IDEAL).coefficients(batch)
    assert np.isfinite(found).all()
    assert np.ptp(found[:, 2]) == 0
    at_ideal = batch.copy()
    at_ideal[:, 2] = 3.2
    assert RelationalNorm.of_batch(at_ideal, IDEAL).coefficients(at_ideal)[:, 2] == pytest.approx(1.0)


@pytest.mark.parametrize("batch", [np.zeros((0, 3)), [[18, 1.6, 3.19]], [[18, 1.6, 3.19]] * 4])
def test_a_batch_with_nothing_to_compare_gives_no_number(batch):
    assert np.isnan(RelationalNorm.of_batch(batch, IDEAL).coefficients([[18, 1.6, 3.19]])).all()

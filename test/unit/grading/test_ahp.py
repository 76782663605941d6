"""Analytic hierarchy process: the paper's figures, and comparisons that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from battery_sorting.grading.ahp import MAX_RATIO, RANDOM_INDEX, ComparisonError, priorities, synthesise

CRITERIA = [[1, 3, 3], [1 / 3, 1, 1], [1 / 3, 1, 1]]
SECURITY = [[1, 1 / 5, 1 / 3], [5, 1, 3], [3, 1 / 3, 1]]
CONVERSION = [[1, 5, 3], [1 / 5, 1, 1 / 3], [1 / 3, 3, 1]]
DEGRADATION = [[1, 3, 5], [1 / 3, 1, 3], [1 / 5, 1 / 3, 1]]


def of_weights(weights):
    weights = np.asarray(weights, float)
    return weights[:, None] / weights


def test_the_papers_weights_come_out_to_four_digits():
    below = [priorities(matrix) for matrix in (SECURITY, CONVERSION, DEGRADATION)]
    total = synthesise(priorities(CRITERIA), below)
    assert total.round(4).tolist() == [0.3176, 0.4548, 0.2276]
    assert below[0].weights.round(4).tolist() == [0.1047, 0.6370, 0.2583]


@pytest.mark.parametrize("matrix", [SECURITY, CONVERSION, DEGRADATION])
def test_the_papers_consistency_comes_out_to_four_digits(matrix):
    found = priorities(matrix)
    assert round(found.largest_eigenvalue, 4) == 3.0385
    assert round(found.consistency_index, 4) == 0.0193
    assert round(found.consistency_ratio, 4) == 0.0332


@pytest.mark.parametrize("size", range(1, 11))
def test_consistent_comparisons_of_any_number_give_their_weights_back(size):
    weights = np.arange(1, size + 1) / np.arange(1, size + 1).sum()
    found = priorities(of_weights(weights))
    assert found.weights == pytest.approx(weights)
    assert found.consistency_ratio == pytest.approx(0, abs=1e-9)


def test_two_things_cannot_contradict_each_other():
    found = priorities([[1, 9], [1 / 9, 1]])
    assert found.weights == pytest.approx([0.9, 0.1])
    assert found.consistency_ratio == 0


def test_the_random_index_is_that_of_saaty():
    assert [RANDOM_INDEX[n] for n in range(3, 11)] == [0.58, 0.9, 1.12, 1.24, 1.32, 1.41, 1.45, 1.49]


@pytest.mark.parametrize(("row", "column"), [(0, 1), (1, 3), (2, 4), (0, 4)])
def test_a_contradiction_names_the_comparison_that_is_wrong(row, column):
    matrix = of_weights([5, 4, 3, 2, 1])
    right = matrix[row, column]
    matrix[row, column], matrix[column, row] = 1 / 9, 9
    names = ["red", "green", "blue", "white", "black"]
    with pytest.raises(ComparisonError) as error:
        priorities(matrix, names)
    assert f"'{names[row]}' against '{names[column]}'" in str(error.value)
    assert f"is 1/9, the others say about {right:.3g}" in str(error.value)


def test_a_ratio_of_just_below_a_tenth_is_taken_and_above_it_is_not():
    def ratio(value):
        return [[1, value, 1], [1 / value, 1, 1], [1, 1, 1]]

    assert 0.09 < priorities(ratio(2.75)).consistency_ratio < MAX_RATIO
    with pytest.raises(ComparisonError, match=r"at most 0\.1"):
        priorities(ratio(3))


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1, 3], [1, 1]], "the other way round must be 1/3, not 1"),
        ([[2, 3], [1 / 3, 1]], "compared with itself must be 1, not 2"),
        ([[1, -3], [-1 / 3, 1]], "positive numbers"),
        ([[1, 0], [0, 1]], "positive numbers"),
        ([[1, float("nan")], [1, 1]], "positive numbers"),
        ([[1, 2, 3], [1, 1, 1]], "as many rows as columns"),
        ([], "as many rows as columns"),
        (np.ones((11, 11)), "at most 10"),
    ],
)
def test_what_is_no_comparison_is_refused_with_the_reason(matrix, expected):
    with pytest.raises(ComparisonError, match=expected):
        priorities(matrix)


def test_rounded_fractions_are_taken_for_what_was_meant():
    assert priorities([[1, 3, 3], [0.33, 1, 1], [0.33, 1, 1]]).weights == pytest.approx([0.6, 0.2, 0.2])

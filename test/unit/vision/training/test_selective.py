"""Purity over coverage, and the threshold at which a purity may be claimed."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("scipy") is None:
    pytest.skip("needs requirements/train.txt", allow_module_level=True)

from battery_sorting.vision.training.selective import (
    area_under_risk,
    pictures_needed,
    purity_bound,
    purity_coverage,
    threshold_for_purity,
)


def test_a_claim_of_997_in_a_thousand_takes_998_pictures_without_an_error():
    assert pictures_needed(0.997, 0.95) == 998
    assert purity_bound(997, 997) < 0.997 <= purity_bound(998, 998)


@pytest.mark.parametrize("wrong", [0, 1, 2, 7])
@pytest.mark.parametrize("target", [0.6, 0.95, 0.997])
def test_pictures_needed_is_the_fewest(target, wrong):
    needed = pictures_needed(target, 0.95, wrong)
    assert purity_bound(needed - wrong, needed) >= target > purity_bound(needed - 1 - wrong, needed - 1)


def test_the_bound_is_the_exact_one():
    # One of 20 wrong: P(at most one wrong | purity = bound) must be 5 %.
    bound = purity_bound(19, 20)
    assert bound**20 + 20 * bound**19 * (1 - bound) == pytest.approx(0.05)
    assert purity_bound(0, 5) == 0.0


def test_the_curve_counts_pictures_of_equal_confidence_together():
    curve = purity_coverage(np.array([0.9, 0.7, 0.9, 0.2]), np.array([True, True, False, False]))
    assert curve.threshold.tolist() == [0.9, 0.7, 0.2]
    assert curve.accepted.tolist() == [2, 3, 4]
    assert curve.purity.tolist() == pytest.approx([1 / 2, 2 / 3, 1 / 2])
    assert curve.coverage.tolist() == pytest.approx([0.5, 0.75, 1.0])


def test_what_is_never_accepted_lowers_coverage_only():
    curve = purity_coverage(np.array([0.9, -np.inf]), np.array([True, False]))
    assert curve.purity.tolist() == [1.0]
    assert curve.coverage.tolist() == [0.5]


def test_a_better_ordered_confidence_has_less_area_under_risk():
    right = np.array([True] * 8 + [False] * 2)
    good, bad = np.linspace(1, 0, 10), np.linspace(0, 1, 10)
    assert area_under_risk(purity_coverage(good, right)) < area_under_risk(purity_coverage(bad, right))
    assert area_under_risk(purity_coverage(good, np.ones(10, bool))) == 0


def test_the_least_threshold_that_holds_is_chosen():
    confidence = np.linspace(1, 0, 3000)
    right = np.ones(3000, bool)
    right[2000:] = False
    claim = threshold_for_purity(confidence, right)
    assert claim.supported
    assert claim.bound >= 0.997
    assert claim.accepted > 1990
    one_more = claim.accepted + 1
    assert purity_bound(int(right[:one_more].sum()), one_more) < 0.997
    assert (confidence >= claim.threshold).sum() == claim.accepted


def test_too_few_pictures_bear_no_claim_and_it_is_said_how_many_would():
    claim = threshold_for_purity(np.linspace(0.5, 1, 997), np.ones(997, bool))
    assert not claim.supported
    assert claim.threshold is None
    assert claim.needed == 998
    assert "998 accepted test pictures without an error" in str(claim)
    assert threshold_for_purity(np.linspace(0.5, 1, 998), np.ones(998, bool)).supported


def test_an_error_among_the_surest_ends_the_search_unless_a_start_was_named_before():
    confidence = np.linspace(1, 0, 2000)
    right = np.ones(2000, bool)
    right[10] = False
    refused = threshold_for_purity(confidence, right)
    assert not refused.supported
    assert (refused.wrong, refused.needed_here) == (1, pictures_needed(0.997, 0.95, 1))
    claim = threshold_for_purity(confidence, right, start=0.1)
    assert claim.supported
    assert claim.threshold == 0.0


def test_the_claim_is_wrong_no_oftener_than_stated():
    rng = np.random.default_rng(0)
    target, draws, broken = 0.93, 300, 0
    for _ in range(draws):
        confidence = rng.random(300)
        right = rng.random(300) < 0.8 + 0.2 * confidence
        claim = threshold_for_purity(confidence, right, target)
        if claim.threshold is not None:
            # P(right | confidence >= t), t uniform: 0.8 + 0.2 (1 + t) / 2
            broken += 0.8 + 0.1 * (1 + claim.threshold) < target
    # None of 300 would be broken far less often than 5 %, 27 far oftener (3 sd).
    assert 1 <= broken <= 26


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="one length"):
        purity_coverage(np.ones(3), np.ones(2, bool))
    with pytest.raises(ValueError, match="NaN"):
        purity_coverage(np.array([np.nan]), np.ones(1, bool))
    with pytest.raises(ValueError, match="target"):
        pictures_needed(99.7)

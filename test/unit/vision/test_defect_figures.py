"""Figures of telling good from defective, and what a claim about escapes needs."""

from __future__ import annotations

import numpy as np
import pytest

from battery_sorting.vision.defect_figures import (
    auroc,
    defect_figures,
    defectives_needed,
    escape_bound,
    escape_threshold,
    severity_curve,
)


def test_the_positive_class_is_defective():
    probability = np.array([0.9, 0.8, 0.2, 0.7, 0.1, 0.1])
    defective = np.array([True, True, True, False, False, False])
    said = defect_figures(probability, defective, list("abcdef"))
    assert said["positive"] == "defective"
    assert said["confusion"]["defective"] == {"said_defective": 2, "said_good": 1}
    assert said["confusion"]["good"] == {"said_defective": 1, "said_good": 2}
    assert (said["precision"]["value"], said["recall"]["value"]) == (0.6667, 0.6667)
    assert said["f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert said["auroc"]["value"] == pytest.approx(8 / 9, abs=1e-4)


def test_a_picture_that_could_not_be_judged_counts_as_held_back():
    said = defect_figures(np.array([np.nan, 0.1]), np.array([True, False]), ["a", "b"])
    assert said["recall"]["value"] == 1.0
    assert said["accuracy"]["value"] == 1.0


def test_120_pictures_make_an_interval_of_about_three_points():
    probability = np.where(np.arange(120) < 117, 0.9, 0.1)
    said = defect_figures(probability, np.ones(120, bool), [str(n) for n in range(120)])
    assert said["accuracy"]["value"] == 0.975
    assert 0.92 < said["accuracy"]["low"] < 0.935
    assert 0.985 < said["accuracy"]["high"] < 0.995


def test_judging_a_picture_twice_does_not_narrow_the_interval():
    probability, defective = np.array([0.9, 0.1] * 10), np.array([True, False] * 10)
    once = defect_figures(probability, defective, [str(n) for n in range(20)])
    twice = defect_figures(np.tile(probability, 2), np.tile(defective, 2), [str(n) for n in range(20)] * 2)
    assert twice["accuracy"] == once["accuracy"]


def test_auroc_counts_ties_half_and_needs_both_classes():
    assert auroc(np.array([0.5, 0.5]), np.array([True, False])) == 0.5
    assert auroc(np.array([0.5, 0.5]), np.array([True, True])) is None


def test_the_rule_of_three_says_how_many_defectives_a_claim_needs():
    assert defectives_needed(0.005) == 598
    assert defectives_needed(0.05) == 59
    assert escape_bound(0, 598) <= 0.005 < escape_bound(0, 590)
    more = defectives_needed(0.005, escapes=1)
    assert more > 598
    assert escape_bound(1, more) <= 0.005


def test_the_escape_threshold_lets_no_more_pass_and_says_whether_that_is_proven():
    rng = np.random.default_rng(1)
    bad, good = rng.uniform(0.2, 1.0, 100), rng.uniform(0.0, 0.4, 200)
    probability, defective = np.concatenate([bad, good]), np.arange(300) < 100
    names = [str(n) for n in range(len(defective))]
    said = escape_threshold(probability, defective, names, 0.01)
    assert said["escapes"] <= 1
    assert not said["proven"]
    assert said["defectives"] == 100
    assert said["good_held_back"]["value"] == pytest.approx((good >= said["good_below"]).mean(), abs=0.01)
    ten_times = escape_threshold(np.tile(probability, 10), np.tile(defective, 10), 10 * names, 0.01)
    assert {key: ten_times[key] for key in ("defectives", "escape_rate_below")} == {
        key: said[key] for key in ("defectives", "escape_rate_below")
    }


def test_detection_crosses_one_half_where_it_was_made_to():
    rng = np.random.default_rng(2)
    severity = rng.uniform(0, 1, 3000)
    caught = rng.random(3000) < 1 / (1 + np.exp(-12 * (severity - 0.35)))
    said = severity_curve(severity, caught)
    assert said["half"] == pytest.approx(0.35, abs=0.03)
    assert said["above_medium"]["value"] > 0.9
    assert [row["value"] for row in said["bins"]] == sorted(row["value"] for row in said["bins"])


def test_where_all_are_caught_there_is_no_half():
    assert severity_curve(np.linspace(0.1, 1, 50), np.ones(50, bool))["half"] is None

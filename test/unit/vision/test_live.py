"""A model that takes over while the belt runs must fit to the recipe; a shadow model never makes anyone wait."""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from support.tiny_model import LABELS, battery, write_model

from battery_sorting.belt.recipe import BeltRecipe
from battery_sorting.core.errors import FrameError, ModelError
from battery_sorting.vision.card import read_card
from battery_sorting.vision.classifier import Prediction
from battery_sorting.vision.live import Shadow, load_warm, route_problems, verdict_on

PICTURE = np.zeros((16, 16, 3), np.uint8)


class Gate:
    """A classifier that goes on when it is told to."""

    name = "battery_type/9"
    card = SimpleNamespace(sha256="0" * 64)

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def classify(self, rgb: np.ndarray) -> Prediction:
        self.began.release()
        assert self.may_end.acquire(timeout=10)
        if rgb.shape[0] < 8:
            raise FrameError("too small")
        return Prediction("Klarus", 0.9, True, "", 0.01, {"Klarus": 0.9}, novelty=0.25, views=2)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def shadow(gate):
    shadow = Shadow(gate)
    yield shadow
    for _ in range(10):
        gate.may_end.release()
    shadow.close()


def results_of(shadow: Shadow, number: int) -> list:
    results = []
    for _ in range(100_000):
        results += shadow.take_results()
        if len(results) == number:
            return results
        threading.Event().wait(0.001)
    raise AssertionError(f"{len(results)} results in place of {number}")


def test_shadow_skips_what_it_is_too_slow_for_and_says_so(shadow, gate):
    assert shadow.submit(PICTURE, "a", 1.0)
    assert gate.began.acquire(timeout=10), "it looks at a"
    assert shadow.submit(PICTURE, "b", 2.0), "one may wait"
    assert not shadow.submit(PICTURE, "c", 3.0)
    assert not shadow.submit(PICTURE, "d", 4.0)
    for _ in range(2):
        gate.may_end.release()
    first, second = results_of(shadow, 2)
    assert (first.battery_id, second.battery_id) == ("a", "b")
    assert (first.model, first.label, first.novelty, first.views) == ("battery_type/9", "Klarus", 0.25, 2)
    assert (shadow.looked_at, shadow.skipped) == (2, 2)


def test_shadow_survives_a_picture_that_can_not_be_looked_at(shadow, gate):
    for _ in range(2):
        gate.may_end.release()
    shadow.submit(np.zeros((2, 2, 3), np.uint8), "bad", 1.0)
    (bad,) = results_of(shadow, 1)
    assert (bad.reason, bad.accepted) == ("bad_image", False) and math.isnan(bad.confidence)
    shadow.submit(PICTURE, "good", 1.0)
    assert results_of(shadow, 1)[0].accepted


def test_shadow_ends_though_a_picture_waits(gate):
    shadow = Shadow(gate)
    shadow.submit(PICTURE, "a", 1.0)
    assert gate.began.acquire(timeout=10)
    shadow.submit(PICTURE, "b", 1.0)
    shadow.end()
    gate.may_end.release()
    shadow.close()
    shadow.close()
    assert [result.battery_id for result in shadow.take_results()] == ["a"]


def test_a_model_must_fit_to_the_recipe_to_be_acted_on(tmp_path):
    folder = write_model(tmp_path / "tiny" / "1")
    recipe = BeltRecipe(name="trial", speed_mps=0.5, routes={"Red": "red", "Green": "green", "Blue": "others"})
    assert route_problems(read_card(folder), recipe.routes) == []
    classifier = load_warm(folder, recipe)
    assert classifier.card.types == list(LABELS) and classifier.threshold == recipe.threshold
    other = recipe.model_copy(update={"routes": {"Red": "red", "Green": "green", "Varta": "red"}})
    with pytest.raises(ModelError, match=r"type 'Blue' has no route: add routes.Blue.*doesn't know type 'Varta'"):
        load_warm(folder, other)
    assert load_warm(folder, other, acted_on=False).name == "tiny/1"


def test_a_verdict_carries_all_that_the_model_said(tmp_path):
    recipe = BeltRecipe(name="trial", speed_mps=0.5, threshold=0.5, routes=dict.fromkeys(LABELS, "others"))
    classifier = load_warm(write_model(tmp_path / "tiny" / "1"), recipe)
    result = verdict_on(classifier, battery((230, 30, 30)), "a", 1.5)
    assert (result.battery_id, result.stamp, result.label, result.model) == ("a", 1.5, "Red", "tiny/1")
    assert result.scores.keys() == set(LABELS) and result.scores["Red"] == pytest.approx(result.confidence)
    assert result.views >= 1 and result.inference_s > 0 and math.isnan(result.novelty)

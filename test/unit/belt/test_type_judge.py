"""Verdicts on batteries, models that take over, and what is told of both."""
# issue 16, 6

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import pytest
from support.tiny_model import LABELS, battery, write_model

from battery_sorting.belt.drift import DriftLimits
from battery_sorting.belt.recipe import BeltRecipe
from battery_sorting.belt.site import BeltSite
from battery_sorting.belt.type_judge import ModelLoad, TypeJudge
from battery_sorting.core.errors import FrameError
from battery_sorting.core.types import Alarm, ModelChange, Reason

RED, GREEN = (200, 20, 20), (20, 200, 20)
FEW = DriftLimits(window=10, min_number=5)


class Line:
    """A judge with a tiny model, and what it complains of."""

    def __init__(self, folder: Path, **changes) -> None:
        self.model = write_model(folder / "1")
        site = BeltSite.load("sim")
        self.site = site.model_copy(update={"model": str(self.model), "shadow_model": None, "drift": FEW} | changes)
        recipe = BeltRecipe.load("batsort")
        routes = {label: next(iter(recipe.routes.values())) for label in LABELS}
        self.recipe = recipe.model_copy(update={"routes": routes, "threshold": 0.4})
        self.references, self.complaints = folder / "references.json", []
        self.judge = self.start()

    def start(self) -> TypeJudge:
        self.judge = TypeJudge(self.site, self.recipe, self.references, self.complaints.append)
        return self.judge

    def look(self, battery_id: str, rgb: np.ndarray, now: float = 1.0) -> list:
        return self.judge.follow(self.judge.judge(battery_id, now, "", lambda: rgb), now)


@pytest.fixture
def line(tmp_path):
    line = Line(tmp_path)
    yield line
    line.judge.close()


def test_it_opens_with_the_models_of_the_site_and_says_so(tmp_path):
    line = Line(tmp_path, shadow_model=str(write_model(tmp_path / "2", "2")))
    assert not line.judge.is_open and line.judge.model == ""
    active, shadow = line.judge.open(0.0)
    assert isinstance(active, ModelChange) and isinstance(shadow, ModelChange)
    assert (active.model, active.folder, active.shadow) == ("tiny/1", str(line.model), False)
    assert (shadow.model, shadow.previous, shadow.shadow) == ("tiny/2", "", True)
    assert line.judge.is_open and (line.judge.model, line.judge.shadow) == ("tiny/1", "tiny/2")
    line.judge.close()
    assert not line.judge.is_open and line.judge.shadow == ""


def test_a_battery_is_named_and_one_without_a_frame_or_with_a_bad_one_is_rejected(line):
    def broken() -> np.ndarray:
        raise FrameError("not whole")

    line.judge.open(0.0)
    good = line.judge.judge("a", 2.0, "", lambda: battery(RED))
    assert (good.result.battery_id, good.result.stamp, good.result.label) == ("a", 2.0, "Red")
    assert good.result.inference_s > 0 and good.rgb is not None and not good.problem
    absent = line.judge.judge("b", 3.0, "no_image", broken)
    assert (absent.result.reason, absent.rgb, absent.problem) == ("no_image", None, "")
    bad = line.judge.judge("c", 4.0, "", broken)
    assert (bad.result.reason, bad.result.accepted, bad.problem) == (Reason.BAD_IMAGE, False, "not whole")
    assert line.judge.figures()["images"] == 3


def test_the_first_batteries_are_kept_as_reference_and_a_change_is_an_alarm(line):
    line.judge.open(0.0)
    assert [line.look(str(number), battery(RED)) for number in range(10)] == [[]] * 10
    assert line.references.is_file() and line.complaints == []
    news = [one for number in range(10, 20) for one in line.look(str(number), battery(GREEN))]
    assert [(type(one), one.raised) for one in news] == [(Alarm, True)]
    assert line.judge.warning and line.judge.figures()["mix_distance"] == 1.0


def test_a_battery_without_a_frame_is_no_drift(line):
    line.judge.open(0.0)
    for number in range(20):
        judgement = line.judge.judge(str(number), 1.0, "no_image", lambda: battery(RED))
        assert line.judge.follow(judgement, 1.0) == []
    assert "others_share" not in line.judge.figures()


def test_a_reference_that_can_not_be_written_does_not_stop_the_belt(tmp_path):
    line = Line(tmp_path)
    line.references = tmp_path / "missing" / "references.json"
    line.start().open(0.0)
    for number in range(10):
        line.look(str(number), battery(RED))
    assert ["can't be written" in text for text in line.complaints] == [True]


def test_a_model_that_takes_over_begins_anew_and_may_be_gone_after_the_next_start(line, tmp_path):
    line.judge.open(0.0)
    for number in range(10):
        line.look(str(number), battery(RED))
    other = write_model(tmp_path / "2", "2")
    loaded = line.judge.load(str(other), acted_on=True)
    assert loaded.problem == "" and loaded.folder == other
    [change] = line.judge.take_over(loaded, 5.0)
    assert (change.model, change.previous, change.shadow) == ("tiny/2", "tiny/1", False)
    assert math.isnan(change.stamp), "whoever passes it on knows the time"
    assert line.judge.model == "tiny/2" and "until the next start" in line.judge.reservation(other)
    assert line.judge.reservation(line.model) == ""


def test_a_model_that_can_not_be_loaded_is_told_and_the_old_one_goes_on(line, tmp_path):
    line.judge.open(0.0)
    assert "nowhere" in line.judge.load(str(tmp_path / "nowhere"), acted_on=True).problem
    assert line.judge.model == "tiny/1"


def test_a_candidate_sees_the_same_pictures_and_can_be_ended(line, tmp_path):
    line.judge.open(0.0)
    assert line.judge.use_in_shadow(ModelLoad()) == [], "there was none"
    loaded = line.judge.load(str(write_model(tmp_path / "2", "2")), acted_on=False)
    [begun] = line.judge.use_in_shadow(loaded)
    assert (begun.model, begun.shadow) == ("tiny/2", True)
    line.look("a", battery(RED))
    results = []
    for _ in range(5000):
        results += line.judge.shadow_results()
        if results:
            break
        threading.Event().wait(0.002)
    assert [(result.battery_id, result.model) for result in results] == [("a", "tiny/2")]
    [ended] = line.judge.use_in_shadow(ModelLoad())
    assert (ended.model, ended.previous, ended.shadow) == ("", "tiny/2", True)
    assert line.judge.shadow == "" and line.judge.shadow_results() == []

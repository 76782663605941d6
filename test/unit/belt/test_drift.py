"""Drift: what raises an alarm, what clears it, and that it does not flap in between."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from battery_sorting.belt.drift import (
    MIX,
    NOVELTY,
    OTHERS_SHARE,
    DriftLimits,
    DriftMonitor,
    Levels,
    Reference,
    ReferenceBook,
)
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import Document, validate
from battery_sorting.core.types import TypeResult

TYPES = ("Duracell_Alk", "Klarus", "GP_Alk", "IKEA_Alk")
PERIOD_S = 0.2


class Belt:
    """Feeds a monitor with verdicts, five a second."""

    def __init__(self, monitor: DriftMonitor) -> None:
        self.monitor = monitor
        self.now = 1000.0
        self.alarms = []

    def feed(self, number: int, others: float = 0.1, types=TYPES, novelty: float = 0.0) -> None:
        random_ = random.Random(number)
        for index in range(number):
            accepted = math.floor((index + 1) * others) == math.floor(index * others)
            value = random_.gauss(novelty, 1.0)
            verdict = TypeResult("a", self.now, types[index % len(types)], 0.9, accepted, novelty=value)
            self.alarms += self.monitor.take(verdict, self.now)
            self.now += PERIOD_S

    @property
    def story(self) -> list[tuple[str, bool]]:
        return [(alarm.code, alarm.raised) for alarm in self.alarms]


@pytest.fixture
def belt():
    return Belt(DriftMonitor(DriftLimits()))


def test_a_belt_that_stays_as_it_is_raises_nothing(belt):
    belt.feed(3000)
    assert belt.alarms == []
    assert belt.monitor.figures()["others_share"] == pytest.approx(0.1, abs=0.01)
    assert abs(belt.monitor.figures()["novelty_rise"]) < 0.3


def test_many_rejected_batteries_raise_an_alarm_and_few_clear_it(belt):
    belt.feed(300)
    belt.feed(200, others=0.6)
    assert belt.story == [(OTHERS_SHARE, True)]
    assert "0.40" in belt.alarms[0].text and "alarm from 0.4" in belt.alarms[0].text
    assert belt.monitor.raised == {OTHERS_SHARE: belt.alarms[0].text}
    belt.feed(300)
    assert belt.story == [(OTHERS_SHARE, True), (OTHERS_SHARE, False)]
    assert belt.monitor.raised == {}
    assert belt.alarms[0].stamp < belt.alarms[1].stamp


def test_a_share_that_swings_between_the_levels_does_not_flap(belt):
    belt.feed(200, others=0.45)
    for share in itertools.islice(itertools.cycle((0.32, 0.44)), 12):
        belt.feed(60, others=share)
    assert belt.story == [(OTHERS_SHARE, True)]


def test_too_few_batteries_say_nothing(belt):
    belt.feed(49, others=1.0)
    assert belt.alarms == [] and math.isnan(belt.monitor.others_share)
    belt.feed(1, others=1.0)
    assert belt.story == [(OTHERS_SHARE, True)]


def test_batteries_of_before_a_long_break_no_longer_count(belt):
    belt.feed(100, others=0.3)
    belt.now += 7200
    belt.feed(49, others=1.0)
    assert belt.alarms == [], "49 are too few"
    belt.feed(1, others=1.0)
    assert belt.monitor.others_share == 1.0


def test_an_alarm_stands_while_too_few_batteries_can_tell(belt):
    belt.feed(200, others=0.6)
    belt.now += 7200
    belt.feed(40, others=0.0)
    assert belt.story == [(OTHERS_SHARE, True)]


def test_batteries_that_look_stranger_than_the_first_raise_an_alarm(belt):
    belt.feed(400)
    belt.feed(200, novelty=1.5)
    assert belt.story == [(NOVELTY, True)]
    belt.feed(400)
    assert belt.story == [(NOVELTY, True), (NOVELTY, False)]


def test_a_model_without_a_novelty_is_watched_by_the_other_measures(belt):
    belt.feed(500, novelty=math.nan)
    assert math.isnan(belt.monitor.novelty_rise)
    assert belt.monitor.figures().keys() == {"others_share", "mix_distance"}


def test_another_mix_of_types_raises_an_alarm_that_names_the_type(belt):
    belt.feed(400, others=0.0)
    belt.feed(200, types=("Klarus", "Klarus", "GP_Alk"))
    assert belt.story == [(MIX, True)]
    assert "Klarus from 25% to" in belt.alarms[0].text
    belt.feed(300)
    assert belt.story[-1] == (MIX, False)


def test_mix_is_not_compared_with_itself(belt):
    belt.feed(200, others=0.0)
    belt.feed(199, types=("Klarus",))
    assert math.isnan(belt.monitor.mix_distance)
    belt.feed(1, types=("Klarus",))
    assert belt.monitor.mix_distance == pytest.approx(0.75, abs=0.02)


def test_another_model_starts_with_a_clean_slate(belt):
    belt.feed(200, others=0.6)
    cleared = belt.monitor.restart(belt.now, "battery_type/2 took over")
    assert [(alarm.code, alarm.raised) for alarm in cleared] == [(OTHERS_SHARE, False)]
    assert "battery_type/2" in cleared[0].text
    assert belt.monitor.raised == {} and belt.monitor.figures() == {}
    belt.alarms.clear()
    belt.feed(400, types=("Klarus",), novelty=5.0)
    assert belt.alarms == [], "the new model's own beginning is what it is compared with"


def test_after_a_new_start_batteries_are_compared_with_those_of_before(belt, tmp_path):
    book = ReferenceBook(tmp_path / "reference.json")
    assert book.of("model a") is None
    belt.feed(300, others=0.0)
    book.keep("model a", belt.monitor.reference)
    again = Belt(DriftMonitor(DriftLimits()))
    again.monitor.restart(again.now, "start", ReferenceBook(tmp_path / "reference.json").of("model a"))
    assert again.monitor.reference == belt.monitor.reference
    again.feed(49, types=("Klarus",), novelty=3.0)
    assert again.alarms == [], "49 are too few"
    again.feed(20, types=("Klarus",), novelty=3.0)
    assert {code for code, _ in again.story} == {MIX, NOVELTY}


def test_references_are_kept_by_model_and_a_damaged_file_is_made_anew(tmp_path):
    path = tmp_path / "reference.json"
    book = ReferenceBook(path)
    first = Reference(mix={"Klarus": 1.0}, novelty_mean=0.1, novelty_spread=0.2)
    second = Reference(mix={}, novelty_mean=None, novelty_spread=None)
    book.keep("a", first)
    book.keep("b", second)
    assert (book.of("a"), book.of("b")) == (first, second)
    book.forget("a")
    assert (book.of("a"), book.of("b")) == (None, second)
    path.write_text("{cut sho")
    assert book.of("a") is None
    book.keep("a", second)
    assert (book.of("a"), book.of("b")) == (second, None)


def test_a_measure_that_is_switched_off_is_silent():
    belt = Belt(DriftMonitor(DriftLimits(others=None)))
    belt.feed(300, others=0.9)
    assert belt.alarms == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"others": {"raise_at": 0.3, "clear_at": 0.4}}, "clear_at 0.4 must be below raise_at 0.3"),
        ({"window": 40}, "min_number 50 is more than the window of 40 holds"),
        ({"mix": {"raise_at": 0.3}}, "clear_at"),
    ],
)
def test_limits_that_make_no_sense_are_refused(data, said):
    document = Document("site.yaml", data)
    assert validate(DriftLimits, document) is None
    with pytest.raises(ConfigurationError, match=said):
        document.raise_if_faulty()


def test_limits_can_be_set_one_by_one():
    limits = DriftLimits.model_validate({"others": {"raise_at": 0.5, "clear_at": 0.45}})
    assert limits.others == Levels(raise_at=0.5, clear_at=0.45) and limits.mix is not None

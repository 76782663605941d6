"""Two controllers of one line, where no claim keeps them apart."""

# issue 14, point 3

from __future__ import annotations

import pytest

from battery_sorting.line.rivals import NEWCOMER_S, SILENCE_S, Rivals, RivalVerdict

PERIOD_S = 0.2


def speak(rivals: Rivals, controller: str, begin: float, end: float) -> None:
    """A controller says how the line is, as often as controllers do."""
    steps = round((end - begin) / PERIOD_S)
    for step in range(steps + 1):
        rivals.heard(controller, begin + step * PERIOD_S)


def test_controller_that_hears_only_itself_is_alone():
    rivals = Rivals("me", 0.0)
    speak(rivals, "me", 0.0, 20.0)
    assert rivals.verdict(20.0) is RivalVerdict.ALONE


@pytest.mark.parametrize("discovered_at", [0.0, 2.7, NEWCOMER_S - 1])
def test_who_comes_second_leaves(discovered_at):
    rivals = Rivals("me", 0.0)
    speak(rivals, "other", discovered_at, discovered_at + 0.6)
    assert rivals.verdict(discovered_at + 0.6) is RivalVerdict.LEAVE
    assert rivals.rival(discovered_at + 0.6) == "other"


def test_who_was_there_before_holds_until_the_other_has_gone():
    rivals = Rivals("me", 0.0)
    speak(rivals, "other", 100.0, 100.6)
    assert rivals.verdict(100.6) is RivalVerdict.HOLD
    assert rivals.verdict(100.6 + SILENCE_S + 0.01) is RivalVerdict.ALONE


def test_last_words_of_a_predecessor_are_no_second_controller():
    rivals = Rivals("me", 0.0)
    for moment in (0.0, 0.01, 0.02, 0.03):  # what had waited comes at once
        rivals.heard("predecessor", moment)
    assert rivals.verdict(0.5) is RivalVerdict.ALONE
    rivals.heard("predecessor", 0.3)
    assert rivals.verdict(0.6) is RivalVerdict.ALONE


def test_single_word_now_and_then_is_no_second_controller():
    rivals = Rivals("me", 0.0)
    for moment in range(0, 60, 2):
        rivals.heard("other", float(moment))
        assert rivals.verdict(float(moment)) is RivalVerdict.ALONE


def test_controller_without_an_id_is_another_one():
    rivals = Rivals("me", 0.0)
    speak(rivals, "", 50.0, 51.0)
    assert rivals.verdict(51.0) is RivalVerdict.HOLD

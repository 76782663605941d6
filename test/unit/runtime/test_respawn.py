"""How often a process that died is started again: the same for `up` and launch."""

# issue 15, D13

from __future__ import annotations

import signal

import pytest

from battery_sorting.runtime.respawn import LIVED_S, MAX_RESPAWNS, RESPAWN_WINDOW_S, Deaths, describe_exit


def test_pauses_double_up_to_five_seconds_and_the_sixth_death_in_30_s_is_the_last():
    deaths = Deaths(0.5)
    assert [deaths.count(now) for now in range(MAX_RESPAWNS + 1)] == [0.5, 1.0, 2.0, 4.0, 5.0, None]
    assert deaths.why_given_up("camera", describe_exit(-9)) == (
        "camera died 6 times in 30 s and is given up (it was killed by SIGKILL at last)"
    )


# issue 16, 4
def test_an_observer_is_never_given_up_but_tried_ever_more_seldom():
    deaths, now, pauses = Deaths(0.5, required=False), 0.0, []
    for _ in range(100):
        pauses.append(deaths.count(now))
        now += pauses[-1] + 2.0  # it lives for two seconds each time
    assert pauses[:9] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert min(pauses[9:]) >= 32.0, "though the first deaths are forgotten by then"
    assert deaths.next_life("ended", 60.0) == "ended; the line goes on without it; started again in 60 s"


def test_an_observer_that_has_lived_for_a_while_comes_back_at_once():
    deaths, now = Deaths(0.5, required=False), 0.0
    for _ in range(20):
        assert deaths.count(now) == 0.5
        now += 0.5 + LIVED_S + 0.1


def test_deaths_of_long_ago_are_forgotten():
    deaths = Deaths(0.5)
    for number in range(100):
        assert deaths.count(number * (RESPAWN_WINDOW_S / MAX_RESPAWNS + 0.1)) is not None, number
    assert deaths.count(1e6) == 0.5


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (2, "ended with exit code 2"),
        (-signal.SIGTERM, "was killed by SIGTERM"),
        (-99, "was killed by signal 99"),
    ],
)
def test_exit_codes_are_told_in_words(code, words):
    assert describe_exit(code) == words

"""How often a process that died is started again: the same for `up` and launch."""

# issue 15, D13

from __future__ import annotations

import signal

import pytest

from battery_sorting.runtime.respawn import MAX_RESPAWNS, RESPAWN_WINDOW_S, Deaths, describe_exit


def test_pauses_double_up_to_five_seconds_and_the_sixth_death_in_30_s_is_the_last():
    deaths = Deaths(0.5)
    assert [deaths.count(now) for now in range(MAX_RESPAWNS + 1)] == [0.5, 1.0, 2.0, 4.0, 5.0, None]
    assert deaths.why_given_up("camera", -9) == (
        "camera died 6 times in 30 s and is given up (it was killed by SIGKILL at last)"
    )


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

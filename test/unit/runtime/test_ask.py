"""Asking a node of a line that runs: whatever becomes of the process that asks, the command ends."""

from __future__ import annotations

import os
import time

import pytest

from battery_sorting.runtime import ask

QUESTION = ("belt", "line_controller/command", "LineCommand", {})


@pytest.mark.timeout(30)
def test_who_asks_and_never_comes_to_an_end_is_ended(monkeypatch):
    monkeypatch.setattr(ask, "START_S", 0.1)
    monkeypatch.setattr(ask, "PATIENCE_S", 0.1)
    monkeypatch.setattr(ask, "_operator", lambda _: time.sleep(600))
    with pytest.raises(ask.AskError, match="does not come to an end; try again"):
        ask.ask(*QUESTION, answer_s=0.1)


def test_who_asks_and_dies_is_told(monkeypatch):
    monkeypatch.setattr(ask, "_operator", lambda _: os._exit(1))
    with pytest.raises(ask.AskError, match="the process that asks has ended"):
        ask.ask(*QUESTION)

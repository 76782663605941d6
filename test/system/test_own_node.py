"""A node of one's own in place of the package's: that of docs/reference/contract.md sorts, or the line says why."""
# issue 15, E15

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, Process, check_account

from battery_sorting.ledger.events import Typed
from battery_sorting.line.contract_watch import CODE
from battery_sorting.runtime.contract_page import EXAMPLE

pytestmark = pytest.mark.system

MIDDLEWARE = ("RMW_IMPLEMENTATION", "FASTRTPS_DEFAULT_PROFILES_FILE", "ROS_AUTOMATIC_DISCOVERY_RANGE")


def start(cell: Any, program: Path, name: str) -> Process:
    """As docs/reference/contract.md says, in a shell that knows nothing of the package's settings."""
    plain = {key: value for key, value in os.environ.items() if key not in MIDDLEWARE}
    command = [sys.executable, str(program), "--ros-args", "-r", "__ns:=/belt", "-r", "__node:=classifier"]
    return Process(command, cell.plan.run_dir / "log" / f"{name}.log", plain)


def test_a_classifier_of_ones_own_sorts_as_it_says(make_cell, leaks):
    with make_cell(items=40, without=("classifier",)) as cell, start(cell, ROOT / EXAMPLE, "own") as own:
        cell.wait_for_state("Execute")
        _, record, batteries = cell.finish()
        assert "Traceback" not in own.output
    leaks.clean_shared_memory()
    check_account(record, batteries)
    assert CODE not in cell.alarms
    named = {battery.trigger_count for battery in batteries if battery.label == "Duracell_Alk"}
    blown = {item["trigger_count"] for item in record["items"] if item["bin"] == "duracell_alk"}
    assert {item["bin"] for item in record["items"]} == {"duracell_alk", "others"}, "it names no other type"
    assert blown and blown <= named, "nothing else is blown out"
    assert len(named - blown) <= len(named) // 4, "few that it named were too close to another, or late"
    with cell.ledger() as ledger:
        assert {event.data.model for event in ledger.events(kinds=[Typed])} == {"own/1"}


def test_one_that_is_drawn_wrongly_is_an_alarm_and_the_line_starts_when_it_is_mended(make_cell, leaks, tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text((ROOT / EXAMPLE).read_text().replace("qos.BATTERY_EVENT", "qos.PREVIEW"))
    with make_cell(items=500, without=("classifier",)) as cell:
        with start(cell, wrong, "wrong"):
            cell.wait_for(lambda: CODE in cell.alarms, "the alarm")  # it may come before any change of state
            assert (
                "classifier publishes battery_type best effort and volatile: "
                "make it reliable, transient local (qos.BATTERY_EVENT)" in cell.alarms[CODE]
            )
            assert "Execute" not in cell.states
        with start(cell, ROOT / EXAMPLE, "right"):
            cell.wait_for_state("Execute")
            cell.wait_for(lambda: any(pulse["valve"] == 0 for pulse in cell.pulses()), "a battery is ejected")
            cell.stop()
    leaks.clean_shared_memory()

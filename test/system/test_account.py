"""The account of a whole cell whose controller stands still, or whose ledger goes away."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pytest
from harness import check_account

from battery_sorting.core.types import Reason

pytestmark = pytest.mark.system


def test_controller_that_stands_still_again_and_again_loses_no_battery_and_blames_nobody(make_cell):
    # issue 14, points 8 and 11
    dice = random.Random(14)
    with make_cell(items=80, rate_per_s=5.0) as cell:
        cell.wait_for_state("Execute")
        cell.wait_for_triggers(12)  # the belt is full
        for _ in range(6):
            pid = cell.supervisor.pids()["line_controller"]
            os.kill(pid, signal.SIGSTOP)
            time.sleep(dice.uniform(1.0, 2.5))
            os.kill(pid, signal.SIGCONT)
            cell.wait_for_triggers(6)
        figures, record, batteries = cell.finish(90)
        alarms, states = cell.alarms, cell.states

    check_account(record, batteries)
    reasons = Counter(battery.reason for battery in batteries)
    assert reasons[Reason.UNACCOUNTED.value] == 0, reasons
    assert figures.items == figures.accounted == 80
    assert "stood still for" in alarms["stood_still"]
    blamed = {code for code in alarms if code.startswith("node_")} | {"belt_state", "reports"} & alarms.keys()
    assert not blamed, alarms
    assert "Held" not in states, alarms
    assert cell.supervisor.deaths().get("line_controller", 0) == 0


def test_ledger_that_is_moved_away_holds_the_line_within_a_second_and_nothing_is_lost(make_cell):
    # issue 14, point 15
    with make_cell(items=30) as cell:
        cell.wait_for_state("Execute")
        cell.wait_for_triggers(6)
        file = cell.plan.run_dir / "ledger.sqlite"
        away = file.rename(file.with_name("elsewhere.sqlite"))
        moved_at = time.monotonic()
        for node in ("line_controller", "archivist"):
            told = f"{file}: was deleted or moved away"
            cell.wait_for(
                lambda: any(line.startswith(f"{node}: ") and told in line for line in cell.told),  # noqa: B023
                f"{node} tells it",
            )
        assert time.monotonic() - moved_at < 2.0  # told, read and looked for
        cell.wait_for(lambda: not cell.control.state()["running"], "belt stands")
        fired = len(cell.pulses())
        time.sleep(1.0)
        assert len(cell.pulses()) == fired and not cell.control.state()["running"]
        assert not file.exists(), "nobody begins a new one"
        away.rename(file)
        cell.wait_for(lambda: cell.control.state()["running"], "belt runs again")
        figures, record, batteries = cell.finish()
        assert "was deleted or moved away" in cell.alarms["ledger"]

    check_account(record, batteries)
    assert figures.items == figures.accounted == 30
    assert not (cell.plan.run_dir / "ledger.unwritten.jsonl").exists()

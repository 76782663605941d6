"""The soak in short: a few faults on each line, by the code of bench/soak.py. # issue 14, point 18"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT, Process, wait_for
from support.soak.faults import Fault
from support.soak.run import Options, Outcome, Soak

from battery_sorting.core.settings import find_shared

pytestmark = pytest.mark.system

BELT = (
    Fault(1, "link", "modbus", {"trouble": "half_open"}, 1.0, after_items=6),
    Fault(2, "switch", "estop", True, 1.0, after_items=6),
    Fault(3, "switch", "camera.drop", 2, after_items=4),
    Fault(4, "kill", "classifier", after_items=4),
)
EV = (Fault(1, "switch", "estop", True, 1.0, after_items=2),)
QUICK = ("plant.time_factor=10", "plant.test_time_factor=6000", "plant.defective=0")


@pytest.fixture
def soaked(tmp_path: Path) -> Callable[..., Outcome]:
    def run(line: str, faults: tuple[Fault, ...], **settings: Any) -> Outcome:
        told: list[str] = []
        outcome = Soak(Options(line, tmp_path / "soak", replay=faults, **settings), told.append).run()
        assert outcome.failures == [], "\n".join([*outcome.failures, *told, str(outcome.judgement.to_dict())])
        return outcome

    return run


def test_a_belt_under_faults_loses_nothing_and_goes_on_after_each(soaked):
    outcome = soaked("belt", BELT)
    assert [entry["number"] for entry in outcome.faults] == [1, 2, 3, 4]
    assert outcome.faults[1]["commands"] == ["clear", "reset", "start"]
    assert outcome.judgement.batteries > 40 and outcome.judgement.products > 15
    assert outcome.judgement.reasons["sorted"] > 15
    written = json.loads((outcome.options.run_dir / "faults.json").read_text())
    assert [entry["what"] for entry in written["faults"]] == [str(fault) for fault in BELT]


def test_an_ev_line_under_a_fault_loses_no_cell_and_lets_no_faulty_one_pass(soaked):
    if find_shared("models/lug/1/card.json") is None:
        pytest.skip("no model of the lugs in models/")
    outcome = soaked("ev", EV, overrides=QUICK, cells=6)
    assert outcome.faults[0]["commands"] == ["clear", "reset", "start"]
    assert outcome.judgement.batteries == 6 and outcome.judgement.products > 0


def test_ctrl_c_ends_the_bench_within_seconds_with_what_it_has_judged(tmp_path):
    run_dir = tmp_path / "soak"
    command = [sys.executable, str(ROOT / "bench" / "soak.py"), "--run-dir", str(run_dir)]
    with Process(command, tmp_path / "soak.log", dict(os.environ)) as bench:
        record = run_dir / "run" / "plant.jsonl"
        wait_for(
            lambda: bench.exit_code is not None or (record.exists() and '"bin"' in record.read_text()),
            "batteries fall",
        )
        began = time.monotonic()
        bench.signal(signal.SIGINT)
        assert bench.wait() == 1, bench.output
        assert time.monotonic() - began < 8.0
    result = json.loads((run_dir / "result.json").read_text())
    assert result["interrupted"] and "kept in" in bench.output
    assert result["failures"] == [], bench.output

"""What the instruments show in place of readings, through driver, test and node. # issue 15, A2"""

from __future__ import annotations

import json
import math
import time

import pytest
from battery_sorting.action import TestCell as CellTest
from test_ev_safety import cells_in_channels

pytestmark = pytest.mark.ros

TEST_S = 60.0
NOTHING = {"cycler.shows": {}, "meter.shows": {}}


def contacts(bench, channel: int) -> list[str]:
    """What the plant's contacts of a channel did so far: ``tester_close`` and ``tester_open``."""
    whole = (bench.plan.run_dir / "plant.jsonl").read_text().rpartition("\n")[0]
    events = [json.loads(line) for line in whole.splitlines()]
    return [
        event["event"]
        for event in events
        if event["event"] in ("tester_close", "tester_open") and event["channel"] == channel
    ]


CASES = [
    ({"cycler.shows": {"temperature": "9.91E+37"}}, "failed", "not_measured", "MEAS:CHAN"),
    ({"cycler.shows": {"temperature": "9.9E+37"}}, "failed", "overload", "temperature"),
    ({"cycler.shows": {"contact": "-9.9E+37"}}, "bad_contact", "open_contact", "seat the cell again"),
    ({"cycler.shows": {"contact": "9.91E+37"}}, "bad_contact", "open_contact", "not measured"),
    ({"cycler.shows": {"step_charge": "-9.9E+37"}}, "failed", "overload", "FETC:STEP"),
    ({"meter.shows": {"resistance": "-10.0000E+8"}}, "failed", "overload", "AC meter"),
    ({"meter.shows": {"voltage": "9.91E+37"}}, "failed", "not_measured", "AC meter"),
]


def test_no_reading_ends_the_test_with_the_contacts_open_and_nothing_measured(bench):
    peer = bench.set_up_ev(items=1)
    cells_in_channels(bench, 1)
    bench.bring_up("tester")
    for shows, outcome, code, told in CASES:
        bench.plant.set_faults(**{**NOTHING, **shows})
        result = peer.act(CellTest, "test_cell", TEST_S, battery_id="cell 1", channel=1)
        assert (result.success, result.outcome, result.code) == (False, outcome, code), result
        assert result.error_code in (CellTest.Result.BAD_CONTACT, CellTest.Result.OTHER), "the cell is safe"
        assert told in result.error_msg
        assert math.isnan(result.measurement.resistance_mohm)
        assert contacts(bench, 1)[-1] == "tester_open"

    bench.plant.set_faults(**NOTHING)
    result = peer.act(CellTest, "test_cell", TEST_S, battery_id="cell 1", channel=1)
    assert result.success, "the tester is as good as before"


def test_temperature_that_is_lost_in_the_middle_of_a_test_switches_off_at_once(bench):
    peer = bench.set_up_ev("plant.test_time_factor=100", items=1)
    cells_in_channels(bench, 1)
    bench.bring_up("tester")
    goal = peer.begin(CellTest, "test_cell", battery_id="cell 1", channel=1)
    deadline = time.monotonic() + 20.0
    while contacts(bench, 1)[-1:] != ["tester_close"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    bench.plant.set_faults(**{"cycler.shows": {"temperature": "9.91E+37"}})
    begin = time.monotonic()
    result = peer.result(goal, "test_cell", TEST_S)
    assert (result.outcome, result.code) == ("failed", "not_measured")
    assert time.monotonic() - begin < 5.0
    assert contacts(bench, 1)[-1] == "tester_open"


def test_node_works_with_the_numbers_of_another_firmware(bench):
    peer = bench.set_up_ev(items=1)
    cells_in_channels(bench, 1)
    bench.plant.set_faults(**{"cycler.numbers": "nr3", "meter.numbers": "signed"})
    bench.bring_up("tester")
    result = peer.act(CellTest, "test_cell", TEST_S, battery_id="cell 1", channel=1)
    assert result.success, result
    [electrical] = [cell["electrical"] for cell in bench.plant.record()["cells"]]
    assert result.measurement.capacity_ah == pytest.approx(electrical["capacity_ah"], rel=0.01)

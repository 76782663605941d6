"""The tester's channels, without ROS: a test ends with its channel off, or the line hears that it may be live."""
# issue 16, 6

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from support.station_host import NodeStandIn

from battery_sorting.core.errors import DeviceConnectionError, ReversedPolarityError
from battery_sorting.drivers.tester.base import CellTester
from battery_sorting.ev.cell_test import CellTest, CellTestOutcome, Rules
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.stations.host import Workers
from battery_sorting.ev.stations.testing import TesterChannels, TestRequest

PATIENCE_S = 20.0


def until(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.005)


class ScriptedTester:
    """A tester that answers no test; ``reversed`` ends each. ``cut_off``: no channel can be switched off."""

    answers_dropped = 0
    connected = True
    channels = (1, 2)

    def __init__(self) -> None:
        self.cut_off = self.estop = self.reversed = False
        self.switched_off: list[int] = []
        self.slow_s = 0.0

    def connect(self, timeout_s: float = 2.0) -> None: ...

    def disconnect(self) -> None: ...

    def emergency_stop_stands(self) -> bool:
        return self.estop

    def check_contact(self, _: int):
        time.sleep(self.slow_s)
        if self.reversed:
            raise ReversedPolarityError("the cell lies the wrong way round")
        raise DeviceConnectionError("the tester does not answer")  # for which a test waits

    def safe(self, channel: int) -> None:
        if self.cut_off:
            raise DeviceConnectionError("the tester is lost")
        self.switched_off.append(channel)


@pytest.fixture
def bench():
    host, tester = NodeStandIn(), ScriptedTester()
    ended: list[CellTest] = []
    told: list[bool] = []
    programme = EvRecipe.load("lfp_prismatic").measuring.programme
    rules = Rules(safe_s=0.2)
    workers = Workers(host)
    channels = TesterChannels(host, workers, tester, 2, programme, rules, 1.0, lambda: told.append(host.ok))
    channels.open()
    bench = SimpleNamespace(host=host, tester=tester, channels=channels, ended=ended, told=told)
    bench.begin = lambda channel: channels.begin(TestRequest(channel, lambda: False, lambda _: None, ended.append))
    yield bench
    tester.cut_off = False
    channels.close(PATIENCE_S)


def test_every_channel_is_switched_off_before_the_first_test(bench):
    assert bench.tester.switched_off == [1, 2]


def test_a_channel_is_busy_until_its_result_is_handed_out(bench):
    bench.tester.slow_s = 0.1
    bench.begin(1)
    assert bench.channels.why_not_now(1) == "channel 1 is busy with a test"
    assert bench.channels.why_not_now(2) == ""
    bench.channels.rest()
    until(lambda: bench.ended, "the test ends")
    assert bench.channels.why_not_now(1), "nobody has its result yet"
    bench.channels.free(1)
    assert bench.channels.why_not_now(1) == ""


def test_a_deactivation_ends_the_tests_with_their_channels_off(bench):
    bench.tester.slow_s = 0.1
    bench.begin(1)
    bench.begin(2)
    bench.channels.rest()
    until(lambda: bench.ended[1:], "both tests end")
    assert {test.outcome for test in bench.ended} == {CellTestOutcome.CANCELLED}
    assert all(test.safe for test in bench.ended)
    assert sorted(bench.tester.switched_off[2:]) == [1, 2]


def test_another_controller_ends_the_test_of_the_one_before(bench):
    bench.tester.slow_s = 0.1
    bench.begin(1)
    bench.host.line_controller = "another"
    until(lambda: bench.ended, "the test ends")
    assert bench.ended[0].outcome is CellTestOutcome.CANCELLED and bench.ended[0].safe


def test_a_channel_that_may_be_live_is_told_at_once_and_switched_off_as_soon_as_that_is_possible(bench):
    bench.tester.cut_off = bench.tester.reversed = True
    bench.begin(2)
    until(lambda: bench.told, "the line hears")
    assert bench.told[0] is False and "channel 2 may be live" in bench.host.detail
    until(lambda: bench.ended, "the test ends")
    assert not bench.ended[0].safe
    bench.channels.free(2)
    assert "may be live" in bench.channels.why_not_now(2)
    bench.tester.cut_off = False
    until(lambda: bench.channels.why_not_now(2) == "", "it is off")
    assert bench.tester.switched_off[-1] == 2


def test_no_test_is_taken_during_an_emergency_stop(bench):
    bench.tester.estop = True
    until(lambda: not bench.host.ok, "it is seen")
    assert "emergency stop" in bench.channels.why_not_now(1)


def test_what_is_live_when_the_node_ends_is_switched_off(bench):
    bench.tester.cut_off = bench.tester.reversed = True
    bench.begin(1)
    until(lambda: bench.ended, "the test ends")
    bench.tester.cut_off = False
    bench.channels.close(PATIENCE_S)
    assert bench.tester.switched_off[-1] == 1


def test_the_tester_of_this_test_has_what_a_tester_has():
    assert all(hasattr(CellTester, name) for name in vars(ScriptedTester) if not name.startswith("_"))

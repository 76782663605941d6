"""What the line takes for an event of its belt, and what for a stranger's."""
# issue 14, point 17

from __future__ import annotations

import pytest

from battery_sorting.belt.gate import AHEAD_MM, MAX_WAITING, STEADY_S, WAIT_S, EventGate
from battery_sorting.core.types import (
    BeltState,
    Detection,
    EjectOutcome,
    EjectReport,
    ExitDetection,
    TypeResult,
    count_add,
    make_battery_id,
)

BOOT, OTHER = 0x6000_0001, 0x6000_0002
COUNT = 2**32 - 50


def belt(boot_id: int = BOOT, count: int = COUNT) -> BeltState:
    return BeltState(0.0, connected=True, boot_id=boot_id, encoder_count=count)


def detection(number: int = 1, boot_id: int = BOOT, travelled_mm: float = 0.0) -> Detection:
    at = count_add(COUNT, -round(travelled_mm * 10))
    return Detection(make_battery_id(boot_id, number), number, at, 0.0)


@pytest.fixture
def gate() -> EventGate:
    gate = EventGate()
    gate.belt(belt(), 0.0)
    return gate


@pytest.mark.parametrize("travelled_mm", [0.0, 2000.0, 30_000.0, -100.0])
def test_events_of_this_run_of_the_plc_go_on_at_once(gate, travelled_mm):
    one = detection(travelled_mm=travelled_mm)
    verdict = TypeResult(one.battery_id, 0.0, "a", 0.9, True)
    report = EjectReport(one.battery_id, 1, EjectOutcome.FIRED, "a", 3, 0.0)
    exit_ = ExitDetection(3, one.encoder_count, 0.0)
    for event in (one, verdict, report, exit_):
        assert gate.event(event, 1.0) == [event]
    assert gate.refused == 0


@pytest.mark.parametrize(
    "event",
    [
        detection(boot_id=OTHER),
        Detection(make_battery_id(BOOT, 7), 8, COUNT, 0.0),
        Detection("", 8, COUNT, 0.0),
        Detection("6000000g-000008", 8, COUNT, 0.0),
        Detection("60000001-8", 8, COUNT, 0.0),
        detection(travelled_mm=-2 * AHEAD_MM),
        detection(travelled_mm=10e6),
        TypeResult(make_battery_id(OTHER, 1), 0.0, "a", 0.9, True),
        EjectReport("nobody's", 1, EjectOutcome.FIRED, "a", 3, 0.0),
        ExitDetection(0, COUNT, 0.0),
        ExitDetection(5, count_add(COUNT, 1_000_000_000), 0.0),
    ],
)
def test_what_the_belt_can_not_have_brought_never_comes_in_and_is_counted(gate, event):
    assert gate.event(event, 1.0) == []
    for step in range(200):
        assert gate.belt(belt(), 1.0 + step * 0.02) == []
    assert gate.refused == 1


def test_events_of_a_restarted_plc_wait_for_the_state_that_tells_it_and_keep_their_order(gate):
    first = Detection(make_battery_id(OTHER, 1), 1, 700, 0.0)
    left = ExitDetection(1, 800, 0.0)
    second = Detection(make_battery_id(OTHER, 2), 2, 900, 0.0)
    for event in (first, left, second):
        assert gate.event(event, 1.0) == ([] if event is not left else [left])
    assert gate.belt(belt(OTHER, 1000), 1.0 + WAIT_S / 2) == [first, second]
    old = detection(3)
    assert gate.event(old, 2.0) == [old], "what happened before the restart is heard again"
    assert gate.refused == 0


def test_nothing_comes_in_before_the_first_state_of_the_belt():
    gate = EventGate([make_battery_id(BOOT, 4)])
    one, exit_ = detection(5), ExitDetection(9, COUNT, 0.0)
    assert gate.event(one, 0.0) == gate.event(exit_, 0.0) == []
    assert gate.belt(BeltState(0.0), 0.1) == []
    assert gate.belt(belt(), 0.2) == [one, exit_]


def test_a_run_of_the_plc_that_the_ledger_knows_is_known():
    gate = EventGate([make_battery_id(OTHER, 4)])
    gate.belt(belt(), 0.0)
    late = TypeResult(make_battery_id(OTHER, 4), 0.0, "a", 0.9, True)
    assert gate.event(late, 0.1) == [late]


def test_belt_states_of_strangers_between_steady_ones_are_left_out(gate):
    now = 0.0
    for step in range(500):
        now = step * 0.02
        count = count_add(COUNT, step * 100)
        assert gate.takes_belt(belt(count=count), now)
        gate.belt(belt(count=count), now)
        assert not gate.takes_belt(belt(OTHER, count), now + 0.01)
        assert not gate.takes_belt(belt(count=count_add(count, 1_000_000)), now + 0.01)
        assert not gate.takes_belt(BeltState(0.0, connected=True, encoder_count=count), now + 0.01)
    assert gate.refused == 1500
    assert gate.takes_belt(belt(OTHER, 5), now + STEADY_S + 0.02), "the PLC has restarted"


def test_a_flood_does_not_fill_the_memory(gate):
    for number in range(10 * MAX_WAITING):
        gate.event(detection(number, OTHER), 1.0)
    assert len(gate._waiting) == MAX_WAITING
    assert gate.refused == 9 * MAX_WAITING


def test_an_exit_of_long_ago_that_the_plc_has_counted_comes_in(gate):
    """Else a line that was started anew would wait for it for ever."""
    far = count_add(COUNT, -2_000_000)  # 200 m of belt
    state = BeltState(0.0, connected=True, boot_id=BOOT, encoder_count=COUNT, exit_total=7)
    gate.belt(state, 0.0)
    for number in (3, 7):
        exit_ = ExitDetection(number, far, 0.0, BOOT)
        assert gate.event(exit_, 0.1) == [exit_]
    assert gate.event(ExitDetection(8, far, 0.0, BOOT), 0.1) == []


def test_counts_that_the_plc_can_not_have_reached_and_runs_that_nobody_knows_do_not_come_in(gate):
    state = BeltState(0.0, connected=True, boot_id=BOOT, encoder_count=COUNT, exit_total=7, ack_total=9)
    gate.belt(state, 0.0)
    battery_id = make_battery_id(BOOT, 1)
    for event in (
        ExitDetection(2**32 - 1, COUNT, 0.0, BOOT),
        ExitDetection(3, COUNT, 0.0, OTHER),
        EjectReport(battery_id, 1, EjectOutcome.FIRED, "a", 3, 0.0, ack_total=2**32 - 1),
    ):
        assert gate.event(event, 0.1) == []
    told = EjectReport(battery_id, 1, EjectOutcome.FIRED, "a", 3, 0.0, ack_total=10)
    assert gate.event(told, 0.1) == [told]

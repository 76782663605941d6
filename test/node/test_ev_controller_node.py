"""The EV line's controller as a process of its own."""

from __future__ import annotations

import time

import pytest
from battery_sorting.msg import CellAppearance, LineState
from harness import database_away, wait_for

from battery_sorting.ledger.events import Detected, Released
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.paths import ledger_location

pytestmark = pytest.mark.ros


def test_controller_that_can_not_read_the_ledger_holds_the_line_and_forgets_no_cell(bench):
    # issue 14: it ended, with the error of the database as its last word
    peer = bench.set_up_ev(plant=False)
    states = peer.listen(LineState, "line_state")
    controller = bench.start("line_controller")
    wait_for(lambda: states, "the controller speaks")
    with Ledger.open(ledger_location(bench.plan.site, bench.plan.run_dir)) as ledger:
        assert ledger.resume_shift(bench.plan.site.line) is not None
        with ledger.transaction() as transaction:
            transaction.record(Detected(trigger_count=1, encoder_count=0), "a", time.time())
            transaction.record(Released(outlet="product"), "a", time.time())
    peer.advertise(CellAppearance, "cell_appearance", "BATTERY_EVENT")
    with database_away(bench):
        peer.publish("cell_appearance", CellAppearance(battery_id="a", view="fused", outlet="product"))
        wait_for(lambda: any("ledger_unread: " in text for text in states[-1].alarms), "the line has a fault")
        seen = len(states)
        wait_for(lambda: len(states) > seen + 10, "it goes on speaking")
        assert states[-1].in_flight == 0
    wait_for(lambda: states[-1].in_flight == 1, "the cell has arrived")
    wait_for(lambda: not any("ledger" in text for text in states[-1].alarms), "the fault is gone")
    assert controller.exit_code is None

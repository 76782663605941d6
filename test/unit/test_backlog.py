"""Records that wait for the ledger, and what a line takes up from it."""

from __future__ import annotations

import pytest

from battery_sorting.core.backlog import Backlog, follow_ledger
from battery_sorting.core.errors import LedgerError
from battery_sorting.core.ev.resume import outlet_contents
from battery_sorting.core.ledger import EventKind, Ledger
from battery_sorting.core.line import Record


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as book:
        book.begin_shift("ev", "site", 1.0)
        yield book


def detected(battery_id: str) -> Record:
    return Record("detected", battery_id, 1.0, {"trigger_count": 1, "encoder_count": 0})


def disposed(battery_id: str) -> Record:
    return Record("disposed", battery_id, 2.0, {"bin": "review", "reason": "unsure"})


def kinds(ledger: Ledger) -> list[str]:
    return [str(event.kind) for event in ledger.events() if event.battery_id]


def test_records_wait_in_their_order_until_the_ledger_takes_them(ledger, monkeypatch):
    backlog = Backlog(ledger, pytest.fail)

    def refuse():
        raise LedgerError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "transaction", refuse)
        assert not backlog.write([detected("a")])
        assert not backlog.write([disposed("a")])
        assert (len(backlog), backlog.problem) == (2, "disk full")
    assert backlog.write()
    assert (len(backlog), backlog.problem) == (0, "")
    assert kinds(ledger) == ["detected", "disposed"]


def test_a_record_that_is_refused_for_ever_blocks_no_other(ledger):
    told: list[str] = []
    backlog = Backlog(ledger, told.append)
    assert backlog.write([detected("a"), disposed("a")])
    assert not backlog.write([disposed("a"), disposed("never seen"), detected("b")])
    assert len(told) == 2 and len(backlog) == 0
    assert kinds(ledger) == ["detected", "disposed", "detected"]


def test_the_line_has_a_fault_while_the_ledger_takes_nothing(ledger, monkeypatch):
    backlog, faults, told = Backlog(ledger, pytest.fail), {"other": "x"}, []

    def refuse():
        raise LedgerError("locked")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "transaction", refuse)
        for battery_id in "ab":
            backlog.write([detected(battery_id)])
            follow_ledger(backlog, faults, told.append)
    assert faults == {"other": "x", "ledger": "locked"} and told == ["locked"]
    backlog.write()
    follow_ledger(backlog, faults, told.append)
    assert faults == {"other": "x"}


def test_outlets_hold_what_was_released_since_they_were_emptied(ledger):
    def released(battery_id: str, outlet: str) -> list[Record]:
        return [detected(battery_id), Record("released", battery_id, 2.0, {"outlet": outlet})]

    backlog = Backlog(ledger, pytest.fail)
    backlog.write([*released("a", "review"), *released("b", "hazardous")])
    backlog.write([Record("command", None, 3.0, {"command": "unsuspend"})])
    backlog.write([*released("c", "hazardous"), Record("command", None, 3.0, {"command": "hold"})])
    assert outlet_contents(ledger, ledger.shift_id or 0) == {"hazardous": 1}
    assert len(ledger.events(kinds=[EventKind.RELEASED])) == 3

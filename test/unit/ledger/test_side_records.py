"""Records beside the line: they wait for the shift, for their battery and for the ledger, and are written once."""

from __future__ import annotations

import pytest

from battery_sorting.core.errors import LedgerError
from battery_sorting.ledger import _side_records as module
from battery_sorting.ledger.events import AlarmRaised, Detected, ModelChanged, ShadowTyped
from battery_sorting.ledger.store import Ledger, SideRecords

CHANGE = ModelChanged("battery_type/2", "battery_type/1", shadow=False)
VERDICT = ShadowTyped("Klarus", 0.9, accepted=True, novelty=float("nan"))


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


@pytest.fixture
def records(ledger):
    ledger.begin_shift("belt", "sim", 1.0)
    return SideRecords(ledger, "belt")


def detect(ledger: Ledger, battery_id: str) -> None:
    with ledger.transaction() as transaction:
        transaction.record(Detected(trigger_count=1, encoder_count=1), battery_id, 1.0)


def kinds(ledger: Ledger) -> list[str]:
    return [str(event.kind) for event in ledger.events()]


def test_without_a_shift_records_wait(ledger):
    records = SideRecords(ledger, "belt")
    records.add(CHANGE, None, 5.0, now=5.0)
    records.write(6.0)
    assert kinds(ledger) == []
    ledger.begin_shift("belt", "sim", 7.0)
    records.write(8.0)
    records.write(9.0)
    assert kinds(ledger) == ["shift_started", "model_changed"]
    assert ledger.events()[-1].stamp == 5.0 and ledger.events()[-1].data == CHANGE


def test_what_comes_after_the_end_of_a_shift_still_belongs_to_it(ledger, records):
    detect(ledger, "a")
    ledger.end_shift(2.0)
    records.add(VERDICT, "a", 1.5, now=2.0)
    records.write(3.0)
    assert isinstance(ledger.events()[-1].data, ShadowTyped)
    assert ledger.events()[-1].data.novelty is None


def test_a_verdict_waits_for_its_battery_but_not_for_ever(ledger, records):
    records.add(VERDICT, "a", 1.5, now=2.0)
    records.add(VERDICT, "never", 1.5, now=2.0)
    records.write(2.5)
    assert kinds(ledger) == ["shift_started"]
    detect(ledger, "a")
    records.write(3.0)
    assert kinds(ledger) == ["shift_started", "detected", "shadow_typed"]
    records.write(2.0 + module.PATIENCE_S)
    detect(ledger, "never")
    records.write(20.0)
    assert kinds(ledger).count("shadow_typed") == 1 and records.given_up == 1


def test_a_shadow_verdict_changes_nothing_of_the_battery(ledger, records):
    detect(ledger, "a")
    before = ledger.battery("a")
    records.add(VERDICT, "a", 1.5, now=2.0)
    records.write(2.0)
    assert ledger.battery("a") == before


def test_a_notice_that_is_delivered_again_is_written_once(ledger, records):
    again = SideRecords(ledger, "belt")
    for one in (records, again):
        one.add(CHANGE, None, 5.0, now=5.0)
        one.add(AlarmRaised("drift_mix", "moved"), None, 6.0, now=6.0)
        one.write(7.0)
    again.add(AlarmRaised("drift_mix", "moved"), None, 9.0, now=9.0)
    again.write(9.0)
    assert kinds(ledger) == ["shift_started", "model_changed", "alarm_raised", "alarm_raised"]


def test_records_survive_a_ledger_that_refuses(ledger, records, monkeypatch):
    def refuse():
        raise LedgerError("disk full")

    records.add(CHANGE, None, 5.0, now=5.0)
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "transaction", refuse)
        with pytest.raises(LedgerError):
            records.write(6.0)
    records.write(7.0)
    assert kinds(ledger) == ["shift_started", "model_changed"]


def test_memory_is_bounded(ledger, monkeypatch):
    monkeypatch.setattr(module, "WAITING", 3)
    records = SideRecords(ledger, "belt")
    for number in range(5):
        records.add(CHANGE, None, float(number), now=5.0)
    assert records.given_up == 2
    ledger.begin_shift("belt", "sim", 7.0)
    records.write(8.0)
    assert [event.stamp for event in ledger.events(kinds=[ModelChanged])] == [2.0, 3.0, 4.0]

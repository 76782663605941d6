"""Records that wait for the ledger, and what a line takes up from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from battery_sorting.core.errors import LedgerError
from battery_sorting.ev.resume import StationAccount
from battery_sorting.ledger import Record
from battery_sorting.ledger.backlog import Backlog
from battery_sorting.ledger.events import Commanded, Detected, Disposed, Released, ShiftEnded
from battery_sorting.ledger.store import Ledger
from battery_sorting.ros.pictures import UNFILED, PictureQueue


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as book:
        book.begin_shift("ev", "site", 1.0)
        yield book


def detected(battery_id: str) -> Record:
    return Record(Detected(trigger_count=1, encoder_count=0), battery_id, 1.0)


def disposed(battery_id: str) -> Record:
    return Record(Disposed(bin="review", reason="unsure"), battery_id, 2.0)


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


def test_backlog_says_why_while_the_ledger_takes_nothing(ledger, monkeypatch):
    backlog = Backlog(ledger, pytest.fail)

    def refuse():
        raise LedgerError("locked")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "transaction", refuse)
        for battery_id in "ab":
            backlog.write([detected(battery_id)])
    assert backlog.problem == "locked" and len(backlog) == 2
    assert backlog.write() and backlog.problem == ""


def released(battery_id: str, outlet: str) -> list[Record]:
    records = [detected(battery_id), Record(Released(outlet=outlet), battery_id, 2.0)]
    return records if outlet == "product" else [*records, disposed(battery_id)]


def emptied(place: str) -> Record:
    return Record(Commanded(command="emptied", bin=place, by="me", reason=""), None, 3.0)


OUTLETS = ("product", "review", "hazardous")


def test_outlets_hold_what_was_released_since_they_were_emptied(ledger):
    # issue 14, point 10
    backlog = Backlog(ledger, pytest.fail)
    account = StationAccount(ledger, "ev", OUTLETS)
    backlog.write([*released("a", "review"), *released("b", "hazardous"), *released("p", "product")])
    backlog.write([Record(Commanded(command="unsuspend"), None, 3.0), emptied("hazardous")])
    backlog.write([*released("c", "hazardous"), emptied("trays")])
    backlog.write([detected("gone"), Record(Disposed(bin="", reason="unaccounted"), "gone", 2.0)])
    backlog.write([Record(Disposed(bin="", reason="unaccounted"), "p", 2.0)])  # counted by the station
    account.refresh()
    again = StationAccount(ledger, "ev", OUTLETS)
    for each in (account, again):
        assert each.contents == {"product": 1, "review": 1, "hazardous": 1}
        assert each.totals == {"detected": 5, "sorted": 1, "others": 3, "unaccounted": 1}


def test_a_ledger_that_goes_away_in_the_middle_of_counting_costs_no_count(ledger, monkeypatch):
    # issue 14
    backlog = Backlog(ledger, pytest.fail)
    account = StationAccount(ledger, "ev", OUTLETS)
    backlog.write([*released("a", "review"), detected("gone")])
    backlog.write([Record(Disposed(bin="", reason="unaccounted"), "gone", 2.0), *released("b", "review")])
    events = ledger.events

    def break_off(**query):
        if "battery_id" in query:
            raise LedgerError("the server has gone away")
        return events(**query)

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "events", break_off)
        for _ in range(2):
            with pytest.raises(LedgerError):
                account.refresh()
    account.refresh()
    assert account.contents["review"] == 2
    assert account.totals == {"detected": 3, "sorted": 0, "others": 2, "unaccounted": 1}


def test_outlets_hold_over_the_end_of_a_shift_what_the_counters_do_not(ledger):
    # issue 14, point 10
    backlog = Backlog(ledger, pytest.fail)
    backlog.write([*released("a", "review"), *released("b", "review")])
    ledger.end_shift(4.0, ShiftEnded(contents=StationAccount(ledger, "ev", OUTLETS).contents))
    ledger.begin_shift("ev", "site", 5.0)
    backlog.write(released("c", "review"))
    account = StationAccount(ledger, "ev", OUTLETS)
    assert account.contents == {"product": 0, "review": 3, "hazardous": 0}
    assert account.totals == {"detected": 1, "sorted": 0, "others": 1, "unaccounted": 0}


# ---- the ledger's file is gone, or another one stands there: issue 14, point 15 ----


def move_file(folder: Path) -> None:
    (folder / "ledger.sqlite").rename(folder / "elsewhere.sqlite")


def move_folder(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replace_file(folder: Path) -> None:
    with Ledger.open(folder / "other.sqlite") as other:
        other.begin_shift("ev", "site", 1.0)
    move_file(folder)
    (folder / "other.sqlite").rename(folder / "ledger.sqlite")


def move_log(folder: Path) -> None:
    (folder / "ledger.sqlite-wal").rename(folder / "elsewhere-wal")


def put_back(folder: Path) -> None:
    if not folder.exists():
        folder.with_name("elsewhere").rename(folder)
    if (folder / "elsewhere.sqlite").exists():
        (folder / "elsewhere.sqlite").replace(folder / "ledger.sqlite")
    if (folder / "elsewhere-wal").exists():
        (folder / "elsewhere-wal").rename(folder / "ledger.sqlite-wal")


@pytest.mark.parametrize("fault", [move_file, move_folder, replace_file, move_log])
def test_ledger_that_is_moved_or_replaced_is_noticed_and_written_when_it_is_back(tmp_path, fault):
    folder = tmp_path / "run"
    with Ledger.open(folder / "ledger.sqlite") as ledger:
        ledger.begin_shift("ev", "site", 1.0)
        backlog = Backlog(ledger, pytest.fail)
        assert backlog.write([detected("a")])
        backlog.check_file()
        assert not backlog.problem
        fault(folder)
        backlog.check_file()  # nothing is to be written, and yet it is noticed
        assert str(folder / "ledger.sqlite") in backlog.problem and "put the file back" in backlog.problem
        assert ("replaced by another" in backlog.problem) == (fault is replace_file)
        assert not backlog.write([disposed("a"), detected("b")])
        assert len(backlog) == 2
        put_back(folder)
        assert backlog.write()
        assert backlog.problem == ""
        assert kinds(ledger) == ["detected", "disposed", "detected"]


def test_deleted_ledger_is_not_begun_anew_and_what_waits_is_kept_in_a_file(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin_shift("ev", "site", 1.0)
        backlog = Backlog(ledger, pytest.fail)
        (tmp_path / "ledger.sqlite").unlink()
        assert not backlog.write([detected("a"), disposed("a")])
        assert "was deleted or moved away" in backlog.problem
        with pytest.raises(LedgerError):
            ledger.begin_shift("ev", "site", 1.0)
        assert not (tmp_path / "ledger.sqlite").exists()
        assert backlog.rescue(tmp_path / "unwritten.jsonl") == 2
    rescued = [json.loads(line) for line in (tmp_path / "unwritten.jsonl").read_text().splitlines()]
    assert [(record["kind"], record["battery_id"]) for record in rescued] == [("detected", "a"), ("disposed", "a")]


def test_other_processes_that_come_and_go_do_not_disturb_who_watches_the_ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin_shift("ev", "site", 1.0)
        for number in range(3):
            code = "import sys, sqlite3; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.close()"
            for statement in ("SELECT count(*) FROM events", "PRAGMA wal_checkpoint(TRUNCATE)"):
                subprocess.run([sys.executable, "-c", code, str(tmp_path / "ledger.sqlite"), statement], check=True)
                ledger.check_file()
            assert Backlog(ledger, pytest.fail).write([detected(str(number))])


def test_pictures_wait_for_the_ledger_in_their_order_and_not_without_end():
    pictures, filed, refusing = PictureQueue(), [], [True]

    def picture(number: int):
        def file() -> None:
            if refusing[0]:
                raise LedgerError("moved away")
            filed.append(number)

        return file

    for number in range(UNFILED + 3):
        pictures.add(picture(number))
        with pytest.raises(LedgerError):
            pictures.file()
    assert pictures.given_up == 3 and filed == []
    refusing[0] = False
    assert pictures.file() == UNFILED
    assert filed == list(range(3, UNFILED + 3))
    assert pictures.file() == 0

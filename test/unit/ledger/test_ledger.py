"""The ledger: nothing recorded is lost, nothing is recorded twice, and every failure says what to do."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import fields
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from battery_sorting.core.errors import LedgerError
from battery_sorting.core.types import EjectOutcome, Reason
from battery_sorting.ledger import DuplicateRecordError, UnknownBatteryError
from battery_sorting.ledger._models import Base
from battery_sorting.ledger.events import (
    EVENTS,
    Decided,
    Detected,
    Disposed,
    EjectOrdered,
    EjectReported,
    EventKind,
    Exited,
    LineStateChanged,
    Typed,
)
from battery_sorting.ledger.store import SCHEMA_REVISION, ImageStore, Ledger

LINE = "belt"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "ledger.sqlite"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A ledger with a shift, made once and copied: to make one takes longer than most tests."""
    path = tmp_path_factory.mktemp("begun") / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        ledger.begin_shift(LINE, "sim", 1000.0, software_version="0.1", config={"recipe": {"name": "batsort"}})
    return path


@pytest.fixture
def ledger(begun, path):
    path.parent.mkdir()
    shutil.copy(begun, path)
    with Ledger.open(path) as ledger:
        ledger.resume_shift(LINE)
        yield ledger


def detect(ledger, battery_id, stamp=1000.0):
    with ledger.transaction() as tx:
        tx.record(
            Detected(trigger_count=7, encoder_count=4_000_000_000, gap_ahead_mm=81.0, gate_seen=True),
            battery_id,
            stamp,
        )


def dispose(ledger, battery_id, bin="aa", reason=Reason.SORTED):
    with ledger.transaction() as tx:
        tx.record(Disposed(bin=bin, reason=reason), battery_id, 1003.0)


# ---- events and state ----


def test_a_battery_is_followed_from_the_eye_to_its_bin(ledger):
    detect(ledger, "a-1")
    with ledger.transaction() as tx:
        tx.record(Typed(label="aa", confidence=0.97, accepted=True, reason=""), "a-1", 1000.1)
        tx.record(Decided(bin="bin_aa", reason=Reason.SORTED), "a-1", 1000.1)
        tx.record(EjectOrdered(token=5, bin="bin_aa"), "a-1", 1000.1)
        tx.record(EjectReported(token=5, outcome=EjectOutcome.FIRED), "a-1", 1000.2)
        tx.record(Exited(exit_count=3), "a-1", 1002.0)
    [battery] = ledger.open_batteries(LINE)
    assert (battery.encoder_count, battery.gap_ahead_mm, battery.gate_seen) == (4_000_000_000, 81.0, True)
    assert (battery.label, battery.confidence, battery.accepted) == ("aa", 0.97, True)
    assert (battery.decided_bin, battery.token, battery.eject_outcome) == ("bin_aa", 5, EjectOutcome.FIRED)
    dispose(ledger, "a-1", "bin_aa")
    assert ledger.open_batteries(LINE) == []
    battery = ledger.battery("a-1")
    assert (battery.bin, battery.reason, battery.disposed_at, battery.exited_at) == (
        "bin_aa",
        "sorted",
        1003.0,
        1002.0,
    )
    kinds = [str(event.kind) for event in ledger.events(battery_id="a-1")]
    assert kinds == ["detected", "typed", "decided", "eject_ordered", "eject_reported", "exited", "disposed"]


def test_payloads_of_enums_nan_and_numpy_are_stored_plainly(ledger):
    numpy = pytest.importorskip("numpy")
    detect(ledger, "a-1")
    with ledger.transaction() as tx:
        tx.record(
            Typed(
                label="",
                confidence=math.nan,
                reason=Reason.BAD_IMAGE,
                scores={"aa": numpy.float32(0.5)},
                model=Path("m/1"),
            ),
            "a-1",
            1.0,
        )
    event = ledger.events(battery_id="a-1", kinds=[Typed])[0]
    assert event.payload == {
        "label": "",
        "confidence": None,
        "accepted": True,
        "reason": "bad_image",
        "scores": {"aa": 0.5},
        "model": str(Path("m/1")),
    }
    assert ledger.battery("a-1").confidence is None


def test_a_second_detection_is_refused(ledger):
    detect(ledger, "a-1")
    with pytest.raises(DuplicateRecordError, match="a-1 was detected before"):
        detect(ledger, "a-1")
    assert len(ledger.events(battery_id="a-1")) == 1


def test_a_second_disposition_is_refused_and_the_first_stands(ledger):
    detect(ledger, "a-1")
    dispose(ledger, "a-1", "aa")
    with pytest.raises(DuplicateRecordError, match=r"went to aa \(sorted\) before"):
        dispose(ledger, "a-1", "others", Reason.UNACCOUNTED)
    assert ledger.battery("a-1").bin == "aa"


@pytest.mark.parametrize("kind", ["detected", "disposed"])
def test_the_database_itself_refuses_a_second_row(ledger, path, kind):
    detect(ledger, "a-1")
    dispose(ledger, "a-1")
    with sqlite3.connect(path) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(
            "INSERT INTO events (shift_id, battery_id, stamp, recorded_at, kind, payload) "
            f"VALUES (1, 'a-1', 0, 0, '{kind}', '{{}}')"
        )
    connection.close()


def test_a_battery_gets_one_eject_token_which_may_be_sent_again(ledger):
    detect(ledger, "a-1")
    with ledger.transaction() as tx:
        tx.record(EjectOrdered(token=5, bin="aa"), "a-1", 1.0)
        tx.record(EjectOrdered(token=5, bin="aa"), "a-1", 1.1)
    with pytest.raises(DuplicateRecordError, match="has the eject token 5"), ledger.transaction() as tx:
        tx.record(EjectOrdered(token=6, bin="aa"), "a-1", 1.2)
    assert ledger.battery("a-1").token == 5


@pytest.mark.parametrize("event", [Decided("aa"), EjectOrdered(5, "aa")])
def test_nothing_is_ordered_for_a_battery_that_is_gone(ledger, event):
    detect(ledger, "a-1")
    dispose(ledger, "a-1")
    with pytest.raises(DuplicateRecordError), ledger.transaction() as tx:
        tx.record(event, "a-1", 1.0)


def test_a_refused_record_may_be_caught_and_the_rest_of_the_transaction_stands(ledger):
    detect(ledger, "a-1")
    with ledger.transaction() as tx:
        with pytest.raises(DuplicateRecordError):
            tx.record(Detected(trigger_count=1, encoder_count=1), "a-1", 1.0)
        tx.record(Detected(trigger_count=2, encoder_count=1), "a-2", 1.0)
    assert ledger.known_ids() == {"a-1", "a-2"}


def test_a_late_verdict_is_logged_but_does_not_rewrite_the_record(ledger):
    detect(ledger, "a-1")
    dispose(ledger, "a-1", "others", Reason.NO_DECISION)
    with ledger.transaction() as tx:
        tx.record(Typed(label="aa", confidence=0.9), "a-1", 1004.0)
    assert ledger.battery("a-1").label is None
    assert isinstance(ledger.events(battery_id="a-1")[-1].data, Typed)


@pytest.mark.parametrize("event", [Typed("aa"), Decided("aa"), Disposed("aa", "sorted"), Exited()])
def test_events_of_an_unknown_battery_are_refused(ledger, event):
    with pytest.raises(UnknownBatteryError), ledger.transaction() as tx:
        tx.record(event, "nobody", 1.0)


def test_an_eject_outcome_stands_there_by_name_and_counts_for_its_own_token(ledger):
    detect(ledger, "a-1")
    with ledger.transaction() as tx:
        tx.record(EjectOrdered(token=5, bin="aa"), "a-1", 1.0)
        tx.record(EjectReported(token=5, outcome=EjectOutcome.FIRED), "a-1", 1.0)
        tx.record(EjectReported(token=4, outcome=EjectOutcome.LATE), "a-1", 1.0)
    assert ledger.battery("a-1").eject_outcome is EjectOutcome.FIRED
    assert [event.payload["outcome"] for event in ledger.events(kinds=[EjectReported])] == ["fired", "late"]


def test_the_last_events_come_in_their_order(ledger):
    for number in range(5):
        detect(ledger, f"a-{number}")
    last = ledger.events(kinds=[Detected], last=2)
    assert [event.battery_id for event in last] == ["a-3", "a-4"]


def test_incomplete_events_are_refused(ledger):
    with pytest.raises(TypeError, match="'token' and 'bin'"):
        EjectOrdered()
    with ledger.transaction() as tx, pytest.raises(ValueError, match="needs a battery_id"):
        tx.record(Disposed(bin="aa", reason="sorted"), None, 1.0)


def test_a_transaction_that_raises_leaves_nothing(ledger):
    with pytest.raises(RuntimeError), ledger.transaction() as tx:
        tx.record(Detected(trigger_count=1, encoder_count=1), "a-1", 1.0)
        raise RuntimeError
    assert ledger.known_ids() == set()


def test_records_outside_a_shift_are_refused(path):
    with Ledger.open(path) as ledger, pytest.raises(LedgerError, match="resume_shift"), ledger.transaction() as tx:
        tx.record(LineStateChanged(), None, 1.0)


def test_a_shift_is_resumed_until_it_is_ended(path):
    with Ledger.open(path) as ledger:
        shift = ledger.begin_shift(LINE, "sim", 1.0, config={"threshold": 0.8})
        detect(ledger, "a-1")
    with Ledger.open(path) as ledger:
        assert ledger.resume_shift("ev") is None
        assert ledger.resume_shift(LINE) == shift
        assert [battery.battery_id for battery in ledger.open_batteries(LINE)] == ["a-1"]
        assert ledger.open_batteries("ev") == []
        ledger.end_shift(9.0)
        assert ledger.resume_shift(LINE) is None
        [row] = ledger.shifts()
        assert (row.line, row.started_at, row.ended_at, row.config) == (LINE, 1.0, 9.0, {"threshold": 0.8})


def test_known_ids_are_narrowed_by_the_boot_id(ledger):
    for battery_id in ("000000aa-000001", "000000aa-000002", "000000ab-000001"):
        detect(ledger, battery_id)
    assert ledger.known_ids("000000aa-") == {"000000aa-000001", "000000aa-000002"}


def test_a_picture_is_filed_once_and_before_its_battery_is_known(ledger):
    for _ in range(2):
        with ledger.transaction() as tx:
            tx.add_image("a-1", "ab" * 32, path="ab/x.jpg", width=1280, height=1024, size=9, stamp=2.0)
    [image] = ledger.images("a-1")
    assert (image.path, image.width, image.height, image.bytes, image.station) == (
        "ab/x.jpg",
        1280,
        1024,
        9,
        "infeed",
    )


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]), st.sampled_from(sorted(set(EventKind) - {"shift_ended"})), st.integers(1, 3)
    ),
    max_size=25,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
def test_the_state_follows_from_the_accepted_events(begun, tmp_path_factory, steps):
    path = Path(shutil.copy(begun, tmp_path_factory.mktemp("ledger")))
    with Ledger.open(path) as ledger:
        ledger.resume_shift(LINE)
        with ledger.transaction() as tx:
            for stamp, (battery_id, kind, value) in enumerate(steps):
                if kind is EventKind.SHIFT_STARTED:
                    continue
                payload = {
                    "trigger_count": value,
                    "encoder_count": value,
                    "label": f"type{value}",
                    "bin": f"bin{value}",
                    "reason": "sorted",
                    "token": value,
                    "outcome": EjectOutcome(value),
                    "model": f"battery_type/{value}",
                    "view": "lug",
                    "verdict": "good",
                    "code": "flip_jam",
                    "outlet": "product",
                    "source": "pick",
                    "target": "channel-1",
                    "place": "channel-1",
                    "programme": "capacity",
                    "grade": "A",
                    "group": "pack_1",
                }
                needed = {one.name: payload[one.name] for one in fields(EVENTS[kind]) if one.name in payload}
                try:
                    tx.record(EVENTS[kind](**needed), battery_id, float(stamp))
                except (DuplicateRecordError, UnknownBatteryError):
                    continue
                except LedgerError:
                    pytest.fail("refused for another reason")
        for battery_id in "ab":
            _check_state(ledger, battery_id)
        disposed = {event.battery_id for event in ledger.events(kinds=[Disposed])}
        assert {battery.battery_id for battery in ledger.open_batteries(LINE)} == ledger.known_ids() - disposed


def _check_state(ledger, battery_id):
    """Compare the battery's row with a plain fold over its events."""
    events = ledger.events(battery_id=battery_id)
    battery = ledger.battery(battery_id)
    if not events:
        assert battery is None
        return
    kinds = [type(event.data) for event in events]
    assert kinds[0] is Detected
    assert kinds.count(Detected) == 1
    assert kinds.count(Disposed) <= 1
    end = kinds.index(Disposed) if Disposed in kinds else len(kinds)
    assert not {Decided, EjectOrdered} & set(kinds[end:])
    verdicts = [event.data.label for event in events[:end] if isinstance(event.data, Typed)]
    tokens = {event.data.token for event in events if isinstance(event.data, EjectOrdered)}
    assert battery.label == (verdicts[-1] if verdicts else None)
    assert tokens == ({battery.token} - {None})
    assert battery.bin == (events[end].data.bin if end < len(events) else None)


# ---- several processes, crashes ----


def run_python(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


_WRITER = """
    import sys
    from battery_sorting.ledger.events import Detected
    from battery_sorting.ledger.store import Ledger
    path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    ledger = Ledger.open(path)
    ledger.begin_shift(name, "sim", 0.0)
    for number in range(count):
        with ledger.transaction() as tx:
            tx.record(Detected(number, 0), f"{name}-{number}", float(number))
        print(number, flush=True)
"""


def test_two_processes_create_and_write_one_ledger_while_a_third_reads(path):
    writers = [run_python(_WRITER, path, name, 60) for name in ("one", "two")]
    while not path.exists() or path.stat().st_size == 0:
        assert all(writer.poll() is None for writer in writers)
        time.sleep(0.01)
    with Ledger.open(path) as reader:
        seen = 0
        while any(writer.poll() is None for writer in writers):
            now = len(reader.known_ids())
            assert now >= seen
            seen = now
    for writer in writers:
        assert writer.communicate(timeout=10)[1] == ""
        assert writer.returncode == 0
    with Ledger.open(path, read_only=True) as ledger:
        assert len(ledger.known_ids()) == 120
        assert len(ledger.open_batteries("one")) == 60


def test_many_threads_may_record_at_once(ledger):
    def work(name):
        for number in range(20):
            detect(ledger, f"{name}-{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.known_ids()) == 80


def test_a_killed_writer_loses_no_committed_row(path):
    writer = run_python(_WRITER, path, "belt", 1_000_000)
    acknowledged = [int(writer.stdout.readline()) for _ in range(60)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in writer.communicate(timeout=10)[0].split()]
    with Ledger.open(path, create=False) as ledger:
        assert ledger.resume_shift("belt") is not None
        known = ledger.known_ids()
        assert {f"belt-{number}" for number in acknowledged} <= known
        assert {event.battery_id for event in ledger.events(kinds=[Detected])} == known
        dispose(ledger, "belt-0")


# ---- opening what can't be opened ----


def test_an_empty_file_becomes_a_ledger_of_the_tables_that_the_code_knows(path):
    path.parent.mkdir()
    path.touch()
    Ledger.open(path).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == SCHEMA_REVISION
        assert compare_metadata(context, Base.metadata) == []
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()


def test_a_ledger_of_a_newer_schema_is_refused_untouched(ledger, path):
    ledger.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(LedgerError, match=r"ledger\.sqlite: has schema 9999, newer than .* update battery_sorting"):
        Ledger.open(path)


@pytest.mark.parametrize("read_only", [False, True])
def test_what_is_no_ledger_is_refused(tmp_path, read_only):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to look at")
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    for path, message in (
        (text, "notes.txt: is not a ledger"),
        (foreign, "foreign.sqlite: is another program's database"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(LedgerError, match=message):
            Ledger.open(path, read_only=read_only)
    with sqlite3.connect(foreign) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]
    connection.close()


def test_a_missing_ledger_is_not_created_for_a_reader(tmp_path):
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(LedgerError, match="no such ledger"):
            Ledger.open(tmp_path / "none.sqlite", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_ledger_is_refused(ledger, path):
    ledger.close()
    data = bytearray(path.read_bytes())
    data[16:4096] = b"\xff" * 4080
    path.write_bytes(data)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite: "):
        Ledger.open(path)


def test_an_unsupported_url_is_refused_without_showing_the_password():
    with pytest.raises(LedgerError, match="supported"):
        Ledger.open("nosuchdb://host/x")
    with pytest.raises(LedgerError) as error:
        Ledger.open("postgresql://user:secret@127.0.0.1:1/ledger")
    assert "secret" not in str(error.value)


def test_a_locked_ledger_says_so(ledger, path, monkeypatch):
    monkeypatch.setattr("battery_sorting.ledger._engine.BUSY_TIMEOUT_S", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Ledger.open(path) as impatient:
        impatient.resume_shift(LINE)
        with pytest.raises(LedgerError, match="another process holds it"):
            detect(impatient, "a-1")
        other.execute("ROLLBACK")
        detect(impatient, "a-1")
    other.close()


def test_a_full_disk_is_named_and_the_ledger_goes_on_when_there_is_room(ledger, path):
    ledger.close()
    with Ledger.open(path) as small:
        small.resume_shift(LINE)
        with small._engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(LedgerError, match=r"ledger\.sqlite: .*the disk is full; free space"):
            for number in range(1000):
                detect(small, f"a-{number}")
        written = small.known_ids()
        assert written
        with small._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
        detect(small, "later")
        assert small.known_ids() == written | {"later"}


def test_a_file_size_limit_loses_no_committed_row(path):
    writer = run_python(
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))\n"
        + textwrap.dedent(_WRITER),
        path,
        "belt",
        100_000,
    )
    out, err = writer.communicate(timeout=30)
    assert "LedgerError" in err.splitlines()[-1]
    assert str(path) in err.splitlines()[-1]
    with Ledger.open(path) as ledger:
        assert {f"belt-{number}" for number in out.split()} <= ledger.known_ids()


def test_a_read_only_ledger_can_be_read_but_not_written(ledger, path):
    detect(ledger, "a-1")
    ledger.close()
    with Ledger.open(path, read_only=True) as reader:
        assert reader.known_ids() == {"a-1"}
        with pytest.raises(LedgerError, match="it is read-only"):
            reader.begin_shift(LINE, "sim", 0.0)


# ---- images ----


def test_images_are_named_by_their_content_and_written_once(tmp_path):
    store = ImageStore(tmp_path / "images")
    sha256 = store.put(b"pixels", ".jpg")
    target = store.path(sha256, ".jpg")
    assert target == tmp_path / "images" / sha256[:2] / f"{sha256}.jpg"
    written = target.stat().st_mtime_ns
    assert store.put(b"pixels", ".jpg") == sha256
    assert (target.read_bytes(), target.stat().st_mtime_ns) == (b"pixels", written)


def test_a_full_disk_leaves_no_part_of_an_image(tmp_path):
    code = """
        import resource, sys
        from pathlib import Path
        from battery_sorting.ledger.store import ImageStore
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        store = ImageStore(Path(sys.argv[1]), fsync=True)
        store.put(b"small")
        store.put(bytes(5000))
    """
    err = run_python(code, tmp_path).communicate(timeout=30)[1]
    assert "LedgerError" in err.splitlines()[-1]
    assert "images.path" in err.splitlines()[-1]
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 1


def test_an_image_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "images").write_text("")
    with pytest.raises(LedgerError, match="images"):
        ImageStore(tmp_path / "images").put(b"pixels")

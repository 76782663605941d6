"""Events of the ledger: what each kind writes, that it is read back, and that older ledgers are read, too."""
# issue 16, 5

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from support.doc_tables import REFERENCE, assert_stands_in, markdown_table

from battery_sorting.core.types import (
    Alarm,
    Detection,
    EjectOutcome,
    EjectReport,
    LineStateId,
    ModelChange,
    TypeResult,
)
from battery_sorting.ledger._reading import UnreadableError, read_data
from battery_sorting.ledger.events import (
    EVENTS,
    AlarmCleared,
    AlarmRaised,
    BatteryRecord,
    CellGraded,
    CellGrouped,
    CellMeasured,
    Commanded,
    Decided,
    Detected,
    Disposed,
    EjectOrdered,
    EjectReported,
    EventData,
    EventKind,
    Exited,
    LineStateChanged,
    Looked,
    ModelChanged,
    Moved,
    MoveOrdered,
    Released,
    ReleaseOrdered,
    ShadowTyped,
    ShiftEnded,
    ShiftStarted,
    StationFaulted,
    Typed,
    TypeVerdict,
)
from battery_sorting.ledger.store import Ledger
from battery_sorting.packml.restart import standing_order

NAN = float("nan")
VERDICT = TypeResult("a", 5.0, "AA", 0.975, True, "", {"AA": 0.97504, "BB": 0.0249999}, "types/3", 0.0125, NAN, 2)
VERDICT_JSON = (
    '{"label":"AA","confidence":0.975,"accepted":true,"reason":"","scores":{"AA":0.975,"BB":0.025},'
    '"model":"types/3","inference_s":0.0125,"novelty":null,"views":2}'
)
LOOK = Looked(
    view="lug", frame=7, verdict="defective", reason="bulging", kind="bulging", probability=0.9375,
    kinds={"bulging": 0.9}, novelty=NAN, code="LF1", face="lug", model="lug/2", seconds=0.25,
)  # fmt: skip

# As software before the typed events has written them.
WRITTEN: list[tuple[EventData, str]] = [
    (
        ShiftStarted("belt", "sim", "0.1", {"recipe": {"name": "batsort"}}),
        '{"line":"belt","site":"sim","software_version":"0.1","config":{"recipe":{"name":"batsort"}}}',
    ),
    (
        ShiftEnded(2, contents={"AA": 3}, trays={"cell 1": "pack 0"}),
        '{"in_flight":2,"contents":{"AA":3},"trays":{"cell 1":"pack 0"}}',
    ),
    (
        Detected.of(Detection("a", 7, 81250, 5.0, NAN, 93.5, False)),
        '{"trigger_count":7,"encoder_count":81250,"gap_ahead_mm":null,"gap_behind_mm":93.5,'
        '"gate_seen":false}',
    ),
    (Typed.of(VERDICT), VERDICT_JSON),
    (ShadowTyped.of(VERDICT), VERDICT_JSON),
    (Decided("others", "late"), '{"bin":"others","reason":"late"}'),
    (EjectOrdered(7, "AA"), '{"token":7,"bin":"AA"}'),
    (
        EjectReported.of(EjectReport("a", 7, EjectOutcome.FIRED, "AA", 90000, 5.0)),
        '{"token":7,"outcome":"fired","fire_count":90000,"reason":"","latency_s":null}',
    ),
    (Exited(3, 91000), '{"exit_count":3,"encoder_count":91000}'),
    (Disposed("AA", "sorted"), '{"bin":"AA","reason":"sorted"}'),
    (
        LineStateChanged(LineStateId.HELD, "Held", "a fault", "run-1", True, True, {"cell_lost": "look for it"}),
        '{"state":11,"name":"Held","reason":"a fault","run_id":"run-1","by_fault":true,"auto_start":true,'
        '"latched":{"cell_lost":"look for it"}}',
    ),
    (AlarmRaised("stood_still", "for 2 s"), '{"code":"stood_still","text":"for 2 s"}'),
    (
        AlarmRaised.of(Alarm(5.0, "drift_mix", "0.5", raised=True)),
        '{"code":"drift_mix","text":"0.5","raised":true}',
    ),
    (AlarmCleared("node_camera"), '{"code":"node_camera"}'),
    (
        Commanded("emptied", by="anna", reason="", bin="AA", accepted=True),
        '{"command":"emptied","by":"anna","reason":"","bin":"AA","accepted":true}',
    ),
    (
        ModelChanged.of(ModelChange(5.0, "types/4", "types/3", "models/types", "00ff", shadow=False)),
        '{"model":"types/4","previous":"types/3","folder":"models/types","sha256":"00ff","shadow":false}',
    ),
    (
        LOOK,
        '{"view":"lug","frame":7,"verdict":"defective","reason":"bulging","kind":"bulging",'
        '"probability":0.9375,"kinds":{"bulging":0.9},"novelty":null,"code":"LF1","face":"lug",'
        '"model":"lug/2","seconds":0.25}',
    ),
    (StationFaulted("flip_jam", "no answer", "flip"), '{"code":"flip_jam","text":"no answer","step":"flip"}'),
    (ReleaseOrdered("product", 4), '{"outlet":"product","token":4}'),
    (Released("product"), '{"outlet":"product"}'),
    (MoveOrdered("outlet", "channel-1"), '{"source":"outlet","target":"channel-1"}'),
    (Moved("channel-1"), '{"place":"channel-1","error":""}'),
    (
        CellMeasured(
            "capacity", 20.5, 0.02, 0.75, 0.01, "AC 1 kHz", NAN, NAN, NAN, 3.65, 0.001, 600.0, 0.5, 0.01, 24.5, 0.5,
            2.5, "BT3561A", "2026-01-02", "cycler", "",
        ),
        '{"programme":"capacity","capacity_ah":20.5,"capacity_uncertainty_ah":0.02,"resistance_mohm":0.75,'
        '"resistance_uncertainty_mohm":0.01,"resistance_method":"AC 1 kHz","dc_resistance_mohm":null,'
        '"dc_resistance_uncertainty_mohm":null,"dc_seconds":null,"ocv_v":3.65,"ocv_uncertainty_v":0.001,'
        '"rest_s":600.0,"soc":0.5,"soc_uncertainty":0.01,"temperature_c":24.5,"temperature_uncertainty_c":0.5,'
        '"contact_mohm":2.5,"instrument":"BT3561A","calibrated_on":"2026-01-02","capacity_instrument":"cycler",'
        '"capacity_calibrated_on":""}',
    ),
    (
        CellGraded("A", "ok", 0.75, [0.9, 0.1], ""),
        '{"grade":"A","status":"ok","relation_degree":0.75,"probabilities":[0.9,0.1],"reason":""}',
    ),
    (CellGrouped("", "too_few"), '{"group":"","leftover":"too_few"}'),
]  # fmt: skip


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A ledger with a shift and a battery, made once and copied: to make one takes longer than the tests."""
    path = tmp_path_factory.mktemp("begun") / "ledger.sqlite"
    with Ledger.open(path) as ledger:
        ledger.begin_shift("belt", "sim", 1000.0)
        with ledger.transaction() as transaction:
            transaction.record(Detected(1, 2), "a", 1001.0)
    return path


@pytest.fixture
def path(begun, tmp_path):
    return shutil.copy(begun, tmp_path / "ledger.sqlite")


def write_stored(path, kind: str, payload: str, battery_id: str | None = "a") -> None:
    """An event as other software has left it there."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if kind == "detected":  # the database allows one of each battery
            connection.execute("UPDATE events SET payload = ? WHERE kind = 'detected'", (payload,))
            return
        columns = "shift_id, battery_id, stamp, recorded_at, kind, payload"
        row = (battery_id, kind, payload)
        connection.execute(f"INSERT INTO events ({columns}) VALUES (1, ?, 1002.0, 1002.0, ?, ?)", row)


def read_stored(path, kind: type[EventData]) -> EventData:
    with Ledger.open(path, read_only=True) as ledger:
        found = ledger.events(kinds=[kind])
        assert ledger.unreadable == []
    return found[-1].data


def test_there_is_an_example_of_every_kind():
    assert {type(data) for data, _ in WRITTEN} == set(EVENTS.values())


@pytest.mark.parametrize(("data", "text"), WRITTEN, ids=lambda value: getattr(value, "KIND", ""))
def test_an_event_is_written_as_ever(path, data, text):
    battery_id = "new" if isinstance(data, Detected) else "a" if data.OF_A_BATTERY else None
    with Ledger.open(path) as ledger:
        ledger.resume_shift("belt")
        with ledger.transaction() as transaction:
            transaction.record(data, battery_id, 1002.0)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        stored = connection.execute("SELECT payload FROM events ORDER BY id DESC LIMIT 1").fetchone()
    assert stored == (text,)


@pytest.mark.parametrize(("data", "text"), WRITTEN, ids=lambda value: getattr(value, "KIND", ""))
def test_an_event_is_read_back_as_it_was_said(path, data, text):
    write_stored(path, data.KIND.value, text)
    read = read_stored(path, type(data))
    for one in fields(data):
        said = getattr(data, one.name)
        assert getattr(read, one.name) == (one.default if said != said else said), one.name  # NaN is "not known"


# Every key that the software before the typed events could do without.
LACKING = [
    ("shift_started", "{}", ShiftStarted("", "")),
    ("shift_started", '{"line": null, "site": null}', ShiftStarted("", "")),
    ("detected", "{}", Detected(0, 0)),
    ("typed", "{}", Typed("")),
    ("typed", '{"label": null, "views": "two"}', Typed("", views="two")),
    ("typed", '{"label": "AA", "accepted": null}', Typed("AA", accepted=False)),
    ("shadow_typed", "{}", ShadowTyped("")),
    ("decided", '{"bin": "AA"}', Decided("AA")),
    ("eject_ordered", '{"token": 7}', EjectOrdered(7, "")),
    ("eject_reported", '{"token": 7, "outcome": 2}', EjectReported(7, EjectOutcome.FIRED)),
    ("exited", "{}", Exited()),
    ("line_state", "{}", LineStateChanged()),
    ("alarm_raised", '{"raised": "yes"}', AlarmRaised(raised="yes")),
    ("alarm_cleared", '{"raised": 1}', AlarmCleared(raised=1)),
    ("command", "{}", Commanded()),
    ("command", '{"command": "start", "accepted": null}', Commanded("start", accepted=False)),
    ("model_changed", "{}", ModelChanged("")),
    ("model_changed", '{"model": "m/1", "shadow": "yes"}', ModelChanged("m/1", shadow="yes")),
    ("looked", '{"view": "lug", "verdict": "good", "frame": "7"}', Looked(view="lug", verdict="good", frame="7")),
    ("station_fault", '{"code": "stuck"}', StationFaulted("stuck")),
    ("moved", '{"place": ""}', Moved("")),
    ("measured", "{}", CellMeasured("")),
    ("measured", '{"programme": null, "capacity_ah": 20.5}', CellMeasured("", 20.5)),
    ("graded", "{}", CellGraded("")),
    ("grouped", '{"group": null, "of_a_later_version": {}}', CellGrouped("")),
]


@pytest.mark.parametrize(("kind", "payload", "data"), LACKING)
def test_an_event_of_an_older_ledger_is_read_though_it_lacks_keys(path, kind, payload, data):
    write_stored(path, kind, payload)
    assert read_stored(path, type(data)) == data


NEEDED = {
    "decided": ["bin"], "eject_ordered": ["token"], "eject_reported": ["token", "outcome"],
    "disposed": ["bin", "reason"], "looked": ["view", "verdict"], "station_fault": ["code"],
    "release_ordered": ["outlet", "token"], "released": ["outlet"], "move_ordered": ["source", "target"],
    "moved": ["place"],
}  # fmt: skip


@pytest.mark.parametrize("kind", list(EVENTS))
def test_without_what_it_is_about_an_event_is_unreadable(kind):
    data, text = next((data, text) for data, text in WRITTEN if kind is data.KIND)
    for key in fields(data):
        with pytest.raises(UnreadableError) if key.name in NEEDED.get(kind, ()) else contextlib.nullcontext():
            read_data(kind, {**json.loads(text), key.name: None})


def test_a_start_whose_acceptance_is_null_lifts_no_order_to_rest(path):
    write_stored(path, "command", '{"command": "stop", "by": "anna", "accepted": true}', None)
    write_stored(path, "command", '{"command": "start", "by": "anna", "accepted": null}', None)
    with Ledger.open(path, read_only=True) as ledger:
        assert standing_order(ledger.commands("belt")) is not None
    write_stored(path, "command", '{"command": "start", "by": "anna"}', None)
    with Ledger.open(path, read_only=True) as ledger:
        assert standing_order(ledger.commands("belt")) is None


def test_every_verdict_of_a_classifier_has_the_fields_of_the_result():
    assert {one.name for one in fields(TypeVerdict)} == {one.name for one in fields(TypeResult)} - {
        "battery_id",
        "stamp",
    }


def test_a_measurement_on_record_has_the_fields_of_its_message():
    message = (Path(__file__).parents[3] / "msg" / "CellMeasurement.msg").read_text("utf-8")
    names = re.findall(r"^(?:float64|string) (\w+)", message, re.MULTILINE)
    assert [one.name for one in fields(CellMeasured)] == [name for name in names if name != "battery_id"]


def test_the_docs_list_every_kind_of_event():
    rows = []
    for kind in EventKind:
        data = EVENTS[kind]
        keys = [
            f"**{one.name}**" if one.default is one.default_factory is MISSING else one.name for one in fields(data)
        ]
        effect = ", ".join(f"`{column}`" for column in (*data.columns().values(), data.STAMP_COLUMN) if column)
        rows.append([f"`{kind}`", (data.__doc__ or "").partition("\n")[0], ", ".join(keys), effect])
    assert_stands_in(
        "ledger.md", markdown_table(["kind", "what it says", "payload", "columns of `batteries`"], rows)
    )


def test_the_docs_list_every_column_of_a_battery():
    columns = ", ".join(f"`{one.name}`" for one in fields(BatteryRecord))
    assert f"| {columns} |" in (REFERENCE / "ledger.md").read_text("utf-8")

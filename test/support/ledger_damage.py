"""Ledgers that were damaged on purpose, by a seed, and what a command says of them.

A mutation touches bytes of the file, values of rows, or what stands around the file. Whatever it is, a command must
end without a traceback, in bounded time, and tell with its exit code whether all could be read.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sqlite3
import traceback
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import typer
from support.ev_shift import BOOT, write_shift
from support.measured_ledger import LineOnRecord

from battery_sorting.belt.line import BeltLine, LineGeometry, Routing
from battery_sorting.belt.resume import bin_contents, recorded_exits, resumed_battery, shift_totals
from battery_sorting.cli._ledger import end_if_incomplete
from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.types import make_battery_id
from battery_sorting.ev.flow import Flow
from battery_sorting.ev.resume import StationAccount, cells_behind_the_station, filled_trays
from battery_sorting.ev.site import EvSite
from battery_sorting.ledger import EventKind
from battery_sorting.ledger.store import Ledger
from battery_sorting.packml.restart import restart

TABLES = ("shifts", "events", "batteries", "images", "battery_images")
STRANGE: tuple[Any, ...] = (
    None, 0, -1, 1, 2**31, 2**63 - 1, -(2**63), 0.5, -1.5, 1e300, -1e300, float("inf"), float("-inf"), "", " ",
    "nan", "12", "1e5", "../../etc/passwd", "/etc/passwd", "x" * 5000, "[/]", "[bold]", "\x1b[31m", "\x00", "ä€😀",
    b"\xff\xfe", b"", b"\x00\x01", True, "sorted", "others", "{}", "[]", "null",
)  # fmt: skip
STRANGE_JSON: tuple[str, ...] = (
    "", "null", "[]", "3", '"text"', "{", '{"a":', "NaN", "{'a': 1}", '{"label": NaN}', "[" * 3000 + "]" * 3000,
    '{"a":' * 400 + "1" + "}" * 400, '{"scores": {"aa": NaN, "bb": null}}', '{"label": "\\ud800"}', '{"a": 1e999}',
    '{"a": ' + "9" * 5000 + "}", "\ufeff{}", "{}" * 2, "{} ", '{"a": 1, "a": 2}', "\x00",
)  # fmt: skip
STRANGE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1e300, 10**400, -5, 0.5, "", "NaN", "x", "[/]", "../..", [], {}, [1], {"a": None},
    [None], [[[]]], "\ud800", 2**70, "A" * 3000, {"label": [1]}, ["a", {}],
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a command came to.

    Attributes:
        code: Its exit code; None: it ended in a traceback.
        text: What it wrote on standard error, or the traceback.
    """

    code: int | None
    out: str
    text: str


def run(command: Callable[[], None]) -> Outcome:
    """Run a command as `battery_sorting.cli.main` does."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            command()
        except (typer.Exit, click.exceptions.Exit) as end:
            return Outcome(end.exit_code, out.getvalue(), err.getvalue())
        except BatterySortingError as error:
            return Outcome(2, out.getvalue(), str(error))
        except Exception:
            return Outcome(None, out.getvalue(), traceback.format_exc())
    return Outcome(0, out.getvalue(), err.getvalue())


def damage(path: Path, chance: random.Random) -> str:
    """Damage the ledger at ``path``; returns what was done to it."""
    kinds: Sequence[tuple[Callable[[Path, random.Random], str], int]] = (
        (_change_value, 30), (_change_payload, 35), (_change_config, 10), (_flip_bytes, 15), (_cut, 3),
        (_change_structure, 4), (_replace_file, 3),
    )  # fmt: skip
    kind = chance.choices([each for each, _ in kinds], [weight for _, weight in kinds])[0]
    return kind(path, chance)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.text_factory = bytes
    return connection


def _rows(connection: sqlite3.Connection, table: str) -> list[int]:
    return [row[0] for row in connection.execute(f"SELECT rowid FROM {table}")]


def _change_value(path: Path, chance: random.Random) -> str:
    """A value of one to three rows, of whatever type, past all constraints of the schema."""
    done = []
    with contextlib.closing(_connect(path)) as connection:
        for _ in range(chance.choice((1, 1, 2, 3))):
            table = chance.choice(TABLES)
            columns = [row[1].decode() for row in connection.execute(f"PRAGMA table_info({table})")]
            column, numbers = chance.choice(columns), _rows(connection, table)
            if not numbers:
                continue
            number, value = chance.choice(numbers), chance.choice(STRANGE)
            with contextlib.suppress(sqlite3.Error):
                _loosen(connection, table)
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, number))
                done.append(f"{table}.{column} of {number} = {value!r:.40}")
    return "value: " + "; ".join(done)


def _loosen(connection: sqlite3.Connection, table: str) -> None:
    """Takes NOT NULL off a table: other software, or a damaged page, does not keep to it either."""
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute(
        "UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE type='table' AND name = ?", (table,)
    )
    connection.execute("PRAGMA writable_schema=RESET")


def _change_payload(path: Path, chance: random.Random) -> str:
    """A payload: no JSON, keys that are gone or more, values of another kind."""
    with contextlib.closing(_connect(path)) as connection:
        number = chance.choice(_rows(connection, "events"))
        [(stored,)] = connection.execute("SELECT payload FROM events WHERE rowid = ?", (number,)).fetchall()
        text = chance.choice(STRANGE_JSON) if chance.random() < 0.3 else _changed(stored, chance)
        connection.execute("UPDATE events SET payload = ? WHERE rowid = ?", (text, number))
        return f"payload of event {number} = {text:.80}"


def _change_config(path: Path, chance: random.Random) -> str:
    with contextlib.closing(_connect(path)) as connection:
        number = chance.choice(_rows(connection, "shifts"))
        [(stored,)] = connection.execute("SELECT config FROM shifts WHERE rowid = ?", (number,)).fetchall()
        text = chance.choice(STRANGE_JSON) if chance.random() < 0.2 else _changed(stored, chance)
        connection.execute("UPDATE shifts SET config = ? WHERE rowid = ?", (text, number))
        return f"config of shift {number}, {len(text)} characters"


def _changed(stored: bytes, chance: random.Random) -> str:
    """The same JSON object with something changed, at any depth."""
    whole = json.loads(stored)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        place: Any = whole
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = chance.choice(keys)
            inner = place[key]
            if isinstance(inner, (dict, list)) and inner and chance.random() < 0.75:
                place = inner
                continue
            how = chance.random()
            if how < 0.2 and isinstance(place, dict):
                del place[key]
            elif how < 0.3 and isinstance(place, dict):
                place["more"] = deepcopy(chance.choice(STRANGE_VALUES))
            else:
                place[key] = deepcopy(chance.choice(STRANGE_VALUES))
            break
    return json.dumps(whole)


def _flip_bytes(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    places = [chance.randrange(len(content)) for _ in range(chance.choice((1, 3, 20, 200)))]
    for place in places:
        content[place] = chance.choice((content[place] ^ (1 << chance.randrange(8)), chance.randrange(256), 0, 255))
    if chance.random() < 0.3:  # a page that was not written, or written elsewhere
        page = 4096 * chance.randrange(len(content) // 4096)
        content[page : page + 4096] = chance.choice((bytes(4096), chance.randbytes(4096), content[:4096]))
    path.write_bytes(content)
    return f"{len(places)} bytes from {places[0]} on"


def _cut(path: Path, chance: random.Random) -> str:
    size = chance.choice((0, 1, 16, 100, 4096, chance.randrange(path.stat().st_size)))
    with path.open("r+b") as file:
        file.truncate(size)
    return f"cut to {size} bytes"


def _change_structure(path: Path, chance: random.Random) -> str:
    """Tables, columns and the number of the schema."""
    statements = (
        *(f"DROP TABLE {table}" for table in TABLES), "DROP TABLE alembic_version", "DELETE FROM alembic_version",
        "UPDATE alembic_version SET version_num = '0000'", "UPDATE alembic_version SET version_num = '9999'",
        "UPDATE alembic_version SET version_num = x'ff'", "UPDATE alembic_version SET version_num = 'abcd'",
        "INSERT INTO alembic_version VALUES ('0002')", "ALTER TABLE events RENAME COLUMN payload TO content",
        "ALTER TABLE shifts RENAME COLUMN config TO setup", "ALTER TABLE events ADD COLUMN more TEXT",
        "DELETE FROM shifts", "DELETE FROM batteries", "DELETE FROM events", "UPDATE events SET shift_id = 77",
        "UPDATE events SET battery_id = 'nobody' WHERE battery_id IS NOT NULL AND kind = 'typed'",
        "UPDATE batteries SET shift_id = 77", "UPDATE events SET kind = 'teleported' WHERE id % 3 = 0",
        "PRAGMA user_version = 77", "PRAGMA journal_mode = DELETE", "DROP INDEX ix_events_shift_id",
    )  # fmt: skip
    statement = chance.choice(statements)
    with contextlib.closing(_connect(path)) as connection, contextlib.suppress(sqlite3.Error):
        connection.execute(statement)
    return statement


def _replace_file(path: Path, chance: random.Random) -> str:
    """Something else stands at its place, or something of an earlier run beside it."""
    whole = path.read_bytes()
    what = chance.choice(
        ("empty", "folder", "text", "fifo", "gone", "wal", "wal of another", "shm", "journal", "twice")
    )
    if what in {"folder", "fifo", "gone"}:
        path.unlink()
    if what == "empty":
        path.write_bytes(b"")
    elif what == "folder":
        path.mkdir()
    elif what == "text":
        path.write_text("time,voltage\n1,2\n")
    elif what == "fifo":
        os.mkfifo(path)
    elif what.startswith("wal"):
        path.with_name(path.name + "-wal").write_bytes(
            whole[:5000] if "another" in what else chance.randbytes(9000)
        )
    elif what in {"shm", "journal"}:
        path.with_name(f"{path.name}-{what}").write_bytes(chance.randbytes(5000))
    elif what == "twice":
        path.write_bytes(whole + whole)
    return what


def fresh(source: Path, folder: Path) -> Path:
    """A copy of a ledger in an empty folder."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return Path(shutil.copy(source, folder / "ledger.sqlite"))


# ---- what is tried ----


def write_belt(path: Path) -> None:
    """Two shifts of a belt line with something of every kind: pictures, a shadow model, commands, alarms."""
    labels = ("aa", "bb", "cc")
    config = {
        "site": {"name": "sim", "images": {"path": "images"}},
        "recipe": {"routes": {"aa": "one", "bb": "two"}},
    }
    with Ledger.open(path, now=lambda: 1000.0) as ledger:
        for shift in (1, 2):
            begin = 1000.0 * shift
            ledger.begin_shift("belt", "sim", begin, software_version="0.1", config=config)
            with ledger.transaction() as tx:
                tx.record("line_state", None, begin, state=6, name="Execute", reason="", run_id="r", latched={})
                tx.record(
                    "model_changed", None, begin, model="m/1", previous="", folder="models/m/1", sha256="0" * 64
                )
                for number in range(1, 9):
                    _write_battery(tx, shift, number, begin, labels[number % 3])
                tx.record("alarm_raised", None, begin, code="camera", text="silent")
                tx.record("alarm_cleared", None, begin, code="camera", text="silent")
                tx.record("command", None, begin, command="hold", by="me", reason="", accepted=True)
                tx.record("command", None, begin, command="emptied", by="me", reason="", accepted=True, bin="one")
            if shift == 1:
                ledger.end_shift(begin + 50, in_flight=1, contents={"one": 3, "two": 1}, trays={})


def _write_battery(tx: Any, shift: int, number: int, begin: float, label: str) -> None:
    name, eye, sure = make_battery_id(shift, number), begin + number, 0.5 + number / 20
    scores = {"aa": 0.1, "bb": 0.1, "cc": 0.1} | {label: sure}
    tx.record(
        "detected", name, eye, trigger_count=number, encoder_count=number * 900, gap_ahead_mm=80.0, gate_seen=True
    )
    tx.record("typed", name, eye, label=label, confidence=sure, accepted=sure > 0.7, reason="", scores=scores,
              model="m/1", inference_s=0.01, novelty=number / 10)  # fmt: skip
    tx.record(
        "shadow_typed", name, eye, label="aa", confidence=0.9, accepted=True, reason="", scores=scores, model="n/1"
    )
    tx.record("decided", name, eye, bin="one", reason="sorted")
    tx.record("eject_ordered", name, eye, token=number, bin="one")
    tx.record(
        "eject_reported", name, eye, token=number, outcome="scheduled", latency_s=0.03, fire_count=5, reason=""
    )
    tx.record(
        "eject_reported", name, eye + 1, token=number, outcome="fired", latency_s=None, fire_count=5, reason=""
    )
    tx.add_image(name, f"{number:064x}", path=f"00/{number:064x}.jpg", width=9, height=9, size=99, stamp=eye)
    if number < 8:
        tx.record("exited", name, eye + 2, exit_count=number, encoder_count=number * 900)
        tx.record("disposed", name, eye + 2, bin="one" if number < 6 else "others", reason="sorted")


def write_ev(path: Path) -> None:
    """A shift of an EV line, and one of cells that were put into a pack."""
    write_shift(path)
    line = LineOnRecord(Ledger.open(path))
    line.begin_shift()
    line.pack(3)
    line.ledger.close()


BELT, EV = "belt", "ev"
WRITERS = {BELT: write_belt, EV: write_ev}


def commands(kind: str, path: Path, chance: random.Random) -> dict[str, Callable[[], None]]:
    """Every reader of a ledger."""
    from battery_sorting.cli import export, items, models, report, review

    folder = path.parent / "out"
    name, shift = str(path), chance.choice((None, None, 1, 2))
    ids = {
        BELT: (make_battery_id(1, 3), make_battery_id(2, 8)),
        EV: (make_battery_id(BOOT, 2), "0000abcd-00000002"),
    }
    battery = chance.choice(ids[kind])
    found: dict[str, Callable[[], None]] = {
        "report": lambda: report.report(name, shift=shift),
        "report --json": lambda: report.report(name, as_json=True, shift=shift),
        "report --html": lambda: report.report(name, html=path.parent / "report.html", shift=shift),
        "items": lambda: items.items(name, limit=1000, shift=shift),
        "items --json": lambda: items.items(name, as_json=True, limit=1000, shift=shift),
        "items --id": lambda: items.items(name, battery_id=battery, limit=9),
        "items --id --json": lambda: items.items(name, battery_id=battery, as_json=True, limit=9),
        "review": lambda: review.review(name, out=folder, limit=9, shift=shift, as_json=True),
        "models shadow": lambda: models.shadow(name, shift=shift, json=True),
        "models shadow, as text": lambda: models.shadow(name, shift=shift),
        "export passport": lambda: export.passport(name, output=folder, draft=True, shift=shift, as_json=True),
        "restore": lambda: restore(kind, path),
    }
    return found


def restore(kind: str, path: Path) -> None:
    """What a controller reads at its start."""
    with Ledger.open(path, create=False) as ledger:
        restart(
            next((event.payload for event in ledger.events(kinds=[EventKind.LINE_STATE], last=1)), None),
            ledger.commands(kind), "r", cut_off=ledger.resume_shift(kind) is not None, wanted=True,
            unreadable=next(iter(ledger.unreadable), ""),
        )  # fmt: skip
        if ledger.shift_id is not None:
            shift_totals(ledger, ledger.shift_id)
        if kind == BELT:
            line = BeltLine(Routing({"aa": "one", "bb": "two"}, 30.0), LineGeometry(exit_offset_mm=2100.0))
            line.restore(
                (resumed_battery(record) for record in ledger.open_batteries(kind)),
                ledger.finished_ids(kind, 64),
                recorded_exits(ledger.events(kinds=[EventKind.EXITED], last=64)),
                None,
            )
            bin_contents(ledger, kind)
        else:
            StationAccount(ledger, kind, ["product", "quarantine"])
            flow = Flow(EvSite.load("sim_ev").flow_layout(8, 1, frozenset("D")))
            flow.restore(cells_behind_the_station(ledger, kind, ["product"]), filled_trays(ledger, kind))
        end_if_incomplete(ledger.name, ledger.unreadable)


def faults(name: str, outcome: Outcome, what: str = "") -> list[str]:
    """What a command has done wrong, after ``what`` was done to the ledger."""
    found = []
    if outcome.code is None:
        return [outcome.text]
    of_rows = what.startswith(("value", "payload", "config")) and "shifts.id" not in what
    if of_rows and name.startswith("report") and outcome.code == 2:
        found.append(f"the rest was not reported: {outcome.text}")
    if outcome.code not in {0, 2, 3}:
        found.append(f"exit code {outcome.code}")
    if outcome.code == 3 and "can't be read" not in outcome.text:
        found.append("exit code 3 without a word of what can't be read")
    if outcome.code == 2 and not outcome.text:
        found.append("exit code 2 without a message")
    if outcome.code != 2 and "json" in name.replace("export passport", "json") and outcome.out:
        try:
            json.loads(outcome.out, parse_constant=_no_json)
        except ValueError as error:
            found.append(f"no strict JSON: {error}")
    return found


def _no_json(name: str) -> None:
    raise ValueError(name)

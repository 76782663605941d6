"""Opening of the ledger's database: SQLite file or PostgreSQL, migrated to the schema of this software."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from battery_sorting.core.errors import LedgerError

from ._models import SCHEMA_REVISION
from ._records import DuplicateRecordError, UnknownBatteryError

BUSY_TIMEOUT_S = 5.0
_SQLITE_MAGIC = b"SQLite format 3\0"
_MIGRATION_LOCK = 0x0BA77E21
_TABLES = {"shifts", "events", "batteries", "images"}

_REMEDIES = (
    ("locked", "another process holds it; end that process, and keep the ledger on a local disk"),
    ("busy", "another process holds it; end that process, and keep the ledger on a local disk"),
    ("disk is full", "the disk is full; free space or move the ledger (site file, key ledger.url)"),
    ("disk i/o error", "the disk is full or failing; check the disk, its quota and `ulimit -f`"),
    ("too big", "the disk is full or a file size limit is reached; check the disk and `ulimit -f`"),
    ("readonly", "it is read-only; make the file and its folder writable or name another ledger"),
    ("unable to open", "check that the folder exists and may be read and written"),
    ("not a database", "it is not a ledger; name another file"),
    ("connection", "start the database server, or correct the URL (site file, key ledger.url)"),
    ("malformed", "it is damaged; restore it from a backup (`sqlite3 FILE .recover` saves what is left)"),
)


class Access(Enum):
    """What a ledger is opened for. The values are SQLite's open modes."""

    CREATE = "rwc"
    WRITE = "rw"
    READ = "ro"


def open_engine(location: str | Path, access: Access) -> tuple[Engine, str]:
    """Engine on a ledger of the right schema, and the name to use for it in messages.

    Raises:
        LedgerError: See `Ledger.open`.
    """
    text_location = str(location)
    if "://" not in text_location or text_location.startswith("sqlite"):
        path = Path(make_url(text_location).database or "") if "://" in text_location else Path(location)
        name, engine = str(path), _sqlite_engine(path, access)
    else:
        name, engine = _server_engine(text_location)
    try:
        with ledger_errors(name):
            _bring_to_schema(engine, name, access)
    except BaseException:
        engine.dispose()
        raise
    return engine, name


@contextmanager
def ledger_errors(name: str) -> Iterator[None]:
    """Turn errors of the database into `LedgerError` that name the ledger and the remedy."""
    try:
        yield
    except IntegrityError as error:
        raise _integrity_error(name, str(error.orig)) from error
    except DBAPIError as error:
        cause = " ".join(str(error.orig).split())
        remedy = next((hint for sign, hint in _REMEDIES if sign in cause.lower()), "check the database")
        raise LedgerError(f"{name}: {cause}: {remedy}") from error


def _integrity_error(name: str, cause: str) -> LedgerError:
    if "foreign key" in cause.lower():
        return UnknownBatteryError(f"{name}: record of a battery or shift that is not in the ledger ({cause})")
    if "unique" in cause.lower():
        return DuplicateRecordError(f"{name}: this record was made before ({cause})")
    return LedgerError(f"{name}: record refused ({cause})")


def _sqlite_engine(path: Path, access: Access) -> Engine:
    _check_file(path, access)
    uri = f"file:{quote(str(path.absolute()))}?mode={access.value}"
    if access is Access.READ and _on_read_only_folder(path):
        # SQLite can't make its lock files there; nobody else can write either.
        uri += "&immutable=1"

    def connect() -> sqlite3.Connection:
        # isolation_level=None: transactions are begun by `_begin`, not by the guesses of the sqlite3 module.
        return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, json_serializer=_to_json)

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys=ON")
        if access is not Access.READ:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes its lock at once: a lock taken half-way can't be waited for, it fails.
        write = connection.get_execution_options().get("ledger_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _check_file(path: Path, access: Access) -> None:
    """Refuse what SQLite would refuse later and less clearly."""
    if path.is_dir():
        raise LedgerError(f"{path}: is a folder, not a ledger; name the file in it")
    try:
        if path.exists():
            with path.open("rb") as file:
                head = file.read(len(_SQLITE_MAGIC))
        elif access is Access.CREATE:
            path.parent.mkdir(parents=True, exist_ok=True)
            return
        else:
            raise LedgerError(f"{path}: no such ledger; check the path")
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}; check the path and its permissions") from error
    if head != _SQLITE_MAGIC and (head or access is not Access.CREATE):
        raise LedgerError(f"{path}: is not a ledger (no SQLite database); name another file")


def _on_read_only_folder(path: Path) -> bool:
    return not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists()


def _server_engine(url: str) -> tuple[str, Engine]:
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        engine = create_engine(parsed, json_serializer=_to_json, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError) as error:
        raise LedgerError(f"{url}: no URL of a database that is supported; use a path or postgresql://…") from error
    except ImportError as error:
        raise LedgerError(f"{parsed!r}: {error}; install the driver: pip install 'psycopg[binary]'") from error
    return repr(parsed), engine


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _bring_to_schema(engine: Engine, name: str, access: Access) -> None:
    """Check the schema's revision; create or migrate it where the access allows."""
    with engine.connect() as connection:
        revision = _revision(connection, name)
    if revision == SCHEMA_REVISION:
        return
    if access is Access.READ:
        state = "is empty" if revision is None else f"has the older schema {revision}"
        raise LedgerError(f"{name}: {state}; a cell that starts on it brings it to schema {SCHEMA_REVISION}")
    with engine.connect().execution_options(ledger_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        # Somebody else may have done it while we waited for the lock.
        if _revision(connection, name) != SCHEMA_REVISION:
            _migrate(connection)


def _revision(connection: Connection, name: str) -> str | None:
    """Revision of the ledger, ``None`` if the database is empty.

    Raises:
        LedgerError: It is another program's database, or a ledger of a newer software.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return None
    if "alembic_version" not in tables or not tables >= _TABLES:
        raise LedgerError(f"{name}: is another program's database, not a ledger; name another file")
    revision = str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())
    if revision > SCHEMA_REVISION:
        raise LedgerError(
            f"{name}: has schema {revision}, newer than {SCHEMA_REVISION} which this software knows; "
            "update battery_sorting, or name another ledger"
        )
    return revision


def _migrate(connection: Connection) -> None:
    # Takes 0.2 s to import, and only a new or an old ledger needs it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

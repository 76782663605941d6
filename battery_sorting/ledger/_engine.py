"""Opening of the ledger's database: SQLite file or PostgreSQL, migrated to the schema of this software."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from battery_sorting.core.errors import LedgerError
from battery_sorting.core.secrets import LedgerUrl, without_passwords

from ._address import server_address
from ._models import SCHEMA_REVISION
from ._records import DamagedLedgerError, DuplicateRecordError, UnknownBatteryError
from ._salvage import NOT_INDEXED

BUSY_TIMEOUT_S = 5.0
_SQLITE_MAGIC = b"SQLite format 3\0"
_MIGRATION_LOCK = 0x0BA77E21
_TABLES = {"shifts", "events", "batteries", "images"}

DAMAGED = "it is damaged; restore it from a backup (`sqlite3 FILE .recover` saves what is left)"
_REMEDIES = (
    ("locked", "another process holds it; end that process, and keep the ledger on a local disk"),
    ("busy", "another process holds it; end that process, and keep the ledger on a local disk"),
    ("disk is full", "the disk is full; free space or move the ledger (site file, key ledger.url)"),
    ("disk i/o error", "the disk is full or failing; check the disk, its quota and `ulimit -f`"),
    ("string or blob too big", DAMAGED),
    ("too big", "the disk is full or a file size limit is reached; check the disk and `ulimit -f`"),
    ("readonly", "it is read-only; make the file and its folder writable or name another ledger"),
    ("unable to open", "check that the folder exists and may be read and written"),
    ("not a database", "it is not a ledger; name another file"),
    ("no password supplied", "put the password into ~/.pgpass, or correct the site file, key ledger.url"),
    ("password authentication", "correct user and password (site file, key ledger.url, or ~/.pgpass)"),
    ("authentication failed", "correct user and password (site file, key ledger.url, or ~/.pgpass)"),
    ("role", "name a user of the database server (site file, key ledger.url), or make this one (createuser)"),
    ("permission denied", "let the user of ledger.url (site file) read and write the ledger's tables (GRANT)"),
    ("does not exist", "make the database (createdb), or name another one (site file, key ledger.url)"),
    ("invalid", "correct the URL (site file, key ledger.url)"),
    ("resolve", "correct the host (site file, key ledger.url)"),
    ("translate host name", "correct the host (site file, key ledger.url)"),
    ("too many", "let the server take more connections (max_connections), or end other programs"),
    ("connection", "start the database server, or correct host and port (site file, key ledger.url)"),
    ("malformed", DAMAGED),
    ("too large", DAMAGED),
)
_CONNECT_TIMEOUT_S = 3
"""Who waits for the ledger decides nothing meanwhile."""
_DEAD_LINK = {
    "tcp_user_timeout": "5000",  # ms for what was sent to be acknowledged; a pulled cable took a quarter of an hour
    "keepalives_idle": "5",
    "keepalives_interval": "1",
    "keepalives_count": "3",
}
"""How PostgreSQL's client finds that nobody is at the other end any more."""


class Access(Enum):
    """What a ledger is opened for. The values are SQLite's open modes."""

    CREATE = "rwc"
    WRITE = "rw"
    READ = "ro"


class FileWatch:
    """Notices that an open ledger's file is no longer at its place: what is written into it then is lost.

    SQLite goes on with a file that was deleted, moved or replaced, as if nothing had happened.

    Args:
        path: Of the ledger; None for a ledger on a server, which has no file.
    """

    def __init__(self, path: Path | None) -> None:
        self._opened: dict[Path, tuple[int, int]] = {}
        self._paths = () if path is None else (path.absolute(), Path(f"{path.absolute()}-wal"))
        self.check()

    def check(self) -> None:
        """Compare with what was opened. The log beside the file is there while a process has the ledger open.

        Raises:
            LedgerError: It is gone, or another file stands there.
        """
        for path in self._paths:
            found = _identity(path)
            opened = self._opened.get(path)
            if opened is None and found is not None:
                self._opened[path] = found
            elif opened != found:
                what = "was deleted or moved away" if found is None else "was replaced by another file"
                raise LedgerError(
                    f"{path}: {what} while the ledger is in use: put the file back that was there, and what waits "
                    "is written into it; or end the line and start it again, to go on with what is there now"
                )


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of the file; None: it can't be seen."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def open_engine(location: str | Path | LedgerUrl, access: Access) -> tuple[Engine, str, FileWatch]:
    """Engine on a ledger of the right schema, the name to use for it in messages, and who watches its file.

    Raises:
        LedgerError: See `Ledger.open`.
    """
    url = location if isinstance(location, LedgerUrl) else LedgerUrl(str(location))
    path = file_of(url)
    engine = _server_engine(url) if path is None else _sqlite_engine(path, access)
    name = str(url if path is None else path)
    try:
        with ledger_errors(name):
            _bring_to_schema(engine, name, access)
    except BaseException:
        engine.dispose()
        raise
    return engine, name, FileWatch(None if access is Access.READ else path)


def file_of(url: LedgerUrl) -> Path | None:
    """The file of a ledger, None if a server has it.

    Raises:
        LedgerError: It looks like the URL of a server but is none.
    """
    if not url.is_url:
        if url.problem:
            raise LedgerError(f"ledger.url: {url.problem}")
        return Path(url.reveal())
    if url.reveal().startswith(("sqlite:", "sqlite+")):
        try:
            return Path(make_url(url.reveal()).database or "")
        except (ArgumentError, ValueError) as error:
            raise LedgerError(f"{url}: is no URL of a file; name its path") from error
    return None


@contextmanager
def ledger_errors(name: str) -> Iterator[None]:
    """Turn errors of the database into `LedgerError` that name the ledger and the remedy."""
    try:
        yield
    except IntegrityError as error:
        raise _integrity_error(name, str(error.orig)) from error
    except DBAPIError as error:
        cause = without_passwords(" ".join(str(error.orig).split()))
        remedy = next((hint for sign, hint in _REMEDIES if sign in cause.lower()), "check the database")
        message = f"{name}: {cause}: {remedy}"
        raise (DamagedLedgerError(message, cause) if remedy == DAMAGED else LedgerError(message)) from error
    except SQLAlchemyError as error:
        raise LedgerError(f"{name}: {type(error).__name__}: check the database") from error
    except (UnicodeError, OverflowError) as error:
        raise LedgerError(f"{name}: can't be asked for this, which no database can hold ({error})") from error


def _integrity_error(name: str, cause: str) -> LedgerError:
    if "foreign key" in cause.lower():
        return UnknownBatteryError(f"{name}: record of a battery or shift that is not in the ledger ({cause})")
    if "unique" in cause.lower():
        return DuplicateRecordError(f"{name}: this record was made before ({cause})")
    return LedgerError(f"{name}: record refused ({cause})")


def probe(location: str | Path | LedgerUrl) -> str:
    """Try whether a ledger can be read and written, without changing anything of it.

    Returns:
        How it was found, in words.

    Raises:
        LedgerError: It can't; see `Ledger.open`.
    """
    url = location if isinstance(location, LedgerUrl) else LedgerUrl(str(location))
    path = file_of(url)
    if path is not None and not path.exists():
        _check_that_it_can_be_made(path)
        return "is made at the start"
    engine = _server_engine(url) if path is None else _sqlite_engine(path, Access.WRITE, as_it_is=True)
    name = str(url if path is None else path)
    try:
        with (
            ledger_errors(name),
            engine.connect().execution_options(ledger_write=True) as connection,
            connection.begin() as transaction,  # of SQLite, this takes the lock that a writer needs
        ):
            revision = _revision(connection, name)
            if path is None:
                _check_rights(connection, name, has_tables=revision is not None)
            transaction.rollback()
    finally:
        engine.dispose()
    if revision is None:
        return "is empty: its tables are made at the start"
    return (
        "can be read and written"
        if revision == SCHEMA_REVISION
        else f"has schema {revision}: migrated at the start"
    )


def _check_that_it_can_be_made(path: Path) -> None:
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise LedgerError(
            f"{path}: can't be made in {folder} ({error.strerror}); make it writable, or name another file"
        ) from error


def _check_rights(connection: Connection, name: str, *, has_tables: bool) -> None:
    """Whether this user of a PostgreSQL server may do what a cell does."""
    if connection.execute(text("SHOW transaction_read_only")).scalar() != "off":
        raise LedgerError(f"{name}: the server is read-only (a standby?); name the one that may be written")
    if has_tables:
        lacking = [table for table in sorted(_TABLES) if not _has_all(connection, table)]
    else:
        question = text("SELECT has_schema_privilege(current_schema(), 'CREATE')")
        lacking = [] if connection.execute(question).scalar() else ["its schema"]
    if lacking:
        raise LedgerError(
            f"{name}: permission denied for {', '.join(lacking)}: let the user of ledger.url read and write "
            "them (GRANT)"
        )


def _has_all(connection: Connection, table: str) -> bool:
    question = text("SELECT has_table_privilege(:table, :right)")
    return all(
        connection.execute(question, {"table": table, "right": right}).scalar()
        for right in ("SELECT", "INSERT", "UPDATE")
    )


def _sqlite_engine(path: Path, access: Access, *, as_it_is: bool = False) -> Engine:
    """``as_it_is``: leave the way in which it writes as it was found."""
    _check_file(path, access)
    uri = f"file:{quote(str(path.absolute()))}?mode="
    # SQLite can't make its lock files in a read-only folder; nobody else can write there either.
    suffix = "&immutable=1" if access is Access.READ and _on_read_only_folder(path) else ""
    # Only the first connection makes the file: a later one must not begin an empty ledger where it was deleted.
    later = Access.WRITE if access is Access.CREATE else access
    modes = itertools.chain([access.value], itertools.repeat(later.value))

    def connect() -> sqlite3.Connection:
        # isolation_level=None: transactions are begun by `_begin`, not by the guesses of the sqlite3 module.
        connection = sqlite3.connect(
            uri + next(modes) + suffix,
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = text_or_bytes
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, json_serializer=_to_json)

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys=ON")
        if access is not Access.READ and not as_it_is:
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def _by_rows(
        _connection: object, _cursor: object, statement: str, parameters: Any, context: Any, _many: bool
    ) -> tuple[str, Any]:
        table = context.execution_options.get(NOT_INDEXED) if context is not None else None
        return statement.replace(f"FROM {table}", f"FROM {table} NOT INDEXED", 1), parameters

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes its lock at once: a lock taken half-way can't be waited for, it fails.
        write = connection.get_execution_options().get("ledger_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def text_or_bytes(stored: bytes) -> str | bytes:
    """Text of a damaged ledger need not be text: what is none stays bytes, and concerns its row alone."""
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """SQLite does not wait where two processes do this at once: one of them is refused at once."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _check_file(path: Path, access: Access) -> None:
    """Refuse what SQLite would refuse later and less clearly."""
    if path.is_dir():
        raise LedgerError(f"{path}: is a folder, not a ledger; name the file in it")
    try:
        if path.exists() and not path.is_file():
            raise LedgerError(f"{path}: is no plain file; name another one")
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


def _server_engine(url: LedgerUrl) -> Engine:
    address = server_address(url)
    limits = {"connect_timeout": str(_CONNECT_TIMEOUT_S)}
    if address.get_backend_name() == "postgresql":
        limits |= _DEAD_LINK
    address = address.update_query_dict({key: text for key, text in limits.items() if key not in address.query})
    try:
        engine = create_engine(address, json_serializer=_to_json, pool_pre_ping=True, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError):
        problem = "ledger.url: no driver of this name; write postgresql://… for the usual one"
        raise LedgerError(f"{url}: {problem}") from None
    except ImportError as error:
        driver = error.name if error.name and address.drivername != "postgresql+psycopg" else "psycopg[binary]"
        raise LedgerError(f"{url}: {error}; install the driver: pip install '{driver}'") from error
    if engine.dialect.is_async:
        raise LedgerError(f"{url}: ledger.url: this driver can't be used here; write postgresql://…")
    return engine


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
            _migrate(connection, name)


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
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if not isinstance(revision, str) or len(revision) != 4 or not (revision.isascii() and revision.isdigit()):
        raise LedgerError(f"{name}: the number of its schema can't be read: {DAMAGED}")
    if revision > SCHEMA_REVISION:
        raise LedgerError(
            f"{name}: has schema {revision}, newer than {SCHEMA_REVISION} which this software knows; "
            "update battery_sorting, or name another ledger"
        )
    return revision


def _migrate(connection: Connection, name: str) -> None:
    # Takes 0.2 s to import, and only a new or an old ledger needs it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:  # it knows no schema of this number
        raise LedgerError(f"{name}: can't be brought to schema {SCHEMA_REVISION} ({error}): {DAMAGED}") from error

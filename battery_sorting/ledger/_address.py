"""The address of a ledger's database, taken apart here: what libraries say of a wrong one quotes the password."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from sqlalchemy import URL

from battery_sorting.core.errors import LedgerError
from battery_sorting.core.secrets import FORM, LEDGER_VARIABLE, LedgerUrl

_SERVER = re.compile(r"(?P<driver>postgres(?:ql)?(?:\+\w+)?)://(?P<rest>.*)", re.DOTALL)
_PORTS = range(1, 65536)


def server_address(url: LedgerUrl) -> URL:
    """The address of a server's database.

    Raises:
        LedgerError: It is none that is supported, or is not well-formed, or its password is not to be had here.
    """
    if url.is_hidden:
        raise LedgerError(
            f"{url}: its password stands in no file of the run folder: start the node by the cell's start, or set "
            f"{LEDGER_VARIABLE} to the whole URL, or leave the password out of ledger.url and put it into ~/.pgpass"
        )
    found = _SERVER.fullmatch(url.reveal())
    if found is None:
        raise LedgerError(f"{url}: ledger.url: no URL of a database that is supported; use a path or {FORM}")
    authority, path = re.match(r"([^/?]*)(.*)", found["rest"], re.DOTALL).groups()  # type: ignore[union-attr]
    login, _, place = authority.rpartition("@")
    host, port = _host_and_port(url, place, path)
    user, colon, password = login.partition(":")
    database, _, query = path.removeprefix("/").partition("?")
    driver = found["driver"].replace("postgres+", "postgresql+")
    return URL.create(
        "postgresql+psycopg" if driver in {"postgres", "postgresql"} else driver,
        unquote(user) or None,
        unquote(password) if colon else None,
        host or None,
        port,
        unquote(database) or None,
        dict(parse_qsl(query, keep_blank_values=True)),
    )


def _host_and_port(url: LedgerUrl, place: str, path: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>.*))?", place)
    port = found["port"] if found is not None else ""
    usable = found is not None and (not port or (port.isascii() and port.isdigit() and int(port[:6]) in _PORTS))
    if not usable or ("@" in path.partition("?")[0]):
        # Never quoted: a "/" in a password makes half of it look like a port.
        raise LedgerError(
            f"{url}: ledger.url: the port is no number from 1 to 65535, or user or password hold one of the "
            f"characters / ? # % that must be written %2F %3F %23 %25: write {FORM}"
        )
    assert found is not None
    return found["six"] or found["host"] or "", int(port) if port else None

"""A PostgreSQL server of a test's own on loopback, where its programs are installed (Debian: `postgresql`)."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "hunter@2:x"
"""With the characters that make URLs hard to take apart."""


def _programs() -> Path | None:
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb"), *filter(None, [shutil.which("initdb")])]
    return Path(found[-1]).parent if found else None


def _user() -> dict[str, Any]:
    """The server refuses to run as root."""
    if os.getuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def running_server() -> Iterator[int]:
    """A server with the user ``line``, the password `PASSWORD` and the empty database ``ledger``; its port."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: requirements/test.txt")
    programs, user = _programs(), _user()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder, secret = Path(name) / "data", Path(name) / "password"
        secret.write_text(PASSWORD)
        for path in (Path(name), secret):
            if user:
                os.chown(path, user["user"], user["group"])
        options: dict[str, Any] = {**user, "cwd": name, "env": {"PATH": os.defpath, "LC_ALL": "C"}}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        words = ["-U", "line", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--no-sync"]
        subprocess.run([programs / "initdb", "-D", folder, *words], check=True, **quiet, **options)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
        control = [programs / "pg_ctl", "-D", folder, "-w", "-t", "60", "-l", Path(name) / "log"]
        subprocess.run([*control, "-o", settings, "start"], check=True, **quiet, **options)
        try:
            yield port
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, **quiet, **options)

"""The simulated plant for the drivers' tests, and a guard that fails a test that leaks."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from plant_line import Line, running


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    threads, files = set(threading.enumerate()), _open_files()
    yield
    end = time.monotonic() + 2.0
    while leak := _leak(threads, files):
        if time.monotonic() > end:
            pytest.fail(f"left behind: {leak}")
        gc.collect()
        time.sleep(0.02)


def _leak(threads: set[threading.Thread], files: dict[int, str]) -> str:
    more_threads = [thread.name for thread in threading.enumerate() if thread not in threads]
    more_files = {fd: target for fd, target in _open_files().items() if files.get(fd) != target}
    return f"threads {more_threads}, files {more_files}" if more_threads or more_files else ""


def _open_files() -> dict[int, str]:
    """File descriptor to what it is: files, sockets, pipes. (What belongs to the interpreter stays the same.)"""
    found = {}
    for entry in Path(f"/proc/{psutil.Process().pid}/fd").iterdir():
        try:
            found[int(entry.name)] = os.readlink(entry)  # noqa: PTH115
        except OSError:
            continue  # that of the listing itself
    return found


@pytest.fixture
def line() -> Iterator[Line]:
    with running(Line()) as line:
        yield line

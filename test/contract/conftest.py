"""The simulated plant for the drivers' tests, and a guard that fails a test that leaks."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
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


@pytest.fixture
def call(tmp_path):
    """Runs the command as a process of its own: it takes over the standard streams until its process ends."""
    here = Path(__file__).parent
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    }

    def run(driver: str, settings: Any, *options: str) -> tuple[int, str, str]:
        path = tmp_path / "settings.yaml"
        path.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
        command = [sys.executable, "-m", "battery_sorting.cli.main", "check-driver", driver, str(path), *options]
        done = subprocess.run(
            command, cwd=here.parents[1], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return run

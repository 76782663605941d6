"""Shared memory of Fast DDS that killed ROS nodes have left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")
_SHARED_MEMORY_FILE = re.compile(r"fastrtps_(?:[0-9a-z]{16}|port\d{1,5})")
_SHARED_MEMORY_LOCK = re.compile(rf"({_SHARED_MEMORY_FILE.pattern})_(?:el|sl)")
MAKING_S = 0.2
CLEAN_UP_S = 1.0


def clean_shared_memory(folder: Path = _SHARED_MEMORY) -> None:
    """Remove what ended ROS nodes of this user have left, also what they made in their last moment.

    A file without a lock that is younger than `MAKING_S` may be one that somebody is just making: it is left
    over if it still has none a moment later.
    """
    deadline = time.monotonic() + CLEAN_UP_S
    remove_leaked_shared_memory(folder)
    while _unlocked_segments(folder) and time.monotonic() < deadline:
        time.sleep(MAKING_S / 4)
        remove_leaked_shared_memory(folder)


def _unlocked_segments(folder: Path) -> set[str]:
    """Segments and ports of this user that have no lock file, and that no process has mapped."""
    _, unlocked = _segments(folder)
    mine = {str(path) for path in unlocked if _status_of_own(path) is not None}
    return mine - _mapped_files() if mine else mine


def remove_leaked_shared_memory(folder: Path = _SHARED_MEMORY) -> list[Path]:
    """Remove shared-memory files that killed ROS nodes of this user left behind, and return them.

    Fast DDS keeps a lock on a file beside each of its segments for as long as their owner lives, so those whose
    lock is free belong to nobody. A node that is cut off while it cleans up leaves files without a lock: they
    belong to nobody when no process has them mapped. Segments in use, by whatever process, are not touched.
    """
    locks, unlocked = _segments(folder)
    unlocked = [path for path in unlocked if _is_made(path)]
    mapped = _mapped_files() if unlocked else set()
    abandoned: dict[str, list[Path]] = {path.name: [] for path in unlocked if str(path) not in mapped}
    removed = []
    for name, lock_files in {**locks, **abandoned}.items():
        if all(_is_abandoned(path) for path in lock_files):
            for path in (folder / name, folder / f"sem.{name}_mutex", *lock_files):
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed.append(path)
    return removed


def _segments(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Lock files by the name of what they lock, and the segments and ports without one."""
    locks: dict[str, list[Path]] = {}
    segments = []
    for path in folder.glob("fastrtps_*"):
        if match := _SHARED_MEMORY_LOCK.fullmatch(path.name):
            locks.setdefault(match.group(1), []).append(path)
        elif _SHARED_MEMORY_FILE.fullmatch(path.name):
            segments.append(path)
    return locks, [path for path in segments if path.name not in locks]


def _status_of_own(path: Path) -> os.stat_result | None:
    """The status of a file of this user; None if it is another's, or gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status if status.st_uid == os.getuid() else None


def _is_made(path: Path) -> bool:
    """Whether this file of this user is not one that is just being made."""
    status = _status_of_own(path)
    # A clock that was set back must not keep it: a file from the future is not new either.
    return status is not None and abs(time.time() - status.st_ctime) > MAKING_S


def _mapped_files() -> set[str]:
    """Paths of all shared-memory files that a process of this user has mapped."""
    found: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            found.update(line.split()[-1] for line in maps.read_text().splitlines() if "fastrtps_" in line)
    return found


def _is_abandoned(lock_file: Path) -> bool:
    if _status_of_own(lock_file) is None:
        return False
    try:
        with lock_file.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:
        return False

"""How much room a disk has."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """What was seen of a disk.

    Attributes:
        free_mb: Free space (MB); 0 if it could not be looked at.
        problem: What is wrong, with the remedy; empty if there is room.
    """

    free_mb: float
    problem: str = ""


def look_at_disk(folder: Path, needed_mb: float) -> DiskSpace:
    """Look at the disk of ``folder``, which must have ``needed_mb`` free (the setting ``alarms.disk_free_mb``)."""
    try:
        free_mb = shutil.disk_usage(folder).free / 1e6
    except OSError as error:  # a disk that was unmounted, or a folder that was moved
        return DiskSpace(0.0, f"{folder}: can't be looked at ({error.strerror}): put the folder or its disk back")
    if free_mb < needed_mb:
        remedy = f"alarms.disk_free_mb asks for {needed_mb:.0f}: make room"
        return DiskSpace(free_mb, f"{folder}: {free_mb:.0f} MB free, {remedy}")
    return DiskSpace(free_mb)

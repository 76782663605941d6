"""Reads the arrays of a model (.npz) in bounds: a small archive may claim to hold more than a machine has."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from battery_sorting.core.bounded import MIB

LARGEST = 4096 * MIB
"""Bytes of all arrays together, unpacked."""


def read_arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an archive by name; those of ``names``, or all. No objects are unpickled.

    Raises:
        ValueError: The file is missing, damaged, larger than it may be, or lacks one of ``names``; the message
            says which.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("is no plain file")
        with zipfile.ZipFile(path) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > LARGEST:
            raise ValueError(f"unpacks to {size // MIB} MB, more than the {LARGEST // MIB} MB that it may have")
        with np.load(path, allow_pickle=False) as stored:
            missing = [name for name in names or () if name not in stored]
            if missing:
                raise ValueError(f"{missing[0]} is not a file in the archive")
            return {name: stored[name] for name in (stored.files if names is None else names)}
    except OSError as error:
        raise ValueError(f"can't be read ({error.strerror or error})") from error
    except (EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError, KeyError, SyntaxError) as error:
        raise ValueError(f"is damaged ({error})") from error

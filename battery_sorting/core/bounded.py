"""Reads files from outside: plain ones alone, and never more of them than there may be.

A pipe would be waited for for ever, a device has no end, and what is nested without end ends the reader.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

MIB = 1 << 20
DEEPEST = 50
"""Lists and mappings within each other that are followed."""


def read_bytes(path: Path, most: int) -> bytes:
    """Content of a file of at most ``most`` bytes.

    Raises:
        OSError: It can't be read, is no plain file, or is larger; ``strerror`` says so.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # before it is opened: that alone may do something to a device
            raise OSError(errno.EINVAL, f"is {_kind(status.st_mode)} and no plain file", str(path))
        # Should it have become a pipe meanwhile: without O_NONBLOCK that would be waited for.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL in its name
        raise OSError(errno.EINVAL, "has a name that no file can have", repr(str(path))) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"is {_kind(status.st_mode)} and no plain file", str(path))
        content = file.read(min(most, max(status.st_size, MIB)) + 1) if status.st_size <= most else b""
    if status.st_size > most or len(content) > most:
        raise OSError(errno.EFBIG, f"is larger than the {_size(most)} that it may have", str(path))
    return content


def read_text(path: Path, most: int) -> str:
    """Text of a file in UTF-8, with or without a byte order mark.

    Raises:
        OSError: See `read_bytes`.
        UnicodeDecodeError: It is no such text.
    """
    return read_bytes(path, most).decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """What stands in a JSON text.

    Raises:
        ValueError: It is no JSON, holds a number that is not finite, or is nested too deeply.
    """
    try:
        found = json.loads(text, parse_constant=_refused, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"is nested more than {DEEPEST} deep") from None
    level = [found]
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return found
    raise ValueError(f"is nested more than {DEEPEST} deep")


def _inside(value: Any) -> list[Any]:
    """Lists and mappings in a list or mapping."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for one in values if isinstance(one, (dict, list))]


def _refused(text: str) -> float:
    raise ValueError(f"has {text} in it, which is no number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"has {text[:20]} in it, which is larger than any number")
    return number


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _size(number: int) -> str:
    return f"{number // MIB} MB" if number >= MIB else f"{number} bytes"

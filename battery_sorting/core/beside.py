"""Writes beside and renames at the end: what is there is whole at any moment, the old or the new.

Whether a place is free and can be written to is found before the work whose result belongs there, not after it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from battery_sorting.core.errors import ConfigurationError

try:
    import fcntl
except ImportError:  # Windows, where training works too
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".unfinished-"
"""In the names of what is being written; such names begin with a dot."""
BEFORE = ".before"
"""What makes room for the new one is called so for a moment."""


@contextlib.contextmanager
def file_beside(path: Path, overwrite: bool = False, option: str = "--out") -> Iterator[Path]:
    """A path beside ``path`` to write a file to, which takes its place when the ``with`` ends well.

    Enter it before the work. If it is left by an exception or Ctrl-C, what was written is gone and ``path`` is as
    it was.

    Args:
        path: Where the file belongs. Its folder is made if need be.
        overwrite: Whether a file that is there may be replaced.
        option: Of the command line, for messages.

    Raises:
        ConfigurationError: It is there already, is no plain file, or can't be written: at the beginning or, where
            the disk becomes full, later.
    """
    path = _cleared(path, option)
    if path.exists() and not path.is_file():
        raise ConfigurationError(option, [f"{path} is there and is no file; name another"])
    if path.exists() and not overwrite:
        raise ConfigurationError(option, [f"{path} is there already; name another, or allow it with --overwrite"])
    with _own_folder(path, option) as folder:
        yield folder / path.name
        written = folder / path.name
        _flush(written)
        if overwrite:
            written.replace(path)
        else:
            _move_to_free_place(written, path)
        _flush(path.parent)


@contextlib.contextmanager
def folder_beside(out: Path, replaces: frozenset[str] | None = None, option: str = "--out") -> Iterator[Path]:
    """An empty folder beside ``out`` to be filled, which takes its place when the ``with`` ends well.

    Enter it before the work. If it is left by an exception or Ctrl-C, what was written is gone and ``out`` is as it
    was.

    Args:
        out: Where the folder belongs. Those above it are made if need be.
        replaces: Names of what may be lost with a folder that is there; None: there may be none, or an empty one.
        option: Of the command line, for messages.

    Raises:
        ConfigurationError: ``out`` is there already, holds more than what may be replaced, or can't be written: at
            the beginning or, where the disk becomes full, later.
    """
    out = _cleared(out, option)
    refuse_occupied(out, replaces, option)
    with _own_folder(out, option) as folder:
        made = folder / out.name
        made.mkdir()
        yield made
        for file in made.rglob("*"):
            _flush(file)
        refuse_occupied(out, replaces, option)  # it may have been filled meanwhile
        with contextlib.suppress(FileNotFoundError):
            out.rename(folder / BEFORE)
        made.rename(out)
        _flush(out.parent)


def check_writable(folder: Path, option: str = "--out") -> None:
    """See that files can be written into ``folder``, and leave no trace of that.

    Raises:
        ConfigurationError: They can't.
    """
    with _errors_told(folder, option):
        made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        finally:
            for each in made:
                with contextlib.suppress(OSError):
                    each.rmdir()


def refuse_occupied(out: Path, replaces: frozenset[str] | None = None, option: str = "--out") -> None:
    """Raise `ConfigurationError` where `folder_beside` would, for what is there."""
    if out.exists() and not out.is_dir():
        raise ConfigurationError(option, [f"{out} is there and is no folder; name another"])
    held = sorted(file.name for file in out.iterdir()) if out.exists() else []
    if not held:
        return
    if replaces is None:
        raise ConfigurationError(option, [f"{out} is there already; name another, or allow it with --overwrite"])
    stray = [name for name in held if name not in replaces]
    if stray:
        problem = f"{out} also holds {', '.join(stray[:3])}, which would be lost: move that away, or name another"
        raise ConfigurationError(option, [problem])


def _cleared(path: Path, option: str) -> Path:
    """Where a path leads, since a link is followed and not replaced. What killed processes left beside it is gone.

    A lock tells that from what others are writing; it ends with the process that holds it.
    """
    try:
        with _errors_told(path, option):
            path = path.expanduser().resolve()
            path.exists()  # whether that can be told at all
            for left in path.parent.glob(f".{_escaped(path.name)}{UNFINISHED}*"):
                lock = _lock(left)
                if lock is not None:
                    _remove(left, path)
                    os.close(lock)
            return path
    except (RuntimeError, ValueError) as error:  # links in a circle, no home, a NUL
        raise ConfigurationError(option, [f"{path} leads nowhere ({error}); name another"]) from error


@contextlib.contextmanager
def _errors_told(path: Path, option: str, within: Path | None = None) -> Iterator[None]:
    """Errors of files ``within`` that folder, or all of them, as `ConfigurationError`."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
        if within is not None and not full and not str(error.filename).startswith(str(within)):
            raise  # of the work and not of this
        if full:
            problem = f"{path} can't be written: {error.strerror}; make room, what was there is as it was"
        else:
            problem = f"{path} can't be written: {error.strerror or error}; name another"
        raise ConfigurationError(option, [problem]) from error


@contextlib.contextmanager
def _own_folder(path: Path, option: str) -> Iterator[Path]:
    """A folder beside ``path`` that is gone in the end, locked as long as it is there."""
    with _errors_told(path, option):
        above = [parent for parent in path.parents if not parent.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}{UNFINISHED}", dir=path.parent))
    lock = _lock(folder)
    try:
        with _errors_told(path, option, folder):
            yield folder
    finally:
        _remove(folder, path)
        if lock is not None:
            os.close(lock)
        for parent in above:
            with contextlib.suppress(OSError):  # it isn't empty, all went well
                parent.rmdir()


def _remove(folder: Path, path: Path) -> None:
    """Removes what was beside ``path``. If that had just made room, it comes back first."""
    if (folder / BEFORE).is_dir() and not path.exists():
        (folder / BEFORE).rename(path)
    shutil.rmtree(folder, ignore_errors=True)


def _escaped(name: str) -> str:
    """A name for `Path.glob`."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name[:100])


def _lock(folder: Path) -> int | None:
    """Descriptor that holds the lock of a folder; None if somebody else does, or there are no locks here."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _move_to_free_place(written: Path, path: Path) -> None:
    """Renames, but not onto a file that has come there meanwhile."""
    try:
        os.link(written, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        written.rename(path)


def _flush(path: Path) -> None:
    """To the disk: a name must not outlive a loss of power without what it stands for."""
    if os.name == "nt":  # it flushes what is open for writing alone
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

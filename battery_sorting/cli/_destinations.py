"""Whether results can be written, found before any work is done for them."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from battery_sorting.core.errors import ConfigurationError

TABLES = (".csv", ".xlsx")
PAGES = (".html", ".htm", "")
PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".eps", ".ps")
"""Kinds of pictures that matplotlib writes."""


def check_file(
    option: str,
    path: Path | None,
    kinds: Sequence[str] = (),
    inputs: Sequence[Path] = (),
    what: str = "what is read",
    makes_folder: bool = False,
) -> None:
    """Refuse a file that could not be written at the end.

    Args:
        option: Its option, for the message.
        path: The file; None: nothing is to be written.
        kinds: Endings that can be written, in lower case; none: any.
        inputs: Files that are read and must stay.
        what: What the inputs are, for the message.
        makes_folder: Whether its folder will be made where it isn't there.

    Raises:
        ConfigurationError: It is a folder, its ending means something else, its folder isn't there or can't be
            written in, or it is one of the inputs.
    """
    if path is None:
        return
    problem = _file_problem(path, kinds, makes_folder)
    if not problem and any(_same(path, source) for source in inputs):
        problem = f"is {what} itself: name another file for the result"
    if problem:
        raise ConfigurationError(f"{option} {path}", [problem])


def check_files(
    options: Mapping[str, tuple[Path | None, Sequence[str]]],
    inputs: Sequence[Path] = (),
    what: str = "what is read",
) -> None:
    """`check_file` for each option → (file, kinds); no two of them may be one file.

    Raises:
        ConfigurationError: As `check_file`.
    """
    taken: dict[Path, str] = {}
    for option, (path, kinds) in options.items():
        check_file(option, path, kinds, inputs, what)
        if path is None:
            continue
        before = taken.setdefault(path.absolute(), option)
        if before != option and (path.is_file() or not path.exists()):  # devices may take everything
            raise ConfigurationError(f"{option} {path}", [f"is that of {before}, too: name another file"])


def check_folder(option: str, path: Path | None) -> None:
    """Refuse a folder in which nothing could be written at the end. It may be made then, with those above it.

    Raises:
        ConfigurationError: It is a file, or it can't be made or written in.
    """
    if path is None:
        return
    try:
        problem = _folder_problem(_nearest(path))
    except OSError as error:
        problem = _why(error)
    if problem:
        raise ConfigurationError(f"{option} {path}", [f"{problem}: name another folder"])


def check_source(option: str, folder: Path | None) -> None:
    """Refuse a folder of pictures that isn't there before PyTorch is imported to read it.

    Raises:
        ConfigurationError: It is no folder.
    """
    if folder is not None and not os.path.isdir(folder):  # noqa: PTH112  # says no where a path is too long
        raise ConfigurationError(str(folder), [f"{option}: no such folder; give one of pictures"])


def _kind_problem(path: Path, kinds: Sequence[str]) -> str:
    if not kinds or path.suffix.lower() in kinds:
        return ""
    known = " or ".join(filter(None, kinds))
    return f"can be written as {known}, not as '{path.suffix or path.name}': name a {kinds[0]} file"


def _file_problem(path: Path, kinds: Sequence[str], makes_folder: bool) -> str:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return _kind_problem(path, kinds) or _place_problem(path.parent, makes_folder)
    except OSError as error:
        return f"{_why(error)}: name another file"
    if stat.S_ISDIR(mode):
        return "is a folder: name a file"
    if not stat.S_ISREG(mode):  # a pipe or a device has no kind, and to open it may already do something
        return ""
    if wrong := _kind_problem(path, kinds):
        return wrong
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    except OSError as error:
        return f"{_why(error)}: name another file"
    return ""


def _place_problem(folder: Path, makes_folder: bool) -> str:
    if not folder.exists() and not makes_folder:
        return f"there is no folder {folder}: make it first"
    problem = _folder_problem(_nearest(folder))
    return f"{problem}: name another file" if problem else ""


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _folder_problem(folder: Path) -> str:
    """Tried, not asked: rights alone don't tell of file systems that are read-only or take no files."""
    if not folder.is_dir():
        return f"{folder} is no folder"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return _why(error)


def _why(error: OSError) -> str:
    return f"can't be written ({error.strerror})"


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return path.absolute() == other.absolute()

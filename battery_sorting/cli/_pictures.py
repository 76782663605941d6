"""What the commands share that look at picture files: the files that are meant, and the models that are shipped."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from battery_sorting.cli._output import remark as tell
from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.core.settings import find_shared
from battery_sorting.core.types import View
from battery_sorting.vision.deep_pictures import camera_bits
from battery_sorting.vision.picture_folders import find_pictures
from battery_sorting.vision.pictures import clean_name

VIEWS = tuple(view.value for view in View)
LONGEST_NAME = 200
"""Bytes of an overlay's name; file systems allow 255."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Picture files that a person means.

    Attributes:
        files: Each once.
        bits: As for `read_picture`, the same for all.
        remarks: What is left out of the folders that were named, and why.
    """

    files: list[Path]
    bits: int | None
    remarks: list[str]


def pictures_of(paths: Sequence[Path]) -> Pictures:
    """The pictures that are named, and those in folders that are named and one level below.

    Remarks on what is left out are said on standard error.

    Raises:
        ConfigurationError: A path isn't there, or there is no picture at all.
    """
    files: list[Path] = []
    remarks: list[str] = []
    for path in paths:
        if path.is_dir():
            tree = find_pictures(path, pictures_here=True)
            files += [*tree.here, *tree.files]
            remarks += tree.texts
        elif path.is_file():
            files.append(path)
        elif path.exists():
            raise ConfigurationError(str(path), ["is neither a file nor a folder"])
        else:
            raise ConfigurationError(str(path), ["no such file or folder"])
    if not files:
        problem = "no pictures; give files or folders of .jpg, .png, …"
        raise ConfigurationError(", ".join(map(str, paths)), [problem, *remarks])
    for remark in remarks:
        warn(remark)
    return Pictures(list(dict.fromkeys(files)), camera_bits(files), remarks)


def warn(text: str) -> None:
    """Says it on standard error."""
    tell(f"warning: {text}")


def overlay_names(files: Sequence[Path]) -> dict[Path, str]:
    """A name for the JPEG that is made of each file, which no two share: ``FOLDER_NAME.jpg`` where that is enough.

    Those of ``a/1.png`` and ``a/1.tif`` keep their endings (``a_1.png.jpg``), those of ``x/a/1.png`` and
    ``y/a/1.png`` get one folder more (``x_a_1.png.jpg``). Names that differ in case alone, or in how accents are
    written, count as the same, since they are on other systems.
    """
    level = dict.fromkeys(files, 0)
    while True:
        sharing: dict[str, list[Path]] = {}
        for file in level:
            sharing.setdefault(_key(_overlay_name(file, level[file])), []).append(file)
        longer = [
            file
            for same in sharing.values()
            if len(same) > 1
            for file in same
            if level[file] < len(file.absolute().parts)
        ]
        if not longer:
            break
        for file in longer:
            level[file] += 1
    names, used = {}, set()
    for file in level:
        name, number = _overlay_name(file, level[file]), 1
        while _key(name) in used:
            number += 1
            name = f"{_overlay_name(file, level[file])}-{number}"
        used.add(_key(name))
        names[file] = f"{name}.jpg"
    return names


def _overlay_name(file: Path, level: int) -> str:
    parts = [clean_name(part) for part in file.absolute().parts[1:] if part != ".."]
    name = "_".join(parts[-max(2, level + 1) :]) if level else "_".join([*parts[-2:-1], file.stem])
    return name.encode("utf-8", "replace")[-LONGEST_NAME:].decode("utf-8", "ignore")


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def refuse_if_unreadable(summary: Mapping[str, Any]) -> None:
    """Ends a command that could read none of the pictures; where some could be read, those that couldn't are named.

    Raises:
        FrameError: There are pictures, and all of them are unreadable.
    """
    if summary["pictures"] and summary["unreadable"] == summary["pictures"]:
        raise FrameError(f"none of the pictures can be read: {summary['unreadable']} of {summary['pictures']}")


def shipped(model: str) -> Path:
    """Folder of a model that comes with the package.

    Raises:
        ConfigurationError: It isn't there.
    """
    found = find_shared(model)
    if found is None:
        raise ConfigurationError(model, ["no such model here; name its folder with --model"])
    return Path(found)

"""What the commands share that look at picture files: the files that are meant, and the models that are shipped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.ev.types import View
from battery_sorting.core.settings import find_shared
from battery_sorting.vision.pictures import picture_files

VIEWS = tuple(view.value for view in View)


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The pictures that are named, and those in folders that are named and one level below.

    Raises:
        ConfigurationError: A path isn't there, or there is no picture at all.
    """
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise ConfigurationError(
            ", ".join(map(str, paths)), ["no pictures; give files or folders of .jpg, .png, …"]
        )
    return files


def shipped(model: str) -> Path:
    """Folder of a model that comes with the package.

    Raises:
        ConfigurationError: It isn't there.
    """
    found = find_shared(model)
    if found is None:
        raise ConfigurationError(model, ["no such model here; name its folder with --model"])
    return Path(found)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigurationError(str(path), ["no such file or folder"])
    below = [file for sub in sorted(path.iterdir()) if sub.is_dir() for file in picture_files(sub)]
    return picture_files(path) + below

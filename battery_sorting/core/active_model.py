"""Which version of a model is active.

The versions of a model are the folders of its family, ``models/battery_type/1``, ``…/2``. The file ``active``
beside them names one: each line is a version and when it was activated, and the last line counts.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from battery_sorting.core.bounded import MIB, read_text
from battery_sorting.core.errors import ModelError
from battery_sorting.core.settings import find_shared, suggest

ACTIVE_FILE = "active"
STORE = "models"
LARGEST_ACTIVE = MIB
_CARD = "card.json"  # what makes a folder a model


def versions(family: Path) -> list[str]:
    """Versions in the folder of a family, oldest first: 2 comes before 10."""
    if not family.is_dir():
        return []
    found = (folder.name for folder in family.iterdir() if not folder.name.startswith("."))  # one being written
    return sorted((name for name in found if (family / name / _CARD).is_file()), key=_by_number)


def active_version(family: Path) -> str | None:
    """The active version: the last one that was activated, else the only one there is.

    Raises:
        ModelError: The file ``active`` names a version that is not there, or can't be read.
    """
    known, activated = versions(family), activations(family)
    if not activated:
        return known[0] if len(known) == 1 else None
    if activated[-1] not in known:
        raise ModelError(
            f"{family / ACTIVE_FILE}: there is no version '{activated[-1]}', {suggest(activated[-1], known)}; "
            "restore it, or activate another with 'battery-sorting models activate'"
        )
    return activated[-1]


def activations(family: Path) -> list[str]:
    """Versions in the order in which they were activated; the last one counts. Raises `ModelError`."""
    return [line.split()[0] for line in _lines(family)]


def activate(family: Path, version: str, now: float) -> None:
    """Make ``version`` the active one.

    Args:
        family: Folder of the versions.
        version: One of them. Activating the active version again changes nothing.
        now: Time in seconds, for the file.

    Raises:
        ModelError: There is no such version, or the file can't be written.
    """
    known = versions(family)
    if version not in known:
        raise ModelError(f"{family}: there is no version '{version}', {suggest(version, known)}")
    before = activations(family)
    if before and before[-1] == version:
        return
    stamp = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="seconds")
    _write(family, [*_lines(family), f"{version}  {stamp}"])


def previous_version(family: Path) -> str:
    """The version that was active before the active one.

    Raises:
        ModelError: There was none, or it is gone.
    """
    activated, known = activations(family), versions(family)
    if len(activated) < 2:
        raise ModelError(
            f"{family}: no version was active before this one; choose one of {', '.join(known) or 'none'} with "
            "'battery-sorting models activate'"
        )
    if activated[-2] not in known:
        raise ModelError(
            f"{family}: version '{activated[-2]}' was active before, but it is gone: restore its folder"
        )
    return activated[-2]


def roll_back(family: Path) -> str:
    """Make the previous version the active one again; returns it. Raises as `previous_version`."""
    version = previous_version(family)
    _write(family, _lines(family)[:-1])
    return version


@contextlib.contextmanager
def undone_on_failure(family: Path) -> Iterator[None]:
    """What is activated inside the ``with`` is taken back if it raises."""
    before = _lines(family)
    try:
        yield
    except BaseException:
        if before:
            _write(family, before)
        else:
            (family / ACTIVE_FILE).unlink(missing_ok=True)
        raise


def find_model(name: str) -> Path:
    """Absolute path of the folder of one model.

    Args:
        name: Folder of a version; folder of a family, whose active version it is then; or ``name/version`` or
            ``name`` of what is in ``models/``.

    Raises:
        ModelError: There is no such folder, or no version of the family is active. Whether the folder holds a
            model that can be used is not looked at.
    """
    found = find_shared(name) or find_shared(f"{STORE}/{name}")
    if found is None or not found.is_dir():
        raise ModelError(f"there is no folder '{name}': give one under {STORE}/ or train one")
    known = versions(found)
    if not known or (found / _CARD).is_file():
        return found
    version = active_version(found)
    if version is None:
        raise ModelError(
            f"{found}: holds the versions {', '.join(known)} and none is active: choose one with "
            f"'battery-sorting models activate {found.name}/{known[-1]}'"
        )
    return found / version


def _lines(family: Path) -> list[str]:
    """Lines of the file as they stand."""
    file = family / ACTIVE_FILE
    try:
        return [line for line in read_text(file, LARGEST_ACTIVE).splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: can't be read ({error}); restore or remove it") from error


def _write(family: Path, lines: list[str]) -> None:
    """Beside the file and renamed: whoever reads sees the old one or the new one."""
    file = family / ACTIVE_FILE
    part = file.with_name(f"{ACTIVE_FILE}.part")
    try:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise ModelError(
            f"{file}: can't be written ({error.strerror}); copy the family to a folder of your own and name "
            "that in the site's 'model'"
        ) from error


def _by_number(version: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"\d+|\D+", version)]

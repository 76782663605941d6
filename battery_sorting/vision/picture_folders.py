"""What a folder of pictures holds: which folder is a type, which file a picture, and what is left out, and why.

Everything that walks folders of pictures does it here. A data set is a folder with a sub-folder for each type; what
lies elsewhere, can't be read, or was put there by a system (`.ipynb_checkpoints`, `@eaDir`, `__MACOSX`,
`Thumbs.db`) is left out and told, with its number, the first names, and what to do.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.vision.pictures import (
    HEIC_REMEDY,
    RAW_ENDINGS,
    clean_name,
    endings,
    is_system_file,
    label_of_folder,
    picture_endings,
    picture_format,
    picture_name,
)

log = logging.getLogger(__name__)

SHOWN = 3
"""So many names stand in a remark."""
MOST_BELOW = 10_000
"""So many files and folders below a type's folder are looked at, to say that they are not."""

SYSTEM_FOLDERS = "folders that systems and programs make, or that begin with _"
SYSTEM_FILES = "files that systems and programs make"
WITHOUT_PICTURES = "folders without pictures"
"""What `Remark.what` says of things that nobody misses."""

_SYSTEM_PREFIXES = (".", "_", "@", "#", "$", "~")
_NAMED_BY_SYSTEMS = frozenset(
    (
        "system volume information",
        "lost+found",
        "lost.dir",
        "recycler",
        "recycled",
        "network trash folder",
        "temporary items",
        "node_modules",
    )
)
_CONVERT = "convert them to JPEG or PNG"
_UNREAD = (
    ("HEIC pictures", endings("heic heif hif"), HEIC_REMEDY),
    ("AVIF pictures", endings("avif"), _CONVERT),
    ("raw files of cameras", RAW_ENDINGS, _CONVERT),
    ("PDF documents", endings("pdf"), _CONVERT),
    (
        "pictures of a kind that is not read",
        endings(
            "jxl jp2 j2k jpx jpf jxr wdp svg svgz psd psb xcf eps ai ico icns tga exr hdr dds fits pcx dcm bpg"
        ),
        _CONVERT,
    ),
    (
        "films",
        endings("mp4 mov avi mkv m4v 3gp mpg mpeg wmv webm"),
        "save single frames of them as JPEG or PNG",
    ),
    ("archives", endings("zip 7z rar tar gz tgz bz2 xz zst"), "unpack them"),
)
"""Files that a person may take for pictures, by their endings, and what to do."""


@dataclass(frozen=True, slots=True)
class Remark:
    """What a person should know of a folder of pictures.

    Attributes:
        what: Such as ``HEIC pictures``.
        names: Of what is meant, relative to the folder; folders end with ``/``.
        remedy: What to do; empty: nothing, if that is how it is meant.
        left_out: Whether it is not used.
    """

    what: str
    names: tuple[str, ...]
    remedy: str = ""
    left_out: bool = True

    def is_of(self, *expected: str) -> bool:
        """Whether nothing but files and folders of these names is meant."""
        return {Path(name).name for name in self.names} <= {*expected}

    def __str__(self) -> str:
        shown = ", ".join(map(_readable, self.names[:SHOWN])) + (", …" if len(self.names) > SHOWN else "")
        begin = "left out: " if self.left_out else ""
        return f"{begin}{self.what}: {len(self.names)} ({shown})" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True, slots=True)
class PictureFolders:
    """The pictures of a folder.

    Attributes:
        folder: That was looked at.
        here: Pictures in the folder itself.
        types: Name of each type (`clean_name` of its folders) to its pictures, sorted; none where it has none.
        remarks: What is left out, and why.
    """

    folder: Path
    here: tuple[Path, ...]
    types: dict[str, tuple[Path, ...]]
    remarks: tuple[Remark, ...]

    @property
    def files(self) -> list[Path]:
        """The pictures of all types."""
        return [file for files in self.types.values() for file in files]

    @property
    def filled(self) -> dict[str, tuple[Path, ...]]:
        """Those of the types that have pictures."""
        return {name: files for name, files in self.types.items() if files}

    def told(self, tell: Callable[[str], object] = log.warning) -> PictureFolders:
        """Says every remark; returns the same."""
        for text in self.texts:
            tell(text)
        return self

    @property
    def texts(self) -> list[str]:
        """Every remark as a sentence."""
        return [f"{self.folder}: {remark}" for remark in self.remarks]


def find_pictures(folder: Path, pictures_here: bool = False) -> PictureFolders:
    """The pictures of ``folder`` and of the folders in it, each of which is a type.

    Links are followed, but no folder is taken twice. Folders whose names are the same once they are cleaned
    (`clean_name`) are one type, unless pictures of the same name lie in them.

    Args:
        folder: To be looked at.
        pictures_here: Pictures in the folder itself are wanted, so they are no remark.

    Raises:
        ConfigurationError: No such folder; it, or a type's folder, can't be read; a name is no text; two pictures
            of a type have the same name.
    """
    search = _Search(folder)
    here = search.look_into(folder)
    if here and not pictures_here:
        search.say("pictures beside the types' folders", here, "move each into the folder of its type")
    types: dict[str, list[Path]] = {}
    for sub in search.folders(folder):
        types.setdefault(clean_name(sub.name), []).append(sub)
    _check_names(folder, types)
    search.compare_names(types)
    found = {}
    for name, subs in types.items():
        found[name] = tuple(file for sub in subs for file in search.look_into(sub))
        _check_files(folder, name, found[name])
        if not found[name]:
            search.say(WITHOUT_PICTURES, subs, "put pictures in them, or delete them")
        search.look_below(subs)
    return PictureFolders(folder, tuple(here), found, search.remarks())


def all_pictures(folder: Path) -> PictureFolders:
    """The pictures in ``folder`` and in everything in it, as one (`PictureFolders.here`).

    Raises:
        ConfigurationError: No such folder, or it can't be read.
    """
    search = _Search(folder)
    found: list[Path] = []
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        found += search.look_into(current)
        waiting += reversed(search.folders(current))
    return PictureFolders(folder, tuple(sorted(found)), {}, search.remarks())


def is_system_folder(name: str) -> bool:
    """Whether a folder of that name is made by systems and programs, or is marked (``_``) as no type."""
    folded = clean_name(name).lower()
    return not folded or folded.startswith(_SYSTEM_PREFIXES) or folded in _NAMED_BY_SYSTEMS


@dataclass
class _Search:
    folder: Path
    _said: dict[tuple[str, str, bool], list[str]] = field(default_factory=lambda: defaultdict(list))
    _taken: dict[tuple[int, int], Path] = field(default_factory=dict)
    _endings: frozenset[str] = field(default_factory=picture_endings)

    def say(self, what: str, paths: Iterable[Path], remedy: str = "", left_out: bool = True) -> None:
        """Notes something of paths; what is the same of others becomes one remark."""
        names = [self._name(path) for path in paths]
        if names:
            self._said[what, remedy, left_out] += names

    def remarks(self) -> tuple[Remark, ...]:
        """Everything that was noted."""
        return tuple(Remark(what, tuple(names), *rest) for (what, *rest), names in self._said.items())  # type: ignore[arg-type]

    def folders(self, folder: Path) -> list[Path]:
        """Sub-folders, sorted; links to what is taken already are left out, and so are folders of systems."""
        found = []
        entries = [entry for entry in _listed(folder) if entry.is_dir()]
        entries.sort(key=lambda entry: (entry.is_symlink(), entry))  # a folder before the links to it
        self._take(folder)
        for entry in entries:
            if is_system_folder(entry.name):
                self.say(SYSTEM_FOLDERS, [entry], "they are no types; rename one that is")
            elif not self._take(entry):
                self.say("links to folders that are taken already", [entry], "delete them")
            else:
                found.append(entry)
        return sorted(found)

    def look_into(self, folder: Path) -> list[Path]:
        """Pictures of a folder, sorted; notes what else lies there."""
        pictures = []
        for entry in _listed(folder):
            if entry.is_dir():
                continue
            if is_system_file(entry.name):
                self.say(SYSTEM_FILES, [entry])
            elif not entry.is_file():
                self.say("broken links, or no plain files", [entry], "replace them by the pictures themselves")
            elif not _is_text(entry.name):
                self.say("files whose names are no text", [entry], "rename them")
            elif entry.suffix.lower() in self._endings:
                pictures.append(entry)
            else:
                self._say_of_other(entry)
        return sorted(pictures)

    def look_below(self, subs: Sequence[Path]) -> None:
        """Notes what lies in folders of a type's folder."""
        for sub in subs:
            for entry in sorted(entry for entry in _listed(sub) if entry.is_dir()):
                if is_system_folder(entry.name):
                    self.say(SYSTEM_FOLDERS, [entry], "they are no types; rename one that is")
                    continue
                below = self._below(entry)
                if below:
                    remedy = "move them up into the folder of the type, or name the folder above it as the data"
                    self.say("pictures in folders below a type's", below, remedy)
                else:
                    self.say("folders below a type's", [entry], "only what lies in a type's folder itself is read")

    def compare_names(self, types: dict[str, list[Path]]) -> None:
        """Notes folders that are one type, and types whose names are nearly the same."""
        for name, subs in types.items():
            if len(subs) > 1:
                self.say(f"folders that are one type, '{name}', though their names are written differently", subs,
                         "put their pictures into one", left_out=False)  # fmt: skip
        alike: dict[str, list[Path]] = defaultdict(list)
        for name, subs in types.items():
            if label_of_folder(name) == name:
                alike["".join(unicodedata.normalize("NFKC", name).casefold().split())].append(subs[0])
        for folders in alike.values():
            if len(folders) > 1:
                self.say("types whose names differ in case or spaces alone", folders,
                         "put their pictures into one folder if they are one type", left_out=False)  # fmt: skip

    def _say_of_other(self, entry: Path) -> None:
        ending = entry.suffix.lower()
        for what, known, remedy in _UNREAD:
            if ending in known:
                self.say(what, [entry], remedy)
                return
        if picture_format(entry):
            self.say("pictures whose ending is none of a picture", [entry], "call them .jpg, .png, …")
        else:
            self.say("files that are no pictures", [entry])

    def _below(self, folder: Path) -> list[Path]:
        found: list[Path] = []
        seen = 0
        for where, names, files in os.walk(folder):
            names[:] = sorted(name for name in names if not is_system_folder(name))
            found += [Path(where, name) for name in sorted(files) if self._may_be_picture(name)]
            seen += len(files) + len(names)
            if seen > MOST_BELOW:
                break
        return found

    def _may_be_picture(self, name: str) -> bool:
        return not is_system_file(name) and Path(name).suffix.lower() in self._endings | _UNREAD[0][1]

    def _take(self, folder: Path) -> bool:
        state = folder.stat()
        return self._taken.setdefault((state.st_dev, state.st_ino), folder) == folder

    def _name(self, path: Path) -> str:
        try:
            name = path.relative_to(self.folder).as_posix()
        except ValueError:
            name = str(path)
        return f"{name}/" if path.is_dir() else name


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        problem = "no such folder"
    except NotADirectoryError:
        problem = "is a file; give a folder of pictures"
    except OSError as error:
        problem = f"can't be read ({error.strerror}); check the path and its permissions"
    raise ConfigurationError(str(folder), [problem])


def _check_names(folder: Path, types: dict[str, list[Path]]) -> None:
    wrong = [sub for name, subs in types.items() for sub in subs if not (_is_text(name) and name.isprintable())]
    if wrong:
        raise ConfigurationError(
            str(folder),
            [f"{_readable(sub.name)}: the name is no text that can be printed; rename the folder" for sub in wrong],
        )


def _check_files(folder: Path, name: str, files: Sequence[Path]) -> None:
    """Pictures are known by type and name, so that two of them must not have the same."""
    first: dict[str, Path] = {}
    twice = [file for file in files if first.setdefault(picture_name(file), file) != file]
    if twice:
        both = f"{first[picture_name(twice[0])].relative_to(folder)} and {twice[0].relative_to(folder)}"
        raise ConfigurationError(
            str(folder),
            [
                f"{len(twice)} pictures of '{name}' are called as others of it, once accents are written alike "
                f"({both}); give them other names and put the pictures of a type into one folder"
            ],
        )


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # bytes of another encoding, as archives of other systems leave behind
        return False
    return True


def _readable(name: str) -> str:
    """A name on one line, whatever bytes it was made of."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode("ascii")
        for letter in name
    )

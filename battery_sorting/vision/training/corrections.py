"""Lists of label corrections: what a person found out about pictures whose folder says something wrong.

A list is a CSV file with the columns ``file,label,action,reason,confidence``. ``battery-sorting data check`` writes
one, people edit it (in a spreadsheet, too), training takes it with ``--labels``. See docs/how-to/labels.md.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import find_shared
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.pictures import clean_name, label_of_folder, picture_name

if TYPE_CHECKING:
    from battery_sorting.vision.pictures import Photograph

Action = Literal["keep", "relabel", "drop"]
ACTIONS: tuple[str, ...] = get_args(Action)
COLUMNS = ("file", "label", "action", "reason", "confidence")
REQUIRED = ("file", "action")
SHIPPED = "config/labels"
"""Where lists ship with the package: ``batsort.csv`` holds the label errors of the BatSort photographs."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What to do with one picture.

    Attributes:
        file: ``FOLDER/NAME`` of the picture, which is how it is known whatever the data folder is called.
        action: ``keep`` as it is, ``relabel`` to ``label``, or ``drop``.
        label: The right label; with ``keep`` and ``drop`` no more than a suggestion.
        reason: For people.
        confidence: How sure whoever proposed it was, 0..1; NaN where nobody said.
    """

    file: str
    action: Action
    label: str = ""
    reason: str = ""
    confidence: float = math.nan


class Corrections:
    """A list of corrections, at most one per picture.

    Attributes:
        entries: In the order of the file.
        source: File that they came from, for messages.
    """

    def __init__(self, entries: Iterable[Correction] = (), source: str = "corrections") -> None:
        self.entries = tuple(entries)
        self.source = source
        self._by_file = {entry.file: entry for entry in self.entries}

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Correction]:
        return iter(self.entries)

    @classmethod
    def read(cls, path: Path) -> Corrections:
        """Read a list; lines before the header that begin with ``#`` are comments.

        Raises:
            ConfigurationError: The file can't be read or has faults; all are named with line, column and remedy.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
        except OSError as error:
            raise ConfigurationError(str(path), [f"can't be read: {error.strerror or error}"]) from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(str(path), ["is not UTF-8 text: save it as 'CSV UTF-8'"]) from error
        return cls(_Reader(str(path)).read(text), str(path))

    @classmethod
    def load(cls, name: str | Path) -> Corrections:
        """Read the file ``name``, or the list of that name that ships with the package, such as ``batsort``.

        Raises:
            ConfigurationError: Neither exists, or the list has faults.
        """
        path = Path(name).expanduser()
        if path.is_file():
            return cls.read(path)
        shipped = find_shared(f"{SHIPPED}/{name}.csv") if len(path.parts) == 1 and not path.suffix else None
        if shipped is None:
            remedy = f"no such list: give the path of a CSV file, or the name of one in {SHIPPED}, such as batsort"
            raise ConfigurationError(str(name), [remedy])
        return cls.read(shipped)

    def write(self, path: Path, comment: str = "") -> None:
        """Write the list, in one step, so that a crash leaves the old one; ``comment`` goes above the header.

        Raises:
            ConfigurationError: It can't be written.
        """
        beside = path.with_name(f".{path.name}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8", newline="") as file:
                file.writelines(f"# {line}\n" for line in comment.splitlines())
                rows = csv.writer(file, lineterminator="\n")
                rows.writerow(COLUMNS)
                rows.writerows(_row(entry) for entry in self.entries)
            beside.replace(path)
        except OSError as error:
            raise ConfigurationError(str(path), [f"can't be written: {error.strerror or error}"]) from error

    def of(self, picture: Path) -> Correction | None:
        """The entry about a picture, known by its folder and name."""
        return self._by_file.get(file_key(picture))

    def apply(self, photographs: Iterable[Photograph]) -> list[Photograph]:
        """Photographs with their right labels, without those to be dropped."""
        corrected = []
        for photograph in photographs:
            entry = self.of(photograph.path)
            if entry is None or entry.action == "keep":
                corrected.append(photograph)
            elif entry.action == "relabel":
                corrected.append(replace(photograph, label=label_of_folder(entry.label)))
        return corrected

    def audit(self, photographs: Iterable[Photograph]) -> list[str]:
        """Warnings about entries that change nothing or look mistaken, one sentence each.

        Named are files that match no picture, and labels that no picture carries so far (mistyped, most often).
        """
        photographs = list(photographs)
        files = {file_key(photograph.path) for photograph in photographs}
        labels = {photograph.label for photograph in photographs} | {OTHERS}
        warnings = []
        for entry in self.entries:
            if entry.file not in files:
                warnings.append(
                    f"{self.source}: {entry.file}: no such picture in the data{_close(entry.file, files)}"
                )
            elif entry.action == "relabel" and label_of_folder(entry.label) not in labels:
                warnings.append(
                    f"{self.source}: {entry.file}: makes a new type {entry.label!r}{_close(entry.label, labels)}"
                )
        return warnings

    def with_new(self, others: Iterable[Correction]) -> Corrections:
        """This list and those of ``others`` about further pictures: what a person has decided stays."""
        return Corrections([*self.entries, *(e for e in others if e.file not in self._by_file)], self.source)


def file_key(picture: Path) -> str:
    """``FOLDER/NAME``, by which lists know a picture, whichever way a file system writes its accents."""
    return picture_name(picture)


class _Reader:
    """Collects every fault of a list with its line and column."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._problems: list[str] = []
        self._seen: dict[str, int] = {}

    def read(self, text: str) -> list[Correction]:
        lines = io.StringIO(text).readlines()  # a name may hold what splitlines() takes for an end
        comments = 0
        while comments < len(lines) and (lines[comments].startswith("#") or not lines[comments].strip()):
            comments += 1
        header = lines[comments] if comments < len(lines) else ""
        delimiter = ";" if header.count(";") > header.count(",") else ","  # as spreadsheets in half of Europe write
        rows = csv.reader(lines[comments:], delimiter=delimiter)
        entries = []
        try:
            columns = self._columns(comments + 1, next(rows, []))
            begin = comments + rows.line_num + 1
            for row in rows:
                entry = self._entry(begin, columns, row) if any(cell.strip() for cell in row) else None
                entries += [entry] if entry else []
                begin = comments + rows.line_num + 1
        except csv.Error as error:
            self._problems.append(f"line {comments + rows.line_num}: is no CSV ({error}): check its quotes")
        if self._problems:
            raise ConfigurationError(self._source, self._problems)
        return entries

    def _columns(self, line: int, header: list[str]) -> list[str]:
        columns = [name.strip().lower() for name in header]
        wanted = f"write '{','.join(COLUMNS)}' as its first line"
        missing = [name for name in REQUIRED if name not in columns]
        unknown = [name for name in columns if name and name not in COLUMNS]
        twice = sorted({name for name in columns if columns.count(name) > 1})
        for what, names in (("misses", missing), ("has unknown", unknown), ("repeats", twice)):
            if names:
                self._problems.append(f"line {line}: the header {what} {', '.join(names)}: {wanted}")
        if self._problems:
            raise ConfigurationError(self._source, self._problems)
        return columns

    def _entry(self, line: int, columns: list[str], row: list[str]) -> Correction | None:
        if len(row) > len(columns):
            self._fault(line, "reason", "there are more cells than columns: put text that holds a comma in quotes")
            return None
        before = len(self._problems)
        cells = dict(zip(columns, (cell.strip() for cell in row), strict=False))
        file = self._file(line, cells.get("file", ""))
        action = self._action(line, cells.get("action", ""))
        label = cells.get("label", "")
        if action == "relabel" and not label:
            self._fault(line, "label", "is empty: name the right type, or write drop as the action")
        if "/" in label or "\\" in label:
            self._fault(line, "label", f"{label!r} is a path: write the type's name only")
        confidence = self._confidence(line, cells.get("confidence", ""))
        if len(self._problems) > before:
            return None
        return Correction(file, cast(Action, action), label, cells.get("reason", ""), confidence)

    def _file(self, line: int, text: str) -> str:
        file = unicodedata.normalize("NFC", text.replace("\\", "/").removeprefix("./"))
        parts = file.split("/")
        if len(parts) == 2:
            parts[0] = clean_name(parts[0])
            file = "/".join(parts)
        if len(parts) != 2 or not all(parts) or ".." in parts:
            self._fault(line, "file", f"{text!r} is not FOLDER/NAME, for example Klarus/12.jpg")
        elif file in self._seen:
            self._fault(line, "file", f"{file} stands in line {self._seen[file]} already: remove one")
        self._seen.setdefault(file, line)
        return file

    def _action(self, line: int, text: str) -> str:
        action = text.lower()
        if action not in ACTIONS:
            self._fault(line, "action", f"{text!r} is none of {', '.join(ACTIONS)}{_close(action, ACTIONS)}")
        return action

    def _confidence(self, line: int, text: str) -> float:
        if not text:
            return math.nan
        try:
            value = float(text.replace(",", "."))
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            self._fault(line, "confidence", f"{text!r} is no number from 0 to 1: correct it or leave it empty")
        return value

    def _fault(self, line: int, column: str, problem: str) -> None:
        self._problems.append(f"line {line}: {column}: {problem}")


def _row(entry: Correction) -> Sequence[str]:
    confidence = "" if math.isnan(entry.confidence) else f"{entry.confidence:.3f}"
    return entry.file, entry.label, entry.action, entry.reason, confidence


def _close(text: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(text, list(known), n=1, cutoff=0.75)
    return f"; did you mean {match[0]!r}?" if match else ""

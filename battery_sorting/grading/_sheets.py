"""From a file to rows of values: plain files of bounded size, encodings, delimiters, sheets of workbooks."""

from __future__ import annotations

import codecs
import csv
import io
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import suggest
from battery_sorting.grading._headers import FOREIGN

MOST_BYTES = 256 * 2**20
"""Larger files are refused: that is some million cells with a dozen columns."""
LONGEST_LINE = 2**20
"""Bytes of a line of text."""
MOST_LINES = 5_000_000
"""Lines of a text."""
MOST_COLUMNS = 2_000
"""Columns of a table."""
MOST_UNPACKED = 2 * 2**30
"""Bytes of all parts of a workbook, unpacked; each is read piece by piece, but for the texts."""
MOST_TEXTS = 256 * 2**20
"""Bytes of a workbook's shared texts, which are held in memory."""
MOST_VALUES = 30_000_000
"""Values of a sheet, blank ones between others included."""
MOST_ROWS = 2**20
"""Rows of a sheet; no program writes more."""
SEARCHED_ROWS = 40
"""The header is among so many rows that aren't blank."""
_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_ROWS = 300

Recognise = Callable[[list[Any]], int]
"""How many of the quantities a row names, if it is a header."""


class TableError(ConfigurationError):
    """A file of cells can't be read as a table. ``problems`` says what is wrong and what to do."""

    code = "cell_table"


@dataclass
class Sheet:
    """Rows of a file that aren't blank, each with its line.

    Attributes:
        source: The file.
        rows: Line from 1, values.
        notes: What was decided about the file that a reader may want to know.
        undecided: Encodings that the file may be in, if that can't be told and its texts are not to be trusted.
        formulas: (line, column from 0) → value, of formulas in a workbook.
        uncalculated: Whether the program that wrote the workbook left it to the next one to calculate formulas.
    """

    source: str
    rows: list[tuple[int, list[Any]]]
    notes: list[str] = field(default_factory=list)
    undecided: str = ""
    formulas: dict[tuple[int, int], Any] = field(default_factory=dict)
    uncalculated: bool = False


def read_sheet(path: Path, recognise: Recognise, sheet: str | None = None, encoding: str | None = None) -> Sheet:
    """The rows of a text file or a workbook.

    Raises:
        TableError: It is no plain file, too large, no table, or leaves open what only its owner can know.
    """
    source = str(path)
    content = _content(path)
    if content.startswith(b"PK\x03\x04"):
        return _of_workbook(source, content, recognise, sheet)
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        raise TableError(source, ["is an Excel file of the old kind (.xls): save it as .xlsx or CSV"])
    if sheet is not None:
        raise TableError(source, [f"is no workbook, so it has no sheet '{sheet}': leave --sheet out"])
    _check_lines(source, content)
    return _of_text(source, *_decoded(source, content, encoding), recognise)


def _content(path: Path) -> bytes:
    source = str(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "no plain file (a pipe or a device)"
            raise TableError(source, [f"is {kind}: save the table to a file and name that"])
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TableError(source, [f"can't be read: {error.strerror}"]) from error
    if len(content) > MOST_BYTES:
        raise TableError(source, [f"is larger than {MOST_BYTES // 2**20} MiB: split it into several tables"])
    return content


def _check_lines(source: str, content: bytes) -> None:
    end = b"\n" if b"\n" in content else b"\r"
    if content.count(end) > MOST_LINES:
        raise TableError(source, [f"has more than {MOST_LINES:,} lines: split it into several tables"])
    start = 0
    while start < len(content):
        found = content.find(end, start)
        found = len(content) if found < 0 else found
        if found - start > LONGEST_LINE:
            raise TableError(source, [f"has a line of {found - start:,} bytes: that is no table of cells"])
        start = found + 1


def is_blank(row: Iterable[Any]) -> bool:
    """Whether no value says anything."""
    return all(value is None or (isinstance(value, str) and not value.strip()) for value in row)


# ---- texts ----


def _decoded(source: str, content: bytes, encoding: str | None) -> tuple[str, list[str], str]:
    """The text, notes, and the encodings between which the bytes do not decide."""
    if encoding is not None:
        return _in_encoding(source, content, encoding), [], ""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            return _in_encoding(source, content, name), [], ""
    if b"\0" in content[:4096]:
        return _wide(source, content), ["read as UTF-16"], ""
    if re.search(rb"[\x01-\x08\x0e-\x19\x1c-\x1f]", content[:4096]):
        raise TableError(source, ["is neither a text nor an Excel file: give a CSV or .xlsx table"])
    try:
        return content.decode("utf-8"), [], ""
    except UnicodeDecodeError:
        pass
    fitting = [name for name, fits in _FITS.items() if fits(content)]
    if len(fitting) > 1:
        known = [name for name in fitting if any(word in content.decode(name).casefold() for word in FOREIGN)]
        fitting = known or fitting
    if len(fitting) == 1:
        return content.decode(fitting[0]), [f"read as {_SHOWN[fitting[0]]}"], ""
    between = " or ".join(_SHOWN[name] for name in fitting) if fitting else "an encoding that is not known"
    return content.decode("cp1252", errors="replace"), [], between


def _in_encoding(source: str, content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except LookupError:
        remedy = "for example utf-8, utf-16, cp1252, cp1251, gb18030, shift_jis, euc_kr"
        raise TableError(source, [f"there is no encoding '{encoding}': {remedy}"]) from None
    except UnicodeDecodeError as error:
        raise TableError(
            source, [f"is not in {encoding}: byte {error.start + 1} does not fit; name another (--encoding)"]
        ) from None
    return text.removeprefix("\ufeff")


def _wide(source: str, content: bytes) -> str:
    """UTF-16 without its mark, known by the zeros beside ASCII."""
    start = content[:4096]
    zeros = (start[0::2].count(0), start[1::2].count(0))
    name = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    if min(zeros) == 0 and max(zeros) > len(start) / 8:
        try:
            return content.decode(name)
        except UnicodeDecodeError:
            pass
    raise TableError(source, ["is neither a text nor an Excel file: give a CSV or .xlsx table"])


_SHOWN = {
    "cp1252": "Windows-1252",
    "cp1251": "Windows-1251",
    "koi8_r": "KOI8-R",
    "gb18030": "GB18030",
    "euc_kr": "EUC-KR",
    "euc_jp": "EUC-JP",
}
_RUN = re.compile(rb"([\x00-\x7f]?)([\x80-\xff]+)(?=([\x00-\x7f]?))")
_LATIN = re.compile("[À-ÖØ-öø-ÿŠšŽžŒœŸ]{1,2}")
_LATIN_SIGN = re.compile("[µ°±§€–—‘’“”«»\u00a0·Ø²³]")
_CYRILLIC = re.compile("[А-ЯЁ]?[а-яё]+|[А-ЯЁ]+|[№µ\u00a0«»–—°±·]")


_FOUR_BYTES = re.compile(rb"[\x81-\xfe][0-9][\x81-\xfe][0-9]")  # of GB18030: rare letters, and µ


def _runs(content: bytes) -> set[tuple[bytes, bytes, bytes]]:
    """All runs of bytes beyond ASCII with the bytes before and behind."""
    return set(_RUN.findall(content))


def _fits_latin(content: bytes) -> bool:
    """Single accented letters among plain ones, or signs that stand alone."""
    for before, run, after in _runs(content):
        try:
            text = run.decode("cp1252")
        except UnicodeDecodeError:
            return False
        letters = _LATIN.fullmatch(text) and (len(text) < 2 or before.isalpha() or after.isalpha())
        if letters and before.isalpha() and text[0].isupper() and (before.islower() or after.islower()):
            return False  # MŸller is Müller in another encoding
        sign = _LATIN_SIGN.fullmatch(text) and not (text in "²³" and after.isalpha())
        if not letters and not sign:
            return False
    return True


def _fits_cyrillic(encoding: str) -> Callable[[bytes], bool]:
    def fits(content: bytes) -> bool:
        longest = 0
        for before, run, after in _runs(content):
            try:
                text = run.decode(encoding)
            except UnicodeDecodeError:
                return False
            if not _CYRILLIC.fullmatch(text) or before.isalpha() or after.isalpha():
                return False
            longest = max(longest, len(text))
        return longest >= 2

    return fits


def _fits_pairs(encoding: str, letters: Callable[[int], bool]) -> Callable[[bytes], bool]:
    """Pairs of high bytes: signs (rows A1 to A9), and letters by their first byte, not lonely amid Latin words."""

    def fits(content: bytes) -> bool:
        runs = _runs(_FOUR_BYTES.sub(b"?", content) if encoding == "gb18030" else content)
        for before, run, after in runs:
            leads, trails = run[0::2], run[1::2]
            if len(run) % 2 or min(trails) < 0xA1 or min(leads) < 0xA1:
                return False
            signs = all(lead <= 0xA9 for lead in leads)
            if not all(lead <= 0xA9 or letters(lead) for lead in leads):
                return False
            if len(run) == 2 and not signs and (before.islower() or after.islower()):
                return False
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            return False
        return bool(runs)

    return fits


def _has_kana(content: bytes) -> bool:
    return any(lead in (0xA4, 0xA5) for _, run, _ in _runs(content) for lead in run[0::2])


_FITS: dict[str, Callable[[bytes], bool]] = {
    "cp1252": _fits_latin,
    "cp1251": _fits_cyrillic("cp1251"),
    "koi8_r": _fits_cyrillic("koi8_r"),
    "gb18030": _fits_pairs("gb18030", lambda lead: 0xB0 <= lead <= 0xF7),
    "euc_kr": _fits_pairs("euc_kr", lambda lead: 0xB0 <= lead <= 0xC8),
    "euc_jp": lambda content: (
        _has_kana(content) and _fits_pairs("euc_jp", lambda lead: 0xB0 <= lead <= 0xF4)(content)
    ),
}


def _of_text(source: str, text: str, notes: list[str], undecided: str, recognise: Recognise) -> Sheet:
    stated = re.match(r"\s*sep=([^\w\s]|\t)\r?\n", text)  # Excel's way to name the delimiter
    skipped = 0
    if stated:
        skipped, text = stated[0].count("\n"), text[stated.end() :]
    delimiter = stated[1] if stated else _delimiter(text, recognise)
    try:
        rows = [(line + skipped, row) for line, row in _records(text, delimiter) if not is_blank(row)]
    except csv.Error as error:
        raise TableError(source, [f"is not CSV: {error}; is a quotation mark not closed?"]) from error
    if any(len(row) > MOST_COLUMNS for _, row in rows[:SEARCHED_ROWS]):
        raise TableError(source, [f"has more than {MOST_COLUMNS:,} columns: that is no table of cells"])
    return Sheet(source, rows, notes, undecided)


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=delimiter != "\t")
    line = 1
    for row in reader:
        yield reader.line_num if "\n" not in "".join(row) else line, row
        line = reader.line_num + 1


def _delimiter(text: str, recognise: Recognise) -> str:
    """That under which a row names most quantities, and then most rows are as wide as that one."""

    def rank(delimiter: str) -> tuple[int, float, int]:
        rows: list[list[str]] = []
        try:
            for _, row in _records(text, delimiter):
                if not is_blank(row):
                    rows.append(row)
                if len(rows) >= _SAMPLE_ROWS:
                    break
        except csv.Error:
            pass
        if not rows:
            return 0, 0.0, 0
        place, named = header_place(rows, recognise)
        width = len(rows[place])
        below = rows[place + 1 :] or [rows[place]]
        fitting = sum(len(row) == width for row in below) / len(below) if width > 1 else 0.0
        return named, round(fitting, 2), width

    present = [delimiter for delimiter in _DELIMITERS if delimiter in text]
    return max(present, key=rank, default=",")


def header_place(rows: list[list[Any]], recognise: Recognise) -> tuple[int, int]:
    """Number of the row that names most quantities, the first of several, and how many it names."""
    named = [recognise(row) if len(row) <= MOST_COLUMNS else 0 for row in rows[:SEARCHED_ROWS]]
    best = max(named, default=0)
    return (named.index(best), best) if best >= 2 else (0, named[0] if named else 0)


# ---- workbooks ----


def _of_workbook(source: str, content: bytes, recognise: Recognise, wanted: str | None) -> Sheet:
    from openpyxl import load_workbook

    try:
        formulas, uncalculated = _look_into(source, content)
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    except TableError:
        raise
    except Exception as error:  # a broken archive fails in many ways
        raise TableError(source, [f"is no Excel workbook that can be read: {error}"]) from error
    try:
        name, notes = _chosen(source, book, recognise, wanted)
        rows = [(line, row) for line, row in _rows_of(source, book[name]) if not is_blank(row)]
    except TableError:
        raise
    except Exception as error:
        raise TableError(source, [f"a sheet can't be read: {error}"]) from error
    finally:
        book.close()
    result = Sheet(source, rows, notes, uncalculated=uncalculated)
    if formulas:
        values = {(line, column): value for line, row in rows for column, value in enumerate(row)}
        result.formulas = {place: values.get(place) for place in _formulas(source, content, name)}
        known = {line for line, _ in rows}
        lost: dict[int, list[Any]] = {}
        for line, column in result.formulas:  # a row of formulas that have no value looks blank
            if line not in known:
                row = lost.setdefault(line, [])
                row.extend([None] * (column + 1 - len(row)))
        result.rows = sorted([*rows, *lost.items()], key=lambda each: each[0])
    return result


def _look_into(source: str, content: bytes) -> tuple[bool, bool]:
    """Whether a workbook has formulas, and whether they still are to be calculated; refuses bombs."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > MOST_UNPACKED or len(parts) > 10_000:
            raise TableError(
                source, [f"unpacks to more than {MOST_UNPACKED // 2**20} MiB: that is no table of cells"]
            )
        for part in parts:
            held = "worksheets/sheet" not in part.filename
            if held and part.file_size > MOST_TEXTS:
                raise TableError(
                    source, [f"{part.filename} unpacks to {part.file_size:,} bytes: no table of cells"]
                )
        formulas = any(_has_formula(archive, part) for part in parts if part.filename.startswith("xl/worksheets/"))
        try:
            settings = archive.read("xl/workbook.xml")
        except KeyError:
            settings = b""
    return formulas, bool(re.search(rb'fullCalcOnLoad="(1|true)"', settings))


def _has_formula(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    kept = b""
    with archive.open(part) as file:
        while piece := file.read(2**20):
            if re.search(rb"<(\w+:)?f[ >/]", kept + piece):
                return True
            kept = piece[-16:]
    return False


def _chosen(source: str, book: Any, recognise: Recognise, wanted: str | None) -> tuple[str, list[str]]:
    """The name of the sheet with the cells: that which is asked for, or the only visible one that has any."""
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    if wanted is not None:
        match = next((name for name in sheets if name == wanted or name.casefold() == wanted.casefold()), None)
        if match is None:
            raise TableError(source, [f"there is no sheet '{wanted}': {suggest(wanted, list(sheets))}"])
        return match, []
    starts = {name: _start(source, sheet) for name, sheet in sheets.items()}
    filled = [name for name, rows in starts.items() if rows]
    visible = [name for name in filled if sheets[name].sheet_state == "visible"]
    tables = [name for name in visible if header_place(starts[name], recognise)[1] >= 2 and len(starts[name]) > 1]
    candidates = tables or visible
    if len(candidates) == 1:
        name = candidates[0]
        return name, [f"read from sheet '{name}'"] if len(filled) > 1 else []
    if candidates:
        names = ", ".join(f"'{name}'" for name in candidates)
        raise TableError(source, [f"several sheets have cells ({names}): say which with --sheet NAME"])
    if filled:
        names = ", ".join(f"'{name}'" for name in filled)
        raise TableError(source, [f"only hidden sheets have cells ({names}): show one, or name it with --sheet"])
    raise TableError(source, ["has no sheet with cells"])


def _start(source: str, sheet: Any) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for _, row in _rows_of(source, sheet):
        if not is_blank(row):
            rows.append(row)
        if len(rows) > SEARCHED_ROWS:
            break
    return rows


def _rows_of(source: str, sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    sheet.reset_dimensions()  # some programs write wrong ones
    seen = 0
    for line, row in enumerate(sheet.iter_rows(values_only=True), 1):
        seen += len(row)
        if seen > MOST_VALUES:
            raise TableError(
                source, [f"sheet '{sheet.title}' has more than {MOST_VALUES:,} values: split the table"]
            )
        if line > MOST_ROWS:
            raise TableError(source, [f"sheet '{sheet.title}' names a row beyond {MOST_ROWS:,}: that is no sheet"])
        yield line, list(row)


def _formulas(source: str, content: bytes, name: str) -> Iterator[tuple[int, int]]:
    """Places of the formulas of a sheet: line, column from 0."""
    from openpyxl import load_workbook

    book = load_workbook(io.BytesIO(content), read_only=True, data_only=False)
    try:
        for line, row in _rows_of(source, book[name]):
            for column, value in enumerate(row):
                formula = isinstance(value, str) and value.startswith("=") and len(value) > 1
                if formula or type(value).__name__ in ("ArrayFormula", "DataTableFormula"):
                    yield line, column
    finally:
        book.close()

"""The one output of all commands: lines, tables and JSON on standard output, remarks on standard error.

A terminal gets tables that fit its width. What is no terminal (a pipe, a file) gets whole values, one record a
line, separated by tabs. Characters that the encoding of the output lacks never end a command: typographic ones are
written in ASCII, others as escapes.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from battery_sorting.core.strict_json import finite, to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_ERRORS = "battery_sorting_plain"
"""Name of the error handler of codecs that writes what an encoding lacks in plain words."""
PLAIN_ASCII = "battery_sorting_ascii"
"""ASCII by another name: typer takes a stream whose encoding is called ASCII for a mistake, and writes UTF-8."""
_PLAIN = {
    "\u2013": "-", "\u2014": "-", "\u2212": "-", "\u2010": "-", "\u2011": "-", "…": "...", "·": ".", "•": "*",
    "\u2018": "'", "\u2019": "'", "\u201a": ",", "\u201c": '"', "\u201d": '"', "\u201e": '"', "×": "x", "±": "+/-",
    "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "\u03a9": "Ohm", "\u2126": "Ohm", "\u00b5": "u", "\u03bc": "u",
    "Δ": "d", "°": "deg ", "\u00a0": " ", "\u202f": " ", "\u2009": " ",
}  # fmt: skip
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LEAST_WIDTH = 20

_json_output: TextIO | None = None


def say(text: object = "") -> None:
    """A line, or several, on standard output."""
    print(visible(str(text)))


def remark(text: object) -> None:
    """A line on standard error: what a person should know, and no program wants to read."""
    print(visible(str(text)), file=sys.stderr)


def write_json(data: Any, indent: int = 2) -> None:
    """Strict JSON on standard output; with `--json` nothing else comes there (see `send_json_to`)."""
    stream = sys.stdout if _json_output is None else _json_output
    print(json_text(data, indent, getattr(stream, "encoding", None) or "utf-8"), file=stream)


def json_text(data: Any, indent: int = 2, encoding: str = "utf-8") -> str:
    """Strict JSON: null where there is no number, no character that ``encoding`` lacks."""
    text = to_json(data, indent, ensure_ascii=False, default=_as_json)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return to_json(data, indent, default=_as_json)
    return text


def send_json_to(stream: TextIO | None) -> None:
    """Have `write_json` write there; None: to standard output."""
    global _json_output
    _json_output = stream


def show(table: Table) -> None:
    """A table on standard output: drawn on a terminal, else lines of values separated by tabs."""
    columns = width()
    if columns is None:
        say("\n".join(plain_lines(table)))
        return
    for column in table.columns:
        column.overflow, column.no_wrap = "fold", False  # a narrow terminal folds values, it doesn't cut them
    ids = table.columns[0]
    ids.no_wrap = 2 * max((len(str(value)) for value in ids.cells), default=0) <= columns  # they are what is copied
    console().print(table)


def show_parts(parts: Iterable[Table | str]) -> None:
    """Tables and lines of a report, one after the other."""
    for part in parts:
        if isinstance(part, str):
            say(part)
        else:
            show(part)


def plain_lines(table: Table) -> Iterator[str]:
    """A table for what is no terminal: '# title', the heads, a record a line, '# caption'."""
    if table.title:
        yield f"# {_field(table.title)}"
    yield "\t".join(_field(column.header) for column in table.columns)
    for row in zip(*(list(column.cells) for column in table.columns), strict=True):
        yield "\t".join(map(_field, row))
    if table.caption:
        yield f"# {_field(table.caption)}"


def width() -> int | None:
    """Columns of the terminal that standard output is; None if it is none: there nothing must fit."""
    return max(console().width, _LEAST_WIDTH) if is_terminal(sys.stdout) else None


def most(rows: int) -> int | None:
    """So many rows of a long table go onto a terminal; None, all of them, go elsewhere."""
    return rows if is_terminal(sys.stdout) else None


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at the stream. Variables like FORCE_COLOR don't make a pipe a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def console(*, stderr: bool = False) -> Console:
    """Rich's console for a terminal; one that is none gets nothing of it: bars are of no use there.

    Names from outside stay as they are: brackets in them are no markup, and colons no pictures.
    """
    from rich.console import Console

    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    made.quiet = not is_terminal(sys.stderr if stderr else sys.stdout)
    if made.width < _LEAST_WIDTH:
        made.width = _LEAST_WIDTH
    return made


def visible(text: str) -> str:
    """``text`` without characters that steer a terminal: they are written as escapes."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def _field(value: Any) -> str:
    """A value that breaks neither its line nor its columns."""
    return visible(", ".join(str(value).splitlines())).replace("\t", "\\t")


def _as_json(value: Any) -> Any:
    """Of what JSON doesn't know: numbers of NumPy, paths, sets."""
    if isinstance(value, (set, frozenset)):
        return sorted(finite(list(value)), key=str)
    if isinstance(value, Path):
        return str(value)
    with suppress(AttributeError, ValueError):
        return finite(value.tolist())  # arrays and numbers of NumPy
    return str(value)


def _in_plain_words(error: UnicodeError) -> tuple[str, int]:
    """Error handler of codecs: ASCII for typographic signs, escapes for the rest."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign) or _escaped(sign) for sign in lacking), error.end


def _escaped(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode("ascii")


def _ascii_by_another_name(name: str) -> codecs.CodecInfo | None:
    if name != PLAIN_ASCII:
        return None
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        known.encode,
        known.decode,
        known.streamreader,
        known.streamwriter,
        known.incrementalencoder,
        known.incrementaldecoder,
        name=PLAIN_ASCII,
    )


codecs.register_error(PLAIN_ERRORS, _in_plain_words)
codecs.register(_ascii_by_another_name)

"""Standard input, output and error of the process, as every command has them.

* A reader that closes the pipe (`| head`) ends the command at its next line, with exit code 141, without a word.
* Standard output that can't be written (a full disk) is an error with a message.
* Standard error that can't be written ends nothing: what was asked for doesn't go there.
* With ``--json`` standard output takes the JSON alone: whatever else writes there, in any language, comes out on
  standard error.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import Any

from battery_sorting.cli._output import PLAIN_ASCII, PLAIN_ERRORS, send_json_to
from battery_sorting.core.errors import BatterySortingError

PIPE_CLOSED = 141
"""Exit code where the reader of standard output has gone: as of a program that SIGPIPE ends (128 + 13)."""


class OutputError(BatterySortingError):
    """Standard output can't be written."""

    code = "output"


class _Output(io.FileIO):
    """Standard output. After the first failure the rest goes nowhere, so that the end of the process is quiet."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            _to_nowhere(self.fileno())
            raise SystemExit(PIPE_CLOSED) from None
        except OSError as error:
            _to_nowhere(self.fileno())
            raise OutputError(f"standard output can't be written ({error.strerror})") from error


class _Remarks(io.FileIO):
    """Standard error: what can't be written there is lost."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def take_streams(json_alone: bool) -> None:
    """Set up the standard streams of this process; ``json_alone``: standard output is for `write_json` only."""
    for number in (0, 1, 2):
        _occupy(number)
    sys.stdout = _text(_Output(1, "wb", closefd=False), sys.stdout)
    sys.stderr = _text(_Remarks(2, "wb", closefd=False), sys.stderr)
    if json_alone:
        own = os.dup(1)
        send_json_to(_text(_Output(own, "wb"), sys.stdout))
        os.dup2(2, 1)


def flush_streams() -> None:
    """Write what is still waiting.

    Raises:
        OutputError: Standard output can't be written.
        SystemExit: Its reader has gone.
    """
    sys.stdout.flush()
    sys.stderr.flush()


def _text(raw: io.FileIO, before: Any) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    with contextlib.suppress(LookupError):
        if codecs.lookup(encoding).name == "ascii":
            encoding = PLAIN_ASCII
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, PLAIN_ERRORS, line_buffering=True)


def _occupy(number: int) -> None:
    """A stream that was closed leads nowhere: else the next file that is opened, a ledger say, would be it."""
    try:
        os.fstat(number)
    except OSError:
        _to_nowhere(number)


def _to_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere == number:
        os.set_inheritable(number, True)
        return
    os.dup2(nowhere, number)
    os.close(nowhere)

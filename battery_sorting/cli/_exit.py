"""How every command ends: the one place that turns what went wrong into a message and an exit code."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

import typer

from battery_sorting.cli._output import remark
from battery_sorting.cli._streams import PIPE_CLOSED, flush_streams
from battery_sorting.core.errors import BatterySortingError

PACKAGE = Path(__file__).parents[1]
PROGRAM = "battery-sorting"


class ExitCode(IntEnum):
    """What a command ends with."""

    DONE = 0
    NO = 1
    WRONG = 2
    INCOMPLETE = 3
    FAULT = 70
    INTERRUPTED = 130
    READER_GONE = PIPE_CLOSED


MEANINGS = {
    ExitCode.DONE: "Done as asked.",
    ExitCode.NO: "Everything could be read, and the answer is no or nothing: see the table below.",
    ExitCode.WRONG: "Not done: an argument, a file, a setting, a device or a line that runs is not as it must be, "
    "or a result can't be written. Standard error says which, and what to do.",
    ExitCode.INCOMPLETE: "Done, but rows of a ledger can't be read and are left out; standard error says which.",
    ExitCode.FAULT: "Not done: a fault of the program. Standard error names the place in the code; `--debug` shows "
    "the whole way there.",
    ExitCode.INTERRUPTED: "Interrupted (Ctrl-C). `up` is what Ctrl-C ends, so it ends with 0.",
    ExitCode.READER_GONE: "Who read standard output has closed it (`| head`) before all was written.",
}
"""The table of exit codes in docs/reference/command_line.md, which a test compares."""

ANSWERS = {
    "check-driver": "the driver fails a check",
    "explain": "the ledger has no battery of this `--id`",
    "export passport": "the ledger has no cell, or not this cell or pack, to write a passport of",
    "grade": "no cell of the table can be graded; what was asked for is written",
    "items": "no battery fits, or none has this `--id`; `--json` prints `[]`, with `--id` nothing",
    "models list": "the folder has no model; `--json` prints `[]`",
    "models shadow": "no shadow model has looked at a battery of the shift; `--json` prints `[]`",
    "packs": "no pack can be built; what was asked for is written, with the reason of each cell",
    "regroup": "no cell comes into a group; what was asked for is written",
    "review": "the shift has no battery that is worth a look; no folder is made",
}
"""Commands that can end with `ExitCode.NO`, and when."""


class NothingFoundError(BatterySortingError):
    """All could be read, and what was looked for isn't there."""

    code = "nothing_found"


def end_with(work: Callable[[], None], debug: bool, hint: Callable[[ModuleNotFoundError], str]) -> int:
    """Do the work of a command; returns the exit code. Nothing that a user can cause shows a traceback.

    Args:
        work: Parses the arguments and runs the command.
        debug: Show where in the code an error arose.
        hint: How a package that is missing is installed; empty if it is one of our own.
    """
    try:
        try:
            work()
        finally:
            flush_streams()
    except SystemExit as end:  # the reader of standard output has gone, or a command ended itself
        return end.code if isinstance(end.code, int) else ExitCode.DONE if end.code is None else ExitCode.WRONG
    except (KeyboardInterrupt, typer.Abort):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever is impatient ends it at once
        remark(f"{PROGRAM}: interrupted")
        return ExitCode.INTERRUPTED
    except typer.Exit as end:
        return int(end.exit_code)
    except Exception as error:
        if debug and not _is_usage(error):
            traceback.print_exc()
            return exit_code_of(error)
        if _is_usage(error):
            error.show()  # type: ignore[attr-defined]
        else:
            remark(f"{PROGRAM}: {_message(error, hint)}")
        return exit_code_of(error)
    return ExitCode.DONE


def exit_code_of(error: Exception) -> int:
    """Exit code for an error that ended a command."""
    if isinstance(error, NothingFoundError):
        return ExitCode.NO
    if isinstance(error, (BatterySortingError, OSError, MemoryError)) or _is_usage(error):
        return ExitCode.WRONG
    if isinstance(error, ModuleNotFoundError) and not _is_own(error):
        return ExitCode.WRONG
    return ExitCode.FAULT


def _message(error: Exception, hint: Callable[[ModuleNotFoundError], str]) -> str:
    if isinstance(error, BatterySortingError):
        return str(error)
    if isinstance(error, OSError):
        files = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([*files, error.strerror or str(error)])
    if isinstance(error, MemoryError):
        return f"there is not enough memory for this ({error})" if str(error) else "there is not enough memory"
    if isinstance(error, ModuleNotFoundError) and not _is_own(error):
        return hint(error)
    place = _place(error)
    kind, text = type(error).__name__, " ".join(str(error).split())
    return (
        f"a fault of the program, {kind} in {place}: {text or 'no more is known'}; --debug shows how it came there"
    )


def _place(error: Exception) -> str:
    """The last place of our own code that the error has passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)] or list(frames)
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "an unknown place"


def _is_usage(error: Exception) -> bool:
    """Whether the arguments are at fault: typer brings its own class of such errors and doesn't name it."""
    return isinstance(error, _USAGE)


def _is_own(error: ModuleNotFoundError) -> bool:
    return (error.name or "").startswith("battery_sorting.")


_USAGE: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

"""What a command says of rows of a ledger that can't be read: the rest was reported, and the exit code tells."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from battery_sorting.cli._exit import ExitCode
from battery_sorting.cli._output import remark

MOST_TOLD = 20


def told(unreadable: Sequence[str], most: int = MOST_TOLD) -> list[str]:
    """The sentences that are shown."""
    more = len(unreadable) - most
    return [*unreadable[:most], *([f"and {more} more"] if more > 0 else [])]


def end_if_incomplete(ledger: str, unreadable: Sequence[str]) -> None:
    """Call it at the end of a command.

    Raises:
        typer.Exit: Something could not be read; it was told on standard error.
    """
    if not unreadable:
        return
    for sentence in told(unreadable):
        remark(f"{ledger}: {sentence}")
    remark("the rest was reported; restore the ledger from a backup to have all")
    raise typer.Exit(ExitCode.INCOMPLETE)

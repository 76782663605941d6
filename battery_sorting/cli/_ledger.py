"""What the commands share that read a ledger: their options, a battery by its id, and rows that can't be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from battery_sorting.cli._exit import ExitCode, NothingFoundError
from battery_sorting.cli._output import remark
from battery_sorting.core.errors import LedgerError
from battery_sorting.ledger import BatteryRecord
from battery_sorting.ledger.store import Ledger
from battery_sorting.report.words import told

LedgerArgument = Annotated[str, typer.Argument(help="Ledger: path of the file, or postgresql://…")]
ShiftOption = Annotated[int | None, typer.Option("--shift", help="Number of the shift; the last one by default.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output in place of tables.")]
ImagesOption = Annotated[
    Path | None, typer.Option("--images", help="Folder of the kept pictures, where it isn't beside the ledger.")
]
ModelOption = Annotated[
    Path | None, typer.Option("--model", help="Folder of the model; default: the one that decided.")
]


def find_battery(book: Ledger, battery_id: str) -> BatteryRecord:
    """The battery of this id.

    Raises:
        LedgerError: A row of the ledger can't be read that may be this battery.
        NothingFoundError: The ledger doesn't have it.
    """
    battery = book.battery(battery_id)
    if battery is None:
        if book.unreadable:
            raise LedgerError(f"{book.name}: {book.unreadable[0]}")
        raise NothingFoundError(f"{book.name}: has no battery {battery_id}; `battery-sorting items` lists them")
    return battery


def end_if_incomplete(ledger: str, unreadable: Sequence[str]) -> None:
    """Call it at the end of a command: the rest was reported, and the exit code tells.

    Raises:
        typer.Exit: Something could not be read; it was told on standard error.
    """
    if not unreadable:
        return
    for sentence in told(unreadable):
        remark(f"{ledger}: {sentence}")
    remark("the rest was reported; restore the ledger from a backup to have all")
    raise typer.Exit(ExitCode.INCOMPLETE)

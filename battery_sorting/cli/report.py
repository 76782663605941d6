"""`battery-sorting report`: what a shift came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from battery_sorting.cli._destinations import PAGES, check_file
from battery_sorting.cli._ledger import ImagesOption, JsonOption, LedgerArgument, ShiftOption, end_if_incomplete
from battery_sorting.cli._output import remark, say, show_parts, width, write_json
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.reporting import find_shift
from battery_sorting.lines import kind_of
from battery_sorting.report.kept_pictures import KeptPictures
from battery_sorting.report.layout import PageRequest
from battery_sorting.report.layouts import layout_of


def report(
    ledger: LedgerArgument,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page.")] = None,
    as_json: JsonOption = False,
    plant: Annotated[Path | None, typer.Option(help="The plant's record (JSONL): the truth to judge by.")] = None,
    shift: ShiftOption = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the training pictures, to show those like a battery on the page.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model that explains on the page; else the one that decided.")
    ] = None,
    images: ImagesOption = None,
) -> None:
    """Figures of a shift. Belt: type by bin, purity, yield, latency. EV line: outlets, faults, grades, packs."""
    check_file("--html", html, PAGES, [Path(ledger)])
    with Ledger.open(ledger, read_only=True) as book:
        kind = kind_of(find_shift(book, shift))
        given = {"--data": data, "--model": model}
        wrong = [f"{name}: is of the belt line only" for name, value in given.items() if value is not None]
        if wrong and not kind.explains:
            raise ConfigurationError(book.name, wrong)
        found, layout = kind.report(book, shift, plant), layout_of(kind)
        if html is not None:
            layout.write_page(found, PageRequest(html, book, KeptPictures(book, images), model, data))
    if as_json:
        write_json(found.to_dict() | ({"unreadable": book.unreadable} if book.unreadable else {}))
    else:
        show_parts(layout.parts(found, width()))
        if found.empty:
            remark(f"{book.name}: shift {found.shift.shift_id} has no {found.item} yet")
        if html is not None:
            say(f"report: {html}")
    end_if_incomplete(book.name, book.unreadable)

"""`battery-sorting export passport`: what the line knows of each cell and pack, as documents for others."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from battery_sorting.cli._destinations import check_folder
from battery_sorting.cli._exit import NothingFoundError
from battery_sorting.cli._ledger import end_if_incomplete
from battery_sorting.cli._output import say, show, write_json
from battery_sorting.core.errors import BatterySortingError, ConfigurationError, LedgerError, ModelError
from battery_sorting.core.settings import suggest
from battery_sorting.grading.passport import (
    DRAFT,
    ISSUED,
    Document,
    Dossier,
    Pack,
    Selection,
    Sources,
    Specification,
    as_draft,
    cell_passport,
    check_form,
    collect,
    file_name,
    pack_passport,
    render,
    specification_from_file,
    specification_in,
    validator,
)
from battery_sorting.ledger import EventKind, Shift
from battery_sorting.ledger.store import Ledger

CELLS, PACKS = "cells", "packs"
SHOWN = 5
"""So many cells, files or reasons are named in a message."""

app = typer.Typer(help="Documents from the ledger for others.", no_args_is_help=True)


@app.callback()
def export() -> None:
    """Documents from the ledger for others."""


class NotIssuedError(BatterySortingError):
    """Results that came from simulated devices, or may have, don't go into a passport."""

    code = "not_issued"


class NoCellError(NothingFoundError, LedgerError):
    """The ledger has nothing to write a passport of."""


@dataclass
class Written:
    """What was written, and what was not."""

    folder: Path
    status: str
    cells: list[str] = field(default_factory=list)
    packs: list[str] = field(default_factory=list)
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Data for JSON."""
        return {**vars(self), "folder": str(self.folder), "skipped": dict(self.skipped)}


@app.command("passport")
def passport(
    ledger: Annotated[str, typer.Argument(help="Ledger: path of the file, or postgresql://…")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the passports.")],
    battery_id: Annotated[str | None, typer.Option("--id", help="Only the cell of this id.")] = None,
    pack_id: Annotated[str | None, typer.Option("--pack", help="Only this pack and its cells.")] = None,
    shift: Annotated[
        int | None, typer.Option("--shift", help="Only cells and packs of the shift of this number.")
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option("--spec", help="Cell specification where the shift names one only: a name or a file."),
    ] = None,
    draft: Annotated[
        bool, typer.Option("--draft", help="Write drafts, which are no passports; also of simulated results.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write what is known of each cell and pack as JSON, mapped to the EU battery passport.

    docs/reference/passport.md shows the mapping.
    """
    check_folder("--output", output)
    with Ledger.open(ledger, read_only=True) as book:
        found = collect(book, shift)
        if not found.cells and book.unreadable:
            raise LedgerError(f"{book.name}: there is no cell to write a passport of: {book.unreadable[0]}")
        selection = _select(found, book.name, battery_id, pack_id)
        if not draft:
            _refuse_unless_real(selection.cells, book.name)
        sources, notes = _sources(book, selection.cells, spec)
    notes += _same_codes(selection.cells)
    written = Written(output, DRAFT if draft else ISSUED, skipped=selection.skipped, notes=notes)
    _write_all(selection, sources, written, force)
    if as_json:
        write_json(written.to_dict())
    else:
        _print(written)
    end_if_incomplete(book.name, book.unreadable)


# ---- which cells and packs ----


def _select(found: Selection, ledger: str, battery_id: str | None, pack_id: str | None) -> Selection:
    if battery_id is not None and pack_id is not None:
        raise ConfigurationError("--id, --pack", ["give one of the two: a pack is written with its cells"])
    if battery_id is not None:
        cells = [cell for cell in found.cells if cell.battery_id == battery_id]
        _refuse_unless_found(cells, battery_id, [cell.battery_id for cell in found.cells], found, ledger)
        return Selection(cells, [], found.pack_of)
    if pack_id is not None:
        packs = [pack for pack in found.packs if pack.pack_id == pack_id]
        _refuse_unless_found(packs, pack_id, [pack.pack_id for pack in found.packs], found, ledger)
        return Selection(list(packs[0].cells), packs, found.pack_of)
    if not found.cells:
        why = ", ".join(f"{count} {reason}" for reason, count in Counter(found.skipped.values()).items())
        raise NoCellError(f"{ledger}: there is no cell to write a passport of: {why or 'none came in'}")
    return found


def _refuse_unless_found(
    chosen: Sequence[object], name: str, known: list[str], found: Selection, ledger: str
) -> None:
    if chosen:
        return
    if name in found.skipped:
        raise NoCellError(f"{ledger}: {name} gets no passport: {found.skipped[name]}")
    few = suggest(name, known) if len(known) <= SHOWN else f"there are {len(known)}, such as {known[0]}"
    raise NoCellError(f"{ledger}: there is no {name}; {few}")


def _refuse_unless_real(cells: Sequence[Dossier], ledger: str) -> None:
    """Nothing is issued where any of the cells may not be real: half an export is easily taken for a whole one."""
    reasons: Counter[str] = Counter()
    concerned = 0
    simulated = False
    for cell in cells:
        by = cell.simulated_by()
        found = [*by, *cell.untraceable()]
        reasons.update(found)
        concerned += bool(found)
        simulated = simulated or bool(by)
    if not concerned:
        return
    lines = "\n".join(f"  - {reason}: {count} of them" for reason, count in reasons.most_common(SHOWN))
    verb = "came from simulated devices" if simulated else "can't be shown to come from real devices"
    raise NotIssuedError(
        f"{ledger}: results of {concerned} of {len(cells)} cells {verb}, and no passport is issued of such:\n"
        f"{lines}\nChoose other cells with --shift, --id or --pack; or write drafts, which are no passports, with "
        "--draft"
    )


def _same_codes(cells: Sequence[Dossier]) -> list[str]:
    """A remark for each code that was read on more than one cell."""
    owners: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        for code in cell.codes if cell.same_code else ():
            owners[code] |= {cell.battery_id, *cell.same_code}
    return [
        f"the code {code} was read on {len(names)} cells, so it stands in the passport of none: "
        f"{', '.join(sorted(names)[:SHOWN])}{' and more' if len(names) > SHOWN else ''}. "
        "The same cell came twice, or two cells bear one code: see `battery-sorting items LEDGER --id CELL`"
        for code, names in owners.items()
    ]


# ---- what the ledger doesn't hold itself ----


def _sources(book: Ledger, cells: Sequence[Dossier], spec: str | None) -> tuple[Sources, list[str]]:
    measured_in: dict[int, list[Dossier]] = defaultdict(list)
    present_in: dict[int, list[Dossier]] = defaultdict(list)
    shifts: dict[int, Shift] = {}
    for cell in cells:
        measured_in[cell.shift.shift_id].append(cell)
        for shift in cell.shifts:
            shifts[shift.shift_id] = shift
            present_in[shift.shift_id].append(cell)
    specifications = {}
    for number, shift in shifts.items():
        specification = _specification(shift, measured_in[number] or present_in[number], spec)
        if specification is not None:
            specifications[number] = specification
    notes = list(dict.fromkeys(each.problem for each in specifications.values() if each.problem))
    return Sources(specifications, _model_sums(book, cells)), notes


def _specification(shift: Shift, cells: Sequence[Dossier], named: str | None) -> Specification | None:
    held = specification_in(shift)
    if held is not None:
        return held
    measuring = ((shift.config.get("recipe") or {}).get("measuring")) or {}
    name = named or measuring.get("spec")
    if not name:
        return None
    specification = specification_from_file(str(name), cells)
    if named and specification.problem:
        raise ConfigurationError(f"--spec {named}", [specification.problem])
    return specification


def _model_sums(book: Ledger, cells: Sequence[Dossier]) -> dict[str, tuple[str, str]]:
    """Name of each model that looked at the cells → SHA-256 of its weights and where that was read."""
    sums: dict[str, tuple[str, str]] = {}
    for event in book.events(kinds=[EventKind.MODEL_CHANGED]):
        if event.payload.get("sha256"):
            sums[str(event.payload["model"])] = (str(event.payload["sha256"]), "ledger")
    folders: dict[str, set[str]] = {}
    for cell in cells:
        for event in cell.events:
            name = str(event.payload.get("model") or "") if event.kind is EventKind.LOOKED else ""
            if name and name not in sums:
                models = (cell.shift.config.get("site") or {}).get("models") or {}
                folder = models.get(event.payload.get("view"))
                folders.setdefault(name, set()).update({str(folder)} if folder else set())
    for name, candidates in folders.items():
        sha256 = next(filter(None, (_sum_in(folder, name) for folder in sorted(candidates))), "")
        if sha256:
            sums[name] = (sha256, "card of the model's folder, read at the export")
    return sums


def _sum_in(folder: str, name: str) -> str:
    """SHA-256 of the model in this folder, if it is the one of this name; else empty."""
    from battery_sorting.core.active_model import find_model
    from battery_sorting.vision.defect_card import read_defect_card

    try:
        card = read_defect_card(find_model(folder))
    except (ModelError, ConfigurationError):
        return ""
    return card.sha256 if f"{card.name}/{card.version}" == name else ""


# ---- writing ----


def _write_all(selection: Selection, sources: Sources, written: Written, force: bool) -> None:
    """Writes everything beside its place, and moves it there when all of it is good."""
    from battery_sorting.cli._progress import progress

    folder, draft = written.folder, written.status == DRAFT
    targets = [
        *(f"{CELLS}/{file_name(cell.battery_id, written.status)}" for cell in selection.cells),
        *(f"{PACKS}/{file_name(pack.pack_id, written.status)}" for pack in selection.packs),
    ]
    _refuse_to_overwrite(folder, targets, force)
    of_cells, of_packs = validator("cell"), validator("pack")
    part = _new_folder(folder)
    try:
        for cell in progress("cells", selection.cells):
            document = _cell(cell, selection, sources, draft)
            check_form(document, of_cells)
            written.cells.append(_put(part, CELLS, cell.battery_id, document))
        for pack in progress("packs", selection.packs) if selection.packs else ():
            document = _pack(pack, selection, sources, draft)
            check_form(document, of_packs)
            written.packs.append(_put(part, PACKS, pack.pack_id, document))
        for target in targets:
            (folder / target).parent.mkdir(exist_ok=True)
            (part / target).replace(folder / target)
    except OSError as error:
        raise ConfigurationError(
            str(folder), [f"can't be written ({error.strerror}): name another folder"]
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refuse_to_overwrite(folder: Path, targets: Sequence[str], force: bool) -> None:
    there = [] if force else [target for target in targets if (folder / target).exists()]
    if there:
        more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
        problem = (
            f"{', '.join(there[:SHOWN])}{more} is there already: name another folder, or overwrite with --force"
        )
        raise ConfigurationError(str(folder), [problem])


def _new_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
        for name in (CELLS, PACKS):
            (part / name).mkdir()
    except OSError as error:
        raise ConfigurationError(str(folder), [f"can't be made ({error.strerror}): name another folder"]) from error
    return part


def _put(part: Path, kind: str, name: str, document: Document) -> str:
    target = f"{kind}/{file_name(name, document['status'])}"
    (part / target).write_bytes(render(document))
    return target


def _cell(cell: Dossier, selection: Selection, sources: Sources, draft: bool) -> Document:
    document = cell_passport(cell, sources, selection.pack_of.get(cell.battery_id, ""))
    return as_draft(document, *_drafted([cell])) if draft else document


def _pack(pack: Pack, selection: Selection, sources: Sources, draft: bool) -> Document:
    cells = [_cell(cell, selection, sources, draft) for cell in pack.cells]
    document = pack_passport(pack, cells, sources)
    return as_draft(document, *_drafted(pack.cells)) if draft else document


def _drafted(cells: Sequence[Dossier]) -> tuple[list[str], bool]:
    """Why these results are a draft only, and whether they are simulated."""
    simulated = [reason for cell in cells for reason in cell.simulated_by()]
    doubts = [reason for cell in cells for reason in cell.untraceable()]
    return list(dict.fromkeys([*simulated, *doubts])) or ["a draft was asked for"], bool(simulated)


# ---- printing ----


def _print(written: Written) -> None:
    kind = "drafts, which are no passports," if written.status == DRAFT else "passports"
    say(f"{written.folder}: {kind} of {len(written.cells)} cells and {len(written.packs)} packs")
    if written.skipped:
        table = Table("left out because", "number", title="not written")
        table.columns[1].justify = "right"
        for reason, count in _counted(written.skipped):
            table.add_row(reason, str(count))
        show(table)
    for note in written.notes:
        say(f"note: {note}")


def _counted(skipped: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    yield from Counter(skipped.values()).most_common()

"""`battery-sorting review`: the batteries of a shift that a person should label, as a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from battery_sorting.belt.report import Run
from battery_sorting.cli._destinations import check_folder
from battery_sorting.cli._exit import NothingFoundError
from battery_sorting.cli._ledger import ImagesOption, ModelOption, end_if_incomplete
from battery_sorting.cli._output import say, show, write_json
from battery_sorting.cli._progress import passing_bar
from battery_sorting.core.beside import refuse_occupied
from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.ledger import BatteryRecord, EventKind
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.reporting import find_shift
from battery_sorting.report.kept_pictures import KeptPictures
from battery_sorting.report.vision.cases import model_folder
from battery_sorting.vision.classifier import TypeClassifier
from battery_sorting.vision.gallery import unit_length
from battery_sorting.vision.pictures import decode_picture
from battery_sorting.vision.review import LabelCandidate, choose, find_candidates, verdicts_on_record, write_review

POOL = 4
"""So many times as many pictures as are wanted are looked at, to choose different ones of them."""


GIVE_UP = 200
"""After so many batteries of which none has a picture there will be none."""


@dataclass
class Export:
    """What was looked at and why so much of it was left out."""

    candidates: int = 0
    looked_at: int = 0
    duplicates: int = 0
    without_picture: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Looked:
    """A candidate with the bytes of its picture and its embedding, where the model gives one."""

    candidate: LabelCandidate
    content: bytes
    embedding: np.ndarray | None


def review(
    ledger: Annotated[str, typer.Argument(help="Ledger: path of the file, or postgresql://…")],
    out: Annotated[Path, typer.Option(help="New folder for the pictures to be labelled.")],
    limit: Annotated[int, typer.Option(min=1, max=2000, help="At most so many pictures.")] = 50,
    shift: Annotated[int | None, typer.Option(help="Number of the shift; the last one by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    model: ModelOption = None,
    images: ImagesOption = None,
) -> None:
    """Export the uncertain, novel and overruled batteries of a shift as a folder to be labelled."""
    check_folder("--out", out)
    refuse_occupied(out)
    with Ledger.open(ledger, read_only=True) as book:
        chosen_shift = find_shift(book, shift)
        number = chosen_shift.shift_id
        run = Run(chosen_shift, book.batteries(number), ())
        typed = verdicts_on_record(book.each_event(number, kinds=[EventKind.TYPED]))
        shadow = verdicts_on_record(book.each_event(number, kinds=[EventKind.SHADOW_TYPED]), EventKind.SHADOW_TYPED)
        candidates = find_candidates(run.batteries, typed, run.routes, shadow)
        if not candidates:
            end_if_incomplete(book.name, book.unreadable)
            raise NothingFoundError(
                f"{book.name}: shift {number} has no uncertain, novel or overruled battery to review"
            )
        export = Export(candidates=len(candidates))
        look = _Look.start(run, typed, KeptPictures(book, images), model, export)
        looked = list(look.at_first(candidates, POOL * limit))
    if not looked:
        raise ConfigurationError(
            book.name,
            [
                "none of the batteries has a picture that can be read: keep them with 'images: {keep: all}' in the "
                "site file, or name their folder with --images"
            ],
        )
    chosen, export.duplicates = choose([each.candidate for each in looked], _embeddings(looked), limit)
    pictures = [(looked[n].candidate, looked[n].content) for n in chosen]
    rows = write_review(out, pictures, look.types())
    if as_json:
        write_json(vars(export) | {"folder": str(out), "shift": run.shift.shift_id, "exported": rows})
    else:
        _print(out, rows, export)
    end_if_incomplete(book.name, book.unreadable)


@dataclass(frozen=True, slots=True)
class _Look:
    """Looks at kept pictures once more, with the model that decided or another one."""

    run: Run
    decided: str
    kept: KeptPictures
    classifier: TypeClassifier | None
    export: Export

    @classmethod
    def start(
        cls,
        run: Run,
        typed: Mapping[str, Mapping[str, Any]],
        kept: KeptPictures,
        model: Path | None,
        export: Export,
    ) -> _Look:
        decided = next((str(payload["model"]) for payload in typed.values() if payload.get("model")), "")
        classifier = None
        try:
            classifier = TypeClassifier(model or model_folder(decided, run.shift))
        except ConfigurationError as error:
            export.notes.append(f"{error.source} {error.problems[0]}: near-duplicates were not looked for")
        return cls(run, decided, kept, classifier, export)

    def types(self) -> list[str]:
        """Labels that a battery may be given."""
        return self.classifier.card.types if self.classifier is not None else sorted(self.run.routes)

    def at_first(self, candidates: Sequence[LabelCandidate], wanted: int) -> Iterator[_Looked]:
        """Looks at the first candidates that have a picture, until there are as many as wanted."""
        batteries = {battery.battery_id: battery for battery in self.run.batteries}
        wanted = min(wanted, len(candidates))
        for candidate in passing_bar("looking at pictures", candidates, wanted):
            nothing = self.export.looked_at == 0 and self.export.without_picture >= GIVE_UP
            if nothing or self.export.looked_at == wanted:
                return
            try:
                looked = self._at(candidate, batteries[candidate.battery_id])
            except FrameError:
                self.export.without_picture += 1
                continue
            self.export.looked_at += 1
            yield looked

    def _at(self, candidate: LabelCandidate, battery: BatteryRecord) -> _Looked:
        content = self.kept.read(battery)
        if self.classifier is None:
            return _Looked(candidate, content, None)
        said = self.classifier.classify(decode_picture(content))
        if said.label and self.classifier.name != self.decided:  # else the record says it better: no JPEG between
            candidate = replace(candidate, label=said.label, confidence=said.confidence, novelty=said.novelty)
        return _Looked(candidate, content, said.embedding)


def _embeddings(looked: list[_Looked]) -> np.ndarray | None:
    """(n, d), unit length; None where the model gives none."""
    embeddings = [each.embedding for each in looked if each.embedding is not None]
    return unit_length(np.stack(embeddings)) if len(embeddings) == len(looked) else None


def _print(out: Path, rows: list[dict[str, str]], export: Export) -> None:
    table = Table("why", "pictures", title=f"{len(rows)} pictures to label in {out}")
    table.columns[1].justify = "right"
    for reason, count in Counter(row["reason"] for row in rows).most_common():
        table.add_row(reason.replace("_", " "), str(count))
    show(table)
    say(
        f"{export.candidates} batteries were worth a look, {export.looked_at} pictures of them looked at; left "
        f"out: {export.duplicates} near-duplicates, {export.without_picture} without a picture"
    )
    for note in export.notes:
        say(f"note: {note}")
    say(f"how to label: {out / 'README.txt'}")

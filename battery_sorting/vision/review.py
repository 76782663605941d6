"""Which batteries a person should label, the folder in which that is done, and what comes back of it.

Ranked by margin sampling (Scheffer et al., *Active Hidden Markov Models for Information Extraction*, IDA 2001) and
by novelty; chosen by farthest-first traversal (Gonzalez, *Clustering to Minimize the Maximum Intercluster
Distance*, 1985; for labelling: Sener and Savarese, ICLR 2018), so that a batch shows many things once rather than
one thing often.
"""

from __future__ import annotations

import csv
import logging
import math
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from battery_sorting.core.bounded import MIB, read_text
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.names import file_stem, is_name
from battery_sorting.core.settings import suggest
from battery_sorting.core.types import OTHERS, Reason
from battery_sorting.ledger import BatteryRecord, Event
from battery_sorting.ledger.events import TypeVerdict
from battery_sorting.vision.picture_folders import WITHOUT_PICTURES, find_pictures
from battery_sorting.vision.pictures import clean_name, picture_files

log = logging.getLogger(__name__)

VerdictT = TypeVar("VerdictT", bound=TypeVerdict)

UNSURE_FOLDER = "_unsure"
OTHER_FOLDER = "Other"
TABLE_FILE = "review.csv"
README_FILE = "README.txt"
COLUMNS = ("file", "battery_id", "suggested_label", "confidence", "novelty", "reason", "label")
LARGEST_TABLE = 64 * MIB
LEAVE_OUT = "-"
"""Written as a label: the picture is not to be learned from."""

MODELS_DIFFER = "models_differ"
STRANGE = frozenset({str(Reason.UNKNOWN_TYPE), str(Reason.NO_SINGLE_BATTERY)})
SMALL_MARGIN = 0.5
"""An accepted battery whose two best types are closer than this is worth a look."""
NOVEL_SHARE = 0.05
"""So many of the accepted batteries, the most novel ones, are worth a look."""
SAME_PICTURE = 0.9
"""Cosine of the embeddings from which two pictures tell a person the same. Batteries of one type on a belt come to
0.74 (median) and 0.92 (the most similar hundredth), those of different types hardly ever above 0.9."""
LEAST_SUGGESTION = 0.5
"""Below this confidence a battery is not put into the folder of its most probable type."""

_NOT_SEEN = frozenset({Reason.BAD_IMAGE, Reason.NO_IMAGE, Reason.NO_DECISION})


@dataclass(frozen=True, slots=True)
class LabelCandidate:
    """A battery that a person might label.

    Attributes:
        battery_id: Its id.
        label: Most probable type; empty: none is suggested.
        confidence: Of that type, 0..1.
        uncertainty: 1 minus the distance of the two best probabilities, 0..1.
        novelty: As on record; NaN where there is none.
        novelty_rank: Share of the shift's batteries that are less novel, 0..1.
        reasons: Why it is worth a look: ``unknown_type``, ``no_single_battery``, ``low_confidence``,
            ``small_margin``, ``novel``, ``overruled:REASON``, ``models_differ``.
    """

    battery_id: str
    label: str
    confidence: float
    uncertainty: float
    novelty: float
    novelty_rank: float
    reasons: tuple[str, ...]

    @property
    def overruled(self) -> bool:
        """Whether it went elsewhere than its type does."""
        return any(reason.startswith("overruled") for reason in self.reasons)

    @property
    def priority(self) -> float:
        """How much a person's word on it is worth, 0..1."""
        unlike = {"novel", *STRANGE} & set(self.reasons)
        telling = self.overruled or {MODELS_DIFFER, *STRANGE} & set(self.reasons)
        at_least = 0.5 if telling else 0.0
        return max(self.uncertainty, self.novelty_rank if unlike else 0.0, at_least)

    @property
    def folder(self) -> str:
        """Sub-folder into which it is exported."""
        unknown = not is_name(self.label) or self.label == OTHERS or bool(STRANGE & set(self.reasons))
        return UNSURE_FOLDER if unknown or not self.confidence >= LEAST_SUGGESTION else self.label


@dataclass(frozen=True, slots=True)
class ReviewedPicture:
    """A picture, the label that a person gave it, and its battery (empty for a file that was added by hand)."""

    path: Path
    label: str
    battery_id: str = ""


def verdicts_on_record(events: Iterable[Event[VerdictT]]) -> dict[str, VerdictT]:
    """The verdict on each battery, by its id.

    Of the scores, the two largest are kept, since a shift may have very many batteries.
    """
    return {
        event.battery_id: replace(event.data, scores=_two_best(event.data.scores))
        for event in events
        if event.battery_id is not None
    }


def _two_best(scores: Mapping[str, float | None]) -> dict[str, float | None]:
    known = {label: score for label, score in scores.items() if score is not None}  # NaN is null
    return {sys.intern(label): known[label] for label in sorted(known, key=lambda label: -known[label])[:2]}


def margin_uncertainty(scores: Mapping[str, float | None]) -> float:
    """1 minus the distance of the two best probabilities, 0..1; 0 for fewer than two labels that have one."""
    known = sorted(score for score in scores.values() if score is not None)
    if len(known) < 2:
        return 0.0
    second, first = known[-2:]
    return 1.0 - (first - second)


def find_candidates(
    batteries: Sequence[BatteryRecord],
    typed: Mapping[str, TypeVerdict],
    routes: Mapping[str, str],
    shadow: Mapping[str, TypeVerdict] = MappingProxyType({}),
) -> list[LabelCandidate]:
    """The batteries of a shift that are worth a look, the most valuable first.

    Args:
        batteries: As the ledger has them.
        typed: Battery id to the classifier's verdict on record.
        routes: Type to bin.
        shadow: The same as ``typed`` of a model that looked on. Where two models differ, one of them is wrong
            (Seung et al., *Query by Committee*, COLT 1992).
    """
    seen = [battery for battery in batteries if battery.battery_id in typed and _was_seen(battery)]
    novelty = {battery.battery_id: _novelty(typed[battery.battery_id]) for battery in seen}
    known = np.sort([value for value in novelty.values() if math.isfinite(value)])
    accepted = [novelty[battery.battery_id] for battery in seen if battery.accepted]
    novel_from = _upper_quantile([value for value in accepted if math.isfinite(value)], NOVEL_SHARE)
    found = []
    for battery in seen:
        own = novelty[battery.battery_id]
        uncertainty = margin_uncertainty(typed[battery.battery_id].scores)
        reasons = _reasons(battery, uncertainty, own >= novel_from, routes)
        if _differs(battery, shadow.get(battery.battery_id)):
            reasons = (*reasons, MODELS_DIFFER)
        if reasons:
            rank = float(np.searchsorted(known, own) / len(known)) if math.isfinite(own) else 0.0
            confidence = math.nan if battery.confidence is None else battery.confidence
            label = battery.label or ""
            found.append(LabelCandidate(battery.battery_id, label, confidence, uncertainty, own, rank, reasons))
    return sorted(found, key=lambda candidate: (-candidate.priority, candidate.battery_id))


def choose(
    candidates: Sequence[LabelCandidate], embeddings: np.ndarray | None, limit: int, same: float = SAME_PICTURE
) -> tuple[list[int], int]:
    """Which candidates to label: valuable ones that differ from each other.

    The first is the most valuable; each further one is that whose priority times distance (1 − cosine) from those
    chosen before is the largest.

    Args:
        candidates: The most valuable first.
        embeddings: (n, d), unit length, one per candidate; None: by priority alone, duplicates are not found.
        limit: At most so many.
        same: Cosine from which two count as the same picture.

    Returns:
        Their numbers in the order of the choice, and how many were left out as duplicates of chosen ones.
    """
    if embeddings is None:
        return list(range(min(limit, len(candidates)))), 0
    priority = np.array([candidate.priority for candidate in candidates])
    nearest = np.full(len(candidates), -1.0)  # cosine to the most similar chosen one
    free = np.ones(len(candidates), bool)
    chosen: list[int] = []
    while len(chosen) < limit and free.any():
        worth = np.where(free, (priority + 1e-6) * (1 - nearest), -np.inf)
        best = int(np.argmax(worth))
        chosen.append(best)
        free[best] = False
        nearest = np.maximum(nearest, embeddings @ embeddings[best])
        free &= nearest < same
    left_out = int(((nearest >= same).sum()) - len(chosen))
    return chosen, left_out


def write_review(
    folder: Path, pictures: Iterable[tuple[LabelCandidate, bytes]], types: Sequence[str]
) -> list[dict[str, str]]:
    """Write the folder in which a person labels.

    Args:
        folder: New or empty.
        pictures: Each candidate with the bytes of its picture (JPEG).
        types: Every type gets a sub-folder. What is no name of a folder, as a record from elsewhere may say, gets
            none, and its pictures go to those without a suggestion.

    Returns:
        The rows of its table.

    Raises:
        ConfigurationError: The folder holds something already, or can't be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(str(folder), ["is not empty; name a new folder, so that no review is overwritten"])
    try:
        for name in (*filter(is_name, types), OTHER_FOLDER, UNSURE_FOLDER):
            (folder / name).mkdir(parents=True, exist_ok=True)
        rows = [_export(folder, *picture) for picture in pictures]
        with (folder / TABLE_FILE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        (folder / README_FILE).write_text(_README, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            str(folder), [f"can't be written ({error.strerror}); name another folder"]
        ) from error
    return rows


def reviewed_pictures(folder: Path) -> list[ReviewedPicture]:
    """What a person made of a folder that `write_review` wrote, or of any folder with a sub-folder per type.

    A label in ``review.csv`` counts, else the sub-folder in which the picture lies. Pictures in ``_unsure`` without
    a label in the table, and those labelled ``-``, are left out; so are those that were deleted.

    Raises:
        ConfigurationError: No such folder; nobody has reviewed it; a picture was moved into one folder and
            labelled as something else; a label without a folder or without its file. All problems are named.
    """
    if not folder.is_dir():
        raise ConfigurationError(str(folder), ["no such folder; give one made by 'battery-sorting review'"])
    table = _read_table(folder / TABLE_FILE)
    tree = find_pictures(folder)
    marked = [sub for sub in folder.iterdir() if sub.name.startswith("_") and sub.name[1:2] != "_" and sub.is_dir()]
    types = list(tree.types)
    files = sorted([*tree.files, *(file for sub in marked for file in picture_files(sub))])
    _refuse_untouched(folder, table, files)
    problems: list[str] = [*_lost_labels(table, files), *_in_two_folders(table, files)]
    reviewed = []
    for file in files:
        row = table.get(_name(file.name))
        written = clean_name(row["label"]) if row else ""
        lies_in = "" if file.parent.name.startswith("_") else clean_name(file.parent.name)
        moved = row is None or clean_name(Path(row["file"]).parent.name) != clean_name(file.parent.name)
        if written and written != LEAVE_OUT and written not in types:
            problems.append(
                f"{file.name}: label '{written}' has no folder: {suggest(written, types)}; for a new type make one"
            )
        elif written and moved and lies_in and written != lies_in:
            problems.append(f"{file.name}: lies in '{lies_in}' but is labelled '{written}'; undo one of the two")
        label = written or lies_in
        if label and label != LEAVE_OUT:
            reviewed.append(ReviewedPicture(file, label, row["battery_id"] if row else ""))
    if problems:
        raise ConfigurationError(str(folder / TABLE_FILE), problems)
    for remark in tree.remarks:
        if not remark.is_of(UNSURE_FOLDER, TABLE_FILE, README_FILE) and remark.what != WITHOUT_PICTURES:
            log.warning("%s: %s", folder, remark)
    return reviewed


def _was_seen(battery: BatteryRecord) -> bool:
    unseen = battery.type_reason in _NOT_SEEN or battery.reason == Reason.FALSE_TRIGGER
    return bool(battery.label) and not unseen


def _novelty(verdict: TypeVerdict) -> float:
    return math.nan if verdict.novelty is None else verdict.novelty


def _upper_quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, 1 - share)) if values else math.inf


def _reasons(battery: BatteryRecord, uncertainty: float, novel: bool, routes: Mapping[str, str]) -> tuple[str, ...]:
    if not battery.accepted:
        return (battery.type_reason or str(Reason.LOW_CONFIDENCE),)
    reasons = []
    if uncertainty > 1 - SMALL_MARGIN:
        reasons.append("small_margin")
    if novel:
        reasons.append("novel")
    if routes and battery.bin is not None and battery.bin != routes.get(battery.label or "", OTHERS):
        reasons.append(f"overruled:{battery.reason}")
    return tuple(reasons)


def _differs(battery: BatteryRecord, shadow: TypeVerdict | None) -> bool:
    """Whether the shadow model names another type, and one of the two models is sure of its own."""
    if shadow is None or shadow.label in {"", battery.label}:
        return False
    return bool(battery.accepted or shadow.accepted)


def _export(folder: Path, candidate: LabelCandidate, content: bytes) -> dict[str, str]:
    file = f"{candidate.folder}/{file_stem(candidate.battery_id)}.jpg"
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_bytes(content)
    return {
        "file": file,
        "battery_id": candidate.battery_id,
        "suggested_label": candidate.label,
        "confidence": _decimal(candidate.confidence),
        "novelty": _decimal(candidate.novelty),
        "reason": " ".join(candidate.reasons),
        "label": "",
    }


def _decimal(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    """Rows of the table by name of the file; empty where there is no table."""
    try:
        text = read_text(path, LARGEST_TABLE)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(str(path), [f"can't be read ({error}); save it as CSV in UTF-8"]) from error
    lines = text.splitlines()
    # Spreadsheets of some countries separate by semicolon.
    delimiter = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
    rows = list(csv.DictReader(lines, delimiter=delimiter))
    missing = [name for name in ("file", "battery_id", "label") if not rows or rows[0].get(name) is None]
    if missing and len(lines) > 1:
        raise ConfigurationError(
            str(path), [f"has no column '{name}'; its head is {','.join(COLUMNS)}" for name in missing]
        )
    return {
        _name(Path(row["file"]).name): {name: (row[name] or "").strip() for name in ("file", "battery_id", "label")}
        for row in rows
    }


def _refuse_untouched(folder: Path, table: Mapping[str, Mapping[str, str]], files: Sequence[Path]) -> None:
    """The model must not learn its own guesses."""
    as_exported = {_name(row["file"]) for row in table.values()}
    lie = {_name(file.relative_to(folder).as_posix()) for file in files}
    if table and lie == as_exported and not any(row["label"] for row in table.values()):
        raise ConfigurationError(
            str(folder),
            [
                "nobody has reviewed it: no picture was moved, deleted or labelled; see its README.txt. Where "
                f"every suggestion is right, delete {TABLE_FILE}: then the folders alone count"
            ],
        )


def _in_two_folders(table: Mapping[str, Mapping[str, str]], files: Sequence[Path]) -> list[str]:
    """Pictures that were copied where they were to be moved: the model would learn both labels."""
    places: dict[str, list[str]] = {}
    for file in files:
        if _name(file.name) in table:
            places.setdefault(file.name, []).append(file.parent.name)
    return [
        f"{name}: lies in {' and in '.join(repr(folder) for folder in folders)}; delete it from all but one"
        for name, folders in places.items()
        if len(folders) > 1
    ]


def _name(text: str) -> str:
    """A file's name, however a file system writes its accents."""
    return unicodedata.normalize("NFC", text)


def _lost_labels(table: Mapping[str, Mapping[str, str]], files: Sequence[Path]) -> list[str]:
    there = {_name(file.name) for file in files}
    return [
        f"{name}: is labelled '{row['label']}', but there is no file of this name; pictures keep their names"
        for name, row in table.items()
        if row["label"] not in ("", LEAVE_OUT) and name not in there
    ]


_README = f"""\
Pictures of batteries that the model was unsure of, to be labelled by a person.

Each lies in the folder of the type that the model suggests; {UNSURE_FOLDER} holds those without a suggestion.
Do either, or both:

1. Look through the folders. Move a picture that lies in the wrong one into the right one. What stays in a type's
   folder counts as that type. A brand that is no type of yours belongs into {OTHER_FOLDER}. For a new type make a
   folder of its name.
2. Or open {TABLE_FILE} and write the type into the column 'label'. That counts more than the folder into which the
   picture was exported; a picture that was moved and labelled differently is refused. '{LEAVE_OUT}' leaves a
   picture out.

Delete what can't be told, or leave it in {UNSURE_FOLDER}. Keep the names of the files: they are the batteries' ids.
Then make the next version of the model:

    battery-sorting train type --base models/battery_type/1 --add THIS_FOLDER --out models/battery_type/2
"""

"""What is wrong with a folder of labelled pictures: files that can't be read, copies, labels that contradict."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.deep_pictures import camera_bits
from battery_sorting.vision.picture_folders import (
    SYSTEM_FILES,
    SYSTEM_FOLDERS,
    WITHOUT_PICTURES,
    PictureFolders,
    find_pictures,
)
from battery_sorting.vision.pictures import Photograph, is_ending_of, label_of_folder, picture_format, read_picture
from battery_sorting.vision.training.backbone import SAME_SHOOT
from battery_sorting.vision.training.corrections import Correction, Corrections, file_key
from battery_sorting.vision.training.head import HeadOptions, assign_folds, fit_fast_head, group_near_duplicates
from battery_sorting.vision.training.progress import Progress
from battery_sorting.vision.training.views import PLAIN, TURNED, ViewTable

FOLDS = 5
SAME_PICTURE = 0.97
"""Cosine above which two files show the same picture, scaled or compressed anew."""

Look = Callable[[np.ndarray], "tuple[np.ndarray, np.ndarray]"]
"""Features (v, d) and colour histograms (v, k) of v views of a picture (uint8 RGB); the first shows it as it is.

Raises `FrameError` for a picture that can't be used.
"""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A picture that can't be used, and why."""

    file: str
    why: str


@dataclass(frozen=True, slots=True)
class WrongEnding:
    """A picture whose content isn't what its ending says. It is read all the same."""

    file: str
    format: str


@dataclass(frozen=True, slots=True)
class Alike:
    """Pictures that show the same, and their labels.

    Attributes:
        files: At least two.
        labels: Of each.
        cosine: Least similarity of one to the most similar other; 1 for copies.
    """

    files: list[str]
    labels: list[str]
    cosine: float = 1.0

    @property
    def contradict(self) -> bool:
        """Whether their labels differ."""
        return len(set(self.labels)) > 1


@dataclass(frozen=True, slots=True)
class Suspect:
    """A picture that looks like another type than its label says.

    Attributes:
        file: FOLDER/NAME.
        label: What it is called.
        suggested: What it looks like to a model that has not seen it.
        confidence: Probability of ``suggested``.
        own: Probability of ``label``.
        confident: Whether confident learning counts it as wrong, too, see `confidently_other`.
        like: The most similar picture with the label ``suggested``.
    """

    file: str
    label: str
    suggested: str
    confidence: float
    own: float
    confident: bool
    like: str


@dataclass(frozen=True, slots=True)
class LabelCheck:
    """All findings on a folder.

    Attributes:
        types: Number of readable pictures of each label.
        unreadable: Left out of everything else.
        endings: WEBP under .jpg and the like.
        ignored: Files that are not looked at, for their ending or their place; those of systems are not named.
        remarks: What is left out of the folder or odd about its folders, each with its number, names and remedy.
        empty: Folders without pictures.
        single: Labels with one picture: it can train or be judged by, not both.
        unjudged: Labels whose pictures all show the same, so that suspects among them can't be found.
        copies: The same bytes.
        near: Near-duplicates of one label, beside copies: on one side of a split, or figures flatter.
        across: Pairs of near-duplicates under different labels; many are two types photographed alike.
        suspects: Labels that look wrong, the worst first.
    """

    types: dict[str, int] = field(default_factory=dict)
    unreadable: list[Unreadable] = field(default_factory=list)
    endings: list[WrongEnding] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    single: list[str] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    copies: list[Alike] = field(default_factory=list)
    near: list[Alike] = field(default_factory=list)
    across: list[Alike] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)

    @property
    def pictures(self) -> int:
        """Those that can be read."""
        return sum(self.types.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = asdict(self) | {"pictures": self.pictures}
        for name in ("copies", "near", "across"):
            for row, group in zip(rows[name], getattr(self, name), strict=True):
                row["contradict"] = group.contradict
        return rows

    def proposals(self) -> list[Correction]:
        """What to do about the findings, for a person to go through.

        Decided are only the clear cases: what can't be read, and copies but one, are dropped; so are all copies of
        a picture that stands under two labels, since a contradiction teaches worse than nothing. Suspects are kept
        as they are, with the suggested label beside: a person turns ``keep`` into ``relabel`` or ``drop``.
        """
        found: dict[str, Correction] = {}
        for bad in self.unreadable:
            found[bad.file] = Correction(bad.file, "drop", "", f"can't be read: {bad.why}", 1.0)
        for group in self.copies:
            for file in group.files if group.contradict else group.files[1:]:
                rest = ", ".join(other for other in group.files if other != file)
                wrong = "; one of the labels is wrong" if group.contradict else ""
                found.setdefault(file, Correction(file, "drop", "", f"same file as {rest}{wrong}", 1.0))
        for suspect in self.suspects:
            reason = f"looks like {suspect.like}; set relabel or drop if the label is wrong"
            proposal = Correction(suspect.file, "keep", suspect.suggested, reason, suspect.confidence)
            found.setdefault(suspect.file, proposal)
        for group in self.across:
            for file in group.files if group.cosine > SAME_PICTURE else ():
                rest = ", ".join(other for other in group.files if other != file)
                reason = f"nearly the same picture as {rest}, under another label; set relabel or drop"
                found.setdefault(file, Correction(file, "keep", "", reason, group.cosine))
        return list(found.values())


def check_labels(
    folder: Path,
    look: Look,
    progress: Progress,
    corrections: Corrections | None = None,
) -> LabelCheck:
    """Look for everything that `LabelCheck` holds in the pictures of ``folder``, one sub-folder per type.

    A suspect is taken for another type by a model which has seen neither it nor a near-duplicate of it; those that
    confident learning is sure of come first. Pictures of no type are left out of that: what has nothing in common
    can't be learnt, and taught as one more type it hid every label error of BatSort that is found without it.

    Args:
        folder: Pictures, one sub-folder per type.
        look: Features of a picture.
        progress: Shows how far it got.
        corrections: What is known already: labels are taken as corrected, and what was decided is no suspect again.

    Raises:
        ConfigurationError: No such folder, or nothing in it can be read.
    """
    if not folder.is_dir():
        raise ConfigurationError(str(folder), ["no such folder; give one with a sub-folder per battery type"])
    tree = find_pictures(folder)
    bits = camera_bits(tree.files)
    photographs = [Photograph(file, label_of_folder(name)) for name, files in tree.types.items() for file in files]
    corrections = corrections or Corrections()
    seen = _read(corrections.apply(photographs), look, bits, progress)
    if not seen.files:
        problem = f"none of its {len(seen.unreadable)} pictures can be read; expected TYPE/*.jpg"
        raise ConfigurationError(str(folder), [problem, *map(str, tree.remarks)])
    return _findings(tree, seen, {entry.file for entry in corrections})


@dataclass(frozen=True, slots=True)
class _Readable:
    """The pictures that can be read, one after the other, and what is wrong with files.

    Attributes:
        files: FOLDER/NAME.
        labels: Of each.
        features: Of each, (v, d) of its views.
        colours: Of each, (v, k) of its views.
        digests: SHA-256 of each file.
        unreadable: The pictures that can't be read.
        endings: Those whose ending is wrong.
    """

    files: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    colours: list[np.ndarray] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    endings: list[WrongEnding] = field(default_factory=list)


def _read(photographs: list[Photograph], look: Look, bits: int | None, progress: Progress) -> _Readable:
    seen = _Readable()
    for photograph in progress("pictures", photographs):
        file = file_key(photograph.path)
        try:
            features, colours = look(read_picture(photograph.path, bits))
            digest = hashlib.sha256(photograph.path.read_bytes()).hexdigest()
        except (FrameError, OSError) as error:
            seen.unreadable.append(Unreadable(file, str(error).removeprefix(f"{photograph.path}: ")))
            continue
        kind = picture_format(photograph.path)
        if not is_ending_of(photograph.path, kind):
            seen.endings.append(WrongEnding(file, kind))
        seen.files.append(file)
        seen.labels.append(photograph.label)
        seen.features.append(features)
        seen.colours.append(colours)
        seen.digests.append(digest)
    return seen


def _findings(tree: PictureFolders, seen: _Readable, decided: set[str]) -> LabelCheck:
    """What is found in the pictures; those that are ``decided`` are no suspects."""
    files, labels = seen.files, seen.labels
    embedding = _unit(np.stack([rows[0] for rows in seen.features]))
    groups = group_near_duplicates(embedding)
    copies = _copies(files, labels, seen.digests)
    judged = _labels_with_several(labels, groups)
    suspects = _suspects(seen, embedding, groups, judged)
    return LabelCheck(
        types={label: labels.count(label) for label in sorted(set(labels))},
        unreadable=seen.unreadable,
        endings=seen.endings,
        ignored=_ignored(tree),
        remarks=[str(remark) for remark in tree.remarks],
        empty=[name for name, found in tree.types.items() if not found],
        single=sorted(label for label in set(labels) if labels.count(label) == 1),
        unjudged=sorted(label for label in set(labels) - judged - {OTHERS} if labels.count(label) > 1),
        copies=copies,
        near=_near(files, labels, embedding, {file for group in copies for file in group.files[1:]}),
        across=_across(files, labels, embedding, {file for group in copies for file in group.files}),
        suspects=[suspect for suspect in suspects if suspect.file not in decided],
    )


def confidently_other(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Rows that confident learning counts as wrongly labelled (Northcutt et al. 2021, equations 1 and 2).

    A row counts for the label of which it is at least as sure as the pictures of that label are on average; if
    there are several, for the most probable.

    Args:
        labels: int (n,), 0..k-1, each of which occurs.
        probabilities: (n, k), of a model that has not seen the row.

    Returns:
        bool (n,).
    """
    average = np.array([probabilities[labels == k, k].mean() for k in range(probabilities.shape[1])])
    above = np.where(probabilities >= average, probabilities, -1.0)
    return np.asarray((above.max(axis=1) >= 0) & (above.argmax(axis=1) != labels))


def _ignored(tree: PictureFolders) -> list[str]:
    missed = [
        remark
        for remark in tree.remarks
        if remark.left_out and remark.what not in (SYSTEM_FOLDERS, SYSTEM_FILES, WITHOUT_PICTURES)
    ]
    return sorted(name for remark in missed for name in remark.names)


def _labels_with_several(labels: list[str], groups: np.ndarray) -> set[str]:
    """Types whose pictures show at least two different things, so that one can stand for another."""
    shown: dict[str, set[int]] = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        shown[label].add(int(group))
    return {label for label, own in shown.items() if len(own) > 1 and label != OTHERS}


def _suspects(seen: _Readable, embedding: np.ndarray, groups: np.ndarray, judged: set[str]) -> list[Suspect]:
    if len(judged) < 2:
        return []
    files, labels = seen.files, seen.labels
    names = tuple(sorted(judged))
    rows = [n for n, label in enumerate(labels) if label in judged]
    own = np.array([names.index(labels[n]) for n in rows])
    views, owner = _views(
        [seen.features[n] for n in rows], [seen.colours[n] for n in rows], [labels[n] for n in rows]
    )
    probabilities = _out_of_fold(views, owner, own, groups[rows], names)
    best = probabilities.argmax(axis=1)
    confident = confidently_other(own, probabilities)
    suspects = []
    for row in np.flatnonzero(best != own):
        candidates = [n for n in range(len(rows)) if own[n] == best[row]]
        like = max(candidates, key=lambda n: float(embedding[rows[n]] @ embedding[rows[row]]))
        suspects.append(
            Suspect(
                file=files[rows[row]],
                label=names[own[row]],
                suggested=names[best[row]],
                confidence=round(float(probabilities[row, best[row]]), 4),
                own=round(float(probabilities[row, own[row]]), 4),
                confident=bool(confident[row]),
                like=files[rows[like]],
            )
        )
    return sorted(suspects, key=lambda suspect: (not suspect.confident, suspect.own - suspect.confidence))


def _out_of_fold(
    views: ViewTable, owner: np.ndarray, own: np.ndarray, groups: np.ndarray, names: tuple[str, ...]
) -> np.ndarray:
    """Probabilities (pictures, labels), averaged over a picture's views."""
    fold = assign_folds(groups, [names[n] for n in own], FOLDS, seed=0)
    probabilities = np.zeros((len(own), len(names)))
    for number in range(FOLDS):
        held_out = fold == number
        if not held_out.any() or held_out.all():
            continue
        of_views = _judged(views, ~held_out[owner], names)
        for picture in np.flatnonzero(held_out):
            probabilities[picture] = of_views[owner == picture].mean(axis=0)
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))


def _judged(views: ViewTable, trains: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Probabilities (views, labels) by a head that was fitted to the views that ``trains`` marks."""
    present = tuple(name for name in names if (views.label[trains] == name).any())
    head = fit_fast_head(views.where(trains), present, HeadOptions())
    probabilities = np.full((len(views), len(names)), 1e-6)
    probabilities[:, [names.index(name) for name in present]] = head.probabilities(views)
    return probabilities


def _views(
    features: list[np.ndarray], colours: list[np.ndarray], labels: list[str]
) -> tuple[ViewTable, np.ndarray]:
    """All views of all pictures, and the number of each view's picture."""
    counts = [len(rows) for rows in features]
    owner = np.repeat(np.arange(len(features)), counts)
    kinds = np.array([kind for count in counts for kind in (PLAIN, *[TURNED] * (count - 1))], object)
    label = np.array(labels, object)[owner]
    picture = owner.astype(str).astype(object)
    return ViewTable(np.concatenate(features), np.concatenate(colours), label, kinds, picture, picture), owner


def _copies(files: list[str], labels: list[str], digests: list[str]) -> list[Alike]:
    """Groups of the same content, those with contradicting labels first."""
    by_digest: dict[str, list[int]] = defaultdict(list)
    for n, digest in enumerate(digests):
        by_digest[digest].append(n)
    groups = [rows for rows in by_digest.values() if len(rows) > 1]
    found = [Alike([files[n] for n in rows], [labels[n] for n in rows]) for rows in groups]
    return sorted(found, key=lambda alike: not alike.contradict)


def _near(files: list[str], labels: list[str], embedding: np.ndarray, copies: set[str]) -> list[Alike]:
    """Groups of near-duplicates of one label, the most alike first."""
    found = []
    for label in sorted(set(labels)):
        own = np.array([n for n, one in enumerate(labels) if one == label and files[n] not in copies], int)
        groups = group_near_duplicates(embedding[own]) if len(own) else own
        for group in np.unique(groups):
            rows = own[groups == group]
            if len(rows) > 1:
                cosine = embedding[rows] @ embedding[rows].T - 2 * np.eye(len(rows))
                least = round(float(cosine.max(axis=1).min()), 4)
                found.append(Alike([files[n] for n in rows], [label] * len(rows), least))
    return sorted(found, key=lambda alike: -alike.cosine)


def _across(files: list[str], labels: list[str], embedding: np.ndarray, copies: set[str]) -> list[Alike]:
    """Pairs of near-duplicates under different labels, the most alike first; of each picture its best pair only."""
    cosine = embedding @ embedding.T
    differ = np.array(labels)[:, None] != np.array(labels)[None]
    cosine[~differ] = -1
    pairs = {tuple(sorted((n, int(cosine[n].argmax())))) for n in range(len(files)) if cosine[n].max() > SAME_SHOOT}
    found = [
        Alike([files[a], files[b]], [labels[a], labels[b]], round(float(cosine[a, b]), 4))
        for a, b in pairs
        if not copies.issuperset((files[a], files[b]))
    ]
    return sorted(found, key=lambda alike: (-alike.cosine, alike.files))


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9))

"""The models that are there, and how two of them compare: by their cards, and on the same pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from battery_sorting.core.active_model import active_version, versions
from battery_sorting.core.errors import FrameError, ModelError
from battery_sorting.core.proportions import mcnemar, share_with_interval
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.card import ModelCard, check_file, check_weights
from battery_sorting.vision.classifier import Prediction, TypeClassifier
from battery_sorting.vision.defect_card import DefectCard, read_any_card
from battery_sorting.vision.gallery import GALLERY_FILE, Gallery
from battery_sorting.vision.pictures import read_picture

Figure = Mapping[str, Any] | float
"""A figure of a card: a number, or a share with ``value``, ``low``, ``high``."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One version. ``card`` is None where it can't be used; ``problem`` says why."""

    folder: Path
    active: bool
    card: ModelCard | DefectCard | None
    problem: str = ""

    @property
    def name(self) -> str:
        """``name/version``, by its folders."""
        return f"{self.folder.parent.name}/{self.folder.name}"


def stored_models(store: Path) -> list[StoredModel]:
    """All versions of all families in ``store``, each checked against its card."""
    families = sorted(folder for folder in store.iterdir() if folder.is_dir()) if store.is_dir() else []
    return [model for family in families for model in _versions_of(family)]


def checked_card(folder: Path) -> ModelCard | DefectCard:
    """Card of a model that may be activated.

    Raises:
        ModelError: Card, weights or further files are missing or don't match, or the card is that of another name
            or version: records would name the wrong one.
    """
    card = read_any_card(folder)
    check_weights(folder, card)
    for name in card.files:
        check_file(folder, card, name)
    if (card.name, card.version) != (folder.parent.name, folder.name):
        raise ModelError(
            f"{folder}: its card says {card.name}/{card.version}, and so would every record; rename the folder or "
            "train the model again with this folder as --out"
        )
    return card


def card_figures(card: ModelCard | DefectCard) -> dict[str, Figure]:
    """Figures of a card by their path, for example ``photographs.accuracy``."""
    return dict(_figures(card.metrics, ""))


def compare_on_pictures(
    first: TypeClassifier,
    second: TypeClassifier,
    pictures: Iterable[tuple[Path, str]],
    bits: int | None = None,
) -> dict[str, Any]:
    """Both models on the same pictures.

    Args:
        first: One model.
        second: The other.
        pictures: Files with their type; *others* for what belongs to none.
        bits: As for `read_picture`.

    Returns:
        Data for JSON, shares 0..1: ``pictures``, ``unreadable``, ``same_type`` and ``same_outcome`` (type if
        accepted, else *others*), ``accuracy`` of the most probable type on types that both know, ``right_outcome``
        on all, each for both models with a 95 % Wilson interval, how many only one got right with the exact p-value
        of McNemar's test, and ``differences``: pictures with another outcome.
    """
    seen: list[tuple[Path, str, Prediction, Prediction]] = []
    unreadable: list[str] = []
    for path, truth in pictures:
        try:
            rgb = read_picture(path, bits)
            seen.append((path, truth, first.classify(rgb), second.classify(rgb)))
        except FrameError as error:
            unreadable.append(str(error))
    known = {*first.card.types} & {*second.card.types}
    types = [(one.label == truth, other.label == truth) for _, truth, one, other in seen if truth in known]
    outcomes = [(_outcome(one) == truth, _outcome(other) == truth) for _, truth, one, other in seen]
    return {
        "models": [first.name, second.name],
        "pictures": len(seen),
        "unreadable": unreadable,
        "same_type": _share(sum(one.label == other.label for _, _, one, other in seen), len(seen)),
        "same_outcome": _share(sum(_outcome(one) == _outcome(other) for _, _, one, other in seen), len(seen)),
        "accuracy": _paired(types),
        "right_outcome": _paired(outcomes),
        "differences": [
            {"path": str(path), "truth": truth, "outcomes": [_outcome(one), _outcome(other)]}
            for path, truth, one, other in seen
            if _outcome(one) != _outcome(other)
        ],
    }


def trained_on(folder: Path, pictures: Iterable[tuple[Path, str]]) -> int:
    """How many of these files the model in ``folder`` was trained on, by their content; 0 if it doesn't tell.

    On these a model shows what it remembers, not how good it is.

    Raises:
        ModelError: The model's gallery is damaged.
    """
    card, gallery = read_any_card(folder), folder / GALLERY_FILE
    if GALLERY_FILE in card.files:
        check_file(folder, card, GALLERY_FILE)
    known = {*Gallery.load(gallery).sha256} if gallery.is_file() else set()
    return sum(hashlib.sha256(path.read_bytes()).hexdigest() in known for path, _ in pictures) if known else 0


def _versions_of(family: Path) -> list[StoredModel]:
    known = versions(family)
    try:
        active, trouble = active_version(family), ""
    except ModelError as error:
        active, trouble = None, str(error)
    return [_stored(family / version, version == active, trouble) for version in known]


def _stored(folder: Path, active: bool, trouble: str) -> StoredModel:
    try:
        return StoredModel(folder, active, checked_card(folder), trouble)
    except ModelError as error:
        return StoredModel(folder, active, None, str(error))


def _figures(metrics: Mapping[str, Any], path: str) -> Iterable[tuple[str, Figure]]:
    for key, value in metrics.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and "value" in value:
            yield here, value
        elif isinstance(value, Mapping):
            yield from _figures(value, here)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield here, float(value)


def _outcome(said: Prediction) -> str:
    return said.label if said.accepted else OTHERS


def _paired(right: list[tuple[bool, bool]]) -> dict[str, Any]:
    """Shares of both, and McNemar's test on the pictures that only one of them got right."""
    only_first = sum(one and not other for one, other in right)
    only_second = sum(other and not one for one, other in right)
    return {
        "first": share_with_interval(sum(one for one, _ in right), len(right)),
        "second": share_with_interval(sum(other for _, other in right), len(right)),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "mcnemar_p": round(mcnemar(only_first, only_second), 6),
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None

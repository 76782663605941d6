"""Decisions on record, explained: the battery, its picture, the model that decided and the one that explains."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from battery_sorting.core.active_model import find_model
from battery_sorting.core.errors import ConfigurationError, FrameError, ModelError
from battery_sorting.core.names import is_name
from battery_sorting.ledger import BatteryRecord, EventKind, Shift
from battery_sorting.ledger.store import Ledger
from battery_sorting.report.kept_pictures import KeptPictures
from battery_sorting.vision.card import CARD_FILE
from battery_sorting.vision.explain import Explainer, Explanation, training_picture
from battery_sorting.vision.gallery import Neighbour
from battery_sorting.vision.pictures import decode_picture


@dataclass(frozen=True, slots=True)
class Similar:
    """A training picture like the one in question; without ``pixels`` where ``why`` it can't be shown."""

    neighbour: Neighbour
    pixels: np.ndarray | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One decision to be shown: what is on record of it, the explanation, and what must be known to read it."""

    title: str
    explanation: Explanation
    recorded: str = ""
    notes: list[str] = field(default_factory=list)
    similar: list[Similar] = field(default_factory=list)


class Explainers:
    """The explainer for each model that decided, loaded once.

    Args:
        model: Folder of the model to explain with, whichever decided.
        data: Folder of the training pictures.
    """

    def __init__(self, model: Path | None = None, data: Path | None = None) -> None:
        if data is not None and not data.is_dir():
            raise ConfigurationError(str(data), ["--data: no such folder; give that of the training pictures"])
        self._model = model
        self._data = data
        self._loaded: dict[tuple[Path, float | None], Explainer] = {}

    def explainer(self, decided: str, shift: Shift) -> Explainer:
        """Explainer for decisions of the model ``decided`` (name/version) in a shift, with its recipe's threshold.

        Raises:
            ConfigurationError: No model to explain with is here.
            ModelError: The model can't be used.
        """
        recipe = shift.config.get("recipe")
        threshold = recipe.get("threshold") if isinstance(recipe, dict) else None
        key = (self._model or model_folder(decided, shift), threshold)
        if key not in self._loaded:
            self._loaded[key] = Explainer.load(*key)
        return self._loaded[key]

    def of_battery(
        self, battery: BatteryRecord, typed: Mapping[str, Any], shift: Shift, pictures: KeptPictures
    ) -> Case:
        """Case of a battery; ``typed`` is the payload of the classifier's verdict on record.

        Raises:
            FrameError: It has no readable picture.
            ConfigurationError: No model to explain with is here.
            ModelError: The model can't be used.
        """
        rgb = decode_picture(pictures.read(battery))
        decided = str(typed.get("model") or "")
        explanation = self.explainer(decided, shift).explain(rgb)
        return Case(
            title=f"battery {battery.battery_id}",
            explanation=explanation,
            recorded=recorded_verdict(battery, typed),
            notes=[*_differences(typed, explanation), *explanation.missing],
            similar=self.similar(explanation),
        )

    def similar(self, explanation: Explanation) -> list[Similar]:
        """The similar training pictures, with their pixels where they are at hand."""
        return [self._shown(neighbour) for neighbour in explanation.neighbours]

    def _shown(self, neighbour: Neighbour) -> Similar:
        if self._data is None:
            return Similar(neighbour)
        try:
            return Similar(neighbour, training_picture(neighbour, self._data))
        except FrameError as error:
            return Similar(neighbour, why=str(error))


def recorded_verdict(battery: BatteryRecord, typed: Mapping[str, Any]) -> str:
    """What the ledger says of a battery's type and place, in words."""
    label = battery.label or "no type"
    sure = "" if battery.confidence is None else f" ({battery.confidence:.1%} sure)"
    by = f" by {typed['model']}" if typed.get("model") else ""
    verdict = "accepted" if battery.accepted else f"rejected: {_words(battery.type_reason) or 'no verdict'}"
    place = "on the belt" if battery.bin is None else battery.bin or "nowhere"
    reason = _words(battery.reason or battery.decided_reason)
    return f"{label}{sure}{by}, {verdict}; bin: {place}{f' ({reason})' if reason else ''}"


def last_typed(book: Ledger, battery_id: str) -> dict[str, Any]:
    """Payload of the classifier's verdict on a battery; empty if there is none on record."""
    events = book.events(battery_id=battery_id, kinds=[EventKind.TYPED], last=1)
    return events[0].payload if events else {}


def model_folder(decided: str, shift: Shift) -> Path:
    """Folder of the model that decided; that of the shift's site if it isn't here any more."""
    site = shift.config.get("site")
    of_site = str(site.get("model") or "") if isinstance(site, dict) else ""
    own = decided if all(map(is_name, decided.split("/"))) else ""  # a record from elsewhere may say anything
    for name in filter(None, (own, of_site)):
        with contextlib.suppress(ModelError):
            found = find_model(name)
            if (found / CARD_FILE).is_file():
                return found
    raise ConfigurationError(
        f"model {decided or of_site or 'of the shift'}", ["is not here; name the folder of a model with --model"]
    )


def _differences(typed: Mapping[str, Any], explanation: Explanation) -> Sequence[str]:
    """What keeps the explanation from being that of the very decision on record."""
    notes = []
    decided, said = typed.get("model"), explanation.prediction
    if decided and decided != explanation.model:
        notes.append(f"{decided} decided, but {explanation.model} explains: its reasons may be others")
    if typed and typed.get("label", "") != said.label:
        notes.append(
            f"on record is {typed.get('label') or 'no type'}; the model now says {said.label or 'no type'}"
        )
    elif typed and bool(typed.get("accepted", True)) != said.accepted:
        then = _taken(bool(typed.get("accepted", True)), typed.get("reason"))
        notes.append(f"on record it was {then}; now it is {_taken(said.accepted, said.reason)}")
    return notes


def _taken(accepted: bool, reason: str | None) -> str:
    return "accepted" if accepted else f"rejected ({_words(reason)})"


def _words(reason: str | None) -> str:
    return (reason or "").replace("_", " ")

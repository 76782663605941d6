"""Pictures of an EV line's cells with what the inspector saw on them: box and heat, by looking again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from battery_sorting.core.active_model import find_model
from battery_sorting.core.errors import BatterySortingError, FrameError
from battery_sorting.core.types import View
from battery_sorting.ev.report import CellStory, EvRun, InspectedFrame
from battery_sorting.ledger.store import Ledger
from battery_sorting.report.kept_pictures import KeptPictures
from battery_sorting.report.words import words

if TYPE_CHECKING:
    from battery_sorting.vision.inspector import DefectInspector

PER_KIND = 2
"""So many cells are shown of each verdict: the page stays short, and is made in a few seconds."""


@dataclass(frozen=True, slots=True)
class DrawnView:
    """A picture of one view: BGR, with what was drawn on it; ``note`` says what a person must know of it."""

    look: InspectedFrame
    pixels: np.ndarray
    note: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A cell that stands for a verdict."""

    title: str
    story: CellStory
    shots: list[DrawnView]


@dataclass
class VerdictExamples:
    """Examples of every verdict; ``note`` says why there are none, or why nothing is drawn on them."""

    found: list[Example] = field(default_factory=list)
    note: str = ""


def examples(run: EvRun, book: Ledger, pictures: KeptPictures) -> VerdictExamples:
    """A few cells of every verdict, first the good ones, with their pictures."""
    result = VerdictExamples()
    inspectors = _Inspectors(run)
    by_title: dict[str, list[CellStory]] = {}
    for story in run.stories:
        if story.looks:
            by_title.setdefault(title_of(story), []).append(story)
    for title, stories in sorted(by_title.items(), key=lambda item: (not item[0].startswith("good"), item[0])):
        for story in stories[:PER_KIND]:
            shots = _shots(story, book, pictures, inspectors, result)
            if shots:
                result.found.append(Example(title, story, shots))
    result.note = inspectors.note or ("" if result.found else result.note)
    return result


def title_of(story: CellStory) -> str:
    """What a cell is an example of: where it went, and why."""
    outlet = story.outlet or story.decided or "none"
    return f"{words(story.reason or 'none')} → {outlet}"


def _shots(
    story: CellStory, book: Ledger, pictures: KeptPictures, inspectors: _Inspectors, result: VerdictExamples
) -> list[DrawnView]:
    from battery_sorting.vision.pictures import read_picture

    kept = book.images(story.battery_id)
    shots = []
    for view in View:
        look = story.views.get(view)
        of_view = [image for image in kept if image.station == view]
        if look is None or not of_view:
            continue
        image = min(of_view, key=lambda image: abs(image.stamp - look.stamp))
        path = pictures.path(story.shift_id, image)
        try:
            pixels = np.ascontiguousarray(read_picture(path)[..., ::-1])
        except FrameError as error:
            result.note = f"{error}; name the folder of the pictures with --images"
            continue
        shots.append(inspectors.draw(look, pixels))
    return shots


class _Inspectors:
    """The models of a run, loaded when they are needed. Without them, pictures stay as they are."""

    def __init__(self, run: EvRun) -> None:
        self.note = ""
        self._folders: dict[str, Any] = run.site.get("models") or {}
        self._views: dict[str, Any] = run.recipe.get("views") or {}
        self._loaded: dict[str, DefectInspector | None] = {}

    def draw(self, look: InspectedFrame, pixels: np.ndarray) -> DrawnView:
        """The picture with box, heat and verdict of another look at it."""
        inspector = self._inspector(look.view)
        if inspector is None:
            return DrawnView(look, pixels)
        again = inspector.inspect(pixels)
        note = ""
        if again.verdict != look.verdict:
            note = f"looked at again, as it was kept: {again.verdict.replace('_', ' ')}"
        if look.model and inspector.name != look.model:
            note = f"box and heat by {inspector.name}, the verdict was by {look.model}"
        return DrawnView(look, inspector.overlay(pixels, again), note)

    def _inspector(self, view: str) -> DefectInspector | None:
        if view not in self._loaded:
            from battery_sorting.vision.inspector import DefectInspector

            threshold = (self._views.get(view) or {}).get("threshold")
            try:
                self._loaded[view] = DefectInspector.load(find_model(str(self._folders.get(view))), threshold)
            except BatterySortingError as error:
                self._loaded[view] = None
                self.note = f"Without box and heat: {error}"
        return self._loaded[view]

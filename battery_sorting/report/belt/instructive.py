"""The decisions of a shift from which a person learns most, explained for the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from battery_sorting.belt.report import Run
from battery_sorting.core.errors import ConfigurationError, FrameError, ModelError
from battery_sorting.core.types import Reason
from battery_sorting.ledger import EventKind
from battery_sorting.report.kept_pictures import KeptPictures
from battery_sorting.report.vision.cases import Case, Explainers
from battery_sorting.vision.review import LabelCandidate, find_candidates, verdicts_on_record

PER_KIND = 3
"""At most so many decisions of each kind: the page stays short and is made in a second or two."""
TRIES = 10
"""So many batteries of a kind are tried, in case their pictures are gone."""


@dataclass
class Instructive:
    """Decisions with the kind that each stands for, or a ``note`` that says why there are none."""

    cases: list[tuple[str, Case]] = field(default_factory=list)
    note: str = ""


def instructive(run: Run, pictures: KeptPictures, explainers: Explainers) -> Instructive:
    """The decisions of a run that are worth a look, a few of each kind.

    Nothing is loaded or looked at where no picture was kept; a model that isn't here is said in ``note``.
    """
    typed = verdicts_on_record(run.each(EventKind.TYPED))
    candidates = find_candidates(run.batteries, typed, run.routes)
    batteries = {battery.battery_id: battery for battery in run.batteries}
    result = Instructive()
    try:
        for kind, chosen in _by_kind(candidates):
            found = 0
            for candidate in chosen[:TRIES]:
                battery = batteries[candidate.battery_id]
                try:
                    case = explainers.of_battery(battery, typed[battery.battery_id], run.shift, pictures)
                except FrameError as error:
                    result.note = str(error)
                    continue
                result.cases.append((kind, case))
                found += 1
                if found == PER_KIND:
                    break
    except (ModelError, ConfigurationError) as error:
        return Instructive(note=f"Not explained: {error}")
    if result.cases or not candidates:
        result.note = ""
    return result


def _by_kind(candidates: list[LabelCandidate]) -> Iterator[tuple[str, list[LabelCandidate]]]:
    yield "no known type", [each for each in candidates if str(Reason.UNKNOWN_TYPE) in each.reasons]
    yield "no single battery", [each for each in candidates if str(Reason.NO_SINGLE_BATTERY) in each.reasons]
    yield "low confidence", [each for each in candidates if str(Reason.LOW_CONFIDENCE) in each.reasons]
    yield "not where its type goes", [each for each in candidates if each.overruled]

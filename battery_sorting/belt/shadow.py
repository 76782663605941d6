"""What a shadow model would have done: its verdicts of the ledger beside those that were acted on."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from battery_sorting.core.proportions import mcnemar, share_with_interval
from battery_sorting.core.types import OTHERS, Reason, make_battery_id
from battery_sorting.ledger import Event
from battery_sorting.ledger.events import ShadowTyped, Typed, TypeVerdict
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.reporting import find_shift

Pair = tuple[Event[TypeVerdict], Event[TypeVerdict]]
"""Verdict that was acted on, and the candidate's."""
KINDS: tuple[type[TypeVerdict], ...] = (Typed, ShadowTyped)


@dataclass
class ShadowJudgement:
    """Who was right, by the plant's record. An unknown brand is right in *others*."""

    batteries: int
    active_right: dict[str, Any]
    candidate_right: dict[str, Any]
    only_active_right: int
    only_candidate_right: int
    mcnemar_p: float
    active_into_wrong_bin: int
    candidate_into_wrong_bin: int


@dataclass
class ShadowComparison:
    """A candidate beside one active model.

    An outcome is the type of an accepted battery, and *others* for a rejected one. Shares are 0..1.

    Attributes:
        batteries: Batteries that both have looked at.
        not_seen: Batteries of the same time that the candidate was too slow for, or whose verdict was lost.
        same_outcome: Share of the batteries with the same outcome.
        same_type: Share of the batteries with the same most probable type, accepted or not.
        accepted_by: ``both``, ``active`` only, ``candidate`` only, ``neither``: share of the batteries.
        confidence: Mean confidence of each.
        disagreements: Outcome of the active model → outcome of the candidate → batteries.
        judged: Who was right, where the plant's record is there.
    """

    active: str
    candidate: str
    batteries: int
    not_seen: int
    same_outcome: float
    same_type: float
    accepted_by: dict[str, float]
    confidence: dict[str, float | None]
    disagreements: dict[str, dict[str, int]] = field(default_factory=dict)
    judged: ShadowJudgement | None = None

    def to_dict(self) -> dict[str, Any]:
        """Data for JSON."""
        return asdict(self)


def compare_shadows(
    ledger: Ledger, shift_id: int | None = None, record: Mapping[str, Any] | None = None
) -> list[ShadowComparison]:
    """Compare each candidate of a shift with each model that was active beside it; empty if there was none.

    Args:
        ledger: Where the verdicts are.
        shift_id: The shift; the last one if ``None``.
        record: The plant's, as returned by `battery_sorting.core.plant_control.load_record`.

    Raises:
        LedgerError: The ledger has no shift, or not this one.
    """
    shift = find_shift(ledger, shift_id)
    events = ledger.events(shift.shift_id, kinds=KINDS)
    typed = {event.battery_id: event for event in events if isinstance(event.data, Typed)}
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for event in events:
        active = typed.get(event.battery_id)
        if isinstance(event.data, ShadowTyped) and active is not None:
            groups[active.data.model, event.data.model].append((active, event))
    truth = {} if record is None else _truth(record)
    return [_compare(names, pairs, list(typed.values()), truth) for names, pairs in groups.items()]


def _compare(
    names: tuple[str, str], pairs: Sequence[Pair], typed: Sequence[Event[TypeVerdict]], truth: Mapping[str, str]
) -> ShadowComparison:
    outcomes = [(_outcome(active), _outcome(candidate)) for active, candidate in pairs]
    accepted = Counter((mine != OTHERS, its != OTHERS) for mine, its in outcomes)
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for mine, its in outcomes:
        if mine != its:
            table[mine][its] += 1
    number = len(pairs)
    return ShadowComparison(
        active=names[0],
        candidate=names[1],
        batteries=number,
        not_seen=_not_seen(names[0], pairs, typed),
        same_outcome=sum(mine == its for mine, its in outcomes) / number,
        same_type=sum(one.data.label == other.data.label for one, other in pairs) / number,
        accepted_by={
            "both": accepted[True, True] / number,
            "active": accepted[True, False] / number,
            "candidate": accepted[False, True] / number,
            "neither": accepted[False, False] / number,
        },
        confidence={
            "active": _mean_confidence([active for active, _ in pairs]),
            "candidate": _mean_confidence([candidate for _, candidate in pairs]),
        },
        disagreements={mine: dict(table[mine].most_common()) for mine in sorted(table)},
        judged=_judge(pairs, truth) if truth else None,
    )


def _not_seen(active: str, pairs: Sequence[Pair], typed: Sequence[Event[TypeVerdict]]) -> int:
    """Batteries with a picture, judged by this model while the candidate was at work, that only one looked at."""
    stamps = [mine.stamp for mine, _ in pairs]
    seen = {mine.battery_id for mine, _ in pairs}
    return sum(
        event.battery_id not in seen
        and event.data.model == active
        and event.data.reason != Reason.NO_IMAGE
        and min(stamps) <= event.stamp <= max(stamps)
        for event in typed
    )


def _judge(pairs: Sequence[Pair], truth: Mapping[str, str]) -> ShadowJudgement | None:
    known = [
        (truth[str(mine.battery_id)], _outcome(mine), _outcome(its))
        for mine, its in pairs
        if mine.battery_id in truth
    ]
    if not known:
        return None
    only_active = sum(mine == true != its for true, mine, its in known)
    only_candidate = sum(its == true != mine for true, mine, its in known)
    return ShadowJudgement(
        batteries=len(known),
        active_right=share_with_interval(sum(mine == true for true, mine, _ in known), len(known)),
        candidate_right=share_with_interval(sum(its == true for true, _, its in known), len(known)),
        only_active_right=only_active,
        only_candidate_right=only_candidate,
        mcnemar_p=mcnemar(only_active, only_candidate),
        active_into_wrong_bin=sum(mine not in {true, OTHERS} for true, mine, _ in known),
        candidate_into_wrong_bin=sum(its not in {true, OTHERS} for true, _, its in known),
    )


def _truth(record: Mapping[str, Any]) -> dict[str, str]:
    """Battery → outcome that would be right."""
    return {
        make_battery_id(record["boot_id"], item["trigger_count"]): item["label"] if item["known"] else OTHERS
        for item in record["items"]
        if item["trigger_count"] is not None
    }


def _outcome(event: Event[TypeVerdict]) -> str:
    return event.data.label if event.data.accepted else OTHERS


def _mean_confidence(events: Sequence[Event[TypeVerdict]]) -> float | None:
    values = [event.data.confidence for event in events if event.data.confidence is not None]
    return statistics.fmean(values) if values else None

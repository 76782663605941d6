"""Figures of a run: from the ledger alone, or judged against the plant's own record of where every battery fell.

`docs/reference/ledger.md` defines every figure. Nothing here plots or prints.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from battery_sorting.core.strict_json import finite
from battery_sorting.core.types import NOWHERE, OTHERS, EjectOutcome, Reason, make_battery_id
from battery_sorting.ledger import BatteryRecord, Event, EventKind, Shift
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.reporting import Shares, ShiftReport, find_shift, spread

UNKNOWN = "unknown"
"""Row of the batteries of no known type, and of those that the classifier would not name."""
ON_BELT = "on_belt"
UNACCOUNTED = "unaccounted"
ALL = "all"

_NOT_NAMED = {
    str(reason)
    for reason in (
        Reason.LOW_CONFIDENCE,
        Reason.UNKNOWN_TYPE,
        Reason.NO_SINGLE_BATTERY,
        Reason.BAD_IMAGE,
        Reason.NO_IMAGE,
        Reason.NO_DECISION,
    )
}

_TIMED = (
    EventKind.TYPED,
    EventKind.EJECT_ORDERED,
    EventKind.EJECT_REPORTED,
    EventKind.EXITED,
    EventKind.DISPOSED,
)

Table = dict[str, dict[str, int]]


@dataclass
class Figures:
    """What a run came to. ``None`` is "can't be said", e.g. purity without the plant's record."""

    items: int = 0
    accounted: int = 0
    correct_bin: int | None = None
    wrong_bin: int | None = None
    others: int = 0
    missed: int = 0
    late: int = 0
    double_ejected: int = 0
    named_but_misplaced: int | None = None
    type_accuracy: float | None = None
    purity: Shares = field(default_factory=lambda: {ALL: None})
    yield_: Shares = field(default_factory=lambda: {ALL: None})
    decision_latency_ms: Shares = field(default_factory=dict)
    position_error_mm: Shares = field(default_factory=dict)
    startup_s: float | None = None
    memory_mb: Mapping[str, float] | None = None
    cpu_percent: Mapping[str, float] | None = None
    real_time_factor: float | None = None
    others_reasons: dict[str, int] = field(default_factory=dict)
    table: Table = field(default_factory=dict)
    confusion: Table = field(default_factory=dict)
    disagreements: list[dict[str, Any]] = field(default_factory=list)
    lost: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """Why the line has not worked; empty if it has. A misnamed battery is the model's fault, not the line's."""
        wrong = {
            "batteries without an account": self.items - self.accounted,
            "named correctly, but not in their bin": self.named_but_misplaced or 0,
            "in another bin than the ledger says": len(self.disagreements),
            "ejections missed": self.missed,
            "ejections late": self.late,
            "ejected twice": self.double_ejected,
            "batteries lost": len(self.lost),
        }
        return [f"{text}: {count}" for text, count in wrong.items() if count]

    def to_dict(self) -> dict[str, Any]:
        """Data for JSON: keys as the fields, ``yield`` for ``yield_``; NaN and infinities become ``None``."""
        return {name.rstrip("_"): finite(value) for name, value in vars(self).items()}


@dataclass(frozen=True, slots=True)
class Timeline:
    """When what happened to one battery, in seconds after its photo-eye edge. ``None``: it did not happen."""

    battery_id: str
    detected_at: float
    bin: str | None
    typed_s: float | None
    ordered_s: float | None
    fired_s: float | None
    exited_s: float | None
    disposed_s: float | None


@dataclass(frozen=True)
class StoredEvents:
    """Events that stay in the ledger, and are read anew whenever they are gone through: a shift may have millions.

    The ledger must be open meanwhile.
    """

    ledger: Ledger
    shifts: tuple[int, ...]
    batteries: frozenset[str]

    def __iter__(self) -> Iterator[Event]:
        return self.each()

    def each(self, *kinds: EventKind) -> Iterator[Event]:
        """Those of these kinds; of all if none is named."""
        for number in self.shifts:
            for event in self.ledger.each_event(number, kinds=kinds):
                if event.battery_id in self.batteries:
                    yield event


@dataclass(frozen=True)
class Run:
    """The batteries and events that a report is about."""

    shift: Shift
    batteries: list[BatteryRecord]
    events: Iterable[Event]
    """May be gone through as often as wanted."""

    def each(self, *kinds: EventKind) -> Iterator[Event]:
        """The events of these kinds, in the order in which they were written."""
        if isinstance(self.events, StoredEvents):
            return self.events.each(*kinds)
        return (event for event in self.events if event.kind in kinds)

    @property
    def routes(self) -> dict[str, str]:
        """Type to bin as in the recipe that the shift ran with; empty if the shift has no recipe on record."""
        recipe = self.shift.config.get("recipe")
        routes = recipe.get("routes") if isinstance(recipe, dict) else None
        return dict(routes) if isinstance(routes, dict) else {}


@dataclass(frozen=True)
class BeltReport(ShiftReport):
    """A run of a belt line with its figures."""

    run: Run
    figures: Figures

    @property
    def shift(self) -> Shift:
        """The shift that it is about."""
        return self.run.shift

    @property
    def empty(self) -> bool:
        """Whether nothing has come yet."""
        return not self.run.batteries

    @property
    def failures(self) -> list[str]:
        """Why the line has not worked; empty if it has."""
        return self.figures.failures

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return self.figures.to_dict()


def load_run(ledger: Ledger, shift_id: int | None = None, *, boot_id: int | None = None) -> Run:
    """Read what a report needs, so that the ledger may be closed. See `open_run`.

    Raises:
        LedgerError: The ledger has no shift, or not this one.
    """
    run = open_run(ledger, shift_id, boot_id=boot_id)
    return replace(run, events=list(run.events))


def open_run(ledger: Ledger, shift_id: int | None = None, *, boot_id: int | None = None) -> Run:
    """What a report needs, with events that stay in the ledger, which must be open as long as the run is used.

    Args:
        ledger: Where to read.
        shift_id: The shift; the last one if ``None``.
        boot_id: Take the batteries of this run of the PLC, in whichever shift they are (unless one is named).

    Raises:
        LedgerError: The ledger has no shift, or not this one.
    """
    shift = find_shift(ledger, shift_id)
    if boot_id is None:
        batteries = ledger.batteries(shift.shift_id)
    else:
        batteries = ledger.batteries(shift_id, prefix=make_battery_id(boot_id, 0)[:-6])
    ids = frozenset(battery.battery_id for battery in batteries)
    shifts = sorted({battery.shift_id for battery in batteries})
    return Run(shift, batteries, StoredEvents(ledger, tuple(shifts), ids))


def figures(ledger: Ledger, shift_id: int | None = None) -> Figures:
    """Figures of a shift from the ledger alone. The tables show the types as the classifier named them."""
    return figures_of(load_run(ledger, shift_id))


def figures_of(run: Run) -> Figures:
    """Figures of a run from the ledger alone."""
    batteries = [battery for battery in run.batteries if battery.reason != Reason.FALSE_TRIGGER]
    ejections = _Ejections.of(run.events)  # all of them, so that one that can't be read is found
    return Figures(
        items=len(batteries),
        accounted=sum(_has_place(battery) for battery in batteries),
        others=sum(battery.bin == OTHERS for battery in batteries),
        missed=sum(battery.reason == Reason.MISSED for battery in batteries),
        late=_late(batteries),
        double_ejected=len(ejections.fired_twice),
        decision_latency_ms=spread(ejections.latencies_ms, p50=50, p99=99, max=100),
        position_error_mm=spread([], p50=50, p99=99, p999=99.9),
        others_reasons=_others_reasons(batteries),
        table=_count_pairs((_name_of(battery), _column(battery.bin)) for battery in batteries),
        lost=[
            {"index": None, "battery_id": battery.battery_id, "bin": None}
            for battery in batteries
            if not _has_place(battery)
        ],
    )


def judge(
    ledger: Ledger,
    record: Mapping[str, Any],
    shift_id: int | None = None,
    *,
    routes: Mapping[str, str] | None = None,
    startup_s: float | None = None,
    memory_mb: Mapping[str, float] | None = None,
    cpu_percent: Mapping[str, float] | None = None,
) -> Figures:
    """Figures of a run with the plant's record as the truth.

    Args:
        ledger: The ledger of the run.
        record: As returned by `battery_sorting.core.plant_control.load_record`.
        shift_id: Only this shift; every shift of this run of the plant if ``None``.
        routes: Type to bin; the recipe on record with the shift if ``None``, and where there is none, every type
            has the bin of its own name.
        startup_s: Measured by the caller: start to first sorted battery.
        memory_mb: Per process, and in all under ``all``.
        cpu_percent: The same, 100 being one core.
    """
    result = judge_run(load_run(ledger, shift_id, boot_id=record["boot_id"]), record, routes=routes)
    result.startup_s, result.memory_mb, result.cpu_percent = startup_s, memory_mb, cpu_percent
    return result


def judge_run(run: Run, record: Mapping[str, Any], *, routes: Mapping[str, str] | None = None) -> Figures:
    """Figures of a run that was read for this record's boot id. See `judge`."""
    batteries = {battery.battery_id: battery for battery in run.batteries}
    items = [
        _Item.of(item, record["boot_id"], batteries, run.routes if routes is None else routes)
        for item in record["items"]
    ]
    result = figures_of(run)
    result.items = len(items)
    result.accounted = sum(item.battery is not None and _has_place(item.battery) for item in items)
    result.lost = [item.where for item in items if item.battery is None or not _has_place(item.battery)]
    result.others = sum(item.bin == OTHERS for item in items)
    result.correct_bin = sum(item.is_right for item in items)
    result.wrong_bin = sum(item.bin not in {None, OTHERS, item.target} for item in items)
    result.missed = sum(item.was_missed for item in items)
    result.double_ejected = _pulsed_twice(record["pulses"])
    result.named_but_misplaced = sum(item.is_named_right and item.bin not in {None, item.target} for item in items)
    result.type_accuracy = _type_accuracy(items)
    result.purity, result.yield_ = _purity_and_yield(items)
    result.position_error_mm = spread(_position_errors_mm(record["pulses"]), p50=50, p99=99, p999=99.9)
    result.real_time_factor = record.get("real_time_factor")
    result.table = _count_pairs((item.label, _column(item.bin)) for item in items)
    result.confusion = _count_pairs(
        (item.label, _name_of(item.battery)) for item in items if item.battery is not None
    )
    result.disagreements = [*_disagreements(items), *_unordered_pulses(record["pulses"], run.batteries)]
    return result


def decision_latencies_ms(events: Iterable[Event]) -> list[float]:
    """End of exposure to the PLC's acknowledgement, of the first acknowledgement of every eject command, in ms."""
    return _Ejections.of(events).latencies_ms


def timelines(run: Run) -> list[Timeline]:
    """The times of every battery, in the order of detection."""
    places = {kind: place for place, kind in enumerate(_TIMED)}
    stamps: dict[str, list[float | None]] = {battery.battery_id: [None] * len(places) for battery in run.batteries}
    for event in run.each(*_TIMED):
        own = stamps.get(event.battery_id or "")
        place = places[event.kind]
        if (
            own is not None
            and own[place] is None
            and (event.kind is not EventKind.EJECT_REPORTED or _is_fired(event))
        ):
            own[place] = event.stamp

    def since_eye(battery: BatteryRecord, kind: EventKind) -> float | None:
        stamp = stamps[battery.battery_id][places[kind]]
        return None if stamp is None else stamp - battery.detected_at

    return [
        Timeline(
            battery.battery_id,
            battery.detected_at,
            battery.bin,
            typed_s=since_eye(battery, EventKind.TYPED),
            ordered_s=since_eye(battery, EventKind.EJECT_ORDERED),
            fired_s=since_eye(battery, EventKind.EJECT_REPORTED),
            exited_s=since_eye(battery, EventKind.EXITED),
            disposed_s=since_eye(battery, EventKind.DISPOSED),
        )
        for battery in run.batteries
    ]


@dataclass(frozen=True)
class _Item:
    """One battery as the plant knows it, with what the ledger has on it."""

    index: int
    battery_id: str | None
    label: str  # true type, UNKNOWN for a brand that is none
    target: str  # bin it belongs into
    bin: str | None  # bin it fell into; None: still on the belt
    battery: BatteryRecord | None

    @classmethod
    def of(
        cls,
        item: Mapping[str, Any],
        boot_id: int,
        batteries: Mapping[str, BatteryRecord],
        routes: Mapping[str, str],
    ) -> _Item:
        trigger = item["trigger_count"]
        battery_id = None if trigger is None else make_battery_id(boot_id, trigger)
        known = item.get("known", True)
        label = item["label"] if known else UNKNOWN
        target = routes.get(label, OTHERS) if routes else label
        return cls(
            index=item["index"],
            battery_id=battery_id,
            label=label,
            target=target if known else OTHERS,
            bin=item["bin"],
            battery=batteries.get(battery_id or ""),
        )

    @property
    def is_right(self) -> bool:
        return self.bin == self.target

    @property
    def is_named_right(self) -> bool:
        return self.label != UNKNOWN and self.battery is not None and _name_of(self.battery) == self.label

    @property
    def was_missed(self) -> bool:
        battery = self.battery
        if battery is None or battery.token is None or self.bin is None:
            return False
        fired = battery.eject_outcome is EjectOutcome.FIRED or battery.reason == Reason.MISSED
        return fired and self.bin != battery.decided_bin

    @property
    def where(self) -> dict[str, Any]:
        return {"index": self.index, "battery_id": self.battery_id, "bin": self.bin}


def _has_place(battery: BatteryRecord) -> bool:
    return battery.bin is not None and battery.bin != NOWHERE


def _name_of(battery: BatteryRecord) -> str:
    """Type under which the battery was sorted, UNKNOWN if the verdict was not good enough to act on."""
    rejected = battery.accepted is False or bool({battery.reason, battery.decided_reason} & _NOT_NAMED)
    return UNKNOWN if rejected or not battery.label else battery.label


def _column(bin_: str | None) -> str:
    if bin_ is None:
        return ON_BELT
    return UNACCOUNTED if bin_ == NOWHERE else bin_


def _count_pairs(pairs: Iterable[tuple[str, str]]) -> Table:
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for row, column in pairs:
        table[row][column] += 1
    return {
        row: dict(sorted(table[row].items())) for row in sorted(table, key=lambda name: (name == UNKNOWN, name))
    }


def _late(batteries: Iterable[BatteryRecord]) -> int:
    return sum(b.reason == Reason.LATE or b.eject_outcome is EjectOutcome.LATE for b in batteries)


def _others_reasons(batteries: Iterable[BatteryRecord]) -> dict[str, int]:
    reasons = Counter(battery.reason or "" for battery in batteries if battery.bin == OTHERS)
    return dict(reasons.most_common())


@dataclass
class _Ejections:
    """What the PLC has reported of eject commands: batteries that were fired at with two tokens, and latencies."""

    fired_twice: set[str | None] = field(default_factory=set)
    latencies_ms: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, events: Iterable[Event]) -> _Ejections:
        found = cls()
        timed: set[tuple[str | None, int]] = set()
        fired: dict[str | None, int] = {}
        for event in events:
            if event.kind is not EventKind.EJECT_REPORTED:
                continue
            battery_id, token, latency_s = event.battery_id, event.payload["token"], event.payload.get("latency_s")
            if latency_s is not None and (battery_id, token) not in timed:
                timed.add((battery_id, token))
                found.latencies_ms.append(latency_s * 1000)
            if _is_fired(event) and fired.setdefault(battery_id, token) != token:
                found.fired_twice.add(battery_id)
        return found


def _is_fired(event: Event) -> bool:
    return event.kind is EventKind.EJECT_REPORTED and event.payload.get("outcome") in {"fired", EjectOutcome.FIRED}


def _pulsed_twice(pulses: Iterable[Mapping[str, Any]]) -> int:
    counts = Counter(pulse["token"] for pulse in pulses)
    return sum(count > 1 for count in counts.values())


def _type_accuracy(items: Iterable[_Item]) -> float | None:
    """Share of the batteries of known type whose most probable type was right, sure enough or not."""
    verdicts = [
        item.battery.label == item.label
        for item in items
        if item.label != UNKNOWN and item.battery is not None and item.battery.label
    ]
    return _share(sum(verdicts), len(verdicts))


def _purity_and_yield(items: Sequence[_Item]) -> tuple[Shares, Shares]:
    """Of the product bins: share of the content that belongs there, share of what belongs there that got there."""
    right = Counter(item.target for item in items if item.is_right)
    content = Counter(item.bin for item in items if item.bin is not None)
    wanted = Counter(item.target for item in items)
    bins = sorted(({*content, *wanted}) - {OTHERS, NOWHERE})
    purity = {name: _share(right[name], content[name]) for name in bins}
    yield_ = {name: _share(right[name], wanted[name]) for name in bins}
    total = sum(right[name] for name in bins)
    purity[ALL] = _share(total, sum(content[name] for name in bins))
    yield_[ALL] = _share(total, sum(wanted[name] for name in bins))
    return purity, yield_


def _position_errors_mm(pulses: Iterable[Mapping[str, Any]]) -> list[float]:
    errors = (pulse.get("position_error_mm") for pulse in pulses)
    return [abs(error) for error in errors if error is not None]


def _disagreements(items: Iterable[_Item]) -> list[dict[str, Any]]:
    """Batteries that are not where the ledger says they are."""
    return [
        {**item.where, "ledger_bin": item.battery.bin, "reason": item.battery.reason}
        for item in items
        if item.battery is not None and _has_place(item.battery) and item.bin != item.battery.bin
    ]


def _unordered_pulses(
    pulses: Iterable[Mapping[str, Any]], batteries: Iterable[BatteryRecord]
) -> list[dict[str, Any]]:
    """Ejections that nobody had written down before."""
    tokens = {battery.token for battery in batteries}
    return [
        {
            "index": None,
            "battery_id": None,
            "bin": pulse["bin"],
            "ledger_bin": None,
            "reason": f"token {pulse['token']}",
        }
        for pulse in pulses
        if pulse["token"] not in tokens
    ]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None

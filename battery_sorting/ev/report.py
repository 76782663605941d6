"""What a shift of an EV line came to: the story of every cell, and figures, judged by the plant's record if any.

`docs/reference/ev_line.md` explains the figures. Nothing here plots or prints.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from battery_sorting.core.strict_json import finite
from battery_sorting.core.types import NOWHERE, make_battery_id
from battery_sorting.drivers.tester.base import Charge, Discharge
from battery_sorting.ev.measurement import Measure, Programme
from battery_sorting.ev.places import holder, in_channel
from battery_sorting.ev.plant_record import BY_HAND
from battery_sorting.ev.site import HAZARDOUS, PRODUCT
from battery_sorting.ledger import BatteryRecord, Event, EventKind, Shift
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.reporting import Shares, ShiftReport, find_shift, spread

QUANTITIES = ("capacity_ah", "resistance_mohm", "ocv_v")
GRADES = ("A", "B", "C", "D")

NAMED_AS: dict[str, frozenset[str]] = {
    "loader.jam": frozenset({"load_jam"}),
    "loader.no_cell": frozenset({"bad_image_no_cell", "load_nothing"}),
    "loader.two_cells": frozenset({"bad_image_several_cells"}),
    "loader.upside_down": frozenset({"wrong_face"}),
    "flipper.jam": frozenset({"flip_jam"}),
    "flipper.half": frozenset({"half_flip"}),
    "flipper.silent": frozenset({"flip_timeout"}),
    "flipper.twice": frozenset({"answered_twice"}),
    "flipper.late": frozenset({"flip_timeout"}),
    "station.swap": frozenset({"identity_mismatch"}),
    "plc.restart": frozenset({"plc_restarted"}),
    **{
        f"{view}.{fault}": frozenset(codes)
        for view in ("lug", "case")
        for fault, codes in {
            "drop": {"no_frame"},
            "late": {"no_frame"},
            "disconnect": {"no_frame"},
            "wrong_size": {"bad_image_wrong_size"},
            "blank": {"bad_image_blank"},
            "saturated": {"bad_image_saturated"},
            "blurred": {"bad_image_blurred"},
        }.items()
    },
}
"""Fault of the plant → what the ledger calls it. A frame without colour or with 16 bits is no fault."""


# ---- stories ----


@dataclass(frozen=True, slots=True)
class InspectedFrame:
    """What the inspector said of one frame.

    Attributes:
        stamp: End of exposure (s).
        said_s: From there until the verdict stood in the ledger: transfer, inference, reading of the code.
        seconds: Of the inspector alone; None if it gave up.
    """

    view: str
    verdict: str
    reason: str
    kind: str
    probability: float | None
    novelty: float | None
    code: str
    face: str
    model: str
    seconds: float | None
    stamp: float
    said_s: float


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that went wrong with a cell."""

    code: str
    text: str
    step: str
    stamp: float


@dataclass(slots=True)
class CellStory:
    """What the ledger knows of one cell. ``None`` and empty texts are "not yet", or "never".

    Attributes:
        loaded_at: When it lay in the station (s).
        looks: Every look, in order; `views` has those that counted.
        outlet: By which it has left the station.
        reason: Why there, as decided; of a cell that was measured, why it went to its tray.
        measurement: As the tester recorded it, by the names of CellMeasurement.msg.
        probabilities: Of grades A to D.
        group: Name of its pack or group; ``leftover`` is why it is in none.
        place: Where it lies behind the station: the place of the robot that it was laid down at last.
        bin: The last word: outlet or tray; None while it is on its way, empty if nobody knows.
    """

    battery_id: str
    shift_id: int
    loaded_at: float
    code: str = ""
    looks: list[InspectedFrame] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    decided: str = ""
    outlet: str = ""
    released_at: float | None = None
    reason: str = ""
    text: str = ""
    moves: list[tuple[str, str, float]] = field(default_factory=list)
    tested_at: list[tuple[float, float]] = field(default_factory=list)
    measurement: dict[str, Any] | None = None
    measured_times: int = 0
    grade: str = ""
    grade_status: str = ""
    relation_degree: float | None = None
    probabilities: tuple[float, ...] = ()
    grouped_at: float | None = None
    group: str = ""
    leftover: str = ""
    place: str = ""
    bin: str | None = None
    bin_reason: str = ""
    ended_at: float | None = None

    @property
    def views(self) -> dict[str, InspectedFrame]:
        """The look at each view that counted: the last one."""
        return {look.view: look for look in self.looks}

    @property
    def codes(self) -> tuple[str, ...]:
        """Printed codes that were read, each once, in order."""
        return tuple(dict.fromkeys(look.code for look in self.looks if look.code))

    @property
    def accounted(self) -> bool:
        """Whether it has its last word, and that is a place."""
        return self.bin is not None and self.bin != NOWHERE

    @property
    def station_s(self) -> float | None:
        """From lying in the station to its release."""
        return None if self.released_at is None else self.released_at - self.loaded_at

    @property
    def where(self) -> str:
        """Where it is, as a person says it."""
        if self.bin == NOWHERE:
            return "unaccounted"
        return self.place or self.outlet or ("in the station" if self.bin is None else self.bin)

    def to_dict(self) -> dict[str, Any]:
        """Data for JSON."""
        looks = [{name: getattr(look, name) for name in InspectedFrame.__slots__} for look in self.looks]
        faults = [{name: getattr(fault, name) for name in Fault.__slots__} for fault in self.faults]
        plain = {name: getattr(self, name) for name in CellStory.__slots__}
        facts = {**plain, "looks": looks, "faults": faults, "moves": [list(move) for move in self.moves]}
        facts |= {"tested_at": [list(times) for times in self.tested_at], "probabilities": list(self.probabilities)}
        found: dict[str, Any] = finite(facts)
        return found


def stories_of(batteries: Iterable[BatteryRecord], events: Iterable[Event]) -> list[CellStory]:
    """The story of every cell, in the order of loading."""
    stories = {
        battery.battery_id: CellStory(battery.battery_id, battery.shift_id, battery.detected_at)
        for battery in batteries
    }
    for event in events:
        story = stories.get(event.battery_id or "")
        tell = _TELLERS.get(event.kind)
        if story is not None and tell is not None:
            tell(story, event, event.payload)
    return list(stories.values())


def _looked(story: CellStory, event: Event, payload: dict[str, Any]) -> None:
    story.looks.append(
        InspectedFrame(
            payload["view"],
            payload["verdict"],
            payload.get("reason") or "",
            payload.get("kind") or "",
            payload.get("probability"),
            payload.get("novelty"),
            payload.get("code") or "",
            payload.get("face") or "",
            payload.get("model") or "",
            payload.get("seconds"),
            event.stamp,
            event.recorded_at - event.stamp,
        )
    )
    story.code = story.code or payload.get("code") or ""


def _faulted(story: CellStory, event: Event, payload: dict[str, Any]) -> None:
    story.faults.append(Fault(payload["code"], payload.get("text") or "", payload.get("step") or "", event.stamp))


def _decided(story: CellStory, _: Event, payload: dict[str, Any]) -> None:
    story.decided = payload["bin"]
    story.reason, story.text = payload.get("reason") or "", payload.get("text") or ""


def _released(story: CellStory, event: Event, payload: dict[str, Any]) -> None:
    story.outlet, story.released_at = payload["outlet"], event.stamp


def _move_ordered(story: CellStory, event: Event, payload: dict[str, Any]) -> None:
    story.moves.append((payload["source"], payload["target"], event.stamp))


def _moved(story: CellStory, event: Event, payload: dict[str, Any]) -> None:
    story.place = payload["place"]
    if in_channel(story.place):
        story.tested_at.append((event.stamp, event.stamp))


def _measured(story: CellStory, event: Event, payload: dict[str, Any]) -> None:
    story.measurement, story.measured_times = dict(payload), story.measured_times + 1
    if story.tested_at:
        story.tested_at[-1] = (story.tested_at[-1][0], event.stamp)


def _graded(story: CellStory, _: Event, payload: dict[str, Any]) -> None:
    story.grade, story.grade_status = payload["grade"] or "", payload.get("status") or ""
    story.relation_degree = payload.get("relation_degree")
    story.probabilities = tuple(payload.get("probabilities") or ())


def _grouped(story: CellStory, event: Event, payload: dict[str, Any]) -> None:
    story.grouped_at, story.group = event.stamp, payload["group"] or ""
    story.leftover = payload.get("leftover") or ""


def _disposed(story: CellStory, event: Event, payload: dict[str, Any]) -> None:
    story.bin, story.bin_reason, story.ended_at = payload["bin"], payload["reason"], event.stamp


_TELLERS = {
    EventKind.LOOKED: _looked,
    EventKind.STATION_FAULT: _faulted,
    EventKind.DECIDED: _decided,
    EventKind.RELEASED: _released,
    EventKind.MOVE_ORDERED: _move_ordered,
    EventKind.MOVED: _moved,
    EventKind.MEASURED: _measured,
    EventKind.GRADED: _graded,
    EventKind.GROUPED: _grouped,
    EventKind.DISPOSED: _disposed,
}


# ---- a run ----


@dataclass(frozen=True)
class EvRun:
    """The cells and events that a report is about."""

    shift: Shift
    stories: list[CellStory]
    moves: dict[str, int]
    """What came of the robot's moves: ``done`` or the error → how many."""
    alarms: dict[str, str]
    """Alarms that were raised: code → the last text."""

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that the shift ran with; empty if none is on record."""
        recipe = self.shift.config.get("recipe")
        return recipe if isinstance(recipe, dict) else {}

    @property
    def site(self) -> dict[str, Any]:
        """The site that the shift ran at; empty if none is on record."""
        site = self.shift.config.get("site")
        return site if isinstance(site, dict) else {}

    @property
    def hazards(self) -> frozenset[str]:
        """Kinds of defect that the recipe sends to the hazardous outlet."""
        views: dict[str, Any] = self.recipe.get("views") or {}
        return frozenset(
            kind
            for view in views.values()
            for kind, outlet in (view.get("defects") or {}).items()
            if outlet == HAZARDOUS
        )


def load_ev_run(ledger: Ledger, shift_id: int | None = None, record: Mapping[str, Any] | None = None) -> EvRun:
    """Read what a report needs.

    Args:
        ledger: Where to read.
        shift_id: The shift; the last one if ``None``.
        record: Take only cells of this run of the plant, as returned by `load_ev_record`.

    Raises:
        LedgerError: The ledger has no shift, or not this one.
    """
    shift = find_shift(ledger, shift_id)
    batteries = ledger.batteries(shift.shift_id)
    if record is not None:
        boots = {make_battery_id(boot, 0).partition("-")[0] for boot in _boot_ids(record)}
        batteries = [battery for battery in batteries if battery.battery_id.partition("-")[0] in boots]
    known = {battery.battery_id for battery in batteries}
    moves: Counter[str] = Counter()
    alarms: dict[str, str] = {}

    def counted() -> Iterator[Event]:
        """The events one after the other: none is kept but what goes into figures and stories."""
        for event in ledger.each_event(shift.shift_id):  # all, so that one that can't be read is found
            if event.kind is EventKind.MOVED and event.battery_id in known:
                moves[event.payload.get("error") or "done"] += 1
            elif event.kind is EventKind.ALARM_RAISED:
                alarms[event.payload.get("code") or "alarm"] = event.payload.get("text") or ""
            yield event

    stories = stories_of(batteries, counted())
    return EvRun(shift, stories, dict(moves), alarms)


def _boot_ids(record: Mapping[str, Any]) -> set[int]:
    return {record["boot_id"], *(load["boot_id"] for load in record.get("loads", ()))}


# ---- figures ----


@dataclass
class GroupFigures:
    """One pack or group. ``ranges`` are by quantity, None where a value is missing."""

    name: str
    cells: list[str]
    tray: str
    grades: dict[str, int]
    ranges: dict[str, float | None]


@dataclass
class EvJudgement:
    """What the plant's record says of a run.

    Attributes:
        cells: Cells that the loader has brought.
        lost: Cells that the ledger does not know, or has no place for: must be empty.
        faulty_products: Cells with a fault on their way that became a product: must be empty.
        disagreements: Cells that are in another outlet or place than the ledger says: must be empty.
        escapes: Defective cells that became a product, with kind and severity.
        defects: Kind → cells that have it, and how many of them became a product.
        detections: Every defect with its severity, and what the look at it said.
        good_rejected: Good cells without a fault that became no product: reason → how many.
        hazards_elsewhere: Cells with a hazardous defect that are not in the hazardous outlet.
        faults: Name of the plant's fault → how often it struck.
        faults_unnamed: Faults after which the ledger has no fault of the cell.
        faults_named_otherwise: Those that the ledger calls by another name, mostly since a cell had two.
        errors: Quantity → error of the measurements against the truth.
    """

    cells: int = 0
    lost: list[dict[str, Any]] = field(default_factory=list)
    faulty_products: list[dict[str, Any]] = field(default_factory=list)
    disagreements: list[dict[str, Any]] = field(default_factory=list)
    escapes: list[dict[str, Any]] = field(default_factory=list)
    defects: dict[str, dict[str, int]] = field(default_factory=dict)
    detections: list[dict[str, Any]] = field(default_factory=list)
    good: int = 0
    good_rejected: dict[str, int] = field(default_factory=dict)
    hazards: int = 0
    hazards_elsewhere: list[dict[str, Any]] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    faults_unnamed: list[dict[str, Any]] = field(default_factory=list)
    faults_named_otherwise: list[dict[str, Any]] = field(default_factory=list)
    errors: dict[str, dict[str, float | int | None]] = field(default_factory=dict)


@dataclass
class EvFigures:
    """What a run came to. Times in seconds; ``None`` is "can't be said".

    Attributes:
        cells: Cells that came, as the ledger has them.
        accounted: Of these, cells whose last word is a place.
        open: Cells that are on their way.
        outlets: Outlet → cells; ``unaccounted`` for those that left without an order.
        reasons: Outlet → reason → cells.
        verdicts: View → verdict → cells, of the look that counted.
        faults: Code → cells.
        station_s: From lying in the station to the release.
        cycle_s: From one cell in the station to the next, where the line did not stand still between.
        inference_s: The inspector's, both views of a cell.
        looking_s: From the end of exposure to the verdict in the ledger, both views: the station without mechanics.
        test_s: From the seat in the channel to the measurement (a simulated tester runs faster than the clock).
        trays: Tray → cells.
        leftover: Why measured cells are in no group → cells.
        moves: What came of the robot's moves.
        judged: By the plant's record, if there was one.
    """

    cells: int = 0
    accounted: int = 0
    open: int = 0
    outlets: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    verdicts: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    station_s: Shares = field(default_factory=dict)
    cycle_s: Shares = field(default_factory=dict)
    inference_s: Shares = field(default_factory=dict)
    looking_s: Shares = field(default_factory=dict)
    test_s: Shares = field(default_factory=dict)
    measured: int = 0
    measured_again: int = 0
    grades: dict[str, int] = field(default_factory=dict)
    groups: list[GroupFigures] = field(default_factory=list)
    leftover: dict[str, int] = field(default_factory=dict)
    trays: dict[str, int] = field(default_factory=dict)
    moves: dict[str, int] = field(default_factory=dict)
    alarms: dict[str, str] = field(default_factory=dict)
    judged: EvJudgement | None = None
    startup_s: float | None = None
    memory_mb: Mapping[str, float] | None = None
    cpu_percent: Mapping[str, float] | None = None

    @property
    def failures(self) -> list[str]:
        """Why the line has not worked; empty if it has. A misjudged cell is the model's fault, not the line's."""
        wrong = {"cells without an account": self.cells - self.accounted}
        if self.judged is not None:
            wrong |= {
                "cells that the ledger has lost": len(self.judged.lost),
                "cells with a fault that became a product": len(self.judged.faulty_products),
                "cells in another place than the ledger says": len(self.judged.disagreements),
            }
        return [f"{text}: {count}" for text, count in wrong.items() if count]

    def to_dict(self) -> dict[str, Any]:
        """Data for JSON: keys as the fields; NaN and infinities become ``None``."""
        facts = dict(vars(self))
        facts["groups"] = [vars(group) for group in self.groups]
        facts["judged"] = None if self.judged is None else vars(self.judged)
        facts["failures"] = self.failures
        found: dict[str, Any] = finite(facts)
        return found


@dataclass(frozen=True)
class EvReport(ShiftReport):
    """A run of an EV line with its figures."""

    run: EvRun
    figures: EvFigures
    item = "cell"

    @property
    def shift(self) -> Shift:
        """The shift that it is about."""
        return self.run.shift

    @property
    def empty(self) -> bool:
        """Whether nothing has come yet."""
        return not self.run.stories

    @property
    def failures(self) -> list[str]:
        """Why the line has not worked; empty if it has."""
        return self.figures.failures

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        return self.figures.to_dict()


def ev_figures(run: EvRun) -> EvFigures:
    """Figures of a run from the ledger alone."""
    stories = run.stories
    result = EvFigures(
        cells=len(stories),
        accounted=sum(story.accounted for story in stories),
        open=sum(story.bin is None for story in stories),
        outlets=_count(_outlet(story) for story in stories),
        faults=_count(code for story in stories for code in {fault.code for fault in story.faults}),
        grades=_grade_counts(stories),
        measured=sum(story.measurement is not None for story in stories),
        measured_again=sum(story.measured_times > 1 for story in stories),
        groups=_groups(stories),
        leftover=_count(story.leftover for story in stories if story.leftover),
        trays=_count(holder(story.place) for story in stories if story.measurement and story.bin),
        moves=run.moves,
        alarms=run.alarms,
    )
    for story in stories:
        reasons = result.reasons.setdefault(_outlet(story), {})
        reason = story.reason or story.bin_reason or "none yet"
        reasons[reason] = reasons.get(reason, 0) + 1
        for view, look in story.views.items():
            verdicts = result.verdicts.setdefault(view, {})
            verdicts[look.verdict] = verdicts.get(look.verdict, 0) + 1
    result.station_s = _times(story.station_s for story in stories)
    result.cycle_s = _times(_cycles(stories))
    both = [story for story in stories if {"lug", "case"} <= story.views.keys()]
    result.inference_s = _times(
        sum(look.seconds or 0.0 for look in story.views.values()) for story in both if _has_seconds(story)
    )
    result.looking_s = _times(sum(look.said_s for look in story.views.values()) for story in both)
    result.test_s = _times(
        end - begin for story in stories if story.measurement for begin, end in story.tested_at if end > begin
    )
    return result


LONG_PAUSE_S = 30.0
"""Between two cells: longer, and the line stood still."""


def _cycles(stories: Sequence[CellStory]) -> list[float]:
    loaded = sorted(story.loaded_at for story in stories)
    gaps = [after - before for before, after in pairwise(loaded)]
    return [gap for gap in gaps if gap <= LONG_PAUSE_S]


def _has_seconds(story: CellStory) -> bool:
    return all(look.seconds is not None for look in story.views.values())


def _outlet(story: CellStory) -> str:
    if story.outlet:
        return story.outlet
    return "unaccounted" if story.bin == NOWHERE else "in the station"


def _grade_counts(stories: Sequence[CellStory]) -> dict[str, int]:
    found = Counter(story.grade or "invalid" for story in stories if story.grade_status)
    return {grade: found[grade] for grade in (*GRADES, "invalid") if found[grade]}


def _groups(stories: Sequence[CellStory]) -> list[GroupFigures]:
    """Packs or groups of every batch: names may come again when trays were emptied."""
    members: dict[tuple[float, str], list[CellStory]] = defaultdict(list)
    for story in stories:
        if story.group and story.grouped_at is not None:
            members[story.grouped_at, story.group].append(story)
    found = []
    for (_, name), cells in sorted(members.items(), key=lambda item: (item[0][0], len(item[0][1]), item[0][1])):
        trays = {holder(cell.place) for cell in cells if cell.bin}
        ranges: dict[str, float | None] = {}
        for quantity in QUANTITIES:
            values = [_number(cell.measurement, quantity) for cell in cells]
            known = [value for value in values if value is not None]
            ranges[quantity] = max(known) - min(known) if len(known) == len(cells) else None
        grades = dict(sorted(Counter(cell.grade for cell in cells).items()))
        found.append(
            GroupFigures(name, [cell.battery_id for cell in cells], ", ".join(sorted(trays)), grades, ranges)
        )
    return found


# ---- the plant's record as the truth ----


def judge_ev_run(run: EvRun, record: Mapping[str, Any]) -> EvFigures:
    """Figures of a run with the plant's record as the truth.

    A cell of the plant is the one whose printed code the ledger has read, else the one that the loader brought as
    the number in the battery_id says.

    Args:
        run: Read for this record, see `load_ev_run`.
        record: As returned by `battery_sorting.ev.plant_record.load_ev_record`.
    """
    result = ev_figures(run)
    cells = {cell["index"]: cell for cell in record["cells"]}
    owners = _match(run.stories, record)
    judged = result.judged = EvJudgement(cells=len(cells))
    brought = {index for load in record["loads"] for index in load["cells"]}
    for index, cell in cells.items():
        story = owners.get(index)
        taken_out = cell["outlet"] == BY_HAND
        if taken_out or (index not in brought and index not in owners and cell["outlet"] is None):
            continue  # somebody has it, or it is still in the magazine
        _judge_cell(judged, run, cell, story)
        if story is None or not story.accounted:
            judged.lost.append(_facts(cell, story))
        elif not _agrees(cell, story):
            facts = {"ledger_outlet": story.outlet, "ledger_place": story.place, "reason": story.bin_reason}
            judged.disagreements.append({**_facts(cell, story), **facts})
    _judge_faults(judged, run, record, owners)
    judged.errors = _measurement_errors(cells.values(), owners)
    return result


def _match(stories: Sequence[CellStory], record: Mapping[str, Any]) -> dict[int, CellStory]:
    """Index of a plant's cell → its story."""
    by_serial = {cell["serial"]: cell["index"] for cell in record["cells"]}
    by_load = {make_battery_id(load["boot_id"], load["number"]): load["cells"] for load in record["loads"]}
    owners: dict[int, CellStory] = {}
    for story in stories:
        for index in by_load.get(story.battery_id.partition(".")[0], ()):
            owners[index] = story
    for swap in record["swaps"]:
        for index in swap["taken"]:
            if index in owners:
                owners[swap["put"]] = owners[index]
    for story in stories:
        owners.update({by_serial[code]: story for code in story.codes if code in by_serial})
    return owners


def _agrees(cell: Mapping[str, Any], story: CellStory) -> bool:
    return (cell["outlet"] or "", cell.get("place") or "") == (story.outlet, story.place)


def _facts(cell: Mapping[str, Any], story: CellStory | None) -> dict[str, Any]:
    return {
        "serial": cell["serial"],
        "battery_id": None if story is None else story.battery_id,
        "lug": cell["lug"],
        "case": cell["case"],
        "severities": dict(cell["severities"]),
        "faults": list(cell["faults"]),
        "outlet": cell["outlet"],
        "place": cell.get("place"),
    }


def _judge_cell(judged: EvJudgement, run: EvRun, cell: Mapping[str, Any], story: CellStory | None) -> None:
    product = cell["outlet"] == PRODUCT
    defects = [kind for kind in (cell["lug"], cell["case"]) if kind != "good"]
    for kind in defects:
        counts = judged.defects.setdefault(kind, {"cells": 0, "escaped": 0})
        counts["cells"] += 1
        counts["escaped"] += product
    judged.detections += _detections(cell, story)
    reason = "" if story is None else story.reason
    faulty = any(name in NAMED_AS for name in cell["faults"])
    if product and faulty and not run.recipe.get("faulty_may_pass"):
        judged.faulty_products.append(_facts(cell, story))
    if product and defects:
        judged.escapes.append(_facts(cell, story))
    if not defects and not cell["faults"]:
        judged.good += 1
        if not product:
            judged.good_rejected[reason or "none yet"] = judged.good_rejected.get(reason or "none yet", 0) + 1
    if run.hazards & set(defects):
        judged.hazards += 1
        if cell["outlet"] != HAZARDOUS:
            judged.hazards_elsewhere.append({**_facts(cell, story), "reason": reason})


def _detections(cell: Mapping[str, Any], story: CellStory | None) -> list[dict[str, Any]]:
    """The defects of a cell that were looked at without a fault on the way."""
    views = {} if story is None or cell["faults"] else story.views
    return [
        {
            "view": view,
            "kind": cell[view],
            "severity": cell["severities"].get(cell[view]),
            "probability": look.probability,
            "verdict": look.verdict,
        }
        for view, look in views.items()
        if cell[view] != "good"
    ]


def _judge_faults(
    judged: EvJudgement, run: EvRun, record: Mapping[str, Any], owners: Mapping[int, CellStory]
) -> None:
    of_cells = [
        (name, cell) for cell in record["cells"] for name in dict.fromkeys(cell["faults"]) if name in NAMED_AS
    ]
    of_none = [entry["name"] for entry in record["injected"] if not entry["cells"] and entry["name"] in NAMED_AS]
    judged.faults = _count([*(name for name, _ in of_cells), *of_none])
    for name, cell in of_cells:
        story = owners.get(cell["index"])
        codes = set() if story is None else {fault.code for fault in story.faults}
        facts = {"fault": name, "named": sorted(codes), **_facts(cell, story)}
        if not codes:
            judged.faults_unnamed.append(facts)
        elif not codes & NAMED_AS[name]:
            judged.faults_named_otherwise.append(facts)
    for name, count in Counter(of_none).items():
        # The loader's fault befell no cell: whoever came next has it in its record.
        named = sum(fault.code in NAMED_AS[name] for story in run.stories for fault in story.faults)
        missing = {"fault": name, "named": [], "battery_id": None}
        judged.faults_unnamed += [missing] * max(0, count - named)


def _measurement_errors(
    cells: Iterable[Mapping[str, Any]], owners: Mapping[int, CellStory]
) -> dict[str, dict[str, float | int | None]]:
    """Error of each quantity. The truth is that at the end of the test, moments after the reading."""
    errors: dict[str, list[tuple[float, float | None]]] = {name: [] for name in QUANTITIES}
    for cell in cells:
        story, truth = owners.get(cell["index"]), cell.get("measured")
        if story is None or story.measurement is None or truth is None:
            continue
        for name, values in errors.items():
            measured = _number(story.measurement, name)
            if measured is not None:
                quantity, _, unit = name.rpartition("_")
                values.append(
                    (measured - truth[name], _number(story.measurement, f"{quantity}_uncertainty_{unit}"))
                )
    return {name: _error_figures(values) for name, values in errors.items() if values}


def _error_figures(errors: Sequence[tuple[float, float | None]]) -> dict[str, float | int | None]:
    sizes = [abs(error) for error, _ in errors]
    limits = [(abs(error), limit) for error, limit in errors if limit is not None]
    return {
        "cells": len(errors),
        "mean": sum(error for error, _ in errors) / len(errors),
        "median_abs": spread(sizes, p50=50)["p50"],
        "max_abs": max(sizes),
        "within_limit": sum(size <= limit for size, limit in limits),
        "with_limit": len(limits),
    }


def _number(values: Mapping[str, Any] | None, name: str) -> float | None:
    value = None if values is None else values.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def _times(values: Iterable[float | None]) -> Shares:
    return spread([value for value in values if value is not None], median=50, p95=95, max=100)


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


# ---- what if there were more channels? ----


@dataclass(frozen=True, slots=True)
class Channels:
    """What so many channels of the tester would do.

    Attributes:
        tested_per_h: Cells that they test in an hour; ``station_share`` of the good cells that the station sends.
    """

    channels: int
    tested_per_h: float
    station_share: float


@dataclass(frozen=True, slots=True)
class WhatIf:
    """How the tester limits the line. Estimates for real hardware, with the times of this run.

    Attributes:
        test_h: A test takes so long at most: the programme for a cell that comes empty.
        cycle_s: From one cell in the station to the next, with mechanics that run at their real pace.
        products_per_h: Good cells that the station would send to the tester.
        needed: Channels that would test all of them.
    """

    test_h: float
    cycle_s: float
    products_per_h: float
    channels_now: int
    needed: int
    rows: tuple[Channels, ...]


def what_if(run: EvRun, figures: EvFigures) -> WhatIf | None:
    """What the line would do with other numbers of channels; None where nothing was measured.

    The robot's moves are left out: they take seconds, a test takes hours.
    """
    measuring, site = run.recipe.get("measuring"), run.site
    capacities = [_number(story.measurement, "capacity_ah") for story in run.stories]
    known = [capacity for capacity in capacities if capacity and capacity > 0]
    cycle_s, looking_s = figures.cycle_s.get("median"), figures.looking_s.get("median")
    products = figures.outlets.get(PRODUCT, 0)
    if not (measuring and known and cycle_s and looking_s and products):
        return None
    try:
        programme = Programme.model_validate(measuring.get("programme"))
    except ValidationError:  # of another version of this software, or damaged
        return None
    test_h = programme_hours(programme, sum(known) / len(known))
    pace = float((site.get("plant") or {}).get("time_factor", 1.0))
    real_s = looking_s + max(0.0, cycle_s - looking_s) * pace
    products_per_h = 3600.0 / real_s * products / figures.cells
    needed = math.ceil(products_per_h * test_h)
    now = (site.get("measuring") or {}).get("channels", 0)
    counts = sorted({now, needed, *(2**power for power in range(3, 12) if 2**power < needed)} - {0})
    rows = [Channels(n, n / test_h, min(1.0, n / test_h / products_per_h)) for n in counts]
    return WhatIf(test_h, real_s, products_per_h, now, needed, tuple(rows))


def programme_hours(programme: Programme, capacity_ah: float) -> float:
    """Longest time of a programme for a cell of ``capacity_ah`` that comes empty, without the constant voltage."""
    seconds = 0.0
    for step in programme.steps:
        if isinstance(step, Charge):
            seconds += 3600.0 * (step.to_soc or 1.0) * capacity_ah / step.current_a
        elif isinstance(step, Discharge):
            seconds += 3600.0 * capacity_ah / step.current_a
        elif not isinstance(step, Measure):
            seconds += step.seconds
    return seconds / 3600.0

"""Judges a soak by the plant's own record and the ledger.

The belt's record is read while it grows, and a battery that is judged is forgotten: a soak of days needs no more
memory than one of minutes. What is kept is what was wrong, and a bit for each battery.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from battery_sorting.core.errors import LedgerError
from battery_sorting.core.types import NOWHERE, OTHERS, Reason, make_battery_id
from battery_sorting.ev.report import EvFigures, EvRun

from .book import reading

ONE_IN = 2000
"""At most one battery in so many may be unaccounted for."""
LISTED = 200
"""So many offenders of each kind are listed; the count goes on."""
NEIGHBOURS = 64
"""So many tokens that have fired are remembered to tell whose pulse hit a battery that nobody had seen."""

Offence = dict[str, Any]


@dataclass
class Offences:
    """Batteries with one kind of offence: how many, and the first of them."""

    count: int = 0
    listed: list[Offence] = field(default_factory=list)

    def add(self, offence: Offence) -> None:
        """One more."""
        self.count += 1
        if len(self.listed) < LISTED:
            self.listed.append(offence)


MUST_BE_EMPTY = {
    "wrong_product": "in a product bin that its verdict does not name",
    "unseen_in_product": "in a product bin without a record",
    "ejected_twice": "ejected twice",
    "unordered": "ejected without a record",
    "lost": "not in the ledger",
    "invented": "in the ledger, but not on the belt",
    "open": "without a last word",
    "record_differs": "elsewhere than the ledger says, though the PLC saw where it went",
    "knowable": "unaccounted, though the PLC has seen it fired or at the exit",
}
EV_MUST_BE_EMPTY = {
    "faulty_products": "with a fault on its way and a product all the same",
    "lost": "not in the ledger, or without a place",
    "disagreements": "in another outlet or place than the ledger says",
    "open": "without a last word",
    "channels_on": "channel on at the end",
    "torn": "taken by the robot out of closed contacts",
}


@dataclass
class Judgement:
    """What came of a soak.

    Attributes:
        batteries: That were judged.
        misnamed: In the bin that the verdict names, but of another type: the classifier's fault, not the line's.
        unaccounted: Of which the ledger does not know where they are.
        offences: Kind → batteries, for the kinds of `MUST_BE_EMPTY` or `EV_MUST_BE_EMPTY`.
        reasons: Last word of the ledger → how many.
    """

    must_be_empty: Mapping[str, str] = field(default_factory=lambda: MUST_BE_EMPTY)
    batteries: int = 0
    products: int = 0
    others: int = 0
    misnamed: int = 0
    unseen: int = 0
    excused: int = 0
    unaccounted: Offences = field(default_factory=Offences)
    offences: dict[str, Offences] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    def offend(self, kind: str, offence: Offence) -> None:
        """Take down an offender."""
        self.offences.setdefault(kind, Offences()).add(offence)

    @property
    def failures(self) -> list[str]:
        """Why the line has not passed; empty if it has."""
        found = [
            f"{text}: {self.offences[kind].count}"
            for kind, text in self.must_be_empty.items()
            if kind in self.offences
        ]
        if self.unaccounted.count > self.batteries // ONE_IN:
            found.append(f"unaccounted: {self.unaccounted.count} of {self.batteries}, at most 1 in {ONE_IN} may be")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Data for JSON."""
        counts = {name: getattr(self, name) for name in ("batteries", "products", "others", "misnamed", "unseen")}
        offences = {kind: vars(self.offences.get(kind, Offences())) for kind in self.must_be_empty}
        rest = {"excused": self.excused, "unaccounted": vars(self.unaccounted), "reasons": dict(self.reasons)}
        return {**counts, **rest, "offences": offences}


@dataclass(slots=True)
class _Item:
    """A battery of the plant that is not judged yet."""

    index: int
    label: str
    known: bool
    trigger: int | None = None
    bin: str | None = None
    t_s: float = 0.0
    exited: bool = False
    hit_by: int | None = None


_COLUMNS = "battery_id, label, accepted, decided_bin, decided_reason, token, eject_outcome, bin, reason"


class BeltJudge:
    """Follows the plant's record and the ledger of a belt that runs.

    Args:
        record: The plant's record file.
        ledger: The ledger's file.
        routes: Type → bin, as in the recipe.
        fault_at: Number of the fault before a plant time (s), for the lists.
    """

    def __init__(
        self,
        record: Path,
        ledger: Path,
        routes: Mapping[str, str],
        fault_at: Callable[[float], int | None],
    ) -> None:
        self.judgement = Judgement()
        self.triggers = 0
        self.trigger_t_s = 0.0
        self._record, self._ledger, self._routes, self._fault_at = record, ledger, routes, fault_at
        self._place = 0
        self._boot_id = 0
        self._items: dict[int, _Item] = {}
        self._fallen: dict[int, _Item] = {}
        self._fired = bytearray()
        self._known = bytearray()  # per edge: bit 0 a battery of the plant, bit 1 in the ledger, bit 2 a ghost
        self._whose: OrderedDict[int, int] = OrderedDict()
        self._detected_id = 0

    # ---- the plant ----

    def follow(self) -> None:
        """Take in what has happened since the last call."""
        self._read_record()
        self._read_detections()
        self._settle(final=False)

    def finish(self, *, partial: bool) -> Judgement:
        """The judgement, when plant and line have ended. ``partial``: what was still on the belt is not judged."""
        self._read_record()
        self._read_detections()
        self._settle(final=not partial)
        if not partial:
            for trigger, bits in enumerate(self._known):
                if bits == 2:
                    self.judgement.offend("invented", {"battery_id": make_battery_id(self._boot_id, trigger)})
        return self.judgement

    def _read_record(self) -> None:
        try:
            with self._record.open("rb") as file:
                file.seek(self._place)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._place += len(line)
                    self._apply(json.loads(line))
        except FileNotFoundError:
            return

    def _apply(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "start":
            self._boot_id = event["boot_id"]
        elif kind == "item":
            self._items[event["index"]] = _Item(event["index"], event["label"], event["known"], t_s=event["t_s"])
        elif kind == "trigger":
            self.triggers, self.trigger_t_s = event["trigger_count"], event["t_s"]
            _set_bit(self._known, event["trigger_count"], 4 if event["index"] is None else 1)
            if event["index"] is not None:
                self._items[event["index"]].trigger = event["trigger_count"]
        elif kind == "exit":
            self._items[event["index"]].exited = True
        elif kind == "bin":
            item = self._items.pop(event["index"])
            item.bin, item.t_s = event["bin"], event["t_s"]
            self._fallen[item.index] = item
        elif kind == "pulse":
            self._take_pulse(event)

    def _take_pulse(self, event: dict[str, Any]) -> None:
        token = event["token"]
        if token < len(self._fired) and self._fired[token]:
            self.judgement.offend("ejected_twice", self._facts(token, event["t_s"], bin=event["bin"]))
        _set_bit(self._fired, token, 1)
        for index in event["hit"]:
            self._whose[index] = token
            if index in self._fallen:
                self._fallen[index].hit_by = token
        while len(self._whose) > NEIGHBOURS:
            self._whose.popitem(last=False)

    # ---- the ledger ----

    def _read_detections(self) -> None:
        for battery_id, event_id in self._rows(
            "SELECT battery_id, id FROM events NOT INDEXED WHERE id > ? AND kind = 'detected' ORDER BY id",
            [self._detected_id],
        ):
            self._detected_id = event_id
            boot, _, number = battery_id.rpartition("-")
            if boot != make_battery_id(self._boot_id, 0).rpartition("-")[0]:
                self.judgement.offend("invented", {"battery_id": battery_id})
            else:
                _set_bit(self._known, int(number), 2)

    def _settle(self, *, final: bool) -> None:
        """Judge the batteries that have fallen and have their last word."""
        waiting = {
            make_battery_id(self._boot_id, item.trigger): item
            for item in self._fallen.values()
            if item.trigger is not None
        }
        for item in [item for item in self._fallen.values() if item.trigger is None]:
            if item.bin == OTHERS or item.hit_by is not None or final:
                self._judge_unseen(self._fallen.pop(item.index))
        ids = list(waiting)
        for begin in range(0, len(ids), 200):
            part = ids[begin : begin + 200]
            marks = ", ".join("?" * len(part))
            for row in self._rows(f"SELECT {_COLUMNS} FROM batteries WHERE battery_id IN ({marks})", part):
                record = dict(zip(_COLUMNS.split(", "), row, strict=True))
                item = waiting[record["battery_id"]]
                if record["bin"] is not None:
                    del waiting[record["battery_id"]]
                    self._judge(self._fallen.pop(item.index), record)
                elif final:
                    del waiting[record["battery_id"]]
                    self._count(self._fallen.pop(item.index))
                    self._offend("open", item, record)
        if final:
            for item in waiting.values():
                self._count(self._fallen.pop(item.index))
                self._offend("lost", item, {})

    def _rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        if not self._ledger.exists():
            return []
        try:
            with reading(self._ledger) as connection:
                return connection.execute(query, values).fetchall()
        except LedgerError:  # the next time
            return []

    # ---- one battery ----

    def _count(self, item: _Item) -> None:
        self.judgement.batteries += 1
        self.judgement.products += item.bin != OTHERS
        self.judgement.others += item.bin == OTHERS

    def _judge_unseen(self, item: _Item) -> None:
        """A battery that made no edge at the photo-eye: the line can't know it, so it must lie in *others*."""
        self.judgement.unseen += 1
        if item.bin != OTHERS:
            self._offend("unseen_in_product", item, {})

    def _judge(self, item: _Item, record: dict[str, Any]) -> None:
        self._count(item)
        judgement = self.judgement
        judgement.reasons[record["reason"]] += 1
        fired = bool(item.trigger is not None and item.trigger < len(self._fired) and self._fired[item.trigger])
        verdict = self._routes.get(record["label"], OTHERS) if record["accepted"] and record["label"] else None
        if item.bin != OTHERS and item.bin != verdict:
            self._offend("wrong_product", item, record, verdict_bin=verdict, fired=fired)
        elif item.bin != OTHERS and (not item.known or record["label"] != item.label):
            judgement.misnamed += 1
        if record["token"] is None and fired:
            self._offend("unordered", item, record)
        if record["bin"] == NOWHERE:
            self._judge_unaccounted(item, record, fired)
        elif record["bin"] != item.bin:
            # Fired at and not seen at the exit: nobody can know that the jet did not move it.
            if fired and not item.exited and record["bin"] == record["decided_bin"]:
                judgement.excused += 1
            else:
                self._offend("record_differs", item, record, ledger_bin=record["bin"], fired=fired)

    def _judge_unaccounted(self, item: _Item, record: dict[str, Any], fired: bool) -> None:
        facts = self._item_facts(item, record, fired=fired, exited=item.exited)
        if record["reason"] == Reason.FALSE_TRIGGER:
            self.judgement.offend("record_differs", facts)  # a battery that the ledger takes for none
            return
        self.judgement.unaccounted.add(facts)
        if fired or item.exited:
            self.judgement.offend("knowable", facts)

    def _offend(self, kind: str, item: _Item, record: Mapping[str, Any], **more: Any) -> None:
        self.judgement.offend(kind, self._item_facts(item, record, **more))

    def _item_facts(self, item: _Item, record: Mapping[str, Any], **more: Any) -> Offence:
        said = {
            key: record.get(key) for key in ("label", "decided_bin", "decided_reason", "eject_outcome", "reason")
        }
        return self._facts(item.trigger, item.t_s, index=item.index, true=item.label, bin=item.bin, **said, **more)

    def _facts(self, trigger: int | None, t_s: float, **more: Any) -> Offence:
        battery_id = None if trigger is None else make_battery_id(self._boot_id, trigger)
        return {"battery_id": battery_id, "t_s": round(t_s, 3), "fault": self._fault_at(t_s), **more}


def _set_bit(bits: bytearray, number: int, bit: int) -> None:
    if number >= len(bits):
        bits.extend(bytes(number + 1024 - len(bits)))
    bits[number] |= bit


# ---- the EV line ----


def judge_ev_round(
    judgement: Judgement,
    run: EvRun,
    figures: EvFigures,
    channels_on: Sequence[int],
    torn: Sequence[Mapping[str, Any]],
    fault_at: Callable[[float], int | None],
    times: Mapping[str, float],
    *,
    partial: bool,
) -> None:
    """Add one round of an EV line to ``judgement``.

    Args:
        judgement: Takes it.
        run: What the ledger says.
        figures: Judged by the plant's record.
        channels_on: Channels of the tester whose contacts were closed when the round had ended.
        torn: Events of the plant in which the robot tore a cell out of a channel's closed contacts.
        fault_at: Number of the fault before a plant time (s).
        times: Serial → plant time at which the cell came to lie in its outlet (s).
        partial: Cells on their way are not judged.
    """
    judged = figures.judged
    assert judged is not None
    judgement.batteries += figures.cells
    judgement.products += figures.outlets.get("product", 0)
    judgement.others += figures.cells - figures.outlets.get("product", 0)
    judgement.misnamed += len(judged.escapes)
    judgement.reasons.update(story.bin_reason or story.reason or "none yet" for story in run.stories)
    open_ = {story.battery_id for story in run.stories if story.bin is None}

    def offend(kind: str, facts: Mapping[str, Any]) -> None:
        t_s = times.get(str(facts.get("serial")))
        judgement.offend(kind, {**facts, "fault": None if t_s is None else fault_at(t_s)})

    for facts in judged.faulty_products:
        offend("faulty_products", facts)
    for facts in judged.disagreements:
        if not (partial and facts["battery_id"] in open_):
            offend("disagreements", facts)
    for facts in judged.lost:
        if facts["battery_id"] in open_:
            if not partial:
                offend("open", facts)
        elif facts["place"] == "floor":
            judgement.excused += 1  # the robot has dropped it: unaccounted is what the docs say of it
        elif not (partial and facts["battery_id"] is None):
            offend("lost", facts)
    for event in torn:
        judgement.offend("torn", {**event, "fault": fault_at(event["t_s"])})
    if not partial:
        for channel in channels_on:
            judgement.offend("channels_on", {"channel": channel})

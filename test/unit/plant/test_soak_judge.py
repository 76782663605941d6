"""The soak's judge, its faults and its person. # issue 14, point 18"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.soak.book import Book
from support.soak.faults import PARAMETERS, SWITCHES, Deck, facts, off, read_faults, switch_draw, write_faults
from support.soak.judge import EV_MUST_BE_EMPTY, BeltJudge, Judgement, judge_ev_round

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.types import make_battery_id
from battery_sorting.ev.report import EvFigures, load_ev_run
from battery_sorting.ev.report import EvJudgement as EvJudgement
from battery_sorting.ledger.events import (
    AlarmCleared,
    AlarmRaised,
    Decided,
    Detected,
    Disposed,
    EjectOrdered,
    LineStateChanged,
    Typed,
)
from battery_sorting.ledger.store import Ledger
from battery_sorting.plant import instruments
from battery_sorting.plant.belt_process import make_config
from battery_sorting.plant.ev_station import EvFaults
from battery_sorting.plant.record import Recorder
from battery_sorting.plant.robot import RobotFaults
from battery_sorting.plant.world import Faults

BOOT = 0x6A000001
ROUTES = {"A": "bin_a", "B": "bin_b"}
PLANT_SWITCHES = {
    "belt": Faults().as_dict(),
    "ev": {**EvFaults().as_dict(), **RobotFaults().as_dict(), **instruments.TesterFaults().as_dict()},
}


class Shift:
    """A shift as plant and ledger would have written it, battery by battery."""

    def __init__(self, folder: Path) -> None:
        self.record, self.ledger = folder / "plant.jsonl", folder / "ledger.sqlite"
        self._number = 0
        self.tell(event="start", boot_id=BOOT)
        with Ledger.open(self.ledger) as ledger:
            ledger.begin_shift("belt", "sim", 0.0)

    def tell(self, **event: object) -> None:
        with self.record.open("a") as file:
            file.write(json.dumps(event) + "\n")

    def battery(
        self,
        truth: str = "A",
        where: str = "bin_a",
        label: str | None = "A",
        said: str | None = "bin_a",
        reason: str = "sorted",
        *,
        fired: int = 1,
        exited: bool = False,
        seen: bool = True,
        in_ledger: bool = True,
        ordered: bool = True,
    ) -> str:
        """One battery: what it was, where it fell, what was made of it. Returns its id."""
        self._number += 1
        number, index = self._number, self._number - 1
        battery_id, t_s = make_battery_id(BOOT, number), float(number)
        self.tell(event="item", t_s=t_s, index=index, label=truth, known=truth in ROUTES)
        if seen:
            self.tell(event="trigger", t_s=t_s, index=index, trigger_count=number)
        if exited:
            self.tell(event="exit", t_s=t_s, index=index, exit_count=number)
        self.tell(event="bin", t_s=t_s, index=index, bin=where)
        for _ in range(fired):
            self.tell(event="pulse", t_s=t_s, token=number, bin=where, hit=[index] if where != "others" else [])
        if not (seen and in_ledger):
            return battery_id
        with Ledger.open(self.ledger) as ledger:
            ledger.resume_shift("belt")
            with ledger.transaction() as tx:
                tx.record(Detected(trigger_count=number, encoder_count=0), battery_id, t_s)
                if label is not None:
                    tx.record(Typed(label=label, confidence=0.99, accepted=True), battery_id, t_s)
                bound = ROUTES[label] if label and ordered else "others"
                tx.record(Decided(bin=bound, reason="sorted"), battery_id, t_s)
                if ordered:
                    tx.record(EjectOrdered(token=number, bin=bound), battery_id, t_s)
                if said is not None:
                    tx.record(Disposed(bin=said, reason=reason), battery_id, t_s)
        return battery_id

    def judged(self, *, partial: bool = False, times: int = 1) -> Judgement:
        judge = BeltJudge(self.record, self.ledger, ROUTES, lambda t_s: int(t_s) // 10)
        for _ in range(times):
            judge.follow()
        return judge.finish(partial=partial)


@pytest.fixture
def shift(tmp_path) -> Shift:
    return Shift(tmp_path)


def offenders(judgement: Judgement) -> dict[str, list[str]]:
    return {kind: [one["battery_id"] for one in found.listed] for kind, found in judgement.offences.items()}


def test_a_shift_in_which_all_went_right_passes(shift):
    for _ in range(5):
        shift.battery()
    shift.battery("Rayovac", "others", None, "others", "unknown_type", fired=0, exited=True, ordered=False)
    judgement = shift.judged(times=3)
    assert judgement.failures == []
    assert (judgement.batteries, judgement.products, judgement.others) == (6, 5, 1)


def test_what_the_classifier_misnamed_is_counted_apart_and_is_no_failure(shift):
    shift.battery("B", "bin_a", "A", "bin_a")
    judgement = shift.judged()
    assert judgement.misnamed == 1 and judgement.failures == []


@pytest.mark.parametrize(
    ("kind", "battery"),
    [
        ("wrong_product", {"where": "bin_b", "said": "bin_b"}),
        ("wrong_product", {"label": None, "ordered": False}),
        ("ejected_twice", {"fired": 2}),
        ("unordered", {"label": None, "where": "others", "said": "others", "ordered": False, "exited": True}),
        ("lost", {"in_ledger": False}),
        ("open", {"said": None}),
        ("record_differs", {"where": "others", "exited": True}),
        ("record_differs", {"where": "others", "said": "bin_a", "fired": 0}),
        ("record_differs", {"where": "others", "said": "", "reason": "false_trigger", "fired": 0}),
        ("knowable", {"said": "", "reason": "unaccounted"}),
        ("knowable", {"where": "others", "said": "", "reason": "unaccounted", "fired": 0, "exited": True}),
    ],
)
def test_each_offence_is_found_listed_with_its_fault_and_fails_the_soak(shift, kind, battery):
    for _ in range(12):
        shift.battery()
    wrong = shift.battery(**battery)
    judgement = shift.judged()
    assert offenders(judgement)[kind] == [wrong]
    assert judgement.offences[kind].listed[0]["fault"] == 1
    assert judgement.failures


def test_of_what_neither_valve_nor_exit_eye_has_told_nobody_can_know(shift):
    shift.battery(where="others", said="", reason="unaccounted", fired=0)
    judgement = shift.judged()
    judgement.batteries = 1999
    assert judgement.failures == ["unaccounted: 1 of 1999, at most 1 in 2000 may be"]
    judgement.batteries = 2000
    assert judgement.failures == []


def test_a_battery_without_an_edge_must_lie_in_others(shift):
    shift.battery(seen=False, where="others", fired=0, exited=True)
    assert shift.judged().failures == []
    shift.battery(seen=False, where="bin_a")
    judgement = shift.judged()
    assert judgement.unseen == 2 and judgement.offences["unseen_in_product"].count == 1


def test_a_battery_that_only_the_ledger_knows_is_an_invention_and_a_false_edge_is_none(shift):
    shift.battery()
    with Ledger.open(shift.ledger) as ledger:
        ledger.resume_shift("belt")
        with ledger.transaction() as tx:
            for number in (7, 8):
                battery_id = make_battery_id(BOOT, number)
                tx.record(Detected(trigger_count=number, encoder_count=0), battery_id, 1.0)
    shift.tell(event="trigger", t_s=2.0, index=None, trigger_count=8)
    assert offenders(shift.judged()) == {"invented": [make_battery_id(BOOT, 7)]}


def test_an_interrupted_soak_judges_what_has_its_last_word_and_nothing_else(shift):
    shift.battery()
    shift.battery(said=None)
    shift.battery(in_ledger=False)
    judgement = shift.judged(partial=True)
    assert judgement.batteries == 1 and judgement.failures == []


def test_the_judge_forgets_whom_it_has_judged(shift):
    judge = BeltJudge(shift.record, shift.ledger, ROUTES, lambda _: None)
    for _ in range(20):
        shift.battery()
        judge.follow()
    assert judge.judgement.batteries == 20
    assert not judge._items and not judge._fallen


# ---- faults ----


def make_deck(line: str, seed: int = 1) -> Deck:
    return Deck(line, seed, PLANT_SWITCHES[line], ("camera", "line_controller"), ("modbus", "camera"))


@pytest.mark.parametrize("line", ["belt", "ev"])
def test_every_switch_of_the_plant_is_drawn_and_can_be_ended(line):
    deck = make_deck(line)
    faults = PLANT_SWITCHES[line].keys() - PARAMETERS
    kinds = len(faults) + 2 * 2 + 2 * 4 + 1
    drawn = [next(deck) for _ in range(kinds)]
    assert {fault.target for fault in drawn if fault.kind == "switch"} == faults
    assert len({(fault.kind, fault.target, str(fault.value)) for fault in drawn}) == kinds
    assert SWITCHES[line].keys() <= PLANT_SWITCHES[line].keys()
    plant = {"belt": [Faults()], "ev": [EvFaults(), RobotFaults(), instruments.TesterFaults()]}[line]
    for fault in (fault for fault in drawn if fault.kind == "switch"):
        switches = next(one for one in plant if fault.target in one.as_dict())
        switches.set({fault.target: fault.value})
        assert switches.as_dict()[fault.target] == fault.value
        switches.set({fault.target: off(fault.target, fault.value)})
        assert switches.as_dict()[fault.target] == PLANT_SWITCHES[line][fault.target]


def test_a_switch_that_is_neither_state_nor_count_must_be_described():
    with pytest.raises(KeyError, match=r"faults\.py: say what to draw"):
        switch_draw("belt", "valve.leak_mm", 0.0)


def test_same_seed_same_faults_and_another_seed_others():
    first, again, other = (make_deck("belt", seed) for seed in (1, 1, 2))
    drawn = [next(first) for _ in range(60)]
    assert drawn == [next(again) for _ in range(60)]
    assert drawn != [next(other) for _ in range(60)]


def test_faults_are_read_as_they_were_written_all_or_one_alone(tmp_path):
    deck = make_deck("ev")
    faults = [next(deck) for _ in range(30)]
    file = tmp_path / "faults.json"
    write_faults(file, {"line": "ev", "seed": 1}, [{**facts(fault), "took_s": 1.0} for fault in faults])
    head, again = read_faults(file)
    assert head == {"line": "ev", "seed": 1}
    assert again == faults
    assert read_faults(file, only=7)[1] == [faults[6]]
    with pytest.raises(ConfigurationError, match="has no fault 31"):
        read_faults(file, only=31)


# ---- what a person sees ----


def test_a_person_sees_state_and_standing_alarms_and_knows_which_to_acknowledge(tmp_path):
    book = Book(tmp_path / "ledger.sqlite")
    book.follow()
    assert book.state == ""
    with Ledger.open(book.path) as ledger:
        ledger.begin_shift("belt", "sim", 0.0)
        with ledger.transaction() as tx:
            tx.record(LineStateChanged(name="Held", reason="camera is silent"), None, 1.0)
            for code in ("node_camera", "no_image_in_a_row", "unaccounted"):
                tx.record(AlarmRaised(code=code, text=f"text of {code}"), None, 1.0)
        book.follow()
        assert book.state == "Held" and book.to_acknowledge == {"no_image_in_a_row": "text of no_image_in_a_row"}
        with ledger.transaction() as tx:
            tx.record(AlarmCleared(code="no_image_in_a_row"), None, 2.0)
        book.follow()
    assert book.to_acknowledge == {}


# ---- the plant's part ----


def test_a_plant_that_keeps_no_record_has_it_in_its_file_alone(tmp_path):
    recorder = Recorder(keep=False)
    recorder.open(tmp_path / "plant.jsonl")
    recorder({"event": "start", "t_s": 0.0, "boot_id": 1, "start_ns": 0})
    recorder({"event": "item", "t_s": 0.0, "index": 0, "label": "A", "known": True})
    assert recorder.record.as_dict()["items"] == [] and recorder.counts["item"] == 1
    recorder.close()
    assert len((tmp_path / "plant.jsonl").read_text().splitlines()) == 2
    with pytest.raises(ConfigurationError, match="name the file by the key record"):
        make_config({"keep_record": False})


def test_a_cell_torn_out_of_closed_contacts_fails_a_soak_of_the_ev_line(tmp_path):
    judgement = Judgement(must_be_empty=EV_MUST_BE_EMPTY)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin_shift("ev", "sim", 0.0)
        run = load_ev_run(ledger)
    torn = [{"t_s": 8.0, "channel": 2}]
    judge_ev_round(judgement, run, EvFigures(judged=EvJudgement()), [], torn, lambda _: 3, {}, partial=False)
    assert judgement.failures == ["taken by the robot out of closed contacts: 1"]
    assert judgement.offences["torn"].listed == [{"t_s": 8.0, "channel": 2, "fault": 3}]


def test_the_person_sees_what_is_full_until_the_line_says_otherwise(tmp_path):
    path = tmp_path / "ledger.sqlite"
    book = Book(path)
    with Ledger.open(path) as ledger:
        ledger.begin_shift("ev", "sim", 0.0)
        for name, reason, full in (
            ("Suspended", "full: product, trays", ["product", "trays"]),
            ("Execute", "person", []),
        ):
            with ledger.transaction() as tx:
                tx.record(LineStateChanged(state=11, name=name, reason=reason), None, 1.0)
            book.follow()
            assert book.full == full

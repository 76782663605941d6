"""The inspection station on the simulated plant, judged by the plant's own record: no fault ends as a product."""

from __future__ import annotations

from collections import Counter

import pytest
from support.ev_cell import EvCell

from battery_sorting.drivers.station_plc import register_map as rm
from battery_sorting.ev.inspection import Step
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ledger import Record
from battery_sorting.ledger.events import Disposed, StationFaulted
from battery_sorting.plant.ev_station import FAULTS

NAMED = {
    "loader.jam": {"load_jam"},
    "loader.no_cell": {"bad_image_no_cell"},
    "loader.two_cells": {"bad_image_several_cells"},
    "loader.upside_down": {"wrong_face"},
    "flipper.jam": {"flip_jam"},
    "flipper.half": {"half_flip"},
    "flipper.silent": {"flip_timeout"},
    "flipper.twice": {"answered_twice"},
    "flipper.late": {"flip_timeout"},
    "station.swap": {"identity_mismatch"},
    "plc.restart": {"plc_restarted"},
    "lug.drop": {"no_frame"},
    "lug.late": {"no_frame"},
    "lug.wrong_size": {"bad_image_wrong_size"},
    "lug.blank": {"bad_image_blank"},
    "lug.saturated": {"bad_image_saturated"},
    "lug.blurred": {"bad_image_blurred"},
    "lug.disconnect": {"no_frame"},
    "case.drop": {"no_frame"},
    "case.late": {"no_frame"},
    "case.wrong_size": {"bad_image_wrong_size"},
    "case.blank": {"bad_image_blank"},
    "case.saturated": {"bad_image_saturated"},
    "case.blurred": {"bad_image_blurred"},
    "case.disconnect": {"no_frame"},
}
"""Fault of the plant → what the ledger must call it."""
HARMLESS = {"lug.gray", "case.gray", "lug.depth16", "case.depth16"}


def outlets_agree(cell: EvCell) -> None:
    """Every cell is where the ledger says, and each exactly once."""
    ended = Counter(record.battery_id for record in cell.records if isinstance(record.data, Disposed))
    assert set(ended.values()) == {1}
    truth = Counter(entry["outlet"] for entry in cell.truth().values() if entry["outlet"] != "by_hand")
    said = Counter(result.verdict.outlet for result in cell.results if result.battery_id)
    ghosts = sum("bad_image_no_cell" in result.faults for result in cell.results)
    pairs = sum("bad_image_several_cells" in result.faults for result in cell.results)
    said["quarantine"] += pairs - ghosts
    assert +said == truth


def test_sound_plant_sends_every_cell_where_its_defects_belong():
    cell = EvCell(items=200, seed=5, defective=0.5)
    cell.run_all()
    for entry in cell.truth().values():
        lug, case = entry["lug"], entry["case"]
        if case in {"bulging", "leaking"} and lug != "broken":
            assert entry["outlet"] == "hazardous"
        elif (lug, case) == ("good", "good"):
            assert entry["outlet"] == "product"
        else:
            assert entry["outlet"] == "reject"
    assert cell.faults_on_record() == {}
    outlets_agree(cell)


def test_in_a_thousand_cells_with_faults_none_that_had_one_becomes_a_product_and_each_fault_is_named():
    rates = {name: 0.05 for name in NAMED if name.startswith(("flipper.", "station."))}
    rates |= {"lug.drop": 0.05, "case.drop": 0.05, "lug.late": 0.02, "case.late": 0.02, "loader.jam": 0.01}
    rates |= {"loader.upside_down": 0.02, "loader.two_cells": 0.01, "lug.blurred": 0.02, "case.blank": 0.02}
    rates |= {"plc.restart": 0.01, "loader.no_cell": 0.01}
    cell = EvCell(items=1000, seed=11, fault_rates=rates)
    cell.run_all()
    truth = cell.truth()
    assert len(truth) == 1000
    struck = {serial: entry for serial, entry in truth.items() if entry["faults"]}
    assert len(struck) > 300
    products = {serial for serial, entry in truth.items() if entry["outlet"] == "product"}
    assert not products & set(struck)
    assert all(entry["outlet"] for entry in truth.values()), "a cell was lost"
    sound = [
        entry
        for entry in truth.values()
        if not entry["faults"] and entry["lug"] == entry["case"] == "good" and entry["outlet"] != "by_hand"
    ]
    assert sum(entry["outlet"] == "product" for entry in sound) >= 0.97 * len(sound)
    outlets_agree(cell)

    named = Counter(code for codes in cell.faults_on_record().values() for code in codes)
    injected = Counter(name for entry in truth.values() for name in set(entry["faults"]))
    for name, codes in NAMED.items():
        if injected[name]:
            assert any(named[code] for code in codes), name
    by_code = {record.data.code for record in cell.records if isinstance(record.data, StationFaulted)}
    assert by_code <= set().union(*NAMED.values()) | {"not_upright", "cell_gone", "code_unread"}


@pytest.mark.parametrize("fault", sorted(NAMED))
def test_each_fault_is_named_and_keeps_the_cell_from_the_product(fault):
    cell = EvCell(items=3, seed=2, defective=0.0)
    cell.world.faults.set({fault: 1})
    cell.run_all()
    codes = {record.data.code for record in cell.records if isinstance(record.data, StationFaulted)}
    codes |= {code for result in cell.results for code in result.faults}
    assert codes & NAMED[fault], codes
    assert all(entry["outlet"] != "product" for entry in cell.truth().values() if entry["faults"])
    assert all(entry["outlet"] for entry in cell.truth().values())
    outlets_agree(cell)
    last = [result for result in cell.results if result.battery_id][-1]
    assert last.verdict.outlet == "product", "the station goes on after the fault"


@pytest.mark.parametrize("fault", sorted(HARMLESS))
def test_a_frame_that_can_be_converted_is_no_fault(fault):
    cell = EvCell(items=2, seed=2, defective=0.0)
    cell.world.faults.set({fault: 1})
    cell.run_all()
    assert {entry["outlet"] for entry in cell.truth().values()} == {"product"}


def test_every_fault_of_the_plant_is_looked_at_here():
    assert set(FAULTS) == set(NAMED) | HARMLESS


def test_a_hazardous_cell_whose_flip_jammed_once_still_takes_the_hazardous_route():
    cell = EvCell(items=1, seed=1, defective=1.0, both_views=0.0, kinds={"leaking": 1.0})
    cell.world.faults.set({"flipper.jam": 1})
    cell.run_all()
    assert [entry["outlet"] for entry in cell.truth().values()] == ["hazardous"]
    assert cell.results[0].retries == 1


def test_a_broken_lug_ends_the_inspection_before_the_flip():
    cell = EvCell(items=1, seed=1, defective=1.0, both_views=0.0, kinds={"broken": 1.0})
    cell.run_all()
    assert not any(event["event"] == "action" and event["action"] == "flip" for event in cell.events)
    assert [entry["outlet"] for entry in cell.truth().values()] == ["reject"]


def run_until(cell: EvCell, step: Step) -> None:
    cell.step()
    cell._do(cell.machine.begin(cell.now))
    for _ in range(2000):
        if cell.machine.step is step:
            return
        cell.step()
    raise AssertionError(f"never came to {step}")


@pytest.mark.parametrize("step", [Step.LOAD, Step.LUG_IMAGE, Step.LUG_VERDICT, Step.FLIP, Step.CASE_IMAGE])
def test_emergency_stop_at_any_step_ends_in_quarantine_once_it_is_released(step):
    cell = EvCell(items=1, seed=3, defective=0.0)
    run_until(cell, step)
    cell.world.faults.set({"estop": True})
    for _ in range(400):
        cell.step()
    assert cell.machine.step is Step.STUCK
    assert cell.stuck
    moved = [event for event in cell.events if event["event"] == "outlet"]
    assert not moved, "nothing moves while the emergency stop is pressed"
    cell.world.faults.set({"estop": False})
    cell.run_all()
    assert {entry["outlet"] for entry in cell.truth().values()} <= {"quarantine", "product"}
    if step is not Step.LOAD:  # a cell that had not been loaded stays in the magazine and is inspected later
        assert [entry["outlet"] for entry in cell.truth().values()] == ["quarantine"]
        assert "emergency_stop" in cell.results[0].faults


@pytest.mark.parametrize("step", [Step.LUG_IMAGE, Step.FLIP, Step.CASE_VERDICT, Step.RELEASE])
def test_a_plc_that_is_cut_off_is_waited_for_and_the_cell_is_accounted_for(step):
    cell = EvCell(items=1, seed=3, defective=0.0)
    run_until(cell, step)
    cell.world.faults.set({"plc.disconnect": True})
    for _ in range(200):
        cell.step()
    cell.world.faults.set({"plc.disconnect": False})
    cell.run_all()
    assert all(entry["outlet"] for entry in cell.truth().values())
    if step is not Step.RELEASE:
        assert [entry["outlet"] for entry in cell.truth().values()] != ["product"]
    outlets_agree(cell)


@pytest.mark.parametrize("step", [Step.LUG_VERDICT, Step.FLIP, Step.CASE_VERDICT])
def test_a_cancelled_inspection_ends_in_quarantine(step):
    cell = EvCell(items=1, seed=3, defective=0.0)
    run_until(cell, step)
    cell._do(cell.machine.cancel(cell.now))
    cell.run_all()
    assert [entry["outlet"] for entry in cell.truth().values()] == ["quarantine"]
    assert cell.results[0].faults[0] == "cancelled"


def test_a_recipe_may_let_a_cell_pass_whose_flip_came_at_a_second_try():
    recipe = EvRecipe.load("lfp_prismatic", ["faulty_may_pass=true"])
    cell = EvCell(items=1, seed=2, recipe=recipe, defective=0.0)
    cell.world.faults.set({"flipper.jam": 1})
    cell.run_all()
    assert [entry["outlet"] for entry in cell.truth().values()] == ["product"]


def test_a_cell_that_must_carry_another_code_is_no_product():
    cell = EvCell(items=1, seed=2, defective=0.0)
    cell.step()
    cell._do(cell.machine.begin(cell.now, "LF000000000"))
    cell.run_all()
    assert cell.results[0].faults == ("identity_mismatch",)


def test_every_order_stands_in_the_ledger_before_it_is_sent():
    cell = EvCell(items=1, seed=2, defective=0.0)
    cell.step()
    seen: list[str] = []
    original = cell.machine._flush

    def flush():
        out = original()
        seen.extend(
            str(action.data.KIND) if isinstance(action, Record) else type(action).__name__ for action in out
        )
        return out

    cell.machine._flush = flush  # type: ignore[method-assign]
    cell.run_all()
    assert seen.index("decided") < seen.index("release_ordered")
    after = seen[seen.index("release_ordered") :]
    assert (
        after.index("StationOrder") == min(index for index, name in enumerate(after) if name == "StationOrder") > 0
    )


# ---- a halted line's station is not sent home (issue 14) ----


@pytest.mark.parametrize("freed", [False, True], ids=["nobody frees it", "a person frees it"])
@pytest.mark.parametrize("halted_first", [False, True], ids=["stuck, then halted", "halted, then stuck"])
def test_a_stuck_station_of_a_halted_line_is_not_sent_home_until_the_line_goes_on(halted_first, freed):
    cell = EvCell(items=1, seed=3, defective=0.0)
    sent: list[float] = []
    write_coil = cell.plc.write_coil

    def listen(address: int, value: bool) -> None:
        if address == rm.COIL_RESET:
            sent.append(cell.now)
        write_coil(address, value)

    cell.plc.write_coil = listen
    run_until(cell, Step.LUG_VERDICT)
    cell.world.faults.set({"flipper.jam": 1 if freed else 1000})
    if halted_first:
        cell.machine.may_recover = False
    for _ in range(2000):
        cell.step()
        if cell.machine.step is Step.STUCK:
            break
        if cell.machine.step is Step.RECOVER and not halted_first:
            cell.world.faults.set({"plc.disconnect": True})  # it does not come home in time
    assert cell.machine.step is Step.STUCK and cell.stuck
    cell.machine.may_recover = False
    cell.world.faults.set({"plc.disconnect": False})
    before, flipper = len(sent), cell.status().flipper
    assert bool(before) is not halted_first
    if freed:
        cell.plc.write_coil(rm.COIL_RESET, True)  # at the station, by hand
        before += 1
    for _ in range(2000):
        cell.step()
    assert cell.machine.step is Step.STUCK and len(sent) == before
    assert freed or cell.status().flipper is flipper
    assert not any(event["event"] == "outlet" for event in cell.events)
    assert "stuck" in cell.faults_on_record()[cell.machine.battery_id], "what lies in it is on record"
    cell.machine.may_recover = True
    cell.world.faults.set({"flipper.jam": 0})
    cell.run_all()
    assert [entry["outlet"] for entry in cell.truth().values()] == ["quarantine"]

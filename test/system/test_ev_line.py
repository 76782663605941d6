"""A whole EV line inspects, measures, grades and places cells: judged by the plant's own record."""

from __future__ import annotations

import time

import pytest
from test_a_persons_will import lifecycle

from battery_sorting.line.contract import EV_NODES, MEASURING_NODES

pytestmark = pytest.mark.system

PATIENT = (
    "timeouts.heartbeat_s=10",
    "timeouts.start_s=60",
    "station_plc.settings.timeout_s=3",
    "measuring.robot.settings.timeout_s=5",
    "recipe.times={capture_s: 8, look_s: 20, flip_s: 15, load_s: 20, release_s: 15, recover_s: 15}",
    "alarms.faults_in_a_row=100",
)
"""So that a machine which is busy otherwise is not taken for a fault of the line."""
QUICK = ("plant.time_factor=10", "plant.test_time_factor=6000")
FAULTS = "{flipper.jam: 0.12, flipper.half: 0.12, station.swap: 0.12, case.drop: 0.12, lug.blank: 0.1}"


def test_cells_with_injected_faults_are_all_accounted_for_and_none_becomes_a_product(make_ev_line):
    overrides = (*PATIENT, *QUICK, f"plant.fault_rates={FAULTS}", "plant.defective=0.2")
    with make_ev_line(items=12, seed=13, overrides=overrides) as line:
        figures, run = line.judge()
    judged = figures.judged
    assert judged.cells == 12
    assert sum(judged.faults.values()) >= 4, "the plant no longer injects what this seed did"
    assert judged.lost == [] and judged.disagreements == []
    assert judged.faulty_products == []
    assert judged.faults_unnamed == []
    assert figures.failures == []
    assert figures.cells == figures.accounted
    products = [story for story in run.stories if story.outlet == "product"]
    assert len(products) == figures.measured > 0, "no cell was good: is it the model?"
    for story in products:
        assert story.bin and story.place.rpartition("-")[0] == story.bin
        assert story.grade in {"A", "B", "C", "D"}
    assert line.states[:3] == ["Resetting", "Idle", "Starting"] and "Aborting" not in line.states


def test_each_node_may_be_killed_while_cells_are_on_their_way(make_ev_line):
    nodes = (*EV_NODES, *MEASURING_NODES)
    overrides = (*PATIENT, *QUICK, "plant.defective=0.1", "timeouts.heartbeat_s=2")
    with make_ev_line(items=16, seed=2, overrides=overrides) as line:
        line.wait_for_state("Execute", 90)
        for name in nodes:
            before = line.released()
            pid = line.kill(name)
            line.wait_for_node(name, other_than=pid)
            line.wait_for(lambda before=before: line.released() >= before + 2, f"it goes on without old {name}", 60)
        deaths = line.supervisor.deaths()
        figures, run = line.judge()
    assert {name: deaths[name] for name in nodes} == dict.fromkeys(nodes, 1)
    assert "stranger" not in line.alarms
    assert figures.failures == []
    assert figures.cells == figures.accounted == 16
    assert {story.reason for story in run.stories if story.faults and story.outlet == "product"} <= {"good"}


def test_an_emergency_stop_of_any_machine_aborts_and_nothing_moves_before_a_person_starts_the_line(make_ev_line):
    # issue 14, point 4
    def jobs() -> int:
        return (line.plan.run_dir / "plant.jsonl").read_text().count('"robot_job"')

    with make_ev_line(items=12, seed=3, overrides=(*PATIENT, *QUICK, "plant.defective=0")) as line:
        for switch in ("robot.estop", "tester.estop", "estop"):
            line.wait_for_state("Execute", 90)
            before = jobs()
            line.wait_for(lambda before=before: jobs() > before, "the robot works", 60)
            line.control.set_faults(**{switch: True})
            line.wait_for_state("Aborted")
            line.control.set_faults(**{switch: False})
            moved, until = jobs(), time.monotonic() + 3.0
            while time.monotonic() < until:
                assert line.state == "Aborted" and jobs() == moved, f"against a person's will after {switch}"
                time.sleep(0.1)
            line.restart_line()
        figures, _ = line.judge()
    assert "emergency_stop" in line.alarms
    assert figures.failures == [] and figures.cells == figures.accounted == 12


@pytest.mark.parametrize(("node", "works"), [("robot", '"robot_job"'), ("tester", '"tester_start"')])
def test_no_cell_is_lost_or_judged_by_a_person_who_deactivates_a_machine_at_work(make_ev_line, node, works):
    def count() -> int:
        return (line.plan.run_dir / "plant.jsonl").read_text().count(works)

    overrides = (*PATIENT, *QUICK, "plant.defective=0", "plant.test_time_factor=2000", "plant.move_s=25")
    with make_ev_line(items=3, seed=3, overrides=overrides) as line:
        line.wait_for_state("Execute", 90)
        line.wait_for(lambda: count() > 0, f"the {node} works", 60)
        assert lifecycle(f"ev/{node}", "deactivate") == "inactive"
        line.wait_for_state("Held", 60)
        assert lifecycle(f"ev/{node}", "activate") == "active"
        line.wait_for_state("Execute", 60)
        figures, run = line.judge()
    assert figures.failures == [] and figures.cells == figures.accounted == 3
    assert not {"move_failed", "cell_lost"} & set(line.alarms)
    assert all(story.grade for story in run.stories if story.outlet == "product"), run.stories

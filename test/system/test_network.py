"""A whole cell and those who don't belong to it: who is heard, who holds the line, and who is started anew."""
# issue 14, points 13 and 17

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from harness import ROOT, check_account, run_cli

from battery_sorting.core.types import Reason, make_battery_id
from battery_sorting.line.graph_watch import CODE

pytestmark = pytest.mark.system

SUPPORT = ROOT / "test" / "support"
MIDDLEWARE = ("RMW_IMPLEMENTATION", "FASTRTPS_DEFAULT_PROFILES_FILE", "ROS_AUTOMATIC_DISCOVERY_RANGE")
LOOPBACK = "0100007F"


def plain_environment() -> dict[str, str]:
    """As any user's shell: nothing that the package sets for its nodes."""
    return {key: value for key, value in os.environ.items() if key not in MIDDLEWARE}


def udp_sockets(pid: int) -> list[str]:
    """Addresses to which a process has bound UDP sockets, as /proc writes them; those of IPv6 too."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = str(link.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [
        line.split()
        for table in ("udp", "udp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return [row[1].partition(":")[0] for row in rows if row[9] in inodes]


def graph_of(cell: Any) -> dict[str, dict[str, list[str]]]:
    """What each node of the line has, as a user's tool on this host sees it."""
    names = ",".join(spec.name for spec in cell.plan.nodes if spec.is_node)
    command = [sys.executable, str(SUPPORT / "graph_process.py"), f"/{cell.plan.site.line}", names]
    done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, list[str]]] = json.loads(done.stdout)
    return found


def permitted(line: str) -> dict[str, dict[str, set[str]]]:
    """What the policy in config/sros2 permits to each node: the kinds and names of `graph_of`."""
    root = ElementTree.parse(ROOT / "config" / "sros2" / f"{line}.xml").getroot()
    found: dict[str, dict[str, set[str]]] = {}
    for profile in root.iter("profile"):
        space, node = profile.attrib["ns"].rstrip("/"), profile.attrib["node"]
        rights = found.setdefault(node, {})
        for group in profile:
            for right, word in group.attrib.items():
                assert word == "ALLOW"
                for entry in group:
                    name = (entry.text or "").strip()
                    if name.startswith("~"):
                        name = f"{space}/{node}{name[1:]}"
                    elif not name.startswith("/"):
                        name = f"{space}/{name}"
                    rights.setdefault(right, set()).add(name)
    return found


def check_policy(cell: Any) -> None:
    line = cell.plan.site.line
    rights = permitted(line)
    enclaves = {
        enclave.attrib["path"]
        for enclave in ElementTree.parse(ROOT / "config" / "sros2" / f"{line}.xml").getroot().iter("enclave")
    }
    assert {spec.enclave for spec in cell.plan.nodes if spec.is_node} | {f"/{line}/operator"} == enclaves
    problems = [
        f"{node} may not {kind} {name}"
        for node, kinds in graph_of(cell).items()
        for kind, names in kinds.items()
        for name in names
        if name not in rights[node].get(kind, set())
    ]
    assert not problems, "\n".join(problems)


def check_sockets(cell: Any) -> None:
    for spec in cell.plan.nodes:
        if spec.is_node:
            bound = udp_sockets(cell.supervisor.pids()[spec.name])
            assert bound and set(bound) == {LOOPBACK}, f"{spec.name} listens on {bound}"


def test_a_cell_binds_to_loopback_alone_and_is_found_by_any_tool_of_its_host(make_cell):
    with make_cell(items=500) as cell:
        cell.wait_for_state("Execute")
        check_sockets(cell)
        check_policy(cell)
        for reach in (
            {},
            {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"},
            {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"},
        ):
            for command, state in (("hold", "Held"), ("unhold", "Execute")):
                answer = run_cli("command", command, "--line", "belt", env={**plain_environment(), **reach})
                assert answer.returncode == 0, answer.stderr
                cell.wait_for_state(state)


def test_the_ev_line_binds_to_loopback_alone_and_its_policy_names_all_that_it_has(make_ev_line):
    with make_ev_line(items=30) as cell:
        cell.wait_for_state("Execute")
        check_sockets(cell)
        check_policy(cell)


def test_a_flood_of_forged_messages_holds_the_line_and_moves_nothing(make_cell):
    with make_cell(items=60) as cell:
        cell.wait_for_state("Execute")
        cell.wait_for_triggers(6)
        command = [sys.executable, str(SUPPORT / "forger_process.py"), "belt", "17", "300"]
        forger = subprocess.Popen(
            command, env=plain_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert forger.stdout is not None
            cell.wait_for(lambda: CODE in cell.alarms, "the alarm")
            cell.wait_for(lambda: not cell.control.state()["running"], "the belt stands")
            assert forger.stdout.readline() == "done\n"
            assert "node /forger publishes on" in cell.alarms[CODE]
            refused = cell.command("unhold")
            time.sleep(1.5)  # a try of a person, before whose cause is gone
            assert not cell.control.state()["running"], refused.stdout
        finally:
            forger.kill()
            forger.wait()
            for pipe in (forger.stdin, forger.stdout):
                assert pipe is not None
                pipe.close()
        go_on(cell)
        figures, record, batteries = cell.finish(90)
    assert len(batteries) == len([item for item in record["items"] if item["trigger_count"] is not None])
    boot = make_battery_id(record["boot_id"], 0)[:9]
    assert all(battery.battery_id.startswith(boot) for battery in batteries)
    assert figures.double_ejected == 0 and figures.disagreements == []
    check_account(record, batteries, excused={Reason.UNACCOUNTED})


def go_on(cell: Any) -> None:
    """A person lifts the hold as soon as the stranger is no longer listed: killed, it is for its lease."""

    def lifted() -> bool:
        if cell.state == "Execute":
            return True
        cell.command("unhold")
        return False

    cell.wait_for(lifted, "the line goes on", 60.0)


def came_back(cell: Any) -> None:
    """The line works again: batteries pass, and it has been in Execute for a moment."""
    goal = cell.triggers() + 3
    cell.wait_for(lambda: cell.state == "Execute" and cell.triggers() >= goal, "the line works again", 60.0)


@pytest.mark.parametrize("name", ["line_controller", "classifier"])
def test_a_node_that_was_killed_and_whose_successor_stood_still_is_back(make_cell, name):
    with make_cell(items=500) as cell:
        cell.wait_for_state("Execute")
        pid = cell.kill(name)
        cell.wait_for_node(name, other_than=pid)
        came_back(cell)
        successor = cell.supervisor.pids()[name]
        os.kill(successor, signal.SIGSTOP)
        time.sleep(8.0)
        os.kill(successor, signal.SIGCONT)
        came_back(cell)
        assert cell.supervisor.pids()[name] == successor, "nobody had to be started anew"


def test_a_deaf_controller_and_a_deaf_node_are_started_anew(make_cell, tmp_path):
    """They hear nothing from the start: another domain makes them deaf, and the marks of the others tell them."""
    with make_cell(items=500) as cell:
        cell.wait_for_state("Execute")
        for name in ("camera", "line_controller"):
            spec = next(spec for spec in cell.plan.nodes if spec.name == name)
            old = cell.supervisor._children[name]
            deaf = [sys.executable, str(SUPPORT / "deaf_once.py"), str(tmp_path / name), *old.command]
            old.command = deaf  # its next life is deaf, the one after that is not
            pid = cell.kill(spec.name)
            cell.wait_for_node(name, other_than=pid)
            deaf_pid = cell.supervisor.pids()[name]
            cell.wait_for_node(name, other_than=deaf_pid)
            came_back(cell)
            assert any(name in line and "ends itself" in line for line in cell.told), cell.told
        assert CODE not in cell.alarms

"""The contract between the nodes: what follows from it is up to date, and whoever breaks it is told the remedy."""
# issue 15, E15 and E16

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from battery_sorting.line.contract import (
    EV_NODES,
    MEASURING_NODES,
    NODES,
    PARAMETERS,
    QUALITIES,
    parameters_of,
)
from battery_sorting.line.contract_watch import MISSING_S, PAGE, Breaches, ContractWatch, Endpoint, SeenGraph
from battery_sorting.line.graph_watch import LEASE_S
from battery_sorting.lines import LINES
from battery_sorting.packml.fleet import Lifecycle
from battery_sorting.runtime.contract_page import EXAMPLE

ROOT = Path(__file__).parents[3]
CONTRACTS = {name: kind.contract for name, kind in LINES.items()}
BELT = tuple(name for name in NODES if name != "line_controller")
EV = tuple(name for name in (*EV_NODES, *MEASURING_NODES) if name != "line_controller")
ACTIVE = Lifecycle.ACTIVE

in_checkout = pytest.mark.skipif(not (ROOT / EXAMPLE).is_file(), reason="not run from a checkout")


# ---- what follows from the contract ----


@in_checkout
def test_the_page_names_the_times_that_the_controller_keeps():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert f"after {MISSING_S:g} s" in text and f"listed for up to {LEASE_S:g} s" in text


@in_checkout
def test_the_worked_example_has_about_thirty_lines():
    code = [
        line for line in (ROOT / EXAMPLE).read_text().splitlines() if line and not line.startswith(("#", '"""'))
    ]
    assert len(code) <= 35


def test_the_contract_names_all_nodes_of_the_plan_and_no_other():
    assert CONTRACTS["belt"].names == NODES
    assert set(CONTRACTS["ev"].names) == {*EV_NODES, *MEASURING_NODES}
    for contract in CONTRACTS.values():
        for topic in contract.topics:
            assert {*topic.publishers, *topic.subscribers, *topic.optional} <= set(contract.names), topic
            assert topic.quality in QUALITIES
        assert {service.node for service in contract.services} <= set(contract.names)


def test_no_node_declares_a_parameter_that_the_contract_does_not_describe():
    declared = [
        f"{path.name}: {line.strip()}"
        for path in sorted((ROOT / "battery_sorting").rglob("*.py"))
        for line in path.read_text().splitlines()
        if "declare_parameter" in line and path.name != "parameters.py"
    ]
    assert not declared, "use ros.parameters.declare, and describe it in line/contract.py"
    assert all(len(parameter.meaning) > 20 for parameter in PARAMETERS)
    assert {one.name for one in parameters_of("tester")} - {one.name for one in parameters_of("camera")} == {
        "feedback_s",
        "safe_s",
    }


def interface_fields() -> list[tuple[str, str, str]]:
    """All fields of all interfaces: file, field, comment."""
    found = []
    for path in sorted(path for folder in ("msg", "srv", "action") for path in (ROOT / folder).iterdir()):
        for line in path.read_text().splitlines():
            code, _, comment = line.partition("#")
            words = code.split()
            if len(words) == 2 and "=" not in code:
                found.append((path.name, words[1], comment.strip()))
    return found


@in_checkout
def test_every_field_of_every_interface_has_its_unit_or_meaning():
    fields = interface_fields()
    assert len({name for name, _, _ in fields}) >= 24 and len(fields) > 200
    bare = [f"{name}: {field}" for name, field, comment in fields if not comment]
    assert not bare, "\n".join(bare)


@in_checkout
@pytest.mark.parametrize(
    ("suffix", "unit"),
    [
        ("_mohm", r"\bmOhm\b"),
        ("_v", r"\bV\b"),
        ("_ah", r"\bAh\b"),
        ("_a", r"\bA\b"),
        ("_mps", r"\bm/s\b"),
        ("_s", r"\bs\b"),
        ("_mm", r"\bmm\b|distance"),
        ("_c", r"Celsius|\bK\b"),
    ],
)
def test_a_field_with_the_suffix_of_a_unit_names_that_unit(suffix, unit):
    fields = [(name, field, comment) for name, field, comment in interface_fields() if field.endswith(suffix)]
    assert fields
    for name, field, comment in fields:
        if field not in {"temperature_uncertainty_c"}:
            assert re.search(unit, comment), f"{name}: {field}: {comment}"


# ---- nodes that break it ----


class Graph:
    """A graph in which all nodes of a line keep to the contract, until a test draws one wrongly."""

    def __init__(self, kind: str) -> None:
        contract, self.space = CONTRACTS[kind], f"/{kind}"
        self.nodes = {"belt": BELT, "ev": EV}[kind]
        self.watch = ContractWatch(contract, self.space, self.nodes, contract.observers)
        self.publishers: dict[str, list[Endpoint]] = {}
        self.subscribers: dict[str, list[Endpoint]] = {}
        for topic in contract.topics:
            quality = QUALITIES[topic.quality]
            for side, names in ((self.publishers, topic.publishers), (self.subscribers, topic.subscribers)):
                side[topic.name] = [
                    Endpoint(name, self.space, topic.type, quality.reliable, quality.transient_local, "1")
                    for name in names
                ]
        self.services = {name: frozenset({type_}) for name, type_ in (one.witness for one in contract.services)}
        self.services |= {
            f"{name}/change_state": frozenset({"lifecycle_msgs/srv/ChangeState"}) for name in self.nodes
        }
        self.speaking = dict.fromkeys(self.nodes, ACTIVE)
        self.now = 100.0

    def change(self, side: dict[str, list[Endpoint]], topic: str, node: str, **changes: object) -> None:
        side[topic] = [replace(one, **changes) if one.node == node else one for one in side[topic]]

    def take(self, side: dict[str, list[Endpoint]], topic: str, node: str) -> None:
        side[topic] = [one for one in side[topic] if one.node != node]

    def look(self, after_s: float = 1.0) -> str:
        """What is said of the nodes that the line needs after so long, looked at each second."""
        found = Breaches("", "")
        for _ in range(int(after_s)):
            self.now += 1.0
            seen = SeenGraph(self.publishers, self.subscribers, self.services)
            found = self.watch.look(seen, self.speaking, self.now)
        self.warnings = found.warnings
        return found.faults


@pytest.fixture
def belt() -> Graph:
    return Graph("belt")


@pytest.fixture
def ev() -> Graph:
    return Graph("ev")


@pytest.mark.parametrize("kind", ["belt", "ev"])
def test_nodes_that_keep_to_the_contract_are_no_alarm(kind):
    graph = Graph(kind)
    assert (graph.look(60), graph.warnings) == ("", "")


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"reliable": False}, "best effort"), ({"transient_local": False}, "volatile")],
)
def test_a_publisher_of_too_weak_quality_is_told_at_once_with_the_remedy(belt, changes, word):
    belt.change(belt.publishers, "battery_type", "classifier", **changes)
    told = belt.look()
    assert (
        f"classifier publishes battery_type {word}: make it reliable, transient local (qos.BATTERY_EVENT)" in told
    )
    assert told.endswith("(docs/reference/contract.md)")


@pytest.mark.parametrize("kind", ["belt", "ev"])
def test_every_topic_by_which_a_line_decides_is_looked_at_on_both_sides(kind):
    for topic in CONTRACTS[kind].topics:
        for verb, names in (("publishes", topic.publishers), ("subscribes to", topic.subscribers)):
            for name in names if topic.decides else ():
                graph = Graph(kind)
                side = graph.publishers if verb == "publishes" else graph.subscribers
                graph.change(side, topic.name, name, reliable=False)
                faults = graph.look()
                told, silent = (graph.warnings, faults) if name == "archivist" else (faults, graph.warnings)
                assert f"{name} {verb} {topic.name} best effort: make it reliable" in told
                assert silent == ""


@pytest.mark.parametrize("changes", [{"reliable": False}, {"transient_local": False}])
def test_a_subscriber_that_asks_for_less_may_lose_messages_and_is_told(belt, changes):
    belt.change(belt.subscribers, "battery_image", "classifier", **changes)
    assert "classifier subscribes to battery_image" in belt.look()


def test_a_subscriber_that_asks_for_what_nobody_offers_hears_nothing_and_is_told(belt):
    belt.change(belt.subscribers, "eject_command", "ejector", transient_local=True)
    assert (
        "ejector subscribes to eject_command transient local, which nobody offers: make it reliable, volatile"
        in (belt.look())
    )
    belt.change(belt.subscribers, "eject_command", "ejector", transient_local=False, bounded=("deadline",))
    assert "ejector asks for a deadline on eject_command, which nobody offers" in belt.look()


def test_a_publisher_may_offer_more_than_is_asked_for_but_nothing_that_runs_out(belt):
    belt.change(belt.publishers, "belt_state", "conveyor", transient_local=True, bounded=("deadline",))
    assert belt.look(10) == ""
    belt.change(belt.publishers, "battery_detection", "conveyor", bounded=("lifespan",))
    assert "conveyor publishes battery_detection with a lifespan" in belt.look()


def test_a_wrong_type_on_a_topic_is_told_with_the_right_one(belt):
    belt.change(belt.publishers, "battery_type", "classifier", type="std_msgs/msg/String")
    assert (
        "classifier publishes battery_type as std_msgs/msg/String: it must be battery_sorting/msg/BatteryType"
        in belt.look()
    )


def test_a_type_of_another_version_is_told_and_its_node_named(belt):
    belt.change(belt.publishers, "battery_type", "classifier", type_hash="2")
    told = belt.look()
    assert "classifier has another version of battery_sorting/msg/BatteryType on battery_type" in told
    assert "line_controller has" not in told


@pytest.mark.parametrize(
    ("kind", "service", "what"),
    [
        (
            "belt",
            "conveyor/set_belt",
            "conveyor does not offer the service conveyor/set_belt (battery_sorting/srv/SetBelt)",
        ),
        ("belt", "ejector/clear", "ejector does not offer the service ejector/clear (std_srvs/srv/Trigger)"),
        ("ev", "grader/grade_cells", "grader does not offer the service grader/grade_cells"),
        ("ev", "move_cell/_action/send_goal", "robot does not offer the action move_cell"),
    ],
)
def test_a_missing_service_or_action_is_told_within_seconds(kind, service, what):
    graph = Graph(kind)
    del graph.services[service]
    assert graph.look(MISSING_S) == "", "it may just not be known yet"
    assert what in graph.look(2)


def test_a_service_or_action_of_another_type_is_told_at_once(ev):
    ev.services["grader/grade_cells"] = frozenset({"std_srvs/srv/Trigger"})
    ev.services["test_cell/_action/send_goal"] = frozenset({"acme/action/Test_SendGoal"})
    told = ev.look()
    assert (
        "grader offers grader/grade_cells as std_srvs/srv/Trigger: it must be battery_sorting/srv/GradeCells"
        in told
    )
    assert "tester offers test_cell as acme/action/Test: it must be battery_sorting/action/TestCell" in told


def test_what_only_people_use_may_be_missing(belt, ev):
    del belt.services["classifier/load_model"]
    belt.take(belt.publishers, "shadow_type", "classifier")
    belt.take(belt.publishers, "image_preview", "camera")
    belt.take(belt.subscribers, "battery_image", "archivist")
    del ev.services["flip_cell/_action/send_goal"]
    assert (belt.look(60), ev.look(60)) == ("", "")
    assert (belt.warnings, ev.warnings) == ("", "")


# issue 16, 4
def test_what_an_observer_does_not_keep_to_is_told_and_no_fault_of_the_line(belt):
    belt.change(belt.subscribers, "battery_type", "archivist", type_hash="2")
    belt.take(belt.publishers, "heartbeat", "archivist")
    del belt.speaking["archivist"]
    assert belt.look(MISSING_S + 2) == ""
    assert "archivist has another version of battery_sorting/msg/BatteryType on battery_type" in belt.warnings
    assert "archivist runs and sends no heartbeat" in belt.warnings
    assert belt.warnings.endswith("(docs/reference/contract.md)")


def test_an_active_node_that_does_not_publish_or_subscribe_what_it_must_is_told(belt):
    belt.take(belt.publishers, "battery_type", "classifier")
    belt.take(belt.subscribers, "battery_image", "classifier")
    assert belt.look(MISSING_S) == ""
    told = belt.look(2)
    assert "classifier does not publish battery_type (battery_sorting/msg/BatteryType), and must" in told
    assert "classifier does not subscribe to battery_image" in told


def test_a_node_that_still_comes_up_need_not_have_all_yet(belt):
    belt.take(belt.subscribers, "battery_image", "classifier")
    belt.speaking["classifier"] = Lifecycle.INACTIVE
    assert belt.look(60) == ""
    belt.speaking["classifier"] = ACTIVE
    assert belt.look(MISSING_S) == ""
    assert belt.look(2) != ""


def test_a_node_without_any_heartbeat_is_told_what_to_send(belt):
    belt.take(belt.publishers, "heartbeat", "classifier")
    del belt.speaking["classifier"]
    assert belt.look(MISSING_S) == ""
    told = belt.look(2)
    assert (
        "classifier runs and sends no heartbeat: let it publish battery_sorting/msg/Heartbeat on heartbeat" in told
    )


def test_heartbeats_that_name_another_node_are_told(belt):
    del belt.speaking["classifier"]
    assert "with node: classifier" in belt.look(MISSING_S + 2)


def test_a_node_that_was_heard_and_died_is_the_affair_of_its_own_alarm(belt):
    assert belt.look() == ""
    del belt.speaking["classifier"]
    assert belt.look(60) == ""
    for side in (belt.publishers, belt.subscribers):
        for topic in side:
            belt.take(side, topic, "classifier")
    assert belt.look(60) == ""


def test_a_node_that_waits_to_be_configured_must_be_one_that_can_be(belt):
    belt.speaking["classifier"] = Lifecycle.UNCONFIGURED
    assert belt.look(10) == ""
    del belt.services["classifier/change_state"]
    told = belt.look(MISSING_S + 2)
    assert "classifier says in its heartbeats that it is unconfigured and has no service ~/change_state" in told


def test_what_is_mended_is_no_alarm_any_more_and_waits_anew_when_it_comes_again(belt):
    kept = belt.services.pop("conveyor/set_belt")
    assert belt.look(MISSING_S + 2)
    belt.services["conveyor/set_belt"] = kept
    assert belt.look() == ""
    del belt.services["conveyor/set_belt"]
    assert belt.look(MISSING_S) == ""


def test_strangers_operators_and_other_lines_are_nobodys_concern_here(belt):
    odd = {"type": "std_msgs/msg/String", "reliable": False, "transient_local": False}
    for node, space in (("ros2cli_17", "/"), ("classifier", "/other"), ("recorder", "/belt")):
        belt.subscribers["battery_type"].append(Endpoint(node, space, **odd))
        belt.publishers["battery_type"].append(Endpoint(node, space, **odd))
    assert belt.look(60) == ""


def test_an_ev_line_without_measuring_needs_none_of_its_nodes():
    watch = ContractWatch(CONTRACTS["ev"], "/ev", ("inspection",))
    graph = Graph("ev")
    mine = {"inspection", "line_controller"}
    publishers = {name: [one for one in ends if one.node in mine] for name, ends in graph.publishers.items()}
    subscribers = {name: [one for one in ends if one.node in mine] for name, ends in graph.subscribers.items()}
    services = {"inspect_cell/_action/send_goal": graph.services["inspect_cell/_action/send_goal"]}
    for now in range(60):
        found = watch.look(SeenGraph(publishers, subscribers, services), {"inspection": ACTIVE}, float(now))
        assert found == Breaches("", "")

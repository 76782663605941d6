"""The contract and the real nodes: what they have is what it says, and whoever breaks it is an alarm."""
# issue 15, E15 and E16

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from battery_sorting.msg import BatteryImage, BatteryType, BeltState, Heartbeat, LineState
from harness import ROOT, wait_for
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from std_msgs.msg import String

from battery_sorting.line.contract import (
    CONTROLLER,
    LIFECYCLE_SERVICES,
    LIFECYCLE_TOPIC,
    QUALITIES,
    STANDARD_SERVICES,
    STANDARD_TOPICS,
    parameters_of,
)
from battery_sorting.lines import LINES, node_names
from battery_sorting.packml.fleet import Lifecycle
from battery_sorting.runtime.supervisor import process_environment

pytestmark = pytest.mark.ros

CONTRACTS = {name: kind.contract for name, kind in LINES.items()}
SECONDS = 10.0
"""Within so long a fault in the graph is an alarm; machines that test are busy."""


def endpoints(bench: Any) -> dict[str, dict[str, Any]]:
    """What each node of the line makes."""
    plan = bench.plan
    command = [sys.executable, str(ROOT / "test/support/endpoints_process.py"), str(plan.run_dir)]
    environment = {**process_environment(plan), "ROS_DOMAIN_ID": os.environ["ROS_DOMAIN_ID"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(params=["belt", "ev"])
def made(request, bench) -> tuple[str, dict[str, dict[str, Any]]]:
    if request.param == "belt":
        bench.set_up("images.keep=rejected")  # else the archivist does not listen to the verdicts
    else:
        bench.set_up_ev(plant=False)
    return request.param, endpoints(bench)


def test_what_the_nodes_make_is_what_the_contract_says(made):
    kind, nodes = made
    contract, space = CONTRACTS[kind], f"/{kind}/"
    assert nodes.keys() == set(contract.names)
    for name, has in nodes.items():
        standard = {*STANDARD_TOPICS, f"{space}{name}/{LIFECYCLE_TOPIC}"}
        for side, mine in (
            ("publishers", [topic for topic in contract.topics if name in topic.publishers]),
            ("subscribers", [topic for topic in contract.topics if name in topic.subscribers]),
        ):
            found = {topic.removeprefix(space): what for topic, what in has[side].items() if topic not in standard}
            said = {}
            for topic in mine:
                quality = QUALITIES[topic.quality]
                said[topic.name] = [topic.type, [quality.reliable, quality.transient_local, quality.depth]]
            assert found == said, f"{name}: {side}"


def test_services_and_actions_of_the_nodes_are_those_of_the_contract(made):
    kind, nodes = made
    contract, space = CONTRACTS[kind], f"/{kind}/"
    for name, has in nodes.items():
        served = [one for one in contract.services if one.node == name]
        called = [one for one in contract.services if name in one.callers]
        lifecycle = name != CONTROLLER
        expected = {
            "serves": {
                **{one.path: [one.type] for one in served if not one.is_action},
            },
            "calls": {
                **{one.path: [one.type] for one in called if not one.is_action},
                **(
                    {}
                    if lifecycle
                    else {
                        f"{other}/change_state": ["lifecycle_msgs/srv/ChangeState"]
                        for other in contract.names
                        if other != CONTROLLER
                    }
                ),
            },
            "executes": {one.path: [one.type] for one in served if one.is_action},
            "acts": {one.path: [one.type] for one in called if one.is_action},
        }
        standard = {f"{name}/{one}" for one in (*STANDARD_SERVICES, *(LIFECYCLE_SERVICES if lifecycle else ()))}
        for key, said in expected.items():
            found = {path.removeprefix(space): types for path, types in has[key].items() if "/_action/" not in path}
            if key == "serves":
                assert standard <= found.keys(), name
                found = {path: types for path, types in found.items() if path not in standard}
            assert found == said, f"{name}: {key}"


def test_every_parameter_of_every_node_is_described_and_read_only(made):
    _, nodes = made
    for name, has in nodes.items():
        parameters = {
            one: what for one, what in has["parameters"].items() if one != "start_type_description_service"
        }
        assert {one: what[:2] for one, what in parameters.items()} == {
            one.name: [True, one.meaning] for one in parameters_of(name)
        }, name
        for one in parameters_of(name):
            if one.name not in {"site_file", "recipe_file", "run_dir", "auto_start"}:
                assert parameters[one.name][2] == one.default, f"{name}: {one.name}"


def test_a_parameter_can_not_be_set_while_the_node_runs_and_says_what_it_is(bench):
    peer = bench.set_up()
    bench.start("ejector")
    bench.wait_for_heartbeat(lambda beat: beat.node == "ejector", "it runs")
    values = {
        "run_dir": ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="/elsewhere"),
        "exit_with_parent": ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False),
        "use_sim_time": ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=True),
    }
    parameters = [Parameter(name=name, value=value) for name, value in values.items()]
    answer = peer.call(SetParameters, "ejector/set_parameters", parameters=parameters)
    for name, result in zip(values, answer.results, strict=True):
        assert not result.successful and f"read-only parameter: {name}" in result.reason
    told = peer.call(DescribeParameters, "ejector/describe_parameters", names=list(values))
    assert all("Read once" in one.description and one.read_only for one in told.descriptors)


# ---- drawn wrongly ----


class Replaced:
    """The controller of a line, and nodes of somebody's own in place of its others."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        peer = bench.set_up()
        self.states = peer.listen(LineState, "line_state")
        self.controller = bench.start(CONTROLLER)
        wait_for(lambda: self.states, "the controller speaks")

    def node(self, name: str, *, says: str = "") -> Any:
        """A node that goes by this name and sends heartbeats, of another name perhaps."""
        peer = self.bench.join(self.bench.plan, name)
        peer.advertise(Heartbeat, "heartbeat")
        beat = Heartbeat(node=says or name, lifecycle_state=int(Lifecycle.ACTIVE), ok=True)
        peer.repeat("heartbeat", beat, 0.2)
        return peer

    def contract_alarm(self) -> str:
        """What is said to be wrong with the nodes."""
        found = [text for text in self.states[-1].alarms if text.startswith("contract: ")]
        return found[0] if found else ""

    def wait_for_alarm(self, text: str) -> None:
        wait_for(lambda: text in self.contract_alarm(), text, SECONDS)


@pytest.fixture
def replaced(bench) -> Replaced:
    return Replaced(bench)


@pytest.mark.parametrize(("profile", "words"), [("PREVIEW", "best effort and volatile"), ("STREAM", "volatile")])
def test_a_publisher_of_incompatible_quality_is_an_alarm_within_seconds(replaced, profile, words):
    replaced.node("classifier").advertise(BatteryType, "battery_type", profile, unheard=True)
    replaced.wait_for_alarm(
        f"classifier publishes battery_type {words}: make it reliable, transient local (qos.BATTERY_EVENT)"
    )


def test_subscribers_that_would_lose_messages_and_other_types_are_alarms(replaced):
    classifier = replaced.node("classifier")
    classifier.listen(BatteryImage, "battery_image", "PREVIEW")
    classifier.advertise(String, "battery_type", "BATTERY_EVENT", unheard=True)
    replaced.wait_for_alarm("classifier subscribes to battery_image best effort and volatile: make it reliable")
    replaced.wait_for_alarm(
        "classifier publishes battery_type as std_msgs/msg/String: it must be battery_sorting/msg/BatteryType"
    )


def test_a_missing_service_a_missing_topic_and_missing_heartbeats_are_alarms(replaced):
    conveyor = replaced.node("conveyor")
    conveyor.advertise(BeltState, "belt_state")
    replaced.bench.join(replaced.bench.plan, "camera").advertise(
        BatteryImage, "battery_image", "BATTERY_IMAGE", unheard=True
    )
    replaced.node("ejector", says="my_ejector")
    replaced.wait_for_alarm("conveyor does not offer the service conveyor/set_belt (battery_sorting/srv/SetBelt)")
    replaced.wait_for_alarm(
        "conveyor does not publish battery_detection (battery_sorting/msg/BatteryDetection), and must"
    )
    replaced.wait_for_alarm("camera runs and sends no heartbeat: let it publish battery_sorting/msg/Heartbeat")
    replaced.wait_for_alarm("let it send one 5 times per second, with node: ejector")
    assert "belt_state" not in replaced.contract_alarm()
    assert "conveyor does not offer the service conveyor/set_belt" in replaced.controller.output


def test_the_packages_own_nodes_are_no_alarm(bench):
    bench.set_up(plant=True)
    states = bench.peer.listen(LineState, "line_state")
    for name in node_names(bench.plan.site):
        bench.start(name)
    wait_for(lambda: states and states[-1].state == LineState.EXECUTE, "the line runs")
    seen = len(states)
    wait_for(lambda: len(states) > seen + 40, "it has run for some seconds")
    told = {text for state in states for text in state.alarms if text.startswith("contract")}
    assert not told

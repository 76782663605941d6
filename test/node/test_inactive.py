"""Nothing is published while a node is inactive; what happened to a battery waits until it is active."""
# issue 16, 6

from __future__ import annotations

import importlib
import time
from typing import Any

import pytest
from battery_sorting.msg import BatteryDetection, BatteryImage, BatteryType, EjectCommand, EjectResult, ModelChange
from harness import wait_for
from rclpy.lifecycle import LifecycleNode, LifecycleNodeMixin

from battery_sorting.line.contract import CONTROLLER, QUALITIES
from battery_sorting.lines import LINES
from battery_sorting.packml.fleet import Lifecycle

pytestmark = pytest.mark.ros

NODES = [(name, node) for name, kind in LINES.items() for node in kind.contract.names if node != CONTROLLER]
SOON_S = 1.5
"""Longer than the period of all that is published by itself, and than the wait for a frame."""


def listen_to_all(bench: Any, line: str, node: str) -> dict[str, list[Any]]:
    """What is heard of each topic of ``node`` that it must not publish while it is inactive."""
    heard = {}
    for topic in LINES[line].contract.topics:
        if node in topic.publishers and not topic.while_inactive:
            package, _, name = topic.type.split("/")
            type_ = getattr(importlib.import_module(f"{package}.msg"), name)
            heard[topic.name] = bench.peer.listen(type_, topic.name, topic.quality)
    return heard


def stir(bench: Any, node: str) -> None:
    """Gives the node what it would have something to say to."""
    now = bench.now()
    if node == "camera":
        bench.peer.advertise(BatteryDetection, "battery_detection", "BATTERY_EVENT")
        bench.peer.publish("battery_detection", BatteryDetection(header=now, battery_id="boot-1", trigger_count=1))
    elif node == "classifier":
        bench.peer.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")
        bench.peer.publish("battery_image", BatteryImage(header=now, battery_id="boot-1", error="no_image"))
    elif node == "ejector":
        bench.peer.advertise(EjectCommand, "eject_command", "ORDER")
        bench.peer.publish("eject_command", EjectCommand(header=now, battery_id="boot-1", token=1, bin="nowhere"))


WAITS = {
    "camera": ("battery_image", lambda image: (image.battery_id, image.error) == ("boot-1", "no_image")),
    "classifier": ("battery_type", lambda verdict: (verdict.battery_id, verdict.reason) == ("boot-1", "no_image")),
    "ejector": ("eject_result", lambda result: result.outcome == EjectResult.REJECTED),
}
"""What the nodes have to say when they are active, as `stir` gave them reason to."""


@pytest.mark.parametrize(("line", "node"), NODES)
def test_a_node_that_is_inactive_publishes_nothing_and_loses_nothing(bench, line, node):
    bench.set_up(plant=True) if line == "belt" else bench.set_up_ev()
    heard = listen_to_all(bench, line, node)
    bench.start(node)
    assert bench.change(node, "configure"), bench.heartbeats[-1].detail
    stir(bench, node)
    time.sleep(SOON_S)
    beat = bench.wait_for_heartbeat(lambda beat: beat.lifecycle_state == Lifecycle.INACTIVE, "it is inactive")
    assert beat.ok and {name: len(messages) for name, messages in heard.items() if messages} == {}
    assert bench.change(node, "activate")
    if node in WAITS:
        topic, fits = WAITS[node]
        wait_for(lambda: any(fits(message) for message in heard[topic]), f"{topic} of before the activation")


def test_a_node_that_a_person_deactivates_falls_silent_and_tells_afterwards_in_order(bench):
    peer = bench.set_up()
    types = peer.listen(BatteryType, "battery_type", "BATTERY_EVENT")
    changes = peer.listen(ModelChange, "model_change", "NOTICE")
    bench.bring_up("classifier")
    peer.advertise(BatteryImage, "battery_image", "BATTERY_IMAGE")

    def send(battery_id: str) -> None:
        peer.publish("battery_image", BatteryImage(header=bench.now(), battery_id=battery_id, error="no_image"))

    send("a")
    wait_for(lambda: types, "a verdict")
    assert bench.change("classifier", "deactivate")
    for battery_id in ("b", "c"):
        send(battery_id)
    time.sleep(SOON_S)
    assert [verdict.battery_id for verdict in types] == ["a"]
    assert bench.change("classifier", "activate")
    send("d")
    wait_for(lambda: len(types) == 4, "all verdicts")
    assert [verdict.battery_id for verdict in types] == ["a", "b", "c", "d"]
    assert len(changes) == 1


def test_what_waits_is_what_would_be_kept_for_those_who_come_late():
    for kind in LINES.values():
        for topic in kind.contract.topics:
            waits = QUALITIES[topic.quality].transient_local and not topic.while_inactive
            assert (topic.inactive == "waits") is waits


# ---- private parts of rclpy ----


def test_rclpy_has_the_private_parts_that_are_used():
    assert issubclass(LifecycleNode, LifecycleNodeMixin)
    assert callable(LifecycleNodeMixin._LifecycleNodeMixin__on_change_state)
    from rclpy.impl import rcutils_logger

    assert isinstance(rcutils_logger._internal_callers, list)


def test_a_transition_that_is_not_allowed_is_refused_and_the_node_goes_on(bench):
    bench.set_up()
    node = bench.start("camera")
    assert not bench.change("camera", "activate")
    beat = bench.wait_for_heartbeat(lambda _: True, "it goes on")
    assert beat.lifecycle_state == Lifecycle.UNCONFIGURED and node.exit_code is None
    assert "refused" in node.output

"""Makes each node of a line and prints as JSON its topics with types and quality, services, actions, parameters.

endpoints_process.py RUN_DIR writes nothing else than the nodes do; the run files must be there.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import rclpy
from rclpy.action.graph import (
    get_action_client_names_and_types_by_node,
    get_action_server_names_and_types_by_node,
)
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from battery_sorting.line.paths import RECIPE_FILE, SITE_FILE
from battery_sorting.line.site import LineSite
from battery_sorting.lines import LINES, node_names

CLASSES = {
    "conveyor": "conveyor:ConveyorNode",
    "camera": "camera:CameraNode",
    "classifier": "classifier:ClassifierNode",
    "ejector": "ejector:EjectorNode",
    "archivist": "archivist:ArchivistNode",
    "inspection": "inspection:InspectionNode",
    "robot": "robot:RobotNode",
    "tester": "tester:TesterNode",
    "grader": "grader:GraderNode",
}
CONTROLLERS = {"belt": "line_controller:BeltControllerNode", "ev": "ev_controller:EvControllerNode"}
SUBSCRIBE_WHEN_OPENED = {"classifier", "archivist"}


def load_resolved(run_dir: Path) -> LineSite:
    kind = json.loads((run_dir / SITE_FILE).read_text())["kind"]
    return LINES[kind].site.load_resolved(run_dir / SITE_FILE)


def make(name: str, site: LineSite, run_dir: Path) -> Any:
    module, _, class_name = {**CLASSES, "line_controller": CONTROLLERS[site.kind]}[name].partition(":")
    values = {
        "site_file": str(run_dir / SITE_FILE),
        "recipe_file": str(run_dir / RECIPE_FILE),
        "run_dir": str(run_dir),
    }
    node = getattr(importlib.import_module(f"battery_sorting.nodes.{module}"), class_name)(
        namespace=site.line,
        use_global_arguments=False,
        parameter_overrides=[Parameter(key, value=value) for key, value in values.items()],
    )
    if name in SUBSCRIBE_WHEN_OPENED:
        node.open()
    return node


def type_name(type_: Any) -> str:
    return "/".join([*type_.__module__.split(".")[:2], type_.__name__])


def quality(profile: Any) -> list[Any]:
    return [
        profile.reliability is ReliabilityPolicy.RELIABLE,
        profile.durability is DurabilityPolicy.TRANSIENT_LOCAL,
        profile.depth,
    ]


def describe(node: Any) -> dict[str, Any]:
    name, space = node.get_name(), node.get_namespace()
    parameters = sorted(node._parameters)
    return {
        "publishers": {
            one.topic_name: [type_name(one.msg_type), quality(one.qos_profile)] for one in node.publishers
        },
        "subscribers": {
            one.topic_name: [type_name(one.msg_type), quality(one.qos_profile)] for one in node.subscriptions
        },
        "serves": dict(node.get_service_names_and_types_by_node(name, space)),
        "calls": dict(node.get_client_names_and_types_by_node(name, space)),
        "executes": dict(get_action_server_names_and_types_by_node(node, name, space)),
        "acts": dict(get_action_client_names_and_types_by_node(node, name, space)),
        "parameters": {
            one.name: [one.read_only, one.description, node.get_parameter(one.name).value]
            for one in node.describe_parameters(parameters)
        },
    }


def main() -> None:
    run_dir = Path(sys.argv[1])
    site = load_resolved(run_dir)
    rclpy.init(args=[])
    nodes = {name: make(name, site, run_dir) for name in node_names(site)}
    print(json.dumps({name: describe(node) for name, node in nodes.items()}), flush=True)
    for node in nodes.values():
        node.close()
    os._exit(0)  # closing the middleware was seen to hang


main()

"""Prints the ROS graph as JSON, as any user's tool on this host would see it: no settings of the package.

graph_process.py NAMESPACE NODE[,NODE…] waits until these nodes are there and says what each has.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import rclpy
from rclpy.action.graph import (
    get_action_client_names_and_types_by_node,
    get_action_server_names_and_types_by_node,
)

PATIENCE_S = 20.0
SETTLE_S = 3.0


def main() -> None:
    namespace, wanted = sys.argv[1], set(sys.argv[2].split(","))
    rclpy.init(args=[])
    node = rclpy.create_node("onlooker", enable_rosout=False, start_parameter_services=False)
    deadline = time.monotonic() + PATIENCE_S
    while not wanted <= {name for name, space in node.get_node_names_and_namespaces() if space == namespace}:
        if time.monotonic() > deadline:
            print(json.dumps({}), flush=True)
            os._exit(1)
        time.sleep(0.1)
    before: dict[str, Any] = {}
    unchanged_since = time.monotonic()
    while time.monotonic() - unchanged_since < SETTLE_S and time.monotonic() < deadline:
        found = {name: interfaces(node, name, namespace) for name in wanted}
        if found != before:
            before, unchanged_since = found, time.monotonic()
        time.sleep(0.2)
    print(json.dumps(before), flush=True)
    os._exit(0)  # closing the middleware was seen to hang


def interfaces(node: Any, name: str, namespace: str) -> dict[str, list[str]]:
    """What one node publishes, subscribes, offers and calls; parts of actions are the action's."""
    pairs = {
        "publish": node.get_publisher_names_and_types_by_node(name, namespace),
        "subscribe": node.get_subscriber_names_and_types_by_node(name, namespace),
        "reply": node.get_service_names_and_types_by_node(name, namespace),
        "request": node.get_client_names_and_types_by_node(name, namespace),
        "execute": get_action_server_names_and_types_by_node(node, name, namespace),
        "call": get_action_client_names_and_types_by_node(node, name, namespace),
    }
    return {key: sorted(found for found, _ in names if "/_action/" not in found) for key, names in pairs.items()}


main()

"""A stranger in the domain: floods a belt line with forged messages until it is told to end.

    forger_process.py LINE SEED NUMBER

Ids are of other runs of the PLC, numbers and texts are random. It prints ``done`` after NUMBER messages per topic,
and stays, with its publishers, until its standard input is closed. No settings of the package, as any user's node.
"""

from __future__ import annotations

import math
import os
import random
import sys
from typing import Any

import rclpy

from battery_sorting import msg
from battery_sorting.ros import qos

TEXTS = ("", "klarus", "Klarus", "x" * 100_000, "<b>", "\x1b[2J", "a\tb", "ünï", "; DROP TABLE", "0" * 64)
NUMBERS = (math.nan, math.inf, -math.inf, -1.0, 0.0, 0.5, 0.999, 1.0, 2.0, 1e300)
TOPICS: dict[str, tuple[Any, Any]] = {
    "battery_detection": (msg.BatteryDetection, qos.BATTERY_EVENT),
    "exit_detection": (msg.ExitDetection, qos.BATTERY_EVENT),
    "belt_state": (msg.BeltState, qos.STREAM),
    "battery_type": (msg.BatteryType, qos.BATTERY_EVENT),
    "eject_command": (msg.EjectCommand, qos.ORDER),
    "eject_result": (msg.EjectResult, qos.BATTERY_EVENT),
    "heartbeat": (msg.Heartbeat, qos.STREAM),
}


def forged(chance: random.Random, type_: Any) -> Any:
    """A message with random fields."""
    message = type_()
    for name, kind in type_.get_fields_and_field_types().items():
        if name == "battery_id":
            foreign = f"{chance.randrange(1 << 24):08x}-{chance.randrange(1000):06d}"
            message.battery_id = chance.choice([foreign, foreign, foreign, *TEXTS])
        elif name == "node":
            message.node = chance.choice(["nobody", *TEXTS])
        elif kind == "string":
            setattr(message, name, chance.choice(TEXTS))
        elif kind == "double":
            setattr(message, name, chance.choice(NUMBERS))
        elif kind == "boolean":
            setattr(message, name, chance.random() < 0.5)
        elif kind.startswith("uint"):
            setattr(message, name, chance.randrange(1 << int(kind[4:])))
    if type_ is msg.BatteryType:
        message.labels = [chance.choice(TEXTS) for _ in range(chance.randrange(4))]
        message.scores = [chance.choice(NUMBERS) for _ in range(chance.randrange(4))]
    return message


def main() -> None:
    line, seed, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    rclpy.init(args=[])
    node = rclpy.create_node("forger", enable_rosout=False, start_parameter_services=False)
    publishers = {
        topic: node.create_publisher(type_, f"/{line}/{topic}", q) for topic, (type_, q) in TOPICS.items()
    }
    while not all(publisher.get_subscription_count() for publisher in publishers.values()):
        rclpy.spin_once(node, timeout_sec=0.05)
    for _ in range(number):
        for topic, publisher in publishers.items():
            publisher.publish(forged(chance, TOPICS[topic][0]))
        rclpy.spin_once(node, timeout_sec=0.01)
    print("done", flush=True)
    sys.stdin.read()
    os._exit(0)  # closing the middleware was seen to hang


main()

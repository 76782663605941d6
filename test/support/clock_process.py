"""Publishes ``/clock`` as a replay does. It is told on stdin, a line each: ``rate 10``, ``leap -3600``.

Rate 0 is a replay that is paused: nothing is published.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import rclpy
from rosgraph_msgs.msg import Clock

PERIOD_S = 0.02


class Replay:
    def __init__(self) -> None:
        self.rate = 1.0
        self.time_s = 1.7e9
        threading.Thread(target=self._obey, daemon=True).start()

    def _obey(self) -> None:
        for line in sys.stdin:
            what, number = line.split()
            if what == "rate":
                self.rate = float(number)
            else:
                self.time_s += float(number)
        os._exit(0)


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("replay")
    publisher = node.create_publisher(Clock, "/clock", 10)
    replay = Replay()
    last = time.monotonic()
    while True:
        time.sleep(PERIOD_S)
        now = time.monotonic()
        replay.time_s += (now - last) * replay.rate
        last = now
        if replay.rate:
            message = Clock()
            message.clock.sec = int(replay.time_s)
            message.clock.nanosec = int(replay.time_s % 1 * 1e9)
            publisher.publish(message)


main()

"""What threads beside the executor publish and log while the middleware ends raises nothing (issue 14, point 2)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from harness import ROOT

pytestmark = pytest.mark.ros

AFTER_THE_END = """
import rclpy
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import String
from battery_sorting.ros.lasting import LastingPublisher, lasting_logger

rclpy.init()
node = LifecycleNode("a")
publisher = node.create_publisher(String, "b", 1, publisher_class=LastingPublisher)
plain = node.create_publisher(String, "c", 1)
publisher.publish(String(data="x"))
try:
    publisher.publish("no message")
except TypeError:
    print("a mistake is told while there is somebody to hear it")
rclpy.shutdown()
try:
    plain.publish(String(data="x"))
except Exception:
    print("a plain publisher raises")
publisher.publish(String(data="x"))
print("count", publisher.get_subscription_count())
logger = lasting_logger("a")
for level in (logger.error, logger.warning):
    level("no UTF-8: \\udcff")  # one line, two severities: rclpy's own logger raises for both
print("end", flush=True)
import os
os._exit(0)
"""


def test_a_publisher_and_a_logger_outlive_the_context(domain):
    done = subprocess.run(
        [sys.executable, "-c", AFTER_THE_END], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )
    assert done.stdout.splitlines() == [
        "a mistake is told while there is somebody to hear it",
        "a plain publisher raises",
        "count 0",
        "end",
    ], done.stderr
    assert "no UTF-8" in done.stderr


def test_a_logger_names_the_line_that_logs(domain):
    script = (
        "import rclpy; rclpy.init()\nfrom battery_sorting.ros.lasting import lasting_logger\n"
        "lasting_logger('a').error('hello'); import os; os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "RCUTILS_CONSOLE_OUTPUT_FORMAT": "{file_name}:{line_number} {message}"},
    )
    assert "<string>:3 hello" in done.stderr

"""What the driver of a robot owes the EV line, as checks; docs/how-to/drivers.md is the prose of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from battery_sorting.core.errors import DeviceError
from battery_sorting.drivers.robot.base import MoveJob, Robot
from battery_sorting.drivers.suite import Checks, DriverBench, Suite, expect, require

CHECKS = Checks()


def _calls(robot: Robot) -> dict[str, Callable[[], Any]]:
    return {
        "places": robot.places,
        "read_state": robot.read_state,
        "send": lambda: robot.send(MoveJob(1, "nowhere", "nowhere")),
        "stop": robot.stop,
        "reset": robot.reset,
    }


SUITE = Suite(CHECKS, calls=_calls, touch=lambda robot: robot.read_state())


@CHECKS.add("tells its places", "docs/reference/robot.md, 'places' and 'state'")
def _tells_its_places(bench: DriverBench) -> str:
    robot: Robot = bench.connect()
    places = robot.places()
    require(bool(places), "was taught no places")
    state = robot.read_state()
    require(
        state.done_token >= 0 and state.active_token >= 0, f"tokens {state.active_token} and {state.done_token}"
    )
    return f"{len(places)} places, {'ready' if state.ready else state.fault or 'not ready'}"


@CHECKS.add(
    "unknown places are refused",
    'answer {"ok": false, …} to a move between places that were not taught, and don\'t move',
)
def _refuses_unknown_places(bench: DriverBench) -> str:
    robot: Robot = bench.connect()
    token = robot.read_state().done_token + 1
    place = next(iter(sorted(robot.places())))
    for source, target in (("no such place", place), (place, "no such place")):
        expect(DeviceError, functools.partial(robot.send, MoveJob(token, source, target)), "send()")
    require(robot.connected, "is disconnected after refusing a place")
    require(robot.read_state().active_token == 0, "has begun to move")
    return ""

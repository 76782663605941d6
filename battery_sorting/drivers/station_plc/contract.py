"""What the driver of a station's PLC owes the EV line, as checks; docs/how-to/drivers.md is the prose of it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from battery_sorting.core.errors import DeviceSettingsError
from battery_sorting.drivers.station_plc.base import (
    ActionResult,
    FlipperPosition,
    StationAction,
    StationCommand,
    StationPlc,
    StationStatus,
)
from battery_sorting.drivers.suite import (
    Checks,
    CheckSkipped,
    ContractViolation,
    DriverBench,
    Suite,
    check_clock,
    expect,
    lasting,
    require,
)

STATION_S = 10.0
"""The longest that a movement of a station may take."""
CHECKS = Checks()


def _calls(plc: StationPlc) -> dict[str, Callable[[], Any]]:
    return {
        "read_status": plc.read_status,
        "send": lambda: plc.send(StationCommand(1, StationAction.NONE)),
        "refresh_watchdog": plc.refresh_watchdog,
        "reset_faults": plc.reset_faults,
    }


SUITE = Suite(CHECKS, calls=_calls, touch=lambda plc: plc.read_status())


@CHECKS.add("tells its status", "docs/reference/station_plc.md says what each register holds")
def _tells_its_status(bench: DriverBench) -> str:
    return check_clock(bench.connect().read_status)


@CHECKS.add("impossible commands are refused", "raise DeviceSettingsError before anything is written")
def _refuses_impossible_commands(bench: DriverBench) -> str:
    plc: StationPlc = bench.connect()
    before = plc.read_status()
    load = StationAction.LOAD
    for command in (
        StationCommand(0, load),
        StationCommand(2**32, load),
        StationCommand(1, load, argument=-1),
        StationCommand(1, load, expiry_ms=0),
    ):
        expect(DeviceSettingsError, functools.partial(plc.send, command), f"send({command})")
    after = plc.read_status()
    require(
        (before.done_count, before.active_token) == (after.done_count, after.active_token), "something was sent"
    )
    return ""


@CHECKS.add(
    "flips each token once",
    "docs/reference/station_plc.md, 'tokens': take newer tokens only, and home the flipper on reset",
    lasting(lambda _: 3 * STATION_S),
)
def _flips_once(bench: DriverBench) -> str:
    if not bench.options.move:
        raise CheckSkipped("needs --move, which homes and turns the flipper")
    plc: StationPlc = bench.connect()
    if plc.read_status().emergency_stop:
        raise CheckSkipped("the emergency stop is pressed: release it first")
    plc.reset_faults()
    home = _await_station(plc, _is_home)
    command = StationCommand(home.done_token + 1, StationAction.FLIP, expiry_ms=1000)
    plc.send(command)
    flipped = _await_station(plc, lambda status: status.done_token == command.token)
    require(
        flipped.done_result is ActionResult.DONE and flipped.flipper is FlipperPosition.INVERTED,
        f"a flip ended as {flipped.done_result.name}, the flipper is {flipped.flipper.name}",
    )
    plc.send(command)
    time.sleep(0.2)
    again = plc.read_status()
    require(again.active_token == 0, "a token that was used before has started something")
    require(again.done_count == flipped.done_count, "a token that was used before was counted as done again")
    plc.reset_faults()
    _await_station(plc, _is_home)
    return f"token {command.token}"


def _is_home(status: StationStatus) -> bool:
    """An upright flipper may still be on its last degrees: nothing is taken until it stands."""
    return status.flipper is FlipperPosition.UPRIGHT and status.active_token == 0


def _await_station(plc: StationPlc, condition: Callable[[StationStatus], bool]) -> StationStatus:
    end = time.monotonic() + STATION_S
    while not condition(status := plc.read_status()):
        if time.monotonic() > end:
            raise ContractViolation(f"did not come within {STATION_S:g} s; its status is {status}")
        plc.refresh_watchdog()
        time.sleep(0.02)
    return status

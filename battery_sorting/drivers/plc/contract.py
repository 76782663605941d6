"""What the driver of a belt PLC owes its line, as checks; docs/how-to/drivers.md is the prose of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from battery_sorting.core.errors import DeviceSettingsError
from battery_sorting.core.types import count_difference
from battery_sorting.drivers.plc.base import EVENTS_KEPT, BeltPlc, Eye, PlcStatus, ValveCommand
from battery_sorting.drivers.suite import Checks, CheckSkipped, DriverBench, Suite, check_clock, expect, require

RUN_S = 2.0
CHECKS = Checks()


def _calls(plc: BeltPlc) -> dict[str, Callable[[], Any]]:
    return {
        "read_status": plc.read_status,
        "read_latches": lambda: plc.read_latches(Eye.CAMERA, 0, 1),
        "read_acks": lambda: plc.read_acks(0, 1),
        "set_belt": lambda: plc.set_belt(False, 0.0),
        "refresh_watchdog": plc.refresh_watchdog,
        "send": lambda: plc.send(ValveCommand(0, 0, 0, 1, 0)),
        "reset_faults": plc.reset_faults,
        "clear_queue": plc.clear_queue,
    }


SUITE = Suite(CHECKS, calls=_calls, touch=lambda plc: plc.read_status())


@CHECKS.add("tells its status", "docs/reference/plc.md says what each register holds")
def _tells_its_status(bench: DriverBench) -> str:
    return check_clock(bench.connect().read_status)


@CHECKS.add("keeps edges and acknowledgements", "docs/reference/plc.md, 'rings'")
def _keeps_its_rings(bench: DriverBench) -> str:
    plc = bench.connect()
    status: PlcStatus = plc.read_status()
    totals = {Eye.GATE: status.gate_total, Eye.CAMERA: status.eye_total, Eye.EXIT: status.exit_total}
    for eye, total in totals.items():
        latches = plc.read_latches(eye, 0, total)
        numbers = [latch.number for latch in latches]
        require(len(latches) <= EVENTS_KEPT, f"{eye.value}: {len(latches)} edges")
        require(numbers == list(range(total - len(numbers) + 1, total + 1)), f"{eye.value}: edges {numbers}")
        require(bool(latches) == bool(total) or total == 0, f"{eye.value}: no edges, though it counts {total}")
    acks = plc.read_acks(0, status.ack_total)
    require(len(acks) <= EVENTS_KEPT, f"{len(acks)} acknowledgements")
    return f"edges {[totals[eye] for eye in Eye]}, acknowledgements {status.ack_total}"


@CHECKS.add(
    "set-point is read back",
    "compare what the device holds with what was written; raise DeviceSettingsError if it differs",
)
def _reads_the_set_point_back(bench: DriverBench) -> str:
    plc = bench.connect()
    status: PlcStatus = plc.read_status()
    if status.running:
        raise CheckSkipped("the belt is running: stop it to have this checked")
    other = status.speed_setpoint_mps + (-0.01 if status.speed_setpoint_mps >= 0.02 else 0.01)
    try:
        plc.set_belt(False, other)
        held = plc.read_status().speed_setpoint_mps
        require(
            math.isclose(held, other, abs_tol=1e-3), f"was told {other:g} m/s without complaint, holds {held:g}"
        )
        require(not plc.read_status().running, "the belt was switched on by set_belt(False, …)")
    finally:
        plc.set_belt(False, status.speed_setpoint_mps)
    return f"set-point {status.speed_setpoint_mps:g} m/s"


@CHECKS.add("impossible speeds are refused", "raise DeviceSettingsError before anything is written")
def _refuses_impossible_speeds(bench: DriverBench) -> str:
    plc = bench.connect()
    status: PlcStatus = plc.read_status()
    if status.running:
        raise CheckSkipped("the belt is running: stop it to have this checked")
    expect(DeviceSettingsError, lambda: plc.set_belt(False, math.nan), "set_belt(False, nan)")
    expect(DeviceSettingsError, lambda: plc.set_belt(False, -1.0), "set_belt(False, -1)")
    held = plc.read_status().speed_setpoint_mps
    require(held == status.speed_setpoint_mps, f"the set-point has become {held:g} m/s nevertheless")
    return ""


@CHECKS.add("encoder moves", "check drive, release and encoder; the belt must accept the speed of --speed")
def _moves_the_encoder(bench: DriverBench) -> str:
    if not bench.options.move:
        raise CheckSkipped("needs --move, which runs the belt")
    plc = bench.connect()
    before: PlcStatus = plc.read_status()
    if before.emergency_stop or before.watchdog_tripped:
        raise CheckSkipped("emergency stop or watchdog stands: reset it first")
    try:
        plc.set_belt(True, bench.options.speed_mps)
        end = time.monotonic() + RUN_S
        while not _moves(after := plc.read_status(), before) and time.monotonic() < end:
            plc.refresh_watchdog()
            time.sleep(0.05)
    finally:
        plc.set_belt(False, before.speed_setpoint_mps)
    counts = count_difference(after.encoder_count, before.encoder_count)
    require(after.running, "was told to run and has stopped again")
    require(counts > 0, f"the encoder went by {counts} counts while the belt should run")
    require(after.speed_mps > 0, "its measured speed is 0 while the belt should run")
    return f"{counts} counts, {after.speed_mps:.2f} m/s"


def _moves(now: PlcStatus, before: PlcStatus) -> bool:
    return now.speed_mps > 0 and count_difference(now.encoder_count, before.encoder_count) > 0

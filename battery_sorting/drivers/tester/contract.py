"""What the driver of a tester owes the EV line, as checks; docs/how-to/drivers.md is the prose of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from battery_sorting.core import readings
from battery_sorting.core.errors import DeviceSettingsError, OpenContactError, ReadingError
from battery_sorting.drivers.suite import (
    Checks,
    CheckSkipped,
    ContractViolation,
    DriverBench,
    Suite,
    connections,
    expect,
    require,
)
from battery_sorting.drivers.tester.base import CellTester, ChannelPhase, ChannelState, CyclerRun, Limits, Rest

_QUIET_RUN = CyclerRun((Rest(seconds=600.0),), Limits(voltage_min_v=0.5, voltage_max_v=4.9))
"""No current flows in it."""
CHECKS = Checks()


def _calls(tester: CellTester) -> dict[str, Callable[[], Any]]:
    channel = tester.channels[0]
    return {
        "check_contact": lambda: tester.check_contact(channel),
        "measure_resistance": lambda: tester.measure_resistance(channel),
        "start": lambda: tester.start(channel, _QUIET_RUN),
        "read_progress": lambda: tester.read_progress(channel),
        "read_results": lambda: tester.read_results(channel),
        "stop": lambda: tester.stop(channel),
        "safe": lambda: tester.safe(channel),
        "emergency_stop": tester.emergency_stop,
        "emergency_stop_stands": tester.emergency_stop_stands,
        "reset_emergency_stop": tester.reset_emergency_stop,
    }


SUITE = Suite(CHECKS, calls=_calls, touch=lambda tester: tester.read_progress(tester.channels[0]))


@CHECKS.add("tells its channels", "docs/reference/tester.md, 'MEASure:CHANnel?'", connections(2))
def _tells_its_channels(bench: DriverBench) -> str:
    tester: CellTester = bench.connect()
    require(bool(tester.channels), "has no channels")
    for channel in tester.channels:
        state = tester.read_progress(channel)
        _require_readings(channel, state)
        require(0 <= state.step <= state.steps, f"channel {channel}: step {state.step} of {state.steps}")
    return f"{len(tester.channels)} channels"


def _require_readings(channel: int, state: ChannelState) -> None:
    """All values of a channel are readings; of one that neither runs nor is done they may be NaN."""
    working = state.state in (ChannelPhase.RUNNING, ChannelPhase.DONE)
    shown = (
        (readings.VOLTAGE, state.voltage_v),
        (readings.CURRENT, state.current_a),
        (readings.TEMPERATURE, state.temperature_c),
        (readings.CHARGE, state.charge_ah),
        (readings.TIME, state.elapsed_s),
    )
    for quantity, value in shown:
        try:
            if working or not math.isnan(value):
                quantity.check(value)
        except ReadingError as error:
            raise ContractViolation(f"channel {channel}: {error}: {state}") from error


@CHECKS.add(
    "other channels are refused",
    "raise DeviceSettingsError for a channel that the tester hasn't, before anything is sent",
)
def _refuses_other_channels(bench: DriverBench) -> str:
    tester: CellTester = bench.connect()
    calls: tuple[Callable[[int], Any], ...] = (
        tester.read_progress,
        tester.check_contact,
        tester.measure_resistance,
        tester.safe,
    )
    for channel in (0, tester.channels[-1] + 1):
        for call in calls:
            expect(DeviceSettingsError, functools.partial(call, channel), f"{call.__name__}({channel})")
    require(tester.connected, "is disconnected after refusing a channel")
    return ""


@CHECKS.add("makes a channel safe", "switch the current off, open the contacts, and read both back in safe()")
def _makes_safe(bench: DriverBench) -> str:
    tester = bench.connect()
    require(
        not tester.emergency_stop_stands(), "its emergency stop stands: release and reset it to have this checked"
    )
    channel = _free_channel(tester)
    for _ in range(2):
        tester.safe(channel)
        require(not _runs(tester, channel), f"channel {channel} runs after safe()")
    return f"channel {channel}"


@CHECKS.add(
    "starts and stops",
    "with a sound cell in the first channel: see docs/reference/tester.md for what start(), stop() and safe() owe",
    connections(3),
)
def _starts_and_stops(bench: DriverBench) -> str:
    if not bench.options.move:
        raise CheckSkipped("needs --move, which closes the contacts of a channel")
    tester = bench.connect()
    channel = _free_channel(tester)
    try:
        try:
            contact = tester.check_contact(channel)
        except OpenContactError as error:
            raise CheckSkipped(f"put a cell into channel {channel}: {error}") from error
        reading = tester.measure_resistance(channel)
        require(reading.resistance_mohm > 0, f"a resistance of {reading.resistance_mohm} mΩ")
        require(
            abs(reading.ocv_v - contact.voltage_v) < 0.05,
            f"the meter shows {reading.ocv_v:.4f} V, the cycler {contact.voltage_v:.4f} V: two different cells?",
        )
        tester.start(channel, _QUIET_RUN)
        require(_runs(tester, channel), "does not run after start()")
        tester.stop(channel)
        require(not _runs(tester, channel), "runs after stop()")
        tester.start(channel, _QUIET_RUN)
    finally:
        tester.safe(channel)
    require(not _runs(tester, channel), "runs after safe()")
    return f"channel {channel}: {reading.resistance_mohm:.3f} mΩ, {reading.ocv_v:.4f} V"


def _runs(tester: CellTester, channel: int) -> bool:
    state: ChannelState = tester.read_progress(channel)
    return state.state is ChannelPhase.RUNNING


def _free_channel(tester: CellTester) -> int:
    for channel in tester.channels:
        if not _runs(tester, channel):
            return channel
    raise CheckSkipped("all channels are running: stop one to have this checked")

"""Drivers of station PLCs: on the simulated station, and on PLCs that misbehave."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from impostor import frame, impostor, modbus, registers
from plant_line import BOOT_ID, wait_for

from battery_sorting.core.errors import (
    DeviceBusyError,
    DeviceConnectionError,
    DeviceProtocolError,
    DeviceSettingsError,
    DeviceTimeoutError,
)
from battery_sorting.drivers.contract import check_driver
from battery_sorting.drivers.station_plc import register_map as rm
from battery_sorting.drivers.station_plc.base import (
    ActionResult,
    FlipperPosition,
    StationAction,
    StationCommand,
    StationStatus,
)
from battery_sorting.drivers.station_plc.modbus import ModbusStationPlc, ModbusStationPlcSettings
from battery_sorting.drivers.suite import CheckOptions, CheckOutcome


@contextmanager
def connected(port: int, **settings) -> Iterator[ModbusStationPlc]:
    plc = ModbusStationPlc(ModbusStationPlcSettings(host="127.0.0.1", port=port, **settings))
    plc.connect(1.0)
    try:
        yield plc
    finally:
        plc.disconnect()


@pytest.fixture
def plc(line) -> Iterator[ModbusStationPlc]:
    with connected(line.station_modbus.port) as plc:
        yield plc


def done(plc: ModbusStationPlc, token: int, action: StationAction, argument: int = 0) -> StationStatus:
    """Sends an action and waits for its end."""
    plc.send(StationCommand(token, action, argument))

    def ended() -> StationStatus | None:
        plc.refresh_watchdog()
        status = plc.read_status()
        return status if status.done_token == token and not status.active_token else None

    return wait_for(ended)


def test_cell_goes_through_the_station(line, plc):
    before = plc.read_status()
    assert (before.boot_id, before.part_present, before.flipper) == (BOOT_ID, False, FlipperPosition.UPRIGHT)
    loaded = done(plc, 1, StationAction.LOAD)
    assert (loaded.done_result, loaded.part_present, loaded.loaded_total) == (ActionResult.DONE, True, 1)
    assert done(plc, 2, StationAction.CAPTURE_LUG).done_result is ActionResult.DONE
    assert done(plc, 3, StationAction.FLIP).flipper is FlipperPosition.INVERTED
    assert done(plc, 4, StationAction.CAPTURE_CASE).done_result is ActionResult.DONE
    left = done(plc, 5, StationAction.RELEASE, 3)
    assert (left.part_present, left.flipper, left.done_count) == (False, FlipperPosition.UPRIGHT, 5)
    assert [cell.index for cell in line.station.outlets["hazardous"]] == [0]
    assert abs(left.host_time - time.monotonic()) < 0.5


def test_known_token_moves_nothing_and_older_ones_neither(line, plc):
    first = done(plc, 7, StationAction.FLIP)
    for token in (7, 3):
        plc.send(StationCommand(token, StationAction.FLIP))
    time.sleep(0.15)
    assert plc.read_status().done_count == first.done_count == 1
    assert plc.read_status().flipper is FlipperPosition.INVERTED


def test_what_makes_no_sense_is_refused(plc):
    done(plc, 1, StationAction.LOAD)
    assert done(plc, 2, StationAction.LOAD).done_result is ActionResult.REFUSED
    assert done(plc, 3, StationAction.RELEASE, 99).done_result is ActionResult.REFUSED
    assert done(plc, 4, StationAction.NONE).done_result is ActionResult.REFUSED
    assert plc.read_status().part_present


def test_command_that_is_held_up_is_not_begun(line, plc):
    now_ms = plc.read_status().time_ms
    late = rm.Mailbox(1, int(StationAction.FLIP), 0, (now_ms - 5) % 2**32)
    plc._write_registers(rm.HR_COMMAND, late.to_registers())
    assert plc.read_status().done_result is ActionResult.EXPIRED
    assert line.station.flipper_deg == 0


def test_silent_host_stops_the_flipper_and_reset_brings_it_home(line, plc):
    line.set_faults(flipper__silent=1)
    plc.send(StationCommand(1, StationAction.FLIP))
    status = wait_for(lambda: (status := plc.read_status()).watchdog_tripped and status)
    assert status.done_result is ActionResult.CANCELLED
    assert done(plc, 2, StationAction.FLIP).done_result is ActionResult.REFUSED
    plc.reset_faults()
    wait_for(lambda: not (status := plc.read_status()).active_token and not status.watchdog_tripped)
    assert done(plc, 3, StationAction.FLIP).flipper is FlipperPosition.INVERTED


def test_emergency_stop_holds_until_it_is_released_and_reset(line, plc):
    line.set_faults(estop=True)
    wait_for(lambda: plc.read_status().emergency_stop)
    assert done(plc, 1, StationAction.LOAD).done_result is ActionResult.REFUSED
    plc.reset_faults()
    assert plc.read_status().emergency_stop
    line.set_faults(estop=False)
    assert plc.read_status().emergency_stop, "releasing it starts nothing"
    plc.reset_faults()
    assert not wait_for(lambda: (status := plc.read_status()).active_token == 0 and status).emergency_stop


def test_second_answer_shows_in_the_count(line, plc):
    line.set_faults(flipper__twice=1)
    assert done(plc, 1, StationAction.FLIP).done_count == 1
    again = wait_for(lambda: (status := plc.read_status()).done_count == 2 and status)
    assert (again.done_token, again.done_result) == (1, ActionResult.DONE)


def test_restarted_plc_has_another_boot_id_and_forgets(line, plc):
    done(plc, 5, StationAction.LOAD)
    line.set_faults(plc__restart=1)
    plc.send(StationCommand(6, StationAction.FLIP))
    with pytest.raises(DeviceConnectionError):
        while True:
            plc.read_status()

    def back() -> StationStatus | None:
        try:
            plc.connect(0.2)
            return plc.read_status()
        except (DeviceConnectionError, DeviceTimeoutError):
            return None

    status = wait_for(back)
    assert status.boot_id != BOOT_ID
    assert (status.loaded_total, status.done_token, status.part_present) == (0, 0, True)
    assert status.flipper is FlipperPosition.BETWEEN


@pytest.mark.parametrize(
    "command",
    [
        StationCommand(0, StationAction.LOAD),
        StationCommand(2**32, StationAction.LOAD),
        StationCommand(1, StationAction.RELEASE, argument=70_000),
        StationCommand(1, StationAction.LOAD, expiry_ms=0),
    ],
)
def test_command_that_no_register_holds_is_never_written(line, plc, command):
    requests = line.station_modbus.requests
    with pytest.raises(DeviceSettingsError, match="station PLC"):
        plc.send(command)
    assert line.station_modbus.requests == requests
    assert plc.connected


def test_belt_plc_is_not_taken_for_a_station(line):
    plc = ModbusStationPlc(ModbusStationPlcSettings(host="127.0.0.1", port=line.modbus.port))
    with pytest.raises(DeviceProtocolError, match="has register map 1, this driver needs 101"):
        plc.connect()


def status_answer(**words: int) -> bytes:
    block = [0] * rm.STATUS_SIZE
    block[rm.IR_MAP_VERSION] = rm.MAP_VERSION
    for name, word in words.items():
        block[getattr(rm, name)] = word
    return registers(4, block)


def answering(**words: int):
    """Impostor whose status holds these words."""
    seen = []

    def answer(transaction: int, unit: int, _pdu: bytes) -> bytes:
        seen.append(1)
        body = registers(4, [rm.MAP_VERSION]) if len(seen) == 1 else status_answer(**words)
        return frame(transaction, unit, body)

    return impostor(modbus(answer))


def test_result_that_nobody_knows_is_a_protocol_error():
    with answering(IR_DONE_RESULT=99) as port, connected(port) as plc:
        with pytest.raises(DeviceProtocolError, match="unknown result: 99"):
            plc.read_status()
        assert not plc.connected


@pytest.mark.parametrize(("bits", "position"), [(0, 0), (16, 1), (32, 2), (48, 0)])
def test_end_switches_that_contradict_each_other_are_not_believed(bits, position):
    with answering(IR_STATUS=bits) as port, connected(port) as plc:
        assert plc.read_status().flipper == FlipperPosition(position)


@pytest.mark.parametrize("code", [5, 6, 10, 11])
def test_station_that_is_busy_once_is_asked_again(code):
    """Issue 14, point 12."""
    seen = []

    def answer(transaction: int, unit: int, pdu: bytes) -> bytes:
        seen.append(pdu)
        if len(seen) == 1:
            return frame(transaction, unit, registers(4, [rm.MAP_VERSION]))
        if len(seen) % 2 == 0:
            return frame(transaction, unit, bytes([pdu[0] | 0x80, code]))
        words = struct.unpack("!BHH", pdu[:5])[2]
        return frame(transaction, unit, registers(4, [0] * words) if pdu[0] == 4 else pdu[:5])

    with impostor(modbus(answer)) as port, connected(port) as plc:
        assert plc.read_status().round_trip_s < 0.01
        plc.refresh_watchdog()
        plc.send(StationCommand(1, StationAction.FLIP))
        assert [pdu[0] for pdu in seen[-4:]] == [4, 4, 16, 16], "the clock was read, and the order given once more"
        assert seen[-1] == seen[-2]


def test_station_that_is_often_busy_inspects_a_cell_and_one_that_is_always_is_a_fault(line, plc):
    """Issue 14, point 12. The PLC's watchdog would stop a flipper whose host gives up for a moment."""
    line.set_faults(plc__busy=0.2)
    assert done(plc, 1, StationAction.LOAD).part_present
    assert done(plc, 2, StationAction.FLIP).flipper is FlipperPosition.INVERTED
    assert done(plc, 3, StationAction.RELEASE, 3).done_count == 3
    line.set_faults(plc__busy=1.0)
    with pytest.raises(DeviceBusyError, match=r"for more than 0.25 s"):
        plc.read_status()
    assert plc.connected


def test_station_in_another_unit_is_silent_and_the_setting_is_named():
    """Issue 14, point 12."""
    with impostor(modbus(lambda tid, unit, _: frame(tid, unit + 1, registers(4, [rm.MAP_VERSION])))) as port:
        plc = ModbusStationPlc(ModbusStationPlcSettings(host="127.0.0.1", port=port, timeout_s=0.1))
        with pytest.raises(DeviceProtocolError, match=r"station PLC .* write 2 to the setting device_id"):
            plc.connect()


def test_contract_flips_when_it_may(line):
    line.station.config.time_factor = 1.0  # the flipper takes 20 ms to say that it is home
    settings = {"host": "127.0.0.1", "port": line.station_modbus.port}
    results = list(check_driver("station_plc", "modbus", settings, CheckOptions(move=True, impostor_timeout_s=0.2)))
    assert [result for result in results if result.outcome is not CheckOutcome.PASS] == []

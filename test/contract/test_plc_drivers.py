"""Drivers of belt PLCs: on the PLC of the simulated plant, and on some that misbehave."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from impostor import Handler, frame, impostor, modbus, receive, registers
from plant_line import BOOT_ID, Line, running, wait_for

from battery_sorting.core.errors import (
    DeviceBusyError,
    DeviceConnectionError,
    DeviceError,
    DeviceProtocolError,
    DeviceSettingsError,
    DeviceTimeoutError,
)
from battery_sorting.core.types import count_add, count_difference
from battery_sorting.drivers.plc import register_map as rm
from battery_sorting.drivers.plc.base import Ack, AckStatus, Eye, ValveCommand
from battery_sorting.drivers.plc.modbus import ModbusPlc, ModbusPlcSettings


@contextmanager
def connected(port: int, **settings) -> Iterator[ModbusPlc]:
    plc = ModbusPlc(ModbusPlcSettings(host="127.0.0.1", port=port, **settings))
    plc.connect(1.0)
    try:
        yield plc
    finally:
        plc.disconnect()


@pytest.fixture
def plc(line) -> Iterator[ModbusPlc]:
    with connected(line.modbus.port) as plc:
        yield plc


def shot(plc: ModbusPlc, token: int, counts_ahead: int = 2000, **changes) -> ValveCommand:
    count = count_add(plc.read_status().encoder_count, counts_ahead)
    command = {"token": token, "valve": 1, "encoder_count": count, "pulse_ms": 20}
    return ValveCommand(**{**command, "expiry_count": count_add(count, 50), **changes})


def acks_of(plc: ModbusPlc) -> list[Ack]:
    return plc.read_acks(0, plc.read_status().ack_total)


# ---- on the simulated plant ----


def test_status_tells_what_the_plant_does(line, plc):
    before = plc.read_status()
    assert (before.boot_id, before.running, before.emergency_stop, before.watchdog_tripped) == (
        BOOT_ID,
        *[False] * 3,
    )
    plc.set_belt(True, 1.2)
    status = wait_for(lambda: (status := plc.read_status()).speed_mps > 1.1 and status)
    assert status.running
    assert status.speed_setpoint_mps == 1.2
    assert count_difference(status.encoder_count, before.encoder_count) > 0
    assert abs(status.host_time - time.monotonic()) < 0.5
    assert 0 < status.round_trip_s < 0.2
    line.set_faults(estop=True)
    assert wait_for(lambda: plc.read_status().emergency_stop)
    with pytest.raises(DeviceSettingsError, match=r"told run, mm/s = \[1, 1000\], but holds \[0, 1000\]"):
        plc.set_belt(True, 1.0)
    assert plc.connected
    line.set_faults(estop=False)
    plc.reset_faults()
    plc.set_belt(True, 1.0)


def test_speed_that_the_drive_refuses_is_an_error_and_the_link_stays(plc):
    before = plc.read_status().speed_setpoint_mps
    with pytest.raises(DeviceProtocolError, match="refused"):
        plc.set_belt(False, 60.0)
    assert plc.connected
    assert plc.read_status().speed_setpoint_mps == before


@pytest.mark.parametrize("speed_mps", [float("nan"), float("inf"), -0.1, 66.0])
def test_speed_that_no_register_holds_is_never_written(line, plc, speed_mps):
    requests = line.modbus.requests
    with pytest.raises(DeviceSettingsError, match=r"0\.\.65\.535"):
        plc.set_belt(True, speed_mps)
    assert line.modbus.requests == requests
    assert plc.connected


def test_command_that_no_register_holds_is_never_written(line, plc):
    with pytest.raises(DeviceSettingsError, match="register"):
        plc.send(ValveCommand(1, 1, 5000, 70_000, 6000))
    assert plc.read_status().ack_total == 0


@pytest.mark.parametrize("encoder_start", [0, 2**32 - 6000])
def test_command_is_acknowledged_when_it_is_queued_and_when_it_fires(encoder_start):
    line = Line(encoder_start=encoder_start)
    with running(line), connected(line.modbus.port) as plc:
        plc.set_belt(True, 1.5)
        command = shot(plc, token=9, counts_ahead=7000)
        plc.send(command)
        assert acks_of(plc) == [Ack(9, AckStatus.QUEUED, 1, command.encoder_count)]
        assert plc.read_status().queue_length == 1
        wait_for(lambda: plc.read_status().ack_total == 2)
        assert plc.read_acks(1, 2) == [Ack(9, AckStatus.FIRED, 1, command.encoder_count)]
        plc.send(command)
        assert acks_of(plc)[-1].status is AckStatus.DUPLICATE


def test_clearing_cancels_what_waits(plc):
    for token in (1, 2):
        plc.send(shot(plc, token, counts_ahead=90_000))
    plc.clear_queue()
    assert [(ack.token, ack.status) for ack in acks_of(plc)[2:]] == [
        (1, AckStatus.CANCELLED),
        (2, AckStatus.CANCELLED),
    ]
    assert plc.read_status().queue_length == 0


def test_latches_are_whole_and_in_order_across_overflow_and_wrap():
    encoder_start = 2**32 - 15_000
    line = Line(encoder_start=encoder_start, pitch_mm=60, items=28)
    with running(line), connected(line.modbus.port) as plc:
        plc.set_belt(True, 1.5)
        seen = []
        while len(seen) < 28:
            seen += plc.read_latches(Eye.CAMERA, len(seen), plc.read_status().eye_total)
        assert [latch.number for latch in seen] == list(range(1, 29))
        gaps = [count_difference(after.encoder_count, before.encoder_count) for before, after in pairwise(seen)]
        assert all(0 < gap < 2000 for gap in gaps)
        late = plc.read_latches(Eye.CAMERA, 0, 28)
        assert late == seen[-rm.RING_LENGTH :], "who comes late gets what the ring still holds"
        assert plc.read_latches(Eye.CAMERA, 28, 28) == []
        assert seen[-1].encoder_count < encoder_start <= seen[0].encoder_count


def test_acks_that_are_overwritten_while_they_are_read_are_left_out(line, plc):
    """An acknowledgement bears no number: the newest in the oldest slot must not pass for the oldest."""
    for token in range(1, 22):
        plc.send(shot(plc, token, valve=15))  # rejected at once, as there is no such valve
    total = plc.read_status().ack_total
    for token in range(22, 25):
        plc.send(shot(plc, token, valve=15))
    assert [ack.token for ack in plc.read_acks(0, total)] == list(range(5, 22))


def test_watchdog_stops_a_belt_whose_host_is_silent(line, plc):
    plc.set_belt(True, 1.0)
    line.feeds_watchdog = False
    plc.refresh_watchdog()
    plc.send(shot(plc, 5, counts_ahead=90_000))
    status = wait_for(lambda: (status := plc.read_status()).watchdog_tripped and status)
    assert (status.running, status.watchdog_trips, status.queue_length) == (False, 1, 0)
    assert acks_of(plc)[-1].status is AckStatus.CANCELLED
    plc.reset_faults()
    assert not plc.read_status().watchdog_tripped


def test_refreshed_watchdog_lets_the_belt_run(line, plc):
    plc.set_belt(True, 1.0)
    line.feeds_watchdog = False
    end = time.monotonic() + rm.WATCHDOG_TIMEOUT_S + 0.2
    while time.monotonic() < end:
        plc.refresh_watchdog()
        time.sleep(0.05)
    assert plc.read_status().running


def test_valve_without_feedback_is_reported(line, plc):
    line.set_faults(valve__stick=1)
    plc.set_belt(True, 1.5)
    plc.send(shot(plc, 4, counts_ahead=500))
    wait_for(lambda: plc.read_status().ack_total == 2)
    assert acks_of(plc)[-1].status is AckStatus.VALVE_FAULT
    assert plc.read_status().valve_faults == 0b10


def test_silent_plc_is_a_timeout_and_a_late_answer_is_never_taken(line, plc):
    line.set_faults(plc__silent=True)
    begin = time.monotonic()
    with pytest.raises(DeviceTimeoutError):
        plc.read_status()
    assert time.monotonic() - begin < 0.2 + 0.3
    assert not plc.connected
    with pytest.raises(DeviceTimeoutError):
        plc.connect(0.3)
    line.set_faults(plc__silent=False)
    plc.connect()
    assert plc.read_status().boot_id == BOOT_ID


def test_garbage_of_the_plant_never_passes_for_an_answer(line, plc):
    line.set_faults(plc__garbage=True)
    for _ in range(6):
        with pytest.raises(DeviceError):
            if plc.connected:
                plc.set_belt(True, 1.0)
            else:
                plc.connect(0.1)
    line.set_faults(plc__garbage=False)
    if not plc.connected:
        plc.connect()
    assert not plc.read_status().running


# ---- PLCs that misbehave ----

GOOD_VERSION = registers(4, [rm.MAP_VERSION])


def bad_after_connecting(bad: Callable[[int, int, bytes], bytes], requests: int = 1000) -> Handler:
    """Handler that answers the first request, that for the map's version, well and all others by ``bad``."""
    seen = []

    def answer(transaction: int, unit: int, pdu: bytes) -> bytes:
        seen.append(pdu)
        return frame(transaction, unit, GOOD_VERSION) if len(seen) == 1 else bad(transaction, unit, pdu)

    return modbus(answer, requests)


def test_other_version_of_the_register_map_is_refused():
    with impostor(modbus(lambda tid, unit, _: frame(tid, unit, registers(4, [7])))) as port:
        plc = ModbusPlc(ModbusPlcSettings(host="127.0.0.1", port=port))
        with pytest.raises(DeviceProtocolError, match=f"127.0.0.1:{port} has register map 7, this driver needs 1"):
            plc.connect()
        assert not plc.connected


@pytest.mark.parametrize("code", [1, 2, 3, 4, 7, 8])
def test_modbus_exceptions_are_protocol_errors_and_the_link_stays(code):
    with (
        impostor(
            bad_after_connecting(lambda tid, unit, pdu: frame(tid, unit, bytes([pdu[0] | 0x80, code])))
        ) as port,
        connected(port) as plc,
    ):
        for call in (plc.read_status, plc.refresh_watchdog, lambda: plc.send(ValveCommand(1, 1, 1, 1, 1))):
            with pytest.raises(DeviceProtocolError, match="refused"):
                call()
        assert plc.connected


# ---- a PLC that has no time now (issue 14, point 12) ----


def busy_for(requests: int, code: int, words: list[int]) -> Handler:
    """After connecting, so many requests are answered by ``code``, all others as a PLC does."""
    left = [requests]

    def answer(tid: int, unit: int, pdu: bytes) -> bytes:
        if left[0]:
            left[0] -= 1
            return frame(tid, unit, bytes([pdu[0] | 0x80, code]))
        return frame(tid, unit, registers(pdu[0], words) if pdu[0] in {3, 4} else pdu[:5])

    return bad_after_connecting(answer)


@pytest.mark.parametrize("code", [5, 6, 10, 11])
def test_plc_that_is_busy_once_is_asked_again_and_nobody_notices(code):
    with impostor(busy_for(1, code, [7] * rm.STATUS_SIZE)) as port, connected(port) as plc:
        status = plc.read_status()
        assert status.valve_faults == 7
        assert status.round_trip_s < 0.01, "what was asked in vain does not count as the way of the answer"
        assert abs(status.host_time - time.monotonic()) < 0.05
    for call in (ModbusPlc.refresh_watchdog, lambda plc: plc.send(ValveCommand(1, 1, 1, 1, 1))):
        with impostor(busy_for(1, code, [])) as port, connected(port) as plc:
            call(plc)
            assert plc.connected


@pytest.mark.parametrize("code", [5, 6, 10, 11])
def test_plc_that_stays_busy_is_a_fault_in_bounded_time_and_the_link_stays(code):
    with impostor(busy_for(1000, code, [])) as port, connected(port, busy_s=0.1) as plc:
        for call in (plc.read_status, plc.refresh_watchdog, lambda: plc.send(ValveCommand(1, 1, 1, 1, 1))):
            begin = time.monotonic()
            with pytest.raises(DeviceBusyError, match=rf"exception {code}\) for more than 0.1 s"):
                call()
            assert 0.05 < time.monotonic() - begin < 0.1 + 0.2
        assert plc.connected


def test_plc_is_not_busy_for_longer_than_its_watchdog_waits():
    assert ModbusPlcSettings(host="192.0.2.1").busy_s < rm.WATCHDOG_TIMEOUT_S - 0.1


@pytest.mark.realtime
def test_line_of_a_plc_that_is_often_busy_goes_on_and_every_valve_fires(line, plc):
    plc.set_belt(True, 1.0)
    line.set_faults(plc__busy=0.2)
    commands = [shot(plc, token, counts_ahead=4000 + 300 * token) for token in range(1, 9)]
    for command in commands:
        plc.send(command)

    def fired() -> list[int]:
        plc.refresh_watchdog()
        return [ack.token for ack in acks_of(plc) if ack.status is AckStatus.FIRED]

    assert wait_for(lambda: len(found := fired()) == len(commands) and found) == [c.token for c in commands]
    line.set_faults(plc__busy=1.0)
    with pytest.raises(DeviceBusyError):
        plc.read_status()


# ---- a PLC with a unit id of its own (issue 14, point 12) ----


def only_unit(own: int, silent: bool) -> Handler:
    """A PLC that answers to its own unit id alone (``silent``), or to all but in its own name."""

    def handle(connection: socket.socket) -> None:
        while True:
            tid, _, length, unit = struct.unpack("!HHHB", receive(connection, 7))
            receive(connection, length - 1)
            if unit == own or not silent:
                connection.sendall(frame(tid, own, GOOD_VERSION))

    return handle


@pytest.mark.parametrize("own", [0, 17, 255])
def test_plc_that_answers_in_its_own_name_is_named_with_the_remedy(own):
    with impostor(only_unit(own, silent=False)) as port:
        plc = ModbusPlc(ModbusPlcSettings(host="127.0.0.1", port=port, device_id=3, timeout_s=0.1))
        wanted = f"answers as unit {own}, unit 3 was asked: write {own} to the setting device_id"
        with pytest.raises(DeviceProtocolError, match=wanted):
            plc.connect()
        with connected(port, device_id=own):
            pass


@pytest.mark.parametrize("own", [0, 17, 255])
def test_plc_that_listens_to_another_unit_is_silent_and_the_setting_is_named(own):
    with impostor(only_unit(own, silent=True)) as port:
        plc = ModbusPlc(ModbusPlcSettings(host="127.0.0.1", port=port, timeout_s=0.1))
        with pytest.raises(DeviceTimeoutError, match=r"unit 1 keeps silent.*255 or 0.*device_id"):
            plc.connect()
        with connected(port, device_id=own):
            pass


@pytest.mark.parametrize("code", [10, 11])
def test_gateway_that_finds_no_such_unit_names_the_setting(code):
    handler = modbus(lambda tid, unit, pdu: frame(tid, unit, bytes([pdu[0] | 0x80, code])))
    with impostor(handler) as port:
        plc = ModbusPlc(ModbusPlcSettings(host="127.0.0.1", port=port))
        with pytest.raises(DeviceBusyError, match=r"gateway, and finds no unit 1.*device_id"):
            plc.connect()
        assert not plc.connected


STATUS = [0] * rm.STATUS_SIZE
WRITE = struct.pack("!BHH", 16, rm.HR_COMMAND, rm.HR_COMMAND_SIZE)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda tid, unit: frame(tid, unit, registers(4, [*STATUS, 0])), DeviceProtocolError),
        (lambda tid, unit: frame(tid, unit, registers(4, STATUS[1:])), DeviceProtocolError),
        (lambda tid, unit: frame(tid, unit, registers(4, [])), DeviceProtocolError),
        (lambda tid, unit: frame(tid, unit, registers(4, STATUS)[:-1]), DeviceProtocolError),
        (lambda tid, unit: frame(tid, unit, registers(3, STATUS)), DeviceProtocolError),
        (lambda tid, unit: frame(tid, unit, WRITE), DeviceProtocolError),
        (lambda tid, unit: frame(tid, unit, b"\x63\x00"), DeviceProtocolError),
        (lambda tid, unit: frame(tid + 1, unit, registers(4, STATUS)), DeviceTimeoutError),
        (lambda tid, unit: frame(tid, unit + 1, registers(4, STATUS)), DeviceProtocolError),
        (lambda tid, unit: frame(tid, unit, registers(4, STATUS))[:20], DeviceTimeoutError),
        (lambda _tid, _unit: b"HTTP/1.1 400 Bad Request\r\n\r\n", DeviceTimeoutError),
    ],
    ids=["longer", "shorter", "empty", "odd", "function", "write", "unknown", "id", "unit", "cut", "http"],
)
def test_answer_that_does_not_fit_the_request_closes_the_link(answer, error):
    handler = bad_after_connecting(lambda tid, unit, _: answer(tid, unit))
    with impostor(handler) as port, connected(port, timeout_s=0.1) as plc:
        begin = time.monotonic()
        with pytest.raises(error, match=f"127.0.0.1:{port}"):
            plc.read_status()
        assert time.monotonic() - begin < 0.6
        assert not plc.connected


def with_status(register: int, word: int) -> Handler:
    """Handler of a PLC that holds 0 everywhere in its status but in one register."""
    status = [*STATUS]
    status[register] = word
    return bad_after_connecting(lambda tid, unit, _: frame(tid, unit, registers(4, status)))


@pytest.mark.parametrize(("word", "speed_mps"), [(0xFFFF, -0.001), (20_000, 20.0), (0, 0.0)])
def test_belt_that_creeps_back_is_not_the_fastest_of_all(word, speed_mps):
    # issue 15, A2
    with impostor(with_status(rm.IR_SPEED_MM_S, word)) as port, connected(port) as plc:
        assert plc.read_status().speed_mps == speed_mps


@pytest.mark.parametrize("word", [0x7FFF, 0x8000, 20_001])
def test_speed_that_no_belt_has_is_no_reading(word):
    # issue 15, A2
    with impostor(with_status(rm.IR_SPEED_MM_S, word)) as port, connected(port) as plc:
        message = rf"holds {word} in input register 8, .*docs/reference/plc\.md"
        with pytest.raises(DeviceProtocolError, match=message):
            plc.read_status()
        assert not plc.connected


@pytest.mark.parametrize(
    "pdu",
    [
        struct.pack("!BHH", 16, rm.HR_RUN, rm.HR_COMMAND_SIZE),
        struct.pack("!BHH", 16, rm.HR_COMMAND, 2),
        registers(3, [0]),
        struct.pack("!BHH", 5, rm.HR_COMMAND, 0xFF00),
    ],
    ids=["address", "count", "read", "coil"],
)
def test_command_counts_as_sent_only_if_that_very_write_is_acknowledged(pdu):
    with impostor(bad_after_connecting(lambda tid, unit, _: frame(tid, unit, pdu))) as port, connected(port) as plc:
        with pytest.raises(DeviceProtocolError):
            plc.send(ValveCommand(1, 1, 1, 1, 1))
        assert not plc.connected


def test_plc_that_does_not_take_the_speed_is_found_out():
    def answer(tid: int, unit: int, pdu: bytes) -> bytes:
        if pdu[0] == 16:
            return frame(tid, unit, pdu[:5])
        return frame(tid, unit, registers(3, [1, 300]))

    with impostor(bad_after_connecting(answer)) as port, connected(port) as plc:
        with pytest.raises(DeviceSettingsError, match=r"told run, mm/s = \[1, 500\], but holds \[1, 300\]"):
            plc.set_belt(True, 0.5)
        assert plc.connected


def test_unknown_acknowledgement_is_a_protocol_error():
    ring = [0, 1, 99, 0, 0, 0] * rm.RING_LENGTH
    handler = bad_after_connecting(lambda tid, unit, _: frame(tid, unit, registers(4, ring)))
    with impostor(handler) as port, connected(port) as plc, pytest.raises(DeviceProtocolError, match="99"):
        plc.read_acks(0, 1)


def test_plc_that_hangs_up_is_a_connection_error():
    def hang_up(tid: int, unit: int, pdu: bytes) -> bytes:
        raise EOFError

    with impostor(bad_after_connecting(hang_up)) as port, connected(port) as plc:
        with pytest.raises(DeviceConnectionError):
            plc.read_status()
        assert not plc.connected


def test_any_bytes_end_in_a_device_error():
    noise = random.Random(5)

    def answer(tid: int, unit: int, pdu: bytes) -> bytes:
        body = noise.randbytes(noise.randrange(1, 40))
        if noise.random() < 0.5:
            body = bytes([noise.choice([1, 3, 4, 4, 5, 16, 0x84, 43, 22, 8])]) + body
        whole = frame(tid, unit, body)
        return whole if noise.random() < 0.8 else noise.randbytes(len(whole))

    for call in [ModbusPlc.read_status, ModbusPlc.refresh_watchdog] * 20:
        handler = bad_after_connecting(answer, requests=2)
        with impostor(handler) as port, connected(port) as plc, pytest.raises(DeviceError):
            call(plc)


def test_connecting_is_bounded_however_long_an_answer_may_take():
    with impostor(lambda connection: connection.recv(1000) and connection.recv(1000)) as port:
        plc = ModbusPlc(ModbusPlcSettings(host="127.0.0.1", port=port, timeout_s=10.0))
        begin = time.monotonic()
        with pytest.raises(DeviceTimeoutError):
            plc.connect(0.2)
        assert time.monotonic() - begin < 0.6

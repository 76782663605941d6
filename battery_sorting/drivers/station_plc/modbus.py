"""The PLC of an inspection station over Modbus TCP, with the registers of `register_map`."""

from __future__ import annotations

import time
from typing import ClassVar

from battery_sorting.core.errors import DeviceProtocolError, DeviceSettingsError
from battery_sorting.drivers.base import DriverSettings
from battery_sorting.drivers.modbus import ModbusDevice, ModbusSettings
from battery_sorting.drivers.registers import to_int
from battery_sorting.drivers.station_plc import register_map as rm
from battery_sorting.drivers.station_plc.base import (
    ActionResult,
    FlipperPosition,
    StationCommand,
    StationPlc,
    StationStatus,
)

MAX_EXPIRY_MS = 600_000


class ModbusStationPlcSettings(ModbusSettings):
    """Where the PLC is and how long to wait for an answer."""


class ModbusStationPlc(ModbusDevice, StationPlc):
    """Synchronous Modbus TCP client for one thread; any other may `disconnect` it."""

    Settings: ClassVar[type[DriverSettings]] = ModbusStationPlcSettings
    MAP_VERSION = rm.MAP_VERSION
    DEVICE = "station PLC"

    def read_status(self) -> StationStatus:
        """Reads the status block in one request."""
        begin = time.monotonic()
        words = self._read(rm.STATUS_ADDRESS, rm.STATUS_SIZE)
        begin += self._asked_again_s
        round_trip_s = time.monotonic() - begin
        bits = rm.StationStatusBits(words[rm.IR_STATUS])
        return StationStatus(
            host_time=begin + round_trip_s / 2,
            round_trip_s=round_trip_s,
            boot_id=to_int(words, rm.IR_BOOT_ID),
            time_ms=to_int(words, rm.IR_TIME_MS),
            emergency_stop=rm.StationStatusBits.EMERGENCY_STOP in bits,
            watchdog_tripped=rm.StationStatusBits.WATCHDOG_TRIPPED in bits,
            jam=rm.StationStatusBits.JAM in bits,
            part_present=rm.StationStatusBits.PART_PRESENT in bits,
            flipper=_position(bits),
            loaded_total=to_int(words, rm.IR_LOADED_TOTAL),
            active_token=to_int(words, rm.IR_ACTIVE_TOKEN),
            done_token=to_int(words, rm.IR_DONE_TOKEN),
            done_result=self._result(words[rm.IR_DONE_RESULT]),
            done_count=words[rm.IR_DONE_COUNT],
        )

    def send(self, command: StationCommand) -> None:
        """Reads the PLC's clock and writes the mailbox with the deadline on it.

        So a command that was held up on its way is not begun later: the clock is read first, and what the reading
        takes counts towards the deadline.
        """
        _check(command)
        begin = time.monotonic()
        now_ms = to_int(self._read(rm.IR_TIME_MS, 2), 0)
        left_ms = max(0, command.expiry_ms - round((time.monotonic() - begin) * 1000))
        mailbox = rm.Mailbox(command.token, int(command.action), command.argument, (now_ms + left_ms) & 0xFFFF_FFFF)
        self._write_registers(rm.HR_COMMAND, mailbox.to_registers())

    def refresh_watchdog(self) -> None:
        """Sets the watchdog coil."""
        self._set_coil(rm.COIL_WATCHDOG)

    def reset_faults(self) -> None:
        """Sets the reset coil."""
        self._set_coil(rm.COIL_RESET)

    def _result(self, word: int) -> ActionResult:
        try:
            return ActionResult(word)
        except ValueError as error:
            raise self._broken(DeviceProtocolError(f"{self._where} sent an unknown result: {word}")) from error


def _position(bits: rm.StationStatusBits) -> FlipperPosition:
    """Position by the end switches; where both say yes, neither can be believed."""
    upright, inverted = rm.StationStatusBits.UPRIGHT in bits, rm.StationStatusBits.INVERTED in bits
    if upright == inverted:
        return FlipperPosition.BETWEEN
    return FlipperPosition.UPRIGHT if upright else FlipperPosition.INVERTED


def _check(command: StationCommand) -> None:
    limits = {"token": (1, 0xFFFF_FFFF), "argument": (0, 0xFFFF), "expiry_ms": (1, MAX_EXPIRY_MS)}
    for name, (low, high) in limits.items():
        value = getattr(command, name)
        if not isinstance(value, int) or not low <= value <= high:
            raise DeviceSettingsError(f"{name} {value} can't be written to the station PLC: {low}..{high} can")

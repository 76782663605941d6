"""A belt PLC over Modbus TCP, with the registers of `register_map`."""

from __future__ import annotations

import time
from typing import ClassVar

from battery_sorting.core.errors import DeviceProtocolError, DeviceSettingsError
from battery_sorting.drivers.base import DriverSettings
from battery_sorting.drivers.modbus import ModbusDevice, ModbusSettings
from battery_sorting.drivers.plc import register_map as rm
from battery_sorting.drivers.plc.base import Ack, AckStatus, BeltPlc, Eye, Latch, PlcStatus, ValveCommand
from battery_sorting.drivers.registers import to_int, to_signed

_RINGS = {
    Eye.GATE: rm.GATE_RING_ADDRESS,
    Eye.CAMERA: rm.EYE_RING_ADDRESS,
    Eye.EXIT: rm.EXIT_RING_ADDRESS,
}


class ModbusPlcSettings(ModbusSettings):
    """Where the PLC is and how long to wait for an answer."""


class ModbusPlc(ModbusDevice, BeltPlc):
    """Synchronous Modbus TCP client for one thread; any other may `disconnect` it."""

    Settings: ClassVar[type[DriverSettings]] = ModbusPlcSettings
    MAP_VERSION = rm.MAP_VERSION

    def read_status(self) -> PlcStatus:
        """Reads the status block in one request."""
        begin = time.monotonic()
        words = self._read(rm.STATUS_ADDRESS, rm.STATUS_SIZE)
        begin += self._asked_again_s
        round_trip = time.monotonic() - begin
        status = rm.BeltStatusBits(words[rm.IR_STATUS])
        return PlcStatus(
            host_time=begin + round_trip / 2,
            round_trip_s=round_trip,
            boot_id=to_int(words, rm.IR_BOOT_ID),
            running=rm.BeltStatusBits.RUNNING in status,
            emergency_stop=rm.BeltStatusBits.EMERGENCY_STOP in status,
            watchdog_tripped=rm.BeltStatusBits.WATCHDOG_TRIPPED in status,
            encoder_count=to_int(words, rm.IR_ENCODER_COUNT),
            time_ms=to_int(words, rm.IR_TIME_MS),
            speed_mps=self._measured_mps(words[rm.IR_SPEED_MM_S]),
            speed_setpoint_mps=words[rm.IR_SPEED_SETPOINT_MM_S] / 1000,
            valve_faults=words[rm.IR_VALVE_FAULTS],
            watchdog_trips=words[rm.IR_WATCHDOG_TRIPS],
            gate_total=to_int(words, rm.IR_GATE_TOTAL),
            eye_total=to_int(words, rm.IR_EYE_TOTAL),
            exit_total=to_int(words, rm.IR_EXIT_TOTAL),
            ack_total=to_int(words, rm.IR_ACK_TOTAL),
            queue_length=words[rm.IR_QUEUE_LENGTH],
        )

    def _measured_mps(self, word: int) -> float:
        speed_mm_s = to_signed(word)
        if abs(speed_mm_s) > rm.MAX_SPEED_MM_S:
            text = f"{self._where} holds {word} in input register {rm.IR_SPEED_MM_S}, {speed_mm_s} mm/s"
            raise self._broken(
                DeviceProtocolError(f"{text}: no belt is so fast, docs/reference/plc.md says what it holds")
            )
        return speed_mm_s / 1000

    def read_latches(self, eye: Eye, since: int, total: int) -> list[Latch]:
        """Reads the ring of an eye."""
        latches = [
            Latch(to_int(entry, 0), to_int(entry, 2), to_int(entry, 4))
            for entry in self._read_ring(_RINGS[eye], rm.LATCH_SIZE, since, total)
        ]
        # An edge that came between the two requests has overwritten the oldest slot; it is read next time.
        return [latch for latch in latches if since < latch.number <= total]

    def read_acks(self, since: int, total: int) -> list[Ack]:
        """Reads the ring of acknowledgements."""
        entries = self._read_ring(rm.ACK_RING_ADDRESS, rm.ACK_SIZE, since, total)
        if len(entries) > rm.RING_LENGTH // 2:
            # Acknowledgements bear no number: only the total tells which of the oldest have been overwritten.
            now_total = to_int(self._read(rm.IR_ACK_TOTAL, 2), 0)
            entries = entries[max(0, now_total - rm.RING_LENGTH - (total - len(entries))) :]
        try:
            return [Ack(to_int(entry, 0), AckStatus(entry[2]), entry[3], to_int(entry, 4)) for entry in entries]
        except ValueError as error:
            raise self._broken(DeviceProtocolError(f"PLC sent an unknown acknowledgement: {error}")) from error

    def set_belt(self, run: bool, speed_mps: float) -> None:
        """Writes run and speed in one request and reads them back."""
        speed_mm_s = speed_mps * 1000
        if not 0 <= speed_mm_s <= 0xFFFF:
            raise DeviceSettingsError(f"{speed_mps} m/s can't be written to the PLC: 0..{0xFFFF / 1000} can")
        wanted = [int(run), round(speed_mm_s)]
        self._write_registers(rm.HR_RUN, wanted)
        held = self._read(rm.HR_RUN, 2, holding=True)
        if held != wanted:
            raise DeviceSettingsError(f"PLC was told run, mm/s = {wanted}, but holds {held}")

    def refresh_watchdog(self) -> None:
        """Sets the watchdog coil."""
        self._set_coil(rm.COIL_WATCHDOG)

    def send(self, command: ValveCommand) -> None:
        """Writes the mailbox in one request."""
        self._write_registers(rm.HR_COMMAND, rm.to_mailbox(command))

    def reset_faults(self) -> None:
        """Sets the reset coil."""
        self._set_coil(rm.COIL_RESET)

    def clear_queue(self) -> None:
        """Sets the clear coil."""
        self._set_coil(rm.COIL_CLEAR_QUEUE)

    def _read_ring(self, address: int, size: int, since: int, total: int) -> list[list[int]]:
        """Entries number ``since`` + 1 … ``total`` of a ring, at most its length, oldest first."""
        first = max(since, total - rm.RING_LENGTH)
        if first >= total:
            return []
        words = self._read(address, size * rm.RING_LENGTH)
        slots = ((number - 1) % rm.RING_LENGTH for number in range(first + 1, total + 1))
        return [words[slot * size : (slot + 1) * size] for slot in slots]

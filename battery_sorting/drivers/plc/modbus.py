"""A belt PLC over Modbus TCP, with the registers of `register_map`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import Field
from pymodbus import ModbusException
from pymodbus.client import ModbusTcpClient

from battery_sorting.core.errors import (
    DeviceConnectionError,
    DeviceProtocolError,
    DeviceSettingsError,
    DeviceTimeoutError,
)
from battery_sorting.drivers.base import DriverSettings
from battery_sorting.drivers.plc import register_map as rm
from battery_sorting.drivers.plc.base import BeltPlc, Eye, PlcStatus

_RINGS = {
    Eye.GATE: rm.GATE_RING_ADDRESS,
    Eye.CAMERA: rm.EYE_RING_ADDRESS,
    Eye.EXIT: rm.EXIT_RING_ADDRESS,
}


class ModbusPlcSettings(DriverSettings):
    """Where the PLC is and how long to wait for an answer."""

    host: str
    port: int = Field(502, ge=1, le=65535)
    device_id: int = Field(1, ge=0, le=247)
    timeout_s: float = Field(0.2, gt=0, le=10)


class ModbusPlc(BeltPlc):
    """Synchronous Modbus TCP client. Not thread-safe: one thread per instance."""

    Settings: ClassVar[type[DriverSettings]] = ModbusPlcSettings

    def __init__(self, settings: ModbusPlcSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._client: Any = None  # ModbusTcpClient; the library is typed in parts only

    @property
    def connected(self) -> bool:
        """Whether the socket is open."""
        return self._client is not None

    def connect(self, timeout_s: float = 2.0) -> None:
        """Opens the socket and checks the version of the register map."""
        if self.connected:
            return
        where = f"PLC at {self._settings.host}:{self._settings.port}"
        # The client's one timeout serves for connecting and for each answer.
        client: Any = ModbusTcpClient(
            self._settings.host,
            port=self._settings.port,
            timeout=min(timeout_s, self._settings.timeout_s),
            retries=0,
        )
        if not client.connect():
            client.close()
            raise DeviceConnectionError(f"{where} refuses the connection; is it on, are host and port right?")
        self._client = client
        try:
            version = self._read(rm.IR_MAP_VERSION, 1)[0]
            if version != rm.MAP_VERSION:
                raise DeviceProtocolError(f"{where} has register map {version}, this driver needs {rm.MAP_VERSION}")
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Closes the socket."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def read_status(self) -> PlcStatus:
        """Reads the status block in one request."""
        begin = time.time()
        words = self._read(rm.STATUS_ADDRESS, rm.STATUS_SIZE)
        round_trip = time.time() - begin
        status = rm.Status(words[rm.IR_STATUS])
        return PlcStatus(
            host_time=begin + round_trip / 2,
            round_trip_s=round_trip,
            boot_id=rm.to_int(words, rm.IR_BOOT_ID),
            running=rm.Status.RUNNING in status,
            emergency_stop=rm.Status.EMERGENCY_STOP in status,
            watchdog_tripped=rm.Status.WATCHDOG_TRIPPED in status,
            encoder_count=rm.to_int(words, rm.IR_ENCODER_COUNT),
            time_ms=rm.to_int(words, rm.IR_TIME_MS),
            speed_mps=words[rm.IR_SPEED_MM_S] / 1000,
            speed_setpoint_mps=words[rm.IR_SPEED_SETPOINT_MM_S] / 1000,
            valve_faults=words[rm.IR_VALVE_FAULTS],
            watchdog_trips=words[rm.IR_WATCHDOG_TRIPS],
            gate_total=rm.to_int(words, rm.IR_GATE_TOTAL),
            eye_total=rm.to_int(words, rm.IR_EYE_TOTAL),
            exit_total=rm.to_int(words, rm.IR_EXIT_TOTAL),
            ack_total=rm.to_int(words, rm.IR_ACK_TOTAL),
            queue_length=words[rm.IR_QUEUE_LENGTH],
        )

    def read_latches(self, eye: Eye, since: int, total: int) -> list[rm.Latch]:
        """Reads the ring of an eye."""
        latches = [
            rm.Latch(rm.to_int(entry, 0), rm.to_int(entry, 2), rm.to_int(entry, 4))
            for entry in self._read_ring(_RINGS[eye], rm.LATCH_SIZE, since, total)
        ]
        # An edge that came between the two requests has overwritten the oldest slot; it is read next time.
        return [latch for latch in latches if since < latch.number <= total]

    def read_acks(self, since: int, total: int) -> list[rm.Ack]:
        """Reads the ring of acknowledgements."""
        entries = self._read_ring(rm.ACK_RING_ADDRESS, rm.ACK_SIZE, since, total)
        try:
            return [
                rm.Ack(rm.to_int(entry, 0), rm.AckStatus(entry[2]), entry[3], rm.to_int(entry, 4))
                for entry in entries
            ]
        except ValueError as error:
            raise DeviceProtocolError(f"PLC sent an unknown acknowledgement: {error}") from error

    def set_belt(self, run: bool, speed_mps: float) -> None:
        """Writes run and speed in one request and reads them back."""
        wanted = [int(run), round(speed_mps * 1000)]
        self._call(lambda client: client.write_registers(rm.HR_RUN, wanted, device_id=self._settings.device_id))
        answer = self._call(
            lambda client: client.read_holding_registers(rm.HR_RUN, count=2, device_id=self._settings.device_id)
        )
        if list(answer.registers) != wanted:
            raise DeviceSettingsError(f"PLC was told run, mm/s = {wanted}, but holds {list(answer.registers)}")

    def refresh_watchdog(self) -> None:
        """Sets the watchdog coil."""
        self._set_coil(rm.COIL_WATCHDOG)

    def send(self, command: rm.ValveCommand) -> None:
        """Writes the mailbox in one request."""
        words = command.to_registers()
        self._call(lambda client: client.write_registers(rm.HR_COMMAND, words, device_id=self._settings.device_id))

    def reset_faults(self) -> None:
        """Sets the reset coil."""
        self._set_coil(rm.COIL_RESET)

    def clear_queue(self) -> None:
        """Sets the clear coil."""
        self._set_coil(rm.COIL_CLEAR_QUEUE)

    def _set_coil(self, address: int) -> None:
        self._call(lambda client: client.write_coil(address, True, device_id=self._settings.device_id))

    def _read(self, address: int, count: int) -> list[int]:
        answer = self._call(
            lambda client: client.read_input_registers(address, count=count, device_id=self._settings.device_id)
        )
        if len(answer.registers) != count:
            raise self._broken(
                DeviceProtocolError(f"PLC answered {len(answer.registers)} registers, {count} were asked for")
            )
        return list(answer.registers)

    def _read_ring(self, address: int, size: int, since: int, total: int) -> list[list[int]]:
        """Entries number ``since`` + 1 … ``total`` of a ring, at most its length, oldest first."""
        first = max(since, total - rm.RING_LENGTH)
        if first >= total:
            return []
        words = self._read(address, size * rm.RING_LENGTH)
        slots = ((number - 1) % rm.RING_LENGTH for number in range(first + 1, total + 1))
        return [words[slot * size : (slot + 1) * size] for slot in slots]

    def _call(self, request: Callable[[Any], Any]) -> Any:
        """Runs one request; after any failure but a Modbus exception answer the connection is closed."""
        if self._client is None:
            raise DeviceConnectionError("PLC is not connected")
        try:
            answer = request(self._client)
        except ModbusException as error:
            text = str(error)
            silent = "No response" in text
            kind = DeviceTimeoutError if silent else DeviceConnectionError
            raise self._broken(kind(f"PLC at {self._settings.host}:{self._settings.port}: {text}")) from error
        except (OSError, ValueError, IndexError) as error:
            raise self._broken(DeviceConnectionError(f"PLC connection broke: {error}")) from error
        if answer.isError():
            raise self._broken(DeviceProtocolError(f"PLC refused a request: {answer}"))
        return answer

    def _broken(self, error: Exception) -> Exception:
        """An answer that is late would be taken for the answer to the next request: start over."""
        self.disconnect()
        return error

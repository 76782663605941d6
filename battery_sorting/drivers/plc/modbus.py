"""A belt PLC over Modbus TCP, with the registers of `register_map`."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import Field
from pymodbus import ModbusException
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ConnectionException

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

    host: str = Field(min_length=1)
    port: int = Field(502, ge=1, le=65535)
    device_id: int = Field(1, ge=0, le=247)
    timeout_s: float = Field(0.2, gt=0, le=10)


class ModbusPlc(BeltPlc):
    """Synchronous Modbus TCP client for one thread; any other may `disconnect` it."""

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
        deadline = time.monotonic() + timeout_s
        address = (self._settings.host, self._settings.port)
        client: Any = ModbusTcpClient(self._settings.host, port=self._settings.port, retries=0)
        try:
            client.socket = socket.create_connection(address, timeout=timeout_s)
        except OSError as error:
            raise DeviceConnectionError(
                f"{self._where} can't be reached ({error}): is it on, are host and port right?"
            ) from error
        _limit_answers(client, min(self._settings.timeout_s, max(deadline - time.monotonic(), 1e-3)))
        self._client = client
        try:
            version = self._read(rm.IR_MAP_VERSION, 1)[0]
            if version != rm.MAP_VERSION:
                raise DeviceProtocolError(
                    f"{self._where} has register map {version}, this driver needs {rm.MAP_VERSION}"
                )
        except BaseException:
            self.disconnect()
            raise
        _limit_answers(client, self._settings.timeout_s)

    def disconnect(self) -> None:
        """Closes the socket; a request in another thread ends with a `DeviceConnectionError`."""
        client, self._client = self._client, None
        if client is None:
            return
        if (sock := client.socket) is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
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
        if len(entries) > rm.RING_LENGTH // 2:
            # Acknowledgements bear no number: only the total tells which of the oldest have been overwritten.
            now_total = rm.to_int(self._read(rm.IR_ACK_TOTAL, 2), 0)
            entries = entries[max(0, now_total - rm.RING_LENGTH - (total - len(entries))) :]
        try:
            return [
                rm.Ack(rm.to_int(entry, 0), rm.AckStatus(entry[2]), entry[3], rm.to_int(entry, 4))
                for entry in entries
            ]
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

    def send(self, command: rm.ValveCommand) -> None:
        """Writes the mailbox in one request."""
        self._write_registers(rm.HR_COMMAND, command.to_registers())

    def reset_faults(self) -> None:
        """Sets the reset coil."""
        self._set_coil(rm.COIL_RESET)

    def clear_queue(self) -> None:
        """Sets the clear coil."""
        self._set_coil(rm.COIL_CLEAR_QUEUE)

    @property
    def _where(self) -> str:
        return f"PLC at {self._settings.host}:{self._settings.port}"

    def _set_coil(self, address: int) -> None:
        answer = self._call(5, lambda client, **unit: client.write_coil(address, True, **unit))
        if answer.address != address:
            raise self._broken(
                DeviceProtocolError(f"{self._where} acknowledged coil {answer.address}, not {address}")
            )

    def _write_registers(self, address: int, words: list[int]) -> None:
        if not all(0 <= word <= 0xFFFF for word in words):
            raise DeviceSettingsError(f"{words} can't be written to the PLC: a register holds 0..65535")
        answer = self._call(16, lambda client, **unit: client.write_registers(address, words, **unit))
        if (answer.address, answer.count) != (address, len(words)):
            raise self._broken(DeviceProtocolError(f"{self._where} acknowledged another write than was asked for"))

    def _read(self, address: int, count: int, *, holding: bool = False) -> list[int]:
        if holding:
            answer = self._call(
                3, lambda client, **unit: client.read_holding_registers(address, count=count, **unit)
            )
        else:
            answer = self._call(4, lambda client, **unit: client.read_input_registers(address, count=count, **unit))
        if len(answer.registers) != count:
            raise self._broken(
                DeviceProtocolError(f"{self._where} sent {len(answer.registers)} registers, {count} were asked for")
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

    def _call(self, function_code: int, request: Callable[..., Any]) -> Any:
        """Runs one request; after any failure but a proper Modbus exception the connection is closed."""
        client = self._client
        if client is None:
            raise DeviceConnectionError("PLC is not connected")
        try:
            answer = request(client, device_id=self._settings.device_id)
        except Exception as error:  # what the library trips over when an answer is garbage, or its socket is closed
            raise self._failure(client, error) from error
        if self._client is not client:
            client.close()  # the library opens a socket again that was closed in another thread
            raise DeviceConnectionError("PLC was disconnected")
        if answer.isError():
            raise DeviceProtocolError(f"{self._where} refused a request: {answer}")
        if answer.function_code != function_code:
            raise self._broken(
                DeviceProtocolError(f"{self._where} answered function {function_code} with {answer.function_code}")
            )
        return answer

    def _failure(self, client: Any, error: Exception) -> Exception:
        if self._client is not client:
            client.close()
            return DeviceConnectionError("PLC was disconnected")
        if isinstance(error, (OSError, ConnectionException)):
            return self._broken(DeviceConnectionError(f"connection to the {self._where} broke: {error}"))
        if isinstance(error, ModbusException) and "No response" in str(error):
            return self._broken(DeviceTimeoutError(f"{self._where} does not answer"))
        return self._broken(DeviceProtocolError(f"{self._where} answers with garbage: {error}"))

    def _broken(self, error: Exception) -> Exception:
        """An answer that is late would be taken for the answer to the next request: start over."""
        self.disconnect()
        return error


def _limit_answers(client: Any, timeout_s: float) -> None:
    """Sets how long the client waits for an answer."""
    client.comm_params.timeout_connect = client.transaction.comm_params.timeout_connect = timeout_s

"""What drivers over Modbus TCP have in common."""

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
    DeviceBusyError,
    DeviceConnectionError,
    DeviceProtocolError,
    DeviceSettingsError,
    DeviceTimeoutError,
)
from battery_sorting.drivers.base import Driver, DriverSettings

_BUSY = {5: "takes long", 6: "is busy", 10: "has no path to it", 11: "gets no answer from it"}
"""Modbus exceptions that say *not now*: the request is right, and is made again. The last two are a gateway's."""
_FROM_A_GATEWAY = {10, 11}
BUSY_PAUSE_S = 0.01


class ModbusSettings(DriverSettings):
    """Where the PLC is and how long to wait for an answer."""

    host: str = Field(min_length=1, description="name or address of the PLC")
    port: int = Field(502, ge=1, le=65535, description="TCP port of the PLC")
    device_id: int = Field(
        1,
        ge=0,
        le=255,
        description="unit id that the PLC answers to: most answer to any, some only to 0, 255 or their own",
    )
    timeout_s: float = Field(0.2, gt=0, le=10, description="for each answer, in seconds")
    busy_s: float = Field(
        0.25,
        ge=0,
        le=10,
        description="how long the PLC may report that it is busy, in seconds; less than its watchdog's 0.5 s",
    )


class ModbusDevice(Driver):
    """Synchronous Modbus TCP client for one thread; any other may `disconnect` it.

    The device must hold ``MAP_VERSION`` in its input register 0.
    """

    Settings: ClassVar[type[DriverSettings]] = ModbusSettings
    MAP_VERSION: ClassVar[int]
    DEVICE: ClassVar[str] = "PLC"

    def __init__(self, settings: ModbusSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._client: Any = None  # ModbusTcpClient; the library is typed in parts only
        self._sent = b""  # transaction of the request that waits for its answer
        self._other_unit: int | None = None  # who has answered it instead
        self._last_exception = 0
        self._asked_again_s = 0.0  # what the last request lost to answers that said *not now*

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
        client: Any = ModbusTcpClient(
            self._settings.host, port=self._settings.port, retries=0, trace_packet=self._note_unit
        )
        try:
            client.socket = socket.create_connection(address, timeout=timeout_s)
        except OSError as error:
            raise DeviceConnectionError(
                f"{self._where} can't be reached ({error}): is it on, are host and port right?"
            ) from error
        _limit_answers(client, min(self._settings.timeout_s, max(deadline - time.monotonic(), 1e-3)))
        self._client = client
        try:
            version = self._read_version()
            if version != self.MAP_VERSION:
                raise DeviceProtocolError(
                    f"{self._where} has register map {version}, this driver needs {self.MAP_VERSION}"
                )
        except BaseException:
            self.disconnect()
            raise
        _limit_answers(client, self._settings.timeout_s)

    def _read_version(self) -> int:
        """Version of the register map. An error says what may be wrong with ``device_id``, as that shows here."""
        unit = self._settings.device_id
        try:
            return self._read(0, 1)[0]
        except DeviceTimeoutError as error:
            raise DeviceTimeoutError(
                f"{error}: it takes the connection, but unit {unit} keeps silent. If the PLC listens to another "
                "unit id (often 255 or 0), write it to the setting device_id"
            ) from error
        except DeviceBusyError as error:
            if self._last_exception not in _FROM_A_GATEWAY:
                raise
            raise DeviceBusyError(
                f"{error}: this is a gateway, and finds no unit {unit}. Write the PLC's unit id to the setting "
                "device_id (255 or 0 often means the PLC itself)"
            ) from error

    def disconnect(self) -> None:
        """Closes the socket; a request in another thread ends with a `DeviceConnectionError`."""
        client, self._client = self._client, None
        if client is None:
            return
        if (sock := client.socket) is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        client.close()

    @property
    def _where(self) -> str:
        return f"{self.DEVICE} at {self._settings.host}:{self._settings.port}"

    def _set_coil(self, address: int) -> None:
        answer = self._call(5, lambda client, **unit: client.write_coil(address, True, **unit))
        if answer.address != address:
            raise self._broken(
                DeviceProtocolError(f"{self._where} acknowledged coil {answer.address}, not {address}")
            )

    def _write_registers(self, address: int, words: list[int]) -> None:
        if not all(0 <= word <= 0xFFFF for word in words):
            raise DeviceSettingsError(f"{words} can't be written to the {self.DEVICE}: a register holds 0..65535")
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

    def _call(self, function_code: int, request: Callable[..., Any]) -> Any:
        """Runs one request; after any failure but a proper Modbus exception the connection is closed.

        A PLC that is busy is asked again for up to ``busy_s``. Every request may come twice: commands bear a token
        or say how something shall be, and what is read says what is now.
        """
        began = sent_at = time.monotonic()
        while (answer := self._ask(request)).isError() and answer.exception_code in _BUSY:
            self._last_exception = answer.exception_code
            if time.monotonic() + BUSY_PAUSE_S - began > self._settings.busy_s:
                raise DeviceBusyError(
                    f"{self._where} {_BUSY[answer.exception_code]} (Modbus exception {answer.exception_code}) "
                    f"for more than {self._settings.busy_s:g} s"
                )
            time.sleep(BUSY_PAUSE_S)
            sent_at = time.monotonic()
        self._asked_again_s = sent_at - began
        if answer.isError():
            raise DeviceProtocolError(f"{self._where} refused a request: {answer}")
        if answer.function_code != function_code:
            raise self._broken(
                DeviceProtocolError(f"{self._where} answered function {function_code} with {answer.function_code}")
            )
        return answer

    def _ask(self, request: Callable[..., Any]) -> Any:
        """Sends one request and takes its answer, which may be a Modbus exception."""
        client = self._client
        if client is None:
            raise DeviceConnectionError(f"{self.DEVICE} is not connected")
        try:
            answer = request(client, device_id=self._settings.device_id)
        except Exception as error:  # what the library trips over when an answer is garbage, or its socket is closed
            raise self._failure(client, error) from error
        if self._client is not client:
            client.close()  # the library opens a socket again that was closed in another thread
            raise DeviceConnectionError(f"{self.DEVICE} was disconnected")
        return answer

    def _note_unit(self, sending: bool, data: bytes) -> bytes:
        """Sees every packet, since the library passes over the answers of another unit in silence."""
        if sending:
            self._sent, self._other_unit = data[:2], None
        elif len(data) >= 7 and data[:4] == self._sent + b"\0\0" and data[6] != self._settings.device_id:
            self._other_unit = data[6]
        return data

    def _failure(self, client: Any, error: Exception) -> Exception:
        if self._client is not client:
            client.close()
            return DeviceConnectionError(f"{self.DEVICE} was disconnected")
        if isinstance(error, (OSError, ConnectionException)):
            return self._broken(DeviceConnectionError(f"connection to the {self._where} broke: {error}"))
        if self._other_unit is not None:
            unit, asked = self._other_unit, self._settings.device_id
            return self._broken(
                DeviceProtocolError(
                    f"{self._where} answers as unit {unit}, unit {asked} was asked: write {unit} to the setting "
                    "device_id if this is the right one"
                )
            )
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

"""The kind of device that the weighing line brings itself: interface, contract suite and a driver."""

from __future__ import annotations

import contextlib
import socket
from abc import abstractmethod
from typing import ClassVar

from pydantic import Field

from battery_sorting.core.errors import DeviceConnectionError, DeviceProtocolError, DeviceTimeoutError
from battery_sorting.drivers.base import DeviceKind, Driver, DriverSettings
from battery_sorting.drivers.suite import Checks, DriverBench, Suite, require

CHECKS = Checks()
SUITE = Suite(CHECKS, calls=lambda balance: {"read_g": balance.read_g}, touch=lambda balance: balance.read_g())


class Balance(Driver):
    """Weighs cells."""

    @abstractmethod
    def read_g(self) -> float:
        """What lies on it, in grams."""


@CHECKS.add("weighs in grams", "set the balance to grams")
def _weighs(bench: DriverBench) -> str:
    weight_g = bench.connect().read_g()
    require(0 <= weight_g <= 3000, f"shows {weight_g:g} g")
    return f"{weight_g:g} g"


class SicsSettings(DriverSettings):
    host: str
    port: int = Field(ge=1, le=65535)


class SicsBalance(Balance):
    """A balance that answers ``S`` with ``S S 812.0 g`` (MT-SICS)."""

    Settings: ClassVar[type[DriverSettings]] = SicsSettings

    def __init__(self, settings: SicsSettings) -> None:
        super().__init__(settings)
        self._at = (settings.host, settings.port)
        self._socket: socket.socket | None = None

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def connect(self, timeout_s: float = 2.0) -> None:
        if self.connected:
            return
        try:
            self._socket = socket.create_connection(self._at, timeout=timeout_s)
        except OSError as error:
            raise DeviceConnectionError(f"balance can't be reached: {error}") from error
        self._socket.settimeout(timeout_s)
        self.read_g()

    def disconnect(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def read_g(self) -> float:
        sock = self._socket
        if sock is None:
            raise DeviceConnectionError("balance is not connected")
        try:
            sock.sendall(b"S\r\n")
            answer = sock.recv(64)
        except TimeoutError as error:
            self.disconnect()
            raise DeviceTimeoutError("balance does not answer") from error
        except OSError as error:
            self.disconnect()
            raise DeviceConnectionError(f"connection to the balance broke: {error}") from error
        words = answer.split()
        if len(words) != 4 or words[0] != b"S":
            self.disconnect()
            raise (DeviceProtocolError if answer else DeviceConnectionError)(f"balance answers {answer!r}")
        return float(words[2])


BALANCE = DeviceKind(f"{__name__}:Balance", f"{__name__}:SUITE", {"sics": f"{__name__}:SicsBalance"})

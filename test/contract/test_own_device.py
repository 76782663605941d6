"""A kind of device of another package: declared by one entry, with its interface and its contract suite."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from impostor import impostor
from pydantic import Field

from battery_sorting.core.errors import DeviceConnectionError, DeviceProtocolError, DeviceTimeoutError
from battery_sorting.drivers.base import DeviceKind, Driver, DriverSettings
from battery_sorting.drivers.contract import check_driver
from battery_sorting.drivers.registry import driver_problems, find_device, find_suite
from battery_sorting.drivers.suite import CheckOptions, CheckOutcome, Checks, DriverBench, Suite, require

QUICK = CheckOptions(timeout_s=0.5, impostor_timeout_s=0.2)
CHECKS = Checks()
SUITE = Suite(CHECKS, calls=lambda balance: {"read_g": balance.read_g}, touch=lambda balance: balance.read_g())


class Balance(Driver):
    """Weighs cells."""

    def read_g(self) -> float:
        raise NotImplementedError


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


class CarelessBalance(SicsBalance):
    def read_g(self) -> float:
        return super().read_g() * 1000


BALANCE = DeviceKind(f"{__name__}:Balance", f"{__name__}:SUITE", {"sics": f"{__name__}:SicsBalance"})
NO_SUITE = DeviceKind(f"{__name__}:Balance", f"{__name__}:Balance")
OWN = f"{__name__}:BALANCE"


@pytest.fixture
def settings() -> Iterator[dict[str, Any]]:
    def weigh(connection: socket.socket) -> None:
        while connection.recv(64):
            connection.sendall(b"S S 812.0 g\r\n")

    with impostor(weigh) as port:
        yield {"host": "127.0.0.1", "port": port}


def test_its_driver_is_held_to_its_contract_and_to_that_of_all_drivers(settings):
    results = {result.check: result for result in check_driver(OWN, "sics", settings, QUICK)}
    assert {result.outcome for result in results.values()} == {CheckOutcome.PASS}, results
    assert results["weighs in grams"].detail == "812 g"
    assert {"disconnecting ends a read", "gives up on garbage"} <= results.keys()


def test_its_driver_that_breaks_its_contract_is_told_how(settings):
    results = check_driver(OWN, f"{__name__}:CarelessBalance", settings, QUICK)
    [failed] = [result for result in results if result.outcome is CheckOutcome.FAIL]
    assert (failed.check, failed.detail) == ("weighs in grams", "shows 812000 g")
    assert failed.remedy == "set the balance to grams"


def test_its_settings_are_checked_before_a_start():
    [problem] = driver_problems(OWN, "sics", {"host": "balance", "port": 1, "prt": 2})
    assert problem.startswith(f"{OWN}.settings.prt: ") and "did you mean 'port'?" in problem
    [problem] = driver_problems(OWN, "sisc", {})
    assert "did you mean 'sics'?" in problem
    [problem] = driver_problems(OWN, "battery_sorting.drivers.robot.line_socket:LineSocketRobot", {})
    assert "is not derived from Balance" in problem


@pytest.mark.parametrize(
    ("device", "complaint"),
    [
        ("balance", "'balance' is none; there are plc, "),
        ("nowhere.at_all:BALANCE", "add its folder to PYTHONPATH"),
        (f"{__name__}:SCALE", "has no DeviceKind 'SCALE'"),
        (f"{__name__}:Balance", "has no DeviceKind 'Balance'"),
    ],
)
def test_what_is_no_kind_of_device_is_named(device, complaint):
    with pytest.raises(ValueError, match=complaint):
        find_device(device)


def test_a_kind_of_device_without_a_suite_is_named():
    with pytest.raises(ValueError, match=r"its suite '.*:Balance' is no Suite"):
        find_suite(f"{__name__}:NO_SUITE")

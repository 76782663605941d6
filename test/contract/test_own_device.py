"""A kind of device of another package: declared by one entry, with its interface and its contract suite."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from impostor import impostor
from support.third_line import balance

from battery_sorting.drivers.base import DeviceKind
from battery_sorting.drivers.contract import check_driver
from battery_sorting.drivers.registry import driver_problems, find_device, find_suite
from battery_sorting.drivers.suite import CheckOptions, CheckOutcome

QUICK = CheckOptions(timeout_s=0.5, impostor_timeout_s=0.2)


class CarelessBalance(balance.SicsBalance):
    def read_g(self) -> float:
        return super().read_g() * 1000


HERE, THERE = __name__, balance.__name__
NO_SUITE = DeviceKind(f"{THERE}:Balance", f"{THERE}:Balance")
OWN = f"{THERE}:BALANCE"


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
    results = check_driver(OWN, f"{HERE}:CarelessBalance", settings, QUICK)
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
        (f"{THERE}:SCALE", "has no DeviceKind 'SCALE'"),
        (f"{THERE}:Balance", "has no DeviceKind 'Balance'"),
    ],
)
def test_what_is_no_kind_of_device_is_named(device, complaint):
    with pytest.raises(ValueError, match=complaint):
        find_device(device)


def test_a_kind_of_device_without_a_suite_is_named():
    with pytest.raises(ValueError, match=r"its suite '.*:Balance' is no Suite"):
        find_suite(f"{HERE}:NO_SUITE")


def test_check_driver_takes_it_by_its_path(settings, call):
    code, out, _ = call("sics", settings, "--device", OWN)
    assert code == 0, out
    assert "pass  weighs in grams: 812 g" in out
    code, _, err = call("sics", settings, "--device", f"{THERE}:SCALE")
    assert code == 2
    assert "has no DeviceKind 'SCALE'" in err

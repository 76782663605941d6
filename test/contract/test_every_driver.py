"""The contract that every kind of driver keeps, each with its device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from plant_line import Line, accepts, wait_for
from pydantic import ValidationError

from battery_sorting.core.errors import DeviceConnectionError, DeviceError
from battery_sorting.drivers.contract import check_driver
from battery_sorting.drivers.registry import DEVICES, driver_problems, find_device, find_driver, find_suite
from battery_sorting.drivers.suite import CheckOptions, CheckOutcome

HARNESSES: dict[tuple[str, str], Callable[[Line], dict[str, Any]]] = {
    ("plc", "modbus"): lambda line: {"host": "127.0.0.1", "port": line.modbus.port},
    ("station_plc", "modbus"): lambda line: {"host": "127.0.0.1", "port": line.station_modbus.port},
    ("camera", "frame_server"): lambda line: {"host": "127.0.0.1", "port": line.camera.port},
    ("robot", "line_socket"): lambda line: {"host": "127.0.0.1", "port": line.robot_port.port},
    ("tester", "scpi"): lambda line: {
        "host": "127.0.0.1",
        "port": line.instruments.ports["cycler_port"],
        "meter_port": line.instruments.ports["meter_port"],
        "channels": 2,
    },
}
"""Device and kind to the settings that reach the simulated device. A new kind of driver adds its own."""

ALL = [(device, kind) for device in DEVICES for kind in find_device(device).drivers]
QUICK = CheckOptions(timeout_s=1.0, impostor_timeout_s=0.3, frames=2)


@pytest.mark.parametrize(("device", "kind"), ALL)
def test_driver_keeps_the_contract(line, device, kind):
    assert (device, kind) in HARNESSES, f"give the {device} driver {kind!r} a harness in {__file__}"
    if device == "camera":
        line.run_belt(0.3)  # a frame every third of a second
    results = list(check_driver(device, kind, HARNESSES[device, kind](line), QUICK))
    bad = [result for result in results if result.outcome is CheckOutcome.FAIL]
    assert not bad, bad
    skipped = {result.check for result in results if result.outcome is CheckOutcome.SKIP}
    assert skipped <= {"encoder moves", "flips each token once", "starts and stops"}
    assert device == "camera" or line.world.encoder_mm == line.station.flipper_deg == 0, "nothing moves unasked"
    assert len(results) >= 14


@pytest.mark.parametrize(("device", "kind"), ALL)
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"port": "502"}, "port: Input should be a valid integer"),
        ({"port": 0}, "port: Input should be greater than or equal to 1"),
        ({"port": True}, "port: Input should be a valid integer"),
        ({"host": 17}, "host: Input should be a valid string"),
        ({"host": ""}, "host: String should have at least 1 character"),
        ({"hots": "plc"}, "hots: Extra inputs are not permitted; did you mean 'host'?"),
    ],
)
def test_wrong_settings_are_named_before_anything_is_opened(device, kind, changes, complaint):
    [problem] = driver_problems(device, kind, {"host": "127.0.0.1", "port": 1, **changes})
    assert f"{device}.settings.{complaint}" in problem


@pytest.mark.parametrize(("device", "kind"), ALL)
def test_all_wrong_settings_are_named_at_once(device, kind):
    assert len(driver_problems(device, kind, {"host": 1, "port": "x", "zzz": 1})) == 3
    with pytest.raises(ValidationError):
        find_driver(device, kind).from_settings({"host": 1})


@pytest.mark.parametrize(("device", "kind"), ALL)
def test_driver_connects_again_after_its_device_was_cut(line, device, kind):
    settings = HARNESSES[device, kind](line)
    driver: Any = find_driver(device, kind).from_settings(settings)
    suite = find_suite(device)
    read = suite.wait or suite.touch
    line.run_belt(1.0)
    driver.connect()
    read(driver)
    line.set_faults(plc__disconnect=True, camera__disconnect=True, cycler__disconnect=True, robot__disconnect=True)
    wait_for(lambda: not accepts(settings["port"]))
    with pytest.raises(DeviceConnectionError):
        while True:
            read(driver)  # frames that were under way still come
    assert not driver.connected
    with pytest.raises(DeviceConnectionError, match=f"127.0.0.1:{settings['port']} can't be reached"):
        driver.connect()
    line.set_faults(
        plc__disconnect=False, camera__disconnect=False, cycler__disconnect=False, robot__disconnect=False
    )
    wait_for(lambda: accepts(settings["port"]))
    driver.connect()
    read(driver)
    driver.disconnect()


def test_each_error_has_a_code_of_its_own():
    classes = [DeviceError, *_all_subclasses(DeviceError)]
    assert len({kind.code for kind in classes}) == len(classes)


def _all_subclasses(kind: type) -> list[type]:
    return [found for sub in kind.__subclasses__() for found in (sub, *_all_subclasses(sub))]

"""The command that integrators check their own drivers with."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from battery_sorting.core.ownership import claim
from battery_sorting.drivers.contract import check_driver
from battery_sorting.drivers.registry import driver_problems
from battery_sorting.drivers.suite import CheckOptions, CheckOutcome
from battery_sorting.line.claims import device_claims
from battery_sorting.line.contract import CONTROLLER

QUICK = CheckOptions(timeout_s=0.1, impostor_timeout_s=0.1, frames=2, wait_s=2.0)


def failures(driver: str, settings: dict[str, Any]) -> dict[str, str]:
    results = check_driver("camera", f"third_party:{driver}", settings, QUICK)
    return {result.check: result.detail for result in results if result.outcome is CheckOutcome.FAIL}


def test_plc_passes_and_its_belt_moves_when_that_is_allowed(line, call):
    code, out, _ = call("modbus", {"host": "127.0.0.1", "port": line.modbus.port}, "--move", "--speed", "0.5")
    assert code == 0, out
    assert "pass  encoder moves" in out
    assert "0 failed, 0 skipped" in out
    assert line.world.encoder_mm > 0
    assert not line.plc.running, "the belt stands still afterwards"


def test_device_of_a_cell_that_runs_is_left_alone(line, call):
    """Issue 14, point 3."""
    settings = {"host": "127.0.0.1", "port": line.modbus.port}
    requests = line.modbus.requests
    with claim(device_claims(CONTROLLER, "plc", "modbus", settings), "line_controller, run folder /runs/belt"):
        code, _, err = call("modbus", settings | {"host": "localhost"}, "--move")
    assert code == 2
    assert f"belongs to process {os.getpid()} (line_controller, run folder /runs/belt)" in err
    assert line.modbus.requests == requests


def test_device_that_is_off_fails_with_a_remedy_and_what_needs_it_is_skipped(call):
    code, out, _ = call("frame_server", {"host": "127.0.0.1", "port": 1}, "--device", "camera", "--json")
    assert code == 1
    report = json.loads(out)
    assert (report["device"], report["driver"], report["passed"]) == ("camera", "frame_server", False)
    checks = {check["check"]: check for check in report["checks"]}
    assert checks["connects"]["outcome"] == "fail"
    assert "127.0.0.1:1 can't be reached" in checks["connects"]["detail"]
    assert "host" in checks["connects"]["remedy"]
    assert checks["delivers frames"] == {
        "check": "delivers frames",
        "outcome": "skip",
        "detail": "the device is not connected",
        "remedy": "",
    }
    assert checks["gives up on garbage"]["outcome"] == "pass"


def test_wrong_settings_fail_before_anything_is_opened(call):
    code, out, _ = call("modbus", {"host": "127.0.0.1", "prot": 502})
    assert code == 1
    assert "plc.settings.prot: Extra inputs are not permitted; did you mean 'port'?" in out
    assert "0 passed, 1 failed" in out


@pytest.mark.parametrize(
    ("driver", "settings", "options", "complaint"),
    [
        ("modbuss", "{}", (), "did you mean 'modbus'?"),
        ("nowhere.at_all:Camera", "{}", (), "add its folder to PYTHONPATH"),
        ("third_party:Missing", "{}", (), "has no class 'Missing'"),
        ("third_party:NotADriver", "{}", (), "is not derived from TriggeredCamera"),
        ("third_party:AcmeCamera", "{}", ("--device", "drone"), "'drone' is none; there are plc, "),
        ("third_party:AcmeCamera", "[1, 2]", (), "must be a mapping"),
        ("third_party:AcmeCamera", "a: [", (), "is not valid YAML"),
    ],
)
def test_unusable_call_says_what_to_write(call, driver, settings, options, complaint):
    code, _, err = call(driver, settings, *options)
    assert code == 2
    assert complaint in err


def test_driver_of_a_third_party_passes(call):
    code, out, _ = call("third_party:AcmeCamera", {"period_s": 0.3}, "--frames", "2")
    assert code == 0, out
    assert "skip  gives up on garbage: its settings have no host and port" in out
    assert "pass  delivers frames: 2 frames of 4 x 2 mono8" in out


def test_driver_that_breaks_the_contract_is_told_how():
    found = failures("CarelessCamera", {})
    assert "KeyError" in found["building opens nothing"]
    assert "KeyError" in found["disconnects at any time"]
    assert "time of the frame before" in found["delivers frames"]
    assert "left behind" in found["leaves nothing open"]


def test_driver_that_takes_anything_for_its_device_is_found_out():
    found = failures("GullibleCamera", {"host": "127.0.0.1", "port": 1})
    assert found.keys() >= {"gives up where nothing listens", "gives up on a silent device", "gives up on garbage"}
    assert "raised nothing" in found["gives up on garbage"]


def test_driver_that_hangs_ends_the_check():
    *_, last = check_driver("camera", "third_party:HangingCamera", {}, replace(QUICK, overhead_s=0.3))
    assert last.outcome is CheckOutcome.FAIL
    assert last.check == "connects"
    assert "did not come back within" in last.detail


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("HalfCamera", "lacks connect, connected, disconnect"),
        ("NoSettings", "has no Settings derived from DriverSettings"),
    ],
)
def test_incomplete_driver_is_refused_before_a_cell_starts(name, complaint):
    [problem] = driver_problems("camera", f"third_party:{name}", {})
    assert complaint in problem


def test_module_of_a_driver_that_fails_on_import_is_named(tmp_path: Path, monkeypatch):
    (tmp_path / "broken_sdk.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(str(tmp_path))
    [problem] = driver_problems("plc", "broken_sdk:Plc", {})
    assert "RuntimeError('no licence')" in problem

"""Interfaces and contract suites of devices know no hardware, and kinds of device don't know each other."""
# issue 16, 7

from __future__ import annotations

from functools import cache

import grimp
import pytest

from battery_sorting.drivers.registry import DEVICES, base_class, find_suite

DRIVERS = "battery_sorting.drivers"
SHARED = {f"{DRIVERS}.{name}" for name in ("base", "suite")}


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("battery_sorting", include_external_packages=True)


@pytest.mark.parametrize("device", DEVICES)
def test_an_interface_and_its_contract_know_no_hardware(device):
    own = f"{DRIVERS}.{device}"
    allowed = {*SHARED, f"{own}.base"}
    for module in (base_class(device).__module__, f"{own}.contract"):
        found = graph().find_upstream_modules(module)
        assert {name for name in found if name.startswith(DRIVERS)} <= allowed
        assert not found & {"pymodbus", "pyvisa"}
    assert find_suite(device).checks, "a kind of device has rules of its own"


@pytest.mark.parametrize("device", DEVICES)
def test_kinds_of_device_do_not_know_each_other(device):
    own = f"{DRIVERS}.{device}"
    others = tuple(f"{DRIVERS}.{other}." for other in DEVICES if other != device)
    for module in (own, *graph().find_descendants(own)):
        assert not [name for name in graph().find_modules_directly_imported_by(module) if name.startswith(others)]


def test_only_drivers_and_the_plant_know_hardware():
    interfaces = {f"{DRIVERS}.{device}.base" for device in DEVICES}
    hardware = {name for device in DEVICES for name in graph().find_descendants(f"{DRIVERS}.{device}")} - interfaces
    found = {
        f"{module} imports {name}"
        for name in hardware
        for module in graph().find_modules_that_directly_import(name)
        if not module.startswith((f"{DRIVERS}.", "battery_sorting.plant."))
    }
    assert found == set()

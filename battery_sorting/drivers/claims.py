"""What each node of a line claims for itself (`core.ownership`), so that no second one works against it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.lines import AnySite
from battery_sorting.core.ownership import Claim, OwnedElsewhereError, claim
from battery_sorting.core.paths import ledger_location
from battery_sorting.core.plan import PLANT, Plan
from battery_sorting.drivers.registry import find_driver

CONTROLLER = "line_controller"
DOMAIN_VARIABLE = "ROS_DOMAIN_ID"
LAST_DOMAIN = 232
"""The last whose ports there are."""
_DEVICES = {
    "conveyor": ("plc",),
    "ejector": ("plc",),
    "camera": ("camera",),
    "inspection": ("station_plc", "cameras.lug", "cameras.case"),
    "tester": ("measuring.tester",),
    "robot": ("measuring.robot",),
}
"""Node → paths of the devices in the site file that it talks to. The line's controller claims all of them."""


def claims_of(name: str, site: AnySite, run_dir: Path, domain: int, namespace: str = "") -> list[Claim]:
    """What node ``name`` of a line claims: its name in the ROS domain, its devices; the controller its records.

    The ``namespace`` is the node's own; empty: that of the line.
    """
    claims = [Claim(name, f"line {namespace.strip('/') or site.line} in ROS domain {domain}")]
    paths = tuple(site.devices) if name == CONTROLLER else _DEVICES.get(name, ())
    for path in paths:
        kind, device = site.devices[path]
        claims += device_claims(name, kind, device.driver, device.settings)
    if name == CONTROLLER:
        claims.append(Claim(name, f"line {site.line} in ledger {ledger_location(site, run_dir)}"))
    return claims


def device_claims(role: str, kind: str, driver: str, settings: dict[str, Any]) -> list[Claim]:
    """What uses a device as ``role`` claims of it.

    Raises:
        ValueError: There is no such driver, or its settings are wrong.
    """
    addresses = find_driver(kind, driver).from_settings(settings).addresses
    return [Claim(role, f"{kind} at {address}") for address in addresses]


def check_free(
    plan: Plan, waiting: Callable[[str], None] | None = None, given: Mapping[str, str] | None = None
) -> None:
    """See whether anything that a cell needs is in use, before any process of it is started.

    What counts is what the nodes claim themselves; this only tells it before they disturb others.

    Args:
        plan: Of the cell.
        waiting: Called once with the reason when it has to wait for a process that is ending.
        given: The environment that the processes are started in; default: this process's.

    Raises:
        OwnedElsewhereError: Another process has it, and does not end within `core.ownership.PATIENCE_S`.
        ConfigurationError: The ROS domain is none.
    """
    claims = _claims_of_plan(plan, os.environ if given is None else given)
    claim(claims, f"start of the cell, run folder {plan.run_dir}", waiting).release()


def check_beside(plan: Plan, others: Iterable[Plan], given: Mapping[str, str]) -> None:
    """See whether a cell can run beside ``others`` that the same launch starts: their nodes claim nothing yet.

    Raises:
        OwnedElsewhereError: They want the same device, line or port of the plant.
    """
    mine = {*_claims_of_plan(plan, given), *_claims_of_ports(plan)}
    for other in others:
        both = mine & {*_claims_of_plan(other, given), *_claims_of_ports(other)}
        if both:
            raise OwnedElsewhereError(
                f"{min(both)} belongs to the cell of this launch in run folder {other.run_dir}: two would work "
                "against each other. Give this one a namespace or other hardware"
            )


def _claims_of_plan(plan: Plan, given: Mapping[str, str]) -> list[Claim]:
    domain = _domain(given)
    return [
        one
        for spec in plan.nodes
        if spec.ros
        for one in claims_of(spec.name, plan.site, plan.run_dir, domain, spec.namespace)
    ]


def _claims_of_ports(plan: Plan) -> list[Claim]:
    started = any(not spec.ros for spec in plan.nodes)
    return [
        Claim(PLANT, f"port {port} (plant.{key})")
        for key, port in (plan.site.plant or {}).items()
        if started and key.endswith("_port")
    ]


def _domain(given: Mapping[str, str]) -> int:
    text = given.get(DOMAIN_VARIABLE, "").strip() or "0"
    if not text.isascii() or not text.isdigit() or int(text) > LAST_DOMAIN:
        problem = f"{text!r} is no ROS domain: give a number from 0 to {LAST_DOMAIN}, or unset it"
        raise ConfigurationError(DOMAIN_VARIABLE, [problem])
    return int(text)

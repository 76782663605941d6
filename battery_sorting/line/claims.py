"""What each node of a line claims for itself (`core.ownership`), so that no second one works against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from battery_sorting.core.ownership import Claim
from battery_sorting.drivers.registry import find_driver
from battery_sorting.line.contract import CONTROLLER
from battery_sorting.line.paths import ledger_location
from battery_sorting.line.site import LineSite


def claims_of(name: str, site: LineSite, run_dir: Path, domain: int, namespace: str = "") -> list[Claim]:
    """What node ``name`` of a line claims: its name in the ROS domain, its devices; the controller its records.

    The ``namespace`` is the node's own; empty: that of the line.
    """
    claims = [Claim(name, f"line {namespace.strip('/') or site.line} in ROS domain {domain}")]
    paths = tuple(site.devices) if name == CONTROLLER else site.used_by.get(name, ())
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

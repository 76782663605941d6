"""Whether what a whole cell needs is free, before any process of it is started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.ownership import Claim, OwnedElsewhereError, claim
from battery_sorting.line.claims import claims_of
from battery_sorting.line.contract import PLANT, Role
from battery_sorting.runtime.plan import Plan

DOMAIN_VARIABLE = "ROS_DOMAIN_ID"
LAST_DOMAIN = 232
"""The last whose ports there are."""


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
        if spec.is_node
        for one in claims_of(spec.name, plan.site, plan.run_dir, domain, spec.namespace)
    ]


def _claims_of_ports(plan: Plan) -> list[Claim]:
    started = any(spec.role is Role.PLANT for spec in plan.nodes)
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

"""The parameters of all nodes: described, and read-only, since they are read when a node starts."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, ParameterType
from rclpy.node import Node

from battery_sorting.line.contract import PARAMETERS, USE_SIM_TIME

_BY_NAME = {one.name: one for one in PARAMETERS}


def declare(node: Node, name: str, default: Any = None) -> Any:
    """Declares a parameter of `line.contract.PARAMETERS` and returns its value.

    Args:
        node: Whose it is.
        name: Its name.
        default: In place of the contract's, where that depends on the site.
    """
    parameter = _BY_NAME[name]
    value = parameter.default if default is None else default
    return node.declare_parameter(name, value, _descriptor(name)).value


def lock_sim_time(node: Node) -> None:
    """Describes rclpy's own ``use_sim_time`` and makes it read-only: clocks are chosen when the node starts."""
    descriptor = _descriptor(USE_SIM_TIME)
    descriptor.type = ParameterType.PARAMETER_BOOL
    node.set_descriptor(USE_SIM_TIME, descriptor)


def _descriptor(name: str) -> ParameterDescriptor:
    return ParameterDescriptor(description=_BY_NAME[name].meaning, read_only=True)

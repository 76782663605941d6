"""Asks a node of a line that runs: one service call from outside the cell."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any

from battery_sorting.cli.supervisor import remove_leaked_shared_memory
from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.settings import find_shared

PATIENCE_S = 3.0
"""For the node to be found, and as long again for its answer."""
END_S = 1.0
ACQUAINTANCE_S = 0.2
"""Between finding the node and asking: it must have found this side, too, or its answer may go astray."""


class AskError(BatterySortingError):
    """A node could not be asked."""

    code = "ask"


def ask(
    line: str, service: str, type_name: str, request: dict[str, Any], answer_s: float = PATIENCE_S
) -> dict[str, Any] | None:
    """Fields of the answer of a node of ``line``; None if there is no such node.

    The middleware lives in a process of its own: when it is closed early it was seen to hang with the GIL held.

    Args:
        line: Namespace of the line, in the ROS domain of this shell (ROS_DOMAIN_ID).
        service: For example ``line_controller/command``.
        type_name: Name of its type in `battery_sorting.srv`.
        request: Fields of the request.
        answer_s: So long the node may take for its answer.

    Raises:
        AskError: The node is there and does not answer in time, or the process that asks has failed; that has said
            why on standard error.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    operator = context.Process(target=_ask, args=(sender, line, service, type_name, request, answer_s), daemon=True)
    operator.start()
    sender.close()
    grace_s = 0.0
    try:
        found, answer = receiver.recv()
        grace_s = END_S if answer else 0.0
        if found and answer is None:
            raise AskError(
                f"{line}/{service} has not answered within {answer_s:g} s: look into the log of that node"
            )
        return dict(answer) if found else None
    except EOFError:
        raise AskError("the line could not be asked: see above") from None
    finally:
        operator.join(grace_s)
        operator.kill()
        operator.join()
        receiver.close()
        remove_leaked_shared_memory()


def _ask(
    sender: Connection, line: str, service: str, type_name: str, request: dict[str, Any], answer_s: float
) -> None:
    profile = find_shared("config/fastdds.xml")
    if profile is not None:  # nodes find each other sooner with it
        os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(profile))

    import rclpy

    service_type = getattr(importlib.import_module("battery_sorting.srv"), type_name)
    rclpy.init()
    node = rclpy.create_node("operator", namespace=line, enable_rosout=False, start_parameter_services=False)
    client = node.create_client(service_type, service)
    found = _is_found(rclpy, node, client)
    answer = None
    if found:
        future: Any = client.call_async(service_type.Request(**request))
        rclpy.spin_until_future_complete(node, future, timeout_sec=answer_s)
        answer = future.result() if future.done() else None
    sender.send((found, answer and {name: getattr(answer, name) for name in answer.get_fields_and_field_types()}))
    sender.close()
    rclpy.shutdown()


def _is_found(rclpy: Any, node: Any, client: Any) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not client.service_is_ready():
        if time.monotonic() > deadline:
            return False
        rclpy.spin_once(node, timeout_sec=0.02)
    acquainted = time.monotonic() + ACQUAINTANCE_S
    while time.monotonic() < acquainted:
        rclpy.spin_once(node, timeout_sec=0.02)
    return True

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


class AskError(BatterySortingError):
    """A node could not be asked."""

    code = "ask"


def ask(
    line: str, service: str, type_name: str, request: dict[str, Any], answer_s: float = PATIENCE_S
) -> dict[str, Any] | None:
    """Fields of the answer of a node of ``line``; None if nobody answers in time.

    The middleware lives in a process of its own: when it is closed early it was seen to hang with the GIL held.

    Args:
        line: Namespace of the line, in the ROS domain of this shell (ROS_DOMAIN_ID).
        service: For example ``line_controller/command``.
        type_name: Name of its type in `battery_sorting.srv`.
        request: Fields of the request.
        answer_s: So long the node may take for its answer.

    Raises:
        AskError: The process that asks has failed; it has said why on standard error.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    operator = context.Process(target=_ask, args=(sender, line, service, type_name, request, answer_s), daemon=True)
    operator.start()
    sender.close()
    grace_s = 0.0
    try:
        answer: dict[str, Any] | None = receiver.recv()
        grace_s = END_S if answer else 0.0
        return answer
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
    answer = _call(rclpy, node, client, service_type.Request(**request), answer_s)
    sender.send(answer and {name: getattr(answer, name) for name in answer.get_fields_and_field_types()})
    sender.close()
    rclpy.shutdown()


def _call(rclpy: Any, node: Any, client: Any, request: Any, answer_s: float) -> Any:
    """The answer, None if there is none in time."""
    deadline = time.monotonic() + PATIENCE_S
    while not client.service_is_ready():
        if time.monotonic() > deadline:
            return None
        rclpy.spin_once(node, timeout_sec=0.02)
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=answer_s)
    return future.result() if future.done() else None

"""Asks a node of a line that runs: one service call from outside the cell."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.runtime.plan import RANGE_VARIABLE, middleware_variables
from battery_sorting.runtime.shared_memory import clean_shared_memory

PATIENCE_S = 6.0
"""For the node to be found, and as long again for its answer. Other profiles announce a node every 3 s."""
START_S = 20.0
"""For the middleware to be loaded and to begin, on a machine that is busy. It was seen to hang."""
END_S = 1.0
"""For the good-bye to the middleware, which was seen to hang."""
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
        line: Namespace of the line, in the ROS domain of this shell (ROS_DOMAIN_ID), on this host; on another one
            where the shell says ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET.
        service: For example ``line_controller/command``.
        type_name: Name of its type in `battery_sorting.srv`.
        request: Fields of the request.
        answer_s: So long the node may take for its answer.

    Raises:
        AskError: The node is there and does not answer in time, or the process that asks has failed.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    operator = context.Process(target=_ask, args=(sender, line, service, type_name, request, answer_s), daemon=True)
    operator.start()
    sender.close()
    grace_s = 0.0
    try:
        if not receiver.poll(START_S + PATIENCE_S + ACQUAINTANCE_S + answer_s):
            raise AskError("the line could not be asked: the process that asks does not come to an end; try again")
        found, answer, fault = receiver.recv()
        if fault:
            raise AskError(f"the line could not be asked: {fault}")
        grace_s = END_S if found else 0.0
        if found and answer is None:
            raise AskError(
                f"{line}/{service} has not answered within {answer_s:g} s: look into the log of that node"
            )
        return dict(answer) if found else None
    except EOFError:
        raise AskError("the line could not be asked: the process that asks has ended") from None
    finally:
        operator.join(grace_s)
        operator.kill()
        operator.join()
        receiver.close()
        clean_shared_memory()


def _ask(sender: Connection, line: str, *what: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the command, and that this process
    try:
        with _operator(line) as node:
            sender.send((*_found_and_answer(node, *what), ""))
    except Exception as error:
        sender.send((False, None, " ".join(f"{type(error).__name__} {error}".split())))
    sender.close()


@contextlib.contextmanager
def _operator(line: str) -> Iterator[Any]:
    """A node that says good-bye: to one that doesn't, the others write for 20 s, and drown the next who asks."""
    # As the nodes of a cell: nothing outside of this host, unless the shell says so; and they are found sooner.
    discovery = "subnet" if os.environ.get(RANGE_VARIABLE) == "SUBNET" else "localhost"
    os.environ.update(middleware_variables(discovery, os.environ))

    import rclpy

    rclpy.init(args=["--ros-args", "--disable-external-lib-logs"])  # no log file: home may be missing or read-only
    node: Any = rclpy.create_node("operator", namespace=line, enable_rosout=False, start_parameter_services=False)
    try:
        yield node
    finally:
        with contextlib.suppress(Exception):
            node.destroy_node()
            rclpy.shutdown()


def _found_and_answer(
    node: Any, service: str, type_name: str, request: dict[str, Any], answer_s: float
) -> tuple[bool, dict[str, Any] | None]:
    import rclpy

    service_type = getattr(importlib.import_module("battery_sorting.srv"), type_name)
    client = node.create_client(service_type, service)
    found = _is_found(rclpy, node, client)
    answer = None
    if found:
        future: Any = client.call_async(service_type.Request(**request))
        rclpy.spin_until_future_complete(node, future, timeout_sec=answer_s)
        answer = future.result() if future.done() else None
    return found, answer and {name: getattr(answer, name) for name in answer.get_fields_and_field_types()}


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

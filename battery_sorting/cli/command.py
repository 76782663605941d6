"""Commands to a line that runs: ``battery-sorting command stop``."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Annotated, Any

import typer

from battery_sorting.cli.supervisor import remove_leaked_shared_memory
from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.core.packml import LineCommandId, LineStateId
from battery_sorting.core.settings import find_shared

PATIENCE_S = 3.0
"""For the line to be found, and as long again for its answer."""
END_S = 1.0

NAMES = tuple(str(command) for command in LineCommandId if command is not LineCommandId.UNKNOWN)


class LineCommandError(BatterySortingError):
    """The line did not answer, or has refused the command."""

    code = "line_command"


def command(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")],
    line: Annotated[str, typer.Option("--line", help="Name of the line, as in its site file.")] = "belt",
    reason: Annotated[str, typer.Option("--reason", help="Why; goes into the ledger.")] = "",
) -> None:
    """Give a line that runs a command.

    After an emergency stop, a lost encoder or 'abort', the line is started again by clear, reset and start, each
    when the one before has taken effect. It is looked for in the ROS domain of this shell (ROS_DOMAIN_ID).
    """
    if name not in NAMES:
        raise ConfigurationError(f"command {name}", [f"is none of {', '.join(NAMES)}"])
    state = send_command(name, line, reason)
    typer.echo(f"line {line} is {state}")


def send_command(name: str, line: str, reason: str = "") -> LineStateId:
    """Give ``line`` the command ``name``; returns the state of the line after it.

    Raises:
        LineCommandError: No such line answers within `PATIENCE_S`, or it refuses the command; the message says why.
    """
    answer = _ask_in_a_process(name, line, reason)
    if answer is None:
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        raise LineCommandError(
            f"no line '{line}' answers within {PATIENCE_S:g} s in ROS domain {domain}: check that the cell runs "
            "and what its line is called (--line), and set ROS_DOMAIN_ID to the cell's"
        )
    accepted, state, message = answer
    if not accepted:
        raise LineCommandError(message)
    return LineStateId(state)


def _ask_in_a_process(name: str, line: str, reason: str) -> tuple[bool, int, str] | None:
    """What the line answers: accepted, state, message; None if nothing in time.

    The middleware lives in a process of its own: when it is closed early it was seen to hang with the GIL held.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    operator = context.Process(target=_ask, args=(sender, name, line, reason), daemon=True)
    operator.start()
    sender.close()
    grace_s = 0.0
    try:
        answer: tuple[bool, int, str] | None = receiver.recv()
        grace_s = END_S if answer else 0.0
        return answer
    except EOFError:
        raise LineCommandError("the line could not be asked: see above") from None
    finally:
        operator.join(grace_s)
        operator.kill()
        operator.join()
        receiver.close()
        remove_leaked_shared_memory()


def _ask(sender: Connection, name: str, line: str, reason: str) -> None:
    profile = find_shared("config/fastdds.xml")
    if profile is not None:  # nodes find each other sooner with it
        os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(profile))

    import rclpy

    from battery_sorting.srv import LineCommand

    rclpy.init()
    node = rclpy.create_node("operator", namespace=line, enable_rosout=False, start_parameter_services=False)
    client = node.create_client(LineCommand, "line_controller/command")
    answer = _call(rclpy, node, client, LineCommand.Request(command=LineCommandId[name.upper()], reason=reason))
    sender.send(answer and (answer.accepted, answer.state, answer.message))
    sender.close()
    rclpy.shutdown()


def _call(rclpy: Any, node: Any, client: Any, request: Any) -> Any:
    """The answer, None if there is none in time."""
    deadline = time.monotonic() + PATIENCE_S
    while not client.service_is_ready():
        if time.monotonic() > deadline:
            return None
        rclpy.spin_once(node, timeout_sec=0.02)
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=PATIENCE_S)
    return future.result() if future.done() else None

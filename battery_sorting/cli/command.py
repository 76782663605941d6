"""Commands to a line that runs: ``battery-sorting command stop``."""

from __future__ import annotations

import getpass
import os
from typing import Annotated

import typer

from battery_sorting.cli._output import say
from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.core.types import LineStateId
from battery_sorting.packml.machine import LineCommandId
from battery_sorting.runtime.ask import PATIENCE_S, ask

NAMES = tuple(str(command) for command in LineCommandId if command is not LineCommandId.UNKNOWN)


class LineCommandError(BatterySortingError):
    """The line did not answer, or has refused the command."""

    code = "line_command"


def command(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")],
    bin_: Annotated[str, typer.Argument(metavar="[BIN]", help="Of 'emptied': the bin or outlet, or 'trays'.")] = "",
    line: Annotated[str, typer.Option("--line", help="Name of the line, as in its site file.")] = "belt",
    reason: Annotated[str, typer.Option("--reason", help="Why; goes into the ledger.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who orders it; your log-in name if left out.")] = "",
) -> None:
    """Give a line that runs a command.

    After an emergency stop, a lost encoder or 'abort', the line is started again by clear, reset and start, each
    when the one before has taken effect. A bin that you have emptied is told by 'emptied BIN', whether it was full
    or not; a line that is suspended because it is full goes on by unsuspend after that. The line is looked for in
    the ROS domain of this shell (ROS_DOMAIN_ID).
    """
    if name not in NAMES:
        raise ConfigurationError(f"command {name}", [f"is none of {', '.join(NAMES)}"])
    if (name == str(LineCommandId.EMPTIED)) != bool(bin_):
        problem = f"belongs to 'emptied' alone, not to '{name}'" if bin_ else "is missing: name what was emptied"
        raise ConfigurationError(f"command {name}", [f"BIN {problem}"])
    state = send_command(name, line, reason, by, bin_)
    say(f"line {line} is {state}")


def send_command(name: str, line: str, reason: str = "", by: str = "", bin_: str = "") -> LineStateId:
    """Give ``line`` the command ``name``, of ``bin_`` if it is emptied; returns the state of the line after it.

    It is given in the name of ``by``; empty: of who is logged in.

    Raises:
        LineCommandError: There is no such line, or it refuses the command; the message says why.
        AskError: The line does not answer.
    """
    request = {
        "command": int(LineCommandId[name.upper()]),
        "by": by or _login_name(),
        "reason": reason,
        "bin": bin_,
    }
    answer = ask(line, "line_controller/command", "LineCommand", request)
    if answer is None:
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        raise LineCommandError(
            f"no line '{line}' answers within {PATIENCE_S:g} s in ROS domain {domain}: check that the cell runs "
            "and what its line is called (--line), and set ROS_DOMAIN_ID to the cell's"
        )
    if not answer["accepted"]:
        raise LineCommandError(answer["message"])
    return LineStateId(answer["state"])


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"user {os.getuid()}"

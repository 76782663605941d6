"""PackML (ANSI/ISA-TR88.00.02): states of the line and the commands that each of them allows.

Acting states (Starting, Holding, ...) end by themselves: whoever does the work reports it with `PackML.complete`.
No clock, no threads; the caller serialises its calls.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from statemachine import State, StateMachine
from statemachine.exceptions import TransitionNotAllowed

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.types import LineStateId


class LineCommandId(IntEnum):
    """Commands to the line. The values are those of LineCommand.srv."""

    UNKNOWN = 0
    RESET = 1
    START = 2
    STOP = 3
    HOLD = 4
    UNHOLD = 5
    SUSPEND = 6
    UNSUSPEND = 7
    ABORT = 8
    CLEAR = 9
    COMPLETE = 10
    EMPTIED = 11
    """Of this line, not of the standard: a person has emptied a bin. Changes no state."""

    def __str__(self) -> str:
        return self.name.lower()


ACTING = frozenset(
    {
        LineStateId.CLEARING,
        LineStateId.STARTING,
        LineStateId.STOPPING,
        LineStateId.ABORTING,
        LineStateId.HOLDING,
        LineStateId.UNHOLDING,
        LineStateId.SUSPENDING,
        LineStateId.UNSUSPENDING,
        LineStateId.RESETTING,
        LineStateId.COMPLETING,
    }
)
"""States which end by themselves. Execute can end too (the job is done), but it is work, not a passage."""


class CommandNotAllowedError(BatterySortingError):
    """The line can't take this command in its present state."""

    code = "command_not_allowed"

    def __init__(self, command: str, state: LineStateId, allowed: list[LineCommandId]) -> None:
        self.command = command
        self.state = state
        self.allowed = allowed
        names = ", ".join(str(a) for a in allowed) or "none"
        super().__init__(f"'{command}' is not allowed while the line is {state}; allowed are: {names}")


class _Machine(StateMachine):
    """The diagram of the standard. Events are named like the commands; ``state_complete`` is the standard's SC."""

    stopped = State(initial=True, value=LineStateId.STOPPED)
    clearing = State(value=LineStateId.CLEARING)
    starting = State(value=LineStateId.STARTING)
    idle = State(value=LineStateId.IDLE)
    suspended = State(value=LineStateId.SUSPENDED)
    executing = State(value=LineStateId.EXECUTE)
    stopping = State(value=LineStateId.STOPPING)
    aborting = State(value=LineStateId.ABORTING)
    aborted = State(value=LineStateId.ABORTED)
    holding = State(value=LineStateId.HOLDING)
    held = State(value=LineStateId.HELD)
    unholding = State(value=LineStateId.UNHOLDING)
    suspending = State(value=LineStateId.SUSPENDING)
    unsuspending = State(value=LineStateId.UNSUSPENDING)
    resetting = State(value=LineStateId.RESETTING)
    completing = State(value=LineStateId.COMPLETING)
    completed = State(value=LineStateId.COMPLETE)

    reset = resetting.from_(stopped, completed)
    start = idle.to(starting)
    # The standard draws Hold from Execute and offers the other states as an extension. All are taken: a fault may
    # come up in any of them.
    hold = holding.from_(executing, starting, unholding, suspending, suspended, unsuspending)
    unhold = held.to(unholding)
    suspend = executing.to(suspending)
    unsuspend = suspended.to(unsuspending)
    complete = completing.from_(executing, held, suspended)
    clear = aborted.to(clearing)
    stop = stopping.from_(
        *(resetting, idle, starting, executing, completing, completed),
        *(holding, held, unholding, suspending, suspended, unsuspending),
    )
    abort = aborting.from_(
        *(resetting, idle, starting, executing, completing, completed),
        *(holding, held, unholding, suspending, suspended, unsuspending),
        *(stopping, stopped, clearing),
    )
    state_complete = (
        clearing.to(stopped)
        | resetting.to(idle)
        | starting.to(executing)
        | executing.to(completing)
        | completing.to(completed)
        | holding.to(held)
        | unholding.to(executing)
        | suspending.to(suspended)
        | unsuspending.to(executing)
        | stopping.to(stopped)
        | aborting.to(aborted)
    )


class PackML:
    """State of the line.

    Args:
        state: State to begin in, any of the 17.
        on_change: Called with the old and the new state after each transition.
    """

    def __init__(
        self,
        state: LineStateId = LineStateId.STOPPED,
        on_change: Callable[[LineStateId, LineStateId], None] | None = None,
    ) -> None:
        if state is LineStateId.UNKNOWN:
            raise ValueError("UNKNOWN is no state to begin in: use STOPPED or ABORTED")
        self._machine: Any = _Machine(start_value=state)
        self._on_change = on_change

    @property
    def state(self) -> LineStateId:
        """The present state."""
        return LineStateId(self._machine.current_state_value)

    @property
    def acting(self) -> bool:
        """Whether the state ends by itself, by `complete`."""
        return self.state in ACTING

    def allowed_commands(self) -> list[LineCommandId]:
        """Commands that the line would take now."""
        events = {event.id for event in self._machine.allowed_events}
        return [command for command in LineCommandId if str(command) in events]

    def command(self, command: str | LineCommandId) -> LineStateId:
        """Take a command (``"start"`` or its number) and return the new state.

        Raises:
            CommandNotAllowedError: The present state doesn't allow it, or there is no such command.
        """
        name = str(LineCommandId(command)) if isinstance(command, int) and command in _NUMBERS else str(command)
        if name not in _COMMANDS:
            raise CommandNotAllowedError(name, self.state, self.allowed_commands())
        return self._send(name)

    def complete(self) -> LineStateId:
        """The work of the present state is done (SC). Returns the new state.

        Raises:
            CommandNotAllowedError: The present state is a waiting one (Idle, Held, ...).
        """
        return self._send("state_complete")

    def _send(self, event: str) -> LineStateId:
        before = self.state
        try:
            self._machine.send(event)
        except TransitionNotAllowed as error:
            raise CommandNotAllowedError(event, before, self.allowed_commands()) from error
        if self._on_change is not None:
            self._on_change(before, self.state)
        return self.state


_NUMBERS = {int(command) for command in LineCommandId}
_COMMANDS = {str(command) for command in LineCommandId} - {"unknown", "emptied"}

"""How a line controller that was started goes on: what persons have ordered, and what the ledger's end says.

A person's hold, stop or abort outlives every crash and every new start, and only a person lifts it. What was
running goes on by itself after a crash of its controller alone (the same run of the line); after a new start of
everything a line on real hardware waits for a person. Deterministic, no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from battery_sorting.core.types import LineStateId
from battery_sorting.ledger.events import Commanded, LineStateChanged

S = LineStateId

SYSTEM = "system:"
"""Begin of the name of whoever is no person: what the line does by itself."""

_ORDERS_TO_REST = {"hold", "stop", "abort", "suspend", "complete"}
_LIFT = {"start", "unhold", "unsuspend"}
"""Commands after which the line moves: whoever gives one has lifted every order to rest."""

_ABORTED = {S.ABORTING, S.ABORTED, S.CLEARING}
_HELD = {S.HOLDING, S.HELD}
_SUSPENDED = {S.SUSPENDING, S.SUSPENDED}
_RUNNING = {S.STARTING, S.EXECUTE, S.UNHOLDING, S.UNSUSPENDING}
_COMING_UP = {S.STOPPED, S.RESETTING, S.IDLE}


@dataclass(frozen=True, slots=True)
class RestOrder:
    """A person's order to rest that nobody has lifted."""

    command: str
    by: str
    reason: str

    def __str__(self) -> str:
        return f"{self.command} by {self.by}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Restart:
    """How a controller begins.

    Attributes:
        state: PackML state in which it begins.
        auto_start: Whether it starts without a command as soon as everything is ready.
        reason: Why it is in that state.
        held_by_fault: It was held by a fault, so it goes on when that is gone.
        latched_faults: What a person must have seen to before (code → text).
        deactivated: Nodes that a person has deactivated.
    """

    state: LineStateId = S.STOPPED
    auto_start: bool = False
    reason: str = "started"
    held_by_fault: bool = False
    latched_faults: Mapping[str, str] = field(default_factory=dict)
    deactivated: frozenset[str] = frozenset()


def standing_order(commands: Iterable[Commanded]) -> RestOrder | None:
    """The order to rest that stands after ``commands`` (of the ledger, oldest first), if any does.

    An order to rest counts even where it was refused: who stops a line that comes up does not want it to start.
    """
    standing: RestOrder | None = None
    for one in commands:
        if one.by.startswith(SYSTEM):
            continue
        if one.command in _ORDERS_TO_REST:
            standing = RestOrder(one.command, one.by, one.reason or "")
        elif one.command in _LIFT and one.accepted is not False:
            standing = None
    return standing


def deactivated_nodes(commands: Iterable[Commanded]) -> frozenset[str]:
    """Nodes that were deactivated and not activated again, after ``commands`` (oldest first)."""
    found: set[str] = set()
    for one in commands:
        if one.node and one.command == "deactivate":
            found.add(one.node)
        elif one.node and one.command == "activate":
            found.discard(one.node)
    return frozenset(found)


def restart(
    last_state: LineStateChanged | None,
    commands: Iterable[Commanded],
    run_id: str,
    *,
    cut_off: bool,
    wanted: bool,
    unreadable: str = "",
) -> Restart:
    """How a controller begins.

    Args:
        last_state: The last state of the line in the ledger; None if there is none.
        commands: The commands to the line in the ledger, oldest first.
        run_id: Of the start of the line to which the controller belongs; empty: it was started by itself.
        cut_off: Whether the last shift was not ended, as after a crash.
        wanted: Whether the site starts by itself when it is started anew.
        unreadable: What of the commands and states on record can't be read. It may have been a person's order to
            rest, so the line waits for a person then.
    """
    how = _restart(last_state, commands, run_id, cut_off=cut_off, wanted=wanted)
    if not unreadable or not how.auto_start:
        return how
    waits = f"{unreadable}; that may have been an order to rest: waits for 'reset' and 'start'"
    return replace(how, auto_start=False, reason=waits)


def _restart(
    last_state: LineStateChanged | None,
    commands: Iterable[Commanded],
    run_id: str,
    *,
    cut_off: bool,
    wanted: bool,
) -> Restart:
    known = list(commands)
    order, deactivated = standing_order(known), deactivated_nodes(known)
    end = last_state or LineStateChanged()
    state = end.state or S.STOPPED
    same_run = cut_off and bool(run_id) and end.run_id == run_id
    reason = end.reason
    if cut_off and state in _ABORTED:
        return Restart(S.ABORTED, reason=reason or "aborted", deactivated=deactivated)
    if same_run:
        return _within_a_run(state, end, order, reason, deactivated)
    if order is not None:
        waits = f"{order}; it stands until a person gives 'reset' and 'start'"
        return Restart(reason=waits, deactivated=deactivated)
    waits = "started" if wanted else "started anew: waits for 'reset' and 'start'"
    return Restart(auto_start=wanted, reason=waits, deactivated=deactivated)


def _within_a_run(
    state: LineStateId,
    end: LineStateChanged,
    order: RestOrder | None,
    reason: str,
    deactivated: frozenset[str],
) -> Restart:
    """After a crash of the controller: the line rests where it rested, and runs where it ran."""
    latched = {code: text or "" for code, text in end.latched.items()}
    if state in _HELD:
        by_fault = order is None and end.by_fault
        return Restart(
            S.HOLDING,
            reason=str(order) if order is not None else reason,
            held_by_fault=by_fault,
            latched_faults=latched,
            deactivated=deactivated,
        )
    if state in _SUSPENDED:
        return Restart(S.SUSPENDING, reason=str(order) if order is not None else reason, deactivated=deactivated)
    if order is not None:
        return Restart(reason=str(order), deactivated=deactivated)
    if state in _RUNNING:
        return Restart(auto_start=True, reason=reason, latched_faults=latched, deactivated=deactivated)
    coming_up = state in _COMING_UP and end.auto_start
    return Restart(auto_start=coming_up, reason=reason, deactivated=deactivated)

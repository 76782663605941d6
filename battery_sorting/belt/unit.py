"""Runs the cell as a whole: start-up order of the nodes, PackML states, what the belt has to do.

`BeltUnit` knows no clock and no I/O: it is told what happens and returns what to do. `tick` reconciles: it
compares what should be with what is and repeats its orders until they took, so a lost request is no special case.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from battery_sorting.core.types import BeltState, LineStateId
from battery_sorting.packml.fleet import Transition
from battery_sorting.packml.machine import CommandNotAllowedError
from battery_sorting.packml.unit import LineUnit, StateChanged

S = LineStateId


@dataclass(frozen=True, slots=True)
class MoveBelt:
    """Order to run the belt at ``speed_mps``, or to stop it when that is 0."""

    speed_mps: float


@dataclass(frozen=True, slots=True)
class ResetPlc:
    """Order to acknowledge the faults of the PLC."""


@dataclass(frozen=True, slots=True)
class ClearQueue:
    """Order to cancel all ejections that have not fired."""


CellAction = MoveBelt | ResetPlc | ClearQueue | Transition | StateChanged


_RUNNING = {S.STARTING, S.EXECUTE, S.UNHOLDING, S.UNSUSPENDING}
"""States in which the belt shall run."""

_COMING_TO_REST = {S.HOLDING, S.SUSPENDING, S.STOPPING, S.ABORTING, S.COMPLETING}
_ABORTED = {S.ABORTING, S.ABORTED, S.CLEARING}
_NO_EJECTION = _ABORTED | {S.STOPPED, S.RESETTING, S.IDLE}


@dataclass
class BeltUnit(LineUnit):
    """PackML unit of the belt line.

    Attributes:
        speed_mps: Speed of the belt in production (m/s).
        belt_state_s: Without a state of the belt for so long, the PLC counts as lost (s).
    """

    speed_mps: float
    belt_state_s: float = field(default=0.5, kw_only=True)
    _belt: BeltState = field(
        default_factory=lambda: BeltState(stamp=float("-inf"), error="no belt state yet"), init=False
    )
    _belt_seen_at: float = field(default=float("-inf"), init=False)

    def may_eject(self, now: float) -> bool:
        """Whether an ejection may be ordered now."""
        return (
            self.state not in _NO_EJECTION
            and self._fleet.ready("ejector", now)
            and now - self._belt_seen_at <= self.belt_state_s
            and self._belt.connected
            and self._belt.encoder_ok
            and not self._belt.watchdog_tripped
            and not self._belt.emergency_stop
        )

    def belt(self, state: BeltState, now: float) -> None:
        """What the PLC says."""
        self._belt = state
        self._belt_seen_at = now

    def problems(self, now: float) -> dict[str, str]:
        """What keeps the line from running: code → text."""
        found = super().problems(now)
        belt = self._belt
        if now - self._belt_seen_at > self.belt_state_s:
            found["belt_state"] = "no state of the belt arrives"
        elif not belt.connected:
            found["plc"] = belt.error or "the PLC does not answer"
        else:
            if belt.emergency_stop:
                found["emergency_stop"] = "emergency stop"
            if belt.watchdog_tripped:
                found["watchdog"] = "the PLC's watchdog has tripped"
            if not belt.encoder_ok:
                found["encoder"] = belt.error or "the encoder does not count"
        return found

    def tick(self, now: float) -> list[CellAction]:
        """Moves on; call it at about 20 Hz."""
        before, problems = self.state, self.problems(now)
        actions: list[CellAction] = [*self._fleet.bring_up(now)]
        if self.state not in _ABORTED and ("emergency_stop" in problems or "encoder" in problems):
            self._abort(problems.get("emergency_stop") or problems["encoder"])
        elif (self.state is S.EXECUTE and problems) or (self.state in _RUNNING and self.latched_faults):
            self._held_by_fault = True
            self._do("hold", "; ".join(problems.values()))
        elif self.state is S.EXECUTE and self.full:
            self._do("suspend", f"full: {', '.join(self.full)}")
        else:
            actions += self._progress(problems, now)
        for passage in {before, self.state} & {S.ABORTING, S.CLEARING}:
            if self._fleet.ready("ejector", now) and self._patience.due(f"clear queue while {passage}", now):
                actions.append(ClearQueue())
        actions += self._drive_belt(problems, now)
        return [*actions, *self._changes()]

    def _progress(self, problems: dict[str, str], now: float) -> list[CellAction]:
        """Finishes acting states and takes the steps that need no operator."""
        state, belt = self.state, self._belt
        at_rest = not belt.connected or abs(belt.speed_mps) < 0.005
        at_speed = belt.running and abs(belt.speed_mps - self.speed_mps) < 0.05 * self.speed_mps
        if state in _COMING_TO_REST and at_rest:
            self._complete()
        elif state in _RUNNING and state is not S.EXECUTE and at_speed and not problems:
            if state is S.STARTING:
                self.auto_start = False
            self._complete()
        elif state is S.RESETTING:
            self._complete()
        elif state is S.CLEARING:
            # An ejection of before must not outlive the fault: without the ejector its queue can't be cleared.
            causes = {"emergency_stop", "watchdog", "encoder", "plc", "belt_state", "node_ejector"}
            if not causes & problems.keys():
                self._complete()
            elif self._patience.due("reset", now):
                return [ResetPlc()]
        elif set(problems) == {"watchdog"} and state not in _ABORTED and self._patience.due("reset", now):
            return [ResetPlc()]
        elif not problems:
            self._take_up()
        return []

    def _drive_belt(self, problems: dict[str, str], now: float) -> list[CellAction]:
        belt = self._belt
        if not belt.connected or "belt_state" in problems or not self._fleet.ready("conveyor", now):
            return []
        run = self.state in _RUNNING and not problems
        speed = self.speed_mps if run else 0.0
        as_ordered = belt.running == run and (not run or abs(belt.speed_setpoint_mps - speed) < 1e-3)
        if as_ordered or not self._patience.due(f"belt {speed}", now):
            return []
        return [MoveBelt(speed)]


__all__ = [
    "BeltUnit",
    "CellAction",
    "ClearQueue",
    "CommandNotAllowedError",
    "MoveBelt",
    "ResetPlc",
]

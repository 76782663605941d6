"""What the line takes for an event of its belt: the gate in front of `BeltLine`.

An event must be of the run of the PLC that the belt's state names, and stand where the belt can have carried it.
Topics are delivered independently of one another, so what does not fit yet waits for the next states of the belt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from battery_sorting.core.types import (
    BeltState,
    Detection,
    EjectReport,
    ExitDetection,
    TypeResult,
    count_difference,
    make_battery_id,
)

WAIT_S = 2.0
"""So long an event may wait for a state of the belt that it fits to (s)."""
MAX_WAITING = 256
COUNTED_AHEAD = 256
"""A report is this far ahead of the totals of the belt's last state at most."""
AHEAD_MM = 2_000.0
"""The belt's state is this far behind at most (mm)."""
BEHIND_MM = 100_000.0
"""Events are delivered again after a restart of a node: 64 batteries with more than a metre between them (mm)."""
BOOTS_KEPT = 8
STEADY_S = 0.5
"""Where the belt's states come steadily, one of another run of the PLC, or of a place far off, is none (s)."""
JUMP_MM = 10_000.0
"""No belt goes so far within `STEADY_S` (mm)."""

Gated = Detection | TypeResult | EjectReport | ExitDetection


@dataclass
class EventGate:
    """Lets events of the belt through and counts the others.

    Args:
        known: Ids of batteries that the line knows already: the runs of the PLC that they name are known with them.

    Attributes:
        refused: How many events were not let through.
    """

    known: Iterable[str] = ()
    refused: int = field(default=0, init=False)
    _boots: dict[str, None] = field(default_factory=dict, init=False)  # as ids begin; the last ones
    _belt: BeltState | None = field(default=None, init=False)
    _belt_at: float = field(default=float("-inf"), init=False)
    _waiting: deque[tuple[float, Gated]] = field(default_factory=deque, init=False)

    def __post_init__(self) -> None:
        for battery_id in self.known:
            self._learn(_boot_of(battery_id))

    def event(self, event: Gated, now: float) -> list[Gated]:
        """Takes an event at time ``now`` (s) and returns what may go on now."""
        if self._fits(event):
            return [event]
        self._waiting.append((now, event))
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self.refused += 1
        return []

    def takes_belt(self, state: BeltState, now: float) -> bool:
        """Whether a state can be one of the belt at time ``now`` (s). Only such ones go to `belt` and to the line.

        A PLC that restarts is away for longer than `STEADY_S`, or its first states are left out for so long.
        """
        last = self._belt
        if last is not None and now - self._belt_at < STEADY_S:
            jump_mm = count_difference(state.encoder_count, last.encoder_count) * last.mm_per_count
            if state.boot_id != last.boot_id or abs(jump_mm) > JUMP_MM:
                self.refused += 1
                return False
        return True

    def belt(self, state: BeltState, now: float) -> list[Gated]:
        """Takes a state of the belt and returns what has waited for it, in its order."""
        if state.boot_id:
            self._belt, self._belt_at = state, now
            self._learn(_boot_of(make_battery_id(state.boot_id, 0)))
        waiting, self._waiting = self._waiting, deque()
        let_in = []
        for since, event in waiting:
            if self._fits(event):
                let_in.append(event)
            elif now - since > WAIT_S:
                self.refused += 1
            else:
                self._waiting.append((since, event))
        return let_in

    def _learn(self, boot: str) -> None:
        self._boots.pop(boot, None)
        self._boots[boot] = None
        while len(self._boots) > BOOTS_KEPT:
            del self._boots[next(iter(self._boots))]

    def _fits(self, event: Gated) -> bool:
        if isinstance(event, ExitDetection):
            return self._is_exit(event)
        boot = _boot_of(event.battery_id)
        if boot not in self._boots:
            return False
        if isinstance(event, EjectReport):
            return self._can_have_counted(boot, event.ack_total, "ack_total")
        if not isinstance(event, Detection):
            return True
        if event.battery_id != make_battery_id(int(boot, 16), event.trigger_count) or self._belt is None:
            return False
        of_this_run = boot == _boot_of(make_battery_id(self._belt.boot_id, 0))
        return not of_this_run or self._is_near(event.encoder_count)

    def _is_exit(self, event: ExitDetection) -> bool:
        """Of a known run of the PLC; of this one with a number that it can have counted, however long ago."""
        belt = self._belt
        if belt is None or event.exit_count <= 0:
            return False
        boot = _boot_of(make_battery_id(event.boot_id or belt.boot_id, 0))
        if boot not in self._boots or not self._can_have_counted(boot, event.exit_count, "exit_total"):
            return False
        of_this_run = event.boot_id in {0, belt.boot_id}
        return not of_this_run or event.exit_count <= belt.exit_total or self._is_near(event.encoder_count)

    def _can_have_counted(self, boot: str, number: int, total: str) -> bool:
        """Whether a PLC that has told this ``total`` lately can be at ``number`` by now."""
        belt = self._belt
        if belt is None or boot != _boot_of(make_battery_id(belt.boot_id, 0)) or not getattr(belt, total):
            return True
        return number <= int(getattr(belt, total)) + COUNTED_AHEAD

    def _is_near(self, encoder_count: int) -> bool:
        """Whether the belt can have been at this count lately."""
        if self._belt is None:
            return False
        travel_mm = count_difference(self._belt.encoder_count, encoder_count) * self._belt.mm_per_count
        return -AHEAD_MM <= travel_mm <= BEHIND_MM


def _boot_of(battery_id: str) -> str:
    """The run of the PLC that an id names; empty if it is no id."""
    boot, dash, number = battery_id.partition("-")
    well_formed = len(boot) == 8 and set(boot) <= set("0123456789abcdef") and dash and number.isdecimal()
    return boot if well_formed else ""

"""Orders of `ev.flow.Flow` that wait for their node, or are being carried out.

`Orders` is deterministic. An order that can't be given now (its node is away or busy) waits and is given again.
What was ordered of a node that died is reported as unknown, never as done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from battery_sorting.ev.flow import FlowEvent, Grade, Move, MoveUnknown, MoveWithdrawn, Regroup, Test, TestLost

Order = Move | Test | Grade | Regroup

AGAIN_S = 0.5
"""After a refusal, orders of its kind wait for so long."""
SERVED_BY: dict[type, str] = {Move: "robot", Test: "tester", Grade: "grader", Regroup: "grader"}


@dataclass(frozen=True, slots=True)
class OrderRefused:
    """The node of an order can't take it now, which says nothing of the cell."""

    order: Order


@dataclass(frozen=True, slots=True)
class OrderEnded:
    """An order is over, and this came of it."""

    order: Order
    outcome: FlowEvent


class Orders:
    """What is outstanding."""

    def __init__(self) -> None:
        self._waiting: list[Order] = []
        self._running: list[Order] = []
        self._refused_at: dict[type, float] = {}

    def give(self, order: Order) -> None:
        """Take an order; it waits until it is `due`."""
        self._waiting.append(order)

    def due(self, now: float, *, moving: bool) -> tuple[list[Order], list[MoveWithdrawn]]:
        """The orders that are to be given now, which count as given; and the moves that never will be.

        Args:
            now: The time (s).
            moving: Whether the line moves. If not, no test is begun, and moves that nobody has taken are withdrawn:
                what was ordered before a stop must not be done after it.
        """
        waiting, self._waiting = self._waiting, []
        withdrawn = [MoveWithdrawn(it.battery_id) for it in waiting if isinstance(it, Move) and not moving]
        due: list[Order] = []
        for order in waiting:
            if isinstance(order, Move) and not moving:
                continue
            refused = now - self._refused_at.get(type(order), float("-inf")) < AGAIN_S
            later = refused or (isinstance(order, Test) and not moving)
            (self._waiting if later else due).append(order)
        self._running += due
        return due, withdrawn

    def end(self, order: Order) -> bool:
        """An order is over. Returns whether it was still expected: its node may have died since."""
        if order not in self._running:
            return False
        self._running.remove(order)
        return True

    def wait(self, order: Order) -> None:
        """An order was not carried out, and waits again."""
        if self.end(order):
            self._waiting.append(order)

    def refused(self, order: Order, now: float) -> None:
        """An order was not taken: it is given again after a moment."""
        if self.end(order):
            self._refused_at[type(order)] = now
            self._waiting.append(order)

    def lose(self, node: str) -> Iterable[FlowEvent]:
        """A node is gone: nobody will report of what it was told. Returns what is known of that."""
        lost = [order for order in self._running if SERVED_BY[type(order)] == node]
        self._running = [order for order in self._running if order not in lost]
        outcomes: list[FlowEvent] = []
        for order in lost:
            if isinstance(order, Move):
                outcomes.append(MoveUnknown(order.battery_id))
            elif isinstance(order, Test):
                outcomes.append(TestLost(order.battery_id))
            else:
                self._waiting.append(order)  # grading changes nothing: it may be asked for twice
        return outcomes

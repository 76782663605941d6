"""Carries out the orders of `ev.flow.Flow` through the actions and services of robot, tester and grader.

An order that can't be given now (its node is away or busy) waits and is given again. What was ordered of a node
that died is reported as unknown, never as done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.action.client import ActionClient
from rclpy.node import Node

from battery_sorting.action import MoveCell, RegroupCells, TestCell
from battery_sorting.core.clock import Clock
from battery_sorting.ev.flow import (
    EMPTY,
    OCCUPIED,
    FlowEvent,
    Grade,
    Graded,
    Move,
    MoveEnded,
    MoveUnknown,
    MoveWithdrawn,
    Regroup,
    Regrouped,
    Test,
    TestEnded,
    TestLost,
    TestNotSafe,
)
from battery_sorting.msg import CellMeasurement
from battery_sorting.ros import convert
from battery_sorting.srv import GradeCells

Order = Move | Test | Grade | Regroup

_MOVE_ERRORS = {MoveCell.Result.EMPTY: EMPTY, MoveCell.Result.OCCUPIED: OCCUPIED}
_REFUSED = {
    Move: MoveCell.Result.REFUSED,
    Test: TestCell.Result.NOT_READY,
    Regroup: RegroupCells.Result.NOT_READY,
}
"""Error code of a goal that was not taken."""
AGAIN_S = 0.5
"""After a refusal, orders of its kind wait for so long."""
TOLD_S = 10.0
_SERVED_BY = {Move: "robot", Test: "tester", Grade: "grader", Regroup: "grader"}


class EvOrders:
    """Orders that are being carried out.

    Args:
        node: The line's controller.
        tell: Takes what came of an order; called by the node's executor.
        clock: By which an order that was refused waits.
    """

    def __init__(self, node: Node, tell: Callable[[FlowEvent], None], clock: Clock) -> None:
        self._node = node
        self._clock = clock
        self._tell = tell
        self._waiting: list[Order] = []
        self._running: list[Order] = []
        self._refused_at: dict[type, float] = {}
        self._move = ActionClient(node, MoveCell, "move_cell")
        self._test = ActionClient(node, TestCell, "test_cell")
        self._regroup = ActionClient(node, RegroupCells, "regroup_cells")
        self._grade = node.create_client(GradeCells, "grader/grade_cells")

    def give(self, order: Order) -> None:
        """Take an order; `send` gives it as soon as that can be."""
        self._waiting.append(order)

    def send(self, moving: bool = True) -> None:
        """Give the orders that wait. Call it only when their records stand in the ledger.

        Args:
            moving: Whether the line moves. If not, no test is begun, and moves that nobody has taken are withdrawn:
                what was ordered before a stop must not be done after it.
        """
        waiting, self._waiting = self._waiting, []
        for order in waiting:
            refused_at = self._refused_at.get(type(order), float("-inf"))
            if isinstance(order, Move) and not moving:
                self._tell(MoveWithdrawn(order.battery_id))
                continue
            waits = self._clock() - refused_at < AGAIN_S or (isinstance(order, Test) and not moving)
            if waits or not self._give(order):
                self._waiting.append(order)

    def node_died(self, name: str) -> None:
        """A node is gone: nobody will report of what it was told."""
        lost = [order for order in self._running if _SERVED_BY[type(order)] == name]
        self._running = [order for order in self._running if order not in lost]
        for order in lost:
            if isinstance(order, Move):
                self._tell(MoveUnknown(order.battery_id))
            elif isinstance(order, Test):
                self._tell(TestLost(order.battery_id))
            else:
                self._waiting.append(order)  # grading changes nothing: it may be asked for twice

    # ---- giving ----

    def _give(self, order: Order) -> bool:
        if isinstance(order, Grade):
            return self._ask_for_grade(order)
        client, goal = self._goal_of(order)
        if not client.server_is_ready():
            return False
        self._running.append(order)
        client.send_goal_async(goal).add_done_callback(partial(self._on_answer, order))
        return True

    def _goal_of(self, order: Move | Test | Regroup) -> tuple[ActionClient, Any]:
        if isinstance(order, Move):
            goal = MoveCell.Goal(battery_id=order.battery_id, source=order.source, target=order.target)
            return self._move, goal
        if isinstance(order, Test):
            return self._test, TestCell.Goal(battery_id=order.battery_id, channel=order.channel)
        cells = [measurement_of(name, values) for name, values in order.cells.items()]
        grades = [str(values.get("grade", "")) for values in order.cells.values()]
        return self._regroup, RegroupCells.Goal(cells=cells, grades=grades)

    def _ask_for_grade(self, order: Grade) -> bool:
        if not self._grade.service_is_ready():
            return False
        self._running.append(order)
        request = GradeCells.Request(cells=[measurement_of(order.battery_id, order.measurement)])
        self._grade.call_async(request).add_done_callback(partial(self._on_grade, order))
        return True

    # ---- answers ----

    def _on_answer(self, order: Order, future: Any) -> None:
        handle = future.result()
        if order not in self._running:
            return
        if handle is None or not handle.accepted:
            self._running.remove(order)
            self._wait_after_refusal(order)
            return
        handle.get_result_async().add_done_callback(partial(self._on_result, order))

    def _wait_after_refusal(self, order: Order) -> None:
        """Its node can't take it now, which says nothing of the cell: it is given again after a moment."""
        self._refused_at[type(order)] = self._clock()
        self._waiting.append(order)

    def _on_result(self, order: Order, future: Any) -> None:
        if order not in self._running:
            return
        self._running.remove(order)
        result = future.result().result
        if result.error_code == _REFUSED[type(order)]:
            text = f"{_SERVED_BY[type(order)]} takes no order: {result.error_msg}"
            self._node.get_logger().warning(text, throttle_duration_sec=TOLD_S)
            self._wait_after_refusal(order)
            return
        if isinstance(order, Move):
            if result.error_code == MoveCell.Result.UNKNOWN:
                self._tell(MoveUnknown(order.battery_id, result.error_msg))
                return
            if result.error_code == MoveCell.Result.WITHDRAWN:
                self._tell(MoveWithdrawn(order.battery_id))
                return
            error = _MOVE_ERRORS.get(result.error_code, result.error_msg)
            self._tell(MoveEnded(order.battery_id, result.place, error))
        elif isinstance(order, Test) and result.error_code == TestCell.Result.NOT_SAFE:
            self._tell(TestNotSafe(order.battery_id, result.error_msg))
        elif isinstance(order, Test) and result.error_code == TestCell.Result.EMERGENCY_STOP:
            self._tell(TestLost(order.battery_id, result.code))
        elif isinstance(order, Test) and result.error_code == TestCell.Result.CANCELLED:
            self._tell(TestLost(order.battery_id, "test_cancelled"))  # which says nothing about the cell
        elif isinstance(order, Test):
            measurement = convert.measurement_fields(result.measurement)
            self._tell(TestEnded(order.battery_id, result.outcome or "failed", measurement, result.code))
        elif isinstance(order, Regroup):
            self._on_groups(order, result)

    def _on_groups(self, order: Regroup, result: RegroupCells.Result) -> None:
        if not result.success:
            self._node.get_logger().error(f"regrouping failed: {result.error_msg}")
            self._tell(Regrouped({}, dict.fromkeys(order.cells, "regrouping_failed")))
            return
        names = list(order.cells)
        groups = {name: group for name, group in zip(names, result.group_of, strict=True) if group}
        leftover = {
            name: reason or "left over"
            for name, group, reason in zip(names, result.group_of, result.leftover, strict=True)
            if not group
        }
        self._tell(Regrouped(groups, leftover))

    def _on_grade(self, order: Grade, future: Any) -> None:
        if order not in self._running:
            return
        self._running.remove(order)
        answer = future.result()
        if answer is None or not answer.success:
            self._waiting.append(order)
            return
        [grade] = answer.grades
        payload = {
            "relation_degree": grade.relation_degree,
            "probabilities": list(grade.probabilities),
            "reason": grade.reason,
        }
        self._tell(Graded(order.battery_id, grade.grade, grade.status, payload))


def measurement_of(battery_id: str, values: Any) -> CellMeasurement:
    """CellMeasurement.msg of plain fields, as the ledger keeps them; null is NaN again."""
    message = CellMeasurement(battery_id=battery_id)
    for name, kind in CellMeasurement.get_fields_and_field_types().items():
        if name in values and kind == "double":
            value = values[name]
            setattr(message, name, math.nan if value is None else float(value))
        elif name in values and kind == "string":
            setattr(message, name, str(values[name]))
    return message

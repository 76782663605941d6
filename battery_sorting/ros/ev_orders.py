"""Carries out the orders of `ev.controller` through the actions and services of robot, tester and grader."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.action.client import ActionClient
from rclpy.node import Node

from battery_sorting.action import MoveCell, RegroupCells, TestCell
from battery_sorting.ev.controller import Send
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
from battery_sorting.ev.orders import SERVED_BY, Order, OrderEnded, OrderRefused
from battery_sorting.line.controller import Withheld
from battery_sorting.msg import CellMeasurement
from battery_sorting.ros import convert
from battery_sorting.srv import GradeCells

_MOVE_ERRORS = {MoveCell.Result.EMPTY: EMPTY, MoveCell.Result.OCCUPIED: OCCUPIED}
_REFUSED = {
    Move: MoveCell.Result.REFUSED,
    Test: TestCell.Result.NOT_READY,
    Regroup: RegroupCells.Result.NOT_READY,
}
"""Error code of a goal that was not taken."""
TOLD_S = 10.0


class EvOrders:
    """The clients of robot, tester and grader.

    Args:
        node: The line's controller.
        tell: Takes what came of an order; called by the node's executor.
    """

    def __init__(self, node: Node, tell: Callable[[OrderEnded | OrderRefused | Withheld], Any]) -> None:
        self._node = node
        self._tell = tell
        self._move = ActionClient(node, MoveCell, "move_cell")
        self._test = ActionClient(node, TestCell, "test_cell")
        self._regroup = ActionClient(node, RegroupCells, "regroup_cells")
        self._grade = node.create_client(GradeCells, "grader/grade_cells")

    def send(self, order: Order) -> None:
        """Give an order to its node; where that is away, it is withheld."""
        if isinstance(order, Grade):
            self._ask_for_grade(order)
            return
        client, goal = self._goal_of(order)
        if client.server_is_ready():
            client.send_goal_async(goal).add_done_callback(partial(self._on_answer, order))
        else:
            self._withhold(order)

    def _withhold(self, order: Order) -> None:
        self._tell(Withheld(Send(order)))

    def _goal_of(self, order: Move | Test | Regroup) -> tuple[ActionClient, Any]:
        if isinstance(order, Move):
            goal = MoveCell.Goal(battery_id=order.battery_id, source=order.source, target=order.target)
            return self._move, goal
        if isinstance(order, Test):
            return self._test, TestCell.Goal(battery_id=order.battery_id, channel=order.channel)
        cells = [measurement_of(name, values) for name, values in order.cells.items()]
        grades = [str(values.get("grade", "")) for values in order.cells.values()]
        return self._regroup, RegroupCells.Goal(cells=cells, grades=grades)

    def _ask_for_grade(self, order: Grade) -> None:
        if not self._grade.service_is_ready():
            self._withhold(order)
            return
        request = GradeCells.Request(cells=[measurement_of(order.battery_id, order.measurement)])
        self._grade.call_async(request).add_done_callback(partial(self._on_grade, order))

    # ---- answers ----

    def _on_answer(self, order: Order, future: Any) -> None:
        handle = future.result()
        if handle is None or not handle.accepted:
            self._tell(OrderRefused(order))
        else:
            handle.get_result_async().add_done_callback(partial(self._on_result, order))

    def _on_result(self, order: Order, future: Any) -> None:
        result = future.result().result
        if result.error_code == _REFUSED[type(order)]:
            text = f"{SERVED_BY[type(order)]} takes no order: {result.error_msg}"
            self._node.get_logger().warning(text, throttle_duration_sec=TOLD_S)
            self._tell(OrderRefused(order))
        elif isinstance(order, Move):
            self._tell(OrderEnded(order, _of_move(order, result)))
        elif isinstance(order, Test):
            self._tell(OrderEnded(order, _of_test(order, result)))
        elif isinstance(order, Regroup):
            self._tell(OrderEnded(order, self._groups(order, result)))

    def _groups(self, order: Regroup, result: RegroupCells.Result) -> Regrouped:
        if not result.success:
            self._node.get_logger().error(f"regrouping failed: {result.error_msg}")
            return Regrouped({}, dict.fromkeys(order.cells, "regrouping_failed"))
        names = list(order.cells)
        groups = {name: group for name, group in zip(names, result.group_of, strict=True) if group}
        leftover = {
            name: reason or "left over"
            for name, group, reason in zip(names, result.group_of, result.leftover, strict=True)
            if not group
        }
        return Regrouped(groups, leftover)

    def _on_grade(self, order: Grade, future: Any) -> None:
        answer = future.result()
        if answer is None or not answer.success:
            self._withhold(order)
            return
        [grade] = answer.grades
        payload = {
            "relation_degree": grade.relation_degree,
            "probabilities": list(grade.probabilities),
            "reason": grade.reason,
        }
        self._tell(OrderEnded(order, Graded(order.battery_id, grade.grade, grade.status, payload)))


def _of_move(order: Move, result: MoveCell.Result) -> FlowEvent:
    if result.error_code == MoveCell.Result.UNKNOWN:
        return MoveUnknown(order.battery_id, result.error_msg)
    if result.error_code == MoveCell.Result.WITHDRAWN:
        return MoveWithdrawn(order.battery_id)
    error = _MOVE_ERRORS.get(result.error_code, result.error_msg)
    return MoveEnded(order.battery_id, result.place, error)


def _of_test(order: Test, result: TestCell.Result) -> FlowEvent:
    if result.error_code == TestCell.Result.NOT_SAFE:
        return TestNotSafe(order.battery_id, result.error_msg)
    if result.error_code == TestCell.Result.EMERGENCY_STOP:
        return TestLost(order.battery_id, result.code)
    if result.error_code == TestCell.Result.CANCELLED:
        return TestLost(order.battery_id, "test_cancelled")  # which says nothing about the cell
    measurement = convert.measurement_fields(result.measurement)
    return TestEnded(order.battery_id, result.outcome or "failed", measurement, result.code)


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

"""Actions whose work is done outside of the executor, by devices and threads.

A callback that waited for them would keep the executor from all else, and rclpy's coroutines spin while they wait.
So a goal is taken, worked on elsewhere, and executed (which only hands out its result) when that is here.

ROS has no place for the reason why a goal is rejected. So every goal is accepted, and one that can't be taken is
aborted at once with a result that says why.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from rclpy.utilities import ok

from battery_sorting.ros.node import LineNode

DELIVER_S = 0.02
RESULT_KEPT_S = 60
"""Clients ask for the result when their goal is accepted; rclpy would keep and list it for 15 minutes."""
QUIET_S = 10.0
"""The same refusal is logged again after this time at the earliest."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a goal can't be taken.

    Attributes:
        code: Error code of the action.
        text: What is in the way, and what to do.
        fields: Further fields of the result.
    """

    code: int
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class LongActionServer:
    """An action server that gets its results from other threads.

    Args:
        node: Its node.
        action_type: Type of the action. Its result has ``success``, ``error_code`` and ``error_msg``.
        name: Name of the action.
        why_not: Why a goal can't be taken now; None if it can.
        begin: Starts to work on a goal; called by the executor, must not wait.
        cancelled_codes: Error codes by which the work says that it has ended because that was wanted. With any
            other a goal is aborted, though its end was wanted; one that was done all the same has succeeded.
        cancel: Called when a client wants a goal to end; the work ends it by `finish` all the same.
        may_cancel: Whether a client can have a goal end.
    """

    def __init__(
        self,
        node: LineNode[Any],
        action_type: Any,
        name: str,
        why_not: Callable[[Any], Refusal | None],
        begin: Callable[[Any], None],
        cancelled_codes: Collection[int],
        cancel: Callable[[Any], None] | None = None,
        may_cancel: bool = True,
    ) -> None:
        self._type, self._name = action_type, name
        self._node = node
        self._why_not, self._begin = why_not, begin
        self._cancelled_codes = frozenset(cancelled_codes)
        self._cancel, self._may_cancel = cancel, may_cancel
        self._told = ("", float("-inf"))  # the last refusal that was logged, and when
        self._finished: queue.SimpleQueue[tuple[Any, Any, Callable[[], None] | None]] = queue.SimpleQueue()
        self._server = ActionServer(
            node,
            action_type,
            name,
            execute_callback=self._refuse,
            goal_callback=lambda _: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_goal,
            cancel_callback=self._on_cancel,
            result_timeout=RESULT_KEPT_S,
        )
        node.create_timer(DELIVER_S, self._deliver)

    def finish(self, handle: Any, result: Any, then: Callable[[], None] | None = None) -> None:
        """End a goal with its result; may be called by any thread. ``then`` is called by the executor before."""
        self._finished.put((handle, result, then))

    def feedback(self, handle: Any, message: Any) -> None:
        """Tell the client how far it is, unless the node is inactive; may be called by any thread.

        Nobody's work depends on it, and who works may be making something safe while the middleware is ending: what
        can't be told is not told.
        """
        try:
            if self._node.active and handle.is_active:
                handle.publish_feedback(message)
        except Exception as error:
            if ok():
                self._node.get_logger().warning(f"feedback could not be sent: {error!r}")

    def cancel_requested(self, handle: Any) -> bool:
        """Whether the client wants the goal to end; a goal whose state can't be read any more is to end, too."""
        try:
            return bool(handle.is_cancel_requested)
        except Exception:
            return True

    def _on_goal(self, handle: Any) -> None:
        refusal = self._why_not(handle.request)
        if refusal is None:
            self._begin(handle)
            return
        self._tell(refusal.text)
        result = self._type.Result(success=False, error_code=refusal.code, error_msg=refusal.text, **refusal.fields)
        handle.execute(lambda goal: _abort(goal, result))

    def _tell(self, text: str) -> None:
        told, told_at = self._told
        if text != told or time.monotonic() - told_at > QUIET_S:
            self._told = (text, time.monotonic())
            self._node.get_logger().warning(f"{self._name}: a goal was refused: {text}")

    def _on_cancel(self, handle: Any) -> CancelResponse:
        if not self._may_cancel:
            self._node.get_logger().warning(
                f"{self._name}: what has begun goes on to its end: it can't be cancelled"
            )
            return CancelResponse.REJECT
        if self._cancel is not None:
            self._cancel(handle)
        return CancelResponse.ACCEPT

    def _deliver(self) -> None:
        while not self._finished.empty():
            handle, result, then = self._finished.get()
            if then is not None:
                then()
            handle.execute(lambda goal, result=result: self._end(goal, result))

    def _end(self, handle: Any, result: Any) -> Any:
        if result.success:
            handle.succeed()
        elif handle.is_cancel_requested and result.error_code in self._cancelled_codes:
            handle.canceled()
        else:
            handle.abort()
        return result

    def _refuse(self, handle: Any) -> Any:
        """rclpy asks for a callback of all goals; each brings its own when its result is here."""
        handle.abort()
        return self._type.Result(error_code=self._type.Result.OTHER)


def _abort(handle: Any, result: Any) -> Any:
    handle.abort()
    return result

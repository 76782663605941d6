"""Actions whose work is done outside of the executor, by devices and threads.

A callback that waited for them would keep the executor from all else, and rclpy's coroutines spin while they wait.
So a goal is taken, worked on elsewhere, and executed (which only hands out its result) when that is here.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from rclpy.node import Node

DELIVER_S = 0.02


class LongActionServer:
    """An action server that gets its results from other threads.

    Args:
        node: Its node.
        action_type: Type of the action. Its result has a field ``success`` and an ``error_code``.
        name: Name of the action.
        may_begin: Whether a goal can be taken now.
        begin: Starts to work on a goal; called by the executor, must not wait.
        cancel: Called when a client wants a goal to end; the work ends it by `finish` all the same.
    """

    def __init__(
        self,
        node: Node,
        action_type: Any,
        name: str,
        may_begin: Callable[[Any], bool],
        begin: Callable[[Any], None],
        cancel: Callable[[Any], None] | None = None,
    ) -> None:
        self._type = action_type
        self._cancel = cancel
        self._finished: queue.SimpleQueue[tuple[Any, Any, Callable[[], None] | None]] = queue.SimpleQueue()
        self._server = ActionServer(
            node,
            action_type,
            name,
            execute_callback=self._refuse,
            goal_callback=lambda goal: GoalResponse.ACCEPT if may_begin(goal) else GoalResponse.REJECT,
            handle_accepted_callback=begin,
            cancel_callback=self._on_cancel,
        )
        node.create_timer(DELIVER_S, self._deliver)

    def finish(self, handle: Any, result: Any, then: Callable[[], None] | None = None) -> None:
        """End a goal with its result; may be called by any thread. ``then`` is called by the executor before."""
        self._finished.put((handle, result, then))

    def feedback(self, handle: Any, message: Any) -> None:
        """Tell the client how far it is; does nothing for a goal that is over."""
        if handle.is_active:
            handle.publish_feedback(message)

    def _on_cancel(self, handle: Any) -> CancelResponse:
        if self._cancel is not None:
            self._cancel(handle)
        return CancelResponse.ACCEPT

    def _deliver(self) -> None:
        while not self._finished.empty():
            handle, result, then = self._finished.get()
            if then is not None:
                then()
            handle.execute(lambda goal, result=result: _end(goal, result))

    def _refuse(self, handle: Any) -> Any:
        """rclpy asks for a callback of all goals; each brings its own when its result is here."""
        handle.abort()
        return self._type.Result(error_code=self._type.Result.OTHER)


def _end(handle: Any, result: Any) -> Any:
    if handle.is_cancel_requested:
        handle.canceled()
    elif result.success:
        handle.succeed()
    else:
        handle.abort()
    return result

"""A publisher that is silent while its node is inactive, and loses nothing by it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any


class HeldPublisher:
    """Publishes while ``is_active``. What comes meanwhile waits, and is published in its order after that.

    Any thread may use it. Whoever owns it calls `flush` now and then.
    """

    def __init__(self, publisher: Any, is_active: Callable[[], bool]) -> None:
        self._publisher, self._is_active = publisher, is_active
        self._waiting: deque[Any] = deque()
        self._lock = threading.Lock()  # else a later message could overtake

    def publish(self, message: Any) -> None:
        """Publishes a message, now or later."""
        self._waiting.append(message)
        self.flush()

    def flush(self) -> None:
        """Publishes what waits, if the node is active."""
        with self._lock:
            while self._waiting and self._is_active():
                self._publisher.publish(self._waiting.popleft())

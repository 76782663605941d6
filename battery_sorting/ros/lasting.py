"""Publishers and loggers for threads that must come to their end: what they tell nobody hears must not stop them.

A signal ends the middleware's context at once, while threads beside the executor are still making something safe.
Whatever they publish after that fails, and that is no fault. A text that can't be written is none, either.
"""

from __future__ import annotations

import functools
from typing import Any

from rclpy.publisher import Publisher
from rclpy.utilities import ok

from battery_sorting.core.secrets import without_passwords
from battery_sorting.ros.rclpy_private import RcutilsLogger, log_for_the_caller

LONGEST_TEXT = 500
"""Characters of a reason that goes into a message."""

log_for_the_caller(__file__)


class LastingPublisher(Publisher):  # type: ignore[misc]
    """A publisher that does nothing once the context has ended."""

    def publish(self, msg: Any) -> None:
        """Sends a message, if there is still anybody to send it to."""
        try:
            super().publish(msg)
        except Exception:
            if ok():
                raise

    def get_subscription_count(self) -> int:
        """How many listen; nobody once the context has ended."""
        try:
            return int(super().get_subscription_count())
        except Exception:
            if ok():
                raise
            return 0


class LastingLogger(RcutilsLogger):  # type: ignore[misc]
    """A logger that never raises: neither a full disk nor a text that is no UTF-8 ends who had something to say.

    What it writes never shows a password.
    """

    def log(self, message: str, severity: Any, **kwargs: Any) -> bool:
        """Logs a message; returns whether that could be done."""
        try:
            return bool(super().log(without_passwords(writable(message)), severity, **kwargs))
        except Exception:
            return False


@functools.cache
def lasting_logger(name: str) -> LastingLogger:
    """The logger of this name."""
    return LastingLogger(name)


class LastingVoice:
    """Base of a node, before `rclpy.node.Node`: neither what it publishes nor what it logs ever ends it."""

    def create_publisher(self, *arguments: Any, **options: Any) -> Any:
        """As rclpy's, but what is published after the end of the context raises nothing."""
        return super().create_publisher(  # type: ignore[misc]
            *arguments, **{"publisher_class": LastingPublisher, **options}
        )

    def get_logger(self) -> LastingLogger:
        """As rclpy's, but logging raises nothing."""
        return lasting_logger(super().get_logger().name)  # type: ignore[misc]


def writable(text: str) -> str:
    """``text`` in which what is no character of Unicode (a device may send it) is written as its code."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """``text`` as a message may carry it: what can't be printed is written as its code, and it is not too long."""
    plain = "".join(
        letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1]
        for letter in without_passwords(writable(text))
    )
    return plain if len(plain) <= LONGEST_TEXT else f"{plain[: LONGEST_TEXT - 1]}…"

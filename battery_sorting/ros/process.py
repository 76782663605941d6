"""The process of a node: signals, its end, and what is given up on the way out."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.utilities import ok, try_shutdown

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.ownership import EXIT_CODE, OwnedElsewhereError
from battery_sorting.core.parent import parent_has_died
from battery_sorting.core.secrets import without_passwords


class ParentWatch:
    """Ends the process when the one that started it has died: nobody would stop it otherwise."""

    def __init__(self, node: Node) -> None:
        self._node = node
        node.create_timer(0.5, self._look)

    def _look(self) -> None:
        if parent_has_died():
            self._node.get_logger().error("the process that started this node is gone: leaving")
            raise ExternalShutdownException


def spare_the_collector() -> None:
    """What is here after the start stays: looking through it for garbage costs tens of milliseconds each time."""
    gc.collect()
    gc.freeze()


def run(make_node: Callable[[], Node]) -> None:
    """Runs one node until it is told to end, and leaves the process. The entry point of every node.

    Nodes that it adds to its executor are run and closed with it.
    """
    faulthandler.enable()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt_once)
    rclpy.init()
    executor: Any = SingleThreadedExecutor()
    code = 0
    try:
        executor.add_node(make_node())
        spare_the_collector()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except OwnedElsewhereError as error:
        print(f"[FATAL] {error}", file=sys.stderr)
        code = EXIT_CODE
    except BatterySortingError as error:
        _print(str(error))
        code = 2
    except Exception:
        # A signal ends the context at once: whatever a callback publishes after that fails, and that is no fault.
        # Nor is it one that rclpy makes an error of its own of an interrupt that comes while it takes a message.
        if ok() and not _interrupted.is_set():
            _print(traceback.format_exc())
            code = 1
    finally:
        # Whatever comes now, the process ends: a second signal must not interrupt the clean-up, and destroying
        # the DDS participant, which was seen to hang for ever with the GIL held, is cut short by the kernel.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for node in executor.get_nodes():
            try:
                node.close()
            except Exception:  # the others must be closed all the same, and the process must end
                code = 1
                _print(traceback.format_exc())
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        try_shutdown()
        with contextlib.suppress(OSError):  # the disk that they are written to may be full
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


_interrupted = threading.Event()


def _interrupt_once(number: int, frame: Any) -> None:
    """The first Ctrl-C interrupts; a second one must not interrupt the way to the clean-up."""
    _interrupted.set()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.default_int_handler(number, frame)


def _print(text: str) -> None:
    with contextlib.suppress(OSError):
        print(without_passwords(text), file=sys.stderr)

"""A ROS node in the hands of a test.

It lives in a process of its own, so that the test's process holds no middleware: it can be ended at any time.
"""

from __future__ import annotations

import itertools
import pickle
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from harness import PATIENCE_S, wait_for

from battery_sorting.runtime.plan import Plan
from battery_sorting.runtime.supervisor import process_environment

REFUSALS = {
    "InspectCell": ("NOT_READY",),
    "FlipCell": ("NOT_READY", "BUSY"),
    "MoveCell": ("REFUSED",),
    "TestCell": ("NOT_READY",),
    "RegroupCells": ("NOT_READY",),
}
"""Error codes of goals that were not taken."""
LENGTH = struct.Struct("!I")


class Peer:
    """Publishes, subscribes and calls services for the test; names are relative to the line's namespace."""

    def __init__(self, plan: Plan, name: str = "peer") -> None:
        self._heard: dict[str, list[Any]] = {}
        self._answers: dict[int, Any] = {}
        self._statuses: dict[int, int] = {}
        self._numbers = itertools.count()
        self._is_ready = False
        log = (plan.run_dir / "log" / "peer.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("peer_process.py")), plan.site.line, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=process_environment(plan),
            )
        self._thread = threading.Thread(target=self._read, name="peer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Peer:
        wait_for(lambda: self._is_ready, "the peer is there")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def listen(self, type_: type, topic: str, profile: str = "STREAM") -> list[Any]:
        """Subscribe; returns the list of messages, which grows."""
        heard: list[Any] = self._heard.setdefault(topic, [])
        self._tell("listen", type_, topic, profile)
        return heard

    def advertise(self, type_: type, topic: str, profile: str = "STREAM", *, unheard: bool = False) -> None:
        """Make a publisher and wait until somebody listens, unless nobody is to."""
        self._tell("advertise", type_, topic, profile)
        if not unheard:
            wait_for(lambda: self.listeners(topic), f"somebody listens to {topic}")

    def listeners(self, topic: str) -> int:
        """How many listen to an advertised topic."""
        count: int = self._ask("listeners", topic)
        return count

    def publish(self, topic: str, message: Any) -> None:
        """Publish on an advertised topic."""
        self._tell("publish", topic, message)

    def repeat(self, topic: str, message: Any, period_s: float) -> None:
        """Publish again and again, until told so with a period of 0."""
        self._tell("repeat", topic, message, period_s)

    def call(self, type_: type, service: str, **fields: Any) -> Any:
        """Call a service as soon as it is there, and return its answer."""
        request = type_.Request(**fields)  # type: ignore[attr-defined]
        name = type_.__module__.rpartition(".")[0], type_.__name__
        return wait_for(lambda: self._ask("call", *name, service, request), f"{service} answers")

    def act(self, type_: type, action: str, timeout_s: float = PATIENCE_S, **fields: Any) -> Any:
        """Send a goal to an action as soon as it is there, and return its result; None if it is refused."""
        number = self.begin(type_, action, **fields)
        result = self.result(number, action, timeout_s)
        refused = {getattr(type_.Result, name, None) for name in REFUSALS[type_.__name__]}  # type: ignore[attr-defined]
        return None if result is None or result.error_code in refused else result

    def refusal(self, type_: type, action: str, **fields: Any) -> tuple[int, int, str]:
        """Send a goal that is refused; returns how it has ended, its error code and why."""
        number = self.begin(type_, action, **fields)
        result = self.result(number, action)
        assert not result.success
        return self.status(number), result.error_code, result.error_msg

    def begin(self, type_: type, action: str, **fields: Any) -> int:
        """Send a goal to an action; `result` and `cancel` take the number."""
        number = next(self._numbers)
        goal = type_.Goal(**fields)  # type: ignore[attr-defined]
        self._tell("act", number, type_.__module__.rpartition(".")[0], type_.__name__, action, goal)
        return number

    def result(self, number: int, what: str, timeout_s: float = PATIENCE_S) -> Any:
        """Result of a goal."""
        wait_for(lambda: number in self._answers, f"result of {what}", timeout_s)
        return self._answers[number]

    def status(self, number: int) -> int:
        """How a goal has ended, as action_msgs/msg/GoalStatus; ask when its result is there."""
        return self._statuses[number]

    def cancel(self, number: int) -> None:
        """Ask for a goal to end."""
        self._tell("cancel", number)

    def _ask(self, name: str, *arguments: Any) -> Any:
        number = next(self._numbers)
        self._tell(name, number, *arguments)
        wait_for(lambda: number in self._answers, f"{name} {arguments[0]}", PATIENCE_S)
        return self._answers[number]

    def _tell(self, *what: Any) -> None:
        assert self._process.stdin is not None
        data = pickle.dumps(what)
        self._process.stdin.write(LENGTH.pack(len(data)) + data)
        self._process.stdin.flush()

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        while len(head := pipe.read(LENGTH.size)) == LENGTH.size:
            kind, *what = pickle.loads(pipe.read(LENGTH.unpack(head)[0]))
            if kind == "heard":
                self._heard[what[0]].append(what[1])
            elif kind == "status":
                self._statuses[what[0]] = what[1]
            elif kind == "answer":
                self._answers[what[0]] = what[1]
            else:
                self._is_ready = True

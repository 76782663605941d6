"""The simulated robot: carries cells between the places of the EV line, and serves the socket of
docs/reference/robot.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from battery_sorting.core.strict_json import to_json
from battery_sorting.drivers.robot.line_socket import PROTOCOL
from battery_sorting.plant.switches import Switches, switch
from battery_sorting.plant.tcp_server import TcpServer

MAX_LINE_BYTES = 64 * 1024


class Place(Protocol):
    """Somewhere a cell may lie."""

    def cell(self) -> Any | None:
        """What lies there."""

    def take(self) -> Any:
        """Takes away what lies there."""

    def put(self, cell: Any) -> None:
        """Lays a cell there."""


@dataclass
class Slot:
    """A place that holds one cell and does nothing with it."""

    content: Any | None = None

    def cell(self) -> Any | None:
        """What lies there."""
        return self.content

    def take(self) -> Any:
        """Takes away what lies there."""
        content, self.content = self.content, None
        return content

    def put(self, cell: Any) -> None:
        """Lays a cell there."""
        self.content = cell


@dataclass
class RobotFaults(Switches):
    """Fault switches. Counts are of the next moves."""

    drop: int = switch("robot.drop", 0)
    """So many of the next cells slip out of the gripper."""
    stall: bool = switch("robot.stall", False)
    """The arm stops between two places and stays there until it is reset."""
    mute: bool = switch("robot.mute", False)
    """The program takes requests and does not answer."""
    refuse: int = switch("robot.refuse", 0)
    """So many of the next jobs are refused."""
    disconnect: bool = switch("robot.disconnect", False)
    """The controller's connections are dropped and refused."""
    estop: bool = switch("robot.estop", False)
    """The emergency stop is pressed."""
    twice: int = switch("robot.twice", 0)
    """So many of the next answers are sent twice."""
    late: int = switch("robot.late", 0)
    """So many of the next answers come after ``late_s``, and those to later requests before them."""
    late_s: float = switch("robot.late_s", 2.0)
    """How late a late answer comes, s."""
    lose: int = switch("robot.lose", 0)
    """So many of the next jobs never arrive: nothing is done, nothing answered."""
    hush: int = switch("robot.hush", 0)
    """So many of the next jobs are done, but not answered."""
    other: int = switch("robot.other", 0)
    """So many of the next answers name another request."""
    restart: bool = switch("robot.restart", False)
    """As soon as the gripper holds a cell, the program starts anew: it has forgotten its job, and is ready."""
    cling: bool = switch("robot.cling", False)
    """A reset does not put back what the gripper holds."""


@dataclass
class _Job:
    token: int
    source: str
    target: str
    taken: bool = False
    grip_at: float = 0.0
    done_at: float = 0.0


@dataclass
class SimulatedRobot:
    """Arm and gripper; knows no clock: `advance` moves it on.

    Attributes:
        places: Name → place.
        record: Takes the plant's events.
        boot_id: Of its program.
        half_s: From home to a place, and as long again to the other one, in s of the plant's clock.
        floor: What was dropped.
    """

    places: Mapping[str, Place]
    record: Callable[[dict[str, Any]], None]
    boot_id: int
    half_s: float = 0.5
    faults: RobotFaults = field(default_factory=RobotFaults)
    floor: list[Any] = field(default_factory=list)
    _job: _Job | None = None
    _held: Any | None = None
    _held_from: str = ""
    _done_token: int = 0
    _result: str = "none"
    _fault: str = ""
    _stopped_by_button: bool = False
    _stops: int = 0
    _now: float = 0.0

    @property
    def emergency_stop(self) -> bool:
        """Whether the emergency stop is pressed."""
        return self.faults.estop

    def state(self) -> dict[str, Any]:
        """What the program answers to ``state``."""
        self.look_at_the_button()
        return {
            "boot_id": self.boot_id,
            "ready": self._job is None and not self._fault and not self.emergency_stop,
            "emergency_stop": self.emergency_stop,
            "active_token": self._job.token if self._job else 0,
            "done_token": self._done_token,
            "result": self._result,
            "holding": self._held is not None,
            "fault": self._fault,
            "emergency_stops": self._stops,
        }

    def begin(self, token: int, source: str, target: str) -> str:
        """Take a job; returns why not, empty if it was taken. A token that is running or over changes nothing."""
        if token <= self._done_token or (self._job is not None and token == self._job.token):
            return ""
        unknown = [name for name in (source, target) if name not in self.places]
        if unknown:
            return f"no such place: {', '.join(unknown)}"
        if self.faults.refuse:
            self.faults.refuse -= 1
            return "the program is in manual mode"
        if not self.state()["ready"]:
            return self._fault or ("emergency stop" if self.emergency_stop else "busy")
        self._job = _Job(
            token, source, target, grip_at=self._now + self.half_s, done_at=self._now + 2 * self.half_s
        )
        job = {"token": token, "source": source, "target": target}
        self.record({"event": "robot_job", "t_s": round(self._now, 3), **job})
        return ""

    def stop(self) -> None:
        """Stop where it is."""
        if self._job is not None:
            self._fault = "stopped"

    def reset(self) -> str:
        """Acknowledge faults and go home; a held cell goes back to where it came from."""
        if self.emergency_stop:
            return "emergency stop"
        job, self._job = self._job, None
        if job is not None or self._fault or self._held is not None:
            self.record({"event": "robot_home", "t_s": round(self._now, 3)})
        if self._held is not None and not self.faults.cling:
            self._lay(self._held_from)
        if job is not None:
            self._end(job, "stopped")
        self._fault = ""
        return ""

    def advance(self, now: float) -> None:
        """Time has come to ``now`` (s of the plant's clock)."""
        self._now = now
        self.look_at_the_button()
        job = self._job
        if job is None or self._fault or self.emergency_stop:
            return
        if not job.taken and now >= job.grip_at:
            self._grip(job)
        if job.taken and self._job is job and self.faults.restart:
            self._restart()
        elif job.taken and self._job is job and self.faults.stall:
            self.faults.stall = False
            self._fault = "collision stop"
        elif job.taken and self._job is job and now >= job.done_at:
            self._set_down(job)

    def _restart(self) -> None:
        """The program starts anew, with whatever is in the gripper."""
        self.faults.restart = False
        self.boot_id += 1
        self._job, self._done_token, self._result, self._stops = None, 0, "none", 0

    def look_at_the_button(self) -> None:
        """Notice that the emergency stop was pressed, however soon it is released again."""
        if self.emergency_stop and not self._stopped_by_button:
            self._stops += 1
            self._fault = "emergency stop"  # which outlives the button: until a reset
        self._stopped_by_button = self.emergency_stop

    def _grip(self, job: _Job) -> None:
        place = self.places[job.source]
        if place.cell() is None:
            self._job = None
            self._end(job, "empty")
            return
        self._held, self._held_from, job.taken = place.take(), job.source, True
        if self.faults.drop:
            self.faults.drop -= 1
            self.floor.append(self._held)
            self.record({"event": "dropped", "t_s": round(self._now, 3), "serial": _serial(self._held)})
            self._held, self._job = None, None
            self._end(job, "dropped")

    def _set_down(self, job: _Job) -> None:
        self._job = None
        if self.places[job.target].cell() is not None:
            self._lay(job.source)
            self._end(job, "occupied")
        else:
            self._lay(job.target)
            self._end(job, "done")

    def _lay(self, name: str) -> None:
        cell, self._held = self._held, None
        self.places[name].put(cell)
        self.record({"event": "placed", "t_s": round(self._now, 3), "serial": _serial(cell), "place": name})

    def _end(self, job: _Job, result: str) -> None:
        self._done_token, self._result = job.token, result


def _serial(cell: Any) -> str:
    return str(getattr(cell, "serial", cell))


def _is_a_job(line: bytes) -> bool:
    return b'"move"' in line


class RobotServer(TcpServer):
    """Serves the robot's program.

    Args:
        robot: The arm.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
    """

    def __init__(self, robot: SimulatedRobot, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host, port, MAX_LINE_BYTES)
        self.requests = 0
        self._robot = robot
        self._late: set[asyncio.Task[None]] = set()

    async def follow_faults(self) -> None:
        """Close or open the port as the switch ``disconnect`` says."""
        await self.follow_switch(self._robot.faults.disconnect)

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer line by line, unless the program is mute."""
        while line := await reader.readline():
            self.requests += 1
            if self._robot.faults.mute:
                continue
            if self._robot.faults.lose > 0 and _is_a_job(line):
                self._robot.faults.lose -= 1
                continue
            answer = self._answer(line)
            if self._robot.faults.hush > 0 and _is_a_job(line):
                self._robot.faults.hush -= 1
                continue
            if self._robot.faults.late > 0:
                self._robot.faults.late -= 1
                later = asyncio.ensure_future(self._answer_late(writer, answer, self._robot.faults.late_s))
                self._late.add(later)
                later.add_done_callback(self._late.discard)
                continue
            if self._robot.faults.other > 0:
                self._robot.faults.other -= 1
                answer["id"] = int(answer.get("id") or 0) - 1
            times = 1
            if self._robot.faults.twice > 0:
                self._robot.faults.twice -= 1
                times = 2
            writer.write(times * (to_json(answer, None).encode() + b"\n"))
            await writer.drain()

    async def _answer_late(self, writer: asyncio.StreamWriter, answer: dict[str, Any], seconds: float) -> None:
        await asyncio.sleep(seconds)
        with contextlib.suppress(OSError):
            writer.write(to_json(answer, None).encode() + b"\n")
            await writer.drain()

    async def stop(self) -> None:
        """Close the port and all connections; answers that are late are not sent any more."""
        for later in list(self._late):
            later.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)
        await super().stop()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            return {**self._do(request["do"], request), "id": request["id"]}
        except (ValueError, KeyError, TypeError) as error:
            return {"ok": False, "id": 0, "error": f"not understood: {error!r}"}

    def _do(self, what: str, request: dict[str, Any]) -> dict[str, Any]:
        robot = self._robot
        if what == "hello":
            return {"ok": True, "protocol": PROTOCOL, "model": "simulated arm"}
        if what == "places":
            return {"ok": True, "places": sorted(robot.places)}
        if what == "state":
            return {"ok": True, **robot.state()}
        if what == "move":
            problem = robot.begin(int(request["token"]), str(request["from"]), str(request["to"]))
        elif what == "stop":
            robot.stop()
            problem = ""
        elif what == "reset":
            problem = robot.reset()
        else:
            problem = f"what is {what!r}?"
        return {"ok": False, "error": problem} if problem else {"ok": True}

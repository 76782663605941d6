"""A robot whose controller serves a socket: one JSON object per line (docs/reference/robot.md)."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections import deque
from typing import Any, ClassVar

from pydantic import Field, TypeAdapter, ValidationError

from battery_sorting.core.errors import (
    DeviceConnectionError,
    DeviceError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from battery_sorting.core.strict_json import to_json
from battery_sorting.drivers.base import DriverSettings
from battery_sorting.drivers.robot.base import MoveJob, Robot, RobotState

PROTOCOL = "battery-sorting-robot/2"
MAX_ANSWER_BYTES = 64 * 1024
ODDITIES_KEPT = 20


class LineSocketSettings(DriverSettings):
    """Where the robot's program listens."""

    host: str = Field(min_length=1, description="name or address of the robot's controller")
    port: int = Field(ge=1, le=65535, description="TCP port of the robot's program")
    timeout_s: float = Field(1.0, gt=0, le=30, description="for each answer, in seconds")


_STATE = TypeAdapter(RobotState)


class LineSocketRobot(Robot):
    """Client of the robot's program. Calls from several threads are served one after the other.

    Every request has a number that its answer repeats: what answers another request, or the same one again, is told
    by `take_oddities` and otherwise ignored.
    """

    Settings: ClassVar[type[DriverSettings]] = LineSocketSettings

    def __init__(self, settings: LineSocketSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._socket: socket.socket | None = None
        self._rest = b""
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._oddities: deque[str] = deque(maxlen=ODDITIES_KEPT)

    @property
    def connected(self) -> bool:
        """Whether the socket is open."""
        return self._socket is not None

    def connect(self, timeout_s: float = 2.0) -> None:
        """Opens the socket and checks that a robot's program answers."""
        if self.connected:
            return
        address = (self._settings.host, self._settings.port)
        deadline = time.monotonic() + timeout_s
        try:
            self._socket = socket.create_connection(address, timeout=timeout_s)
        except OSError as error:
            raise DeviceConnectionError(
                f"robot at {address[0]}:{address[1]} can't be reached ({error}): "
                "does its program run, are host and port right?"
            ) from error
        self._rest = b""
        answer = self._ask({"do": "hello"}, max(deadline - time.monotonic(), 1e-3))
        if answer.get("protocol") != PROTOCOL:
            self.disconnect()
            raise DeviceProtocolError(
                f"robot speaks {answer.get('protocol')!r}, {PROTOCOL!r} is needed: "
                "docs/reference/robot.md says what is new"
            )

    def disconnect(self) -> None:
        """Closes the socket."""
        sock, self._socket = self._socket, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def places(self) -> frozenset[str]:
        """Names of the places that the robot was taught."""
        places = self._ask({"do": "places"}).get("places")
        if not isinstance(places, list) or not all(isinstance(name, str) for name in places):
            raise self._broken(DeviceProtocolError(f"robot names its places as {places!r}"))
        return frozenset(places)

    def read_state(self) -> RobotState:
        """Reads the state."""
        answer = self._ask({"do": "state"})
        answer = {name: value for name, value in answer.items() if name not in {"ok", "id"}}
        try:
            return _STATE.validate_python(answer)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise self._broken(DeviceProtocolError(f"robot's state: {where}: {fault['msg']}")) from error

    def send(self, job: MoveJob) -> None:
        """Hands over a job."""
        self._ask({"do": "move", "token": job.token, "from": job.source, "to": job.target})

    def stop(self) -> None:
        """Stops the arm."""
        self._ask({"do": "stop"})

    def reset(self) -> None:
        """Acknowledges a fault and goes home."""
        self._ask({"do": "reset"})

    def take_oddities(self) -> list[str]:
        """Answers to nothing that was asked."""
        with self._lock:
            told = list(self._oddities)
            self._oddities.clear()
        return told

    def _ask(self, request: dict[str, Any], timeout_s: float | None = None) -> dict[str, Any]:
        timeout_s = timeout_s or self._settings.timeout_s
        with self._lock:
            number = next(self._numbers)
            sock = self._send({"id": number, **request}, timeout_s)
            answer = self._answer_to(number, sock, time.monotonic() + timeout_s, timeout_s)
        if answer["ok"] is not True:
            raise DeviceError(f"robot refused to {request['do']}: {answer.get('error') or 'it does not say why'}")
        return answer

    def _answer_to(self, number: int, sock: socket.socket, deadline: float, timeout_s: float) -> dict[str, Any]:
        """The answer that names this request; those that name others are put aside."""
        others: list[Any] = []
        while True:
            try:
                if others and time.monotonic() > deadline:  # it goes on and on
                    raise self._broken(DeviceTimeoutError(""))
                line = self._next_line(sock, deadline, timeout_s)
            except DeviceTimeoutError as error:
                if not others:
                    raise
                text = f"robot answered to {others[-1]!r}, not to {number}, within {timeout_s:g} s"
                raise DeviceProtocolError(text) from error
            try:
                answer = dict(json.loads(line))
                answered, _ = answer["id"], answer["ok"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                text = f"robot answered {line[:80]!r}, which is no answer"
                raise self._broken(DeviceProtocolError(text)) from error
            if answered == number and not isinstance(answered, bool):
                return answer
            others.append(answered)
            self._oddities.append(f"robot answered to {answered!r} when {number} was asked: dropped")

    def _send(self, request: dict[str, Any], timeout_s: float) -> socket.socket:
        sock = self._socket
        if sock is None:
            raise DeviceConnectionError("robot is not connected")
        try:
            sock.settimeout(timeout_s)
            sock.sendall(to_json(request, None).encode() + b"\n")
        except OSError as error:
            raise self._broken(DeviceConnectionError(f"robot connection broke: {error}")) from error
        return sock

    def _next_line(self, sock: socket.socket, deadline: float, timeout_s: float) -> bytes:
        try:
            while b"\n" not in self._rest:
                if len(self._rest) > MAX_ANSWER_BYTES:
                    raise self._broken(DeviceProtocolError("robot answers without an end"))
                sock.settimeout(max(deadline - time.monotonic(), 1e-3))
                chunk = sock.recv(4096)
                if not chunk:
                    raise self._broken(DeviceConnectionError("robot closed the connection"))
                self._rest += chunk
                if time.monotonic() > deadline and b"\n" not in self._rest:  # it trickles
                    raise TimeoutError
        except TimeoutError:
            # Whether the request has arrived is not known: on a new connection the robot's state tells.
            raise self._broken(DeviceTimeoutError(f"robot did not answer within {timeout_s:g} s")) from None
        except OSError as error:
            raise self._broken(DeviceConnectionError(f"robot connection broke: {error}")) from error
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _broken(self, error: Exception) -> Exception:
        self.disconnect()
        return error

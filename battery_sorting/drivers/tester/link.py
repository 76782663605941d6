"""A line of text there, a line of text back: SCPI over a TCP socket by PyVISA with pyvisa-py.

PyVISA opens, writes and reads the socket. When to read is decided here: pyvisa-py 0.8 spins until its timeout on a
connection that the other side has closed, and never times out while bytes trickle in. So a read is only begun when
bytes have arrived, and no more of them are asked for.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import select
import socket
import threading
import time
from typing import Any

from battery_sorting.core import readings
from battery_sorting.core.errors import (
    ConfigurationError,
    DeviceConnectionError,
    DeviceProtocolError,
    DeviceTimeoutError,
)

MAX_ANSWER_BYTES = 64 * 1024
LAST_NUMBER = 255
"""The largest value of the register ``*ESE`` (IEEE 488.2)."""


@functools.cache
def _resource_manager() -> Any:
    """PyVISA's, one for all links: closing it would close the links of others."""
    try:
        import pyvisa
        import pyvisa_py  # noqa: F401  (PyVISA looks for it by name)
    except ImportError as error:
        raise ConfigurationError(
            "driver scpi", [f"{error.name} is not installed: pip install 'pyvisa==1.16.*' 'pyvisa-py==0.8.*'"]
        ) from error
    return pyvisa.ResourceManager("@py")


class ScpiLink:
    """Link to one instrument. Queries from several threads come one after the other; any thread may close it.

    Args:
        name: What the instrument is called in messages.
        host: Its address.
        port: Its TCP port.
        terminator: Ends a message to it. Its answers end with LF; white space around them is dropped.
        numbered: Whether each query carries a number that its answer begins with (in ``*ESE``, a register that is
            good for nothing else here). Then an answer to an earlier query is told from that to the last one,
            and dropped.
    """

    def __init__(self, name: str, host: str, port: int, terminator: str = "\n", numbered: bool = False) -> None:
        self._where = f"{name} at {host}:{port}"
        self._address = f"TCPIP0::{host}::{port}::SOCKET"
        self._terminator = terminator
        self._numbered = numbered
        self._numbers = itertools.cycle(range(1, LAST_NUMBER + 1))
        self._rest = b""
        self.dropped = 0
        """Answers that were dropped, since nobody had asked for them."""
        self._lock = threading.RLock()
        self._resource: Any = None
        self._socket: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        """Whether the socket is open."""
        return self._socket is not None

    @property
    def where(self) -> str:
        """Name and address, for messages."""
        return self._where

    def open(self, timeout_s: float) -> None:
        """Opens the socket.

        Raises:
            DeviceConnectionError: It can't be reached.
        """
        manager = _resource_manager()
        try:
            resource = manager.open_resource(self._address, open_timeout=max(1, round(timeout_s * 1000)))
        except Exception as error:  # pyvisa-py raises bare exceptions when a socket can't be connected
            raise self._unreachable(error) from error
        sock: socket.socket = resource.visalib.sessions[resource.session].interface
        refused = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # pyvisa-py takes a refusal for success
        if refused:
            resource.close()
            raise self._unreachable(OSError(refused, os.strerror(refused)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._resource, self._socket, self._rest = resource, sock, b""

    def close(self) -> None:
        """Closes the socket, at any time; a query in another thread ends with a `DeviceConnectionError`."""
        sock, self._socket = self._socket, None
        if sock is None:
            return
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)  # wakes a reader
        with self._lock:
            resource, self._resource = self._resource, None
            with contextlib.suppress(Exception):
                resource.close()

    def write(self, message: str) -> None:
        """Sends a message that isn't answered."""
        with self._lock:
            self._send(self._open_socket(), message)

    def query(self, message: str, timeout_s: float) -> str:
        """Sends a message and returns its answer, without its end.

        Raises:
            DeviceConnectionError: The link is lost, or was closed.
            DeviceTimeoutError: No whole answer in ``timeout_s``. The link is closed: a late answer would be taken
                for that to the next message.
            DeviceProtocolError: Something came that wasn't asked for, or that is no text. The link is closed.
        """
        with self._lock:
            sock = self._open_socket()
            deadline = time.monotonic() + timeout_s
            if self._numbered:
                return self._query_numbered(sock, message, deadline)
            self._refuse_leftovers(sock)
            self._send(sock, message)
            answer, rest = self._receive(sock, message, deadline)
            if rest:
                raise self._broken(DeviceProtocolError(f"{self._where} answers {message!r} with more than a line"))
            return self._text(answer, message)

    def next_number(self) -> int:
        """A number that no recent query had, for who numbers a query itself."""
        with self._lock:
            return next(self._numbers)

    def _query_numbered(self, sock: socket.socket, message: str, deadline: float) -> str:
        number = next(self._numbers)
        self._send(sock, f"*ESE {number};*ESE?;{message}")
        while True:
            line, self._rest = self._receive(sock, message, deadline, self._rest)
            answered, _, answer = self._text(line, message).partition(";")
            try:
                if readings.integer(answered, 0, LAST_NUMBER) == number:
                    return answer.strip()  # if it goes on, that is told from the next answer by its number
            except readings.AnswerError as error:
                text = f"{self._where} answers {message!r} with {line[:80]!r}, without the number of the query"
                raise self._broken(DeviceProtocolError(text)) from error
            self.dropped += 1

    def _send(self, sock: socket.socket, message: str) -> None:
        try:
            self._resource.write_raw((message + self._terminator).encode("ascii"))
        except Exception as error:  # VisaIOError or OSError
            raise self._lost(sock, error) from error

    def _receive(
        self, sock: socket.socket, message: str, deadline: float, begun: bytes = b""
    ) -> tuple[bytes, bytes]:
        """A line, and what came behind it. ``begun`` has come before."""
        answer = bytearray(begun)
        while b"\n" not in answer:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._wait(sock, left_s):
                text = f"{self._where} does not answer {message!r}"
                if answer:
                    text = f"{self._where} stopped in the middle of its answer to {message!r}"
                raise self._broken(DeviceTimeoutError(text))
            answer += self._read(sock)
            if len(answer) > MAX_ANSWER_BYTES:
                raise self._broken(DeviceProtocolError(f"{self._where} answers {message!r} with more than a line"))
        line, _, rest = bytes(answer).partition(b"\n")
        return line, rest

    def _text(self, line: bytes, message: str) -> str:
        try:
            return line.decode("ascii").strip()
        except UnicodeDecodeError as error:
            raise self._broken(
                DeviceProtocolError(f"{self._where} answers {message!r} with garbage: {line[:40]!r}")
            ) from error

    def _read(self, sock: socket.socket) -> bytes:
        """What has arrived."""
        try:
            size = len(sock.recv(4096, socket.MSG_PEEK))
            if size == 0:
                raise ConnectionError("closed by the instrument")
            return bytes(self._resource.read_bytes(size, chunk_size=size))
        except Exception as error:
            raise self._lost(sock, error) from error

    def _refuse_leftovers(self, sock: socket.socket) -> None:
        if self._wait(sock, 0.0):
            leftover = self._read(sock)
            raise self._broken(
                DeviceProtocolError(f"{self._where} has sent {leftover[:40]!r}, which nobody has asked for")
            )

    def _wait(self, sock: socket.socket, limit_s: float) -> bool:
        try:
            return bool(select.select([sock], [], [], limit_s)[0])
        except (OSError, ValueError) as error:
            raise self._lost(sock, error) from error

    def _open_socket(self) -> socket.socket:
        sock = self._socket
        if sock is None:
            raise DeviceConnectionError(f"{self._where} is not connected")
        return sock

    def _lost(self, sock: socket.socket, error: Exception) -> Exception:
        if self._socket is not sock:
            return DeviceConnectionError(f"{self._where} was disconnected")
        return self._broken(DeviceConnectionError(f"connection to the {self._where} broke: {error}"))

    def _unreachable(self, error: Exception) -> Exception:
        return DeviceConnectionError(
            f"{self._where} can't be reached ({error}): is it on, are host and port right?"
        )

    def _broken(self, error: Exception) -> Exception:
        self.close()
        return error

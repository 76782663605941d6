"""A line of text there, a line of text back: SCPI over a TCP socket by PyVISA with pyvisa-py.

PyVISA opens, writes and reads the socket. When to read is decided here: pyvisa-py 0.8 spins until its timeout on a
connection that the other side has closed, and never times out while bytes trickle in. So a read is only begun when
bytes have arrived, and no more of them are asked for.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import threading
import time
from typing import Any

from battery_sorting.core.errors import (
    ConfigurationError,
    DeviceConnectionError,
    DeviceProtocolError,
    DeviceTimeoutError,
)

MAX_ANSWER_BYTES = 64 * 1024


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
    """

    def __init__(self, name: str, host: str, port: int, terminator: str = "\n") -> None:
        self._where = f"{name} at {host}:{port}"
        self._address = f"TCPIP0::{host}::{port}::SOCKET"
        self._terminator = terminator
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
        self._resource, self._socket = resource, sock

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
            self._refuse_leftovers(sock)
            self._send(sock, message)
            return self._receive(sock, message, time.monotonic() + timeout_s)

    def _send(self, sock: socket.socket, message: str) -> None:
        try:
            self._resource.write_raw((message + self._terminator).encode("ascii"))
        except Exception as error:  # VisaIOError or OSError
            raise self._lost(sock, error) from error

    def _receive(self, sock: socket.socket, message: str, deadline: float) -> str:
        answer = bytearray()
        while not answer.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._wait(sock, left_s):
                text = f"{self._where} does not answer {message!r}"
                if answer:
                    text = f"{self._where} stopped in the middle of its answer to {message!r}"
                raise self._broken(DeviceTimeoutError(text))
            answer += self._read(sock)
            if len(answer) > MAX_ANSWER_BYTES or b"\n" in answer[:-1]:
                raise self._broken(DeviceProtocolError(f"{self._where} answers {message!r} with more than a line"))
        try:
            return answer.decode("ascii").strip()
        except UnicodeDecodeError as error:
            raise self._broken(
                DeviceProtocolError(f"{self._where} answers {message!r} with garbage: {bytes(answer[:40])!r}")
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

"""A TCP server that answers as a test says."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

Handler = Callable[[socket.socket], None]


@contextlib.contextmanager
def impostor(handler: Handler) -> Iterator[int]:
    """Port of a server that hands each connection to ``handler``, one after the other, and closes it after."""
    connections: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connections.append(connection)
            with connection, contextlib.suppress(OSError, EOFError, ValueError):
                handler(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, name="impostor", daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            assert not thread.is_alive()


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def modbus(answer: Callable[[int, int, bytes], bytes], requests: int = 1000) -> Handler:
    """Handler that sends what ``answer`` makes of transaction id, unit and PDU of each of so many requests."""

    def handle(connection: socket.socket) -> None:
        for _ in range(requests):
            transaction, _, length, unit = struct.unpack("!HHHB", receive(connection, 7))
            connection.sendall(answer(transaction, unit, receive(connection, length - 1)))

    return handle


def frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    """A Modbus TCP frame."""
    return struct.pack("!HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


def registers(function: int, values: list[int]) -> bytes:
    """PDU of an answer to a read of registers."""
    return struct.pack(f"!BB{len(values)}H", function, 2 * len(values), *values)

"""A TCP server of the plant: its port can be opened and closed at will, and what is connected goes with it."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from typing import Any


class TcpServer(ABC):
    """Serves each client in a session of its own.

    Args:
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
        limit: Longest line, in bytes.
    """

    def __init__(self, host: str, port: int, limit: int) -> None:
        self.port = port
        self._host = host
        self._limit = limit
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[Any]] = set()

    @abstractmethod
    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client to its end. An OSError or ValueError only ends the session."""

    async def start(self) -> None:
        """Listen; afterwards `port` is the real port.

        Raises:
            OSError: The port can't be used.
        """
        self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=self._limit)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and all connections; may be called twice."""
        await self.disconnect()

    async def disconnect(self) -> None:
        """Close the port and all connections, for a while or for good."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        sessions = list(self._sessions)
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)

    async def follow_switch(self, unplugged: bool) -> None:
        """Drop or take up connections, as a fault switch says."""
        if unplugged and self._server is not None:
            await self.disconnect()
        elif not unplugged and self._server is None:
            await self.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.close()  # was just being accepted when the port was closed
            return
        session = asyncio.current_task()
        assert session is not None
        self._sessions.add(session)
        try:
            await self.session(reader, writer)
        except (OSError, ValueError):
            pass  # the client went away, or sent what has no end
        except asyncio.CancelledError:
            writer.transport.abort()  # the server closes and doesn't wait for a client that doesn't read
        finally:
            self._sessions.discard(session)
            with contextlib.suppress(OSError):
                writer.close()

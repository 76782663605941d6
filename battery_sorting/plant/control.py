"""Control port of the simulated plant: one JSON object per line, one answer per line (docs/reference/plant.md)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.strict_json import to_json
from battery_sorting.plant.tcp_server import TcpServer

MAX_LINE_BYTES = 64 * 1024


class ControlServer(TcpServer):
    """Serves the control port.

    Args:
        getters: What can be asked for by ``{"get": name}``.
        set_faults: Takes ``{"set": {switch: value}}``; raises ConfigurationError.
        shutdown: Called by ``{"shutdown": true}``.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
    """

    def __init__(
        self,
        getters: dict[str, Callable[[], dict[str, Any]]],
        set_faults: Callable[[dict[str, Any]], dict[str, Any]],
        shutdown: Callable[[], None],
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host, port, MAX_LINE_BYTES)
        self._getters = getters
        self._set_faults = set_faults
        self._shutdown = shutdown

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer line by line."""
        while line := await reader.readline():
            writer.write(to_json(self._answer(line), None).encode() + b"\n")
            await writer.drain()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            return {"ok": True, "result": self._do(json.loads(line))}
        except ConfigurationError as error:
            return {"ok": False, "error": "; ".join(error.problems)}
        except ValueError as error:
            return {"ok": False, "error": str(error)}

    def _do(self, request: Any) -> Any:
        if isinstance(request, dict) and len(request) == 1:
            [(verb, argument)] = request.items()
            if verb == "get" and argument in self._getters:
                return self._getters[argument]()
            if verb == "set" and isinstance(argument, dict):
                return self._set_faults(argument)
            if verb == "shutdown" and argument is True:
                self._shutdown()
                return None
        names = " | ".join(f'"{name}"' for name in self._getters)
        raise ValueError(f'say {{"get": {names}}}, {{"set": {{switch: value}}}} or {{"shutdown": true}}')

"""Connections between drivers and devices that can be cut, slowed down, spoilt or lost without a word."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
CHUNK_BYTES = 256 * 1024
PATIENCE_S = 5.0
NOISE_BYTES = 2048
"""Longer than any message of PLC, instruments and robot, shorter than a frame."""
KEEPALIVE_TIMER = "02:"
"""In the column of timers of /proc/net/tcp."""
TICK_S = 1e-6
"""What was sent later arrives later by at least this."""


class Trouble(str, Enum):
    """What can be wrong with a link."""

    NONE = "none"
    CUT = "cut"
    """Connections are reset and new ones refused."""
    DELAY = "delay"
    """Everything arrives later, both ways."""
    GARBLE = "garble"
    """Answers, or parts of long ones, are noise."""
    HALF_OPEN = "half_open"
    """Nothing arrives and nobody is told. Afterwards whoever sends on a connection of before gets a reset, and so
    does a driver that has TCP probe it (SO_KEEPALIVE); one that only listens never hears of it."""


@dataclass(eq=False)
class _Way:
    """One connection of a driver, with that to the device."""

    driver: asyncio.StreamWriter
    device: asyncio.StreamWriter | None = None
    lost: bool = False
    due: dict[asyncio.StreamWriter, float] = field(default_factory=dict)


class Link:
    """One port that stands in front of a device's. Made and ruled by `Links`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.trouble = Trouble.NONE
        self.target: int | None = None
        self._delay_s = 0.0
        self._share = 0.0
        self._dice = random.Random(0)
        self._ways: set[_Way] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        # Bound and never listening: it keeps the port ours while the link is cut.
        self._placeholder = socket.socket()
        self._placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._placeholder.bind((HOST, 0))
        self.port: int = self._placeholder.getsockname()[1]

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, HOST, self.port, limit=CHUNK_BYTES)

    async def close(self) -> None:
        """Close the port and all connections."""
        await self._shut()
        await self._reset_all()
        self._placeholder.close()

    async def set(self, trouble: Trouble, delay_s: float, share: float, seed: int) -> None:
        """From now on this is wrong with the link."""
        before, self.trouble = self.trouble, trouble
        self._delay_s, self._share, self._dice = delay_s, share, random.Random(seed)
        if trouble is Trouble.CUT:
            await self._shut()
            await self._reset_all()
        elif before is Trouble.CUT:
            await self.open()
        if trouble is Trouble.HALF_OPEN:
            for way in self._ways:
                way.lost = True
        elif before is Trouble.HALF_OPEN:
            for way in self._ways:
                if way.lost and way.device is not None:
                    _reset(way.device)  # the device has given this connection up
                if way.lost and self._is_probed(way):
                    _reset(way.driver)

    def _is_probed(self, way: _Way) -> bool:
        """Whether the driver has TCP probe the connection: it would be told now. Our kernel answers its probes."""
        driver = way.driver.get_extra_info("peername")[1]
        ends = f":{driver:04X}", f":{self.port:04X}"
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return any(row[5].startswith(KEEPALIVE_TIMER) and (row[1][8:], row[2][8:]) == ends for row in rows)

    async def _shut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _reset_all(self) -> None:
        for way in list(self._ways):
            for writer in filter(None, (way.driver, way.device)):
                _reset(writer)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        way = _Way(writer, lost=self.trouble is Trouble.HALF_OPEN)
        self._tasks.add(task)
        self._ways.add(way)
        try:
            if self._server is None:
                return
            if way.lost:
                await self._carry(way, reader, None)
                return
            there, way.device = await asyncio.open_connection(HOST, self.target, limit=CHUNK_BYTES)
            both = [
                asyncio.ensure_future(self._carry(way, reader, way.device)),
                asyncio.ensure_future(self._carry(way, there, writer, answers=True)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                while way.lost and not both[0].done():
                    await both[0]  # the device is gone, and the driver does not know
            finally:
                for one in both:
                    one.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            _reset(writer)  # the device refuses, or the link is being cut
        finally:
            self._ways.discard(way)
            self._tasks.discard(task)
            for one in filter(None, (way.driver, way.device)):
                with contextlib.suppress(OSError):
                    one.close()

    async def _carry(
        self,
        way: _Way,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter | None,
        *,
        answers: bool = False,
    ) -> None:
        """Pass on what comes until its sender ends. An OSError of either side ends it, too."""
        loop = asyncio.get_running_loop()
        while data := await reader.read(CHUNK_BYTES):
            if way.lost:
                if self.trouble is Trouble.HALF_OPEN:
                    continue
                if not answers:
                    _reset(way.driver)
                return
            assert writer is not None
            if answers and self.trouble is Trouble.GARBLE and self._dice.random() < self._share:
                data = self._spoilt(data)
            due = loop.time() + (self._delay_s if self.trouble is Trouble.DELAY else 0.0)
            last = way.due.get(writer, 0.0)
            if due <= last or self.trouble is Trouble.DELAY:  # what comes later must not overtake
                way.due[writer] = max(due, last + TICK_S)
                loop.call_at(way.due[writer], _write, writer, data)
            else:
                writer.write(data)
                await writer.drain()
        if writer is not None and (left_s := way.due.get(writer, 0.0) - loop.time()) > 0:
            await asyncio.sleep(left_s + TICK_S)

    def _spoilt(self, data: bytes) -> bytes:
        """Noise in place of a message, or of a part of a long one.

        Not of single bytes: TCP has its checksum, and of an answer that looks right in all but one number nobody
        can know that it is wrong.
        """
        size = min(len(data), NOISE_BYTES)
        place = self._dice.randrange(len(data) - size + 1)
        return data[:place] + self._dice.randbytes(size) + data[place + size :]


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Late data of a connection that has ended meanwhile goes nowhere."""
    if not writer.is_closing():
        writer.write(data)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that its other side sees a reset, whatever is under way."""
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Links:
    """Links by name, carried by a thread of their own; ``ports`` are known at once, `start` names the devices.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._links = {name: Link(name) for name in names}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()

    @property
    def ports(self) -> dict[str, int]:
        """Name → the port that a driver is given in place of its device's."""
        return {name: link.port for name, link in self._links.items()}

    def start(self, targets: Mapping[str, int]) -> None:
        """Open all links; ``targets`` are the devices' ports by name."""
        for name, link in self._links.items():
            link.target = targets[name]
            self._do(link.open())

    def retarget(self, targets: Mapping[str, int]) -> None:
        """The devices have other ports now."""
        for name, port in targets.items():
            self._links[name].target = port

    def set(
        self, name: str, trouble: Trouble | str, *, delay_s: float = 0.0, share: float = 0.0, seed: int = 0
    ) -> None:
        """Trouble on a link from now on, until it is set to ``none``.

        Args:
            name: Of the link.
            trouble: What is wrong.
            delay_s: Of DELAY: everything arrives so much later.
            share: Of GARBLE: so many of the pieces that answers come in are noise.
            seed: Of GARBLE: which pieces and bytes.
        """
        self._do(self._links[name].set(Trouble(trouble), delay_s, share, seed))

    def close(self) -> None:
        """Close all; may be called twice."""
        if self._loop.is_closed():
            return
        for link in self._links.values():
            self._do(link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def _do(self, job: Any) -> None:
        asyncio.run_coroutine_threadsafe(job, self._loop).result(PATIENCE_S)

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

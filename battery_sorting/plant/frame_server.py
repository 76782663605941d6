"""The camera of the simulated plant: exposes at the photo-eye and pushes the frame over TCP.

Speaks `drivers/camera/frame_protocol.py`. Batteries are known long before they reach the photo-eye, so their
pictures are rendered and encoded ahead, in a worker thread: the event loop only sends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

import numpy as np

from battery_sorting.core.strict_json import to_json
from battery_sorting.drivers.camera.frame_protocol import FrameHeader, checksum
from battery_sorting.plant.tcp_server import TcpServer
from battery_sorting.plant.world import LOOKAHEAD, Edge, Item, PhotoEye, World

WIDTH, HEIGHT = 1280, 1024
MM_PER_PX = 0.1
EXPOSURE_S = 0.0004
ENCODINGS = ("bayer_rggb8", "rgb8", "mono8")
VIEW_MM = 110.0  # neighbours nearer than this may reach into the picture
NEIGHBOURS = 4  # that lie so near, at most
PASSED_MM = 100.0  # behind the photo-eye a picture isn't needed any more
SPEED_TOLERANCE_MPS = 0.25  # a pixel of motion blur; a picture rendered for another speed is rendered again
PLACE_TOLERANCE_MM = 0.5  # the same for neighbours that have come to lie elsewhere
RENDERS_AT_ONCE = 2  # that wait for the worker, so that one that can't wait is soon its turn
MAX_SETTINGS_BYTES = 2**16
MAX_UNSENT_BYTES = 16 * 1024 * 1024
SETTINGS_TIMEOUT_S = 5.0
BUFFERED_S = 2.0  # a frame that couldn't be drawn by then is lost, as it is where a camera's buffers are full

_log = logging.getLogger(__name__)


class FrameRenderer(Protocol):
    """Makes the pictures."""

    def render(
        self,
        item: Item | None,
        *,
        speed_mps: float,
        t_s: float,
        items_nearby: Sequence[tuple[Item, float]] = (),
    ) -> np.ndarray:
        """Picture of one battery (None: of the empty belt), uint8 (1024, 1280, 3) RGB, 0.1 mm per px.

        ``items_nearby`` are its neighbours, each with its distance from the photo-eye along the belt in mm.
        """
        ...


class FlatRenderer:
    """Draws a battery as a rectangle of one colour. For tests of the plant itself."""

    def render(
        self,
        item: Item | None,
        *,
        speed_mps: float,  # noqa: ARG002
        t_s: float,  # noqa: ARG002
        items_nearby: Sequence[tuple[Item, float]] = (),  # noqa: ARG002
    ) -> np.ndarray:
        """See `FrameRenderer.render`."""
        frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        if item is not None:
            half_x, half_y = int(item.length_mm / MM_PER_PX / 2), int(item.diameter_mm / MM_PER_PX / 2)
            colour = zlib.crc32(item.label.encode())
            middle_y, middle_x = HEIGHT // 2, WIDTH // 2
            frame[middle_y - half_y : middle_y + half_y, middle_x - half_x : middle_x + half_x] = (
                128 + colour % 128,
                128 + (colour >> 8) % 128,
                128 + (colour >> 16) % 128,
            )
        return frame


@dataclass(frozen=True, slots=True)
class _Scene:
    """What lies before the camera: a battery, and its neighbours with their distance along the belt in mm."""

    item: Item | None
    nearby: tuple[tuple[Item, float], ...]
    speed_mps: float

    def looks_like(self, other: _Scene) -> bool:
        """Whether the other scene gives the same picture."""
        return (
            abs(self.speed_mps - other.speed_mps) <= SPEED_TOLERANCE_MPS
            and len(self.nearby) == len(other.nearby)
            and all(
                mine is theirs and abs(here - there) <= PLACE_TOLERANCE_MM
                for (mine, here), (theirs, there) in zip(self.nearby, other.nearby, strict=True)
            )
        )


_Picture = dict[str, tuple[bytes, int]]
"""A rendered frame, ready to be sent: encoding to (pixels, CRC)."""


@dataclass(frozen=True, slots=True)
class _Shot:
    """One exposure."""

    frame_number: int
    trigger_count: int
    scene: _Scene
    exposure_end_s: float
    exposure_end_ns: int  # by the camera's clock


@dataclass(eq=False, slots=True)
class _Client:
    writer: asyncio.StreamWriter
    encoding: str


def encode(rgb: np.ndarray, encoding: str) -> bytes:
    """Pixels of a frame, uint8 (height, width, 3) RGB, as they go over the wire."""
    if encoding == "rgb8":
        return rgb.tobytes()
    if encoding == "mono8":
        weighted = rgb.astype(np.uint16) @ np.array([77, 150, 29], np.uint16)
        return (weighted // 256).astype(np.uint8).tobytes()
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    mosaic[0::2, 0::2] = rgb[0::2, 0::2, 0]
    mosaic[0::2, 1::2] = rgb[0::2, 1::2, 1]
    mosaic[1::2, 0::2] = rgb[1::2, 0::2, 1]
    mosaic[1::2, 1::2] = rgb[1::2, 1::2, 2]
    return mosaic.tobytes()


def _stand_back() -> None:
    """Drawing costs what real light does for nothing: it must not slow the cell on the same machine."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


class FramePort(TcpServer):
    """The network side of a camera: agrees on settings with its clients and writes frames to them.

    Args:
        now_ns: The camera's clock, ns since 1970.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
    """

    def __init__(self, now_ns: Callable[[], int], host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host, port, MAX_SETTINGS_BYTES)
        self.frames_sent = 0
        self.frames_lost = 0
        self._now_ns = now_ns
        self._clients: set[_Client] = set()

    @property
    def clients(self) -> int:
        """Connected clients that have sent their settings."""
        return len(self._clients)

    def _write(self, client: _Client, header: FrameHeader, pixels: bytes) -> None:
        if client.writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.frames_lost += 1  # the client doesn't read
            return
        client.writer.write(header.pack())
        client.writer.write(pixels)
        self.frames_sent += 1

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Agree on settings; frames are written to the client from then on, until it goes."""
        client: _Client | None = None
        try:
            client = await self._agree(reader, writer)
            self._clients.add(client)
            while await reader.read(4096):
                pass  # a client says nothing more; this ends when it goes
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            _log.info("camera client dropped: %s", error)
        finally:
            if client is not None:
                self._clients.discard(client)

    async def _agree(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Client:
        """Read the client's settings and answer with those that are really used."""
        line = await asyncio.wait_for(reader.readline(), SETTINGS_TIMEOUT_S)
        try:
            wanted = dict(json.loads(line))
        except (ValueError, TypeError) as error:
            writer.write(b'{"error": "settings must be one JSON object on a line"}\n')
            with contextlib.suppress(OSError):
                await writer.drain()
            raise ValueError(f"settings {line[:80]!r} are no JSON object") from error
        encoding = wanted.get("encoding")
        if encoding not in ENCODINGS:
            encoding = ENCODINGS[0]
        settings = {
            "encoding": encoding,
            "exposure_us": round(EXPOSURE_S * 1e6),
            "width": WIDTH,
            "height": HEIGHT,
            "time_ns": self._now_ns(),
        }
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 1024 * 1024)
        writer.write(to_json(settings, None).encode() + b"\n")
        await writer.drain()
        return _Client(writer, encoding)


class FrameServer(FramePort):
    """Frame server of the camera.

    Args:
        world: Its photo-eye triggers the camera; its fault switches ``camera.*`` disturb it.
        renderer: Makes the pictures; called in a worker thread only.
        wall_ns: Turns plant time (s) into ns since 1970.
        seconds_until: Real seconds until a plant time; negative when it is past.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
        readout_ms: From the end of exposure until the frame leaves.
    """

    def __init__(
        self,
        world: World,
        renderer: FrameRenderer,
        wall_ns: Callable[[float], int],
        seconds_until: Callable[[float], float],
        host: str = "127.0.0.1",
        port: int = 0,
        readout_ms: float = 12.0,
    ) -> None:
        super().__init__(lambda: self._clock_ns(world.t_s - seconds_until(world.t_s)), host, port)
        self.frames_late = 0
        self._world = world
        self._renderer = renderer
        self._wall_ns = wall_ns
        self._seconds_until = seconds_until
        self._readout_s = readout_ms / 1000.0
        self._frame_number = 0
        self._triggers = 0
        self._prepared: dict[Item, tuple[_Scene, Future[_Picture]]] = {}
        self._last: tuple[_Picture, int] | None = None
        self._shots: asyncio.Queue[_Shot] = asyncio.Queue()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="renderer", initializer=_stand_back)
        world.edge_listeners.append(self._expose)

    async def stop(self) -> None:
        """Close the port, all connections and the worker."""
        await self.disconnect()
        self._worker.shutdown(wait=True, cancel_futures=True)

    async def follow_faults(self) -> None:
        """Drop or take up connections, and restart, as the switches say."""
        faults = self._world.faults
        if faults.camera_restart > 0:
            faults.camera_restart -= 1
            await self.disconnect()
            self._triggers = self._frame_number = 0
        await self.follow_switch(faults.camera_disconnect)

    def _clock_ns(self, t_s: float) -> int:
        """The camera's clock at a plant time, ns since 1970."""
        return self._wall_ns(t_s) + round(self._world.faults.camera_clock_ahead_s * 1e9)

    def prepare(self) -> None:
        """Have the pictures of the batteries rendered that come next. Call it every few ms."""
        passed_mm = self._world.belt_mm - PASSED_MM
        for item in [item for item in self._prepared if item.belt_mm < passed_mm]:
            self._prepared.pop(item)[1].cancel()  # passed unseen: what is looked at now must not wait for it
        if not self._clients:
            return
        busy = sum(not future.done() for _, future in self._prepared.values())
        for item in self._expected():
            if busy >= RENDERS_AT_ONCE:
                return
            if self._is_outdated(item):
                scene = self._scene(item, item.belt_mm + item.offset_mm[0], self._world.set_point_mps)
                self._prepared[item] = (scene, self._render(scene))
                busy += 1

    def _expected(self) -> Iterator[Item]:
        """Batteries that come to the photo-eye, except for the last few, whose neighbours aren't known yet."""
        for item in self._world.on_belt:
            if item.belt_mm + item.offset_mm[0] > self._world.belt_mm:
                yield item
        known = len(self._world.upcoming)
        yield from islice(self._world.upcoming, known - NEIGHBOURS if known == LOOKAHEAD else known)

    def _is_outdated(self, item: Item) -> bool:
        if item not in self._prepared:
            return True
        scene, _ = self._prepared[item]
        return abs(scene.speed_mps - self._world.set_point_mps) > SPEED_TOLERANCE_MPS

    async def deliver(self) -> None:
        """Send the frames as they come due; runs until it is cancelled."""
        while True:
            shot = await self._shots.get()
            if not self._clients:
                continue
            due_s = shot.exposure_end_s + self._readout_s + self._world.faults.camera_delay_s
            if self._seconds_until(due_s) < -BUFFERED_S:
                self.frames_lost += 1  # a busy machine must not make every later frame later and later
                continue
            picture = await self._picture_of(shot)
            left_s = self._seconds_until(due_s)
            self.frames_late += left_s < -0.005
            await asyncio.sleep(max(0.0, left_s))
            self._push(shot, picture)

    def _expose(self, edge: Edge) -> None:
        if edge.eye is not PhotoEye.CAMERA:
            return
        if self._world.faults.camera_miss > 0:
            self._world.faults.camera_miss -= 1
            return
        self._frame_number += 1
        self._triggers += 1
        scene = self._scene(edge.item, edge.belt_mm, self._world.speed_mps)
        end_s = edge.t_s + EXPOSURE_S
        self._shots.put_nowait(_Shot(self._frame_number, self._triggers, scene, end_s, self._clock_ns(end_s)))

    def _scene(self, item: Item | None, belt_mm: float, speed_mps: float) -> _Scene:
        """What the camera sees when the belt has travelled to ``belt_mm``."""
        nearby = []
        for other in chain(self._world.on_belt, self._world.upcoming):
            along = belt_mm - other.belt_mm
            if along < -VIEW_MM:
                break
            if along < VIEW_MM and other is not item:
                nearby.append((other, along - other.offset_mm[0]))  # the renderer adds its offset
        return _Scene(item, tuple(nearby), speed_mps)

    async def _picture_of(self, shot: _Shot) -> _Picture:
        prepared = self._prepared.pop(shot.scene.item, None) if shot.scene.item is not None else None
        if prepared is not None and prepared[0].looks_like(shot.scene):
            picture = await asyncio.wrap_future(prepared[1])
            if all(client.encoding in picture for client in self._clients):
                return picture
        return await asyncio.wrap_future(self._render(shot.scene))

    def _render(self, scene: _Scene) -> Future[_Picture]:
        encodings = {client.encoding for client in self._clients}
        return self._worker.submit(self._make_picture, scene, self._world.t_s, encodings)

    def _make_picture(self, scene: _Scene, t_s: float, encodings: set[str]) -> _Picture:
        rgb = self._renderer.render(scene.item, speed_mps=scene.speed_mps, t_s=t_s, items_nearby=scene.nearby)
        pixels = {encoding: encode(rgb, encoding) for encoding in encodings}
        return {encoding: (data, checksum(data)) for encoding, data in pixels.items()}

    def _push(self, shot: _Shot, picture: _Picture) -> None:
        faults = self._world.faults
        if faults.camera_drop > 0:
            faults.camera_drop -= 1
            return
        exposure_end_ns = shot.exposure_end_ns
        if faults.camera_freeze and self._last is not None:
            picture, exposure_end_ns = self._last
        self._last = (picture, exposure_end_ns)
        corrupt = faults.camera_corrupt > 0
        faults.camera_corrupt -= corrupt
        for client in list(self._clients):
            if client.encoding in picture:
                self._send(client, shot, exposure_end_ns, *picture[client.encoding], corrupt=corrupt)

    def _send(
        self, client: _Client, shot: _Shot, exposure_end_ns: int, pixels: bytes, crc: int, *, corrupt: bool
    ) -> None:
        header = FrameHeader(
            frame_number=shot.frame_number,
            trigger_count=shot.trigger_count,
            exposure_end_ns=exposure_end_ns,
            width=WIDTH,
            height=HEIGHT,
            encoding=client.encoding,
            size=len(pixels),
            crc32=crc ^ 0xFFFF_FFFF if corrupt else crc,
        )
        self._write(client, header, pixels)

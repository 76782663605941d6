"""A camera behind a frame server (`frame_protocol`): frames pushed over TCP, one per trigger."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any, ClassVar, Literal

from pydantic import Field

from battery_sorting.core.errors import (
    DeviceConnectionError,
    DeviceProtocolError,
    DeviceSettingsError,
    DeviceTimeoutError,
    FrameError,
)
from battery_sorting.core.strict_json import to_json
from battery_sorting.drivers.base import DriverSettings
from battery_sorting.drivers.camera.base import Frame, TriggeredCamera
from battery_sorting.drivers.camera.frame_protocol import HEADER, FrameHeader, checksum

BYTES_PER_PIXEL = {"bayer_rggb8": 1, "mono8": 1, "rgb8": 3}
MAX_ANSWER_BYTES = 4096
QUICK_ROUND_TRIP_S = 0.002
"""The camera's clock is known to half of the round trip in which it was asked."""
STALE_S = 1.0
"""When nothing but old frames has come for so long, the clocks are compared anew."""
PROBE_IDLE_S = 1
PROBES = 3
"""Who only listens never hears that the other end is gone, so TCP asks it: after so long a silence, so often, one
second apart."""
CLOCK_TRIES = 4
"""So often it is connected anew if the answer takes longer; the quickest answer counts."""


class FrameServerSettings(DriverSettings):
    """Where the frame server is and what it shall deliver."""

    host: str = Field(min_length=1, description="name or address of the frame server")
    port: int = Field(ge=1, le=65535, description="TCP port of the frame server")
    encoding: Literal["bayer_rggb8", "rgb8", "mono8"] = Field("bayer_rggb8", description="encoding of the frames")
    exposure_us: int = Field(400, ge=1, le=1_000_000, description="exposure, in microseconds")
    max_age_s: float = Field(
        1.0, gt=0, description="a frame whose exposure ended longer ago is refused, in seconds"
    )
    """A frame from so far ahead, one from before the last one, and nothing but old ones for so long show that the
    camera's clock was set: the connection is closed, as connecting compares the clocks anew."""
    frame_timeout_s: float = Field(
        1.0, gt=0, description="a frame that has begun to arrive must be complete within this time, in seconds"
    )


class FrameServerCamera(TriggeredCamera):
    """Client of a frame server. One thread may read while another disconnects."""

    Settings: ClassVar[type[DriverSettings]] = FrameServerSettings

    def __init__(self, settings: FrameServerSettings) -> None:
        super().__init__(settings)
        self._settings = settings
        self._socket: socket.socket | None = None
        self._clock_offset_s = 0.0
        self._last: tuple[int, int] | None = None  # exposure end, checksum
        self._stale_since: float | None = None

    @property
    def connected(self) -> bool:
        """Whether the socket is open."""
        return self._socket is not None

    def connect(self, timeout_s: float = 2.0) -> None:
        """Opens the socket, hands over the settings and compares what the camera really uses."""
        if self.connected:
            return
        deadline = time.monotonic() + timeout_s
        best: tuple[float, float] | None = None
        for _ in range(CLOCK_TRIES):
            self.disconnect()
            round_trip_s, offset_s = self._open(deadline)
            best = min(best or (round_trip_s, offset_s), (round_trip_s, offset_s))
            if round_trip_s <= QUICK_ROUND_TRIP_S:
                break
        assert best is not None
        self._clock_offset_s = best[1]
        self._last = self._stale_since = None

    def _open(self, deadline: float) -> tuple[float, float]:
        """Opens the socket and hands over the settings; returns round trip and clock offset, both in s."""
        address = (self._settings.host, self._settings.port)
        try:
            self._socket = socket.create_connection(address, timeout=max(deadline - time.monotonic(), 1e-3))
        except OSError as error:
            raise DeviceConnectionError(
                f"camera at {address[0]}:{address[1]} can't be reached ({error}): "
                "is it on, are host and port right?"
            ) from error
        try:
            _have_it_probed(self._socket)
            return self._negotiate(deadline)
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Closes the socket; a `read` in another thread ends with a `DeviceConnectionError`."""
        sock, self._socket = self._socket, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def read(self, timeout_s: float) -> Frame:
        """Waits for the next frame and checks that it is complete, new and recent."""
        header, pixels = self._receive_frame(timeout_s)
        crc = checksum(pixels)
        if crc != header.crc32:
            raise FrameError(f"frame {header.frame_number} is corrupt: wrong checksum")
        previous, self._last = self._last, (header.exposure_end_ns, crc)
        if previous is not None and (header.exposure_end_ns == previous[0] or crc == previous[1]):
            raise FrameError(f"frame {header.frame_number} repeats the one before: the camera is frozen")
        if previous is not None and header.exposure_end_ns < previous[0]:
            back_s = (previous[0] - header.exposure_end_ns) * 1e-9
            raise self._broken(DeviceProtocolError(f"camera's clock has jumped back by {back_s:.2f} s at least"))
        exposed_at = header.exposure_end_ns * 1e-9 + self._clock_offset_s
        now, wall = time.monotonic(), time.time()  # side by side: what comes between them is an error of the stamp
        age_s = now - exposed_at
        self._check_age(header.frame_number, age_s)
        return Frame(
            frame_number=header.frame_number,
            trigger_count=header.trigger_count,
            stamp=wall - age_s,
            exposed_at=exposed_at,
            width=header.width,
            height=header.height,
            encoding=header.encoding,
            step=header.width * BYTES_PER_PIXEL[header.encoding],
            data=pixels,
        )

    def _check_age(self, number: int, age_s: float) -> None:
        limit_s, now = self._settings.max_age_s, time.monotonic()
        if age_s < -limit_s:
            raise self._broken(DeviceProtocolError(f"camera's clock has jumped {-age_s:.2f} s ahead"))
        if age_s <= limit_s:
            self._stale_since = None
            return
        if self._stale_since is None:
            self._stale_since = now
        if now - self._stale_since > STALE_S:
            raise self._broken(
                DeviceProtocolError(
                    f"all frames of the last {STALE_S:g} s are old, frame {number} by {age_s:.2f} s: the camera is "
                    "too slow, or its clock was set back"
                )
            )
        raise FrameError(f"frame {number} is {age_s:.2f} s old, allowed are {limit_s}")

    def _negotiate(self, deadline: float) -> tuple[float, float]:
        wanted: dict[str, Any] = {"encoding": self._settings.encoding, "exposure_us": self._settings.exposure_us}
        sock = self._open_socket()
        begin = time.monotonic()
        try:
            sock.sendall(to_json(wanted, None).encode() + b"\n")
        except OSError as error:
            raise DeviceConnectionError(f"camera connection broke: {error}") from error
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self._receive(1, deadline, "does not answer its settings")
            if len(line) > MAX_ANSWER_BYTES:
                raise DeviceProtocolError("camera answers its settings with garbage")
        round_trip_s = time.monotonic() - begin
        try:
            answer = json.loads(line)
            time_ns = answer["time_ns"]
            if isinstance(time_ns, bool) or not (isinstance(time_ns, (int, float)) and 0 <= time_ns < 2**64):
                raise ValueError("time_ns is no time")
            offset_s = begin + round_trip_s / 2 - time_ns * 1e-9
            taken = {key: answer[key] for key in wanted}
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise DeviceProtocolError(f"camera answers its settings with {bytes(line[:80])!r}") from error
        if taken != wanted:
            raise DeviceSettingsError(f"camera was told {wanted}, but uses {taken}")
        return round_trip_s, offset_s

    def _receive_frame(self, timeout_s: float) -> tuple[FrameHeader, bytes]:
        try:
            sock = self._open_socket()
            sock.settimeout(max(timeout_s, 1e-3))
            first = sock.recv(1)
        except TimeoutError:
            raise DeviceTimeoutError(f"no frame within {timeout_s} s") from None
        except OSError as error:
            raise self._broken(DeviceConnectionError(f"camera connection broke: {error}")) from error
        if not first:
            raise self._broken(DeviceConnectionError("camera closed the connection"))
        deadline = time.monotonic() + self._settings.frame_timeout_s
        stalled = "stopped in the middle of a frame"
        try:
            header = FrameHeader.unpack(first + self._receive(HEADER.size - 1, deadline, stalled))
            self._check(header)
        except ValueError as error:
            raise self._broken(DeviceProtocolError(f"camera sent garbage: {error}")) from error
        return header, self._receive(header.size, deadline, stalled)

    def _check(self, header: FrameHeader) -> None:
        """Raises ValueError if no frame of this camera can have such a header."""
        if header.encoding != self._settings.encoding:
            raise ValueError(f"a frame in {header.encoding}, {self._settings.encoding} was agreed on")
        size = header.width * header.height * BYTES_PER_PIXEL[header.encoding]
        if header.size != size or size == 0:
            raise ValueError(f"{header.width} x {header.height} pixels in {header.size} bytes")

    def _receive(self, size: int, deadline: float, complaint: str) -> bytes:
        """Exactly ``size`` bytes, or a `DeviceError` with the connection closed."""
        data = bytearray(size)
        view = memoryview(data)
        done = 0
        while done < size:
            try:
                sock = self._open_socket()
                sock.settimeout(max(deadline - time.monotonic(), 1e-3))
                received = sock.recv_into(view[done:])
            except TimeoutError:
                raise self._broken(DeviceTimeoutError(f"camera {complaint}")) from None
            except OSError as error:
                raise self._broken(DeviceConnectionError(f"camera connection broke: {error}")) from error
            if received == 0:
                raise self._broken(DeviceConnectionError("camera closed the connection"))
            done += received
            if time.monotonic() > deadline and done < size:  # it trickles
                raise self._broken(DeviceTimeoutError(f"camera {complaint}"))
        return bytes(data)

    def _open_socket(self) -> socket.socket:
        sock = self._socket
        if sock is None:
            raise DeviceConnectionError("camera is not connected")
        return sock

    def _broken(self, error: Exception) -> Exception:
        self.disconnect()
        return error


def _have_it_probed(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)

"""Drivers of cameras: on those of the simulated plant, belt and station, and on some that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from impostor import Handler, impostor
from plant_line import Line, accepts, running, wait_for
from support.links import Links, Trouble

from battery_sorting.core.errors import (
    DeviceConnectionError,
    DeviceError,
    DeviceProtocolError,
    DeviceSettingsError,
    DeviceTimeoutError,
    FrameError,
)
from battery_sorting.core.types import View
from battery_sorting.drivers.camera.base import Frame
from battery_sorting.drivers.camera.frame_protocol import MAX_PIXEL_BYTES, FrameHeader, checksum
from battery_sorting.drivers.camera.frame_server import FrameServerCamera, FrameServerSettings
from battery_sorting.drivers.station_plc.base import StationAction
from battery_sorting.plant.ev_station import EvWorld, EvWorldConfig
from battery_sorting.plant.station_camera import SceneRenderer, StationCamera
from battery_sorting.vision.synthetic.prismatic import PrismaticRenderer


@contextmanager
def connected(port: int, **settings: Any) -> Iterator[FrameServerCamera]:
    camera = FrameServerCamera(FrameServerSettings(host="127.0.0.1", port=port, **settings))
    camera.connect(1.0)
    try:
        yield camera
    finally:
        camera.disconnect()


@pytest.fixture
def camera(line) -> Iterator[FrameServerCamera]:
    with connected(line.camera.port) as camera:
        wait_for(lambda: line.camera.clients == 1)
        yield camera


# ---- on the simulated plant ----


def test_a_connection_that_died_without_a_word_is_noticed_though_the_driver_only_listens(line):
    with Links(["camera"]) as links:
        links.start({"camera": line.camera.port})
        with connected(links.ports["camera"]) as camera:
            links.set("camera", Trouble.HALF_OPEN)
            with pytest.raises(DeviceTimeoutError):
                camera.read(0.1)
            links.set("camera", Trouble.NONE)
            with pytest.raises(DeviceConnectionError, match="broke"):
                camera.read(2.0)
            assert not camera.connected


@pytest.mark.parametrize("camera_ahead_s", [0.0, 7.0])
def test_frames_come_in_order_with_the_time_of_exposure_on_the_hosts_clock(camera_ahead_s):
    line = Line(camera_ahead_s=camera_ahead_s)
    with running(line), connected(line.camera.port) as camera:
        line.run_belt()
        frames = [camera.read(2.0) for _ in range(8)]
        truth = line.exposure_ends()
    assert [frame.trigger_count for frame in frames] == list(range(1, 9))
    assert [frame.frame_number for frame in frames] == list(range(1, 9))
    errors_ms = [abs(frame.stamp - truth[frame.trigger_count]) * 1000 for frame in frames]
    assert max(errors_ms) < 2.0, errors_ms


@pytest.mark.parametrize(("encoding", "step"), [("bayer_rggb8", 1280), ("mono8", 1280), ("rgb8", 3840)])
def test_frames_have_the_encoding_that_was_asked_for(line, encoding, step):
    with connected(line.camera.port, encoding=encoding) as camera:
        line.run_belt()
        frame = camera.read(2.0)
    assert (frame.width, frame.height, frame.encoding, frame.step) == (1280, 1024, encoding, step)
    assert len(frame.data) == step * 1024


def test_no_trigger_is_a_timeout_and_no_fault(line, camera):
    for _ in range(2):
        begin = time.monotonic()
        with pytest.raises(DeviceTimeoutError):
            camera.read(0.1)
        assert 0.09 < time.monotonic() - begin < 0.4
        assert camera.connected
    line.run_belt()
    assert camera.read(2.0).frame_number == 1


def test_exposure_that_the_camera_does_not_take_is_refused(line):
    camera = FrameServerCamera(FrameServerSettings(host="127.0.0.1", port=line.camera.port, exposure_us=900))
    with pytest.raises(DeviceSettingsError, match=r"'exposure_us': 900.*'exposure_us': 400"):
        camera.connect()
    assert not camera.connected


def test_corrupt_frame_is_refused_and_the_next_is_fine(line, camera):
    line.run_belt()
    camera.read(2.0)
    line.set_faults(camera__corrupt=1)
    with pytest.raises(FrameError, match="checksum"):
        read_until_error(camera)
    good = camera.read(2.0)
    assert good.trigger_count > 2
    assert camera.connected


def test_frozen_camera_is_found_out_and_recovers(line, camera):
    line.run_belt()
    camera.read(2.0)
    line.set_faults(camera__freeze=True)
    with pytest.raises(FrameError, match="frozen"):
        read_until_error(camera)
    line.set_faults(camera__freeze=False)
    read_until_frame(camera)


def test_stale_frames_are_refused_until_they_are_recent_again(line):
    with connected(line.camera.port, max_age_s=0.2) as camera:
        line.run_belt()
        line.set_faults(camera__delay_s=0.4)
        with pytest.raises(FrameError, match=r"is 0\.[4-9]\d s old, allowed are 0\.2"):
            camera.read(3.0)
        line.set_faults(camera__delay_s=0)
        read_until_frame(camera)


def test_dropped_frames_are_missing_and_those_after_keep_their_trigger(line, camera):
    line.run_belt()
    first = camera.read(2.0)
    line.set_faults(camera__drop=2)
    numbers = [camera.read(2.0).trigger_count for _ in range(4)]
    missing = set(range(first.trigger_count, numbers[-1] + 1)) - {first.trigger_count, *numbers}
    assert len(missing) == 2
    assert numbers == sorted(numbers)


def test_camera_that_was_restarted_is_connected_again(line, camera):
    line.run_belt()
    camera.read(2.0)
    line.set_faults(camera__disconnect=True)
    wait_for(lambda: not accepts(line.camera.port))
    with pytest.raises(DeviceConnectionError):
        read_until_error(camera)
    assert not camera.connected
    line.set_faults(camera__disconnect=False)
    wait_for(lambda: accepts(line.camera.port))
    camera.connect()
    assert camera.read(2.0).trigger_count > 1


# issue 14, point 14
@pytest.mark.parametrize("step_s", [-0.5, -37.0, 37.0])
def test_camera_whose_clock_was_set_is_connected_anew_and_right_again(line, step_s):
    line.set_faults(camera__clock_ahead_s=max(-step_s, 0.0))
    with connected(line.camera.port) as camera:
        line.run_belt()
        camera.read(2.0)
        line.set_faults(camera__clock_ahead_s=max(step_s, 0.0))
        with pytest.raises(DeviceProtocolError, match="clock has jumped"):
            read_until_error(camera)
        assert not camera.connected
        camera.connect()
        frame = camera.read(2.0)
        assert abs(frame.stamp - line.exposure_ends()[frame.trigger_count]) < 0.005


# issue 14, point 14: nothing tells a clock that was set back before the first frame from a slow camera
def test_camera_whose_frames_are_all_old_is_connected_anew():
    old_ns = time.time_ns() - 37_000_000_000

    def handle(connection: socket.socket) -> None:
        agree = camera_that(nothing, hang_up=True)
        agree(connection)
        for number in range(200):
            pixels = bytes([number]) * len(PIXELS)
            connection.sendall(header(number + 1, pixels, exposure_end_ns=old_ns + number * 10**7) + pixels)
            if connection_closed(connection, 0.02):
                return

    with impostor(handle) as port, connected(port) as camera:
        with pytest.raises(FrameError, match=r"is 3\d\.\d+ s old"):
            camera.read(1.0)
        begin = time.monotonic()
        with pytest.raises(DeviceProtocolError, match="clock was set back"):
            while True:
                with contextlib.suppress(FrameError):
                    camera.read(1.0)
        assert time.monotonic() - begin < 3.0
        assert not camera.connected


# issue 14, point 7
@pytest.mark.parametrize("step_s", [-3600.0, -0.2, 0.2, 3600.0])
def test_step_of_the_hosts_clock_moves_nothing_but_stamps(line, camera, monkeypatch, step_s):
    line.run_belt()
    camera.read(2.0)
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + step_s)
    ahead_s = wall() - time.monotonic()
    for _ in range(3):
        frame = camera.read(2.0)
        truth = line.exposure_ends()[frame.trigger_count]
        assert abs(frame.exposed_at + ahead_s - truth) < 0.005
        assert abs(frame.stamp - step_s - truth) < 0.005


def connection_closed(connection: socket.socket, wait_s: float) -> bool:
    connection.settimeout(wait_s)
    try:
        return not connection.recv(1)
    except TimeoutError:
        return False
    except OSError:
        return True


# issue 14, point 7
def test_camera_that_restarts_counts_from_1_and_one_that_misses_a_trigger_does_not_count_it(line, camera):
    line.run_belt()
    first = camera.read(2.0)
    line.set_faults(camera__miss=1)
    wait_for(lambda: line.world.faults.camera_miss == 0)
    counts = [camera.read(2.0).trigger_count for _ in range(4)]
    assert counts == list(range(first.trigger_count + 1, first.trigger_count + 5))
    line.set_faults(camera__restart=1)
    with pytest.raises(DeviceConnectionError):
        read_until_error(camera)
    wait_for(lambda: line.world.faults.camera_restart == 0 and accepts(line.camera.port))
    camera.connect()
    assert camera.read(2.0).trigger_count < first.trigger_count + 5


def read_until_error(camera: FrameServerCamera) -> None:
    for _ in range(20):  # frames that were under way come first
        camera.read(2.0)


def read_until_frame(camera: FrameServerCamera) -> Frame:
    for _ in range(20):
        try:
            return camera.read(2.0)
        except FrameError:
            continue
    raise AssertionError("no good frame")


# ---- cameras that misbehave ----

WIDTH, HEIGHT = 8, 4
PIXELS = bytes(range(WIDTH * HEIGHT))


def header(number: int = 1, pixels: bytes = PIXELS, **changes: Any) -> bytes:
    fields = {
        "frame_number": number,
        "trigger_count": number,
        "exposure_end_ns": time.time_ns() + number,
        "width": WIDTH,
        "height": HEIGHT,
        "encoding": "bayer_rggb8",
        "size": len(pixels),
        "crc32": checksum(pixels),
    }
    return FrameHeader(**{**fields, **changes}).pack()


def camera_that(sends: Callable[[], bytes], *, hang_up: bool = False, **changes: Any) -> Handler:
    """Handler that agrees to all settings (but for ``changes``), sends some bytes and waits, or hangs up."""

    def handle(connection: socket.socket) -> None:
        wanted = json.loads(connection.makefile("rb").readline())
        answer = {**wanted, "width": WIDTH, "height": HEIGHT, "time_ns": time.time_ns(), **changes}
        connection.sendall(json.dumps(answer).encode() + b"\n" + sends())
        if not hang_up:
            connection.recv(1)

    return handle


def nothing() -> bytes:
    return b""


def test_good_frame_passes():
    with impostor(camera_that(lambda: header() + PIXELS)) as port, connected(port) as camera:
        assert camera.read(1.0).data == PIXELS


def test_other_encoding_than_asked_for_is_a_settings_error():
    with impostor(camera_that(nothing, encoding="mono8")) as port:
        camera = FrameServerCamera(FrameServerSettings(host="127.0.0.1", port=port))
        with pytest.raises(DeviceSettingsError, match=r"uses .*mono8"):
            camera.connect()
        assert not camera.connected


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"[1, 2]\n",
        b"7\n",
        b"{}\n",
        b"\n",
        b"\xff\xfe\n",
        b'{"error": "busy"}\n',
        b'{"encoding": "bayer_rggb8", "exposure_us": 400, "time_ns": Infinity}\n',
        b'{"encoding": "bayer_rggb8", "exposure_us": 400, "time_ns": NaN}\n',
        b'{"encoding": "bayer_rggb8", "exposure_us": 400, "time_ns": true}\n',
        b'{"encoding": "bayer_rggb8", "exposure_us": 400, "time_ns": -5}\n',
        b'{"encoding": "bayer_rggb8", "exposure_us": 400, "time_ns": "12"}\n',
        b'{"encoding": "bayer_rggb8", "exposure_us": 400, "time_ns": 1e300}\n',
        b'{"encoding": "bayer_rggb8", "exposure_us": 400, "time_ns": "noon"}\n',
        b"[" * 4000 + b"\n",
        b"x" * 100_000,
    ],
    ids=[
        "http",
        "list",
        "number",
        "empty",
        "blank",
        "bytes",
        "error",
        "infinity",
        "nan",
        "yes",
        "negative",
        "quoted",
        "large",
        "text",
        "deep",
        "endless",
    ],
)
def test_answer_to_the_settings_that_is_none_is_a_protocol_error(answer):
    def handle(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(answer)
        connection.recv(1)

    with impostor(handle) as port:
        camera = FrameServerCamera(FrameServerSettings(host="127.0.0.1", port=port))
        with pytest.raises(DeviceProtocolError, match="answers its settings with"):
            camera.connect(1.0)
        assert not camera.connected


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (lambda: b"GARBAGE!" * 20, "magic"),
        (lambda: header(size=MAX_PIXEL_BYTES + 1), "exceeds the limit"),
        (lambda: header(size=MAX_PIXEL_BYTES), "8 x 4 pixels"),
        (lambda: header(size=len(PIXELS) - 1), "8 x 4 pixels"),
        (lambda: header(width=0, size=0, pixels=b""), "0 x 4 pixels"),
        (lambda: header(encoding="mono8"), "in mono8, bayer_rggb8 was agreed on"),
        (lambda: header(encoding="jpeg"), "in jpeg"),
        (lambda: header().replace(b"bayer", b"b\xffyer"), "ascii"),
        (lambda: header(exposure_end_ns=time.time_ns() + 5_000_000_000) + PIXELS, "clock has jumped"),
    ],
    ids=["garbage", "absurd", "huge", "short", "empty", "encoding", "jpeg", "ascii", "future"],
)
def test_header_that_can_not_be_is_a_protocol_error_at_once(sent, complaint):
    with impostor(camera_that(sent)) as port, connected(port) as camera:
        begin = time.monotonic()
        with pytest.raises(DeviceProtocolError, match=complaint):
            camera.read(1.0)
        assert time.monotonic() - begin < 0.5
        assert not camera.connected


def test_camera_that_stops_in_mid_frame_is_a_timeout_and_closed():
    handler = camera_that(lambda: header() + PIXELS[:9])
    with impostor(handler) as port, connected(port, frame_timeout_s=0.1) as camera:
        begin = time.monotonic()
        with pytest.raises(DeviceTimeoutError, match="middle of a frame"):
            camera.read(1.0)
        assert time.monotonic() - begin < 0.5
        assert not camera.connected


def test_camera_that_is_cut_in_mid_frame_is_a_connection_error():
    for cut in (3, len(header()), len(header()) + 9):
        handler = camera_that(lambda cut=cut: (header() + PIXELS)[:cut], hang_up=True)
        with impostor(handler) as port, connected(port) as camera:
            with pytest.raises(DeviceConnectionError):
                camera.read(1.0)
            assert not camera.connected


def test_corrupt_frame_does_not_shift_those_after_it():
    frames = [header(1) + PIXELS, header(2) + PIXELS[::-1], header(3, PIXELS[1:] + b"x") + PIXELS[1:] + b"x"]
    with impostor(camera_that(lambda: b"".join(frames))) as port, connected(port) as camera:
        assert camera.read(1.0).frame_number == 1
        with pytest.raises(FrameError, match="frame 2"):
            camera.read(1.0)
        assert camera.read(1.0).frame_number == 3


def test_frame_with_the_pixels_of_the_one_before_is_a_repetition():
    with impostor(camera_that(lambda: header(1) + PIXELS + header(2) + PIXELS)) as port, connected(port) as camera:
        camera.read(1.0)
        with pytest.raises(FrameError, match="frozen"):
            camera.read(1.0)


def test_camera_that_trickles_is_given_up():
    def trickle(connection: socket.socket) -> None:
        connection.recv(1000)
        while True:
            connection.sendall(b"x")
            time.sleep(0.02)

    with impostor(trickle) as port:
        camera = FrameServerCamera(FrameServerSettings(host="127.0.0.1", port=port))
        begin = time.monotonic()
        with pytest.raises(DeviceTimeoutError, match="does not answer its settings"):
            camera.connect(0.2)
        assert time.monotonic() - begin < 0.5


def test_thread_that_connects_and_reads_meets_only_device_errors_while_another_disconnects():
    with impostor(camera_that(lambda: b"".join(header(n) + PIXELS for n in range(50)))) as port:
        camera = FrameServerCamera(FrameServerSettings(host="127.0.0.1", port=port))
        strange: list[BaseException] = []
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                try:
                    camera.connect(1.0)
                    camera.read(0.5)
                except DeviceError:
                    continue
                except BaseException as error:
                    strange.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        for n in range(100):
            camera.disconnect()
            time.sleep(n % 4 * 0.001)
        stop.set()
        camera.disconnect()
        reader.join(2)
        camera.disconnect()
        assert not reader.is_alive()
        assert not strange


# ---- on the cameras of the simulated station ----


class Station:
    """The station with its cameras in a thread, in real time; pictures are small."""

    def __init__(self) -> None:
        self.world = EvWorld(EvWorldConfig(time_factor=50.0, late_frame_s=0.5), seed=2)
        self._start_s, self._start_ns = time.monotonic(), time.time_ns()
        self._orders: list[StationAction] = []

    def now(self) -> float:
        return time.monotonic() - self._start_s

    def do(self, action: StationAction) -> None:
        self._orders.append(action)

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        darkroom = SceneRenderer(PrismaticRenderer(0, width=160), 5)
        self.world.may_arrive = darkroom.has
        self.cameras = {
            view: StationCamera(
                self.world,
                view,
                darkroom,
                wall_ns=lambda t_s: self._start_ns + round(t_s * 1e9),
                seconds_until=lambda t_s: t_s - self.now(),
            )
            for view in View
        }
        for camera in self.cameras.values():
            await camera.start()
        ready.set()
        while not stop.is_set():
            self.world.advance(self.now())
            if self._orders and not self.world.moving:
                self.world.start(self._orders.pop(0))
            for camera in self.cameras.values():
                await camera.follow_faults()
            await asyncio.sleep(0.005)
        for camera in self.cameras.values():
            await camera.stop()
        darkroom.close()


@pytest.fixture
def station() -> Iterator[Station]:
    with running(Station()) as station:
        station.do(StationAction.LOAD)
        wait_for(lambda: station.world.in_station)
        yield station


@pytest.fixture
def lug_camera(station) -> Iterator[FrameServerCamera]:
    settings = FrameServerSettings(
        host="127.0.0.1", port=station.cameras[View.LUG].port, encoding="rgb8", max_age_s=0.4
    )
    camera = FrameServerCamera(settings)
    camera.connect()
    yield camera
    camera.disconnect()


def shoot(station: Station, camera: FrameServerCamera, **faults: int) -> Frame:
    station.world.faults.set({name.replace("__", "."): count for name, count in faults.items()})
    station.do(StationAction.CAPTURE_LUG)
    return camera.read(1.0)


def pixels(frame: Frame) -> np.ndarray:
    return np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.width, 3)


def test_each_order_gives_one_frame_of_its_own_time(station, lug_camera):
    frames = [shoot(station, lug_camera) for _ in range(3)]
    assert [frame.trigger_count for frame in frames] == [1, 2, 3]
    assert all(0 <= time.time() - frame.stamp < 1 for frame in frames)
    assert (frames[0].width, frames[0].height) == (160, 128)
    assert pixels(frames[0]).std() > 5


def test_other_camera_stays_silent(station, lug_camera):
    station.do(StationAction.CAPTURE_CASE)
    with pytest.raises(DeviceTimeoutError):
        lug_camera.read(0.2)


def test_dropped_frame_leaves_a_gap_in_the_numbers(station, lug_camera):
    assert shoot(station, lug_camera).frame_number == 1
    station.world.faults.set({"lug.drop": 1})
    station.do(StationAction.CAPTURE_LUG)
    with pytest.raises(DeviceTimeoutError):
        lug_camera.read(0.3)
    assert shoot(station, lug_camera).frame_number == 3


def test_late_frame_is_refused_for_its_age_and_the_next_one_is_good(station, lug_camera):
    with pytest.raises(FrameError, match="s old"):
        shoot(station, lug_camera, lug__late=1)
    assert shoot(station, lug_camera).frame_number == 2


@pytest.mark.parametrize(
    ("fault", "shows"),
    [
        ("wrong_size", lambda frame: (frame.width, frame.height) == (80, 64)),
        ("blank", lambda frame: not pixels(frame).any()),
        ("saturated", lambda frame: (pixels(frame) == 255).all()),
        ("gray", lambda frame: (pixels(frame) == pixels(frame)[..., :1]).all()),
        ("blurred", lambda frame: pixels(frame).std() < 30),
    ],
)
def test_useless_frame_comes_through_as_it_is(station, lug_camera, fault, shows):
    assert shows(shoot(station, lug_camera, **{f"lug.{fault}": 1}))


def test_frame_of_another_depth_than_agreed_closes_the_link(station, lug_camera):
    with pytest.raises(DeviceProtocolError, match="mono16, rgb8 was agreed on"):
        shoot(station, lug_camera, lug__depth16=1)
    assert not lug_camera.connected
    lug_camera.connect()
    assert shoot(station, lug_camera).frame_number == 2


def test_camera_whose_line_is_cut_comes_back(station, lug_camera):
    with pytest.raises(DeviceConnectionError):
        shoot(station, lug_camera, lug__disconnect=1)
    wait_for(lambda: accepts(station.cameras[View.LUG].port))
    lug_camera.connect()
    assert shoot(station, lug_camera).frame_number == 2


def test_unplugged_camera_is_gone_until_it_is_plugged_in(station, lug_camera):
    station.world.faults.set({"lug.unplugged": True})
    with pytest.raises(DeviceConnectionError):
        lug_camera.read(2.0)
    with pytest.raises(DeviceConnectionError, match="can't be reached"):
        lug_camera.connect()
    station.world.faults.set({"lug.unplugged": False})
    wait_for(lambda: accepts(station.cameras[View.LUG].port))
    lug_camera.connect()
    assert shoot(station, lug_camera).frame_number == 1


# issue 14, point 14
@pytest.mark.parametrize(("before_s", "after_s"), [(0.3, 0.0), (37.0, 0.0), (0.0, 37.0)])
def test_camera_whose_clock_was_set_is_right_again_when_it_is_connected_anew(
    station, lug_camera, before_s, after_s
):
    station.world.faults.set({"lug.clock_ahead_s": before_s})
    lug_camera.disconnect()
    lug_camera.connect()
    frame = shoot(station, lug_camera)
    assert 0 <= time.monotonic() - frame.exposed_at < 0.2
    station.world.faults.set({"lug.clock_ahead_s": after_s})
    if abs(after_s - before_s) < 1:
        wait_for(lambda: time.monotonic() - frame.exposed_at > 0.35)  # no frame seems older than the one before
        odd = shoot(station, lug_camera)
        assert time.monotonic() - odd.exposed_at > 0.25
    else:
        with pytest.raises(DeviceProtocolError, match="clock has jumped"):
            shoot(station, lug_camera)
    lug_camera.disconnect()
    lug_camera.connect()
    frame = shoot(station, lug_camera)
    assert 0 <= time.monotonic() - frame.exposed_at < 0.2

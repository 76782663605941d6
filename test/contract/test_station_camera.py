"""The frame-server driver on the cameras of the simulated station: good frames, and every way they go wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from plant_line import accepts, running, wait_for

from battery_sorting.core.errors import (
    DeviceConnectionError,
    DeviceProtocolError,
    DeviceTimeoutError,
    FrameError,
)
from battery_sorting.core.types import View
from battery_sorting.drivers.camera.base import Frame
from battery_sorting.drivers.camera.frame_server import FrameServerCamera, FrameServerSettings
from battery_sorting.drivers.station_plc.base import StationAction
from battery_sorting.plant.ev_station import EvWorld, EvWorldConfig
from battery_sorting.plant.station_camera import SceneRenderer, StationCamera
from battery_sorting.vision.synthetic.prismatic import PrismaticRenderer


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
def camera(station) -> Iterator[FrameServerCamera]:
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


def test_each_order_gives_one_frame_of_its_own_time(station, camera):
    frames = [shoot(station, camera) for _ in range(3)]
    assert [frame.trigger_count for frame in frames] == [1, 2, 3]
    assert all(0 <= time.time() - frame.stamp < 1 for frame in frames)
    assert (frames[0].width, frames[0].height) == (160, 128)
    assert pixels(frames[0]).std() > 5


def test_other_camera_stays_silent(station, camera):
    station.do(StationAction.CAPTURE_CASE)
    with pytest.raises(DeviceTimeoutError):
        camera.read(0.2)


def test_dropped_frame_leaves_a_gap_in_the_numbers(station, camera):
    assert shoot(station, camera).frame_number == 1
    station.world.faults.set({"lug.drop": 1})
    station.do(StationAction.CAPTURE_LUG)
    with pytest.raises(DeviceTimeoutError):
        camera.read(0.3)
    assert shoot(station, camera).frame_number == 3


def test_late_frame_is_refused_for_its_age_and_the_next_one_is_good(station, camera):
    with pytest.raises(FrameError, match="s old"):
        shoot(station, camera, lug__late=1)
    assert shoot(station, camera).frame_number == 2


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
def test_useless_frame_comes_through_as_it_is(station, camera, fault, shows):
    assert shows(shoot(station, camera, **{f"lug.{fault}": 1}))


def test_frame_of_another_depth_than_agreed_closes_the_link(station, camera):
    with pytest.raises(DeviceProtocolError, match="mono16, rgb8 was agreed on"):
        shoot(station, camera, lug__depth16=1)
    assert not camera.connected
    camera.connect()
    assert shoot(station, camera).frame_number == 2


def test_camera_whose_line_is_cut_comes_back(station, camera):
    with pytest.raises(DeviceConnectionError):
        shoot(station, camera, lug__disconnect=1)
    wait_for(lambda: accepts(station.cameras[View.LUG].port))
    camera.connect()
    assert shoot(station, camera).frame_number == 2


def test_unplugged_camera_is_gone_until_it_is_plugged_in(station, camera):
    station.world.faults.set({"lug.unplugged": True})
    with pytest.raises(DeviceConnectionError):
        camera.read(2.0)
    with pytest.raises(DeviceConnectionError, match="can't be reached"):
        camera.connect()
    station.world.faults.set({"lug.unplugged": False})
    wait_for(lambda: accepts(station.cameras[View.LUG].port))
    camera.connect()
    assert shoot(station, camera).frame_number == 1


# issue 14, point 14
@pytest.mark.parametrize(("before_s", "after_s"), [(0.3, 0.0), (37.0, 0.0), (0.0, 37.0)])
def test_camera_whose_clock_was_set_is_right_again_when_it_is_connected_anew(station, camera, before_s, after_s):
    station.world.faults.set({"lug.clock_ahead_s": before_s})
    camera.disconnect()
    camera.connect()
    frame = shoot(station, camera)
    assert 0 <= time.monotonic() - frame.exposed_at < 0.2
    station.world.faults.set({"lug.clock_ahead_s": after_s})
    if abs(after_s - before_s) < 1:
        wait_for(lambda: time.monotonic() - frame.exposed_at > 0.35)  # no frame seems older than the one before
        odd = shoot(station, camera)
        assert time.monotonic() - odd.exposed_at > 0.25
    else:
        with pytest.raises(DeviceProtocolError, match="clock has jumped"):
            shoot(station, camera)
    camera.disconnect()
    camera.connect()
    frame = shoot(station, camera)
    assert 0 <= time.monotonic() - frame.exposed_at < 0.2

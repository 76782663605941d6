"""The simulated plant's servers over loopback, each with a client of its protocol."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from battery_sorting.core.errors import DeviceConnectionError, DeviceError
from battery_sorting.core.plant_control import PlantControl
from battery_sorting.drivers.camera.frame_protocol import HEADER, FrameHeader, checksum
from battery_sorting.drivers.plc import register_map as rm
from battery_sorting.drivers.plc.base import AckStatus, ValveCommand
from battery_sorting.drivers.plc.register_map import BeltStatusBits
from battery_sorting.drivers.registers import to_int
from battery_sorting.plant.control import ControlServer
from battery_sorting.plant.frame_server import FlatRenderer, FrameServer, encode
from battery_sorting.plant.plc import Plc, PlcServer
from battery_sorting.plant.world import World, WorldConfig

pytestmark = pytest.mark.realtime

SPEED_UP = 5.0  # plant seconds per real second


class Line:
    """World, PLC server, frame server and control server on an event loop in a thread."""

    def __init__(self, renderer: Any = None, **settings: Any) -> None:
        self.world = World(WorldConfig(**{"speed_mps": 1.0, **settings}), seed=3)
        self.plc = Plc(self.world, boot_id=77)
        self._renderer = renderer or FlatRenderer()
        self._start_s = time.monotonic()
        self._start_ns = time.time_ns()

    def now(self) -> float:
        return (time.monotonic() - self._start_s) * SPEED_UP

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        self.modbus = PlcServer(self.plc, self.now)
        self.camera = FrameServer(
            self.world,
            self._renderer,
            wall_ns=lambda t_s: self._start_ns + round(t_s / SPEED_UP * 1e9),
            seconds_until=lambda t_s: (t_s - self.now()) / SPEED_UP,
        )
        self.control = ControlServer({"faults": self.world.faults.as_dict}, self.set_faults, stop.set)
        servers = (self.modbus, self.camera, self.control)
        for server in servers:
            await server.start()
        delivery = asyncio.ensure_future(self.camera.deliver())
        ready.set()
        while not stop.is_set():
            self.plc.write_coil(rm.COIL_WATCHDOG, True)
            self.plc.advance(self.now())
            self.camera.prepare()
            await self.modbus.follow_faults()
            await self.camera.follow_faults()
            await asyncio.sleep(0.005)
        delivery.cancel()
        for server in servers:
            await server.stop()

    def set_faults(self, changes: dict[str, Any]) -> dict[str, Any]:
        self.world.faults.set(changes)
        return self.world.faults.as_dict()


@contextmanager
def running(line: Line) -> Iterator[Line]:
    ready, stops = threading.Event(), []

    async def serve() -> None:
        stop = asyncio.Event()
        stops.append((asyncio.get_running_loop(), stop))
        await line.serve(ready, stop)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(5)
        yield line
    finally:
        [(loop, stop)] = stops
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join(5)
        assert not thread.is_alive()


@pytest.fixture
def line() -> Iterator[Line]:
    with running(Line()) as line:
        yield line


@pytest.fixture
def master(line) -> Iterator[ModbusTcpClient]:
    client = ModbusTcpClient("127.0.0.1", port=line.modbus.port, timeout=0.3, retries=0)
    assert client.connect()
    yield client
    client.close()


def wait_for(condition: Callable[[], Any], limit_s: float = 5.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "didn't come true"
        time.sleep(0.005)


# ---- PLC ----


def test_master_runs_the_belt_and_has_a_valve_fired(master):
    assert master.read_input_registers(rm.STATUS_ADDRESS, count=rm.STATUS_SIZE).registers[0] == rm.MAP_VERSION
    assert not master.write_registers(rm.HR_RUN, [1, 800]).isError()
    assert master.read_holding_registers(rm.HR_RUN, count=2).registers == [1, 800]
    status = master.read_input_registers(rm.STATUS_ADDRESS, count=rm.STATUS_SIZE).registers
    assert status[rm.IR_STATUS] == BeltStatusBits.RUNNING
    target = to_int(status, rm.IR_ENCODER_COUNT) + 3000
    master.write_registers(rm.HR_COMMAND, rm.to_mailbox(ValveCommand(5, 1, target, 20, target + 50)))

    def fired() -> bool:
        ring = master.read_input_registers(rm.ACK_RING_ADDRESS, count=2 * rm.ACK_SIZE).registers
        return [ring[2], ring[8]] == [AckStatus.QUEUED, AckStatus.FIRED] and to_int(ring, 10) == target

    wait_for(fired)


def test_coils_act_and_read_as_zero_and_the_stop_button_is_an_input(line, master):
    assert not master.write_coil(rm.COIL_WATCHDOG, True).isError()
    assert master.read_coils(rm.COIL_WATCHDOG, count=3).bits[:3] == [False] * 3
    assert not master.read_discrete_inputs(rm.DI_EMERGENCY_STOP, count=1).bits[0]
    line.world.faults.set({"estop": True})
    assert master.read_discrete_inputs(rm.DI_EMERGENCY_STOP, count=1).bits[0]


def test_half_a_command_is_an_illegal_value(master):
    answer = master.write_registers(rm.HR_COMMAND, [0, 7])
    assert answer.isError()
    assert answer.exception_code == 3


def test_addresses_outside_the_map_are_illegal(master):
    assert master.read_input_registers(5000, count=2).exception_code == 2


def test_silent_plc_takes_requests_and_answers_none(line, master):
    line.world.faults.set({"plc.silent": True})
    with pytest.raises(ModbusException):
        master.write_registers(rm.HR_RUN, [1])
    line.world.faults.set({"plc.silent": False})
    master.close()
    assert master.connect()
    assert master.read_holding_registers(rm.HR_RUN, count=1).registers == [0], "the command had no effect"


def test_garbage_plc_never_gives_a_good_answer(line, master):
    line.world.faults.set({"plc.garbage": True})
    for _ in range(6):
        try:
            answer = master.write_registers(rm.HR_RUN, [1])
        except ModbusException:
            master.close()
            assert master.connect()
        else:
            assert answer.isError()
    assert not line.plc.running


def test_disconnected_plc_refuses_until_it_is_back_on_the_same_port(line, master):
    port = line.modbus.port
    line.world.faults.set({"plc.disconnect": True})
    wait_for(lambda: not _accepts(port))
    with pytest.raises((ModbusException, ConnectionError)):  # the latter where the connection is reset, not closed
        master.read_holding_registers(rm.HR_RUN, count=1)
    line.world.faults.set({"plc.disconnect": False})
    wait_for(lambda: _accepts(port))
    master.close()  # after a time-out it would take the old socket for a connection
    assert master.connect()
    assert master.read_holding_registers(rm.HR_RUN, count=1).registers == [0]


def test_port_in_use_is_an_error():
    async def start_twice() -> None:
        first = PlcServer(Plc(World(WorldConfig(), 1), boot_id=1), lambda: 0.0)
        second = PlcServer(Plc(World(WorldConfig(), 1), boot_id=1), lambda: 0.0)
        await first.start()
        second.port = first.port
        with pytest.raises(OSError, match=str(first.port)):
            await second.start()
        await first.stop()

    asyncio.run(start_twice())


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ---- camera ----


class CameraClient:
    """Reads frames as the protocol says."""

    def __init__(self, port: int, **settings: Any) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=3)
        self.stream = self.socket.makefile("rb")
        self.socket.sendall(json.dumps(settings).encode() + b"\n")
        self.settings = json.loads(self.stream.readline())

    def frame(self) -> tuple[FrameHeader, bytes]:
        header = FrameHeader.unpack(self.stream.read(HEADER.size))
        return header, self.stream.read(header.size)

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@pytest.fixture
def camera(line) -> Iterator[CameraClient]:
    client = CameraClient(line.camera.port, encoding="bayer_rggb8", exposure_us=400)
    wait_for(lambda: line.camera.clients == 1)
    line.plc.write_holding(rm.HR_RUN, [1, 1000])
    yield client
    client.close()


def test_each_edge_gives_a_frame_with_its_trigger_count(camera):
    frames = [camera.frame() for _ in range(3)]
    assert [header.trigger_count for header, _ in frames] == [1, 2, 3]
    assert [header.frame_number for header, _ in frames] == [1, 2, 3]
    for header, pixels in frames:
        assert (header.width, header.height, header.encoding) == (1280, 1024, "bayer_rggb8")
        assert header.size == len(pixels) == 1280 * 1024
        assert header.crc32 == checksum(pixels)
        assert 0.012 / SPEED_UP <= time.time() - header.exposure_end_ns / 1e9 < 3
    stamps = [header.exposure_end_ns for header, _ in frames]
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize(("encoding", "size"), [("rgb8", 3 * 1280 * 1024), ("mono8", 1280 * 1024)])
def test_camera_speaks_other_encodings(line, encoding, size):
    client = CameraClient(line.camera.port, encoding=encoding)
    line.plc.write_holding(rm.HR_RUN, [1, 1000])
    assert client.settings["encoding"] == encoding
    header, pixels = client.frame()
    assert (header.encoding, len(pixels)) == (encoding, size)
    client.close()


def test_camera_says_which_settings_it_really_uses(line):
    client = CameraClient(line.camera.port, encoding="yuv422", exposure_us=9000)
    assert client.settings.items() >= {"encoding": "bayer_rggb8", "exposure_us": 400, "width": 1280}.items()
    assert abs(client.settings["time_ns"] - time.time_ns()) < 1e9
    client.close()


def test_camera_refuses_settings_that_are_no_json(line):
    with socket.create_connection(("127.0.0.1", line.camera.port), timeout=3) as raw:
        raw.sendall(b"hello\n")
        assert b"error" in raw.recv(200)
        assert raw.recv(200) == b""


def test_dropped_frames_leave_a_gap_in_the_numbers(line, camera):
    line.world.faults.set({"camera.drop": 2})
    header, _ = camera.frame()
    assert (header.frame_number, header.trigger_count) == (3, 3)


def test_corrupt_frames_have_a_wrong_checksum(line, camera):
    line.world.faults.set({"camera.corrupt": 1})
    header, pixels = camera.frame()
    assert header.crc32 != checksum(pixels)
    header, pixels = camera.frame()
    assert header.crc32 == checksum(pixels)


def test_frozen_camera_repeats_pixels_and_time(line, camera):
    first, pixels = camera.frame()
    line.world.faults.set({"camera.freeze": True})
    second, again = camera.frame()
    assert second.trigger_count == first.trigger_count + 1
    assert second.exposure_end_ns == first.exposure_end_ns
    assert again == pixels


def test_delayed_frames_keep_their_time_of_exposure(line, camera):
    line.world.faults.set({"camera.delay_s": 1.0})
    header, _ = camera.frame()
    assert time.time() - header.exposure_end_ns / 1e9 >= 1.0 / SPEED_UP


def test_disconnected_camera_refuses_until_it_is_back(line, camera):
    port = line.camera.port
    camera.frame()
    line.world.faults.set({"camera.disconnect": True})
    wait_for(lambda: not _accepts(port))
    while camera.stream.read(65536):
        pass  # what was under way; then the end of the stream
    line.world.faults.set({"camera.disconnect": False})
    wait_for(lambda: _accepts(port))
    client = CameraClient(port, encoding="mono8")
    client.frame()
    client.close()


def test_frame_of_a_ghost_edge_shows_the_belt_alone(line, camera):
    line.world.faults.set({"eye.miss": 1000, "eye.ghost": 1})
    _, pixels = camera.frame()
    assert np.unique(np.frombuffer(pixels, np.uint8)).tolist() == [40]


def test_renderer_is_told_the_neighbours_in_view():
    calls: list[tuple[Any, float, tuple]] = []

    class Spy(FlatRenderer):
        def render(self, item, *, speed_mps, t_s, items_nearby=()):
            calls.append((item, speed_mps, tuple(items_nearby)))
            return super().render(item, speed_mps=speed_mps, t_s=t_s)

    with running(Line(Spy(), pitch_mm=80.0)) as line:
        client = CameraClient(line.camera.port, encoding="mono8")
        wait_for(lambda: line.camera.clients == 1)
        line.plc.write_holding(rm.HR_RUN, [1, 1000])
        for _ in range(4):
            client.frame()
        client.close()
    item, speed_mps, nearby = calls[2]
    assert speed_mps == pytest.approx(1.0, abs=0.1)
    upstream = [distance for other, distance in nearby if other.index > item.index]
    downstream = [distance for other, distance in nearby if other.index < item.index]
    assert upstream
    assert downstream
    assert all(-110 < distance < -50 for distance in upstream)
    assert all(50 < distance < 110 for distance in downstream)


def test_slow_picture_delays_no_frame():
    rendered = []

    class Slow(FlatRenderer):
        def render(self, item, *, speed_mps, t_s, items_nearby=()):
            rendered.append(item.index)
            if item.index == 12:
                time.sleep(0.5)
            return super().render(item, speed_mps=speed_mps, t_s=t_s, items_nearby=items_nearby)

    with running(Line(Slow())) as line:
        client = CameraClient(line.camera.port, encoding="mono8")
        wait_for(lambda: len(rendered) > 10)
        line.plc.write_holding(rm.HR_RUN, [1, 1000])
        delays_s = []
        for _ in range(14):
            header, _ = client.frame()
            delays_s.append(time.time() - header.exposure_end_ns / 1e9)
        client.close()
    # If the others had waited for it, seven of them would be late; a busy machine delays one.
    assert sorted(delays_s)[-3] < 0.2


def test_frames_that_cannot_be_drawn_in_time_are_lost_instead_of_ever_later():
    class Slow(FlatRenderer):
        def render(self, item, *, speed_mps, t_s, items_nearby=()):
            time.sleep(0.25)
            return super().render(item, speed_mps=speed_mps, t_s=t_s, items_nearby=items_nearby)

    with running(Line(Slow())) as line:
        client = CameraClient(line.camera.port, encoding="mono8")
        line.plc.write_holding(rm.HR_RUN, [1, 1000])
        numbers, delays_s = [], []
        while len(numbers) < 6 or line.camera.frames_lost < 10:
            header, _ = client.frame()
            numbers.append(header.frame_number)
            delays_s.append(time.time() - header.exposure_end_ns / 1e9)
        client.close()
    assert max(delays_s) < 5.0  # of 2 s in the buffer, three pictures that are drawn first, and a busy machine
    assert numbers == sorted(set(numbers)), "every frame has the number of its trigger"
    assert numbers[-1] > len(numbers)


def test_picture_is_rendered_again_when_the_speed_has_changed():
    speeds: dict[int, list[float]] = {}

    class Spy(FlatRenderer):
        def render(self, item, *, speed_mps, t_s, items_nearby=()):
            speeds.setdefault(item.index, []).append(speed_mps)
            return super().render(item, speed_mps=speed_mps, t_s=t_s, items_nearby=items_nearby)

    with running(Line(Spy(), speed_mps=0.3)) as line:
        client = CameraClient(line.camera.port, encoding="mono8")
        wait_for(lambda: len(speeds) > 8)
        line.plc.write_holding(rm.HR_RUN, [1, 1000])
        wait_for(lambda: len(speeds.get(8, [])) == 2)
        client.close()
    assert speeds[8] == [0.3, 1.0]


def test_client_that_reads_nothing_does_not_hold_up_the_end(line):
    client = CameraClient(line.camera.port, encoding="rgb8")
    line.plc.write_holding(rm.HR_RUN, [1, 1000])
    wait_for(lambda: line.camera.frames_lost > 0, limit_s=10.0)
    started = time.monotonic()
    with PlantControl("127.0.0.1", line.control.port) as control:
        control.shutdown()
        wait_for(lambda: not _accepts(line.camera.port), limit_s=2.0)
    assert time.monotonic() - started < 2.0
    client.close()


def test_bayer_mosaic_is_rggb():
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[...] = (10, 20, 30)
    assert list(encode(rgb, "bayer_rggb8")) == [10, 20, 20, 30]
    assert list(encode(np.full((1, 1, 3), 200, np.uint8), "mono8")) == [200]


# ---- control port ----


def test_faults_are_read_and_set_by_the_control_port(line):
    with PlantControl("127.0.0.1", line.control.port) as control:
        assert control.set_faults(**{"camera.drop": 3, "valve.stick": [2]})["camera.drop"] == 3
        assert control.faults()["valve.stick"] == [2]
    assert line.world.faults.camera_drop == 3


@pytest.mark.parametrize(
    "request_", [b"what\n", b'{"get": "moon"}\n', b'{"set": 5}\n', b"[]\n", b'{"set": {"x": 1}}\n']
)
def test_control_port_explains_what_is_wrong_and_goes_on(line, request_):
    with socket.create_connection(("127.0.0.1", line.control.port), timeout=3) as raw, raw.makefile("rb") as stream:
        raw.sendall(request_)
        answer = json.loads(stream.readline())
        assert answer["ok"] is False
        assert answer["error"]
        raw.sendall(b'{"get": "faults"}\n')
        assert json.loads(stream.readline())["ok"] is True


def test_control_client_raises_what_the_plant_refuses(line):
    with PlantControl("127.0.0.1", line.control.port) as control:
        with pytest.raises(DeviceError, match=r"camera\.drpo"):
            control.set_faults(**{"camera.drpo": 3})
        control.shutdown()
        with pytest.raises(DeviceConnectionError):
            for _ in range(50):
                control.faults()
                time.sleep(0.02)
    with pytest.raises(DeviceConnectionError, match="is the plant running"):
        PlantControl("127.0.0.1", line.control.port)

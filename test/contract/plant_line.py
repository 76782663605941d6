"""World, PLC server and frame server of the simulated plant in a thread, in real time."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from battery_sorting.drivers.plc import register_map as rm
from battery_sorting.plant.cells import Cells
from battery_sorting.plant.ev_station import EvWorld, EvWorldConfig
from battery_sorting.plant.frame_server import FlatRenderer, FrameServer
from battery_sorting.plant.instruments import TesterSettings, start_instruments
from battery_sorting.plant.plc import Plc, PlcServer
from battery_sorting.plant.robot import RobotServer, SimulatedRobot, Slot
from battery_sorting.plant.station_plc import StationPlcProgram
from battery_sorting.plant.world import World, WorldConfig

BOOT_ID = 77


class Line:
    """A belt that carries a battery every 70 ms once it runs; the first reaches the photo-eye after 0.2 s.

    ``camera_ahead_s`` is how much the camera's clock is ahead of the host's.
    """

    def __init__(self, camera_ahead_s: float = 0.0, **settings: Any) -> None:
        self.events: list[dict[str, Any]] = []
        config = {"speed_mps": 1.5, "ramp_mps2": 100.0, "gate_offset_mm": -80.0, "spawn_offset_mm": -145.0}
        self.world = World(WorldConfig(**{**config, **settings}), seed=3, record=self.events.append)
        self.plc = Plc(self.world, boot_id=BOOT_ID)
        self.station = EvWorld(EvWorldConfig(time_factor=20.0), seed=3, record=self.events.append)
        self.station_plc = StationPlcProgram(self.station, boot_id=BOOT_ID)
        self.robot = SimulatedRobot(
            {"here": Slot("cell"), "there": Slot()}, self.events.append, BOOT_ID, half_s=0.05
        )
        self.feeds_watchdog = True
        self._start_s = time.monotonic()
        self._start_ns = time.time_ns()
        self._ahead_ns = round(camera_ahead_s * 1e9)

    def now(self) -> float:
        return time.monotonic() - self._start_s

    def exposure_ends(self) -> dict[int, float]:
        """Trigger count to the true end of exposure, on the host's clock."""
        return {
            event["trigger_count"]: self._start_ns * 1e-9 + event["t_s"] + 0.0004
            for event in list(self.events)
            if event["event"] == "trigger"
        }

    def run_belt(self, speed_mps: float = 1.5) -> None:
        self.plc.write_holding(rm.HR_RUN, [1, round(speed_mps * 1000)])

    def set_faults(self, **switches: Any) -> None:
        """Switches of the belt, the station and the tester, each by the name that it has there."""
        named = {name.replace("__", "."): value for name, value in switches.items()}
        known = self.world.faults.as_dict()
        self.world.faults.set({name: value for name, value in named.items() if name in known})
        self.robot.faults.disconnect = named.pop("robot.disconnect", self.robot.faults.disconnect)
        station = self.station.faults.as_dict()
        self.station.faults.set({name: value for name, value in named.items() if name in station})
        others = {name: value for name, value in named.items() if name not in known and name not in station}
        self.instruments.set_faults(others)

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        self.modbus = PlcServer(self.plc, self.now)
        self.station_modbus = PlcServer(self.station_plc, self.now)
        self.camera = FrameServer(
            self.world,
            FlatRenderer(),
            wall_ns=lambda t_s: self._start_ns + self._ahead_ns + round(t_s * 1e9),
            seconds_until=lambda t_s: t_s - self.now(),
        )
        self.instruments = await start_instruments(TesterSettings(channels=2), Cells(2), self.events.append)
        await self.modbus.start()
        await self.station_modbus.start()
        self.robot_port = RobotServer(self.robot)
        await self.robot_port.start()
        await self.camera.start()
        delivery = asyncio.ensure_future(self.camera.deliver())
        ready.set()
        while not stop.is_set():
            if self.feeds_watchdog:
                self.plc.write_coil(rm.COIL_WATCHDOG, True)
            self.plc.advance(self.now())
            self.station_plc.advance(self.now())
            self.camera.prepare()
            await self.modbus.follow_faults()
            await self.station_modbus.follow_faults()
            self.robot.advance(self.now())
            await self.robot_port.follow_faults()
            await self.camera.follow_faults()
            await asyncio.sleep(0.005)
        delivery.cancel()
        await self.modbus.stop()
        await self.station_modbus.stop()
        await self.robot_port.stop()
        await self.camera.stop()
        await self.instruments.stop()


@contextmanager
def running(line: Line) -> Iterator[Line]:
    ready, stops = threading.Event(), []

    async def serve() -> None:
        stop = asyncio.Event()
        stops.append((asyncio.get_running_loop(), stop))
        await line.serve(ready, stop)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="plant")
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


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], Any], limit_s: float = 5.0) -> Any:
    end = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < end, "didn't come true"
        time.sleep(0.005)
    return value

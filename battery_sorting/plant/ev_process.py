"""The plant of an EV line as a process: station, PLC, two cameras, control port. `plant.process.main` starts it."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from pydantic import Field, ValidationError

from battery_sorting.core.errors import ConfigurationError, DeviceConnectionError
from battery_sorting.core.ev.plant_record import EvPlantRecord
from battery_sorting.core.ev.types import View
from battery_sorting.plant.cells import CellSettings
from battery_sorting.plant.control import ControlServer
from battery_sorting.plant.ev_floor import Floor
from battery_sorting.plant.ev_station import EvWorld, EvWorldConfig
from battery_sorting.plant.instruments import TesterSettings
from battery_sorting.plant.plc import PlcServer
from battery_sorting.plant.prismatic import PrismaticRenderer
from battery_sorting.plant.process import TICK_S, Clock, LagMeter, parent_died, settings_problem
from battery_sorting.plant.record import Recorder
from battery_sorting.plant.station_camera import Darkroom, StationCamera
from battery_sorting.plant.station_plc import StationPlcProgram


class EvPlantConfig(EvWorldConfig):
    """Settings of the plant: the station's, and those of the process. docs/plant.md explains each key."""

    seed: int = Field(0, ge=0)
    host: str = "127.0.0.1"
    modbus_port: int = Field(0, ge=0, le=65535)
    lug_camera_port: int = Field(0, ge=0, le=65535)
    case_camera_port: int = Field(0, ge=0, le=65535)
    cycler_port: int = Field(0, ge=0, le=65535)
    meter_port: int = Field(0, ge=0, le=65535)
    robot_port: int = Field(0, ge=0, le=65535)
    control_port: int = Field(0, ge=0, le=65535)
    channels: int = Field(0, ge=0, le=64, description="of the tester; 0: nothing stands behind the outlets")
    buffer: int = Field(64, ge=1, le=1000)
    trays: dict[str, int] = Field(default_factory=dict)
    move_s: float = Field(1.0, gt=0, description="seconds of a move of the robot")
    test_time_factor: float = Field(1.0, gt=0, le=100_000, description="cells are tested so many times as fast")
    cells: CellSettings = CellSettings()
    record: str | None = None
    readout_ms: float = Field(12.0, ge=0)


def make_ev_config(settings: dict[str, Any], source: str = "plant settings") -> EvPlantConfig:
    """Check settings.

    Raises:
        ConfigurationError: With all faults.
    """
    try:
        return EvPlantConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigurationError(source, [settings_problem(entry) for entry in error.errors()]) from error


class EvPlant:
    """The whole plant of an EV line."""

    def __init__(self, config: EvPlantConfig) -> None:
        self._config = config
        self.boot_id = int(time.time())
        self._recorder = Recorder(EvPlantRecord())
        self.world = EvWorld(config, config.seed, self._recorder)
        self.plc = StationPlcProgram(self.world, self.boot_id)
        self._clock = clock = Clock(1.0)
        self._lag = LagMeter()
        self._stop = asyncio.Event()
        self._darkroom = Darkroom(PrismaticRenderer(config.seed), config.seed)
        self.world.coming_listeners.append(self._darkroom.prepare)
        self.world.may_arrive = self._darkroom.has
        self._modbus = PlcServer(self.plc, clock.now, config.host, config.modbus_port)
        ports = {View.LUG: config.lug_camera_port, View.CASE: config.case_camera_port}
        self._cameras = {
            view: StationCamera(
                self.world,
                view,
                self._darkroom,
                clock.wall_ns,
                clock.seconds_until,
                config.host,
                port,
                config.readout_ms,
            )
            for view, port in ports.items()
        }
        self.floor = self._make_floor() if config.channels else None
        getters = {
            "summary": self.summary,
            "record": self.record,
            "faults": self._faults,
            "state": self.state,
        }
        self._control = ControlServer(getters, self._set_faults, self.stop, config.host, config.control_port)

    def _make_floor(self) -> Floor:
        config = self._config
        tester = TesterSettings(
            channels=config.channels,
            host=config.host,
            meter_port=config.meter_port,
            cycler_port=config.cycler_port,
            time_factor=config.test_time_factor,
            seed=config.seed,
            cells=config.cells,
        )
        return Floor(
            self.world,
            tester,
            config.buffer,
            config.trays,
            self._recorder,
            self._clock.now,
            self.boot_id,
            config.move_s / config.time_factor,
            config.host,
            config.robot_port,
        )

    def stop(self) -> None:
        """Let `run` end."""
        self._stop.set()

    async def open(self) -> dict[str, Any]:
        """Open all ports, then the record file; returns what the ready line says. On an error nothing is left open.

        Raises:
            DeviceConnectionError: A port can't be used.
            ConfigurationError: The record file can't be written.
        """
        servers: dict[str, PlcServer | StationCamera | ControlServer] = {
            "modbus_port": self._modbus,
            "lug_camera_port": self._cameras[View.LUG],
            "case_camera_port": self._cameras[View.CASE],
            "control_port": self._control,
        }
        for key, server in servers.items():
            try:
                await server.start()
            except OSError as error:
                port = server.port
                await self.close()
                raise DeviceConnectionError(
                    f"{key}: port {port} can't be used, probably another process holds it ({error}): "
                    "end that process, or give another port or 0 for any free one"
                ) from error
        if self.floor is not None:
            try:
                await self.floor.start()
            except OSError as error:
                await self.close()
                raise DeviceConnectionError(
                    f"a port of {', '.join(self.floor.ports)} can't be used ({error}): give another, or 0 for any"
                ) from error
        try:
            self._start_record()
        except OSError as error:
            await self.close()
            problem = f"record: {self._config.record} can't be written ({error.strerror}): give another file"
            raise ConfigurationError("plant settings", [problem]) from error
        self.world.look_ahead()
        ports = {key: server.port for key, server in servers.items()}
        if self.floor is not None:
            ports |= self.floor.ports
        return {"ready": True, **ports, "boot_id": self.boot_id, "pid": os.getpid()}

    async def run(self, *, exit_with_parent: bool = False) -> None:
        """Run until `stop`, then close. A failure inside the plant is raised."""
        jobs = [self._tick_forever(), self._stop.wait()]
        if exit_with_parent:
            jobs.append(parent_died())
        tasks = [asyncio.ensure_future(job) for job in jobs]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        """Close all ports and complete the record; may be called twice."""
        await self._control.stop()
        for camera in self._cameras.values():
            await camera.stop()
        await self._modbus.stop()
        if self.floor is not None:
            await self.floor.stop()
        self._darkroom.close()
        self._recorder({"event": "summary", **self.summary()})
        self._recorder.close()

    def summary(self) -> dict[str, Any]:
        """Counts so far and how well the plant kept time."""
        return {
            "boot_id": self.plc.boot_id,
            "t_s": round(self.world.t_s, 3),
            "items": self.world.drawn,
            "finished": self.world.empty and not self.world.in_station and not self.world.moving,
            "outlets": dict(self.world.counts),
            "injected": self._recorder.counts["injected"],
            "modbus_requests": self._modbus.requests,
            "frames_sent": {view.value: camera.frames_sent for view, camera in self._cameras.items()},
            "frames_lost": {view.value: camera.frames_lost for view, camera in self._cameras.items()},
            "tick_lag_ms": self._lag.as_dict(),
            "cpu_s": round(time.process_time(), 3),
            "record_error": self._recorder.write_error,
        }

    def record(self) -> dict[str, Any]:
        """The record so far, see `EvPlantRecord.as_dict`."""
        return self._recorder.record.as_dict()

    def state(self) -> dict[str, Any]:
        """The station at this moment."""
        world = self.world
        return {
            "t_s": round(world.t_s, 3),
            "flipper": world.flipper.name.lower(),
            "flipper_deg": round(world.flipper_deg, 1),
            "jam": world.jam,
            "moving": world.moving,
            "in_station": [cell.index for cell in world.in_station],
            "at_outlets": {name: [cell.index for cell in cells] for name, cells in world.outlets.items()},
            "places": self.floor.contents() if self.floor is not None else {},
            "camera_clients": {view.value: camera.clients for view, camera in self._cameras.items()},
        }

    def _start_record(self) -> None:
        if self._config.record is not None:
            self._recorder.open(self._config.record)
        self._recorder(
            {
                "event": "start",
                "t_s": 0.0,
                "boot_id": self.boot_id,
                "start_ns": self._clock.start_ns,
                "seed": self._config.seed,
                "items": self._config.items,
                "outlets": self._config.outlets,
            }
        )
        if self.floor is not None:
            self.floor.instruments.tell_truth()

    def _set_faults(self, changes: dict[str, Any]) -> dict[str, Any]:
        behind = {name: value for name, value in changes.items() if self.floor and self.floor.knows_fault(name)}
        before = self.world.faults.as_dict()
        self.world.faults.set({name: value for name, value in changes.items() if name not in behind})
        if self.floor is not None and behind:
            try:
                self.floor.set_faults(behind)
            except ConfigurationError:
                self.world.faults.set(before)
                raise
        for name, value in changes.items():
            if name.startswith(("tester.", "meter.", "cycler.")):
                continue  # the instruments tell it themselves
            self._recorder({"event": "fault", "t_s": round(self.world.t_s, 6), "name": name, "value": value})
        return self._faults()

    def _faults(self) -> dict[str, Any]:
        """All fault switches."""
        return {**self.world.faults.as_dict(), **(self.floor.faults() if self.floor is not None else {})}

    async def _tick_forever(self) -> None:
        due_s = self._clock.elapsed_s() + TICK_S
        while True:
            await asyncio.sleep(max(0.0, due_s - self._clock.elapsed_s()))
            now_s = self._clock.elapsed_s()
            self._lag.add((now_s - due_s) * 1000.0)
            self.plc.advance(self._clock.now())
            if self.floor is not None:
                await self.floor.advance()
            await self._modbus.follow_faults()
            for camera in self._cameras.values():
                await camera.follow_faults()
            due_s = max(due_s + TICK_S, now_s)

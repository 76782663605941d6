"""The plant of an EV line as a process: station, PLC, two cameras, control port. `plant.process.main` starts it."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field, ValidationError

from battery_sorting.core.errors import ConfigurationError, DeviceConnectionError
from battery_sorting.core.types import View
from battery_sorting.ev.plant_record import EvPlantRecord, load_ev_record
from battery_sorting.plant.base import PlantProcess, ProcessConfig, settings_problem
from battery_sorting.plant.cells import CellSettings
from battery_sorting.plant.ev_floor import Floor, RobotSettings
from battery_sorting.plant.ev_station import EvWorld, EvWorldConfig
from battery_sorting.plant.instruments import TesterSettings
from battery_sorting.plant.record import Recorder
from battery_sorting.plant.station_camera import SceneRenderer, StationCamera
from battery_sorting.plant.station_plc import StationPlcProgram
from battery_sorting.vision.synthetic.prismatic import PrismaticRenderer


class EvPlantConfig(EvWorldConfig, ProcessConfig):
    """Settings of the plant: the station's, and those of the process. docs/reference/plant.md explains each key."""

    lug_camera_port: int = Field(0, ge=0, le=65535)
    case_camera_port: int = Field(0, ge=0, le=65535)
    cycler_port: int = Field(0, ge=0, le=65535)
    meter_port: int = Field(0, ge=0, le=65535)
    robot_port: int = Field(0, ge=0, le=65535)
    channels: int = Field(0, ge=0, le=64, description="of the tester; 0: nothing stands behind the outlets")
    buffer: int = Field(64, ge=1, le=1000)
    trays: dict[str, int] = Field(default_factory=dict)
    move_s: float = Field(1.0, gt=0, description="seconds of a move of the robot")
    test_time_factor: float = Field(1.0, gt=0, le=100_000, description="cells are tested so many times as fast")
    cells: CellSettings = CellSettings()


def make_ev_config(settings: dict[str, Any], source: str = "plant settings") -> EvPlantConfig:
    """Check settings.

    Raises:
        ConfigurationError: With all faults.
    """
    try:
        return EvPlantConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigurationError(source, [settings_problem(entry) for entry in error.errors()]) from error


class EvPlant(PlantProcess):
    """The plant of an EV line: station, PLC, two cameras, and what stands behind the outlets."""

    _config: EvPlantConfig
    world: EvWorld

    def __init__(self, config: EvPlantConfig) -> None:
        recorder = Recorder(EvPlantRecord(), keep=config.keep_record)
        boot_id = int(time.time())
        world = EvWorld(config, config.seed, recorder)
        super().__init__(config, recorder, world, StationPlcProgram(world, boot_id), boot_id)
        self._darkroom = SceneRenderer(PrismaticRenderer(config.seed), config.seed)
        self.world.coming_listeners.append(self._darkroom.prepare)
        self.world.may_arrive = self._darkroom.has
        ports = {View.LUG: config.lug_camera_port, View.CASE: config.case_camera_port}
        self._cameras = {view: self._make_camera(view, port) for view, port in ports.items()}
        self.cameras = {f"{view.value}_camera_port": camera for view, camera in self._cameras.items()}
        self.floor = self._make_floor() if config.channels else None

    def _make_camera(self, view: View, port: int) -> StationCamera:
        return StationCamera(
            self.world,
            view,
            self._darkroom,
            self._clock.wall_ns,
            self._clock.seconds_until,
            self._config.host,
            port,
            self._config.readout_ms,
        )

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
            RobotSettings(self.boot_id, config.move_s / config.time_factor, config.host, config.robot_port),
        )

    async def open_more(self) -> dict[str, int]:
        """Open the ports of robot and instruments."""
        if self.floor is None:
            return {}
        try:
            await self.floor.start()
        except OSError as error:
            raise DeviceConnectionError(
                f"a port of {', '.join(self.floor.ports)} can't be used ({error}): give another, or 0 for any"
            ) from error
        return self.floor.ports

    def started(self) -> None:
        """The record holds what the cells truly are, and the first pictures are drawn."""
        if self.floor is not None:
            self.floor.instruments.tell_truth()
        self.world.look_ahead()

    async def advance_more(self) -> None:
        """Move the robot on."""
        if self.floor is not None:
            await self.floor.advance()

    async def close_more(self) -> None:
        """Close the ports of robot and instruments, and end the drawing."""
        if self.floor is not None:
            await self.floor.stop()
        self._darkroom.close()

    def summary(self) -> dict[str, Any]:
        """Counts so far and how well the plant kept time."""
        return {
            "boot_id": self.boot_id,
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
        if not self._recorder.keep:
            return load_ev_record(self._config.record or "")
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
            "channels_on": self.floor.instruments.cycler.closed_channels if self.floor is not None else [],
            "camera_clients": {view.value: camera.clients for view, camera in self._cameras.items()},
        }

    def faults(self) -> dict[str, Any]:
        """All fault switches."""
        return {**self.world.faults.as_dict(), **(self.floor.faults() if self.floor is not None else {})}

    def switch(self, changes: dict[str, Any]) -> None:
        """Set fault switches of the station and of what stands behind it."""
        behind = {name: value for name, value in changes.items() if self.floor and self.floor.knows_fault(name)}
        before = self.world.faults.as_dict()
        self.world.faults.set({name: value for name, value in changes.items() if name not in behind})
        if self.floor is not None and behind:
            try:
                self.floor.set_faults(behind)
            except ConfigurationError:
                self.world.faults.set(before)
                raise

    def tells_itself(self, name: str) -> bool:
        """The instruments tell of their own switches."""
        return name.startswith(("tester.", "meter.", "cycler."))

    def start_facts(self) -> dict[str, Any]:
        """How many cells come, and the outlets."""
        return {"items": self._config.items, "outlets": self._config.outlets}

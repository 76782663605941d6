"""The plant of a belt line as a process: belt, PLC, camera, control port. `plant.process.main` starts it."""

from __future__ import annotations

import logging
import time
from collections.abc import Coroutine
from typing import Any

from pydantic import Field, ValidationError, model_validator

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.plant_control import load_record
from battery_sorting.plant.base import PlantProcess, ProcessConfig, settings_problem
from battery_sorting.plant.frame_server import FrameServer
from battery_sorting.plant.plc import Plc
from battery_sorting.plant.record import Recorder
from battery_sorting.plant.world import MIN_SPACING_MM, World, WorldConfig
from battery_sorting.vision.synthetic.renderer import Renderer, make_renderer

_log = logging.getLogger(__name__)


class PlantConfig(WorldConfig, ProcessConfig):
    """Settings of the belt line's plant: the world's, and those of the process."""

    rate_per_s: float | None = Field(None, gt=0)
    camera_port: int = Field(0, ge=0, le=65535)
    images: str | None = None
    real_time_factor: float = Field(1.0, gt=0, le=20)

    @model_validator(mode="after")
    def _rate_gives_the_pitch(self) -> PlantConfig:
        if self.rate_per_s is None:
            return self
        if "pitch_mm" in self.model_fields_set:
            raise ValueError("rate_per_s and pitch_mm: give one of them, the other follows from speed_mps")
        self.pitch_mm = self.speed_mps * 1000.0 / self.rate_per_s
        if self.pitch_mm < MIN_SPACING_MM:
            raise ValueError(
                f"rate_per_s: {self.rate_per_s:g} at {self.speed_mps:g} m/s is a pitch of {self.pitch_mm:.0f} mm, "
                f"less than {MIN_SPACING_MM:.0f}: raise speed_mps or lower rate_per_s"
            )
        return self


def make_config(settings: dict[str, Any], source: str = "plant settings") -> PlantConfig:
    """Check settings.

    Raises:
        ConfigurationError: With all faults.
    """
    try:
        return PlantConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigurationError(source, [settings_problem(entry) for entry in error.errors()]) from error


class BeltPlant(PlantProcess):
    """The plant of a belt line: world, PLC, camera, control port.

    Raises:
        ConfigurationError: The pictures can't be used.
    """

    _config: PlantConfig
    world: World
    plc: Plc

    def __init__(self, config: PlantConfig) -> None:
        renderer = make_renderer(config.images, config.seed)
        for skipped in renderer.skipped:
            _log.warning("picture left out: %s", skipped)
        recorder = Recorder(keep=config.keep_record)
        boot_id = int(time.time())
        world = World(with_labels(config, renderer), config.seed, recorder)
        super().__init__(config, recorder, world, Plc(world, boot_id), boot_id, config.real_time_factor)
        self._camera = FrameServer(
            self.world,
            renderer,
            self._clock.wall_ns,
            self._clock.seconds_until,
            config.host,
            config.camera_port,
            config.readout_ms,
        )
        self.cameras = {"camera_port": self._camera}

    def faults(self) -> dict[str, Any]:
        """All fault switches."""
        return self.world.faults.as_dict()

    def switch(self, changes: dict[str, Any]) -> None:
        """Set fault switches of the world."""
        self.world.faults.set(changes)

    def start_facts(self) -> dict[str, Any]:
        """How many batteries come, and the bins."""
        return {"items": self._config.items, "bins": [valve.bin for valve in self._config.valves]}

    def jobs(self) -> list[Coroutine[Any, Any, Any]]:
        """The camera's frames."""
        return [self._camera.deliver()]

    async def advance_more(self) -> None:
        """Have pictures drawn of what comes."""
        self._camera.prepare()

    def summary(self) -> dict[str, Any]:
        """Counts so far and how well the plant kept time."""
        counts = self._recorder.counts
        elapsed_s = self._clock.elapsed_s()
        return {
            "boot_id": self.boot_id,
            "t_s": round(self.world.t_s, 3),
            "items": self.world.spawned,
            "on_belt": len(self.world.on_belt),
            "finished": self.world.finished,
            "bins": dict(self._recorder.bins),
            "triggers": counts["trigger"],
            "false_triggers": counts["false_trigger"],
            "pulses": counts["pulse"],
            "empty_pulses": counts["empty_pulse"],
            "double_hits": counts["double_hit"],
            "modbus_requests": self._modbus.requests,
            "frames_sent": self._camera.frames_sent,
            "frames_late": self._camera.frames_late,
            "frames_lost": self._camera.frames_lost,
            "real_time_factor": round(self.world.t_s / elapsed_s, 4) if elapsed_s > 0 else None,
            "tick_lag_ms": self._lag.as_dict(),
            "cpu_s": round(time.process_time(), 3),
            "record_error": self._recorder.write_error,
        }

    def record(self) -> dict[str, Any]:
        """The record so far, see `PlantRecord.as_dict`; one that isn't kept is read from its file."""
        timing = {"real_time_factor": self.summary()["real_time_factor"], "tick_lag_ms": self._lag.as_dict()}
        kept = self._recorder.record.as_dict() if self._recorder.keep else load_record(self._config.record or "")
        return {**kept, **timing}

    def state(self) -> dict[str, Any]:
        """Belt, PLC and camera at this moment."""
        return {
            "t_s": round(self.world.t_s, 3),
            "running": self.plc.running,
            "speed_mps": self.world.speed_mps,
            "slip": self.world.slip,
            "encoder_count": self.world.encoder_count,
            "belt_mm": round(self.world.belt_mm, 3),
            "on_belt": len(self.world.on_belt),
            "queue_length": self.plc.queue_length,
            "camera_clients": self._camera.clients,
        }


def with_labels(config: PlantConfig, renderer: Renderer) -> PlantConfig:
    """Let those batteries come that the renderer has pictures of, unless the settings name others."""
    update: dict[str, Any] = {}
    if "types" not in config.model_fields_set:
        update["types"] = renderer.types()
    if "unknown_types" not in config.model_fields_set:
        unknown = renderer.unknown()
        update |= {"unknown_types": unknown} if unknown else {"unknown_fraction": 0.0}
    return config.model_copy(update=update)

"""The simulated plant as a process: `main` reads the settings, opens the ports and runs until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, ValidationError, model_validator

from battery_sorting.core.errors import BatterySortingError, ConfigurationError, DeviceConnectionError
from battery_sorting.plant.control import ControlServer
from battery_sorting.plant.frame_server import FrameServer
from battery_sorting.plant.plc import Plc, PlcServer
from battery_sorting.plant.record import Recorder
from battery_sorting.plant.renderer import Renderer, make_renderer
from battery_sorting.plant.world import MIN_SPACING_MM, World, WorldConfig

TICK_S = 0.005
PARENT_CHECK_S = 0.25
SWITCH_INTERVAL_S = 0.001  # lets the event loop in between the renderer's steps

_log = logging.getLogger(__name__)


class PlantConfig(WorldConfig):
    """Settings of the plant: the world's, and those of the process. docs/plant.md explains each key."""

    seed: int = Field(0, ge=0)
    rate_per_s: float | None = Field(None, gt=0)
    host: str = "127.0.0.1"
    modbus_port: int = Field(0, ge=0, le=65535)
    camera_port: int = Field(0, ge=0, le=65535)
    control_port: int = Field(0, ge=0, le=65535)
    images: str | None = None
    record: str | None = None
    real_time_factor: float = Field(1.0, gt=0, le=20)
    readout_ms: float = Field(12.0, ge=0)

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


def read_settings(path: str | Path) -> dict[str, Any]:
    """Content of a settings file (JSON), not checked any further.

    Raises:
        ConfigurationError: It can't be read, or is no JSON object.
    """
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(str(path), [f"can't be read ({error.strerror}): check --config"]) from error
    except ValueError as error:
        raise ConfigurationError(str(path), [f"is no JSON ({error})"]) from error
    if not isinstance(settings, dict):
        raise ConfigurationError(str(path), ["is no JSON object: write {key: value, …}"])
    return settings


def make_config(settings: dict[str, Any], source: str = "plant settings") -> PlantConfig:
    """Check settings.

    Raises:
        ConfigurationError: With all faults.
    """
    try:
        return PlantConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigurationError(source, [settings_problem(entry) for entry in error.errors()]) from error


def settings_problem(entry: Any) -> str:
    """One fault of the settings, from pydantic's error."""
    key = ".".join(str(part) for part in entry["loc"])
    message = entry["msg"].removeprefix("Value error, ")
    if entry["type"] == "extra_forbidden":
        message = "no such key; see docs/plant.md for the keys of the plant"
    return f"{key}: {message}" if key else message


class Clock:
    """Plant time: 0 at the start, runs ``factor`` times as fast as real time."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self.start_ns = time.time_ns()
        self._start_s = time.monotonic()

    def elapsed_s(self) -> float:
        """Real time since the start."""
        return time.monotonic() - self._start_s

    def now(self) -> float:
        """Plant time in s."""
        return self.elapsed_s() * self._factor

    def wall_ns(self, t_s: float) -> int:
        """Ns since 1970 at a plant time."""
        return self.start_ns + round(t_s / self._factor * 1e9)

    def seconds_until(self, t_s: float) -> float:
        """Real seconds until a plant time, negative when it is past."""
        return t_s / self._factor - self.elapsed_s()


class LagMeter:
    """Distribution of the tick's delay behind its plan, in bins of 0.1 ms."""

    BIN_MS = 0.1

    def __init__(self) -> None:
        self._bins = [0] * 1000  # the last one takes all from 99.9 ms up
        self._count = 0
        self._max_ms = 0.0

    def add(self, lag_ms: float) -> None:
        """Count one tick."""
        self._bins[max(0, min(int(lag_ms / self.BIN_MS), len(self._bins) - 1))] += 1
        self._count += 1
        self._max_ms = max(self._max_ms, lag_ms)

    def as_dict(self) -> dict[str, float]:
        """p50, p99 and max in ms."""
        return {"p50": self._quantile(0.5), "p99": self._quantile(0.99), "max": round(self._max_ms, 3)}

    def _quantile(self, share: float) -> float:
        seen = 0
        for number, count in enumerate(self._bins):
            seen += count
            if seen >= share * self._count:
                return round(min((number + 1) * self.BIN_MS, self._max_ms), 3)
        return 0.0


class Plant:
    """The whole plant: world, PLC, camera, control port.

    Raises:
        ConfigurationError: The pictures can't be used.
    """

    def __init__(self, config: PlantConfig) -> None:
        renderer = make_renderer(config.images, config.seed)
        for skipped in renderer.skipped:
            _log.warning("picture left out: %s", skipped)
        world_config = with_labels(config, renderer)
        self._recorder = Recorder()
        self._config = config
        self.boot_id = int(time.time())
        self.world = World(world_config, config.seed, self._recorder)
        self.plc = Plc(self.world, self.boot_id)
        self._clock = Clock(config.real_time_factor)
        self._lag = LagMeter()
        self._stop = asyncio.Event()
        self._modbus = PlcServer(self.plc, self._clock.now, config.host, config.modbus_port)
        self._camera = FrameServer(
            self.world,
            renderer,
            self._clock.wall_ns,
            self._clock.seconds_until,
            config.host,
            config.camera_port,
            config.readout_ms,
        )
        getters = {
            "summary": self.summary,
            "record": self.record,
            "faults": self.world.faults.as_dict,
            "state": self.state,
        }
        self._control = ControlServer(getters, self._set_faults, self.stop, config.host, config.control_port)

    def stop(self) -> None:
        """Let `run` end."""
        self._stop.set()

    async def open(self) -> dict[str, Any]:
        """Open all ports, then the record file; returns what the ready line says. On an error nothing is left open.

        Raises:
            DeviceConnectionError: A port can't be used.
            ConfigurationError: The record file can't be written.
        """
        servers: dict[str, PlcServer | FrameServer | ControlServer] = {
            "modbus_port": self._modbus,
            "camera_port": self._camera,
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
        try:
            self._start_record()
        except OSError as error:
            await self.close()
            problem = f"record: {self._config.record} can't be written ({error.strerror}): give another file"
            raise ConfigurationError("plant settings", [problem]) from error
        ports = {key: server.port for key, server in servers.items()}
        return {"ready": True, **ports, "boot_id": self.boot_id, "pid": os.getpid()}

    async def run(self, *, exit_with_parent: bool = False) -> None:
        """Run until `stop`, then close. A failure inside the plant is raised."""
        jobs = [self._tick_forever(), self._camera.deliver(), self._stop.wait()]
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
        await self._camera.stop()
        await self._modbus.stop()
        self._recorder({"event": "summary", **self.summary()})
        self._recorder.close()

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
                "bins": [valve.bin for valve in self._config.valves],
            }
        )

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
        """The record so far, see `PlantRecord.as_dict`."""
        timing = {"real_time_factor": self.summary()["real_time_factor"], "tick_lag_ms": self._lag.as_dict()}
        return {**self._recorder.record.as_dict(), **timing}

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

    def _set_faults(self, changes: dict[str, Any]) -> dict[str, Any]:
        self.world.faults.set(changes)
        for name, value in changes.items():
            self._recorder({"event": "fault", "t_s": round(self.world.t_s, 6), "name": name, "value": value})
        return self.world.faults.as_dict()

    async def _tick_forever(self) -> None:
        due_s = self._clock.elapsed_s() + TICK_S
        while True:
            await asyncio.sleep(max(0.0, due_s - self._clock.elapsed_s()))
            now_s = self._clock.elapsed_s()
            self._lag.add((now_s - due_s) * 1000.0)
            self.plc.advance(self._clock.now())
            self._camera.prepare()
            await self._modbus.follow_faults()
            await self._camera.follow_faults()
            due_s = max(due_s + TICK_S, now_s)


def with_labels(config: PlantConfig, renderer: Renderer) -> PlantConfig:
    """Let those batteries come that the renderer has pictures of, unless the settings name others."""
    update: dict[str, Any] = {}
    if "types" not in config.model_fields_set:
        update["types"] = renderer.types()
    if "unknown_types" not in config.model_fields_set:
        unknown = renderer.unknown()
        update |= {"unknown_types": unknown} if unknown else {"unknown_fraction": 0.0}
    return config.model_copy(update=update)


async def parent_died() -> None:
    """Wait until the process that started this one has died."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(PARENT_CHECK_S)


class AnyPlant(Protocol):
    """A plant as a process."""

    def stop(self) -> None: ...  # noqa: D102
    async def open(self) -> dict[str, Any]: ...  # noqa: D102
    async def run(self, *, exit_with_parent: bool = False) -> None: ...  # noqa: D102


def make_plant(path: str | None) -> AnyPlant:
    """The plant of the line that the settings file describes by ``kind``: a belt line, or an EV line.

    Raises:
        ConfigurationError: The settings are wrong.
    """
    settings = read_settings(path) if path else {}
    source = path or "plant settings"
    kind = settings.pop("kind", "belt")
    if kind == "ev":
        from battery_sorting.plant.ev_process import EvPlant, make_ev_config

        return EvPlant(make_ev_config(settings, source))
    if kind != "belt":
        raise ConfigurationError(source, [f"kind: {kind!r} is none; there are belt and ev"])
    return Plant(make_config(settings, source))


async def _run(path: str | None, *, exit_with_parent: bool) -> None:
    plant = make_plant(path)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, plant.stop)
    ready = await plant.open()
    gc.collect()
    gc.freeze()
    print(json.dumps(ready), flush=True)
    await plant.run(exit_with_parent=exit_with_parent)


def main(argv: list[str] | None = None) -> None:
    """Entry point; ends the process: 0 when it was told to end, 2 when it can't start."""
    parser = argparse.ArgumentParser(prog="plant", description="Simulated plant of a battery sorting line.")
    parser.add_argument("--config", metavar="FILE", help="settings (JSON), see docs/plant.md")
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="end when the process that started this one has died"
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s plant: %(message)s", stream=sys.stderr)
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # it would report the faults that we inject
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        asyncio.run(_run(arguments.config, exit_with_parent=arguments.exit_with_parent))
    except BatterySortingError as error:
        print(f"plant: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(0)

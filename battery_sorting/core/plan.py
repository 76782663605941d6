"""The plan of a cell: which processes it consists of. Front ends only translate it, they hold no knowledge of it.

`cli/up.py` starts the plan as processes, `launch/cell.launch.py` as ``launch_ros`` actions.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.ev.site import EvSite
from battery_sorting.core.lines import AnyRecipe, AnySite, load_recipe, load_site
from battery_sorting.core.recipe import Recipe
from battery_sorting.core.settings import find_shared
from battery_sorting.core.site import Site

NODES = ("conveyor", "camera", "classifier", "ejector", "line_controller", "archivist")
"""Nodes of the belt line, each with an executable of its name."""
EV_NODES = ("inspection", "line_controller")
MEASURING_NODES = ("robot", "tester", "grader")
"""Nodes that an EV line has besides where cells are measured."""
_EXECUTABLES = {("ev", "line_controller"): "ev_controller"}

CLASSIFIER = "classifier"
PLANT = "plant"
PLANT_PORTS: dict[str, dict[str, tuple[str, str] | None]] = {
    "belt": {"modbus_port": ("plc", "port"), "camera_port": ("camera", "port"), "control_port": None},
    "ev": {
        "modbus_port": ("station_plc", "port"),
        "lug_camera_port": ("cameras.lug", "port"),
        "case_camera_port": ("cameras.case", "port"),
        "cycler_port": ("measuring.tester", "port"),
        "meter_port": ("measuring.tester", "meter_port"),
        "robot_port": ("measuring.robot", "port"),
        "control_port": None,
    },
}
"""Ports in the ``plant:`` section of each kind of site; for each the driver that talks to it, and its setting."""

SITE_FILE, RECIPE_FILE = "site.json", "recipe.json"
"""What was checked, in the run folder."""

RESPAWN_DELAY_S = 0.5


@dataclass(frozen=True)
class NodeSpec:
    """One process of the cell.

    Attributes:
        ros: Whether it is a ROS node; the plant isn't, and takes ``arguments`` only.
    """

    executable: str
    name: str
    namespace: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    respawn: bool = True
    respawn_delay_s: float = RESPAWN_DELAY_S
    ros: bool = True

    def command_line(self) -> list[str]:
        """Arguments after the executable."""
        if not self.ros:
            return list(self.arguments)
        rules = [("__node", self.name), ("__ns", f"/{self.namespace}"), *self.remappings]
        remaps = [word for old, new in rules for word in ("-r", f"{old}:={new}")]
        parameters = [
            word for key, value in self.parameters.items() for word in ("-p", f"{key}:={json.dumps(value)}")
        ]
        return [*self.arguments, "--ros-args", *remaps, *parameters]


@dataclass(frozen=True)
class PlanOptions:
    """What is decided per run, not per site."""

    run_dir: Path
    exit_with_parent: bool = True


@dataclass(frozen=True)
class Plan:
    """All processes of a cell in their start order (the plant first), and the environment they share."""

    site: AnySite
    recipe: AnyRecipe
    run_dir: Path
    nodes: tuple[NodeSpec, ...]
    environment: dict[str, str]

    @property
    def site_file(self) -> Path:
        """The checked site, as all nodes read it."""
        return self.run_dir / SITE_FILE

    @property
    def recipe_file(self) -> Path:
        """The checked recipe, as all nodes read it."""
        return self.run_dir / RECIPE_FILE

    @property
    def plant_file(self) -> Path:
        """Settings of the simulated plant."""
        return self.run_dir / "plant.json"

    def write_run_files(self) -> None:
        """Write what the processes read on start into the run folder.

        Raises:
            ConfigurationError: The run folder can't be written.
        """
        try:
            (self.run_dir / "log").mkdir(parents=True, exist_ok=True)
            self.site.save_resolved(self.site_file)
            self.recipe.save_resolved(self.recipe_file)
            if self.site.plant is not None:
                self.plant_file.write_text(json.dumps(plant_settings(self), indent=2))
        except OSError as error:
            problem = f"can't be written ({error.strerror}): give another folder with --run-dir"
            raise ConfigurationError(str(self.run_dir), [problem]) from error


def default_run_dir(site: AnySite) -> Path:
    """Folder of a site's records. It is the same at each start, so that the cell goes on where it ended."""
    return Path("runs") / site.name


def load_site_and_recipe(
    site_name: str,
    recipe_name: str | None = None,
    overrides: tuple[str, ...] = (),
    check_drivers: Callable[[AnySite], list[str]] | None = None,
) -> tuple[AnySite, AnyRecipe]:
    """Read a site and its recipe. ``recipe.key=value`` overrides the recipe, every other override the site.

    Raises:
        ConfigurationError: With every fault of the file that is wrong.
    """
    prefix = "recipe."
    site_overrides = [text for text in overrides if not text.startswith(prefix)]
    recipe_overrides = [text[len(prefix) :] for text in overrides if text.startswith(prefix)]
    site = load_site(site_name, site_overrides, check_drivers)
    recipe = load_recipe(recipe_name or site.recipe, site, recipe_overrides)
    return site, recipe


def make_plan(site: AnySite, recipe: AnyRecipe, options: PlanOptions) -> Plan:
    """The processes of the cell that ``site`` describes. Looks for free ports where the site asks for any."""
    site = assign_ports(site)
    run_dir = options.run_dir.absolute()
    plan = Plan(site, recipe, run_dir, (), environment(site, run_dir))
    parameters = {
        "site_file": str(plan.site_file),
        "recipe_file": str(plan.recipe_file),
        "run_dir": str(run_dir),
        "exit_with_parent": options.exit_with_parent,
    }
    elsewhere = {CLASSIFIER} if isinstance(site, Site) and not site.own_classifier else set()
    nodes = [
        NodeSpec(
            _EXECUTABLES.get((site.kind, name), name), name, site.line, parameters, arguments=_arguments(site, name)
        )
        for name in node_names(site)
        if name not in elsewhere
    ]
    if site.simulated:
        arguments = (
            "--config",
            str(plan.plant_file),
            *(("--exit-with-parent",) if options.exit_with_parent else ()),
        )
        nodes.insert(0, NodeSpec(PLANT, PLANT, site.line, arguments=arguments, respawn=False, ros=False))
    return Plan(site, recipe, run_dir, tuple(nodes), plan.environment)


def node_names(site: AnySite) -> tuple[str, ...]:
    """Names of the nodes of a site's line, in their start order."""
    if isinstance(site, EvSite):
        return (*EV_NODES, *MEASURING_NODES) if site.measuring is not None else EV_NODES
    return NODES


def _arguments(site: AnySite, name: str) -> tuple[str, ...]:
    """What a node gets beside its parameters: the classifier the run folders of the lines that it serves, too."""
    if name != CLASSIFIER or not isinstance(site, Site):
        return ()
    return tuple(str(Path(folder).absolute()) for folder in site.serves)


def environment(site: AnySite, run_dir: Path) -> dict[str, str]:
    """Environment variables of all processes of the cell."""
    variables = {
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "RCUTILS_COLORIZED_OUTPUT": "0",
        "ROS_LOG_DIR": str(run_dir / "log" / "ros"),
    }
    profile = find_shared("config/fastdds.xml")
    if profile is not None:
        variables["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(profile)
    if site.simulated:
        variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    return variables


def plant_settings(plan: Plan) -> dict[str, Any]:
    """The site's ``plant:`` section. What it is silent about follows from the site and the recipe."""
    site, recipe = plan.site, plan.recipe
    record = {"record": str(plan.run_dir / "plant.jsonl")}
    if isinstance(site, EvSite):
        outlets = {outlet.name: outlet.number for outlet in site.outlets}
        return {"kind": site.kind, "outlets": outlets, **_places(site), **record, **(site.plant or {})}
    assert isinstance(recipe, Recipe)
    return {**_belt_settings(site, recipe), **record, **(site.plant or {})}


def _places(site: EvSite) -> dict[str, Any]:
    """What the plant must know of the places behind the station."""
    if site.measuring is None:
        return {}
    trays = {tray.name: tray.slots for tray in site.measuring.trays}
    return {"channels": site.measuring.channels, "buffer": site.measuring.buffer, "trays": trays}


def _belt_settings(site: Site, recipe: Recipe) -> dict[str, Any]:
    belt = site.belt
    return {
        "valves": [{"valve": e.valve, "offset_mm": e.offset_mm, "bin": e.bin} for e in site.ejectors],
        "gate_offset_mm": belt.gate_offset_mm,
        "exit_offset_mm": belt.exit_offset_mm,
        "mm_per_count": belt.mm_per_count,
        "speed_mps": recipe.speed_mps,
    }


def assign_ports(site: AnySite) -> AnySite:
    """Replace ports of 0: in ``plant:`` by free ones, in the drivers' settings by those of the plant."""
    if site.plant is None:
        return site
    plant = dict(site.plant)
    ready: AnySite = site
    wanted = {key: to for key, to in PLANT_PORTS[site.kind].items() if to is None or to[0] in site.devices}
    for (key, to), free_port in zip(wanted.items(), _free_ports(len(wanted)), strict=True):
        plant[key] = plant.get(key) or free_port
        if to is not None and site.devices[to[0]][1].settings.get(to[1]) == 0:
            ready = _with_setting(ready, [*to[0].split("."), "settings", to[1]], plant[key])
    return ready.model_copy(update={"plant": plant})


def _with_setting(model: Any, path: list[str], value: Any) -> Any:
    """A copy of ``model`` (or dict) in which the setting at ``path`` is ``value``."""
    name, rest = path[0], path[1:]
    if not rest:
        after = value
    else:
        after = _with_setting(model[name] if isinstance(model, dict) else getattr(model, name), rest, value)
    return {**model, name: after} if isinstance(model, dict) else model.model_copy(update={name: after})


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:  # all are held until the last is known, so that they differ
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def find_executable(name: str) -> Path:
    """Executable of a node in the built package.

    Raises:
        ConfigurationError: The package is not built, or its install space isn't known to this shell.
    """
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    for prefix in prefixes:
        candidate = prefix / "lib" / "battery_sorting" / name
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    problem = "is not built or not sourced: run 'make build', then 'source install/setup.bash'"
    raise ConfigurationError(f"executable {name}", [problem])

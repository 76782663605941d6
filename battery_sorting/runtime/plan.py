"""The plan of a cell: which processes it consists of. Front ends only translate it, they hold no knowledge of it.

`cli/up.py` starts the plan as processes, `launch/cell.launch.py` as ``launch_ros`` actions.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.front_end import option
from battery_sorting.core.private_files import write_private
from battery_sorting.core.quiet import QUIET
from battery_sorting.core.secrets import LEDGER_VARIABLE
from battery_sorting.core.settings import RecipeSettings, find_shared, suggest
from battery_sorting.core.strict_json import to_json
from battery_sorting.line.contract import PLANT, Role
from battery_sorting.line.paths import RECIPE_FILE, SITE_FILE
from battery_sorting.line.site import LineSite
from battery_sorting.lines import LINES, load_recipe, load_site, node_names

RESPAWN_DELAY_S = 0.5
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")

RMW = "rmw_fastrtps_cpp"
RMW_VARIABLE = "RMW_IMPLEMENTATION"
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
RANGE_VARIABLE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
_PROFILES = {"localhost": "fastdds.xml", "subnet": "fastdds_subnet.xml"}
"""Range of discovery → the profile that enforces it."""


class Ready(Enum):
    """When a process is ready."""

    ACTIVE = "its heartbeats say that it is active; the line's controller, which has none, publishes line_state"
    SAYS_SO = 'it prints a line of JSON with "ready": true'
    RUNNING = "it runs"


@dataclass(frozen=True)
class NodeSpec:
    """One process of the cell.

    Attributes:
        role: What it is to the line.
        ready_when: When it is ready. What sends heartbeats is a ROS node; all else takes ``arguments`` only.
    """

    executable: str
    name: str
    namespace: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    respawn: bool = True
    respawn_delay_s: float = RESPAWN_DELAY_S
    role: Role = Role.DEVICE
    ready_when: Ready = Ready.ACTIVE
    log_level: str = ""

    @property
    def is_node(self) -> bool:
        """Whether it is a ROS node."""
        return self.ready_when is Ready.ACTIVE

    @property
    def required(self) -> bool:
        """Whether the line can't run without it."""
        return self.role.required

    def command_line(self) -> list[str]:
        """Arguments after the executable."""
        if not self.is_node:
            return list(self.arguments)
        rules = [("__node", self.name), ("__ns", f"/{self.namespace}"), *self.remappings]
        remaps = [word for old, new in rules for word in ("-r", f"{old}:={new}")]
        parameters = [
            word for key, value in self.parameters.items() for word in ("-p", f"{key}:={to_json(value, None)}")
        ]
        return [*self.arguments, "--ros-args", *remaps, *parameters, *self.ros_arguments]

    @property
    def ros_arguments(self) -> list[str]:
        """What follows ``--ros-args`` beside name, namespace, remappings and parameters."""
        return ["--enclave", self.enclave, *(["--log-level", self.log_level] if self.log_level else [])]

    @property
    def enclave(self) -> str:
        """Name of its keys and permissions where DDS security is on (docs/how-to/network.md)."""
        return f"/{self.namespace}/{self.name}"


@dataclass(frozen=True)
class PlanOptions:
    """What is decided per run, not per site.

    Attributes:
        run_id: Tells a node that is started again (the same) from a new start of the cell (another one).
        log_level: What the nodes say at the least, one of `LOG_LEVELS`; empty: what ROS says.
        namespace: Stands before the namespace of the line, as ``left`` in ``/left/belt``.
        use_sim_time: The nodes wait by ``/clock``, as in a replay.
        without: Names of processes that are not started: one's own take their place.
    """

    run_dir: Path
    exit_with_parent: bool = True
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    log_level: str = ""
    namespace: str = ""
    use_sim_time: bool = False
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All processes of a cell in their start order (the plant first), and the environment they share."""

    site: LineSite
    recipe: RecipeSettings
    run_dir: Path
    nodes: tuple[NodeSpec, ...]
    environment: dict[str, str] = field(repr=False)  # it may hold the ledger's password

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
                write_private(self.plant_file, plant_json(self))
        except OSError as error:
            problem = f"can't be written ({error.strerror}): give another folder with {option('run-dir')}"
            raise ConfigurationError(str(self.run_dir), [problem]) from error


def default_run_dir(site: LineSite, namespace: str = "") -> Path:
    """Folder of a site's records. It is the same at each start, so that the cell goes on where it ended."""
    return Path("runs", *namespace_parts(namespace), site.name)


def load_site_and_recipe(
    site_name: str,
    recipe_name: str | None = None,
    overrides: tuple[str, ...] = (),
    check_drivers: Callable[[LineSite], list[str]] | None = None,
) -> tuple[LineSite, RecipeSettings]:
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


def make_plan(
    site: LineSite, recipe: RecipeSettings, options: PlanOptions, given: Mapping[str, str] | None = None
) -> Plan:
    """The processes of the cell that ``site`` describes. Looks for free ports where the site asks for any.

    Args:
        site: With its hardware.
        recipe: It is checked against the site already.
        options: What is decided for this run.
        given: The environment that the processes are started in; default: this process's.

    Raises:
        ConfigurationError: An option makes no sense.
    """
    check_options(site, options)
    kind = LINES[site.kind]
    site = assign_ports(site)
    run_dir = options.run_dir.absolute()
    plan = Plan(site, recipe, run_dir, (), environment(site, run_dir, given))
    parameters = {
        "site_file": str(plan.site_file),
        "recipe_file": str(plan.recipe_file),
        "run_dir": str(run_dir),
        "run_id": options.run_id,
        "exit_with_parent": options.exit_with_parent,
        **({"use_sim_time": True} if options.use_sim_time else {}),
    }
    namespace = "/".join([*namespace_parts(options.namespace), site.line])
    nodes = [
        NodeSpec(
            kind.executables.get(name, name),
            name,
            namespace,
            parameters,
            arguments=kind.arguments(site, name),
            role=kind.contract.role(name),
            log_level=options.log_level,
        )
        for name in _nodes_started_here(site)
    ]
    specs = (*_plant(plan, namespace, options), *nodes, *_companions(plan, namespace, options))
    started = tuple(spec for spec in specs if spec.name not in options.without)
    return Plan(site, recipe, run_dir, started, plan.environment)


def _plant(plan: Plan, namespace: str, options: PlanOptions) -> Iterator[NodeSpec]:
    if plan.site.simulated:
        arguments = ("--config", str(plan.plant_file), *_with_parent(options))
        ready_when = Ready.SAYS_SO
        yield NodeSpec(
            PLANT, PLANT, namespace, arguments=arguments, respawn=False, role=Role.PLANT, ready_when=ready_when
        )


def _companions(plan: Plan, namespace: str, options: PlanOptions) -> Iterator[NodeSpec]:
    kind = LINES[plan.site.kind]
    for name in kind.companions:
        arguments = (*kind.arguments(plan.site, name), "--run-dir", str(plan.run_dir), *_with_parent(options))
        yield NodeSpec(name, name, namespace, arguments=arguments, role=Role.OBSERVER, ready_when=Ready.RUNNING)


def _with_parent(options: PlanOptions) -> tuple[str, ...]:
    return ("--exit-with-parent",) if options.exit_with_parent else ()


def _nodes_started_here(site: LineSite) -> list[str]:
    """Names of the nodes that are started with the line."""
    elsewhere = LINES[site.kind].started_elsewhere(site)
    return [name for name in node_names(site) if name not in elsewhere]


def check_options(site: LineSite, options: PlanOptions) -> None:
    """See whether the options make sense for ``site``.

    Raises:
        ConfigurationError: With every fault, in the words of the front end that is used.
    """
    problems = []
    if options.log_level and options.log_level not in LOG_LEVELS:
        remedy = suggest(options.log_level, LOG_LEVELS)
        problems.append(f"{option('log-level', options.log_level)}: there is no such level; {remedy}")
    if not all(_NAMESPACE_PART.fullmatch(part) for part in namespace_parts(options.namespace)):
        problems.append(
            f"{option('namespace', options.namespace)}: is no ROS namespace: letters, digits and _, no digit "
            "first, parts with / between, for example plant_2/left"
        )
    companions = LINES[site.kind].companions
    known = [*_nodes_started_here(site), *companions, *([PLANT] if site.simulated else [])]
    problems += [
        f"{option('without', name)}: site '{site.name}' starts no such process; {suggest(name, known)}"
        for name in options.without
        if name not in known
    ]
    if problems:
        raise ConfigurationError("start of the cell", problems)


_NAMESPACE_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def namespace_parts(namespace: str) -> list[str]:
    """``/plant_2/left/`` as ``["plant_2", "left"]``; empty for the root."""
    stripped = namespace.strip().removeprefix("/").removesuffix("/")
    return stripped.split("/") if stripped else []


def environment(site: LineSite, run_dir: Path, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment variables of all processes of the cell.

    A middleware or a profile of the user's own, in the environment ``given`` (default: this process's), stays;
    `discovery_warning` says what that means. A ledger's password goes this way, since only processes of the same
    user can read it, and no file holds it.
    """
    url = site.ledger.url.completed(given)
    return {
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "RCUTILS_COLORIZED_OUTPUT": "0",
        "ROS_LOG_DIR": str(run_dir / "log" / "ros"),
        **({LEDGER_VARIABLE: url.reveal()} if url.has_secret else {}),
        **QUIET,
        **middleware_variables(site.network.discovery, os.environ if given is None else given),
    }


def middleware_variables(discovery: str, given: Mapping[str, str]) -> dict[str, str]:
    """Environment variables by which a process hears no more than it should.

    Args:
        discovery: ``localhost`` or ``subnet``.
        given: The environment so far.
    """
    variables = {RMW_VARIABLE: given.get(RMW_VARIABLE) or RMW, RANGE_VARIABLE: discovery.upper()}
    profile = dds_profile(discovery)
    if profile is not None and not _own_profile(given) and variables[RMW_VARIABLE] == RMW:
        variables[PROFILE_VARIABLE] = str(profile)
        if discovery == "localhost":
            variables[RANGE_VARIABLE] = "SYSTEM_DEFAULT"  # the profile says it all; why: config/fastdds.xml
            if given.get("ROS_LOCALHOST_ONLY"):
                variables["ROS_LOCALHOST_ONLY"] = "0"  # it would undo that
    return variables


def dds_profile(discovery: str) -> Path | None:
    """The package's profile of Fast DDS for ``localhost`` or ``subnet``; None if it is missing."""
    return find_shared(f"config/{_PROFILES[discovery]}")


def discovery_warning(site: LineSite, given: Mapping[str, str] | None = None) -> str:
    """What a person must know of who is heard by the line's nodes; empty if nobody outside of this host is."""
    given = os.environ if given is None else given
    if site.network.discovery != "localhost":
        return (
            "network.discovery: subnet: every host of the network can command this line and forge its messages, "
            "unless DDS security is on: docs/how-to/network.md"
        )
    rmw, own = given.get(RMW_VARIABLE, ""), _own_profile(given)
    if rmw not in {"", RMW}:
        why = f"{RMW_VARIABLE}={rmw} is not the middleware that the package limits"
    elif own:
        unread = "" if os.access(own, os.R_OK) else ", which can't be read,"
        why = f"the profile {own} of the environment{unread} is used in place of the package's"
    elif dds_profile(site.network.discovery) is None:
        why = f"config/{_PROFILES['localhost']} is missing from the package"
    else:
        return ""
    return (
        f"network.discovery: localhost is not enforced: {why}. Let it listen on 127.0.0.1 alone, or other hosts "
        "can command this line: docs/how-to/network.md"
    )


def _own_profile(given: Mapping[str, str]) -> str:
    """A profile of the user's own, in the environment; the package's are none."""
    ours = {str(path) for path in map(dds_profile, _PROFILES) if path is not None}
    own = (given.get(name, "") for name in (PROFILE_VARIABLE, "FASTDDS_DEFAULT_PROFILES_FILE"))
    return next((name for name in own if name and name not in ours), "")


def plant_settings(plan: Plan) -> dict[str, Any]:
    """The site's ``plant:`` section. What it is silent about follows from the site and the recipe."""
    site, recipe = plan.site, plan.recipe
    record = {"record": str(plan.run_dir / "plant.jsonl")}
    return {**LINES[site.kind].plant_settings(site, recipe), **record, **(site.plant or {})}


def plant_json(plan: Plan) -> str:
    """`plant_settings` as the plant reads them. What JSON doesn't know, such as a date, the plant finds as text.

    An infinity is written as such, which is not strict JSON: the plant must see it to refuse it.
    """
    return json.dumps(plant_settings(plan), indent=2, default=str, allow_nan=True)


def assign_ports(site: LineSite) -> LineSite:
    """Replace ports of 0: in ``plant:`` by free ones, in the drivers' settings by those of the plant."""
    if site.plant is None:
        return site
    plant = dict(site.plant)
    ready: LineSite = site
    wanted = {key: to for key, to in LINES[site.kind].plant_ports.items() if to is None or to[0] in site.devices}
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


def check_ports(plan: Plan) -> None:
    """See whether the plant can have its ports, before anything starts.

    Raises:
        ConfigurationError: With every port that is taken, or wanted twice.
    """
    problems, first = [], dict[int, str]()
    if all(spec.name != PLANT for spec in plan.nodes):  # somebody else's plant has them by now
        return
    for key, port in (plan.site.plant or {}).items():
        if not key.endswith("_port") or not isinstance(port, int) or not 0 < port <= 65535:
            continue
        remedy = f"or take any free port with {option('set', f'plant.{key}=0')}"
        if port in first:
            problems.append(f"plant.{key}: port {port} is plant.{first[port]}, too: give each its own, {remedy}")
        elif _is_taken(port):
            problems.append(f"plant.{key}: port {port} is in use: stop what uses it (another cell?), {remedy}")
        first.setdefault(port, key)
    if problems:
        raise ConfigurationError(f"site {plan.site.name}", problems)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def find_executables(
    plan: Plan, find: Callable[[str], Path] | None = None
) -> tuple[dict[str, Path], dict[str, str]]:
    """Executables of the processes of a plan.

    Args:
        plan: Of the cell.
        find: Path of an executable by its name; default: `find_executable`.

    Returns:
        Name of the process → its executable, and name of an observer that has none → why. The line goes on without.

    Raises:
        ConfigurationError: A process that the line needs has none.
    """
    found, missing = {}, {}
    for spec in plan.nodes:
        try:
            found[spec.name] = (find or find_executable)(spec.executable)
        except ConfigurationError as error:
            if spec.required:
                raise
            missing[spec.name] = f"{error}; the line goes on without it"
    return found, missing


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

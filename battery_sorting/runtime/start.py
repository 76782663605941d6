"""What has to be settled before a cell starts, whoever starts it: ``battery-sorting up`` or ``ros2 launch``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.front_end import option
from battery_sorting.core.settings import suggest
from battery_sorting.runtime.plan import LOG_LEVELS, Plan, PlanOptions, default_run_dir, make_plan
from battery_sorting.runtime.preflight import load_cell


@dataclass(frozen=True)
class StartOptions:
    """What a person says when starting a cell.

    Attributes:
        site: Name of a site in config/sites, or a file.
        recipe: Name of a recipe, or a file; None: the site's.
        overrides: Settings to change, ``key.key=value``.
        run_dir: Folder of the records; None: ``runs/SITE``, with a namespace ``runs/NAMESPACE/SITE``.
        log_level: See `runtime.plan.PlanOptions`, as for the rest.
    """

    site: str
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    run_dir: Path | None = None
    log_level: str = ""
    namespace: str = ""
    use_sim_time: bool = False
    without: tuple[str, ...] = ()


LAUNCH_ARGUMENTS: dict[str, tuple[str | None, str]] = {
    "site": (None, "name of a site in config/sites, or a file"),
    "recipe": ("", "name of a recipe in config/recipes, or a file; empty: the site's"),
    "set": ("", "settings to change, with ; between them: 'a.b=1;recipe.c=2'"),
    "run_dir": ("", "folder of the records; empty: runs/SITE, with a namespace runs/NAMESPACE/SITE"),
    "log_level": ("", f"what the nodes say at the least: {', '.join(LOG_LEVELS)}; empty: info"),
    "namespace": ("", "stands before the namespace of the line, after that of an including launch file"),
    "use_sim_time": ("false", "true: the nodes wait by /clock, as in a replay"),
    "without": ("", "processes that are not started, with , between them: your own take their place"),
}
"""Arguments of launch/cell.launch.py: default (None: it must be given) and description."""


def options_of_launch(arguments: Mapping[str, str], outer_namespace: str = "") -> StartOptions:
    """The options from the values of `LAUNCH_ARGUMENTS`, which are texts.

    Args:
        arguments: Name → value of each.
        outer_namespace: Of the group in which the launch file is included.

    Raises:
        ConfigurationError: ``use_sim_time`` is neither true nor false.
    """
    given = {name: value.strip() for name, value in arguments.items()}
    use_sim_time = given["use_sim_time"].lower()
    if use_sim_time not in {"true", "1", "false", "0", ""}:
        remedy = suggest(use_sim_time, ("true", "false"))
        raise ConfigurationError(
            "start of the cell",
            [f"{option('use-sim-time', given['use_sim_time'])}: must be true or false; {remedy}"],
        )
    absolute = given["namespace"].startswith("/")
    parts = [given["namespace"]] if absolute else [outer_namespace.rstrip("/"), given["namespace"]]
    return StartOptions(
        site=given["site"],
        recipe=given["recipe"] or None,
        overrides=tuple(text.strip() for text in given["set"].split(";") if text.strip()),
        run_dir=Path(given["run_dir"]) if given["run_dir"] else None,
        log_level=given["log_level"].lower(),
        namespace="/".join(part for part in parts if part),
        use_sim_time=use_sim_time in {"true", "1"},
        without=tuple(re.split(r"[\s,;]+", given["without"])) if given["without"] else (),
    )


def prepare(options: StartOptions, given: Mapping[str, str] | None = None) -> tuple[Plan, tuple[str, ...]]:
    """Check everything that can be checked before a cell starts.

    Args:
        options: What a person says.
        given: The environment that the cell is started in; default: this process's.

    Returns:
        The plan, and warnings for a person.

    Raises:
        BatterySortingError: Something is wrong; every fault of a file is named.
    """
    given = os.environ if given is None else given
    cell = load_cell(options.site, options.recipe, options.overrides, given)
    plan_options = PlanOptions(
        options.run_dir or default_run_dir(cell.site, options.namespace),
        log_level=options.log_level,
        namespace=options.namespace,
        use_sim_time=options.use_sim_time,
        without=options.without,
    )
    return make_plan(cell.site, cell.recipe, plan_options, given), cell.warnings

"""Everything about a cell that can be checked before anything starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import battery_sorting
from battery_sorting.core.errors import ConfigurationError, LedgerError
from battery_sorting.core.secrets import without_passwords
from battery_sorting.core.settings import RecipeSettings, find_config, parse_location, read_document
from battery_sorting.line.kind import LineKind
from battery_sorting.line.paths import ledger_location
from battery_sorting.line.site import Device, LineSite
from battery_sorting.lines import LINES
from battery_sorting.runtime.plan import (
    PlanOptions,
    assign_ports,
    discovery_warning,
    load_site_and_recipe,
    make_plan,
    plant_json,
)

PLANT_CHECK_S = 60.0
"""The plant is given so long to say what is wrong with its settings; it takes about a second."""


@dataclass(frozen=True)
class Cell:
    """A site with its recipe, both checked against each other and the models.

    Attributes:
        facts: What a person wants to see of models and recipe before the start.
        warnings: They don't stop the start.
    """

    site: LineSite
    recipe: RecipeSettings
    facts: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def load_cell(
    site_name: str,
    recipe_name: str | None = None,
    overrides: tuple[str, ...] = (),
    given: Mapping[str, str] | None = None,
) -> Cell:
    """Read and check site, recipe, drivers, models and the settings of the simulated plant.

    Args:
        site_name: Name of a site in config/sites, or a file.
        recipe_name: Name of a recipe in config/recipes, or a file; None: the site's.
        overrides: ``key.key=value``; ``recipe.key=value`` for the recipe.
        given: The environment that the cell is started in; default: this process's.

    Raises:
        ConfigurationError: A file is wrong; every fault of it is listed.
        ModelError: A model's card or weights are missing or don't match.
    """
    site, recipe = load_site_and_recipe(site_name, recipe_name, overrides, check_drivers)
    found = LINES[site.kind].check(assign_ports(site), recipe)
    check_plant(site_name, overrides, site, recipe)
    warnings = [discovery_warning(site, given)]
    if any(without_passwords(override) != override for override in overrides):
        warnings.append(
            "--set: everybody on this machine can read the password on the command line (ps): put it into "
            "~/.pgpass, or into the site file"
        )
    return Cell(site, recipe, found.facts, (*found.warnings, *filter(None, warnings)))


def try_ledger(site: LineSite, run_dir: Path) -> str:
    """Try whether the ledger can be read and written, without changing it; says how it was found.

    Raises:
        ConfigurationError: It can't: with the key of the site file and the remedy.
    """
    from battery_sorting.ledger.store import probe

    location = ledger_location(site, run_dir)
    try:
        return f"ledger: {location} {probe(location)}"
    except LedgerError as error:
        problem = str(error)
        problem = problem if "ledger.url" in problem else f"ledger.url: {problem}"
        raise ConfigurationError(f"site {site.name}", [problem]) from error


def check_plant(site_name: str, overrides: tuple[str, ...], site: LineSite, recipe: RecipeSettings) -> None:
    """Have the simulated plant check its settings, as it would when it starts; nothing is opened.

    Raises:
        ConfigurationError: They are wrong; every fault is named with its place in the site file.
    """
    if site.plant is None:
        return
    # The run folder, where the record goes, is looked at when the cell starts: here any will do that is writable.
    plan = make_plan(site, recipe, PlanOptions(Path(tempfile.gettempdir())))
    if "kind" in site.plant:
        told = [f"kind: is that of the line, {site.kind}: remove the key"]
    else:
        told = _plants_problems(plant_json(plan))
    problems = [_place(problem) for problem in told]
    if problems:
        path = find_config("sites", site_name)
        document = read_document(path, [text for text in overrides if not text.startswith("recipe.")])
        faults = [document.describe(parse_location(place), text) for place, text in problems]
        raise ConfigurationError(str(path), faults)


def _plants_problems(settings: str) -> list[str]:
    # A process of its own, since nobody imports the plant: what the line knows of it goes over the wire.
    command = [sys.executable, "-m", "battery_sorting.plant.process", "--check"]
    path = [str(Path(battery_sorting.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    try:
        ended = subprocess.run(
            command,
            input=settings,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PLANT_CHECK_S,
            check=False,
        )
        problems = json.loads(ended.stdout)
    except subprocess.TimeoutExpired:
        return [f"the plant has not checked its settings within {PLANT_CHECK_S:g} s: are there too many pictures?"]
    except ValueError:
        last_words = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
        return [f"the plant can't check its settings: {last_words[0]}"]
    assert isinstance(problems, list)
    return [str(problem) for problem in problems]


def _place(problem: str) -> tuple[str, str]:
    """Path in the site file and text of a problem of the plant's, which begins with its key if it has one."""
    key, colon, text = problem.partition(": ")
    return (f"plant.{key}", text) if colon and re.fullmatch(r"[\w.]+", key) else ("plant", problem)


def check_drivers(site: LineSite) -> list[str]:
    """What is wrong with the drivers of a site and their settings, each with its path in the site file."""
    from battery_sorting.drivers.registry import driver_problems

    problems = []
    for path, (kind, device) in assign_ports(site).devices.items():
        found = [
            path + problem.removeprefix(kind) for problem in driver_problems(kind, device.driver, device.settings)
        ]
        problems += found or (encoding_problems(LINES[site.kind], path, device) if kind == "camera" else [])
    return problems


def encoding_problems(line: LineKind[Any, Any], path: str, camera: Device) -> list[str]:
    """Why a line can't use the frames that its camera at ``path`` of the site file will send; empty if it can."""
    from battery_sorting.drivers.camera.base import TriggeredCamera
    from battery_sorting.drivers.registry import find_driver

    use = line.frame_use()
    driver = find_driver("camera", camera.driver).from_settings(camera.settings)
    assert isinstance(driver, TriggeredCamera)
    if use is None:
        return []
    found = {name: use.problem(name) for name in driver.encodings}
    return [
        f"{path}.settings.encoding: {name!r} can't be used by the {line.name} line; {problem}"
        for name, problem in found.items()
        if problem
    ]

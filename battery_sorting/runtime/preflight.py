"""Everything about a cell that can be checked before anything starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import battery_sorting
from battery_sorting.belt.recipe import BeltRecipe, check
from battery_sorting.belt.site import BeltSite
from battery_sorting.core.errors import ConfigurationError, LedgerError, ModelError
from battery_sorting.core.secrets import without_passwords
from battery_sorting.core.settings import find_config, parse_location, read_document, suggest
from battery_sorting.drivers.tester.measurement import meter_is_good_enough
from battery_sorting.ev.recipe import EvRecipe, MeasuringRecipe, problems_at
from battery_sorting.ev.site import EvSite, Measuring
from battery_sorting.line.paths import ledger_location
from battery_sorting.lines import AnyRecipe, AnySite
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

    site: AnySite
    recipe: AnyRecipe
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
    if isinstance(site, EvSite):
        assert isinstance(recipe, EvRecipe)
        ready = assign_ports(site)
        assert isinstance(ready, EvSite)
        cell = replace(_check_ev_line(ready, recipe), site=site)
    else:
        assert isinstance(recipe, BeltRecipe)
        cell = _check_belt_line(site, recipe)
    check_plant(site_name, overrides, site, recipe)
    warnings = [discovery_warning(site, given)]
    if any(without_passwords(override) != override for override in overrides):
        warnings.append(
            "--set: everybody on this machine can read the password on the command line (ps): put it into "
            "~/.pgpass, or into the site file"
        )
    return replace(cell, warnings=(*cell.warnings, *filter(None, warnings)))


def try_ledger(site: AnySite, run_dir: Path) -> str:
    """Try whether the ledger can be read and written, without changing it; says how it was found.

    Raises:
        ConfigurationError: It can't: with the key of the site file and the remedy.
    """
    from battery_sorting.ledger import probe

    location = ledger_location(site, run_dir)
    try:
        return f"ledger: {location} {probe(location)}"
    except LedgerError as error:
        problem = str(error)
        problem = problem if "ledger.url" in problem else f"ledger.url: {problem}"
        raise ConfigurationError(f"site {site.name}", [problem]) from error


def _check_belt_line(site: BeltSite, recipe: BeltRecipe) -> Cell:
    types = read_types(site.model_directory())
    shadow = site.shadow_directory()
    if shadow is not None:
        read_types(shadow)
    result = check(recipe, site, types)
    if result.problems:
        raise ConfigurationError(f"recipe {recipe.name} at site {site.name}", result.problems)
    facts = (
        f"model: {site.model_directory()}, {len(types)} types",
        f"recipe: {recipe.name}, {recipe.speed_mps:g} m/s, {len(recipe.routes)} routes",
    )
    return Cell(site, recipe, facts, tuple(result.warnings))


def _check_ev_line(site: EvSite, recipe: EvRecipe) -> Cell:
    problems = problems_at(recipe, site)
    facts, warnings = [], []
    for view, rules in (("lug", recipe.views.lug), ("case", recipe.views.case)):
        folder = site.model_directory(view)
        known = read_defects(folder, view)
        facts.append(f"model of the {view} view: {folder}, {len(known)} kinds of defect")
        problems += [
            f"views.{view}.defects.{kind}: the model doesn't know this defect; {suggest(kind, known)}"
            for kind in rules.defects
            if kind not in known
        ]
        warnings += [
            f"views.{view}: the model also knows {kind}: such cells go to quarantine"
            for kind in known
            if kind not in rules.defects
        ]
    if problems:
        raise ConfigurationError(f"recipe {recipe.name} at site {site.name}", problems)
    facts.append(f"recipe: {recipe.name}")
    if site.measuring is not None and recipe.measuring is not None:
        good, text = _check_measuring(site.measuring, recipe.measuring)
        (facts if good else warnings).append(f"measuring: {text}")
    return Cell(site, recipe, tuple(facts), tuple(warnings))


def _check_measuring(measuring: Measuring, recipe: MeasuringRecipe) -> tuple[bool, str]:
    """Whether the meter is exact enough for the cells, and the numbers.

    Raises:
        ConfigurationError: Specification, layout or tolerance of the recipe are wrong.
    """
    from battery_sorting.drivers.registry import find_driver
    from battery_sorting.drivers.tester.base import CellTester
    from battery_sorting.grading.packing.layout import Layout
    from battery_sorting.grading.packing.objective import Tolerances
    from battery_sorting.grading.specification import CellSpec

    Layout.parse(recipe.regroup.layout)
    Tolerances.parse([f"{name}={value}" for name, value in recipe.regroup.tolerance.items()])
    resistance_mohm = CellSpec.load(recipe.spec).ideal.resistance_mohm
    tester = find_driver("tester", measuring.tester.driver).from_settings(measuring.tester.settings)
    assert isinstance(tester, CellTester)
    verdict = meter_is_good_enough(tester.resistance_uncertainty_mohm(resistance_mohm), resistance_mohm)
    return verdict.good_enough, verdict.text


def read_defects(model: Path, view: str) -> list[str]:
    """Kinds of defect that a model knows. It must be one of this view; its weights are checked against its card.

    Raises:
        ModelError: Card or weights are missing, don't match, or are of another view.
    """
    from battery_sorting.vision.card import check_weights
    from battery_sorting.vision.defect_card import read_defect_card

    card = read_defect_card(model)
    check_weights(model, card)
    if card.view != view:
        raise ModelError(f"{model}: is a model of the {card.view or 'no'} view: give one of the {view} view")
    return card.defects


def check_plant(site_name: str, overrides: tuple[str, ...], site: AnySite, recipe: AnyRecipe) -> None:
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


def check_drivers(site: AnySite) -> list[str]:
    """What is wrong with the drivers of a site and their settings, each with its path in the site file."""
    from battery_sorting.drivers.registry import driver_problems

    return [
        path + problem.removeprefix(kind)
        for path, (kind, device) in assign_ports(site).devices.items()
        for problem in driver_problems(kind, device.driver, device.settings)
    ]


def read_types(model: Path) -> tuple[str, ...]:
    """Battery types that a model knows. Its weights are checked against its card.

    Raises:
        ModelError: Card or weights are missing or don't match.
    """
    from battery_sorting.vision.card import check_weights, read_card

    card = read_card(model)
    check_weights(model, card)
    return tuple(card.types)

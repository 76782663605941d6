"""Everything about a cell that can be checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.ev.measurement import meter_is_good_enough
from battery_sorting.core.ev.recipe import EvRecipe, MeasuringRecipe, problems_at
from battery_sorting.core.ev.site import EvSite, Measuring
from battery_sorting.core.lines import AnyRecipe, AnySite
from battery_sorting.core.plan import assign_ports, load_site_and_recipe
from battery_sorting.core.recipe import Recipe, check
from battery_sorting.core.settings import suggest
from battery_sorting.core.site import Site


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


def load_cell(site_name: str, recipe_name: str | None = None, overrides: tuple[str, ...] = ()) -> Cell:
    """Read and check site, recipe, drivers and models.

    Raises:
        ConfigurationError: A file is wrong; every fault of it is listed.
        ModelError: A model's card or weights are missing or don't match.
    """
    site, recipe = load_site_and_recipe(site_name, recipe_name, overrides, check_drivers)
    if isinstance(site, EvSite):
        assert isinstance(recipe, EvRecipe)
        ready = assign_ports(site)
        assert isinstance(ready, EvSite)
        return replace(_check_ev_line(ready, recipe), site=site)
    assert isinstance(recipe, Recipe)
    return _check_belt_line(site, recipe)


def _check_belt_line(site: Site, recipe: Recipe) -> Cell:
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

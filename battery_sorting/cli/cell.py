"""Everything about a cell that can be checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.plan import assign_ports, load_site_and_recipe
from battery_sorting.core.recipe import Recipe, check
from battery_sorting.core.site import Site


@dataclass(frozen=True)
class Cell:
    """A site with its recipe, both checked against each other and the model. ``warnings`` don't stop the start."""

    site: Site
    recipe: Recipe
    model_types: tuple[str, ...]
    warnings: tuple[str, ...]


def load_cell(site_name: str, recipe_name: str | None = None, overrides: tuple[str, ...] = ()) -> Cell:
    """Read and check site, recipe, drivers and model.

    Raises:
        ConfigurationError: A file is wrong; every fault of it is listed.
        ModelError: The model's card or weights are missing or don't match.
    """
    site, recipe = load_site_and_recipe(site_name, recipe_name, overrides, check_drivers)
    types = read_types(site.model_directory())
    shadow = site.shadow_directory()
    if shadow is not None:
        read_types(shadow)
    result = check(recipe, site, types)
    if result.problems:
        raise ConfigurationError(f"recipe {recipe.name} at site {site.name}", result.problems)
    return Cell(site, recipe, types, tuple(result.warnings))


def check_drivers(site: Site) -> list[str]:
    """What is wrong with the drivers of a site and their settings."""
    from battery_sorting.drivers.registry import driver_problems

    site = assign_ports(site)
    return [
        problem
        for section, device in (("plc", site.plc), ("camera", site.camera))
        for problem in driver_problems(section, device.driver, device.settings)
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

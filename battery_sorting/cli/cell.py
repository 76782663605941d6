"""Everything about a cell that can be checked before anything starts."""

from __future__ import annotations

import json
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
    model_labels: tuple[str, ...]
    warnings: tuple[str, ...]


def load_cell(site_name: str, recipe_name: str | None = None, overrides: tuple[str, ...] = ()) -> Cell:
    """Read and check site, recipe, drivers and model.

    Raises:
        ConfigurationError: Something is wrong; every fault of the file concerned is listed.
    """
    site, recipe = load_site_and_recipe(site_name, recipe_name, overrides, check_drivers)
    labels = read_labels(site.model_directory())
    result = check(recipe, site, labels)
    if result.problems:
        raise ConfigurationError(f"recipe {recipe.name} at site {site.name}", result.problems)
    return Cell(site, recipe, labels, tuple(result.warnings))


def check_drivers(site: Site) -> list[str]:
    """What is wrong with the drivers of a site and their settings."""
    from battery_sorting.drivers.registry import driver_problems

    site = assign_ports(site)
    return [
        problem
        for section, device in (("plc", site.plc), ("camera", site.camera))
        for problem in driver_problems(section, device.driver, device.settings)
    ]


def read_labels(model: Path) -> tuple[str, ...]:
    """Battery types that a model knows, from its card.

    Raises:
        ConfigurationError: The card is missing or unreadable.
    """
    card = model / "card.json"
    try:
        labels = json.loads(card.read_text(encoding="utf-8"))["labels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"is missing or no model card ({error}): take a model that has one, or train one"
        raise ConfigurationError(str(card), [problem]) from error
    return tuple(str(label) for label in labels)

"""`battery-sorting check`: whether a site can be started, and what would be."""

from __future__ import annotations

from battery_sorting.cli._output import say
from battery_sorting.cli._site import RecipeOption, SetOption, SiteOption
from battery_sorting.core.secrets import without_passwords
from battery_sorting.runtime.plan import PlanOptions, default_run_dir, make_plan
from battery_sorting.runtime.preflight import load_cell, try_ledger


def check(site: SiteOption, recipe: RecipeOption = None, overrides: SetOption = None) -> None:
    """Check a site, its recipe, drivers and model, and show what would be started."""
    cell = load_cell(site, recipe, tuple(overrides or ()))
    plan = make_plan(cell.site, cell.recipe, PlanOptions(default_run_dir(cell.site)))
    for path, (_, device) in plan.site.devices.items():
        say(without_passwords(f"{path}: {device.driver} {device.settings}"))
    say(try_ledger(plan.site, plan.run_dir))
    for fact in cell.facts:
        say(fact)
    say(f"records: {plan.run_dir}")
    say("processes:")
    for spec in plan.nodes:
        place = f"/{spec.namespace}/{spec.name}" if spec.is_node else spec.name
        say(f"  {place} ({spec.role.meaning})")
    for warning in cell.warnings:
        say(f"warning: {warning}")
    say(f"site '{plan.site.name}' is ready to start")

"""`battery-sorting up`: a cell until Ctrl-C or SIGTERM, where ``ros2 launch`` isn't installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from battery_sorting.cli._destinations import check_folder
from battery_sorting.cli._output import remark
from battery_sorting.cli._site import RecipeOption, SetOption, SiteOption
from battery_sorting.runtime.start import StartOptions, prepare
from battery_sorting.runtime.supervisor import Supervisor, stop_on_signals


def up(
    site: SiteOption,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", help="Folder of the records; else runs/SITE, or runs/NAMESPACE/SITE."),
    ] = None,
    log_level: Annotated[
        str, typer.Option("--log-level", help="What the nodes say at the least: debug, info, warn, error, fatal.")
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", help="Stands before the namespace of the line: left for /left/belt.")
    ] = "",
    use_sim_time: Annotated[
        bool, typer.Option("--use-sim-time", help="The nodes wait by /clock, as in a replay.")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="NODE", help="Don't start this node: your own takes its place."),
    ] = None,
) -> None:
    """Start a cell and run it until Ctrl-C."""
    options = StartOptions(
        site,
        recipe,
        tuple(overrides or ()),
        run_dir,
        log_level.lower(),
        namespace,
        use_sim_time,
        tuple(without or ()),
    )
    check_folder("--run-dir", options.run_dir)
    plan, warnings = prepare(options)
    for warning in warnings:
        remark(f"warning: {warning}")
    supervisor = Supervisor(plan, lambda name, line: remark(f"{name}: {line}"))
    with stop_on_signals(supervisor), supervisor:
        remark(f"cell '{plan.site.name}' is up, its records are in {plan.run_dir}; Ctrl-C stops it")
        supervisor.wait()
        remark("stopping")
    remark("stopped")

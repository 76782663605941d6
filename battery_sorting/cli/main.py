"""The command ``battery-sorting``. What a command needs is imported when it is called: ``--help`` stays quick."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from battery_sorting import __version__
from battery_sorting.cli._exit import PROGRAM, end_with
from battery_sorting.cli._output import say
from battery_sorting.cli._streams import take_streams
from battery_sorting.core.errors import ConfigurationError

ELSEWHERE = {
    "demo": ("battery_sorting.cli.demo", "demo", "Sort batteries on the simulated plant and report how well."),
    "command": (
        "battery_sorting.cli.command",
        "command",
        "Give a line that runs a command: stop, clear, reset, ...",
    ),
    "report": ("battery_sorting.cli.report", "report", "Report a shift: purity, yield, reasons, latency."),
    "items": ("battery_sorting.cli.report", "items", "List the batteries of a shift, or tell the story of one."),
    "check-driver": ("battery_sorting.cli.check_driver", "check_driver_command", "Check a driver on its device."),
    "classify": ("battery_sorting.cli.classify", "classify", "Name the battery types on pictures."),
    "explain": (
        "battery_sorting.cli.explain",
        "explain",
        "Explain a decision: overlay, colours, similar pictures.",
    ),
    "grade": ("battery_sorting.cli.grade", "grade", "Grade measured cells A to D."),
    "regroup": ("battery_sorting.cli.regroup", "regroup", "Regroup graded cells that are alike."),
    "packs": ("battery_sorting.cli.packs", "packs", "Build packs of cells that are alike."),
    "export": ("battery_sorting.cli.export", "app", "Export documents for others: passports of cells and packs."),
    "review": ("battery_sorting.cli.review", "review", "Export uncertain batteries of a shift, to be labelled."),
    "inspect": ("battery_sorting.cli.inspect", "inspect", "Judge the look of cells on pictures."),
    "experiment": (
        "battery_sorting.cli.experiment",
        "experiment",
        "Run the experiments of the papers again.",
    ),
    "train": ("battery_sorting.cli.train", "app", "Train models on your own batteries."),
    "evaluate": ("battery_sorting.cli.evaluate", "app", "Judge how well models do on your pictures."),
    "models": ("battery_sorting.cli.models", "app", "List, compare, activate, roll back and shadow models."),
    "data": ("battery_sorting.cli.data", "app", "Check pictures and labels before training."),
}
"""Commands that live in a module of their own: (module, function or typer app, help)."""

SiteOption = Annotated[str, typer.Option("--site", help="Name of a site in config/sites, or a file.")]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="Name of a recipe in config/recipes, or a file; else the site's.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting of the site, or with recipe.KEY=VALUE of the recipe."
    ),
]


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
    from battery_sorting.cli.up import up as run
    from battery_sorting.runtime.start import StartOptions

    run(
        StartOptions(
            site,
            recipe,
            tuple(overrides or ()),
            run_dir,
            log_level.lower(),
            namespace,
            use_sim_time,
            tuple(without or ()),
        )
    )


def check(site: SiteOption, recipe: RecipeOption = None, overrides: SetOption = None) -> None:
    """Check a site, its recipe, drivers and model, and show what would be started."""
    from battery_sorting.core.secrets import without_passwords
    from battery_sorting.runtime.plan import PlanOptions, default_run_dir, make_plan
    from battery_sorting.runtime.preflight import load_cell, try_ledger

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


def fault(
    switches: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SWITCH=VALUE]...", help="For example camera.drop=3; none: show all."),
    ] = None,
    run_dir: Annotated[Path, typer.Option("--run-dir", help="Run folder of the cell.")] = Path("runs/sim"),
) -> None:
    """Flip fault switches of the simulated plant while it runs."""
    import json

    import yaml

    from battery_sorting.core.plant_control import PlantControl
    from battery_sorting.core.settings import parse_yaml

    wanted: dict[str, Any] = {}
    for switch in switches or ():
        name, equals, value = switch.partition("=")
        if not equals:
            raise ConfigurationError(switch, ["write it as SWITCH=VALUE, for example camera.drop=3"])
        try:
            wanted[name] = parse_yaml(value)[1]
        except (yaml.YAMLError, ValueError, TypeError) as error:
            raise ConfigurationError(switch, [f"the value is not valid YAML: {error}"]) from error
    settings = run_dir / "plant.json"
    try:
        port = json.loads(settings.read_text())["control_port"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"can't be read ({error}): give the run folder of a simulated cell with --run-dir"
        raise ConfigurationError(str(settings), [problem]) from error
    with PlantControl("127.0.0.1", port) as plant:
        if wanted:
            plant.set_faults(**wanted)
        for name, value in plant.faults().items():
            say(f"{name}={value}")


def make_app(called: str | None) -> typer.Typer:
    """The application. Of the commands in `ELSEWHERE` only ``called`` is imported; the others are there by name."""
    app = typer.Typer(
        name=PROGRAM,
        help="Runs a battery sorting cell.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def options(  # both are looked at elsewhere: in `main` and in `_show_version`
        debug: Annotated[bool, typer.Option("--debug", help="Show where in the code an error arose.")] = False,
        version: Annotated[
            bool, typer.Option("--version", help="Show the version and end.", is_eager=True, callback=_show_version)
        ] = False,
    ) -> None:
        del debug, version

    for command in (up, check, fault):
        app.command()(command)
    for name, (module, attribute, text) in ELSEWHERE.items():
        if name != called:
            app.command(name, help=text)(_do_nothing)
            continue
        command = getattr(importlib.import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, help=text)
        else:
            app.command(name)(command)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


def _do_nothing() -> None:
    """Stands for a command that isn't called."""


def main() -> None:
    """Entry point: runs the command and ends the process with an exit code of docs/reference/command_line.md."""
    arguments = sys.argv[1:]
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    # 'demo --json FILE' writes a file, and prints what others print without --json.
    take_streams(json_alone="--json" in arguments and "--help" not in arguments and called != "demo")

    def run() -> None:
        # Not typer's own way to run an application: that ends with other codes where a pipe was closed.
        command = typer.main.get_command(make_app(called))
        with command.make_context(PROGRAM, list(arguments)) as context:
            command.invoke(context)

    def hint(error: ModuleNotFoundError) -> str:
        training = called in ("train", "evaluate", "data", "experiment")
        remedy = "pip install '.[train]'" if training else "make setup"
        return f"'{called}' needs the package {error.name}: {remedy}"

    sys.exit(end_with(run, "--debug" in arguments, hint))


if __name__ == "__main__":
    main()

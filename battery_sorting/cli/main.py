"""The command ``battery-sorting``. What a command needs is imported when it is called: ``--help`` stays quick."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer

from battery_sorting import __version__
from battery_sorting.cli._exit import PROGRAM, end_with
from battery_sorting.cli._output import say
from battery_sorting.cli._streams import take_streams

COMMANDS = {
    "up": ("battery_sorting.cli.up", "up", "Start a cell and run it until Ctrl-C."),
    "check": (
        "battery_sorting.cli.check",
        "check",
        "Check a site, its recipe, drivers and model, and show what would be started.",
    ),
    "fault": ("battery_sorting.cli.fault", "fault", "Flip fault switches of the simulated plant while it runs."),
    "demo": ("battery_sorting.cli.demo", "demo", "Sort batteries on the simulated plant and report how well."),
    "command": (
        "battery_sorting.cli.command",
        "command",
        "Give a line that runs a command: stop, clear, reset, ...",
    ),
    "report": ("battery_sorting.cli.report", "report", "Report a shift: purity, yield, reasons, latency."),
    "items": ("battery_sorting.cli.items", "items", "List the batteries of a shift, or tell the story of one."),
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
"""The commands: (module, function or typer app, help)."""


def make_app(called: str | None) -> typer.Typer:
    """The application. Of the commands in `COMMANDS` only ``called`` is imported; the others are there by name."""
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

    for name, (module, attribute, text) in COMMANDS.items():
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

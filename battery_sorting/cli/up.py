"""Runs a cell until Ctrl-C or SIGTERM, where ``ros2 launch`` isn't installed."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from rich.console import Console

from battery_sorting.cli.cell import load_cell
from battery_sorting.cli.supervisor import Supervisor
from battery_sorting.core.plan import PlanOptions, default_run_dir, make_plan


@contextlib.contextmanager
def stop_on_signals(supervisor: Supervisor) -> Iterator[None]:
    """Inside, the first SIGINT, SIGTERM or SIGHUP asks the cell to stop; the second kills it."""
    seen = False

    def take(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            supervisor.kill()
        seen = True
        supervisor.request_stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, take) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def up(site_name: str, recipe_name: str | None, overrides: tuple[str, ...], run_dir: Path | None) -> None:
    """Start the cell of a site and run it until it is told to stop, or fails.

    Raises:
        BatterySortingError: The cell can't be started or kept running. Everything is stopped then.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(text: str) -> None:
        console.print(text, markup=False)

    cell = load_cell(site_name, recipe_name, overrides)
    for warning in cell.warnings:
        say(f"warning: {warning}")
    plan = make_plan(cell.site, cell.recipe, PlanOptions(run_dir or default_run_dir(cell.site)))
    supervisor = Supervisor(plan, lambda name, line: say(f"{name}: {line}"))
    with stop_on_signals(supervisor), supervisor:
        say(f"cell '{cell.site.name}' is up, its records are in {plan.run_dir}; Ctrl-C stops it")
        supervisor.wait()
        say("stopping")
    say("stopped")

"""Runs a cell until Ctrl-C or SIGTERM, where ``ros2 launch`` isn't installed."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from battery_sorting.cli._destinations import check_folder
from battery_sorting.cli._output import remark
from battery_sorting.runtime.start import StartOptions, prepare
from battery_sorting.runtime.supervisor import Supervisor


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


def up(options: StartOptions) -> None:
    """Start the cell of a site and run it until it is told to stop, or fails.

    Raises:
        BatterySortingError: The cell can't be started or kept running. Everything is stopped then.
    """
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

"""What the demos of all lines share: start the line, watch it until it has done its work, stop it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from battery_sorting.cli._output import console, json_text
from battery_sorting.cli.up import stop_on_signals
from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.core.plant_control import PlantControl
from battery_sorting.line.paths import ledger_location
from battery_sorting.runtime.plan import Plan
from battery_sorting.runtime.supervisor import Supervisor, Usage

Tell = Callable[[str], None]
"""Takes what the processes of a line say, line by line."""


class DemoError(BatterySortingError):
    """The line did not do its work."""

    code = "demo"


@dataclass(frozen=True)
class Effort:
    """What a run took: when it began (s since 1970), and by process memory, CPU and how often it died."""

    began: float
    usage: dict[str, Usage]
    deaths: dict[str, int]

    @property
    def memory_mb(self) -> dict[str, float]:
        """Memory of each process and in all."""
        return _in_all(self.usage, lambda one: one.memory_mb)

    @property
    def cpu_percent(self) -> dict[str, float]:
        """CPU of each process and in all, 100 being one core."""
        return _in_all(self.usage, lambda one: one.cpu_percent)


def run_line(plan: Plan, headline: str, watch: Callable[[Supervisor], bool], tell: Tell) -> Effort:
    """Start the line, let ``watch`` wait until it is done, and stop it.

    Raises:
        BatterySortingError: The line could not be started, came to a stop, or was told to stop before it was done.
    """
    # Two demos on one machine must not hear each other.
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    began = time.time()
    supervisor = Supervisor(plan, lambda name, line: tell(f"{name}: {line}"))
    with stop_on_signals(supervisor):
        with supervisor:
            tell(headline)
            done = watch(supervisor)
            effort = Effort(began, supervisor.usage(), supervisor.deaths())
        if not done:
            raise DemoError("stopped before all was done")
    return effort


def plant_control(plan: Plan) -> PlantControl:
    """The control port of the plan's plant."""
    return PlantControl("127.0.0.1", (plan.site.plant or {})["control_port"])


def progress_bar(silent: bool) -> Progress:
    """A bar with a field ``note`` on standard error; none if ``silent`` or where that is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    shown = console(stderr=True)
    return Progress(*columns, console=shown, transient=True, disable=silent or shown.quiet)


def demo_run_dir(given: Path | None) -> Path:
    """Folder of the records: as given, or a new one."""
    return given or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")


def why_it_stands(plan: Plan) -> str:
    """What the ledger says of a line that does not move."""
    from battery_sorting.ledger.events import AlarmRaised, LineStateChanged
    from battery_sorting.ledger.store import Ledger

    try:
        with Ledger.open(ledger_location(plan.site, plan.run_dir), read_only=True) as ledger:
            states = ledger.events(kinds=[LineStateChanged], last=1)
            alarms = ledger.events(kinds=[AlarmRaised], last=5)
    except BatterySortingError as error:
        return f"{error}; see {plan.run_dir / 'log'}"
    last = states[-1].data if states else LineStateChanged(name="not started", reason="no state yet")
    texts = "".join(f"\n  {alarm.data.code}: {alarm.data.text}" for alarm in alarms)
    return f"the line is {last.name} ({last.reason}); see {plan.run_dir / 'log'}{texts}"


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Write figures for programs.

    Raises:
        ConfigurationError: The file can't be written.
    """
    try:
        path.write_text(json_text(figures) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(str(path), [f"can't be written ({error.strerror}): give another file"]) from error


def _in_all(usage: dict[str, Usage], figure: Callable[[Usage], float]) -> dict[str, float]:
    """A figure of each process and in all."""
    single = {name: round(figure(one), 1) for name, one in usage.items()}
    return {**single, "all": round(sum(single.values()), 1)}

"""What a demo does with a line of any kind: start it, watch it until it has done its work, stop it, report."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.plant_control import PlantControl
from battery_sorting.line.paths import ledger_location
from battery_sorting.runtime.plan import Plan
from battery_sorting.runtime.supervisor import Supervisor, Usage, stop_on_signals

if TYPE_CHECKING:  # the ledger takes half a second to import: the line is started before
    from battery_sorting.line.reporting import ShiftReport

Tell = Callable[[str], None]
"""Takes what the processes of a line say, line by line."""
Advance = Callable[[int, str], None]
"""Takes how many items are done, and a note."""
Bar = Callable[[str, int], AbstractContextManager[Advance]]
"""Shows how far a line is: called with what is done to its items, and how many there are."""


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


@dataclass(frozen=True)
class DemoJob(ABC):
    """What the line of a demo is to do. A class for each kind of line, whose fields are the options of its demo.

    Attributes:
        machine: What failed if it has not worked, in a word.
        items: How many items the plant brings.
        seed: Of the plant.
        run_dir: Folder of the records; None: a new one.
        overrides: Of the site, as for ``battery-sorting up --set``.
        site: Name or file of the simulated site.
    """

    machine: ClassVar[str] = "line"

    items: int
    seed: int = 0
    run_dir: Path | None = None
    overrides: tuple[str, ...] = ()
    site: str = ""

    @property
    @abstractmethod
    def headline(self) -> str:
        """What is being done."""

    def check(self, tell: Tell) -> None:  # noqa: B027
        """Check what the job takes from elsewhere before the line is started, and say what is left out of it.

        Raises:
            ConfigurationError: It isn't there.
        """

    @abstractmethod
    def make_plan(self) -> Plan:
        """The plan of the simulated site for the job.

        Raises:
            ConfigurationError: With every fault of the settings.
        """

    @abstractmethod
    def watch(self, supervisor: Supervisor, bar: Bar) -> bool:
        """Wait until the plant has no item left and the ledger has the last word on each. False: told to stop.

        Raises:
            DemoError: Nothing has happened for too long.
            CellError: A process of the line died for good.
        """

    @abstractmethod
    def report(self, plan: Plan, effort: Effort) -> ShiftReport:
        """What a line that has ended came to, by its ledger and the plant's record."""


@dataclass(frozen=True)
class DemoOutcome:
    """What came of a job."""

    plan: Plan
    report: ShiftReport
    deaths: dict[str, int]


def run_demo(job: DemoJob, tell: Tell | None = None, bar: Bar | None = None) -> DemoOutcome:
    """Run the whole line in real time until the ledger has the last word on every item of ``job``.

    Args:
        job: What it is to do.
        tell: Gets what the processes say.
        bar: Shows how far it is.

    Raises:
        BatterySortingError: The line could not be started, came to a stop, or was told to stop before it was done.
    """
    plan = job.make_plan()
    effort = _run_line(plan, job, tell or (lambda _: None), bar or (lambda *_: nullcontext(lambda *_: None)))
    return DemoOutcome(plan, job.report(plan, effort), effort.deaths)


def _run_line(plan: Plan, job: DemoJob, tell: Tell, bar: Bar) -> Effort:
    """Start the line, wait until it is done, and stop it."""
    # Two demos on one machine must not hear each other.
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    began = time.time()
    supervisor = Supervisor(plan, lambda name, line: tell(f"{name}: {line}"))
    with stop_on_signals(supervisor):
        with supervisor:
            tell(job.headline)
            done = job.watch(supervisor, bar)
            effort = Effort(began, supervisor.usage(), supervisor.deaths())
        if not done:
            raise DemoError("stopped before all was done")
    return effort


def plant_control(plan: Plan) -> PlantControl:
    """The control port of the plan's plant."""
    return PlantControl("127.0.0.1", (plan.site.plant or {})["control_port"])


def demo_run_dir(given: Path | None) -> Path:
    """Folder of the records: as given, or a new one."""
    return given or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")


def why_it_stands(plan: Plan) -> str:
    """What the ledger says of a line that does not move."""
    from battery_sorting.ledger import EventKind
    from battery_sorting.ledger.store import Ledger

    try:
        with Ledger.open(ledger_location(plan.site, plan.run_dir), read_only=True) as ledger:
            states = ledger.events(kinds=[EventKind.LINE_STATE], last=1)
            alarms = ledger.events(kinds=[EventKind.ALARM_RAISED], last=5)
    except BatterySortingError as error:
        return f"{error}; see {plan.run_dir / 'log'}"
    last: dict[str, Any] = states[-1].payload if states else {"name": "not started", "reason": "no state yet"}
    texts = "".join(f"\n  {alarm.payload['code']}: {alarm.payload['text']}" for alarm in alarms)
    return f"the line is {last['name']} ({last['reason']}); see {plan.run_dir / 'log'}{texts}"


def _in_all(usage: dict[str, Usage], figure: Callable[[Usage], float]) -> dict[str, float]:
    """A figure of each process and in all."""
    single = {name: round(figure(one), 1) for name, one in usage.items()}
    return {**single, "all": round(sum(single.values()), 1)}

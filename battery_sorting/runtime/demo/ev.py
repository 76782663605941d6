"""The demo of the EV line: cells are inspected, measured, graded, put together and laid into trays."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from battery_sorting.core.errors import ConfigurationError, LedgerError
from battery_sorting.core.strict_json import to_json
from battery_sorting.ev.kind import EV
from battery_sorting.ev.plant_record import load_ev_record
from battery_sorting.ev.site import EvSite
from battery_sorting.line.paths import ledger_location
from battery_sorting.runtime.demo.run import (
    Bar,
    DemoError,
    DemoJob,
    Effort,
    demo_run_dir,
    plant_control,
    why_it_stands,
)
from battery_sorting.runtime.plan import Plan, PlanOptions, make_plan
from battery_sorting.runtime.preflight import load_cell
from battery_sorting.runtime.supervisor import Supervisor

if TYPE_CHECKING:  # the ledger takes half a second to import: the line is started before
    from battery_sorting.ev.report import EvReport

STALL_S = 60.0
"""When nothing is written into the ledger for this long, and no test can take that long, the demo has failed."""
LONGEST_TEST_S = 20 * 3600.0
"""More than a capacity test at 0.5 C takes, on the tester's clock."""
LOOK_S = 0.25


@dataclass(frozen=True)
class EvJob(DemoJob):
    """What is to be inspected and measured."""

    items: int = 60
    site: str = "sim_ev"

    @property
    def headline(self) -> str:
        """See `DemoJob`."""
        return f"{self.items} cells: inspect, measure, grade, put together"

    def make_plan(self) -> Plan:
        """With room for all its cells.

        Raises:
            ConfigurationError: With every fault of the settings, or the site isn't simulated.
        """
        ports = [f"plant.{name}=0" for name in EV.plant_ports]
        overrides = [f"plant.items={self.items}", f"plant.seed={self.seed}", *ports, *_room_for(self)]
        cell = load_cell(self.site, overrides=(*overrides, *self.overrides))
        if cell.site.plant is None:
            problem = "plant: this section is missing: the demo runs on the simulated plant"
            raise ConfigurationError(self.site, [problem])
        return make_plan(cell.site, cell.recipe, PlanOptions(demo_run_dir(self.run_dir)))

    def watch(self, supervisor: Supervisor, bar: Bar) -> bool:
        """See `DemoJob`."""
        plan = supervisor.plan
        patience_s = STALL_S + LONGEST_TEST_S / float((plan.site.plant or {}).get("test_time_factor", 1.0))
        with plant_control(plan) as plant, bar("placed", self.items) as show:
            last, moved_at = _Seen(), time.monotonic()
            while not supervisor.wait(LOOK_S):
                seen = _look(plan, last)
                if seen.event_id != last.event_id:
                    last, moved_at = seen, time.monotonic()
                    note = f"{seen.inspected} inspected, {seen.measured} measured, {seen.ended} placed"
                    show(min(self.items, seen.ended), note)
                if plant.summary()["finished"] and seen.ended and not seen.open:
                    return True
                if time.monotonic() - moved_at > patience_s:
                    why = f"{why_it_stands(plan)}{_where(plan)}"
                    raise DemoError(f"nothing has happened for {patience_s:.0f} s; {why}")
        return False

    def report(self, plan: Plan, effort: Effort) -> EvReport:
        """See `DemoJob`."""
        report = judged_report(plan)
        first = min(
            (story.released_at for story in report.run.stories if story.released_at is not None), default=None
        )
        report.figures.startup_s = None if first is None else first - effort.began
        report.figures.memory_mb, report.figures.cpu_percent = effort.memory_mb, effort.cpu_percent
        return report


def judged_report(plan: Plan) -> EvReport:
    """What a line that has ended came to, by its ledger and the plant's record."""
    from battery_sorting.ev.report import EvReport, judge_ev_run, load_ev_run
    from battery_sorting.ledger.store import Ledger

    record = load_ev_record(plan.run_dir / "plant.jsonl")
    with Ledger.open(ledger_location(plan.site, plan.run_dir), read_only=True) as ledger:
        run = load_ev_run(ledger, record=record)
    return EvReport(run, judge_ev_run(run, record))


def _room_for(job: EvJob) -> list[str]:
    """Overrides that make buffer and trays of the site large enough, so that nobody has to empty trays."""
    measuring = EvSite.load(job.site).measuring
    if measuring is None:
        return []
    fixed = [
        {"name": name, "slots": min(1000, max(64, job.items))} for name in ("leftover", "recycle", "quarantine")
    ]
    own = [tray for tray in measuring.trays if tray.name not in {entry["name"] for entry in fixed}]
    slots = max(tray.slots for tray in own)
    trays = [
        {"name": f"tray_{number}", "slots": slots} for number in range(1, max(len(own), job.items // slots) + 1)
    ]
    buffer = min(1000, max(measuring.buffer, job.items))
    return [f"measuring.buffer={buffer}", f"measuring.trays={to_json([*trays, *fixed], None)}"]


@dataclass(frozen=True, slots=True)
class _Seen:
    """How far the line is, by its ledger."""

    event_id: int = 0
    inspected: int = 0
    measured: int = 0
    ended: int = 0
    open: int = 0


def _look(plan: Plan, last: _Seen) -> _Seen:
    """How far the line is now; the events are read again only if there are newer ones than those of ``last``."""
    from battery_sorting.ledger import EventKind
    from battery_sorting.ledger.store import Ledger

    try:
        with Ledger.open(ledger_location(plan.site, plan.run_dir), read_only=True) as ledger:
            newest = ledger.events(last=1)
            event_id = newest[-1].event_id if newest else 0
            inspected, measured = last.inspected, last.measured
            if event_id != last.event_id:
                measured = len({event.battery_id for event in ledger.events(kinds=[EventKind.MEASURED])})
                inspected = len(ledger.events(kinds=[EventKind.RELEASED]))
            batteries = ledger.batteries()
    except LedgerError:  # the line controller is just making it
        return _Seen()
    still_open = sum(battery.bin is None for battery in batteries)
    return _Seen(event_id, inspected, measured, len(batteries) - still_open, still_open)


def _where(plan: Plan) -> str:
    """Where the cells are that have no last word, for a person who looks for the reason of a stop."""
    from battery_sorting.ev.report import load_ev_run
    from battery_sorting.ledger.store import Ledger

    with (
        contextlib.suppress(LedgerError),
        Ledger.open(ledger_location(plan.site, plan.run_dir), read_only=True) as ledger,
    ):
        waiting = [story for story in load_ev_run(ledger).stories if story.bin is None]
        places = Counter(story.where.partition("-")[0] for story in waiting)
        return "\n  cells on their way: " + (
            ", ".join(f"{count} {name}" for name, count in places.items()) or "none"
        )
    return ""

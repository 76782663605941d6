"""The demo of the belt line: batteries are sorted by type."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from battery_sorting.belt.site import BeltSite
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.plant_control import load_record
from battery_sorting.core.strict_json import to_json
from battery_sorting.line.paths import ledger_location
from battery_sorting.runtime.demo.run import (
    Bar,
    DemoError,
    DemoJob,
    Effort,
    Tell,
    demo_run_dir,
    plant_control,
    why_it_stands,
)
from battery_sorting.runtime.plan import Plan, PlanOptions, make_plan
from battery_sorting.runtime.preflight import load_cell
from battery_sorting.runtime.supervisor import Supervisor

if TYPE_CHECKING:  # the ledger takes half a second to import: the line is started before
    from battery_sorting.belt.report import BeltReport, Run

COMFORTABLE_PITCH_MM = 120.0
STALL_S = 30.0
"""When no battery reaches a bin for this long, the demo has failed."""
SETTLE_S = 5.0
"""The ledger has the last word on a battery when the belt has carried it past its end."""


@dataclass(frozen=True)
class BeltJob(DemoJob):
    """What is to be sorted. ``speed_mps`` of None is chosen by ``rate_per_s``."""

    machine = "cell"

    items: int = 200
    site: str = "sim"
    rate_per_s: float = 5.0
    images: Path | None = None
    speed_mps: float | None = None

    @property
    def headline(self) -> str:
        """See `DemoJob`."""
        return f"sorting {self.items} batteries at {self.rate_per_s:g}/s"

    def check(self, tell: Tell) -> None:
        """The pictures that are laid on the belt."""
        if self.images is None:
            return
        from battery_sorting.vision.picture_folders import find_pictures

        if not self.images.is_dir():
            problem = f"{self.images}: no such folder; give one with a sub-folder per type"
            raise ConfigurationError("--images", [problem])
        find_pictures(self.images).told(lambda text: tell(f"warning: {text}"))

    def make_plan(self) -> Plan:
        """See `DemoJob`."""
        fastest = BeltSite.load(self.site).belt.max_speed_mps
        speed = self.speed_mps or min(max(self.rate_per_s * COMFORTABLE_PITCH_MM / 1000, 0.3), fastest)
        overrides = [
            f"plant.items={self.items}",
            f"plant.rate_per_s={self.rate_per_s:g}",
            f"plant.seed={self.seed}",
            "plant.modbus_port=0",
            "plant.camera_port=0",
            "plant.control_port=0",
            f"recipe.speed_mps={speed:.3f}",
        ]
        if self.images is not None:
            overrides.append(f"plant.images={to_json(str(self.images.absolute()), None)}")
        cell = load_cell(self.site, overrides=(*overrides, *self.overrides))
        return make_plan(cell.site, cell.recipe, PlanOptions(demo_run_dir(self.run_dir)))

    def watch(self, supervisor: Supervisor, bar: Bar) -> bool:
        """See `DemoJob`."""
        with plant_control(supervisor.plan) as plant, bar("sorted", self.items) as show:
            done, moved_at = 0, time.monotonic()
            while not supervisor.wait(0.25):
                bins: dict[str, int] = plant.summary()["bins"]
                if sum(bins.values()) > done:
                    done, moved_at = sum(bins.values()), time.monotonic()
                    show(done, f"{bins.get('others', 0)} in others")
                if done >= self.items:
                    _wait_for_ledger(supervisor)
                    return True
                if time.monotonic() - moved_at > STALL_S:
                    raise DemoError(f"no battery has moved for {STALL_S:g} s; {why_it_stands(supervisor.plan)}")
        return False

    def report(self, plan: Plan, effort: Effort) -> BeltReport:
        """See `DemoJob`."""
        from battery_sorting.belt.report import BeltReport, judge_run, load_run
        from battery_sorting.ledger.store import Ledger

        with Ledger.open(ledger_location(plan.site, plan.run_dir), read_only=True) as ledger:
            record = load_record(plan.run_dir / "plant.jsonl")
            run = load_run(ledger, boot_id=record["boot_id"])
        figures = judge_run(run, record)
        figures.startup_s = _first_sorted(run, effort.began)
        figures.memory_mb, figures.cpu_percent = effort.memory_mb, effort.cpu_percent
        return BeltReport(run, figures)


def _wait_for_ledger(supervisor: Supervisor) -> None:
    """Until no battery is open in the ledger, or it is clear that one stays open."""
    from battery_sorting.ledger.store import Ledger

    plan = supervisor.plan
    deadline = time.monotonic() + SETTLE_S
    with Ledger.open(ledger_location(plan.site, plan.run_dir), read_only=True) as ledger:
        while ledger.open_batteries(plan.site.line) and time.monotonic() < deadline:
            if supervisor.wait(0.1):
                return


def _first_sorted(run: Run, began: float) -> float | None:
    """Seconds from the start to the first ejection that the PLC has carried out."""
    from battery_sorting.ledger import EventKind

    fired = [
        event.recorded_at
        for event in run.events
        if event.kind is EventKind.EJECT_REPORTED and event.payload["outcome"] == "fired"
    ]
    return min(fired) - began if fired else None

"""Runs a line on the simulated plant and reports how well: the quickest way to see it work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from battery_sorting.cli._demo import (
    DemoError,
    Tell,
    demo_run_dir,
    plant_control,
    progress_bar,
    run_line,
    why_it_stands,
    write_figures,
)
from battery_sorting.cli._destinations import check_file, check_folder
from battery_sorting.cli._output import remark, say
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.plant_control import load_record
from battery_sorting.core.strict_json import to_json
from battery_sorting.line.paths import ledger_location
from battery_sorting.runtime.plan import Plan, PlanOptions, make_plan
from battery_sorting.runtime.preflight import load_cell
from battery_sorting.runtime.supervisor import Supervisor

if TYPE_CHECKING:  # the ledger takes half a second to import: the cell is started before
    from battery_sorting.belt.report import Figures, Run

COMFORTABLE_PITCH_MM = 120.0
RATE_PER_S = 5.0
LINES = ("belt", "ev")
STALL_S = 30.0
"""When no battery reaches a bin for this long, the demo has failed."""
SETTLE_S = 5.0
"""The ledger has the last word on a battery when the belt has carried it past its end."""


@dataclass(frozen=True)
class Job:
    """What is to be sorted. ``speed_mps`` of None is chosen by ``rate_per_s``."""

    items: int
    rate_per_s: float
    seed: int = 0
    images: Path | None = None
    speed_mps: float | None = None
    site: str = "sim"
    run_dir: Path | None = None
    overrides: tuple[str, ...] = ()


@dataclass
class JobOutcome:
    """What came of a `Job`."""

    plan: Plan
    run: Run
    figures: Figures
    deaths: dict[str, int] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """Why the cell has not worked; empty if it has. A misnamed battery is the model's fault, not the cell's."""
        figures = self.figures
        wrong = {
            "batteries without an account": figures.items - figures.accounted,
            "named correctly, but not in their bin": figures.named_but_misplaced or 0,
            "in another bin than the ledger says": len(figures.disagreements),
            "ejections missed": figures.missed,
            "ejections late": figures.late,
            "ejected twice": figures.double_ejected,
            "batteries lost": len(figures.lost),
        }
        return [f"{text}: {count}" for text, count in wrong.items() if count]


def demo(
    line: Annotated[
        str, typer.Option(help="Line: belt (household batteries) or ev (retired prismatic cells).")
    ] = "belt",
    items: Annotated[
        int | None, typer.Option(min=1, help="Number of batteries; 200 on the belt, 60 on the EV line by default.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="Belt: batteries per second; 5 by default.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Belt: folder with one sub-folder of pictures per type, laid on the belt.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the plant.")] = 0,
    speed: Annotated[
        float | None, typer.Option(help="Belt: speed in m/s; follows from the rate by default.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures into this file.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the records; else a new one in runs/.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As for 'up'.")] = None,
) -> None:
    """Run a line on the simulated plant and report how well. Exit code 0 only if the line worked."""
    if line not in LINES:
        raise ConfigurationError("--line", [f"there is no line '{line}': give {' or '.join(LINES)}"])
    check_file("--json", json_file)
    check_folder("--run-dir", run_dir)
    if line == "ev":
        of_the_belt = {"--rate": rate, "--images": images, "--speed": speed}
        given = [f"{name}: is of the belt line only" for name, value in of_the_belt.items() if value is not None]
        if given:
            raise ConfigurationError("--line ev", given)
        from battery_sorting.cli._demo_ev import EvJob, show_ev_line

        show_ev_line(EvJob(items or EvJob.items, seed, run_dir, tuple(overrides or ())), json_file)
        return
    job = Job(
        items or 200, rate or RATE_PER_S, seed, images, speed, run_dir=run_dir, overrides=tuple(overrides or ())
    )
    show_belt_line(job, json_file)


def show_belt_line(job: Job, json_file: Path | None) -> None:
    """Sort batteries, print what came of it, and write report and figures.

    Raises:
        BatterySortingError: The cell could not be started, came to a stop, or has not worked.
    """
    # Matplotlib takes a second to import; the cell comes first.
    if job.images is not None:
        _say_what_is_left_out(job.images)
    outcome = sort_batteries(job, remark)
    figures = outcome.figures

    from battery_sorting.cli._cases import Explainers
    from battery_sorting.cli._instructive import instructive
    from battery_sorting.cli._kept_pictures import KeptPictures
    from battery_sorting.cli._report_html import write_html
    from battery_sorting.cli.report import print_report
    from battery_sorting.ledger.store import Ledger

    ledger = ledger_location(outcome.plan.site, outcome.plan.run_dir)
    page = outcome.plan.run_dir / "report.html"
    print_report(outcome.run, figures)
    with Ledger.open(ledger, read_only=True) as book:
        decisions = instructive(outcome.run, KeptPictures(book), Explainers())
    write_html(page, outcome.run, figures, str(ledger), decisions)
    if json_file is not None:
        write_figures(json_file, figures.to_dict())
    say(f"ledger: {ledger}")
    say(f"report: {page}")
    if outcome.failures:
        raise DemoError("the cell has not worked: " + "; ".join(outcome.failures))


def sort_batteries(job: Job, tell: Tell | None = None) -> JobOutcome:
    """Run the whole cell in real time until every battery of ``job`` is in a bin.

    Raises:
        BatterySortingError: The cell could not be started, or came to a stop before it was done.
    """
    plan = make_job_plan(job)
    headline = f"sorting {job.items} batteries at {job.rate_per_s:g}/s"
    effort = run_line(
        plan,
        headline,
        lambda supervisor: watch_until_sorted(supervisor, job.items, silent=tell is None),
        tell or (lambda _: None),
    )
    from battery_sorting.belt.report import judge_run, load_run
    from battery_sorting.ledger.store import Ledger

    with Ledger.open(ledger_location(plan.site, plan.run_dir), read_only=True) as ledger:
        record = load_record(plan.run_dir / "plant.jsonl")
        run = load_run(ledger, boot_id=record["boot_id"])
    figures = judge_run(run, record)
    figures.startup_s = _first_sorted(run, effort.began)
    figures.memory_mb = effort.memory_mb
    figures.cpu_percent = effort.cpu_percent
    return JobOutcome(plan, run, figures, effort.deaths)


def make_job_plan(job: Job) -> Plan:
    """The plan of the simulated site for a job.

    Raises:
        ConfigurationError: With every fault of the settings.
    """
    from battery_sorting.belt.site import BeltSite

    fastest = BeltSite.load(job.site).belt.max_speed_mps
    speed = job.speed_mps or min(max(job.rate_per_s * COMFORTABLE_PITCH_MM / 1000, 0.3), fastest)
    overrides = [
        f"plant.items={job.items}",
        f"plant.rate_per_s={job.rate_per_s:g}",
        f"plant.seed={job.seed}",
        "plant.modbus_port=0",
        "plant.camera_port=0",
        "plant.control_port=0",
        f"recipe.speed_mps={speed:.3f}",
    ]
    if job.images is not None:
        overrides.append(f"plant.images={to_json(str(job.images.absolute()), None)}")
    cell = load_cell(job.site, overrides=(*overrides, *job.overrides))
    return make_plan(cell.site, cell.recipe, PlanOptions(demo_run_dir(job.run_dir)))


def _say_what_is_left_out(images: Path) -> None:
    from battery_sorting.cli._pictures import warn
    from battery_sorting.vision.picture_folders import find_pictures

    if not images.is_dir():
        raise ConfigurationError("--images", [f"{images}: no such folder; give one with a sub-folder per type"])
    find_pictures(images).told(warn)


def watch_until_sorted(supervisor: Supervisor, items: int, *, silent: bool = False) -> bool:
    """Wait until the plant has no battery left and the ledger has the last word on each. False: told to stop.

    Raises:
        DemoError: Nothing has moved for `STALL_S`.
        CellError: A process of the cell died for good.
    """
    with plant_control(supervisor.plan) as plant, progress_bar(silent) as progress:
        bar = progress.add_task("sorted", total=items, note="starting")
        done, moved_at = 0, time.monotonic()
        while not supervisor.wait(0.25):
            bins: dict[str, int] = plant.summary()["bins"]
            if sum(bins.values()) > done:
                done, moved_at = sum(bins.values()), time.monotonic()
                progress.update(bar, completed=done, note=f"{bins.get('others', 0)} in others")
            if done >= items:
                _wait_for_ledger(supervisor)
                return True
            if time.monotonic() - moved_at > STALL_S:
                raise DemoError(f"no battery has moved for {STALL_S:g} s; {why_it_stands(supervisor.plan)}")
    return False


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
    from battery_sorting.core.types import EjectOutcome
    from battery_sorting.ledger.events import EjectReported

    fired = [event.recorded_at for event in run.each(EjectReported) if event.data.outcome is EjectOutcome.FIRED]
    return min(fired) - began if fired else None

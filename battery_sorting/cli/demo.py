"""`battery-sorting demo`: a line on the simulated plant, and how well it did. The quickest way to see it work."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from battery_sorting.cli._destinations import check_file, check_folder
from battery_sorting.cli._output import json_text, remark, say, show_parts, width
from battery_sorting.cli._progress import noted_bar
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.line.paths import ledger_location
from battery_sorting.lines import LINES
from battery_sorting.runtime.demo import DEMOS, DemoError, DemoOutcome, run_demo


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
    if line not in DEMOS:
        raise ConfigurationError("--line", [f"there is no line '{line}': give {' or '.join(DEMOS)}"])
    check_file("--json", json_file)
    check_folder("--run-dir", run_dir)
    options = {"--rate": ("rate_per_s", rate), "--images": ("images", images), "--speed": ("speed_mps", speed)}
    given: dict[str, Any] = {name: value for name, value in options.values() if value is not None}
    unknown = given.keys() - {field.name for field in fields(DEMOS[line])}
    wrong = [f"{option}: is of the belt line only" for option, (name, _) in options.items() if name in unknown]
    if wrong:
        raise ConfigurationError(f"--line {line}", wrong)
    given |= {} if items is None else {"items": items}
    job = DEMOS[line](seed=seed, run_dir=run_dir, overrides=tuple(overrides or ()), **given)
    job.check(remark)
    outcome = run_demo(job, remark, noted_bar)
    show_outcome(line, outcome, json_file)
    if outcome.report.failures:
        raise DemoError(f"the {job.machine} has not worked: " + "; ".join(outcome.report.failures))


def show_outcome(line: str, outcome: DemoOutcome, json_file: Path | None) -> None:
    """Print what came of a demo, and write its page and its figures.

    Raises:
        BatterySortingError: A file can't be written.
    """
    # The ledger takes half a second to import, Matplotlib a second: the line came first.
    from battery_sorting.ledger.store import Ledger
    from battery_sorting.report.kept_pictures import KeptPictures
    from battery_sorting.report.layout import PageRequest
    from battery_sorting.report.layouts import layout_of

    layout = layout_of(LINES[line])
    ledger = ledger_location(outcome.plan.site, outcome.plan.run_dir)
    page = outcome.plan.run_dir / "report.html"
    show_parts(layout.parts(outcome.report, width()))
    with Ledger.open(ledger, read_only=True) as book:
        layout.write_page(outcome.report, PageRequest(page, book, KeptPictures(book)))
    if json_file is not None:
        try:
            json_file.write_text(json_text(outcome.report.to_dict()) + "\n", encoding="utf-8")
        except OSError as error:
            problem = f"can't be written ({error.strerror}): give another file"
            raise ConfigurationError(str(json_file), [problem]) from error
    say(f"ledger: {ledger}")
    say(f"report: {page}")

"""`battery-sorting experiment inspection-table3`: several networks on the same pictures of good and defective."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from battery_sorting.cli._defect_options import DefectArguments, names_of
from battery_sorting.cli._output import say, write_json
from battery_sorting.cli._progress import progress

if TYPE_CHECKING:
    from battery_sorting.cli._experiment_options import ExperimentCall

INSPECTION_TABLE = "inspection-table3"

NetworksOption = Annotated[
    str,
    typer.Option(
        help="inspection-table3: networks to train as a whole, separated by commas: cbam-resnet50, resnet50, "
        "vgg16, alexnet, cbam-lite0. Hours on a processor."
    ),
]
WholeEpochsOption = Annotated[int, typer.Option(min=1, help="Of whole networks.")]
FromScratchOption = Annotated[
    bool, typer.Option("--from-scratch", help="Whole networks without pretrained weights begin at random.")
]


@dataclass(frozen=True, slots=True)
class InspectionSettings:
    """What the table of the inspection alone is told, see `DefectArguments` and `TableOptions`."""

    view: str
    good: str
    groups: str
    group_gap: int
    finder: Path | None
    networks: str
    epochs: int
    from_scratch: bool
    head: str
    cache: Path | None
    overwrite: bool


def run_inspection_table(call: ExperimentCall, settings: InspectionSettings) -> None:
    """Train and judge the networks and print their table.

    Raises:
        ConfigurationError: Pictures or settings that can't be used.
    """
    frozen = DefectArguments(
        view=settings.view,
        good=settings.good,
        groups=settings.groups,
        group_gap=settings.group_gap,
        backbone="",
        finder=settings.finder,
        head=settings.head,
        seed=call.seed,
        device=call.device,
        threads=call.threads,
        cache=settings.cache,
    ).options(call.data)
    from battery_sorting.vision.training.inspection_table import TableOptions, inspection_table, table_text

    options = TableOptions(
        frozen,
        frozen=names_of(call.backbone),
        networks=names_of(settings.networks),
        splits=call.runs,
        epochs=settings.epochs,
        weights=call.weights,
        scratch=settings.from_scratch,
        overwrite=settings.overwrite,
    )
    report = inspection_table(options, call.out, progress)
    if call.json:
        write_json(report)
    else:
        say(table_text(report))

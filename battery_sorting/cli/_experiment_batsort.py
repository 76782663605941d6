"""`battery-sorting experiment batsort-table1`, `-table2` and `-figure3`: the BatSort paper's training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from battery_sorting.cli._output import say, write_json
from battery_sorting.cli._progress import progress

if TYPE_CHECKING:
    from battery_sorting.cli._experiment_options import ExperimentCall

SizeOption = Annotated[int, typer.Option(min=32, help="Side of the pictures, pixels.")]
ScratchSizeOption = Annotated[
    int, typer.Option(min=32, help="The same where the whole network learns (no knowledge).")
]
FitOption = Annotated[str, typer.Option("--input", help="squash (as the paper), letterbox or crop.")]
LabelsOption = Annotated[
    str | None, typer.Option(help="List of label corrections, or batsort; without it labels as published.")
]
BothStagesOption = Annotated[
    bool, typer.Option("--both-stages", help="Blocks learn in the first stage, too, at its large rate.")
]
CopiesOption = Annotated[int, typer.Option(min=0, help="Augmented copies per picture; the paper has none.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on where an earlier call ended.")]


@dataclass(frozen=True, slots=True)
class BatsortSettings:
    """What the experiments of the BatSort paper alone are told, see `ExperimentOptions`."""

    size: int
    scratch_size: int
    fit: str
    labels: str | None
    both_stages: bool
    copies: int
    resume: bool


def run_batsort(name: str, call: ExperimentCall, settings: BatsortSettings) -> None:
    """Run one of the experiments and print its table.

    Raises:
        ConfigurationError: There is no experiment of this name, or it can't be run so.
    """
    import torch

    from battery_sorting.vision.training.experiments import ExperimentOptions, as_markdown, run_experiment

    torch.set_num_threads(call.threads)
    options = ExperimentOptions(
        data=call.data,
        out=call.out,
        runs=call.runs,
        backbone=call.backbone,
        weights=call.weights,
        size=settings.size,
        scratch_size=settings.scratch_size,
        fit=settings.fit,  # type: ignore[arg-type]  # checked there
        labels=settings.labels,
        both_stages=settings.both_stages,
        copies=settings.copies,
        seed=call.seed,
        device=call.device,
        resume=settings.resume,
    )
    report: dict[str, Any] = run_experiment(name, options, progress)
    if call.json:
        write_json(report)
    else:
        say(as_markdown(report))

"""What all experiments of the papers are told, on the command line and by it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[Path, typer.Option(help="Photographs, one sub-folder per type.")]
OutOption = Annotated[Path, typer.Option(help="Folder of the results.")]
RunsOption = Annotated[int, typer.Option(min=1, help="Random splits.")]
BackboneOption = Annotated[str, typer.Option(help="lite0, resnet50v2, …, or a name of timm.")]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        help="File with the backbone's weights; inspection-table3: file or folder (resnet50.pth, …) with those "
        "of --networks."
    ),
]
SeedOption = Annotated[int, typer.Option(min=0)]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads for the network.")]


@dataclass(frozen=True, slots=True)
class ExperimentCall:
    """What every experiment is told.

    Attributes:
        data: Folder of the pictures.
        out: Folder of the results.
        runs: Random splits.
        backbone: A name, or several with commas.
        weights: File or folder of pretrained weights.
        seed: Of splits and training.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Processor threads.
        json: Whether the report is printed as JSON; else as a table.
    """

    data: Path
    out: Path
    runs: int
    backbone: str
    weights: Path | None
    seed: int
    device: str
    threads: int
    json: bool

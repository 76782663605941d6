"""`battery-sorting train backbone`: one to which other light is the same. Needs requirements/train.txt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from battery_sorting.cli._defect_options import OverwriteOption
from battery_sorting.cli._destinations import check_file, check_source
from battery_sorting.cli._output import say, write_json
from battery_sorting.cli._progress import progress


def train_backbone(
    out: Annotated[Path, typer.Option(help="File of the weights, .safetensors.")],
    pictures: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures of anything, but none that judge; searched with its folders."),
    ] = None,
    drawings: Annotated[int, typer.Option(min=0, help="Drawings of invented brands.")] = 10_500,
    steps: Annotated[int, typer.Option(min=1, help="Of gradient descent.")] = 1300,
    batch: Annotated[int, typer.Option(min=2, help="Pictures a step.")] = 192,
    backbone: Annotated[str, typer.Option(help="What is adapted: lite0, lite1, lite2, …")] = "lite0",
    weights: Annotated[Path | None, typer.Option(help="File with its weights.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda. Hours on a processor.")] = "auto",
    processes: Annotated[int, typer.Option(min=1, help="That draw.")] = os.cpu_count() or 1,
    overwrite: OverwriteOption = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Adapt a pretrained backbone to batteries in any light; no labels are needed.

    Use the file with 'train type --backbone NAME --weights FILE'. What ships as battery-lite0 was made so.
    """
    check_file("--out", out, (".safetensors",))
    check_source("--pictures", pictures)
    from battery_sorting.vision.training.adaptation import AdaptationOptions, adapt_backbone

    options = AdaptationOptions(
        out=out,
        pictures=pictures,
        drawings=drawings,
        steps=steps,
        batch=batch,
        backbone=backbone,
        weights=weights,
        seed=seed,
        device=device,
        processes=processes,
        overwrite=overwrite,
    )
    figures = adapt_backbone(options, progress)
    if json:
        write_json({"file": str(out)} | figures)
        return
    say(
        f"{out}: disturbances move the features by {figures['after']:.3f} instead of {figures['before']:.3f} "
        f"(1 − cosine); undisturbed pictures have moved by {figures['undisturbed']:.3f}"
    )

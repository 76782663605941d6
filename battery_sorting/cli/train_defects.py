"""`battery-sorting train defects` and `train finder`. Needs requirements/train.txt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from battery_sorting.cli._defect_options import (
    DataOption,
    DefectArguments,
    EpochsOption,
    JsonOption,
    OverwriteOption,
    SeedOption,
    ThreadsOption,
    with_defect_options,
)
from battery_sorting.cli._destinations import check_file, check_folder, check_source
from battery_sorting.cli._output import say, write_json
from battery_sorting.cli._progress import progress

if TYPE_CHECKING:
    from battery_sorting.vision.defect_card import DefectCard


@with_defect_options
def train_defects(
    data: DataOption,
    output: Annotated[Path, typer.Option("--output", "--out", help="Folder of the model: models/NAME/VERSION.")],
    training: DefectArguments,
    splits: Annotated[int, typer.Option(min=1, help="Random splits on which the card's figures rest.")] = 5,
    fine_tune: Annotated[
        int, typer.Option(min=0, help="Epochs in which backbone and head learn together; 0: the head alone learns.")
    ] = 0,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Train a model that tells good from defective on a folder of pictures per class."""
    check_folder("--output", output)
    check_folder("--cache", training.cache)
    check_source("--data", data)
    from battery_sorting.vision.training import defect_model
    from battery_sorting.vision.training.defect_tuning import TuningOptions

    options = training.options(data)
    card = defect_model.train_defects(
        replace(options, splits=splits, tuning=TuningOptions(fine_tune)), output, progress, overwrite
    )
    if json:
        write_json(card.model_dump(mode="json"))
    else:
        say(describe_card(output, card))


def train_finder(
    data: Annotated[Path, typer.Option(help="Folder with frames/*.jpg and masks/*.png.")],
    output: Annotated[Path, typer.Option("--output", "--out", help="File to write, finder.onnx.")],
    epochs: EpochsOption = 12,
    seed: SeedOption = 0,
    threads: ThreadsOption = 1,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Train the network that finds the cell in a frame (masks: 0 background, 1 cell, 2 cover with lugs)."""
    check_file("--output", output, (".onnx",), makes_folder=True)
    check_source("--data", data)
    import torch

    from battery_sorting.vision.training import cell_finder

    torch.set_num_threads(threads)
    figures = cell_finder.train_finder(
        data, output, epochs=epochs, seed=seed, progress=progress, overwrite=overwrite
    )
    if json:
        write_json(figures)
    else:
        say(f"{output}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))


def describe_card(folder: Path, card: DefectCard) -> str:
    """A card in a few lines."""
    from battery_sorting.cli.evaluate_defects import figures_text

    escape = card.metrics["escape"]
    lines = [
        f"{folder}: {', '.join(card.labels)} (good: {', '.join(card.good)}), {card.metrics['seconds']} s",
        figures_text(card.metrics),
        f"passes as good below {card.good_below:.4f}, defective from {card.defective_from:.2f}",
        escape_text(escape),
    ]
    return "\n".join(lines)


def escape_text(escape: dict[str, float]) -> str:
    """What the threshold proves and what a claim would need."""
    proven = "proven" if escape["proven"] else "not proven"
    return (
        f"escape rate wanted {escape['wanted']:.2%}: {escape['escapes']} of {escape['defectives']} defectives "
        f"escape, so below {escape['escape_rate_below']:.2%} (95 %); {proven}: needs "
        f"{escape['defectives_needed']} defectives"
    )

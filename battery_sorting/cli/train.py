"""`battery-sorting train`: models from photographs and drawings. Needs requirements/train.txt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from battery_sorting.cli._defect_options import OverwriteOption
from battery_sorting.cli._destinations import check_folder, check_source
from battery_sorting.cli._output import say, write_json
from battery_sorting.cli._progress import progress
from battery_sorting.cli.train_backbone import train_backbone
from battery_sorting.cli.train_defects import train_defects, train_finder
from battery_sorting.core.settings import find_shared

if TYPE_CHECKING:
    from battery_sorting.vision.card import ModelCard

PROCESSORS = os.cpu_count() or 1
SHIPPED_READER = "models/battery_type/1/reader.onnx"

app = typer.Typer(help="Train models.", no_args_is_help=True)
app.command("defects")(train_defects)
app.command("finder")(train_finder)
app.command("backbone")(train_backbone)

DataOption = Annotated[Path | None, typer.Option(help="Photographs, one sub-folder per type.")]
LabelsOption = Annotated[
    str | None, typer.Option(help="Corrections of labels: a CSV file of 'data check', or batsort; default: none.")
]
SeedOption = Annotated[int, typer.Option(min=0, max=40)]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Pictures at work at a time.")]
BACKBONES = "battery-lite0, lite0, lite1, lite2, resnet50v2, …, or a name of timm"
BackboneOption = Annotated[str, typer.Option(help=f"{BACKBONES}.")]
TYPE_BACKBONE = "battery-lite0"
WeightsOption = Annotated[Path | None, typer.Option(help="File with the backbone's weights.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
CacheOption = Annotated[
    Path | None, typer.Option(help="Folder that keeps features, so that a second run is quick; default: yours.")
]
ReaderOption = Annotated[
    Path | None,
    typer.Option(help="Network that reads what is printed on batteries; default: that of the shipped model."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def train() -> None:
    """Train models."""


@app.command("type")
def train_type(
    out: Annotated[Path, typer.Option(help="Folder of the model: models/NAME/VERSION.")],
    data: DataOption = None,
    labels: LabelsOption = None,
    base: Annotated[Path | None, typer.Option(help="Model to go on from, without its pictures.")] = None,
    add: Annotated[
        list[Path] | None, typer.Option(help="Further photographs, for instance those of 'review'.")
    ] = None,
    junk: Annotated[
        Path | None,
        typer.Option(help="Pictures of what is no battery by itself, for instance hands, in sub-folders."),
    ] = None,
    head: Annotated[
        Literal["fast", "two-stage"],
        typer.Option(help="fast: seconds; two-stage: the BatSort paper's, minutes to hours."),
    ] = "fast",
    blocks: Annotated[int, typer.Option(min=0, help="Blocks of the backbone that two-stage trains.")] = 2,
    renders: Annotated[int, typer.Option(min=0, help="Drawings per type; 0: photographs alone.")] = 60,
    seed: SeedOption = 0,
    threads: ThreadsOption = PROCESSORS,
    backbone: Annotated[
        str | None,
        typer.Option(help=f"{BACKBONES}; default: that of --base, or else {TYPE_BACKBONE}."),
    ] = None,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    threshold: Annotated[float, typer.Option(min=0.05, max=0.999, help="Least confidence, 0..1.")] = 0.5,
    target_purity: Annotated[
        float | None, typer.Option(min=0.5, max=0.99999, help="Choose the threshold for this purity.")
    ] = None,
    false_reject: Annotated[
        float, typer.Option(min=0.005, max=0.5, help="Share of known batteries that the rule for unknown gives up.")
    ] = 0.05,
    reader: ReaderOption = None,
    cache: CacheOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Train the battery-type model and write its weights, card and rule for unknown types."""
    check_folder("--out", out)
    check_folder("--cache", cache)
    check_source("--data", data)
    check_source("--junk", junk)
    from battery_sorting.vision.training import type_model, views
    from battery_sorting.vision.training.backbone import backbone_name
    from battery_sorting.vision.training.corrections import Corrections

    options = type_model.TrainingOptions(
        out=out,
        overwrite=overwrite,
        data=data,
        corrections=None if labels is None else Corrections.load(labels),
        base=base,
        junk=junk,
        add=tuple(add or ()),
        method=head,
        blocks=blocks,
        renders=renders,
        seed=seed,
        threads=threads,
        backbone=backbone_name(backbone or _backbone_of(base)),
        weights=weights,
        device=device,
        threshold=threshold,
        target_purity=target_purity,
        false_reject=false_reject,
        cache=cache or views.default_cache(),
        reader=reader or find_shared(SHIPPED_READER),
    )
    card = type_model.train_type_model(options, progress)
    if json:
        write_json(card.model_dump(mode="json"))
    else:
        _print_card(out, card)


def _backbone_of(base: Path | None) -> str:
    """By which the base has seen its pictures."""
    from battery_sorting.vision.card import read_card

    return TYPE_BACKBONE if base is None else str(read_card(base).data.get("backbone", TYPE_BACKBONE))


def _print_card(out: Path, card: ModelCard) -> None:
    say(f"{out}: {len(card.labels)} types, {card.metrics['seconds']} s")
    for source, figures in card.metrics.items():
        if isinstance(figures, dict) and "accuracy" in figures:
            accuracy = figures["accuracy"]
            say(
                f"  {source}: {accuracy['value']:.1%} right ({accuracy['low']:.1%}..{accuracy['high']:.1%}, "
                f"{accuracy['pictures']} pictures)"
            )
    say(f"  accepted from {card.threshold:.1%} on")
    if "purity" in card.metrics:
        say(f"  {card.metrics['purity']}")
    if card.open_set is not None:
        rule = card.open_set
        say(f"  unknown types: {rule.method}, gives up {rule.false_reject:.1%} of known batteries")

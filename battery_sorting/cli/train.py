"""`battery-sorting train`: models from drawings and photographs. Needs requirements/train.txt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

T = TypeVar("T")
app = typer.Typer(help="Train models.", no_args_is_help=True)


@app.callback()
def train() -> None:
    """Train models."""


@app.command("type")
def train_type(
    out: Annotated[Path, typer.Option(help="Folder of the model: models/NAME/VERSION.")] = Path(
        "models/battery_type/1"
    ),
    data: Annotated[Path | None, typer.Option(help="Photographs, one sub-folder per type.")] = None,
    renders: Annotated[int, typer.Option(min=2, help="Drawings per type.")] = 150,
    seed: Annotated[int, typer.Option(min=0, max=40)] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads for the network.")] = 1,
    backbone: Annotated[str, typer.Option(help="Network of timm.")] = "tf_efficientnet_lite0",
    weights: Annotated[Path | None, typer.Option(help="File with the backbone's weights.")] = None,
    threshold: Annotated[float, typer.Option(min=0.05, max=0.999, help="Least confidence, 0..1.")] = 0.8,
) -> None:
    """Train the battery-type model and write its weights and card."""
    from battery_sorting.vision.training import type_model

    options = type_model.Options(
        out=out,
        data=data,
        renders=renders,
        seed=seed,
        threads=threads,
        backbone=backbone,
        weights=weights,
        threshold=threshold,
    )
    card = type_model.train_type_model(options, _progress)
    typer.echo(f"{out}: {len(card.labels)} labels")
    for source, figures in card.metrics.items():
        if isinstance(figures, dict) and "accuracy" in figures:
            accuracy = figures["accuracy"]
            typer.echo(
                f"  {source}: accuracy {accuracy['value']:.1%} ({accuracy['low']:.1%}..{accuracy['high']:.1%}, "
                f"{accuracy['pictures']} pictures)"
            )


def _progress(text: str, items: Sequence[T]) -> Iterable[T]:
    from rich.progress import track

    return track(items, description=text)

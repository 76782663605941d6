"""`battery-sorting experiment`: the paper's tables again, on your pictures. Needs requirements/train.txt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from battery_sorting.cli._defect_options import (
    CacheOption,
    DefectArguments,
    FinderOption,
    GapOption,
    GoodOption,
    GroupsOption,
    LearnerOption,
    OverwriteOption,
    ViewOption,
    names_of,
)
from battery_sorting.cli._destinations import check_folder, check_source
from battery_sorting.cli._output import say, write_json
from battery_sorting.cli._progress import progress


def experiment(
    name: Annotated[
        str, typer.Argument(help="batsort-table1, batsort-table2, batsort-figure3 or inspection-table3.")
    ],
    data: Annotated[Path, typer.Option(help="Photographs, one sub-folder per type.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    runs: Annotated[int, typer.Option(min=1, help="Random splits.")] = 10,
    backbone: Annotated[str, typer.Option(help="lite0, resnet50v2, …, or a name of timm.")] = "lite0",
    weights: Annotated[
        Path | None,
        typer.Option(
            help="File with the backbone's weights; inspection-table3: file or folder (resnet50.pth, …) with those "
            "of --networks."
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=32, help="Side of the pictures, pixels.")] = 224,
    scratch_size: Annotated[
        int, typer.Option(min=32, help="The same where the whole network learns (no knowledge).")
    ] = 96,
    fit: Annotated[str, typer.Option("--input", help="squash (as the paper), letterbox or crop.")] = "squash",
    labels: Annotated[
        str | None, typer.Option(help="List of label corrections, or batsort; without it labels as published.")
    ] = None,
    both_stages: Annotated[
        bool, typer.Option("--both-stages", help="Blocks learn in the first stage, too, at its large rate.")
    ] = False,
    copies: Annotated[int, typer.Option(min=0, help="Augmented copies per picture; the paper has none.")] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Threads for the network.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier call ended.")] = False,
    view: ViewOption = "",
    good: GoodOption = "",
    groups: GroupsOption = "",
    group_gap: GapOption = 0,
    finder: FinderOption = None,
    networks: Annotated[
        str,
        typer.Option(
            help="inspection-table3: networks to train as a whole, separated by commas: cbam-resnet50, resnet50, "
            "vgg16, alexnet, cbam-lite0. Hours on a processor."
        ),
    ] = "",
    epochs: Annotated[int, typer.Option(min=1, help="Of whole networks.")] = 100,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Whole networks without pretrained weights begin at random.")
    ] = False,
    head: LearnerOption = "",
    cache: CacheOption = None,
    overwrite: OverwriteOption = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run an experiment of the papers and set its figures beside theirs.

    The options from --view to --overwrite are for inspection-table3, where --backbone may be a list with commas.
    """
    check_folder("--out", out)
    check_folder("--cache", cache)
    check_source("--data", data)
    if name == "inspection-table3":
        defects = DefectArguments(
            data=data,
            view=view,
            good=good,
            groups=groups,
            group_gap=group_gap,
            finder=finder,
            head=head,
            seed=seed,
            device=device,
            threads=threads,
            cache=cache,
        ).options()
        _inspection_table(
            defects,
            out,
            json,
            frozen=names_of(backbone),
            networks=names_of(networks),
            splits=runs,
            epochs=epochs,
            weights=weights,
            scratch=from_scratch,
            overwrite=overwrite,
        )
        return
    import torch

    from battery_sorting.vision.training.experiments import ExperimentOptions, as_markdown, run_experiment

    torch.set_num_threads(threads)
    options = ExperimentOptions(
        data=data,
        out=out,
        runs=runs,
        backbone=backbone,
        weights=weights,
        size=size,
        scratch_size=scratch_size,
        fit=fit,  # type: ignore[arg-type]  # checked there
        labels=labels,
        both_stages=both_stages,
        copies=copies,
        seed=seed,
        device=device,
        resume=resume,
    )
    report: dict[str, Any] = run_experiment(name, options, progress)
    if json:
        write_json(report)
    else:
        say(as_markdown(report))


def _inspection_table(defects: Any, out: Path, json: bool, **settings: Any) -> None:
    from battery_sorting.vision.training.inspection_table import TableOptions, inspection_table, table_text

    report = inspection_table(TableOptions(defects, **settings), out, progress)
    if json:
        write_json(report)
    else:
        say(table_text(report))

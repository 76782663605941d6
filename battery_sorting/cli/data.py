"""`battery-sorting data`: looks after pictures before anything is trained on them. Needs requirements/train.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from battery_sorting.cli._destinations import PAGES, check_files
from battery_sorting.cli._output import most, say, show, write_json
from battery_sorting.cli._progress import progress

if TYPE_CHECKING:
    from battery_sorting.vision.training.corrections import Corrections
    from battery_sorting.vision.training.label_check import Alike, LabelCheck, Look

app = typer.Typer(help="Check pictures and labels.", no_args_is_help=True)
SHOWN = 12
"""Rows per table on a terminal; elsewhere, with `--json` and with `--html` all are shown."""


@app.callback()
def data() -> None:
    """Check pictures and labels."""


@app.command("check")
def check(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Pictures, one sub-folder per type.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Write the findings as a correction list; rows that are there stay.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Correction list that is known already: a file, or 'batsort'.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page with the pictures.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    backbone: Annotated[str, typer.Option(help="Network of timm.")] = "tf_efficientnet_lite0",
    weights: Annotated[Path | None, typer.Option(help="File with the backbone's weights.")] = None,
) -> None:
    """Find unreadable files, duplicates and wrong labels, and list what to correct before training."""
    check_files({"--out": (out, (".csv", "")), "--html": (html, PAGES)})
    from battery_sorting.vision.training.corrections import Corrections
    from battery_sorting.vision.training.label_check import check_labels

    known = Corrections.load(labels) if labels is not None else Corrections()
    present = Corrections.read(out) if out is not None and out.exists() else Corrections()
    found = check_labels(folder, _look(backbone, weights), progress, known.with_new(present))
    if out is not None:
        _write_list(found, present, out)
    if html is not None:
        from battery_sorting.report.vision.check_page import write_check

        write_check(html, folder, found)
    if json:
        write_json(found.as_dict())
        return
    _print(found)
    for what, path in (("correction list", out), ("page", html)):
        if path is not None:
            say(f"{what}: {path}")


def _look(backbone: str, weights: Path | None) -> Look:
    import torch

    from battery_sorting.vision.preprocessing import Preprocessing
    from battery_sorting.vision.training.backbone import load_backbone
    from battery_sorting.vision.training.data import flips
    from battery_sorting.vision.training.views import Extractor

    torch.set_num_threads(1)
    extractor = Extractor(load_backbone(backbone, weights), Preprocessing())

    def look(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cutout = extractor.preprocessing.cut_out(pixels)
        return extractor([cutout, *flips(cutout)])

    return look


def _write_list(found: LabelCheck, present: Corrections, out: Path) -> None:
    proposals = present.with_new(found.proposals())
    proposals.write(
        out,
        "Go through the rows with action keep: the label is what the picture looks like to the model.\n"
        "Write relabel if that is right (or correct the label), drop to leave the picture out, else keep.\n"
        "Then train with --labels and this file.",
    )


def _print(found: LabelCheck) -> None:
    say(f"{found.pictures} pictures of {len(found.types)} types")
    rows = [(bad.file, bad.why) for bad in found.unreadable]
    _table("Unreadable, left out of training", ("picture", "why"), rows)
    _table("Copies of one file", ("pictures", "labels"), _alike(found.copies))
    _table("Nearly the same under different labels", ("pictures", "labels"), _alike(found.across))
    _table(
        "Near-duplicates of one type, kept on one side of a split",
        ("pictures", "labels"),
        _alike(found.near),
    )
    suspects = [(s.file, f"{s.own:.0%}", s.suggested, f"{s.confidence:.0%}", s.like) for s in found.suspects]
    heads = ("picture", "own label", "looks like", "", "most similar picture there")
    _table("Suspects: taken for another type by a model that has not seen them", heads, suspects)
    endings = [(wrong.file, wrong.format) for wrong in found.endings]
    _table("Endings that lie; read all the same", ("picture", "is"), endings)
    for remark in found.remarks:
        say(remark)
    for text, names in (
        ("types with a single picture, too few to be judged", found.single),
        ("types whose pictures all show the same, too few to find suspects in", found.unjudged),
    ):
        if names:
            say(f"{text}: {', '.join(names)}")


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    if not rows:
        return
    table = Table(
        title=f"{title} ({len(rows)})",
        title_justify="left",
        title_style="bold",
        show_lines=any("\n" in row[0] for row in rows),
    )
    for head in heads:
        table.add_column(head)
    shown = rows[: most(SHOWN)]
    for row in shown:
        table.add_row(*row)
    show(table)
    if len(rows) > len(shown):
        say(f"… and {len(rows) - len(shown)} more: --json or --html shows all")


def _alike(groups: Sequence[Alike]) -> list[tuple[str, str]]:
    return [("\n".join(group.files), ", ".join(sorted(set(group.labels)))) for group in groups]

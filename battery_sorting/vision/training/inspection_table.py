"""Table 3 of Liu et al. 2023 on one's own pictures: several networks on the same held-out groups."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.vision.cell_finder import CellFinder
from battery_sorting.vision.defect_figures import defect_figures
from battery_sorting.vision.training.backbone import load_backbone
from battery_sorting.vision.training.defect_data import cut_out, list_defect_pictures
from battery_sorting.vision.training.defect_model import (
    DefectOptions,
    finder_of,
    framing_of,
    judge_splits,
    prepare,
)
from battery_sorting.vision.training.fine_tune import NETWORKS, Recipe, fine_tune, make_network, probabilities
from battery_sorting.vision.training.progress import Progress, no_progress
from battery_sorting.vision.training.splits import grouped_splits

PAPER = {
    "lug": {
        "CBAM-ResNet50": (0.975, 0.966, 0.983, 0.974),
        "ResNet50": (0.964, 0.95, 0.983, 0.966),
        "VGG16": (0.925, 0.902, 0.948, 0.924),
        "AlexNet": (0.908, 0.912, 0.896, 0.904),
    },
    "case": {
        "CBAM-ResNet50": (0.983, 0.983, 0.983, 0.983),
        "ResNet50": (0.975, 0.966, 0.983, 0.974),
        "VGG16": (0.933, 0.931, 0.931, 0.931),
        "AlexNet": (0.908, 0.912, 0.897, 0.904),
    },
}
"""The paper's Table 3: accuracy, precision, recall, F1. Its test sets hold about 120 pictures, and it does not say
which class is the positive one."""
PAPER_TEST_PICTURES = 120
RANDOM_SIZE = (224, 224)


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What to compare.

    Attributes:
        defects: Pictures and settings of the frozen models.
        frozen: Backbones whose features stay as they are.
        networks: Names of `NETWORKS` that are trained as a whole by the paper's recipe.
        splits: Random splits of groups for frozen models; whole networks get one.
        epochs: Of whole networks; the paper has 100.
    """

    defects: DefectOptions
    frozen: tuple[str, ...] = ("lite0",)
    networks: tuple[str, ...] = ()
    splits: int = 5
    epochs: int = 100


def inspection_table(options: TableOptions, out: Path, progress: Progress = no_progress) -> dict[str, Any]:
    """Train and judge all that is asked for; write ``table.json``, ``table.md`` and plots of the best into ``out``.

    Raises:
        ConfigurationError: Pictures or settings that can't be used.
    """
    stray = [name for name in options.networks if name not in NETWORKS]
    if stray:
        raise ConfigurationError("--networks", [f"{stray[0]!r} is none; choose from {', '.join(NETWORKS)}"])
    rows: list[dict[str, Any]] = []
    for name in options.frozen:
        began = time.perf_counter()
        own = replace(options.defects, backbone=name)
        try:
            prepared = prepare(own, progress)
        except ModelError as error:
            rows.append({"name": f"frozen {name}", "not_run": str(error)})
            continue
        judged = judge_splits(prepared, own, options.splits, progress)
        how = f"frozen features, kernel head; {options.splits} splits of groups"
        rows.append(_row(f"frozen {name}", how, judged.report(), began))
    for name in options.networks:
        rows.append(_whole_network(name, options, progress))
    report = {
        "view": options.defects.view,
        "positive": "defective",
        "rows": rows,
        "paper": PAPER.get(options.defects.view, {}),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (out / "table.md").write_text(table_text(report) + "\n", encoding="utf-8")
    return report


def table_text(report: dict[str, Any]) -> str:
    """The table in Markdown."""
    lines = [
        "Positive class: defective. Intervals are Wilson's, 95 %.",
        "",
        "| network | how | accuracy | precision | recall | F1 | AUROC | pictures |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        if "not_run" in row:
            lines.append(f"| {row['name']} | not run: {row['not_run']} | | | | | | |")
            continue
        own = row["figures"]
        cells = [_interval(own[name]) for name in ("accuracy", "precision", "recall")]
        lines.append(
            f"| {row['name']} | {row['how']} | {' | '.join(cells)} | {own['f1']} | {own['auroc']['value']} | "
            f"{own['accuracy']['pictures']} |"
        )
    for name, (accuracy, precision, recall, f1) in report["paper"].items():
        lines.append(
            f"| {name} | the paper's pictures | {accuracy:.1%} | {precision:.1%} | {recall:.1%} | {f1:.3f} | "
            f"| about {PAPER_TEST_PICTURES} |"
        )
    return "\n".join(lines)


def _whole_network(name: str, options: TableOptions, progress: Progress) -> dict[str, Any]:
    """One network on one split, trained as a whole."""
    began = time.perf_counter()
    own = options.defects
    pictures = list_defect_pictures(own.data, own.good, own.grouping)
    framing = framing_of(
        replace(own, size=own.size or (RANDOM_SIZE if not own.view else None)), load_backbone("lite0")
    )
    finder = finder_of(own) if framing.crop == "cell" else None
    cutouts = cut_out(
        pictures, framing, CellFinder(finder.read_bytes(), str(finder)) if finder else None, own.cache, progress
    )
    pictures = pictures.take(cutouts.rows)
    names = [pictures.labels[target] for target in pictures.targets]
    split = grouped_splits(names, pictures.groups, 1, own.seed)[0]
    recipe = Recipe(epochs=options.epochs, seed=own.seed, device=own.device)
    binary = pictures.defective.astype(int)
    network = make_network(name, 2)
    network = fine_tune(network, cutouts.pixels[split.train], binary[split.train], framing, recipe, progress)
    said = probabilities(network, cutouts.pixels[split.test], framing, own.device)[:, 1]
    held = pictures.take(split.test)
    figures = defect_figures(said, held.defective, held.names)
    device = "CUDA" if torch.cuda.is_available() and own.device != "cpu" else "processor"
    how = f"whole network, Adam 1e-4, batch 48, {options.epochs} of 100 epochs, one split, on a {device}"
    return _row(name, how, figures, began)


def _row(name: str, how: str, figures: dict[str, Any], began: float) -> dict[str, Any]:
    return {"name": name, "how": how, "figures": figures, "seconds": round(time.perf_counter() - began, 1)}


def _interval(share: dict[str, Any]) -> str:
    return "–" if share["value"] is None else f"{share['value']:.1%} ({share['low']:.1%}–{share['high']:.1%})"

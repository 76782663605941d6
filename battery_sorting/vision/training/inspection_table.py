"""Table 3 of Liu et al. 2023 on one's own pictures: several networks on the same held-out groups."""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from battery_sorting.core.beside import check_writable
from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.proportions import share_with_interval
from battery_sorting.core.strict_json import to_json
from battery_sorting.vision.defect_card import DefectCard
from battery_sorting.vision.defect_figures import defect_figures, escape_threshold
from battery_sorting.vision.training.backbone import choose_device
from battery_sorting.vision.training.defect_data import list_defect_pictures
from battery_sorting.vision.training.defect_model import (
    DefectOptions,
    cutouts_of,
    describe,
    framing_of,
    judge_splits,
    learner_of,
    limits_of,
    prepare,
    ship,
    write_model,
)
from battery_sorting.vision.training.fine_tune import (
    NETWORKS,
    PACKAGED,
    Judge,
    Recipe,
    fine_tune,
    make_network,
    probabilities,
    weights_file,
)
from battery_sorting.vision.training.new_model import name_and_version, new_model, refuse_unfit
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
PAPER_SIZE = (224, 224)
FIGURES = ("accuracy", "precision", "recall")
MODELS = "models"
"""Folder of what was trained."""


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What to compare.

    Attributes:
        defects: Pictures and settings of the frozen models.
        frozen: Backbones whose features stay as they are.
        networks: Names of `NETWORKS` that are trained as a whole by the paper's recipe.
        splits: Random splits of groups for frozen models; whole networks get the first of them.
        epochs: Of whole networks; the paper has 100.
        weights: File or folder of pretrained weights of whole networks, see `make_network`.
        overwrite: Whether models that are there may be replaced.
        scratch: Networks without such weights begin at random; else they are left out, and the table says so.
    """

    defects: DefectOptions
    frozen: tuple[str, ...] = ("lite0",)
    networks: tuple[str, ...] = ()
    splits: int = 5
    epochs: int = 100
    weights: Path | None = None
    scratch: bool = False
    overwrite: bool = False


def inspection_table(options: TableOptions, out: Path, progress: Progress = no_progress) -> dict[str, Any]:
    """Train and judge all that is asked for; write ``table.json``, ``.md``, ``.csv`` and ``.png`` into ``out``.

    Every network that was run stands in ``models/NAME/1`` with its card, as `train_defects` writes it. What can't
    be run for want of weights stands in the table with the reason.

    Raises:
        ConfigurationError: Pictures or settings that can't be used.
    """
    stray = [name for name in options.networks if name not in NETWORKS]
    if stray:
        raise ConfigurationError("--networks", [f"{stray[0]!r} is none; choose from {', '.join(NETWORKS)}"])
    check_writable(out)
    if options.defects.cache is not None:
        check_writable(options.defects.cache, "--cache")
    for name in (*options.frozen, *options.networks):
        refuse_unfit(out / MODELS / name / "1", options.overwrite)
    rows: list[dict[str, Any]] = []
    for run, names in ((_frozen, options.frozen), (_whole_network, options.networks)):
        for name in names:
            try:
                rows.append(run(name, options, out / MODELS / name / "1", progress))
            except ModelError as error:
                rows.append({"name": name, "not_run": str(error)})
    report = {
        "view": options.defects.view,
        "positive": "defective",
        "rows": rows,
        "paper": PAPER.get(options.defects.view, {}),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.json").write_text(to_json(report, indent=2) + "\n", encoding="utf-8")
    (out / "table.md").write_text(table_text(report) + "\n", encoding="utf-8")
    write_csv(out / "table.csv", report)
    plot_accuracy(out / "table.png", report)
    return report


def write_csv(path: Path, report: dict[str, Any]) -> None:
    """A row per network that was run: shares 0..1 with the ends of their intervals, and seconds."""
    shares = [f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high")]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["network", "how", *shares, "f1", "auroc", "pictures", "seconds"])
        for row in report["rows"]:
            if "not_run" not in row:
                own = row["figures"]
                values = [own[name][key] for name in FIGURES for key in ("value", "low", "high")]
                last = [own["f1"], own["auroc"]["value"], own["accuracy"]["pictures"], row["seconds"]]
                table.writerow([row["name"], row["how"], *values, *last])


def plot_accuracy(path: Path, report: dict[str, Any]) -> None:
    """Accuracies with their intervals, the paper's below."""
    rows = [
        (f"{row['name']}\n{row['how'].split(';')[0]}", row["figures"]["accuracy"])
        for row in report["rows"]
        if "not_run" not in row
    ]
    rows += [
        (f"{name}\nthe paper", share_with_interval(round(figures[0] * PAPER_TEST_PICTURES), PAPER_TEST_PICTURES))
        for name, figures in report["paper"].items()
    ]
    figure = Figure(figsize=(7, 1 + 0.5 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots()
    for place, (_, share) in enumerate(rows):
        value, low, high = (100 * share[key] for key in ("value", "low", "high"))
        axes.errorbar(
            value, place, xerr=[[max(0, value - low)], [max(0, high - value)]], fmt="o", capsize=3, color="C0"
        )
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy of defective against good, % (95 % intervals)")
    figure.savefig(path, dpi=120)


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
        cells = [_interval(own[name]) for name in FIGURES]
        lines.append(
            f"| {row['name']} | {row['how']} | {' | '.join(cells)} | {own['f1']} | {own['auroc']['value']} | "
            f"{own['accuracy']['pictures']} |"
        )
    for name, (accuracy, precision, recall, f1) in report["paper"].items():
        share = share_with_interval(round(accuracy * PAPER_TEST_PICTURES), PAPER_TEST_PICTURES)
        interval = f"{accuracy:.1%} ({share['low']:.1%}–{share['high']:.1%})"
        lines.append(
            f"| {name} | the paper's pictures | {interval} | {precision:.1%} | {recall:.1%} | {f1:.3f} | "
            f"| about {PAPER_TEST_PICTURES} |"
        )
    return "\n".join(lines)


def _frozen(name: str, options: TableOptions, folder: Path, progress: Progress) -> dict[str, Any]:
    """A head on a backbone's frozen features, on all splits; the model has then learnt from everything."""
    began = time.perf_counter()
    own = replace(options.defects, backbone=name)
    prepared = prepare(own, progress)
    judged = judge_splits(prepared, own, options.splits, progress)
    how = f"frozen, {learner_of(own)} head; splits of groups: {options.splits}"
    with new_model(folder, options.overwrite) as place:
        return _row(name, how, ship(prepared, judged, own, place, name_and_version(folder), began, progress))


def _whole_network(name: str, options: TableOptions, folder: Path, progress: Progress) -> dict[str, Any]:
    """One network on one split, trained as a whole, to tell two classes as in the paper."""
    began = time.perf_counter()
    own = options.defects
    network = make_network(name, 2, options.weights, options.scratch)
    pictures = list_defect_pictures(own.data, own.good, own.grouping)
    size = own.size or (None if own.view else PAPER_SIZE)
    framing = framing_of(replace(own, size=size), getattr(network, "backbone", network))
    cutouts, finder = cutouts_of(pictures, framing, own, progress=progress)
    pictures = pictures.take(cutouts.rows)
    names = [pictures.labels[target] for target in pictures.targets]
    split = grouped_splits(names, pictures.groups, 1, own.seed)[0]
    recipe = Recipe(epochs=options.epochs, seed=own.seed, device=own.device)
    binary = pictures.defective.astype(int)
    network = fine_tune(network, cutouts.pixels[split.train], binary[split.train], framing, recipe, progress)
    said = probabilities(network, cutouts.pixels[split.test], framing, own.device)[:, 1]
    held = pictures.take(split.test)
    escape = escape_threshold(said, held.defective, held.names, own.max_escape)
    figures = defect_figures(said, held.defective, held.names) | {"escape": escape}
    pretrained = name in PACKAGED or weights_file(name, options.weights) is not None
    how = f"whole, {'pretrained' if pretrained else 'from scratch'}; epochs: {options.epochs}, splits of groups: 1"
    with new_model(folder, options.overwrite) as place:
        card = write_model(
            place,
            name_and_version(folder),
            Judge(network, framing),
            Judge.outputs,
            framing,
            finder,
            view=own.view,
            labels=["good", "defective"],
            good=["good"],
            limits=limits_of(cutouts, finder),
            data=describe(pictures, own, cutouts.left_out)
            | {
                "network": f"{name}, {how}",
                "recipe": f"Adam at {recipe.rate}, batches of {recipe.batch} (Liu et al. 2023)",
                "device": str(choose_device(own.device)),
                "held_out": f"{len(split.test)} pictures of whole groups, which what is shipped has not seen",
            },
            metrics=figures | {"seconds": round(time.perf_counter() - began, 1)},
        )
    return _row(name, how, card) | {"device": card.data["device"]}


def _row(name: str, how: str, card: DefectCard) -> dict[str, Any]:
    return {"name": name, "how": how, "figures": card.metrics, "seconds": card.metrics["seconds"]}


def _interval(share: dict[str, Any]) -> str:
    return "–" if share["value"] is None else f"{share['value']:.1%} ({share['low']:.1%}–{share['high']:.1%})"

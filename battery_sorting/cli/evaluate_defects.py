"""`battery-sorting evaluate defects`: honest figures of telling good from defective."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from battery_sorting.cli._defect_options import (
    DataOption,
    DefectArguments,
    JsonOption,
    names_of,
    with_defect_options,
)
from battery_sorting.cli._destinations import check_folder, check_source
from battery_sorting.cli._output import json_text, say, write_json
from battery_sorting.cli._progress import progress


@with_defect_options
def evaluate_defects(
    data: DataOption,
    model: Annotated[
        Path | None, typer.Option(help="Judge this model on the pictures; without it models are trained on splits.")
    ] = None,
    splits: Annotated[int, typer.Option(min=1, help="Random splits that keep groups together.")] = 5,
    *,
    training: DefectArguments,
    plots: Annotated[Path | None, typer.Option(help="Folder for plots and report.json.")] = None,
    json: JsonOption = False,
) -> None:
    """Accuracy, precision, recall, F1 and AUROC of defective against good, with 95 % intervals."""
    check_folder("--plots", plots)
    check_folder("--cache", training.cache)
    check_source("--data", data)
    if model is not None:
        judged, report = _of_model(model, data, names_of(training.good), training.max_escape)
    else:
        options = training.options(data)
        judged, report = _on_splits(options, splits)
    if plots is not None:
        from battery_sorting.report.vision.defect_plots import write_defect_plots

        write_defect_plots(plots, judged, report)
        (plots / "report.json").write_text(json_text(report) + "\n", encoding="utf-8")
    if json:
        write_json(report)
    else:
        say(figures_text(report))


def figures_text(report: dict[str, Any]) -> str:
    """The figures in a few lines."""
    lines = ["positive class: defective"]
    for name in ("accuracy", "precision", "recall", "auroc"):
        value = report[name]
        if value["value"] is None:
            continue
        count = f" of {value['pictures']}" if "pictures" in value else ""
        number = ".4f" if name == "auroc" else ".1%"
        lines.append(
            f"{name:10} {value['value']:{number}}{count} (95 %: {value['low']:{number}}..{value['high']:{number}})"
        )
    lines.append(f"{'F1':10} {report['f1'] if report['f1'] is not None else '-'}")
    table = report["confusion"]
    lines.append(
        f"defective: {table['defective']['said_defective']} caught, {table['defective']['said_good']} missed; "
        f"good: {table['good']['said_good']} passed, {table['good']['said_defective']} held back"
    )
    if "accuracy_of_splits" in report and report["splits"] > 1:
        own = report["accuracy_of_splits"]
        lines.append(
            f"{report['splits']} splits: mean {own['mean']:.1%}, sd {own['sd']:.1%}, worst {own['worst']:.1%}"
        )
    lines += [
        f"  {label:12} said defective {row['said_defective']:.1%}, named {row['named']:.1%} of {row['judged']}"
        for label, row in report.get("kinds", {}).items()
    ]
    if "severity" in report:
        lines += _severity_lines(report["severity"])
    if "novelty" in report:
        own = report["novelty"]
        lines.append(
            f"novelty alone: AUROC {own['auroc']['value']}, at its limit catches {own['caught_at_limit']:.1%} "
            f"and holds back {own['good_held_back']:.1%} of the good"
        )
    return "\n".join(lines)


def _severity_lines(severity: dict[str, Any]) -> list[str]:
    above = severity["above_medium"]
    half = "below what is there" if severity["half"] is None else f"{severity['half']:.2f}"
    lines = [
        f"severity over 0.5: {above['value']:.1%} caught "
        f"({above['low']:.1%}..{above['high']:.1%}, {above['pictures']})"
        if above["value"] is not None
        else "severity over 0.5: none",
        f"half are caught at severity {half}",
    ]
    lines += [
        f"  {row['from']:.1f}..{row['to']:.1f}: {row['value']:.1%} of {row['pictures']}" for row in severity["bins"]
    ]
    return lines


def _on_splits(options: Any, splits: int) -> tuple[Any, dict[str, Any]]:
    from battery_sorting.vision.training import defect_model

    prepared = defect_model.prepare(options, progress)
    judged = defect_model.judge_splits(prepared, options, splits, progress)
    report = judged.report()
    report["escape"] = judged.escape(options.max_escape)
    report["data"] = {
        "pictures": len(prepared.pictures.files),
        "groups": int(prepared.pictures.groups.max()) + 1,
        "grouped_by": prepared.pictures.grouped,
        "left_out": prepared.left_out,
        "backbone": options.backbone,
    }
    return judged, report


def _of_model(model: Path, data: Path, good: tuple[str, ...], max_escape: float) -> tuple[Any, dict[str, Any]]:
    from battery_sorting.vision.inspector import DefectInspector
    from battery_sorting.vision.training.defect_data import list_defect_pictures
    from battery_sorting.vision.training.judge_model import judge_model

    inspector = DefectInspector.load(model)
    pictures = list_defect_pictures(data, good)
    judged, refused = judge_model(inspector, pictures, progress)
    report = judged.report(inspector.defective_from)
    report["escape"] = judged.escape(max_escape)
    report["model"] = inspector.name
    report["refused"] = refused
    return judged, report

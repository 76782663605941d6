"""`battery-sorting evaluate`: honest figures of training on your pictures. Needs requirements/train.txt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from battery_sorting.cli._destinations import check_folder, check_source
from battery_sorting.cli._output import json_text, say, write_json
from battery_sorting.cli._progress import progress
from battery_sorting.cli.evaluate_defects import evaluate_defects
from battery_sorting.cli.train import (
    PROCESSORS,
    SHIPPED_READER,
    TYPE_BACKBONE,
    BackboneOption,
    CacheOption,
    DeviceOption,
    JsonOption,
    LabelsOption,
    ReaderOption,
    SeedOption,
    ThreadsOption,
    WeightsOption,
)
from battery_sorting.core.settings import find_shared

app = typer.Typer(help="Judge how well models do.", no_args_is_help=True)
app.command("defects")(evaluate_defects)


@app.callback()
def evaluate() -> None:
    """Judge how well models do."""


@app.command("type")
def evaluate_type(
    data: Annotated[Path, typer.Option(help="Photographs, one sub-folder per type.")],
    labels: LabelsOption = None,
    chemistry: Annotated[
        Path | None, typer.Option(help="Chemistry of each type (YAML); default: that of the BatSort types.")
    ] = None,
    random: Annotated[int, typer.Option(min=1, help="Random splits, as in the paper.")] = 10,
    grouped: Annotated[int, typer.Option(min=1, help="Splits that keep near-duplicates together.")] = 50,
    others: Annotated[int, typer.Option(min=0, help="Splits for unknown types; 0: none.")] = 20,
    strangers: Annotated[
        Path | None, typer.Option(help="Pictures of no known type, one sub-folder per kind of stranger.")
    ] = None,
    false_reject: Annotated[
        float, typer.Option(min=0.005, max=0.5, help="Share of known batteries that rules for unknown may give up.")
    ] = 0.05,
    new_type: Annotated[int, typer.Option(min=0, help="Times that each type is the new one; 0: none.")] = 6,
    robustness: Annotated[bool, typer.Option(help="Disturb the pictures.")] = True,
    target_purity: Annotated[float, typer.Option(min=0.5, max=0.99999, help="Purity to be claimed.")] = 0.997,
    seed: SeedOption = 0,
    threads: ThreadsOption = PROCESSORS,
    backbone: BackboneOption = TYPE_BACKBONE,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    reader: ReaderOption = None,
    cache: CacheOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json, report.md and plots.")] = None,
    json: JsonOption = False,
) -> None:
    """Train and judge battery types on many splits of your pictures."""
    check_folder("--out", out)
    check_folder("--cache", cache)
    check_source("--data", data)
    check_source("--strangers", strangers)
    from battery_sorting.vision.chemistry import read_chemistry
    from battery_sorting.vision.training import evaluation, type_model, views
    from battery_sorting.vision.training.backbone import backbone_name
    from battery_sorting.vision.training.corrections import Corrections

    options = type_model.TrainingOptions(
        out=out or Path(),
        data=data,
        corrections=None if labels is None else Corrections.load(labels),
        seed=seed,
        threads=threads,
        backbone=backbone_name(backbone),
        weights=weights,
        device=device,
        cache=cache or views.default_cache(),
        reader=reader or find_shared(SHIPPED_READER),
    )
    plan = evaluation.EvaluationPlan(
        random, grouped, others, new_type, robustness, target_purity, strangers, false_reject
    )
    report = evaluation.evaluate_type(options, plan, read_chemistry(chemistry), progress)
    text = as_markdown(report)
    if out is not None:
        _write(out, report, text)
    if json:
        write_json(report)
    else:
        say(text)


def as_markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    lines = _protocols_table(report) + _recall_lines(report["protocols"]["grouped"])
    lines += ["", "| views | accuracy | looked at on average |", "|---|---|---|"]
    lines += [f"| {k} | {_percent(row['accuracy'])} | {row['views']} |" for k, row in report["views"].items()]
    if "robustness" in report:
        lines += ["", "| disturbed | accuracy | lost |", "|---|---|---|"]
        rows = report["robustness"]["disturbances"]
        lines += [f"| {k} | {_percent(row['accuracy'])} | {_points(row['loss'])} |" for k, row in rows.items()]
    for name, methods in report.get("open_set", {}).items():
        lines += ["", *_unknown_table(name, methods)]
    if "strangers" in report:
        lines += ["", *_strangers_table(report["strangers"])]
    selective = report["selective"]
    lines += ["", f"Purity: {selective['claim']}"]
    lines.append(
        f"Errors among the accepted, mean over all coverages (AURC): {_percent(selective['area_under_risk'])}"
    )
    if "new_type" in report:
        new = report["new_type"]
        lines.append(
            f"A tenth type with {new['pictures']} pictures: recall {_percent(new['recall_mean'])}, "
            f"lost on the others {_points(new['lost_on_others'])}"
        )
    lines.append(f"Seconds: {report['seconds']}")
    return "\n".join(lines)


def _protocols_table(report: dict[str, Any]) -> list[str]:
    mean, best, sd = (report["paper"][name] for name in ("mean", "best", "sd"))
    lines = [
        "| protocol | splits | mean | best | sd | worst recall | ECE before | after |",
        "|---|---|---|---|---|---|---|---|",
        f"| the paper | 10 | {_percent(mean)} | {_percent(best)} | {_points(sd)} | | | |",
    ]
    for name, row in report["protocols"].items():
        calibration = row["calibration"]
        lines.append(
            f"| {name.replace('_', ' ')} | {row['splits']} | {_percent(row['mean'])} | {_percent(row['best'])} | "
            f"{_points(row['sd'])} | {_percent(row['worst_recall'])} | {calibration['before']['ece']:.3f} | "
            f"{calibration['after']['ece']:.3f} |"
        )
    return lines


def _recall_lines(grouped: dict[str, Any]) -> list[str]:
    lines = ["", "Recall (grouped): " + ", ".join(f"{k} {_percent(v)}" for k, v in grouped["recall"].items())]
    if "chemistry" in grouped:
        chemistry = grouped["chemistry"]
        lines.append(
            f"Chemistry (grouped): {_percent(chemistry['accuracy'])} right, Li-ion taken for Ni-MH: "
            f"{chemistry['li_ion_as_nimh']}"
        )
    return lines


def _unknown_table(name: str, methods: dict[str, Any]) -> list[str]:
    return [
        f"| {name.replace('_', ' ')} | AUROC | caught | false reject, realised |",
        "|---|---|---|---|",
        *(
            f"| {method} | {row['auroc']:.3f} | {_percent(row['caught'])} | {_percent(row['false_reject'])} |"
            for method, row in methods.items()
        ),
    ]


def _strangers_table(strangers: dict[str, Any]) -> list[str]:
    lines = [
        "| strangers | pictures | nothing seen | by | AUROC | caught | false reject, realised |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, row in strangers.items():
        about = f"| {kind.replace('_', ' ')} | {row['pictures']} | {_percent(row['nothing_seen'])} |"
        lines += [
            f"{about} {method} | {figures['auroc']:.3f} | {_percent(figures['caught'])} | "
            f"{_percent(figures['false_reject'])} |"
            for method, figures in row["methods"].items()
        ] or [f"{about} | | {_percent(row['nothing_seen'])} | |"]
    return lines


def _write(out: Path, report: dict[str, Any], text: str) -> None:
    """Report and plots; matplotlib takes a second to import, so only here."""
    from battery_sorting.report.vision.type_plots import write_plots

    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json_text(report) + "\n", encoding="utf-8")
    (out / "report.md").write_text(text + "\n", encoding="utf-8")
    write_plots(out, report)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _points(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} points"

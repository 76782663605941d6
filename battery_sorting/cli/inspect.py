"""`battery-sorting inspect`: what a defect model says of picture files."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from battery_sorting.cli._destinations import check_folder
from battery_sorting.cli._output import say, write_json
from battery_sorting.cli._pictures import VIEWS, overlay_names, pictures_of, refuse_if_unreadable, shipped
from battery_sorting.cli._progress import progress
from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.vision.inspector import DefectInspector, ViewVerdict
from battery_sorting.vision.pictures import clean_name, read_picture


@dataclass(frozen=True, slots=True)
class Inspected:
    """What was said of one file; ``truth`` is its folder's name, ``error`` why it can't be read."""

    path: Path
    truth: str
    verdict: ViewVerdict | None
    error: str = ""


def inspect(
    paths: Annotated[
        list[Path], typer.Argument(help="Pictures, or folders of them; a folder per class gives accuracy.")
    ],
    view: Annotated[str, typer.Option(help="lug or case: takes the model that is shipped for it.")] = "",
    model: Annotated[Path | None, typer.Option(help="Folder of another model.")] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0.001, max=0.999, help="Probability of a defect that makes a cell defective."),
    ] = None,
    overlays: Annotated[
        Path | None,
        typer.Option(
            "--overlay", help="Folder for the pictures with box, heat map and verdict, as FOLDER_NAME.jpg."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge the look of cells: verdict, kind of defect, probability, printed code."""
    check_folder("--overlay", overlays)
    inspector = DefectInspector.load(chosen_model(view, model), threshold, threads)
    inspector.warm_up()
    pictures = pictures_of(paths)
    drawn = overlay_names(pictures.files) if overlays is not None else {}
    rows = [
        _inspect(inspector, file, pictures.bits, overlays / drawn[file] if overlays is not None else None)
        for file in progress("pictures", pictures.files)
    ]
    summary = summarise(rows, inspector)
    if json:
        report = {
            "model": inspector.name,
            "pictures": [as_dict(row) for row in rows],
            "left_out": pictures.remarks,
            "summary": summary,
        }
        write_json(report)
    else:
        say("\n".join(map(_line, rows)))
        say(_summary_text(summary))
    refuse_if_unreadable(summary)


def chosen_model(view: str, model: Path | None) -> Path:
    """Folder of the model that is meant.

    Raises:
        ConfigurationError: Neither view nor model is given, or the shipped model isn't there.
    """
    if model is not None:
        return model
    if view not in VIEWS:
        raise ConfigurationError("--view", [f"{view!r} is none; give lug or case, or a model with --model FOLDER"])
    return shipped(f"models/{view}/1")


def summarise(rows: list[Inspected], inspector: DefectInspector) -> dict[str, Any]:
    """Counts of verdicts, median time, and, where folders are named after the labels, how often it is right."""
    from battery_sorting.vision.defect_figures import defect_figures

    seen = [row for row in rows if row.verdict is not None]
    counts = Counter(_outcome(row.verdict) for row in seen if row.verdict)
    times = sorted(row.verdict.seconds for row in seen if row.verdict)
    summary: dict[str, Any] = {
        "pictures": len(rows),
        "unreadable": len(rows) - len(seen),
        "verdicts": dict(sorted(counts.items())),
        "median_ms": round(1000 * times[len(times) // 2], 1) if times else None,
    }
    known = [row for row in seen if row.truth in inspector.card.labels and row.verdict]
    if known:
        defective = np.array([row.truth not in inspector.card.good for row in known])
        probability = np.array([row.verdict.probability for row in known if row.verdict])
        names = [str(row.path) for row in known]
        summary["figures"] = defect_figures(probability, defective, names, inspector.defective_from)
        named = [
            row.verdict.kind == row.truth for row in known if row.verdict and row.truth not in inspector.card.good
        ]
        summary["kind_right"] = round(sum(named) / len(named), 4) if named else None
    return summary


def as_dict(row: Inspected) -> dict[str, Any]:
    """One file as JSON."""
    facts: dict[str, Any] = {"path": str(row.path), "truth": row.truth}
    said = row.verdict
    if said is None:
        return facts | {"error": row.error}
    return facts | {
        "verdict": said.verdict,
        "reason": said.reason,
        "kind": said.kind,
        "probability": _number(said.probability),
        "kinds": {label: _number(value) for label, value in said.kinds.items()},
        "novelty": _number(said.novelty),
        "code": said.code,
        "face": said.face,
        "box": None if said.box is None else [[round(float(x), 1), round(float(y), 1)] for x, y in said.box],
        "ms": round(1000 * said.seconds, 1),
    }


def _inspect(inspector: DefectInspector, file: Path, bits: int | None, overlay: Path | None) -> Inspected:
    truth = clean_name(file.absolute().parent.name)
    try:
        bgr = np.ascontiguousarray(read_picture(file, bits)[..., ::-1])
        verdict = inspector.inspect(bgr)
    except FrameError as error:
        return Inspected(file, truth, None, str(error))
    if overlay is not None:
        _write(overlay, inspector.overlay(bgr, verdict))
    return Inspected(file, truth, verdict)


def _write(path: Path, bgr: np.ndarray) -> None:
    _, content = cv2.imencode(".jpg", bgr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.tobytes())
    except OSError as error:
        raise ConfigurationError(
            str(path), [f"can't be written ({error.strerror}); name another folder with --overlay"]
        ) from error


def _outcome(said: ViewVerdict) -> str:
    return f"{said.verdict}: {said.reason}" if said.verdict == "bad_image" else said.verdict


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _line(row: Inspected) -> str:
    said = row.verdict
    if said is None:
        return row.error
    probability = "     -" if math.isnan(said.probability) else f"{said.probability:6.1%}"
    code = said.code or "-"
    return f"{row.path}  {said.verdict:9} {said.reason:15} {probability}  {code:14} {1000 * said.seconds:6.1f} ms"


def _summary_text(summary: dict[str, Any]) -> str:
    from battery_sorting.cli.evaluate_defects import figures_text

    verdicts = ", ".join(f"{name} {count}" for name, count in summary["verdicts"].items())
    lines = [
        f"{summary['pictures']} pictures, {summary['unreadable']} unreadable, {summary['median_ms']} ms (median)",
        verdicts,
    ]
    if "figures" in summary:
        lines.append(figures_text(summary["figures"]))
    if summary.get("kind_right") is not None:
        lines.append(f"kind of defect right: {summary['kind_right']:.1%}")
    return "\n".join(lines)

"""`battery-sorting classify`: what the model says of picture files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from battery_sorting.cli._output import say, write_json
from battery_sorting.cli._pictures import pictures_of, refuse_if_unreadable, shipped
from battery_sorting.cli._progress import progress
from battery_sorting.core.errors import FrameError
from battery_sorting.core.types import OTHERS
from battery_sorting.vision.classifier import Prediction, TypeClassifier
from battery_sorting.vision.pictures import label_of_folder, read_picture

SHIPPED_MODEL = "models/battery_type/1"


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """What was said of one file; ``truth`` is its folder or corrected label, ``error`` why it can't be read."""

    path: Path
    truth: str
    prediction: Prediction | None
    error: str = ""


def classify(
    paths: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the model; default: the one that is shipped.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(min=0.01, max=1.0, help="Least confidence, 0..1.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Corrections of labels: a CSV file of 'data check', or batsort.")
    ] = None,
    backend: Annotated[
        Literal["onnxruntime", "openvino"], typer.Option(help="What runs the network.")
    ] = "onnxruntime",
    precision: Annotated[Literal["f32", "bf16"], typer.Option(help="Of its sums; bf16 with openvino.")] = "f32",
) -> None:
    """Name the battery types on pictures; with a folder per type also say how often that is right."""
    model = model or shipped_model()
    classifier = TypeClassifier(model, threshold, backend=backend, precision=precision)
    classifier.warm_up()
    corrections = _corrections(labels)
    pictures = pictures_of(paths)
    verdicts = [
        _verdict(classifier, file, pictures.bits, truth)
        for file in progress("pictures", pictures.files)
        if (truth := corrections(file))
    ]
    summary = summarise(verdicts, classifier)
    if json:
        rows = [_as_dict(verdict) for verdict in verdicts]
        found = {"model": classifier.name, "pictures": rows, "left_out": pictures.remarks, "summary": summary}
        write_json(found)
    else:
        say("\n".join(map(_line, verdicts)))
        say(_summary_text(summary))
    refuse_if_unreadable(summary)


def summarise(verdicts: list[FileVerdict], classifier: TypeClassifier) -> dict[str, Any]:
    """Counts, and, for pictures in folders named after types, accuracy, coverage and confusion (all 0..1)."""
    seen = [verdict for verdict in verdicts if verdict.prediction is not None]
    times = sorted(verdict.prediction.inference_s for verdict in seen if verdict.prediction)
    summary: dict[str, Any] = {
        "pictures": len(verdicts),
        "unreadable": len(verdicts) - len(seen),
        "median_ms": round(1000 * times[len(times) // 2], 2) if times else None,
        "threshold": classifier.threshold,
    }
    summary["mean_views"] = (
        round(sum(one.prediction.views for one in seen if one.prediction) / len(seen), 3) if seen else None
    )
    known = [verdict for verdict in seen if verdict.truth in classifier.card.types]
    unknown = [verdict for verdict in seen if verdict.truth == OTHERS]
    if known:
        accepted = [verdict for verdict in known if verdict.prediction and verdict.prediction.accepted]
        summary |= {
            "accuracy": _share(_is_right, known),
            "coverage": round(len(accepted) / len(known), 4),
            "accuracy_of_accepted": _share(_is_right, accepted),
            "recall": {
                label: _share(_is_right, [verdict for verdict in known if verdict.truth == label])
                for label in sorted({verdict.truth for verdict in known})
            },
            "confusion": _confusion(known),
        }
    if unknown:
        summary["unknown_rejected"] = _share(lambda verdict: not _accepted(verdict), unknown)
    return summary


def shipped_model() -> Path:
    """Folder of the model that comes with the package.

    Raises:
        ConfigurationError: It isn't there.
    """
    return shipped(SHIPPED_MODEL)


def _corrections(name: str | None) -> Callable[[Path], str]:
    """The true label of a picture; empty where the list says that it is to be left out."""
    from battery_sorting.vision.training.corrections import Corrections

    listed = Corrections() if name is None else Corrections.load(name)

    def label(file: Path) -> str:
        entry = listed.of(file)
        if entry is None or entry.action == "keep":
            return label_of_folder(file.absolute().parent.name)
        return label_of_folder(entry.label) if entry.action == "relabel" else ""

    return label


def _verdict(classifier: TypeClassifier, file: Path, bits: int | None, truth: str) -> FileVerdict:
    try:
        return FileVerdict(file, truth, classifier.classify(read_picture(file, bits)))
    except FrameError as error:
        return FileVerdict(file, truth, None, str(error))


def _is_right(verdict: FileVerdict) -> bool:
    return verdict.prediction is not None and verdict.prediction.label == verdict.truth


def _accepted(verdict: FileVerdict) -> bool:
    return verdict.prediction is not None and verdict.prediction.accepted


def _share(test: Any, verdicts: list[FileVerdict]) -> float | None:
    return round(sum(map(test, verdicts)) / len(verdicts), 4) if verdicts else None


def _confusion(verdicts: list[FileVerdict]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        said = verdict.prediction.label or verdict.prediction.reason if verdict.prediction else ""
        counts.setdefault(verdict.truth, Counter())[said] += 1
    return {truth: dict(row.most_common()) for truth, row in sorted(counts.items())}


def _as_dict(verdict: FileVerdict) -> dict[str, Any]:
    row: dict[str, Any] = {"path": str(verdict.path), "truth": verdict.truth}
    if verdict.prediction is None:
        return row | {"error": verdict.error}
    said = verdict.prediction
    return row | {
        "label": said.label,
        "confidence": round(said.confidence, 4) if said.label else None,
        "accepted": said.accepted,
        "reason": said.reason,
        "novelty": None if math.isnan(said.novelty) else round(said.novelty, 4),
        "views": said.views,
        "ms": round(1000 * said.inference_s, 2),
    }


def _line(verdict: FileVerdict) -> str:
    if verdict.prediction is None:
        return verdict.error
    said = verdict.prediction
    outcome = "accepted" if said.accepted else said.reason
    confidence = f"{said.confidence:6.1%}" if said.label else "     -"
    return f"{verdict.path}  {said.label or '-':15} {confidence}  {outcome:15} {1000 * said.inference_s:5.1f} ms"


def _summary_text(summary: dict[str, Any]) -> str:
    lines = [
        f"{summary['pictures']} pictures, {summary['unreadable']} unreadable, {summary['median_ms']} ms (median)"
    ]
    if "accuracy" in summary:
        of_accepted = summary["accuracy_of_accepted"]
        lines.append(
            f"accuracy {summary['accuracy']:.1%}; at {summary['threshold']:.0%}: coverage "
            f"{summary['coverage']:.1%}, accuracy {'-' if of_accepted is None else format(of_accepted, '.1%')}"
        )
        for truth, row in summary["confusion"].items():
            lines.append(f"  {truth:15} " + ", ".join(f"{label} {count}" for label, count in row.items()))
    if "unknown_rejected" in summary:
        lines.append(f"unknown batteries turned away: {summary['unknown_rejected']:.1%}")
    return "\n".join(lines)

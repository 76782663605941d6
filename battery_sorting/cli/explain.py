"""`battery-sorting explain`: why a battery, or the one on a picture, was taken for what it was taken for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from battery_sorting.cli._destinations import PAGES, check_file
from battery_sorting.cli._ledger import ImagesOption, ModelOption, find_battery
from battery_sorting.cli._output import say, write_json
from battery_sorting.cli.classify import shipped_model
from battery_sorting.core.errors import ConfigurationError, FrameError
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.reporting import find_shift
from battery_sorting.report.kept_pictures import KeptPictures
from battery_sorting.report.vision.cases import Case, Explainers, last_typed
from battery_sorting.report.words import percent
from battery_sorting.vision.deep_pictures import camera_bits
from battery_sorting.vision.explain import Explainer, Explanation
from battery_sorting.vision.pictures import read_picture


def explain(
    where: Annotated[
        list[str] | None, typer.Argument(metavar="[LEDGER|FILE]...", help="Ledger; with --image further pictures.")
    ] = None,
    battery_id: Annotated[str | None, typer.Option("--id", help="The battery, as in the ledger.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option("--image", help="A picture file in place of a battery of a ledger.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page with the pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the training pictures, to show the similar ones.")
    ] = None,
    model: ModelOption = None,
    images: ImagesOption = None,
) -> None:
    """Explain a decision: where the network looked, which colours it saw, which training pictures are alike."""
    check_file("--out", out, PAGES, [*(image or []), *map(Path, where or [])])
    where = where or []
    explainers = Explainers(model, data)
    if image:
        files = [*image, *map(Path, where)]
        cases, unreadable = _explain_files(files, explainers, model)
    elif len(where) == 1 and battery_id:
        cases, unreadable = [_explain_battery(where[0], battery_id, explainers, images)], {}
    else:
        raise ConfigurationError(
            "explain",
            ["give a ledger and --id BATTERY (`battery-sorting items LEDGER` lists them), or --image FILE"],
        )
    if out is not None:
        from battery_sorting.report.vision.case_page import write_cases

        write_cases(out, cases, f"Why: {cases[0].title}" if len(cases) == 1 else f"Why: {len(cases)} pictures")
    if as_json:
        write_json([*map(_as_dict, cases), *_errors_as_dicts(unreadable)])
        return
    say("\n\n".join([*map(_as_text, cases), *unreadable.values()]))
    if out is not None:
        say(f"page: {out}")


def _explain_battery(ledger: str, battery_id: str, explainers: Explainers, images: Path | None) -> Case:
    with Ledger.open(ledger, read_only=True) as book:
        battery = find_battery(book, battery_id)
        shift = find_shift(book, battery.shift_id)
        typed = last_typed(book, battery_id)
        return explainers.of_battery(battery, typed, shift, KeptPictures(book, images))


def _explain_files(
    files: Sequence[Path], explainers: Explainers, model: Path | None
) -> tuple[list[Case], dict[Path, str]]:
    """The readable pictures explained, and why the others can't be read; one of them at least is readable."""
    explainer = Explainer.load(model or shipped_model())
    cases: list[Case] = []
    unreadable: dict[Path, str] = {}
    bits = camera_bits(files)
    for file in files:
        try:
            found = explainer.explain(read_picture(file, bits))
        except FrameError as error:
            unreadable[file] = str(error)
            continue
        notes = [*_learned_from(file, found), *found.missing]
        cases.append(Case(str(file), found, notes=notes, similar=explainers.similar(found)))
    if not cases:
        raise FrameError("; ".join(unreadable.values()))
    return cases, unreadable


def _learned_from(file: Path, found: Explanation) -> list[str]:
    """Says so if the picture is one of the training: the model does better on those."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    same = any(neighbour.sha256 == sha256 for neighbour in found.neighbours)
    return ["the model was trained on this very picture"] if same else []


def _errors_as_dicts(unreadable: dict[Path, str]) -> list[dict[str, Any]]:
    return [{"case": str(file), "error": error} for file, error in unreadable.items()]


def _as_dict(case: Case) -> dict[str, Any]:
    """Data for JSON; probabilities 0..1, NaN as None."""
    found = case.explanation
    said = found.prediction
    return {
        "case": case.title,
        "recorded": case.recorded or None,
        "notes": case.notes,
        "model": found.model,
        "verdict": found.verdict(),
        "label": said.label,
        "confidence": _number(said.confidence),
        "accepted": said.accepted,
        "reason": said.reason,
        "threshold": found.threshold,
        "runner_up": found.runner_up,
        "probabilities": {label: round(score, 4) for label, score in said.scores.items()},
        "by_network": {label: round(score, 4) for label, score in found.network.items()},
        "by_likeness": {label: round(score, 4) for label, score in found.likeness.items()},
        "novelty": _number(said.novelty),
        "novelty_limit": found.novelty_limit,
        "palette": [{"rgb": colour.rgb, "share": round(colour.share, 4)} for colour in found.palette],
        "similar": [
            {
                "name": each.neighbour.name,
                "label": each.neighbour.label,
                "cosine": round(each.neighbour.cosine, 4),
                "sha256": each.neighbour.sha256,
            }
            for each in case.similar
        ],
    }


def _as_text(case: Case) -> str:
    found = case.explanation
    lines = [case.title]
    if case.recorded:
        lines.append(f"on record: {case.recorded}")
    lines += [f"{found.model}: {found.verdict()}", *(f"note: {note}" for note in case.notes)]
    lines += _probability_lines(found)
    if not found.prediction.label:
        return "\n".join(lines)
    if found.novelty_limit is not None:
        lines.append(f"novelty {found.prediction.novelty:.3g}, limit {found.novelty_limit:.3g}")
    colours = ", ".join(f"{each.hex} {each.share:.0%}" for each in found.palette)
    lines.append(f"colours of the battery: {colours}")
    if case.similar:
        lines.append("most similar training pictures:")
        lines += [
            f"  {each.neighbour.cosine:6.3f}  {each.neighbour.label:15} {each.neighbour.name}"
            + (f"  ({each.why})" if each.why else "")
            for each in case.similar
        ]
    return "\n".join(lines)


def _probability_lines(found: Explanation) -> list[str]:
    scores = found.prediction.scores
    likeliest = sorted(scores, key=lambda label: -scores[label])[:4]
    if not found.likeness:
        return [f"  {label:15} {percent(scores[label]):>8}" for label in likeliest]
    head = f"  {'':15} {'verdict':>8} {'network':>8} {'likeness':>8}"
    return [
        head,
        *(
            f"  {label:15} {percent(scores[label]):>8} {percent(found.network[label]):>8} "
            f"{percent(found.likeness[label]):>8}"
            for label in likeliest
        ),
    ]


def _number(value: float) -> float | None:
    return None if value != value else round(value, 4)

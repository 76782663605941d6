"""Explained decisions as HTML: what the templates case.html.j2 and explain.html.j2 need of them."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from battery_sorting.report.page import page_environment, write_page
from battery_sorting.report.vision.cases import Case
from battery_sorting.report.words import percent
from battery_sorting.vision.explain import Explanation

ABOUT = (
    "Warm colours: what speaks for that type (class activation map, both types on one scale; it is as coarse as "
    "the network's last layer). The table: the verdict, and what the network's head and the likeness say, each "
    "alone; multiplied they make the probabilities of one view."
)
_LONGEST = 512
"""Pictures are scaled down to this many pixels on their longer side: a page stays small enough to be sent."""
_THUMBNAIL = 168
_ROWS = 4
_QUALITY = 82


def write_cases(path: Path, cases: Sequence[Case], title: str) -> None:
    """Write a self-contained page of explained decisions.

    Raises:
        BatterySortingError: The file can't be written.
    """
    template = page_environment().get_template("explain.html.j2")
    page = template.render(title=title, about=ABOUT, cases=[case_view(case) for case in cases])
    write_page(path, page, "explanation")


def case_view(case: Case, tag: str = "", longest: int = _LONGEST) -> dict[str, Any]:
    """A decision as the template shows it; ``tag`` stands beside its title."""
    found = case.explanation
    return {
        "title": case.title,
        "tag": tag,
        "verdict": found.verdict(),
        "recorded": case.recorded,
        "notes": case.notes,
        "shots": _shots(found, longest),
        "heads": ["verdict", *(name for name, _ in _parts(found))],
        "rows": _rows(found),
        "palette": [
            {
                "css": colour.hex,
                "share": colour.share,
                "percent": percent(colour.share),
            }
            for colour in found.palette
        ],
        "novelty": novelty_text(found),
        "similar": [
            {
                "uri": "" if each.pixels is None else picture_uri(each.pixels, _THUMBNAIL),
                "text": f"{each.neighbour.cosine:.3f} {each.neighbour.label}: {each.neighbour.name}"
                + (f" ({each.why})" if each.why else ""),
            }
            for each in case.similar
        ],
    }


def novelty_text(found: Explanation) -> str:
    """The novelty and its limit in words; empty where the model has none."""
    value, limit = found.prediction.novelty, found.novelty_limit
    if math.isnan(value):
        return ""
    beside = "" if limit is None else f", {'above' if value > limit else 'not above'} its limit of {limit:.3g}"
    return f"Novelty {value:.3g}{beside}"


def picture_uri(rgb: np.ndarray, longest: int) -> str:
    """A picture, at most ``longest`` pixels on its longer side, as the address of an image element."""
    scale = longest / max(rgb.shape[:2])
    if scale < 1:
        size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii")


def _shots(found: Explanation, longest: int) -> list[dict[str, str]]:
    shots = [(found.picture, "the picture")]
    if found.prediction.label:
        shots.append((found.cutout.pixels, "what the network saw of it"))
    for label in found.activation:
        what = "the verdict" if label == found.prediction.label else "the runner-up"
        shots.append((found.overlay(label), f"for {label}, {what}"))
    return [{"uri": picture_uri(pixels, longest), "text": text} for pixels, text in shots]


def _parts(found: Explanation) -> list[tuple[str, dict[str, float]]]:
    """What the verdict is made of, where the model tells."""
    parts = [("network", found.network), ("likeness", found.likeness)]
    return [(name, column) for name, column in parts if column]


def _rows(found: Explanation) -> list[dict[str, Any]]:
    scores = found.prediction.scores
    likeliest = sorted(scores, key=lambda label: -scores[label])[:_ROWS]
    columns = [scores, *(column for _, column in _parts(found))]
    return [{"label": label, "values": [percent(column.get(label)) for column in columns]} for label in likeliest]

"""A defect model's card in words (Mitchell et al. 2019): what it is for, what it learnt from, how it judges."""

from __future__ import annotations

from typing import Any

from battery_sorting.vision.defect_card import DefectCard

CARD_TEXT = "card.md"


def card_text(card: DefectCard) -> str:
    """The card as Markdown.

    Args:
        card: With figures as `defect_figures` gives them, and ``escape`` as of `escape_threshold`.
    """
    sections = [
        (f"{card.name}, version {card.version}", _use(card)),
        ("What it learnt from", _table(("", ""), [[key, _plain(value)] for key, value in card.data.items()])),
        ("How well it judges", _figures(card)),
        ("Where it draws the line", _thresholds(card)),
        ("Limits", LIMITS),
    ]
    marks = ["#"] + ["##"] * (len(sections) - 1)
    return (
        "\n\n".join(f"{mark} {title}\n{text}" for mark, (title, text) in zip(marks, sections, strict=True)) + "\n"
    )


LIMITS = (
    "Figures hold for pictures such as those it learnt from. Another camera, other light, other cells or a kind of "
    "defect that is not among the labels: judge it first with `battery-sorting evaluate defects --data DIR --model "
    "FOLDER` on pictures of your own. The rule in use was chosen on the pictures on which the figures rest."
)


def _use(card: DefectCard) -> str:
    seen = f"the view `{card.view}` of a cell, which it finds in the frame" if card.view else "pictures as a whole"
    return (
        f"Tells good ({', '.join(card.good)}) from defective ({', '.join(card.defects)}) in {seen}, "
        f"{card.framing.width} × {card.framing.height} pixels.\n\n"
        "```\nbattery-sorting inspect --model FOLDER IMAGE\n```"
    )


def _figures(card: DefectCard) -> str:
    own = card.metrics
    rows = [[name, _share(own[name], 1)] for name in ("accuracy", "precision", "recall")]
    rows += [["F1", _plain(own["f1"])], ["AUROC", _share(own["auroc"], 3)]]
    text = f"Positive class: {own['positive']}. Intervals (95 %) are Wilson's, of AUROC by bootstrap.\n\n" + _table(
        ("figure", "value"), rows
    )
    truth = own["confusion"]
    counts = [
        [name, str(truth[name]["said_defective"]), str(truth[name]["said_good"])] for name in ("defective", "good")
    ]
    text += "\n\n" + _table(("truth", "said to be defective", "said to be good"), counts)
    kinds = own.get("kinds", {})
    if kinds:
        each = [
            [kind, _percent(row["said_defective"]), _percent(row["named"]), str(row["judged"])]
            for kind, row in kinds.items()
        ]
        text += "\n\n" + _table(("class", "said to be defective", "told by name", "judged"), each)
    return text


def _thresholds(card: DefectCard) -> str:
    escape = card.metrics["escape"]
    return (
        f"Good below a probability of {card.good_below:.4g}, defective from {card.defective_from:.4g} on, unsure "
        f"in between. Wanted was that at most {100 * escape['wanted']:.2f} % of the defectives pass: "
        f"{escape['escapes']} of {escape['defectives']} did, so with 95 % confidence fewer than "
        f"{100 * escape['escape_rate_below']:.2f} % do. That is {'' if escape['proven'] else 'not '}enough; "
        f"{escape['defectives_needed']} defectives are needed for the claim. Of the good "
        f"{_share(escape['good_held_back'], 1)} are held back."
    )


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _share(share: dict[str, Any], digits: int) -> str:
    if share["value"] is None:
        return "–"
    scale, unit = (100, " %") if digits == 1 else (1, "")
    value, low, high = (f"{scale * share[key]:.{digits}f}" for key in ("value", "low", "high"))
    count = f", {share['pictures']} pictures" if "pictures" in share else ""
    return f"{value}{unit} ({low}–{high}{count})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

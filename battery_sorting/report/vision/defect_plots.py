"""Plots of telling good from defective: ROC, probabilities, confusion of kinds, severity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from battery_sorting.report.plots import save_tight


def write_defect_plots(out: Path, judged: Any, report: dict[str, Any]) -> None:
    """Write ``roc.png``, ``kinds.png`` and, where severities are known, ``severity.png``.

    Args:
        out: Folder.
        judged: `battery_sorting.vision.training.defect_model.Judged`.
        report: Its report.
    """
    out.mkdir(parents=True, exist_ok=True)
    _roc(out / "roc.png", judged.probability, judged.defective, report)
    _kinds(out / "kinds.png", judged)
    if "severity" in report:
        _severity(out / "severity.png", report["severity"])


def _roc(path: Path, probability: np.ndarray, defective: np.ndarray, report: dict[str, Any]) -> None:
    order = np.argsort(-probability)
    caught = np.cumsum(defective[order]) / max(1, defective.sum())
    alarms = np.cumsum(~defective[order]) / max(1, (~defective).sum())
    figure, axes = plt.subplots(figsize=(5, 4.5))
    axes.plot(100 * np.concatenate([[0], alarms]), 100 * np.concatenate([[0], caught]))
    auroc = report["auroc"]
    axes.set(
        xlabel="good ones said to be defective, %",
        ylabel="defective ones caught, %",
        title=f"AUROC {auroc['value']} ({auroc['low']}..{auroc['high']})",
    )
    save_tight(figure, path)


def _kinds(path: Path, judged: Any) -> None:
    labels = list(judged.labels)
    table = np.zeros((len(labels), len(labels)))
    known = judged.kinds >= 0
    np.add.at(table, (judged.targets[known], judged.kinds[known]), 1)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(5.5, 5))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(share >= 0.0005):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, f"{100 * share[row, column]:.1f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="most probable", ylabel="true", title="% of the true class")
    save_tight(figure, path)


def _severity(path: Path, severity: dict[str, Any]) -> None:
    rows = severity["bins"]
    middle = [(row["from"] + row["to"]) / 2 for row in rows]
    value = np.array([row["value"] for row in rows])
    spread = [value - [row["low"] for row in rows], [row["high"] for row in rows] - value]
    figure, axes = plt.subplots(figsize=(5.5, 4))
    axes.errorbar(middle, 100 * value, yerr=100 * np.clip(spread, 0, 1), marker="o", capsize=3)
    if severity["half"] is not None:
        axes.axvline(severity["half"], linestyle="--", color="grey")
    axes.set(xlabel="severity", ylabel="caught, %", xlim=(0, 1), ylim=(0, 102))
    save_tight(figure, path)

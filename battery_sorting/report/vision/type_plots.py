"""Plots of an evaluation: confusion, purity over coverage, robustness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from battery_sorting.report.plots import save_tight


def write_plots(out: Path, report: dict[str, Any]) -> None:
    """Write ``confusion.png``, ``purity.png`` and, where pictures were disturbed, ``robustness.png``."""
    _confusion(out / "confusion.png", report["protocols"]["grouped"]["confusion"])
    _purity(out / "purity.png", report["selective"])
    if "robustness" in report:
        _robustness(out / "robustness.png", report["robustness"]["disturbances"])


def _confusion(path: Path, counts: dict[str, dict[str, int]]) -> None:
    labels = list(counts)
    table = np.array([[row.get(label, 0) for label in labels] for row in counts.values()], float)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(7, 6))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(share >= 0.0005):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(
            column, row, f"{100 * share[row, column]:.1f}", ha="center", va="center", color=colour, fontsize=8
        )
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="said", ylabel="true", title="Grouped splits, % of the true type")
    save_tight(figure, path)


def _purity(path: Path, selective: dict[str, Any]) -> None:
    curve = selective["curve"]
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.plot([100 * point["coverage"] for point in curve], [100 * point["purity"] for point in curve], marker="o")
    axes.axhline(100 * selective["target_purity"], linestyle="--", color="grey")
    axes.set(xlabel="coverage, %", ylabel="purity, %", title="Cross-validation, others included")
    save_tight(figure, path)


def _robustness(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.barh(list(rows), [100 * row["accuracy"] for row in rows.values()])
    axes.set(xlabel="accuracy, %", xlim=(min(80, *(100 * row["accuracy"] for row in rows.values())), 100))
    axes.invert_yaxis()
    save_tight(figure, path)

"""What plots share: how they are written, and for those of cells the names of the axes and which are drawn."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from battery_sorting.core.errors import BatterySortingError

LABELS = ("capacity, Ah", "internal resistance, mΩ", "open-circuit voltage, V")
MOST_CELLS = 20_000
"""More points than this are thinned out evenly: nobody can tell them apart, and files grow."""


def save(figure: Figure, path: Path, what: str) -> None:
    """Write a figure of ``what`` as the kind of picture that the ending of ``path`` names, and close it.

    Raises:
        BatterySortingError: The file can't be written, or matplotlib doesn't know the kind.
    """
    try:
        figure.savefig(path, dpi=130)
    except (OSError, ValueError) as error:
        raise BatterySortingError(f"{path}: can't write {what} ({error}); name a .png file") from error
    finally:
        plt.close(figure)


def save_tight(figure: Figure, path: Path) -> None:
    """Write a figure that takes no more room than it needs, and close it."""
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def svg(figure: Figure) -> str:
    """A figure as an SVG element; closes it."""
    text = io.StringIO()
    figure.savefig(text, format="svg")
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def thinned(rows: np.ndarray) -> np.ndarray:
    """At most `MOST_CELLS` of the rows, evenly."""
    return rows[:: max(1, -(-len(rows) // MOST_CELLS))]

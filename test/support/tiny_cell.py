"""A cell whose classifier runs a model of a few kilobytes: it starts at once, and tells green from all else."""

from __future__ import annotations

from pathlib import Path

from support.tiny_model import battery, write_model

GREEN = battery((30, 200, 30))
ROUTES = "recipe.routes={Red: duracell_alk, Green: klarus, Blue: gp_alk}"


def write_family(folder: Path, *versions: str) -> Path:
    """Versions of one model that all say the same; the first is active."""
    for version in versions:
        write_model(folder / version, version)
    (folder / "active").write_text(f"{versions[0]}\n")
    return folder


def with_model(model: Path) -> tuple[str, ...]:
    """What to override in the simulated site and its recipe."""
    return f"model={model}", ROUTES, "recipe.threshold=0.6"

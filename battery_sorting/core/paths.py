"""Where a run keeps what it records."""

from __future__ import annotations

from pathlib import Path

from battery_sorting.core.lines import AnySite


def ledger_location(site: AnySite, run_dir: Path) -> str:
    """URL of the ledger's database, or the path of its file."""
    return site.ledger.url if "://" in site.ledger.url else str(run_dir / site.ledger.url)


def image_folder(site: AnySite, run_dir: Path) -> Path:
    """Folder of the pictures."""
    return run_dir / site.images.path

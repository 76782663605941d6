"""Where a run keeps what it records."""

from __future__ import annotations

from pathlib import Path

from battery_sorting.core.secrets import LedgerUrl
from battery_sorting.line.site import LineSite

SITE_FILE, RECIPE_FILE = "site.json", "recipe.json"
"""What was checked, in the run folder."""


def ledger_location(site: LineSite, run_dir: Path) -> LedgerUrl:
    """URL of the ledger's database (with its password, in a process of the cell), or the path of its file."""
    url = site.ledger.url
    return url.completed() if url.is_url else LedgerUrl(str(run_dir / url.reveal()))


def ledger_folder(site: LineSite, run_dir: Path) -> Path:
    """Folder of the ledger's file; of a ledger on a server the run folder, which takes what that refuses."""
    url = site.ledger.url
    return run_dir if url.is_url else (run_dir / url.reveal()).parent


def image_folder(site: LineSite, run_dir: Path) -> Path:
    """Folder of the pictures."""
    return run_dir / site.images.path

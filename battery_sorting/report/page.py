"""HTML pages: the templates of the package, and how a page is written."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from battery_sorting.core.errors import BatterySortingError


def page_environment() -> Environment:
    """Templates of the package."""
    return Environment(
        loader=PackageLoader("battery_sorting.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def write_page(path: Path, text: str, what: str) -> None:
    """Write an HTML page.

    Raises:
        BatterySortingError: The file can't be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BatterySortingError(
            f"{path}: can't write the {what} ({error.strerror}); name another file"
        ) from error

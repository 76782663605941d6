"""Tables of the docs that follow from the code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as it stands in a page."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(
        f"| {' | '.join(line)} |\n" if line[0] != "---" else f"|{'---|' * len(heads)}\n" for line in lines
    )


def assert_stands_in(page: str, table: str) -> None:
    """The page of ``docs/reference`` has exactly this table; if not, paste it there."""
    head = table.partition("\n")[0]
    text = (REFERENCE / page).read_text("utf-8")
    assert head in text, f"docs/reference/{page} has no table {head}: paste\n{table}"
    found = head + text.partition(head)[2].partition("\n\n")[0].rstrip("\n") + "\n"
    assert found == table, f"docs/reference/{page}: put this in place of its table:\n{table}"

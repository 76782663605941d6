"""The kinds of line that there are: the one list of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from battery_sorting.belt.kind import BELT
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import RecipeSettings, find_config, read_document, suggest
from battery_sorting.ev.kind import EV
from battery_sorting.ledger import Shift
from battery_sorting.line.kind import LineKind
from battery_sorting.line.site import LineSite

LINES: dict[str, LineKind[Any, Any]] = {kind.name: kind for kind in (BELT, EV)}


def load_site(
    name: str, overrides: Sequence[str] = (), check_drivers: Callable[[LineSite], list[str]] | None = None
) -> LineSite:
    """Read and check the site file of any line. Its key ``kind`` says which line it is for; none: a belt.

    Raises:
        ConfigurationError: With every fault of the file.
    """
    kind = _kind("sites", name)
    if kind not in LINES:
        problem = f"kind: there is no line of kind {kind!r}; {suggest(str(kind), list(LINES))}"
        raise ConfigurationError(name, [problem])
    site: LineSite = LINES[kind].site.load(name, overrides, check_drivers)
    return site


def load_recipe(name: str, site: LineSite, overrides: Sequence[str] = ()) -> RecipeSettings:
    """Read and check the recipe for the line of ``site``.

    Raises:
        ConfigurationError: With every fault of the file, or it is for another kind of line.
    """
    kind = _kind("recipes", name)
    if kind != site.kind and kind in LINES:
        problem = (
            f"kind: is for the {kind} line, the site '{site.name}' is a line of kind {site.kind}: give another"
        )
        raise ConfigurationError(name, [problem])
    recipe: RecipeSettings = LINES[site.kind].recipe.load(name, overrides)
    return recipe


def _kind(folder: str, name: str) -> str:
    kind = read_document(find_config(folder, name)).data.get("kind", "belt")
    return kind if isinstance(kind, str) else repr(kind)


def node_names(site: LineSite) -> tuple[str, ...]:
    """Names of the nodes of a site's line, in their start order."""
    names: tuple[str, ...] = LINES[site.kind].node_names(site)
    return names


def kind_of(shift: Shift) -> LineKind[Any, Any]:
    """The kind of the line that a shift was of. A belt line where the ledger names none that there is."""
    site = shift.config.get("site")
    return LINES.get(str(site.get("kind")), BELT) if isinstance(site, dict) else BELT

"""The kinds of line that a cell may have, and which classes read their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from battery_sorting.belt.recipe import BeltRecipe
from battery_sorting.belt.site import BeltSite
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import find_config, read_document, suggest
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.site import EvSite
from battery_sorting.line.contract import EV_NODES, MEASURING_NODES, NODES

AnySite = BeltSite | EvSite
AnyRecipe = BeltRecipe | EvRecipe

_KINDS: dict[str, tuple[type[BeltSite] | type[EvSite], type[BeltRecipe] | type[EvRecipe]]] = {
    "belt": (BeltSite, BeltRecipe),
    "ev": (EvSite, EvRecipe),
}


def load_site(
    name: str, overrides: Sequence[str] = (), check_drivers: Callable[[AnySite], list[str]] | None = None
) -> AnySite:
    """Read and check the site file of any line. Its key ``kind`` says which line it is for; none: a belt.

    Raises:
        ConfigurationError: With every fault of the file.
    """
    return _classes("sites", name)[0].load(name, overrides, check_drivers)


def load_recipe(name: str, site: AnySite, overrides: Sequence[str] = ()) -> AnyRecipe:
    """Read and check the recipe for the line of ``site``.

    Raises:
        ConfigurationError: With every fault of the file, or it is for another kind of line.
    """
    kind = _kind("recipes", name)
    if kind != site.kind and kind in _KINDS:
        problem = (
            f"kind: is for the {kind} line, the site '{site.name}' is a line of kind {site.kind}: give another"
        )
        raise ConfigurationError(name, [problem])
    return _KINDS[site.kind][1].load(name, overrides)


def _classes(folder: str, name: str) -> tuple[type[BeltSite] | type[EvSite], type[BeltRecipe] | type[EvRecipe]]:
    kind = _kind(folder, name)
    if kind not in _KINDS:
        problem = f"kind: there is no line of kind {kind!r}; {suggest(str(kind), list(_KINDS))}"
        raise ConfigurationError(name, [problem])
    return _KINDS[kind]


def _kind(folder: str, name: str) -> str:
    kind = read_document(find_config(folder, name)).data.get("kind", "belt")
    return kind if isinstance(kind, str) else repr(kind)


def node_names(site: AnySite) -> tuple[str, ...]:
    """Names of the nodes of a site's line, in their start order."""
    if isinstance(site, EvSite):
        return (*EV_NODES, *MEASURING_NODES) if site.measuring is not None else EV_NODES
    return NODES

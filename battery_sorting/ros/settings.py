"""Parameters of a node, the files that they point to, and the claim on what the node needs for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

from rclpy.node import Node

from battery_sorting.belt.kind import BELT
from battery_sorting.belt.recipe import BeltRecipe
from battery_sorting.belt.site import BeltSite
from battery_sorting.core.ownership import PATIENCE_S, Ownership, claim
from battery_sorting.ev.kind import EV
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.site import EvSite
from battery_sorting.line.claims import claims_of
from battery_sorting.line.kind import LineKind, RecipeT, SiteT
from battery_sorting.ros.parameters import declare, lock_sim_time


class RunSettings(Generic[SiteT, RecipeT]):
    """Parameters of a node of a line of ``kind``, and the files that they point to."""

    def __init__(self, node: Node, kind: LineKind[SiteT, RecipeT]) -> None:
        def text(name: str) -> str:
            return str(declare(node, name))

        lock_sim_time(node)
        site_file, recipe_file, run_dir = text("site_file"), text("recipe_file"), text("run_dir")
        self.run_id = text("run_id")
        """The start of the cell that this process belongs to; empty if it was started by itself."""
        self.exit_with_parent = bool(declare(node, "exit_with_parent"))
        self.run_dir = Path(run_dir)
        self.kind = kind
        self.site = kind.site.load_resolved(site_file)
        self.recipe = kind.recipe.load_resolved(recipe_file)


class BeltSettings(RunSettings[BeltSite, BeltRecipe]):
    """Settings of a node of the belt line."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, BELT)


class EvSettings(RunSettings[EvSite, EvRecipe]):
    """Settings of a node of the EV line."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, EV)


SettingsT = TypeVar("SettingsT", bound=RunSettings[Any, Any])


def own(node: Node, name: str, settings: RunSettings[Any, Any], patience_s: float = PATIENCE_S) -> Ownership:
    """Claims what this node needs, before anybody can hear it. The claims last as long as what is returned.

    Raises:
        OwnedElsewhereError: Another process has it, and did not end within ``patience_s``.
    """
    domain = node.context.get_domain_id()
    claims = claims_of(name, settings.site, settings.run_dir, domain, node.get_namespace())
    return claim(claims, f"{name}, run folder {settings.run_dir}", node.get_logger().warning, patience_s)

"""The belt line, as those see it who start and check lines of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from battery_sorting.belt.recipe import BeltRecipe, check
from battery_sorting.belt.site import BeltSite
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.line.contract import BELT_CONTRACT, CLASSIFIER, NODES
from battery_sorting.line.kind import Findings, LineKind

if TYPE_CHECKING:  # the database takes long to import, and few need it
    from battery_sorting.belt.report import BeltReport
    from battery_sorting.ledger.store import Ledger


class _BeltLine(LineKind[BeltSite, BeltRecipe]):
    name = "belt"
    entrance = "photo-eye"
    explains = True
    site, recipe = BeltSite, BeltRecipe
    contract = BELT_CONTRACT
    plant_ports = {"modbus_port": ("plc", "port"), "camera_port": ("camera", "port"), "control_port": None}  # noqa: RUF012

    def node_names(self, site: BeltSite) -> tuple[str, ...]:  # noqa: ARG002
        return NODES

    def started_elsewhere(self, site: BeltSite) -> frozenset[str]:
        return frozenset() if site.own_classifier else frozenset({CLASSIFIER})

    def arguments(self, site: BeltSite, name: str) -> tuple[str, ...]:
        """The classifier gets the run folders of the lines that it serves, too."""
        return tuple(str(Path(folder).absolute()) for folder in site.serves) if name == CLASSIFIER else ()

    def plant_settings(self, site: BeltSite, recipe: BeltRecipe) -> dict[str, Any]:
        belt = site.belt
        return {
            "valves": [{"valve": e.valve, "offset_mm": e.offset_mm, "bin": e.bin} for e in site.ejectors],
            "gate_offset_mm": belt.gate_offset_mm,
            "exit_offset_mm": belt.exit_offset_mm,
            "mm_per_count": belt.mm_per_count,
            "speed_mps": recipe.speed_mps,
        }

    def check(self, site: BeltSite, recipe: BeltRecipe) -> Findings:
        types = read_types(site.model_directory())
        shadow = site.shadow_directory()
        if shadow is not None:
            read_types(shadow)
        result = check(recipe, site, types)
        if result.problems:
            raise ConfigurationError(f"recipe {recipe.name} at site {site.name}", result.problems)
        facts = (
            f"model: {site.model_directory()}, {len(types)} types",
            f"recipe: {recipe.name}, {recipe.speed_mps:g} m/s, {len(recipe.routes)} routes",
        )
        return Findings(facts, tuple(result.warnings))

    def report(self, ledger: Ledger, shift_id: int | None = None, plant: Path | None = None) -> BeltReport:
        from battery_sorting.belt.report import BeltReport, figures_of, judge_run, open_run
        from battery_sorting.core.plant_control import load_record

        record = None if plant is None else load_record(plant)
        run = open_run(ledger, shift_id, boot_id=None if record is None else record["boot_id"])
        return BeltReport(run, figures_of(run) if record is None else judge_run(run, record))


BELT = _BeltLine()


def read_types(model: Path) -> tuple[str, ...]:
    """Battery types that a model knows. Its weights are checked against its card.

    Raises:
        ModelError: Card or weights are missing or don't match.
    """
    from battery_sorting.vision.card import check_weights, read_card

    card = read_card(model)
    check_weights(model, card)
    return tuple(card.types)

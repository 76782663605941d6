"""The EV line, as those see it who start and check lines of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from battery_sorting.core.errors import ConfigurationError, ModelError
from battery_sorting.core.settings import suggest
from battery_sorting.ev.measurement import meter_is_good_enough
from battery_sorting.ev.recipe import EvRecipe, MeasuringRecipe, problems_at
from battery_sorting.ev.site import EvSite, Measuring
from battery_sorting.line.contract import CONTROLLER, EV_CONTRACT, EV_NODES, MEASURING_NODES
from battery_sorting.line.kind import Findings, LineKind

if TYPE_CHECKING:  # the database takes long to import, and few need it
    from battery_sorting.ev.report import EvReport
    from battery_sorting.ledger.store import Ledger


class _EvLine(LineKind[EvSite, EvRecipe]):
    name = "ev"
    entrance = "in the station"
    site, recipe = EvSite, EvRecipe
    contract = EV_CONTRACT
    executables = {CONTROLLER: "ev_controller"}  # noqa: RUF012
    plant_ports = {  # noqa: RUF012
        "modbus_port": ("station_plc", "port"),
        "lug_camera_port": ("cameras.lug", "port"),
        "case_camera_port": ("cameras.case", "port"),
        "cycler_port": ("measuring.tester", "port"),
        "meter_port": ("measuring.tester", "meter_port"),
        "robot_port": ("measuring.robot", "port"),
        "control_port": None,
    }

    def node_names(self, site: EvSite) -> tuple[str, ...]:
        return (*EV_NODES, *MEASURING_NODES) if site.measuring is not None else EV_NODES

    def plant_settings(self, site: EvSite, recipe: EvRecipe) -> dict[str, Any]:  # noqa: ARG002
        outlets = {outlet.name: outlet.number for outlet in site.outlets}
        return {"kind": site.kind, "outlets": outlets, **_places(site)}

    def check(self, site: EvSite, recipe: EvRecipe) -> Findings:
        problems = problems_at(recipe, site)
        facts, warnings = [], []
        for view, rules in (("lug", recipe.views.lug), ("case", recipe.views.case)):
            folder = site.model_directory(view)
            known = read_defects(folder, view)
            facts.append(f"model of the {view} view: {folder}, {len(known)} kinds of defect")
            problems += [
                f"views.{view}.defects.{kind}: the model doesn't know this defect; {suggest(kind, known)}"
                for kind in rules.defects
                if kind not in known
            ]
            warnings += [
                f"views.{view}: the model also knows {kind}: such cells go to quarantine"
                for kind in known
                if kind not in rules.defects
            ]
        if problems:
            raise ConfigurationError(f"recipe {recipe.name} at site {site.name}", problems)
        facts.append(f"recipe: {recipe.name}")
        if site.measuring is not None and recipe.measuring is not None:
            good, text = _check_measuring(site.measuring, recipe.measuring)
            (facts if good else warnings).append(f"measuring: {text}")
        return Findings(tuple(facts), tuple(warnings))

    def report(self, ledger: Ledger, shift_id: int | None = None, plant: Path | None = None) -> EvReport:
        from battery_sorting.ev.plant_record import load_ev_record
        from battery_sorting.ev.report import EvReport, ev_figures, judge_ev_run, load_ev_run

        record = None if plant is None else load_ev_record(plant)
        run = load_ev_run(ledger, shift_id, record)
        return EvReport(run, ev_figures(run) if record is None else judge_ev_run(run, record))


EV = _EvLine()


def _places(site: EvSite) -> dict[str, Any]:
    """What the plant must know of the places behind the station."""
    if site.measuring is None:
        return {}
    trays = {tray.name: tray.slots for tray in site.measuring.trays}
    return {"channels": site.measuring.channels, "buffer": site.measuring.buffer, "trays": trays}


def _check_measuring(measuring: Measuring, recipe: MeasuringRecipe) -> tuple[bool, str]:
    """Whether the meter is exact enough for the cells, and the numbers.

    Raises:
        ConfigurationError: Specification, layout or tolerance of the recipe are wrong.
    """
    from battery_sorting.drivers.registry import find_driver
    from battery_sorting.drivers.tester.base import CellTester
    from battery_sorting.grading.packing.layout import Layout
    from battery_sorting.grading.packing.objective import Tolerances
    from battery_sorting.grading.specification import CellSpec

    Layout.parse(recipe.regroup.layout)
    Tolerances.parse([f"{name}={value}" for name, value in recipe.regroup.tolerance.items()])
    resistance_mohm = CellSpec.load(recipe.spec).ideal.resistance_mohm
    tester = find_driver("tester", measuring.tester.driver).from_settings(measuring.tester.settings)
    assert isinstance(tester, CellTester)
    verdict = meter_is_good_enough(tester.resistance_uncertainty_mohm(resistance_mohm), resistance_mohm)
    return verdict.good_enough, verdict.text


def read_defects(model: Path, view: str) -> list[str]:
    """Kinds of defect that a model knows. It must be one of this view; its weights are checked against its card.

    Raises:
        ModelError: Card or weights are missing, don't match, or are of another view.
    """
    from battery_sorting.vision.card import check_weights
    from battery_sorting.vision.defect_card import read_defect_card

    card = read_defect_card(model)
    check_weights(model, card)
    if card.view != view:
        raise ModelError(f"{model}: is a model of the {card.view or 'no'} view: give one of the {view} view")
    return card.defects

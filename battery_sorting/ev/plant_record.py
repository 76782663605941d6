"""The record of the simulated plant of an EV line: what every cell truly was, and where it truly went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from battery_sorting.core.plant_control import fold_record

BY_HAND = "by_hand"
"""The outlet of a cell that somebody took out of the station."""


class EvPlantRecord:
    """Folded from the plant's events. Times are seconds of the plant's clock since its start."""

    def __init__(self) -> None:
        self._boot_id = 0
        self._start_ns = 0
        self._cells: dict[int, dict[str, Any]] = {}
        self._actions: list[dict[str, Any]] = []
        self._exposures: list[dict[str, Any]] = []
        self._injected: list[dict[str, Any]] = []
        self._summary: dict[str, Any] = {}
        self._places: dict[str, str] = {}
        self._electrical: dict[int, dict[str, Any]] = {}
        self._measured: dict[int, dict[str, Any]] = {}
        self._loads: list[dict[str, Any]] = []
        self._swaps: list[dict[str, Any]] = []
        self._restarts = 0
        self._loads_of_boot = 0

    def apply(self, event: dict[str, Any]) -> None:
        """Take in one event. Kinds that the record doesn't need are passed over."""
        kind = event.get("event")
        facts = {key: value for key, value in event.items() if key != "event"}
        if kind == "start":
            self._boot_id, self._start_ns = event["boot_id"], event["start_ns"]
        elif kind == "cell":
            self._cells[event["index"]] = {**facts, "outlet": None, "faults": []}
        elif kind == "loaded":
            self._loads_of_boot += 1
            boot_id = (self._boot_id + self._restarts) % 2**32
            self._loads.append({"boot_id": boot_id, "number": self._loads_of_boot, "cells": list(event["cells"])})
            self._mark(event["cells"][1:], "loader.two_cells")
        elif kind == "plc_restarts":
            self._restarts, self._loads_of_boot = self._restarts + 1, 0
        elif kind == "swapped":
            self._swaps.append({"put": event["put"], "taken": list(event["taken"])})
            self._mark([event["put"]], "station.swap")
        elif kind == "outlet":
            self._cells[event["index"]].update(outlet=event["outlet"], t_s=event["t_s"])
        elif kind == "placed":
            self._places[event["serial"]] = event["place"]
        elif kind == "dropped":
            self._places[event["serial"]] = "floor"
        elif kind == "electrical":
            self._electrical[event["cell"]] = facts
        elif kind == "tester_remove":
            self._measured[event["cell"]] = facts
        elif kind == "action":
            self._actions.append(facts)
        elif kind == "exposure":
            self._exposures.append(facts)
        elif kind == "injected":
            self._injected.append(facts)
            self._mark(event["cells"], event["name"])
        elif kind == "summary":
            self._summary = facts

    def _mark(self, cells: list[int], fault: str) -> None:
        for index in cells:
            self._cells[index]["faults"].append(fault)

    def as_dict(self) -> dict[str, Any]:
        """The record as data for a report.

        Keys: ``boot_id``, ``start_ns`` (plant time 0 in ns since 1970), ``cells``, ``loads``, ``swaps``,
        ``actions``, ``exposures``, ``injected``, ``summary`` (empty while the plant runs). A cell has ``index``,
        ``serial``, its class in each view (``lug``, ``case``), ``severities`` and ``variants`` by kind, ``faults``
        that befell it, and ``outlet`` where it ended: None while it is in magazine or station, ``by_hand`` if
        somebody took it out. Where there is a robot, ``place`` is where it laid the cell down last (``floor`` if it
        dropped it, else None), ``electrical`` what the cell truly was when it came, and ``measured`` when it was
        taken out of the tester. ``loads`` are the cells that the loader has brought, with the PLC's ``boot_id`` and
        its ``number`` from there; ``swaps`` are cells that somebody has put in the place of others.
        """
        return {
            "boot_id": self._boot_id,
            "start_ns": self._start_ns,
            "cells": [
                {
                    **cell,
                    "place": self._places.get(cell["serial"]),
                    "electrical": self._electrical.get(index % max(1, len(self._electrical))),
                    "measured": self._measured.get(index % max(1, len(self._electrical))),
                }
                for index, cell in self._cells.items()
            ],
            "loads": self._loads,
            "swaps": self._swaps,
            "actions": self._actions,
            "exposures": self._exposures,
            "injected": self._injected,
            "summary": self._summary,
        }


def load_ev_record(path: str | Path) -> dict[str, Any]:
    """Read a record file of the plant, also that of a plant that was killed while it wrote.

    Raises:
        ConfigurationError: The file is missing or isn't a record of the plant.
    """
    record = EvPlantRecord()
    fold_record(path, record.apply)
    return record.as_dict()

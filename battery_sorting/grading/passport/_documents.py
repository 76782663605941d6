"""Writes what is known of a cell, or of a pack, as a document of the schemas in config/passport.

Every value stands beside its unit, its limit of error, and where it is null the reason why.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from battery_sorting.core.errors import LedgerError
from battery_sorting.grading.passport._dossiers import Dossier, Pack, section
from battery_sorting.grading.passport._specification import Specification
from battery_sorting.ledger import Shift
from battery_sorting.ledger.events import CellMeasured, Looked, StationFaulted

CELL_SCHEMA = "urn:battery-sorting:passport:cell:1"
PACK_SCHEMA = "urn:battery-sorting:passport:pack:1"
ISSUED, DRAFT = "issued", "draft"
GRADES = ("A", "B", "C", "D")
NOT_RECORDED = "no limit of error is recorded for this value"
RATED = "a rated value, which has no limit of error"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")

Document = dict[str, Any]


@dataclass(frozen=True)
class Sources:
    """What a passport needs and the ledger doesn't hold itself.

    Attributes:
        specifications: Number of a shift → the cell specification that it ran with.
        models: Name of a model (``name/version``) → SHA-256 of its weights, and where that was read.
    """

    specifications: Mapping[int, Specification] = field(default_factory=dict)
    models: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def render(document: Document) -> bytes:
    """The document as it is written: the same for the same content."""
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def file_name(name: str, status: str) -> str:
    """Name of the file of a passport; drafts have another one than passports.

    Raises:
        LedgerError: The name on record can't be that of a file.
    """
    if not _FILE_NAME.fullmatch(name):
        raise LedgerError(f"{name!r} can't be the name of a file: letters, digits, '.', '_' and '-' are taken")
    return f"{name}.json" if status == ISSUED else f"{name}.{DRAFT}.json"


def as_draft(document: Document, because: Sequence[str], simulated: bool) -> Document:
    """The document as one that no schema of passports takes, and that says so of itself."""
    return {**document, "status": DRAFT, "simulated": simulated, "draft_because": list(because)}


# ---- values ----


def fact(value: Any, reason: str = "") -> Document:
    """A value, or the reason why there is none."""
    missing = value is None or value == ""
    return {"value": None if missing else value, "reason": reason if missing else None}


def quantity(value: Any, unit: str, uncertainty: Any = None, reason: str = "", why_exact: str = "") -> Document:
    """A number with its unit and limit of error (±).

    Args:
        value: The number; anything else is null.
        unit: Its unit; "1" for shares.
        uncertainty: Limit of error; None where none is known.
        reason: Why there is no value.
        why_exact: Why there is no limit of error.
    """
    number, limit = _number(value), _number(uncertainty)
    if number is None:
        return {"value": None, "unit": unit, "uncertainty": None, "reason": reason}
    missing = None if limit is not None else (why_exact or NOT_RECORDED)
    return {"value": number, "unit": unit, "uncertainty": limit, "reason": missing}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def sha256_of(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings as compact JSON with sorted keys in UTF-8."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def time_of(stamp: float) -> str:
    """Seconds since 1970 as ISO 8601, in UTC."""
    return datetime.fromtimestamp(stamp, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---- cells ----


def cell_passport(dossier: Dossier, sources: Sources, pack_id: str = "") -> Document:
    """Passport of a cell, by config/passport/cell.schema.json.

    Args:
        dossier: What the ledger holds of it.
        sources: Specifications and models.
        pack_id: The pack that it belongs to, if any.
    """
    shift = dossier.shift
    specification = sources.specifications.get(shift.shift_id)
    return {
        "schema": CELL_SCHEMA,
        "status": ISSUED,
        "simulated": False,
        "identity": _identity(dossier),
        "specification": _specification(specification),
        "performance": _performance(dossier, specification),
        "test": _test(dossier),
        "grade": _grade(dossier),
        "appearance": {view: _appearance(dossier, view, sources) for view in ("lug", "case")},
        "group": _group(dossier, pack_id),
        "disposition": _disposition(dossier),
        "configuration": _configuration(shift, specification),
    }


def _identity(dossier: Dossier) -> Document:
    return {
        "battery_id": dossier.battery_id,
        "printed_code": _printed_code(dossier),
        "line": dossier.shift.line,
        "site": dossier.shift.site,
        "arrived_at": time_of(dossier.battery.detected_at),
    }


def _printed_code(dossier: Dossier) -> Document:
    codes = dossier.codes
    if len(codes) > 1:
        return fact(None, f"the two views read different codes: {' and '.join(codes)}")
    if dossier.same_code:
        others = ", ".join(dossier.same_code)
        return fact(None, f"the code {codes[0]} was read on other cells, too, so it names none of them: {others}")
    return fact(codes[0] if codes else None, "the code was not read in either view")


def _specification(specification: Specification | None) -> Document:
    spec, problem = _usable(specification)
    return {
        "name": fact(spec.name if spec else None, problem),
        "chemistry": fact(spec.chemistry if spec else None, problem),
        "nominal_capacity": quantity(
            spec.nominal_capacity_ah if spec else None,
            "Ah",
            None,
            problem,
            RATED,
        ),
    }


def _usable(specification: Specification | None) -> tuple[Any, str]:
    """The specification, or None and the reason why there is none."""
    if specification is None:
        return None, "the shift's recipe names no cell specification"
    return specification.spec, specification.problem


def _performance(dossier: Dossier, specification: Specification | None) -> Document:
    data, reason = _measurement(dossier)

    def measured(name: str, unit: str, uncertainty: str) -> Document:
        return quantity(getattr(data, name), unit, getattr(data, uncertainty), reason)

    capacity = measured("capacity_ah", "Ah", "capacity_uncertainty_ah")
    spec, problem = _usable(specification)
    return {
        "capacity": capacity,
        "state_of_health": _share(capacity, spec.nominal_capacity_ah if spec else None, problem),
        "resistance": measured("resistance_mohm", "mΩ", "resistance_uncertainty_mohm"),
        "resistance_method": fact(data.resistance_method, reason),
        "dc_resistance": measured("dc_resistance_mohm", "mΩ", "dc_resistance_uncertainty_mohm"),
        "dc_pulse": quantity(data.dc_seconds, "s", None, reason),
        "open_circuit_voltage": measured("ocv_v", "V", "ocv_uncertainty_v"),
    }


def _share(value: Document, of: float | None, problem: str) -> Document:
    """A quantity as a share of a rated one."""
    if of is None or value["value"] is None:
        return quantity(None, "1", None, problem if of is None else value["reason"])
    limit = value["uncertainty"]
    return quantity(_rounded(value["value"] / of), "1", None if limit is None else _rounded(limit / of))


def _rounded(value: float) -> float:
    """A calculated value without the noise of binary arithmetic."""
    return float(f"{value:.9g}")


def _measurement(dossier: Dossier) -> tuple[CellMeasured, str]:
    """The last measurement, and why what it lacks is missing."""
    if dossier.measured is None:
        battery = dossier.battery
        return CellMeasured(""), f"the cell was not measured: it went to {battery.bin} ({battery.reason})"
    return dossier.measured.data, "the test did not measure it"


def _test(dossier: Dossier) -> Document:
    data, reason = _measurement(dossier)
    name = data.programme
    programme = section(dossier.shift.config, "recipe", "measuring", "programme")
    known = name and programme.get("name") == name
    why = reason if not name else f"the shift's recipe does not hold the programme '{name}'"
    at = None if dossier.measured is None else time_of(dossier.measured.stamp)
    return {
        "measured_at": fact(at, reason),
        "measurements": len(dossier.all_of(CellMeasured)),
        "programme": fact(name, reason),
        "steps": fact(list(programme["steps"]) if known and programme.get("steps") else None, why),
        "limits": fact(dict(programme["limits"]) if known and programme.get("limits") else None, why),
        "temperature": quantity(data.temperature_c, "°C", data.temperature_uncertainty_c, reason),
        "rest": quantity(data.rest_s, "s", None, reason),
        "state_of_charge": quantity(data.soc, "1", data.soc_uncertainty, reason),
        "contact_resistance": quantity(data.contact_mohm, "mΩ", None, reason),
        "resistance_instrument": _instrument(data.instrument, data.calibrated_on, reason),
        "capacity_instrument": _instrument(data.capacity_instrument, data.capacity_calibrated_on, reason),
    }


def _instrument(name: str, calibrated_on: str, reason: str) -> Document:
    unknown = "the site file does not tell when it was calibrated" if name else reason
    return {"name": fact(name, reason), "calibrated_on": fact(calibrated_on, unknown)}


def _grade(dossier: Dossier) -> Document:
    event = dossier.graded
    if event is None:
        _, reason = _measurement(dossier)
        reason = reason if dossier.measured is None else "the last measurement was not graded"
        names = ("grade", "status", "relation_degree", "probabilities", "note")
        return {name: fact(None, reason) for name in names}
    data = event.data
    why = data.reason or "the measurement is no valid one"
    chances = data.probabilities
    named = dict(zip(GRADES, chances, strict=True)) if len(chances) == 4 and None not in chances else None
    return {
        "grade": fact(data.grade, why),
        "status": fact(data.status, "no status is on record"),
        "relation_degree": fact(data.relation_degree, why),
        "probabilities": fact(named, why),
        "note": fact(data.reason, "there is nothing to note"),
    }


def _appearance(dossier: Dossier, view: str, sources: Sources) -> Document:
    looks = dossier.looks(view)
    look = looks[-1].data if looks else Looked(view=view, verdict="")

    def why(reason: str) -> str:
        return reason if looks else "this view was not looked at"

    name = look.model
    sha256, read_from = sources.models.get(name, ("", ""))
    no_model = why("no model is on record")
    no_sum = no_model if not name else f"the ledger holds the model's name only, and there is no model {name} here"
    return {
        "verdict": fact(look.verdict, why("no verdict is on record")),
        "reason": fact(look.reason, why("none is on record")),
        "defect": fact(*_defect(look, why)),
        "defect_probability": fact(look.probability, why("the picture could not be judged")),
        "novelty": fact(look.novelty, why("none is on record")),
        "code": fact(look.code, why("no code was read")),
        "looked_at": fact(time_of(looks[-1].stamp) if looks else None, why("")),
        "looks": len(looks),
        "model": fact(name, no_model),
        "model_sha256": fact(sha256, no_sum),
        "model_sha256_from": fact(read_from, no_sum),
    }


def _defect(look: Looked, why: Callable[[str], str]) -> tuple[Any, str]:
    """Kind of defect, or None and why. (The inspector names the most probable kind even of a good view.)"""
    if look.verdict in ("defective", "unsure"):
        return look.kind, why("no kind is on record")
    return None, why("the view is good" if look.verdict == "good" else "the picture could not be judged")


def _group(dossier: Dossier, pack_id: str) -> Document:
    event, measuring = dossier.grouped, section(dossier.shift.config, "recipe", "measuring")
    never = "the cell was put into no group"
    group, leftover = ("", "") if event is None else (event.data.group, event.data.leftover)
    why = leftover or never
    regroup = section(measuring, "regroup")
    return {
        "pack": fact(pack_id, why if not group else "its group is no pack"),
        "name": fact(group, why),
        "method": fact(regroup.get("method") if event is not None else None, never),
    }


def _disposition(dossier: Dossier) -> Document:
    battery = dossier.battery
    faults = [event.data.code for event in dossier.all_of(StationFaulted)]
    at = None if battery.disposed_at is None else time_of(battery.disposed_at)
    return {
        "place": str(battery.bin),
        "reason": fact(battery.reason, "no reason is on record"),
        "at": fact(at, "no time is on record"),
        "faults": faults,
    }


def _configuration(shift: Shift, specification: Specification | None) -> Document:
    spec, problem = _usable(specification)
    values = specification.values if specification is not None else {}
    return {
        "shift": shift.shift_id,
        "software_version": fact(shift.software_version, "no version is on record"),
        "site_sha256": _sum_of(shift, "site"),
        "recipe": fact(section(shift.config, "recipe").get("name"), "the shift has no recipe on record"),
        "recipe_sha256": _sum_of(shift, "recipe"),
        "cell_specification_sha256": fact(sha256_of(values) if values else None, problem),
        "cell_specification_from": fact(specification.taken_from if specification and spec else None, problem),
    }


def _sum_of(shift: Shift, key: str) -> Document:
    settings = section(shift.config, key)
    return fact(sha256_of(settings) if settings else None, f"the shift has no {key} on record")


# ---- packs ----


def pack_passport(pack: Pack, cells: Sequence[Document], sources: Sources) -> Document:
    """Passport of a pack, by config/passport/pack.schema.json.

    Args:
        pack: The pack.
        cells: Passports (or drafts) of its cells, in the order of ``pack.cells``.
        sources: Specifications and models.
    """
    specification = sources.specifications.get(pack.shift.shift_id)
    spec, problem = _usable(specification)
    rated = spec.nominal_capacity_ah * pack.layout.parallel if spec else None
    capacity = _in_series(pack, cells, "capacity", min, max)
    return {
        "schema": PACK_SCHEMA,
        "status": ISSUED,
        "simulated": False,
        "identity": _identity_of_pack(pack),
        "layout": {"name": str(pack.layout), "series": pack.layout.series, "parallel": pack.layout.parallel},
        "assembly": fact(None, "the line puts the cells of a pack into a tray; it does not assemble them"),
        "specification": {
            "cell": fact(spec.name if spec else None, problem),
            "chemistry": fact(spec.chemistry if spec else None, problem),
            "nominal_capacity": quantity(rated, "Ah", None, problem, RATED),
        },
        "performance": {
            "capacity": capacity,
            "state_of_health": _share(capacity, rated, problem),
            "resistance": _in_series(pack, cells, "resistance", sum, sum),
            "resistance_method": _method(cells),
            "open_circuit_voltage": _in_series(pack, cells, "open_circuit_voltage", sum, sum),
        },
        "spread": {
            name: _spread(cells, name)
            for name in ("capacity", "resistance", "open_circuit_voltage", "state_of_health")
        },
        "grades": dict(sorted(Counter(str(cell["grade"]["grade"]["value"] or "none") for cell in cells).items())),
        "cells": [_member(cell) for cell in cells],
        "configuration": _configuration(pack.shift, specification),
    }


def _identity_of_pack(pack: Pack) -> Document:
    return {
        "pack_id": pack.pack_id,
        "group": pack.group,
        "line": pack.shift.line,
        "site": pack.shift.site,
        "place": pack.tray,
        "grouped_at": time_of(max(cell.grouped.stamp for cell in pack.cells if cell.grouped is not None)),
    }


def _in_series(pack: Pack, cells: Sequence[Document], name: str, combine: Any, limits: Any) -> Document:
    """Value of cells in series, with its limit of error; null where some are in parallel.

    The smallest of values that are each wrong by at most u is itself wrong by at most the largest u.
    """
    all_of_it = [cell["performance"][name] for cell in cells]
    unit = all_of_it[0]["unit"]
    if pack.layout.parallel > 1:
        why = "the ledger does not hold which cells go side by side, so this can't be calculated before assembly"
        return quantity(None, unit, None, why)
    missing = [cell["identity"]["battery_id"] for cell in cells if cell["performance"][name]["value"] is None]
    if missing:
        return quantity(None, unit, None, f"not known of {', '.join(missing)}")
    errors = [each["uncertainty"] for each in all_of_it]
    limit = None if None in errors else limits(errors)
    value = _rounded(combine(each["value"] for each in all_of_it))
    return quantity(value, unit, None if limit is None else _rounded(limit))


def _method(cells: Sequence[Document]) -> Document:
    methods = sorted({str(cell["performance"]["resistance_method"]["value"] or "") for cell in cells} - {""})
    if len(methods) > 1:
        return fact(None, f"the cells were measured in different ways: {', '.join(methods)}")
    return fact(methods[0] if methods else None, "no method is on record")


def _spread(cells: Sequence[Document], name: str) -> Document:
    """Largest less smallest value; each may be off by its own limit of error."""
    values = [cell["performance"][name] for cell in cells]
    unit = values[0]["unit"]
    known = [each["value"] for each in values if each["value"] is not None]
    if len(known) < len(values):
        return quantity(None, unit, None, "not known of all cells")
    errors = [each["uncertainty"] for each in values]
    limit = None if None in errors else 2 * max(errors)
    return quantity(_rounded(max(known) - min(known)), unit, None if limit is None else _rounded(limit))


def _member(cell: Document) -> Document:
    performance, identity = cell["performance"], cell["identity"]
    return {
        "battery_id": identity["battery_id"],
        "printed_code": identity["printed_code"],
        "grade": cell["grade"]["grade"],
        "capacity": performance["capacity"],
        "resistance": performance["resistance"],
        "state_of_health": performance["state_of_health"],
        "passport": file_name(identity["battery_id"], cell["status"]),
        "passport_sha256": hashlib.sha256(render(cell)).hexdigest(),
    }

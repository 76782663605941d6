"""A short shift of an EV line as its nodes write it: three products (two in a pack, one D), a leak, a jam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from battery_sorting.core.types import make_battery_id
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.site import EvSite
from battery_sorting.ledger import EventData
from battery_sorting.ledger.events import (
    CellGraded,
    CellGrouped,
    CellMeasured,
    Decided,
    Detected,
    Disposed,
    Looked,
    Moved,
    MoveOrdered,
    Released,
    ReleaseOrdered,
    StationFaulted,
)
from battery_sorting.ledger.store import Ledger

BOOT = 0x6A000001
SERIALS = ("LF1", "LF2", "LF3", "LF4", "LF5")
CAPACITIES = (18.0, 18.5, 9.0)


def write_shift(path: Path) -> None:
    """Write the ledger."""
    config = {
        "site": EvSite.load("sim_ev").model_dump(mode="json"),
        "recipe": EvRecipe.load("lfp_prismatic").model_dump(mode="json"),
    }
    clock = {"now": 1000.0}
    with Ledger.open(path, now=lambda: clock["now"]) as ledger:
        ledger.begin_shift("ev", "sim_ev", 1000.0, software_version="0.1", config=config)
        with ledger.transaction() as tx:

            def tell(data: EventData, number: int, stamp: float) -> None:
                clock["now"] = stamp + 0.1  # so long it takes until it is written
                tx.record(data, make_battery_id(BOOT, number), stamp)

            for number in range(1, 6):
                _inspect(tell, number, 1000.0 + 3.0 * number)
            for number in range(1, 4):
                _measure(tell, number, 1040.0 + 20.0 * number)
            for number in (1, 2):
                _place(tell, number, 1200.0)


def _inspect(tell: Any, number: int, at: float) -> None:
    jams, leaks = number == 5, number == 4
    tell(Detected(trigger_count=number, encoder_count=0), number, at)
    _look(tell, number, at + 0.2, "lug", "good", "")
    if jams:
        tell(StationFaulted(code="flip_jam", text="the PLC answered jam", step="flip"), number, at + 0.5)
    else:
        _look(tell, number, at + 1.0, "case", *(("defective", "leaking") if leaks else ("good", "")))
    outlet, reason = (
        ("quarantine", "flip_jam") if jams else ("hazardous", "leaking") if leaks else ("product", "good")
    )
    tell(Decided(bin=outlet, reason=reason, text=f"because of {reason}"), number, at + 1.3)
    tell(ReleaseOrdered(outlet=outlet, token=number), number, at + 1.3)
    tell(Released(outlet=outlet), number, at + 2.0)
    if outlet != "product":
        tell(Disposed(bin=outlet, reason=reason), number, at + 2.0)


def _look(tell: Any, number: int, at: float, view: str, verdict: str, reason: str) -> None:
    tell(
        Looked(
            view=view,
            frame=number,
            verdict=verdict,
            reason=reason,
            kind=reason or "stained",
            probability=0.99 if reason else 0.01,
            kinds={"good": 0.01 if reason else 0.99},
            novelty=0.2,
            code=SERIALS[number - 1],
            face=view,
            model=f"{view}/1",
            seconds=0.05,
        ),
        number,
        at,
    )


def _measure(tell: Any, number: int, at: float) -> None:
    grade = "D" if number == 3 else "A"
    shares = [0.0, 0.0, 0.1, 0.9] if grade == "D" else [0.9, 0.1, 0.0, 0.0]
    _move(tell, number, at, "pick", f"channel-{number}")
    tell(
        CellMeasured(
            programme="capacity_20ah",
            capacity_ah=CAPACITIES[number - 1],
            capacity_uncertainty_ah=0.02,
            resistance_mohm=1.6,
            resistance_uncertainty_mohm=0.01,
            ocv_v=3.3,
            ocv_uncertainty_v=0.0004,
        ),
        number,
        at + 11.0,
    )
    degree = 0.9 if grade == "A" else 0.2
    tell(
        CellGraded(grade=grade, status="ok", relation_degree=degree, probabilities=shares, reason=""),
        number,
        at + 11.0,
    )
    if grade == "D":
        _move(tell, number, at + 12.0, f"channel-{number}", "recycle-1")
        tell(Disposed(bin="recycle", reason="grade_d"), number, at + 13.0)
    else:
        _move(tell, number, at + 12.0, f"channel-{number}", f"buffer-{number}")


def _place(tell: Any, number: int, at: float) -> None:
    tell(CellGrouped(group="pack_1", leftover=""), number, at)
    _move(tell, number, at + number, f"buffer-{number}", f"tray_1-{number}")
    tell(Disposed(bin="tray_1", reason="grouped"), number, at + number + 1)


def _move(tell: Any, number: int, at: float, source: str, target: str) -> None:
    tell(MoveOrdered(source=source, target=target), number, at)
    tell(Moved(place=target, error=""), number, at + 1.0)


def plant_record() -> dict[str, Any]:
    """The plant's record of the same shift, as `EvPlantRecord.as_dict` gives it."""
    places = {1: "tray_1-1", 2: "tray_1-2", 3: "recycle-1"}
    cells = [
        {
            "index": number - 1,
            "serial": SERIALS[number - 1],
            "lug": "good",
            "case": "leaking" if number == 4 else "good",
            "severities": {"leaking": 0.7} if number == 4 else {},
            "variants": {},
            "faults": ["flipper.jam"] if number == 5 else [],
            "outlet": {4: "hazardous", 5: "quarantine"}.get(number, "product"),
            "place": places.get(number),
            "electrical": None,
            "measured": _truth(number) if number in places else None,
        }
        for number in range(1, 6)
    ]
    return {
        "boot_id": BOOT,
        "start_ns": 1_000_000_000_000,
        "cells": cells,
        "loads": [{"boot_id": BOOT, "number": number, "cells": [number - 1]} for number in range(1, 6)],
        "swaps": [],
        "actions": [],
        "exposures": [],
        "injected": [{"name": "flipper.jam", "cells": [4]}],
        "summary": {},
    }


def _truth(number: int) -> dict[str, float]:
    off = 0.05 if number == 1 else 0.01
    return {"capacity_ah": CAPACITIES[number - 1] + off, "resistance_mohm": 1.605, "ocv_v": 3.3001}

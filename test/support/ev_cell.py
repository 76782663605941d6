"""The inspection station and the simulated plant in one process, without I/O, on a clock of its own.

The plant is the real one; of the cameras and the inspector only the timing and the outcome are modelled, from what
the plant knows that was in front of the camera.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from battery_sorting.core.types import View
from battery_sorting.drivers.registers import to_int
from battery_sorting.drivers.station_plc import register_map as rm
from battery_sorting.drivers.station_plc.base import ActionResult, FlipperPosition, StationStatus
from battery_sorting.ev.inspection import (
    CellResult,
    Finished,
    FlipEnded,
    Inspection,
    Look,
    Recover,
    StationDo,
    StationOrder,
    Stuck,
)
from battery_sorting.ev.plant_record import EvPlantRecord
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.types import FrameSeen, ViewResult
from battery_sorting.ledger import Record
from battery_sorting.plant.ev_station import EvWorld, EvWorldConfig, Exposure
from battery_sorting.plant.station_plc import StationPlcProgram

STEP_S = 0.05
LOOK_S = 0.1
READOUT_S = 0.02
UNPLUGGED_S = 1.0


class EvCell:
    """One station that inspects what the plant has in its magazine."""

    def __init__(self, seed: int = 0, recipe: EvRecipe | None = None, **settings: Any) -> None:
        self.events: list[dict[str, Any]] = []
        config = EvWorldConfig(**{"time_factor": 4.0, **settings})
        self.world = EvWorld(config, seed, self.events.append)
        self.plc = StationPlcProgram(self.world, 0x5EED0000)
        self.world.exposure_listeners.append(self._expose)
        self.recipe = recipe or EvRecipe.load("lfp_prismatic")
        self.machine = Inspection(self.recipe, config.outlets)
        self.now = 0.0
        self.records: list[Record] = []
        self.results: list[CellResult] = []
        self.stuck: list[str] = []
        self.flips: list[FlipEnded] = []
        self.alive = True
        self._due: list[tuple[float, FrameSeen | ViewResult]] = []
        self._seen: dict[tuple[View, int], Exposure] = {}
        self._unplugged_until = dict.fromkeys(View, 0.0)

    # ---- running ----

    def run_all(self, limit_s: float = 1e5) -> None:
        """Inspect cells until the magazine is empty."""
        while self.now < limit_s:
            if self.machine.idle and self.machine._status is not None:
                if self.results and self.results[-1].verdict.reason == "empty":
                    return
                self._do(self.machine.begin(self.now))
            self.step()
        raise AssertionError(f"not done after {limit_s} s: {self.machine.step}")

    def step(self) -> None:
        self.now += STEP_S
        self.plc.advance(self.now)
        due = [entry for entry in self._due if entry[0] <= self.now]
        self._due = [entry for entry in self._due if entry[0] > self.now]
        for _, event in due:
            self._do(self.machine.handle(event, self.now))
        if self.alive and not self.plc.link_faults.plc_disconnect:
            self.plc.write_coil(rm.COIL_WATCHDOG, True)
            self._do(self.machine.handle(self.status(), self.now))
        else:
            self._do(self.machine.tick(self.now))

    def status(self) -> StationStatus:
        words = self.plc.read_input(0, rm.STATUS_SIZE)
        bits = rm.StationStatusBits(words[rm.IR_STATUS])
        upright, inverted = rm.StationStatusBits.UPRIGHT in bits, rm.StationStatusBits.INVERTED in bits
        position = FlipperPosition.UPRIGHT if upright else FlipperPosition.INVERTED
        return StationStatus(
            host_time=self.now,
            round_trip_s=0.0,
            boot_id=to_int(words, rm.IR_BOOT_ID),
            time_ms=to_int(words, rm.IR_TIME_MS),
            emergency_stop=rm.StationStatusBits.EMERGENCY_STOP in bits,
            watchdog_tripped=rm.StationStatusBits.WATCHDOG_TRIPPED in bits,
            jam=rm.StationStatusBits.JAM in bits,
            part_present=rm.StationStatusBits.PART_PRESENT in bits,
            flipper=position if upright != inverted else FlipperPosition.BETWEEN,
            loaded_total=to_int(words, rm.IR_LOADED_TOTAL),
            active_token=to_int(words, rm.IR_ACTIVE_TOKEN),
            done_token=to_int(words, rm.IR_DONE_TOKEN),
            done_result=ActionResult(words[rm.IR_DONE_RESULT]),
            done_count=words[rm.IR_DONE_COUNT],
        )

    def _do(self, actions: list[StationDo]) -> None:
        for action in actions:
            if isinstance(action, Record):
                self.records.append(action.stamped(self.now))
            elif isinstance(action, StationOrder) and not self.plc.link_faults.plc_disconnect:
                command = action.command
                deadline = to_int(self.plc.read_input(rm.IR_TIME_MS, 2), 0) + command.expiry_ms
                mailbox = rm.Mailbox(command.token, int(command.action), command.argument, deadline)
                self.plc.write_holding(rm.HR_COMMAND, mailbox.to_registers())
            elif isinstance(action, Recover) and not self.plc.link_faults.plc_disconnect:
                self.plc.write_coil(rm.COIL_RESET, True)
            elif isinstance(action, Look):
                result = self._judge(self._seen[action.view, action.number])
                self._due.append((self.now + LOOK_S, result))
            elif isinstance(action, Stuck):
                self.stuck.append(action.text)
            elif isinstance(action, FlipEnded):
                self.flips.append(action)
            elif isinstance(action, Finished):
                self.results.append(action.result)

    # ---- cameras and inspector ----

    def _expose(self, exposure: Exposure) -> None:
        view = exposure.scene.view
        if "disconnect" in exposure.faults:
            self._unplugged_until[view] = exposure.t_s + UNPLUGGED_S
        if exposure.faults & {"drop", "disconnect"} or exposure.t_s < self._unplugged_until[view]:
            return
        self._seen[view, exposure.number] = exposure
        late_s = self.world.config.late_frame_s if "late" in exposure.faults else 0.0
        frame = FrameSeen(view, exposure.t_s, exposure.number)
        self._due.append((exposure.t_s + READOUT_S + late_s, frame))

    def _judge(self, exposure: Exposure) -> ViewResult:
        """What a perfect inspector would say of the frame."""
        view, scene = exposure.scene.view, exposure.scene
        spoilt = sorted(exposure.faults & {"wrong_size", "blank", "saturated", "blurred"})
        trouble = (
            spoilt or (["no_cell"] if not scene.cells else []) or (["several_cells"] if scene.cells[1:] else [])
        )
        if trouble:
            return ViewResult(view, exposure.number, exposure.t_s, "bad_image", trouble[0])
        look, turn = scene.cells[0], scene.turn_deg[0]
        shown = View.LUG if turn < 90 else View.CASE
        kind = look.kind(view)
        verdict = "good" if kind == "good" else "defective"
        return ViewResult(
            view,
            exposure.number,
            exposure.t_s,
            verdict,
            "" if kind == "good" else kind,
            "" if kind == "good" else kind,
            float(kind != "good"),
            code=look.serial,
            face=shown.value,
        )

    # ---- what really happened ----

    def truth(self) -> dict[str, dict[str, Any]]:
        """The plant's record: serial → what the cell was, what befell it, and where it really ended."""
        record = EvPlantRecord()
        for event in self.events:
            record.apply(event)
        return {cell["serial"]: cell for cell in record.as_dict()["cells"]}

    def faults_on_record(self) -> dict[str, set[str]]:
        """battery_id → codes of all faults in the ledger."""
        found: dict[str, set[str]] = defaultdict(set)
        for record in self.records:
            if record.kind == "station_fault":
                found[str(record.battery_id)].add(record.payload["code"])
        return found

"""What decides on the belt line, put together: gate, batteries, series of failures, PackML.

`BeltController` is deterministic, see `line.controller`. Its node converts messages and carries its actions out.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

from battery_sorting.belt.gate import EventGate, Gated
from battery_sorting.belt.line import Action, BeltLine, Dispose, Eject, LineGeometry, Routing, Warn
from battery_sorting.belt.monitor import BeltMonitor
from battery_sorting.belt.recipe import BeltRecipe
from battery_sorting.belt.resume import BeltMemory
from battery_sorting.belt.site import BeltSite
from battery_sorting.belt.unit import BeltUnit, ClearQueue, MoveBelt, ResetPlc
from battery_sorting.core.types import BeltState
from battery_sorting.ledger import Record
from battery_sorting.ledger.events import AlarmRaised
from battery_sorting.line.contract import BELT_CONTRACT, CONTROLLER, NODES
from battery_sorting.line.controller import LineAction, LineController, Log, Withheld
from battery_sorting.line.resume import EMPTIED
from battery_sorting.packml.alarms import follow_fault

BeltEvent = BeltState | Gated
BeltOrder = Eject | Dispose | MoveBelt | ResetPlc | ClearQueue
BeltAction = LineAction | BeltOrder


class BeltController(LineController[BeltUnit, BeltEvent, BeltOrder]):
    """Decides for the belt line.

    Args:
        line: What happens to each battery.
        monitor: Watches over several batteries.
        unit: The line's PackML unit.
        bins: Names of the bins.
        run_id: Of the start of the line that this controller belongs to.
        start_s: While the line comes up by itself, nothing is an alarm for so long (s).
    """

    need_records = (Eject,)

    def __init__(
        self,
        line: BeltLine,
        monitor: BeltMonitor,
        unit: BeltUnit,
        bins: Iterable[str] = (),
        *,
        run_id: str = "",
        start_s: float = 0.0,
    ) -> None:
        super().__init__(unit, run_id=run_id, start_s=start_s)
        self.line = line
        self.monitor = monitor
        self._bins = list(bins)
        self._gate = EventGate()

    @classmethod
    def of(cls, site: BeltSite, recipe: BeltRecipe, run_id: str = "") -> BeltController:
        """The controller of a site, for a recipe."""
        alarms, timeouts = site.alarms, site.timeouts
        return cls(
            BeltLine(
                Routing(recipe.routes, recipe.min_gap_mm), LineGeometry(exit_offset_mm=site.belt.exit_offset_mm)
            ),
            BeltMonitor(
                alarms.missed_in_a_row,
                alarms.no_image_in_a_row,
                alarms.no_verdict_in_a_row,
                {bin_.name: bin_.capacity for bin_ in site.bins if bin_.capacity},
            ),
            BeltUnit(
                nodes=tuple(name for name in NODES if name != CONTROLLER),
                observers=BELT_CONTRACT.observers,
                speed_mps=recipe.speed_mps,
                heartbeat_s=timeouts.heartbeat_s,
                belt_state_s=timeouts.belt_state_s,
            ),
            site.bin_names,
            run_id=run_id,
            start_s=timeouts.start_s,
        )

    def restore(self, memory: BeltMemory, now: float) -> None:
        """Takes up what the ledger holds at time ``now`` (s). Call it before anything else."""
        self.begin(memory.restart, now)
        self._gate = EventGate(battery.battery_id for battery in memory.batteries)
        batteries, totals = deepcopy((memory.batteries, memory.totals))  # they change from now on
        self.line.restore(batteries, memory.finished, memory.exits, totals)
        self.monitor.restore(memory.contents)
        self.unit.full = self.monitor.full_bins()

    # ---- events ----

    def take(self, event: BeltEvent | Withheld, now: float) -> list[BeltAction]:
        """A state of the belt, or what nodes have seen and done."""
        if isinstance(event, Withheld):
            return []  # by the time that the ledger is back, the battery has passed its ejector
        if isinstance(event, BeltState):
            return self._on_belt(event, now)
        return [action for one in self._gate.event(event, now) for action in self._decide(one, now)]

    def _on_belt(self, state: BeltState, now: float) -> list[BeltAction]:
        if not self._gate.takes_belt(state, now):
            return []
        self.unit.belt(state, now)
        actions = self._decide(state, now)
        for event in self._gate.belt(state, now):
            actions += self._decide(event, now)
        return actions

    def _decide(self, event: BeltEvent, now: float) -> list[BeltAction]:
        self.line.may_eject = self.unit.may_eject(now)
        return self._watched(self.line.handle(event, now))

    def _watched(self, actions: Iterable[Action]) -> list[BeltAction]:
        """What the line wants, with what it means for all batteries together."""
        out: list[BeltAction] = []
        for action in actions:
            if isinstance(action, Warn):
                out += [Log(f"{action.code}: {action.text}"), Record(AlarmRaised(action.code, action.text))]
                continue
            out.append(action)
            if isinstance(action, Dispose):
                fault = self.monitor.take(action.placement)
                self.unit.latched_faults.update([fault] if fault is not None else [])
                self.unit.full = self.monitor.full_bins()
        return out

    # ---- the line ----

    def move_on(self, now: float) -> list[BeltAction]:
        """Asks the unit what is to be done."""
        follow_fault(self.unit.external_faults, "reports", self.line.unheard(now))
        actions = self.on_record(self.unit.tick(now))
        problems = self.unit.problems(now)
        if "encoder" in problems:
            actions += self._watched(self.line.lose_positions())
        return [*actions, *self.follow_alarms(problems, now)]

    def commanded(self, name: str, place: str, now: float) -> list[BeltAction]:  # noqa: ARG002
        """A bin was emptied, or failures seen to."""
        if name == EMPTIED:
            self.monitor.bin_was_emptied(place)
            self.unit.full = self.monitor.full_bins()
        if name in {"unhold", "clear"}:
            self.monitor.failures_were_seen_to(self.line.in_flight)
        return []

    # ---- what others see ----

    @property
    def places(self) -> list[str]:
        """The bins."""
        return self._bins

    @property
    def in_flight(self) -> int:
        """Batteries on the belt."""
        return len(self.line.in_flight)

    @property
    def counts(self) -> dict[str, int]:
        """Of the shift."""
        return vars(self.line.totals)

    @property
    def refused(self) -> int:
        """Events that no belt can have had."""
        return self._gate.refused

    @property
    def figures(self) -> dict[str, int]:
        """Counts, and the batteries in each bin."""
        return {**self.counts, **{f"in {bin_}": number for bin_, number in self.monitor.contents.items()}}

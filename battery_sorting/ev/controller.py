"""What decides on the EV line, put together: station, cells behind it, outstanding orders, faults in a row, PackML.

`EvController` is deterministic, see `line.controller`. Its node converts messages and carries its actions out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from battery_sorting.ev.flow import (
    Arrived,
    Flow,
    FlowAction,
    FlowEvent,
    FlowWarning,
    LoaderEmpty,
    PlaceEmptied,
    TraysEmptied,
)
from battery_sorting.ev.orders import SERVED_BY, Order, OrderEnded, OrderRefused, Orders
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.resume import TRAYS, EvMemory
from battery_sorting.ev.site import EvSite
from battery_sorting.ev.unit import MOVING, BeginInspection, EvUnit
from battery_sorting.ledger import Record
from battery_sorting.line.contract import CONTROLLER, EV_CONTRACT
from battery_sorting.line.controller import LineAction, LineController, Log, Withheld
from battery_sorting.line.resume import EMPTIED
from battery_sorting.packml.alarms import follow_fault

UNREAD = "ledger_unread"
"""Code of the fault while the ledger can't be read."""
READ_AGAIN_S = 1.0
COUNT_S = 1.0
"""So often what the station has done is read from the ledger, beside the end of each inspection."""


# ---- events ----


@dataclass(frozen=True, slots=True)
class StationSeen:
    """State of the station; the fields are the arguments of `EvUnit.station`."""

    emergency_stop: bool
    stuck: bool


@dataclass(frozen=True, slots=True)
class InspectionEnded:
    """The inspection with this number is over.

    Attributes:
        number: Of the `Inspect` that asked for it.
        taken: Whether the station has tried. If not, that says nothing of the loader.
        battery_id: The cell; empty if there was none.
        faults: Codes of what befell it.
        loader_empty: Whether the loader had no cell.
    """

    number: int
    taken: bool = False
    battery_id: str = ""
    faults: tuple[str, ...] = ()
    loader_empty: bool = False


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The station says that it has released a good cell to the pick place; the ledger is asked for it."""

    battery_id: str


@dataclass(frozen=True, slots=True)
class CellRead:
    """What the ledger says of a cell: whether it is on record and nobody has put it away."""

    battery_id: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class StationCounted:
    """What the ledger says of the station's work: counts of the shift, and outlet → cells in it."""

    totals: Mapping[str, int]
    contents: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LedgerUnread:
    """The ledger can't be read, and why: meanwhile the line holds."""

    text: str


EvEvent = (
    StationSeen
    | InspectionEnded
    | HandedOver
    | CellRead
    | StationCounted
    | LedgerUnread
    | OrderRefused
    | OrderEnded
    | Withheld
)


# ---- actions ----


@dataclass(frozen=True, slots=True)
class Inspect:
    """Have the next cell inspected; to be answered by `InspectionEnded` with this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Send:
    """Give an order to its node; to be answered by `OrderEnded`, `OrderRefused` or, if it is away, `Withheld`."""

    order: Order


@dataclass(frozen=True, slots=True)
class ReadCells:
    """Ask the ledger for these cells, one after the other; to be answered by `CellRead` or `LedgerUnread`."""

    battery_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CountStation:
    """Ask the ledger for the station's work; to be answered by `StationCounted` or `LedgerUnread`."""


EvOrder = Inspect | Send | ReadCells | CountStation
EvAction = LineAction | EvOrder


class EvController(LineController[EvUnit, EvEvent, EvOrder]):
    """Decides for the EV line.

    Args:
        unit: The line's PackML unit.
        flow: Where every cell behind the station is; None: the cells end at the outlets.
        outlets: Outlet → cells that it holds; None: it is never full.
        faults_in_a_row: So many cells with a fault one after the other hold the line.
        run_id: Of the start of the line that this controller belongs to.
        start_s: While the line comes up by itself, nothing is an alarm for so long (s).

    Attributes:
        contents: Outlet → cells in it.
    """

    need_records = (Send,)

    def __init__(
        self,
        unit: EvUnit,
        flow: Flow | None,
        outlets: Mapping[str, int | None],
        *,
        faults_in_a_row: int,
        run_id: str = "",
        start_s: float = 0.0,
    ) -> None:
        super().__init__(unit, run_id=run_id, start_s=start_s)
        self.contents: dict[str, int] = {}
        self._flow = flow
        self._orders = Orders()
        self._outlets = dict(outlets)
        self._fault_limit = faults_in_a_row
        self._faults = 0  # one after the other
        self._totals: dict[str, int] = {}
        self._trays_full = False
        self._inspection: int | None = None  # number of the one that is on
        self._inspections = 0
        self._counted_at = float("-inf")
        self._announced: list[str] = []  # cells that the station has handed over, until the ledger was asked
        self._read_again_at = float("-inf")

    @classmethod
    def of(cls, site: EvSite, recipe: EvRecipe, nodes: Iterable[str], run_id: str = "") -> EvController:
        """The controller of a site, for a recipe; ``nodes`` are all nodes of the line."""
        measuring, flow = recipe.measuring, None
        if site.measuring is not None and measuring is not None:
            layout = site.flow_layout(measuring.batch, measuring.reseats, frozenset(measuring.reject))
            flow = Flow(layout)
        return cls(
            EvUnit(
                nodes=tuple(name for name in nodes if name != CONTROLLER),
                observers=EV_CONTRACT.observers,
                heartbeat_s=site.timeouts.heartbeat_s,
            ),
            flow,
            {outlet.name: outlet.capacity for outlet in site.outlets},
            faults_in_a_row=site.alarms.faults_in_a_row,
            run_id=run_id,
            start_s=site.timeouts.start_s,
        )

    def restore(self, memory: EvMemory, now: float) -> list[EvAction]:
        """Takes up what the ledger holds at time ``now`` (s). Call it before anything else."""
        self._on_counted(StationCounted(memory.totals, memory.contents))
        self._counted_at = now
        self.begin(memory.restart, now)
        return [] if self._flow is None else self._follow(self._flow.restore(memory.cells, memory.filled))

    # ---- events ----

    def take(self, event: EvEvent, now: float) -> list[EvAction]:
        """What the station, the nodes behind it and the ledger say."""
        match event:
            case StationSeen(emergency_stop, stuck):
                self.unit.station(emergency_stop=emergency_stop, stuck=stuck)
            case InspectionEnded():
                return self._on_inspected(event, now)
            case HandedOver(battery_id) if self._flow is not None:
                self._announced.append(battery_id)
                return [ReadCells(tuple(self._announced))]
            case CellRead():
                return self._on_read(event)
            case StationCounted():
                self._on_counted(event)
            case LedgerUnread(text):
                return self._on_unread(text, now)
            case Withheld(Send(order)):
                self._orders.wait(order)
            case OrderRefused(order):
                self._orders.refused(order, now)
            case OrderEnded(order, outcome):
                return self._tell_flow(outcome) if self._orders.end(order) else []
        return []

    def _on_inspected(self, event: InspectionEnded, now: float) -> list[EvAction]:
        """The inspection is over. One that could not be asked for is tried again after a while."""
        if event.number != self._inspection:
            return []
        self._inspection = None
        self.unit.inspection_ended(now, empty=not event.battery_id)
        if not event.taken:
            return []
        actions: list[EvAction] = []
        if event.battery_id:
            actions += self._count(now)
            self._watch_faults(event.faults)
        return [*actions, *self._tell_flow(LoaderEmpty(event.loader_empty))]

    def _watch_faults(self, faults: tuple[str, ...]) -> None:
        self._faults = self._faults + 1 if faults else 0
        if self._faults >= self._fault_limit:
            text = f"{self._faults} cells in a row with a fault, the last: {', '.join(faults)}"
            self.unit.latched_faults["faults_in_a_row"] = text

    # ---- what the ledger knows ----

    def _on_read(self, event: CellRead) -> list[EvAction]:
        if event.battery_id in self._announced:
            self._announced.remove(event.battery_id)
        actions = self._tell_flow(Arrived(event.battery_id)) if event.is_open else []
        if not self._announced:
            follow_fault(self.unit.external_faults, UNREAD, "")
        return actions

    def _on_counted(self, event: StationCounted) -> None:
        self._totals, self.contents = dict(event.totals), dict(event.contents)
        if not self._announced:
            follow_fault(self.unit.external_faults, UNREAD, "")
        self._look_for_full_places()

    def _on_unread(self, text: str, now: float) -> list[EvAction]:
        """It is read again."""
        self._read_again_at = now + READ_AGAIN_S
        is_new = UNREAD not in self.unit.external_faults
        self.unit.external_faults[UNREAD] = text
        return [Log(text, is_error=True)] if is_new else []

    def _count(self, now: float) -> list[EvAction]:
        self._counted_at = now
        return [CountStation()]

    def _look_for_full_places(self) -> None:
        full = [
            name
            for name, capacity in self._outlets.items()
            if capacity is not None and self.contents.get(name, 0) >= capacity
        ]
        self.unit.full = [*full, TRAYS] if self._trays_full else full

    # ---- the line ----

    def move_on(self, now: float) -> list[EvAction]:
        """Asks the line what is to be done."""
        problems = self.unit.problems(now)
        if self._inspection is not None and self.unit.gone("inspection", now):
            self._inspection = None  # who would answer has died; the next one takes the cell up from the ledger
            self.unit.inspection_ended(now, empty=False)
        actions: list[EvAction] = []
        if self._announced and now >= self._read_again_at:
            actions.append(ReadCells(tuple(self._announced)))
        actions += self._drive_flow(now)
        if now - self._counted_at > COUNT_S:
            actions += self._count(now)
        wanted = self.unit.tick(now)
        actions += self.on_record(self._inspect() if isinstance(it, BeginInspection) else it for it in wanted)
        of_the_flow = self._flow.alarms if self._flow is not None else {}
        return [*actions, *self.follow_alarms({**problems, **of_the_flow}, now)]

    def _inspect(self) -> Inspect:
        self._inspections += 1
        self._inspection = self._inspections
        return Inspect(self._inspections)

    def commanded(self, name: str, place: str, now: float) -> list[EvAction]:
        """An outlet or the trays were emptied, or faults seen to."""
        if name in {"unhold", "clear"}:
            self._faults = 0
        if name == "reset":
            return self._tell_flow(
                PlaceEmptied()
            )  # a person has been there: what is still occupied is found so again
        if name != EMPTIED:
            return []
        if place == TRAYS:
            self._trays_full = False
        self._look_for_full_places()
        emptied = TraysEmptied() if place == TRAYS else PlaceEmptied(place)
        return [*self._tell_flow(emptied), *self._count(now)]

    # ---- behind the station ----

    def _tell_flow(self, event: FlowEvent) -> list[EvAction]:
        return [] if self._flow is None else self._follow(self._flow.handle(event))

    def _follow(self, wanted: Iterable[FlowAction]) -> list[EvAction]:
        """What the flow wants. Its orders wait until the line moves on."""
        actions: list[EvAction] = []
        for action in wanted:
            if isinstance(action, Record):
                actions.append(action)
            elif isinstance(action, FlowWarning):
                actions.append(Log(f"{action.code}: {action.text}", is_error=True))
                self._on_warning(action)
            else:
                self._orders.give(action)
        return actions

    def _on_warning(self, warning: FlowWarning) -> None:
        if warning.code == "trays_full":
            self._trays_full = True
            self._look_for_full_places()
        else:
            self.unit.latched_faults[warning.code] = warning.text

    def _drive_flow(self, now: float) -> list[EvAction]:
        flow = self._flow
        if flow is None:
            return []
        actions: list[EvAction] = []
        for name in dict.fromkeys(SERVED_BY.values()):
            if self.unit.started_anew(name):
                for outcome in self._orders.lose(name):
                    actions += self._tell_flow(outcome)
        flow.may_move = self.unit.state in MOVING and not self.records_wait and not self.unit.problems(now)
        self.unit.may_load = flow.may_load
        if self.records_wait:
            return actions
        actions += self._follow(flow.tick())
        due, withdrawn = self._orders.due(now, moving=flow.may_move)
        for event in withdrawn:
            actions += self._tell_flow(event)
        return [*actions, *map(Send, due)]

    # ---- what others see ----

    @property
    def places(self) -> list[str]:
        """The outlets, the trays where there are such, and what was found occupied by nobody knows what."""
        return [*self._outlets] if self._flow is None else [*self._outlets, TRAYS, *self._flow.out_of_use]

    @property
    def in_flight(self) -> int:
        """Cells in the station and behind it."""
        behind = self._flow.in_flight if self._flow is not None else 0
        return int(self.unit.inspecting) + behind

    @property
    def counts(self) -> dict[str, int]:
        """Of the shift."""
        return self._totals

    @property
    def figures(self) -> dict[str, int]:
        """Counts, and the cells in each outlet."""
        return {**self.counts, **{f"in {outlet}": number for outlet, number in self.contents.items()}}

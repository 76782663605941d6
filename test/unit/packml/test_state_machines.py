"""Both lines' PackML units under faults and commands at every moment (issue 14, points 1, 4, 5 and 6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from battery_sorting.belt.unit import BeltUnit, MoveBelt, ResetPlc
from battery_sorting.core.types import BeltState
from battery_sorting.core.types import LineStateId as S
from battery_sorting.ev.unit import BeginInspection, EvUnit
from battery_sorting.ledger.events import Commanded, LineStateChanged
from battery_sorting.packml.fleet import Lifecycle, Transition
from battery_sorting.packml.machine import ACTING, CommandNotAllowedError, LineCommandId
from battery_sorting.packml.restart import restart
from battery_sorting.packml.unit import PlacesFullError

TICK_S = 0.05
SPEED = 0.5
NODES = {"belt": ("conveyor", "ejector", "camera"), "ev": ("inspection", "robot", "tester")}
COMMANDS = [str(command) for command in LineCommandId if 0 < command < LineCommandId.EMPTIED]
AT_REST = {S.STOPPED, S.IDLE, S.HELD, S.SUSPENDED, S.ABORTED, S.COMPLETE}
STARTED = {S.STARTING, S.EXECUTE, S.UNHOLDING, S.UNSUSPENDING, S.COMPLETING}
MOVING = {S.STARTING, S.EXECUTE, S.UNHOLDING, S.UNSUSPENDING}
WAYS = {
    S.ABORTED: "clear", S.STOPPED: "reset", S.COMPLETE: "reset", S.IDLE: "start", S.HELD: "unhold",
    S.SUSPENDED: "unsuspend",
}  # fmt: skip


@dataclass
class Trial:
    """A unit with nodes and devices that obey, faults that come and go, and what a ledger would know."""

    line: str
    auto_start: bool = True
    run_id: str = "run"
    now: float = 100.0
    lifecycle: dict[str, Lifecycle] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    deactivated: set[str] = field(default_factory=set)
    pressed: set[str] = field(default_factory=set)
    commands: list[dict[str, Any]] = field(default_factory=list)
    target: float = 0.0
    speed: float = 0.0
    watchdog: bool = False
    inspecting_for: float = 0.0
    jammed: bool = False
    stuck: bool = False  # the EV line's station, with a cell in it
    homed_in: set[S] = field(default_factory=set)  # states of the line in which the station was sent home

    def __post_init__(self) -> None:
        self.lifecycle = dict.fromkeys(NODES[self.line], Lifecycle.UNCONFIGURED)
        self.last: LineStateChanged | None = None
        self.start()

    def start(self, *, cut_off: bool = False, wanted: bool | None = None) -> None:
        wanted = self.auto_start if wanted is None else wanted
        how = restart(self.last, self.commands, self.run_id, cut_off=cut_off, wanted=wanted)
        names = NODES[self.line]
        self.unit: Any = BeltUnit(names, SPEED) if self.line == "belt" else EvUnit(names)
        self.unit.begin(how)
        self.note()

    def note(self) -> None:
        self.last = LineStateChanged(
            self.unit.state,
            reason=self.unit.reason,
            run_id=self.run_id,
            by_fault=self.unit.held_by_fault,
            auto_start=self.unit.auto_start,
            latched=dict(self.unit.latched_faults),
        )

    def tick(self) -> None:
        self.now += TICK_S
        self.speed += max(-0.2, min(0.2, self.target - self.speed))
        for name in self.lifecycle.keys() - self.dead:
            self.unit.heartbeat(
                name, int(self.lifecycle[name]), True, "", self.now, emergency_stop=name in self.pressed
            )
        if "conveyor" in self.dead or self.lifecycle.get("conveyor") is not Lifecycle.ACTIVE:
            self.watchdog, self.target = True, 0.0  # nobody refreshes it
        elif self.line == "belt":
            if "plc" in self.pressed:
                self.target = 0.0
            self.unit.belt(self.belt_state(), self.now)
        for action in self.unit.tick(self.now):
            self.obey(action)
        if self.line == "ev":
            self.station()
        if self.inspecting_for and not self.stuck:
            self.inspecting_for -= TICK_S
            if self.inspecting_for <= 0:
                self.inspecting_for = 0.0
                self.unit.inspection_ended(self.now, empty=False)
        self.note()

    def station(self) -> None:
        """It jams while it inspects, and is sent home by a line that is started alone."""
        if self.jammed and self.inspecting_for:
            self.stuck = True
        if self.stuck and self.unit.state in STARTED:
            self.homed_in.add(self.unit.state)
            self.stuck = self.jammed
        self.unit.station(emergency_stop=False, stuck=self.stuck)

    def belt_state(self) -> BeltState:
        return BeltState(
            self.now,
            connected=True,
            boot_id=1,
            running=self.target > 0,
            emergency_stop="plc" in self.pressed,
            watchdog_tripped=self.watchdog,
            speed_mps=self.speed,
            speed_setpoint_mps=self.target or SPEED,
        )

    def obey(self, action: Any) -> None:
        if isinstance(action, Transition):
            steps = {"configure": Lifecycle.INACTIVE, "activate": Lifecycle.ACTIVE}
            self.lifecycle[action.node] = steps[action.transition]
        elif isinstance(action, MoveBelt) and "plc" not in self.pressed and not self.watchdog:
            self.target = action.speed_mps
        elif isinstance(action, ResetPlc):
            self.watchdog = False
        elif isinstance(action, BeginInspection):
            self.begin()

    def begin(self) -> None:
        if self.stuck:  # the station is not free, and refuses
            self.unit.inspection_ended(self.now, empty=True)
        else:
            self.inspecting_for = 0.3

    def order(self, name: str) -> bool:
        accepted = True
        try:
            self.unit.command(name, "anna")
        except (CommandNotAllowedError, PlacesFullError):
            accepted = False
        self.commands.append(Commanded(name, by="anna", reason="", accepted=accepted))
        self.note()
        return accepted

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.tick()

    def crash(self, *, of_everything: bool) -> None:
        """Of the controller, or of all processes (a power cut), and a new start."""
        if of_everything:
            self.run_id += "+"
            self.lifecycle = dict.fromkeys(self.lifecycle, Lifecycle.UNCONFIGURED)
        self.inspecting_for, self.now = self.inspecting_for if self.stuck else 0.0, self.now + 1.0
        self.start(cut_off=True)

    def all_well(self) -> None:
        self.dead, self.pressed, self.watchdog = set(), set(), False
        self.jammed = False
        self.unit.external_faults.clear()
        self.unit.full = []
        for name, state in self.lifecycle.items():
            if state is Lifecycle.FINALIZED:
                self.lifecycle[name] = Lifecycle.UNCONFIGURED
        for name in self.deactivated:
            self.lifecycle[name] = Lifecycle.ACTIVE  # by a person
        self.deactivated.clear()


def happenings(line: str) -> st.SearchStrategy[tuple[str, Any]]:
    nodes = st.sampled_from(NODES[line])
    devices = st.sampled_from(["plc", *NODES[line]] if line == "belt" else NODES[line])
    return st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.05, 0.1, 0.5, 2.0])),
        st.tuples(st.just("order"), st.sampled_from(COMMANDS)),
        st.tuples(st.just("die"), nodes),
        st.tuples(st.just("live"), nodes),
        st.tuples(st.just("press"), devices),
        st.tuples(st.just("release"), devices),
        st.tuples(st.just("latch"), st.just("missed_in_a_row")),
        st.tuples(st.just("fault"), st.just("ledger")),
        st.tuples(st.just("mend"), st.just("ledger")),
        st.tuples(st.just("full"), st.just("klarus")),
        st.tuples(st.just("deactivate"), nodes),
        st.tuples(st.just("crash"), st.booleans()),
        *([st.tuples(st.just("jam"), st.booleans())] if line == "ev" else []),
    )


def happen(trial: Trial, what: str, which: Any) -> None:
    if what == "wait":
        trial.run(which)
    elif what == "order":
        trial.order(which)
    elif what == "die":
        trial.dead.add(which)
    elif what == "live" and which in trial.dead:
        trial.dead.discard(which)
        trial.lifecycle[which] = Lifecycle.UNCONFIGURED
    elif what in {"press", "release"}:
        (trial.pressed.add if what == "press" else trial.pressed.discard)(which)
    elif what == "latch":
        trial.unit.latched_faults[which] = "check"
    elif what == "fault":
        trial.unit.external_faults[which] = "disk full"
    elif what == "mend":
        trial.unit.external_faults.pop(which, None)
    elif what == "full":
        trial.unit.full = [which]
    elif what == "deactivate" and trial.lifecycle[which] is Lifecycle.ACTIVE:
        trial.lifecycle[which] = Lifecycle.INACTIVE
        trial.deactivated.add(which)
        trial.commands.append(Commanded("deactivate", which))
    elif what == "crash":
        trial.crash(of_everything=which)
    elif what == "jam":
        trial.jammed = which


@pytest.mark.parametrize("line", ["belt", "ev"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_state_has_a_way_out(line, data):
    """When all is well again, the commands that the documentation names bring the line to work from everywhere."""
    trial = Trial(line)
    for what, which in data.draw(st.lists(happenings(line), max_size=12)):
        happen(trial, what, which)
    trial.all_well()
    trial.run(5)
    assert trial.unit.state not in ACTING, "acting states end by themselves"
    for _ in range(5):
        if trial.unit.state is S.EXECUTE:
            break
        assert trial.order(WAYS[trial.unit.state]), trial.unit.state
        trial.run(3)
    assert trial.unit.state is S.EXECUTE


@pytest.mark.parametrize("line", ["belt", "ev"])
@pytest.mark.parametrize("order", ["hold", "stop", "abort", "suspend"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_nothing_moves_against_a_persons_order_whatever_happens_after_it(line, order, data):
    trial = Trial(line)
    for what, which in data.draw(st.lists(happenings(line), max_size=6)):
        happen(trial, what, which)
    trial.order(order)
    others = happenings(line).filter(lambda happening: happening[0] != "order")
    for what, which in [*data.draw(st.lists(others, max_size=8)), ("wait", 2.0)]:
        happen(trial, what, which)
    trial.all_well()
    trial.run(5)
    if order == "suspend" and trial.unit.state in MOVING:
        return  # refused while the line was on its way: it is told so, and goes on
    assert trial.unit.state in AT_REST
    assert trial.target == 0.0
    assert trial.stuck or trial.inspecting_for == 0.0, "only a stuck station rests with its cell"


@pytest.mark.parametrize("order", ["hold", "stop", "abort", "suspend"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_line_whose_station_is_stuck_for_ever_comes_to_rest_without_sending_it_home(order, data):
    # issue 14: Holding and Stopping lasted for ever, and the station was sent home all the time
    trial = Trial("ev")
    trial.run(3)
    trial.jammed = True
    trial.run(data.draw(st.sampled_from([0.05, 0.5, 3.0]), label="jammed before"))
    assert trial.stuck and trial.order(order)
    trial.homed_in.clear()
    others = happenings("ev").filter(lambda happening: happening[0] not in {"order", "jam", "die", "crash"})
    for what, which in data.draw(st.lists(others, max_size=6)):
        happen(trial, what, which)
    trial.run(3)
    assert trial.stuck and trial.unit.state in AT_REST
    assert trial.homed_in == set()
    trial.all_well()
    trial.run(5)
    assert trial.stuck, "freed by a person, whose hands may still be in it"
    for _ in range(5):
        if trial.unit.state is S.EXECUTE:
            break
        assert trial.order(WAYS[trial.unit.state])
        trial.run(3)
    assert trial.unit.state is S.EXECUTE and not trial.stuck


@pytest.mark.parametrize(
    ("line", "device"), [("belt", "plc"), ("ev", "robot"), ("ev", "tester"), ("belt", "camera")]
)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_emergency_stop_of_any_device_aborts_and_only_a_person_brings_the_line_back(line, device, data):
    trial = Trial(line)
    for what, which in data.draw(st.lists(happenings(line), max_size=6)):
        happen(trial, what, which)
    trial.all_well()
    trial.run(5)
    trial.pressed.add(device)
    trial.run(0.1)
    assert trial.unit.state in {S.ABORTING, S.ABORTED, S.CLEARING}
    if data.draw(st.booleans(), label="crash"):
        trial.crash(of_everything=data.draw(st.booleans()))
    trial.run(1)
    trial.all_well()
    trial.run(5)
    assert trial.unit.state in {S.ABORTED, S.STOPPED}, "released, and nothing starts by itself"
    assert trial.target == 0.0


def test_a_persons_hold_during_a_faults_hold_turns_it_into_a_persons():
    for line in ("belt", "ev"):
        trial = Trial(line)
        trial.run(3)
        assert trial.unit.state is S.EXECUTE
        trial.unit.external_faults["ledger"] = "disk full"
        trial.tick()
        assert trial.unit.state is S.HOLDING
        assert trial.order("hold")
        trial.all_well()
        trial.run(5)
        assert trial.unit.state is S.HELD and trial.unit.reason == "anna"
        assert trial.order("unhold")
        trial.run(3)
        assert trial.unit.state is S.EXECUTE


def test_a_fault_that_latches_while_unholding_holds_again_and_reset_acknowledges_it():
    for line in ("belt", "ev"):
        trial = Trial(line)
        trial.run(3)
        trial.order("hold")
        trial.run(2)
        trial.unit.external_faults["ledger"] = "disk full"
        trial.order("unhold")
        trial.tick()
        assert trial.unit.state is S.UNHOLDING
        trial.unit.latched_faults["faults_in_a_row"] = "look at it"
        trial.unit.external_faults.clear()
        trial.run(2)
        assert trial.unit.state is S.HELD
        trial.order("stop")
        trial.run(1)
        for command in ("reset", "start"):
            assert trial.order(command)
            trial.run(2)
        assert trial.unit.state is S.EXECUTE


def test_a_node_that_a_person_deactivated_is_left_alone_until_it_is_activated():
    for line in ("belt", "ev"):
        trial = Trial(line)
        trial.run(3)
        node = NODES[line][-1]
        happen(trial, "deactivate", node)
        trial.run(5)
        assert trial.lifecycle[node] is Lifecycle.INACTIVE and trial.unit.state is S.HELD
        remedy = trial.unit.problems(trial.now)[f"node_{node}"]
        assert remedy.startswith(f"node {node} was deactivated by a person: ")
        assert f"'ros2 lifecycle set /<line>/{node} activate'" in remedy
        trial.crash(of_everything=False)
        trial.run(5)
        assert trial.lifecycle[node] is Lifecycle.INACTIVE, "its word outlives the controller"
        trial.lifecycle[node] = Lifecycle.ACTIVE
        trial.run(5)
        assert trial.unit.state is S.EXECUTE


def test_a_node_that_was_shut_down_is_named_with_its_remedy():
    trial = Trial("belt")
    trial.run(3)
    trial.lifecycle["camera"] = Lifecycle.FINALIZED
    trial.run(2)
    assert "was shut down: end its process" in trial.unit.problems(trial.now)["node_camera"]
    trial.lifecycle["camera"] = Lifecycle.UNCONFIGURED  # its successor
    trial.run(2)
    assert trial.lifecycle["camera"] is Lifecycle.UNCONFIGURED
    assert "camera configure' and then 'ros2 lifecycle" in trial.unit.problems(trial.now)["node_camera"]

"""The cell as a whole: bringing nodes up, PackML states, orders that are repeated until they took."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from battery_sorting.belt.unit import BeltUnit, CellAction, ClearQueue, MoveBelt, ResetPlc
from battery_sorting.core.types import BeltState
from battery_sorting.core.types import LineStateId as S
from battery_sorting.packml.fleet import Fleet, Lifecycle, RetryTimer, Transition
from battery_sorting.packml.machine import CommandNotAllowedError
from battery_sorting.packml.unit import PlacesFullError, StateChanged

NODES = ("conveyor", "camera", "classifier", "ejector", "archivist")
OBSERVERS = frozenset({"archivist"})
NEEDED = tuple(name for name in NODES if name not in OBSERVERS)
SPEED = 0.5
TICK_S = 0.05


class Site:
    """Nodes and a PLC that do as they are told, unless ``deaf``, and a clock."""

    def __init__(self, auto_start: bool = True, **settings) -> None:
        self.cell = BeltUnit(NODES, SPEED, auto_start=auto_start, observers=OBSERVERS, **settings)
        self.now = 100.0
        self.lifecycle = dict.fromkeys(NODES, Lifecycle.UNCONFIGURED)
        self.ok = dict.fromkeys(NODES, True)
        self.silent: set[str] = set()
        self.deaf: set[type] = set()
        self.states: list[S] = []
        self.log: list[CellAction] = []
        self.belt = {"connected": True, "boot_id": 1}
        self.target = 0.0
        self.speed = 0.0
        self.estop = self.watchdog = False
        self.encoder_ok = True

    def tick(self) -> list[CellAction]:
        self.now += TICK_S
        self.speed += max(-0.1, min(0.1, self.target - self.speed))
        for name in set(NODES) - self.silent:
            self.cell.heartbeat(name, self.lifecycle[name], self.ok[name], "its reason", self.now)
        if "conveyor" not in self.silent:
            self.cell.belt(self.belt_state(), self.now)
        actions = self.cell.tick(self.now)
        for action in actions:
            self.obey(action)
        self.log += actions
        return actions

    def belt_state(self) -> BeltState:
        return BeltState(
            self.now,
            running=self.target > 0,
            emergency_stop=self.estop,
            watchdog_tripped=self.watchdog,
            encoder_ok=self.encoder_ok,
            speed_mps=self.speed,
            speed_setpoint_mps=self.target or SPEED,
            **self.belt,
        )

    def obey(self, action: CellAction) -> None:
        if isinstance(action, StateChanged):
            self.states.append(action.state)
        if type(action) in self.deaf:
            return
        if isinstance(action, Transition):
            step = {"configure": Lifecycle.INACTIVE, "activate": Lifecycle.ACTIVE}
            self.lifecycle[action.node] = step[action.transition]
        elif isinstance(action, MoveBelt) and not (self.estop or self.watchdog):
            self.target = action.speed_mps
        elif isinstance(action, ResetPlc):
            self.watchdog = False
            self.encoder_ok = True

    def run(self, seconds: float) -> list[CellAction]:
        before = len(self.log)
        until = self.now + seconds
        while self.now < until:
            self.tick()
        return self.log[before:]

    def press_estop(self) -> None:
        self.estop, self.target = True, 0.0


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def running(site) -> Site:
    site.run(3.0)
    assert site.cell.state is S.EXECUTE
    site.states.clear()
    site.log.clear()
    return site


def of(kind: type, actions: Iterable[CellAction]) -> list[CellAction]:
    return [action for action in actions if isinstance(action, kind)]


# ---- coming up ----


def test_all_nodes_are_configured_at_once_and_activated_in_order(site):
    first = of(Transition, site.tick())
    assert first == [Transition(name, "configure") for name in NODES]
    steps = of(Transition, site.run(1.0))
    assert [step for step in steps if step.node in NEEDED] == [Transition(name, "activate") for name in NEEDED]
    assert [step for step in steps if step.node in OBSERVERS] == [Transition("archivist", "activate")]


def test_no_node_is_activated_before_those_ahead_of_it_are_active(site):
    site.silent = {"camera"}
    site.run(2.0)
    assert site.lifecycle["conveyor"] is Lifecycle.ACTIVE
    assert site.lifecycle["classifier"] is site.lifecycle["ejector"] is Lifecycle.INACTIVE
    site.silent = set()
    site.run(2.0)
    assert set(site.lifecycle.values()) == {Lifecycle.ACTIVE}


def test_node_that_fails_to_configure_is_asked_again(site):
    site.deaf = {Transition}
    asked = [action for action in site.run(2.0) if action == Transition("camera", "configure")]
    assert len(asked) == pytest.approx(2.0 / site.cell.retry_s, abs=1)
    assert "camera is unconfigured: its reason" in site.cell.problems(site.now)["node_camera"]


def test_line_starts_by_itself_once(site):
    site.run(3.0)
    assert site.states == [S.RESETTING, S.IDLE, S.STARTING, S.EXECUTE]
    assert site.speed == pytest.approx(SPEED)
    site.cell.command("stop", "operator")
    site.run(3.0)
    assert site.cell.state is S.STOPPED
    assert (site.speed, site.target) == (0.0, 0.0)


def test_line_without_automatic_start_waits_for_commands():
    site = Site(auto_start=False)
    site.run(2.0)
    assert site.cell.state is S.STOPPED
    for command, state in [("reset", S.IDLE), ("start", S.EXECUTE)]:
        site.cell.command(command, "operator")
        site.run(2.0)
        assert site.cell.state is state


def test_line_does_not_start_before_everything_is_ready(site):
    site.ok["classifier"] = False
    site.run(3.0)
    assert site.cell.state is S.STOPPED
    assert site.cell.problems(site.now) == {"node_classifier": "node classifier: its reason"}
    site.ok["classifier"] = True
    site.run(3.0)
    assert site.cell.state is S.EXECUTE


def test_heartbeat_with_a_state_on_the_way_is_no_error(site):
    site.cell.heartbeat("camera", 13, True, "", site.now)
    assert "node camera is unknown" in site.cell.problems(site.now)["node_camera"]
    site.cell.heartbeat("a node of another cell", 3, True, "", site.now)


def test_stop_while_starting(site):
    site.deaf = {MoveBelt}
    site.run(2.0)
    assert site.cell.state is S.STARTING
    site.cell.command("stop", "operator")
    site.deaf = set()
    site.run(2.0)
    assert site.cell.state is S.STOPPED
    assert site.target == 0.0


def test_stop_before_the_start_keeps_the_cell_from_starting(site):
    site.silent = {"camera"}
    site.run(1.0)
    with pytest.raises(CommandNotAllowedError, match="not start by itself any more"):
        site.cell.command("stop", "operator")
    site.silent = set()
    site.run(3.0)
    assert site.cell.state is S.STOPPED


# ---- faults ----


@pytest.mark.parametrize("name", NEEDED)
def test_silent_node_holds_the_line_until_it_is_back(running, name):
    running.silent = {name}
    if name == "conveyor":
        running.run(0.7)
        running.target = 0.0  # the PLC's watchdog
    running.run(2.5)
    if name != "conveyor":  # without it nobody knows whether the belt has come to rest
        assert running.cell.state is S.HELD
        assert running.target == 0.0
        assert running.cell.reason == f"node {name} is silent"
    assert not running.cell.may_eject(running.now) or name not in {"conveyor", "ejector"}
    running.silent = set()
    running.run(3.0)
    assert running.cell.state is S.EXECUTE
    assert running.states == [S.HOLDING, S.HELD, S.UNHOLDING, S.EXECUTE]


# issue 16, 4
def _silence(site: Site) -> str:
    site.silent = {"archivist"}
    return "node archivist is silent"


def _fault(site: Site) -> str:
    site.ok["archivist"] = False
    return "node archivist: its reason"


def _deactivation(site: Site) -> str:
    site.lifecycle["archivist"] = Lifecycle.INACTIVE
    return "node archivist was deactivated by a person"


def _shutdown(site: Site) -> str:
    site.lifecycle["archivist"] = Lifecycle.FINALIZED
    return "node archivist was shut down"


@pytest.mark.parametrize("happens", [_silence, _fault, _deactivation, _shutdown])
def test_whatever_is_wrong_with_an_observer_is_an_alarm_and_the_line_goes_on(running, happens):
    text = happens(running)
    running.run(5.0)
    assert running.cell.state is S.EXECUTE and running.target == SPEED and running.states == []
    assert running.cell.problems(running.now) == {}
    [(code, told)] = running.cell.alarms(running.now).items()
    assert code == "node_archivist" and told.startswith(text)
    running.silent, running.ok["archivist"], running.lifecycle["archivist"] = set(), True, Lifecycle.ACTIVE
    running.run(0.2)
    assert running.cell.alarms(running.now) == {}


def test_line_comes_up_and_starts_without_an_observer_which_is_brought_up_when_it_comes(site):
    site.silent = {"archivist"}
    site.run(3.0)
    assert site.cell.state is S.EXECUTE
    assert site.cell.warnings(site.now) == {"node_archivist": "node archivist is silent"}
    assert site.cell.warnings(site.now, came_up=True) == {}, "it may be on its way"
    site.log.clear()
    site.silent = set()
    site.run(2.0)
    steps = [action for action in site.log if isinstance(action, Transition)]
    assert steps == [Transition("archivist", "configure"), Transition("archivist", "activate")]
    assert site.cell.alarms(site.now) == {} and site.cell.state is S.EXECUTE
    site.silent = {"archivist"}
    site.run(2.0)
    assert "node_archivist" in site.cell.warnings(site.now, came_up=True)


@pytest.mark.parametrize("place", range(len(NODES)))
def test_no_node_waits_for_an_observer_wherever_it_stands_nor_it_for_them(place):
    names = list(NEEDED)
    names.insert(place, "archivist")
    fleet = Fleet(names, 1.0, RetryTimer(0.4), OBSERVERS)
    for name in NEEDED:
        fleet.heartbeat(name, Lifecycle.INACTIVE, True, "", 0.0)
    assert fleet.bring_up(0.0) == [Transition("conveyor", "activate")]
    fleet.heartbeat("archivist", Lifecycle.INACTIVE, True, "", 1.0)
    assert fleet.bring_up(1.5) == [Transition("archivist", "activate")], "all others are silent by now"
    fleet.heartbeat("archivist", Lifecycle.UNCONFIGURED, True, "", 2.0)
    for number, name in enumerate(NEEDED):
        fleet.heartbeat(name, Lifecycle.ACTIVE if number == 0 else Lifecycle.INACTIVE, True, "", 2.0)
    assert Transition("camera", "activate") in fleet.bring_up(2.0)


def test_the_emergency_stop_of_an_observer_aborts_the_line_all_the_same(running):
    running.cell.heartbeat("archivist", Lifecycle.ACTIVE, True, "", running.now, emergency_stop=True)
    running.cell.tick(running.now)
    assert running.cell.state in {S.ABORTING, S.ABORTED}


def test_hold_by_a_person_is_ended_by_a_person(running):
    running.cell.command("hold", "operator")
    running.run(3.0)
    assert running.cell.state is S.HELD
    running.cell.command("unhold", "operator")
    running.run(3.0)
    assert running.cell.state is S.EXECUTE


def test_refused_command_changes_nothing(running):
    running.cell.latched_faults["missed_in_a_row"] = "check the air"
    running.tick()
    assert running.cell.state is S.HOLDING
    for command in ("unhold", "start", "fly"):
        with pytest.raises(CommandNotAllowedError, match="allowed are: stop, abort"):
            running.cell.command(command, "operator")
    running.run(2.0)
    assert running.cell.state is S.HELD
    assert "missed_in_a_row" in running.cell.problems(running.now)


def test_refused_command_does_not_end_the_automatic_return(running):
    running.ok["camera"] = False
    running.run(1.0)
    with pytest.raises(CommandNotAllowedError, match="'start' is not allowed while the line is Held"):
        running.cell.command("start", "operator")
    running.ok["camera"] = True
    running.run(2.0)
    assert running.cell.state is S.EXECUTE


def test_latched_fault_holds_until_a_person_unholds(running):
    running.cell.latched_faults["missed_in_a_row"] = "check the air"
    running.run(5.0)
    assert running.cell.state is S.HELD
    running.cell.command("unhold", "operator")
    running.run(2.0)
    assert running.cell.state is S.EXECUTE


def test_latched_fault_that_comes_up_on_the_way_back_to_work_holds_again(running):
    running.cell.command("hold", "operator")
    running.run(2.0)
    running.cell.command("unhold", "operator")
    running.tick()
    assert running.cell.state is S.UNHOLDING
    running.cell.latched_faults["missed_in_a_row"] = "check the air"
    running.run(2.0)
    assert running.cell.state is S.HELD, "where a person can unhold it"
    running.cell.command("unhold", "operator")
    running.run(2.0)
    assert running.cell.state is S.EXECUTE


def test_lost_plc_holds_and_its_watchdog_is_reset(running):
    running.belt["connected"] = False
    running.run(0.2)
    assert running.cell.state is S.HELD
    assert not running.cell.may_eject(running.now)
    running.watchdog, running.target = True, 0.0
    running.belt["connected"] = True
    running.run(3.0)
    assert running.cell.state is S.EXECUTE
    assert len(of(ResetPlc, running.log)) == 1


def test_watchdog_is_reset_again_and_again_until_it_took(running):
    running.watchdog, running.target = True, 0.0
    running.deaf = {ResetPlc}
    resets = of(ResetPlc, running.run(2.0))
    assert len(resets) == pytest.approx(2.0 / running.cell.retry_s, abs=1)
    assert running.cell.state is S.HELD
    running.deaf = set()
    running.run(3.0)
    assert running.cell.state is S.EXECUTE


def test_emergency_stop_from_press_to_work(running):
    running.press_estop()
    actions = running.tick()
    assert running.cell.state is S.ABORTING
    assert ClearQueue() in actions
    assert not running.cell.may_eject(running.now)
    running.run(2.0)
    assert running.cell.state is S.ABORTED
    running.cell.command("clear", "operator")
    running.run(2.0)
    assert running.cell.state is S.CLEARING, "the button is still pressed"
    running.estop = False
    running.run(2.0)
    assert running.cell.state is S.STOPPED, "nothing starts by itself"
    assert running.target == 0.0
    assert running.states == [S.ABORTING, S.ABORTED, S.CLEARING, S.STOPPED]
    running.cell.command("reset", "operator")
    running.run(1.0)
    running.cell.command("start", "operator")
    running.run(2.0)
    assert running.cell.state is S.EXECUTE


@pytest.mark.parametrize("state", [S.STOPPED, S.STARTING])
def test_emergency_stop_while_coming_up_takes_back_the_automatic_start(site, state):
    site.deaf = {MoveBelt} if state is S.STARTING else {Transition}
    site.run(2.0)
    assert site.cell.state is state
    site.press_estop()
    site.run(1.0)
    assert site.cell.state is S.ABORTED
    site.estop, site.deaf = False, set()
    site.cell.command("clear", "operator")
    site.run(5.0)
    assert site.cell.state is S.STOPPED


def test_emergency_stop_while_clearing_keeps_it_waiting(running):
    running.press_estop()
    running.run(1.0)
    running.estop = False
    running.cell.command("clear", "operator")
    running.press_estop()
    running.run(1.0)
    assert running.cell.state is S.CLEARING


@pytest.mark.parametrize("state", [S.HELD, S.SUSPENDED, S.IDLE])
def test_emergency_stop_aborts_from_everywhere(running, state):
    if state is S.HELD:
        running.cell.command("hold", "operator")
    elif state is S.SUSPENDED:
        running.cell.full = ["klarus"]
    else:
        running.cell.command("stop", "operator")
        running.run(1.0)
        running.cell.command("reset", "operator")
    running.run(1.0)
    assert running.cell.state is state
    running.press_estop()
    running.run(1.0)
    assert running.cell.state is S.ABORTED


@pytest.mark.parametrize("fault", ["estop", "watchdog", "encoder_ok"])
def test_nothing_is_ejected_from_the_moment_a_fault_is_heard_of(running, fault):
    assert running.cell.may_eject(running.now)
    setattr(running, fault, fault != "encoder_ok")
    running.cell.belt(running.belt_state(), running.now)
    assert not running.cell.may_eject(running.now)


def test_lost_encoder_aborts_and_clearing_resets_it(running):
    running.encoder_ok = False
    running.tick()
    assert not running.cell.may_eject(running.now)
    running.run(1.0)
    assert running.cell.state is S.ABORTED
    assert of(ClearQueue, running.log)
    running.cell.command("clear", "operator")
    running.run(1.0)
    assert running.cell.state is S.STOPPED
    assert running.encoder_ok


def test_queue_is_cleared_before_work_goes_on_even_if_the_ejector_was_away(running):
    running.silent = {"ejector"}
    running.encoder_ok = False
    running.run(2.0)
    running.cell.command("clear", "operator")
    running.run(1.0)
    assert running.cell.state is S.CLEARING, "old ejections may still wait in the PLC"
    running.silent = set()
    actions = running.run(1.0)
    assert running.cell.state is S.STOPPED
    told = [action.state if isinstance(action, StateChanged) else action for action in actions]
    assert told.index(ClearQueue()) < told.index(S.STOPPED)


def test_queue_is_cleared_once_more_while_clearing(running):
    running.cell.command("abort", "operator")
    assert len(of(ClearQueue, running.run(1.0))) >= 1
    running.cell.command("clear", "operator")
    assert len(of(ClearQueue, running.run(0.2))) == 1


# ---- the belt ----


def test_order_to_the_belt_is_repeated_until_it_took(site):
    site.deaf = {MoveBelt}
    site.run(1.0)
    orders = of(MoveBelt, site.run(2.0))
    assert set(orders) == {MoveBelt(SPEED)}
    assert len(orders) == pytest.approx(2.0 / site.cell.retry_s, abs=1)
    site.deaf = set()
    site.run(2.0)
    assert of(MoveBelt, site.run(2.0)) == [], "no order without need"


def test_belt_that_runs_against_the_will_of_the_line_is_stopped(running):
    running.cell.command("stop", "operator")
    running.run(2.0)
    running.target = 0.3
    assert MoveBelt(0.0) in running.run(0.5)
    assert running.target == 0.0


def test_belt_at_another_speed_is_corrected(running):
    running.target = 0.3
    running.run(1.0)
    assert running.target == SPEED


# ---- full bins ----


def test_full_bin_suspends_until_a_person_has_emptied_it(running):
    running.cell.full = ["klarus", "others"]
    running.run(2.0)
    assert running.cell.state is S.SUSPENDED
    assert running.cell.reason == "full: klarus, others"
    assert running.target == 0.0
    # issue 14, point 10: unsuspend empties nothing
    with pytest.raises(PlacesFullError, match=r"full: klarus, others: .*'emptied klarus', 'emptied others'"):
        running.cell.command("unsuspend", "operator")
    running.cell.full = ["others"]
    with pytest.raises(PlacesFullError, match="full: others: "):
        running.cell.command("unsuspend", "operator")
    running.run(2.0)
    assert running.cell.state is S.SUSPENDED
    running.cell.full = []
    running.run(2.0)
    assert running.cell.state is S.SUSPENDED, "a person lets it go on"
    running.cell.command("unsuspend", "operator")
    running.run(2.0)
    assert running.cell.state is S.EXECUTE


@pytest.mark.parametrize("commands", [["hold", "unhold"], ["stop", "reset", "start"]])
def test_no_other_command_takes_a_full_bin_for_emptied(running, commands):
    running.cell.full = ["klarus"]
    running.run(2.0)
    *before, on_again = commands
    for command in before:
        running.cell.command(command, "operator")
        running.run(2.0)
    resting, running.log = running.cell.state, []
    with pytest.raises(PlacesFullError, match=f"'emptied klarus', then {on_again} it"):
        running.cell.command(on_again, "operator")
    running.run(2.0)
    assert running.cell.state is resting and of(MoveBelt, running.log) == []


def test_a_hold_by_a_fault_is_not_left_by_itself_into_a_full_bin(running):
    running.cell.external_faults["ledger"] = "disk full"
    running.run(2.0)
    running.cell.full = ["klarus"]
    del running.cell.external_faults["ledger"]
    running.run(2.0)
    assert running.cell.state is S.HELD and running.cell.reason == "full: klarus"
    running.cell.full = []
    running.run(2.0)
    assert running.cell.state is S.EXECUTE


def test_a_full_bin_does_not_hide_why_a_person_holds_the_line(running):
    running.cell.command("hold", "anna: hand in the machine")
    running.cell.full = ["klarus"]
    running.run(2.0)
    assert (running.cell.state, running.cell.reason) == (S.HELD, "anna: hand in the machine")


def test_an_order_to_rest_ends_the_automatic_return_even_where_it_is_refused(running):
    running.cell.external_faults["ledger"] = "disk full"
    running.run(2.0)
    with pytest.raises(CommandNotAllowedError):
        running.cell.command("suspend", "operator")
    del running.cell.external_faults["ledger"]
    running.run(2.0)
    assert running.cell.state is S.HELD


def test_faults_of_others_hold_the_line(running):
    running.cell.external_faults["ledger"] = "disk full"
    running.run(2.0)
    assert running.cell.state is S.HELD
    assert "disk full" in running.cell.reason
    del running.cell.external_faults["ledger"]
    running.run(2.0)
    assert running.cell.state is S.EXECUTE


def test_complete_ends_the_job(running):
    running.cell.command("complete", "operator")
    running.run(2.0)
    assert running.cell.state is S.COMPLETE
    assert running.target == 0.0

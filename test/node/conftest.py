"""One node of a cell beside a plant and a peer that stands in for the other nodes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Leaks, Process, start_plant, start_spec, wait_for, why_no_ros
from peer import Peer

from battery_sorting.core.plant_control import PlantControl
from battery_sorting.packml.fleet import Lifecycle
from battery_sorting.runtime.demo import BeltJob
from battery_sorting.runtime.plan import Plan, PlanOptions, load_site_and_recipe, make_plan


class NotBuilt(pytest.Module):
    """A module that can't be imported without ROS 2 and the built package."""

    def collect(self) -> Any:
        pytest.skip(why_no_ros(), allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return NotBuilt.from_parent(parent, path=module_path) if why_no_ros() else None


class Bench:
    """Starts what a test of one node needs, and ends it after the test."""

    def __init__(self, run_dir: Path, stack: contextlib.ExitStack) -> None:
        self._run_dir = run_dir
        self._stack = stack
        self.plan: Plan
        self.peer: Peer
        self.plant: PlantControl
        self.heartbeats: list[Any]
        self.running: dict[str, Process] = {}

    def set_up(self, *overrides: str, items: int = 500, rate_per_s: float = 5.0, plant: bool = False) -> Peer:
        """Make the plan, start the peer and, where wanted, the plant."""
        job = BeltJob(items, 1, self._run_dir, overrides, rate_per_s=rate_per_s)
        return self._begin(job.make_plan(), plant)

    def set_up_ev(self, *overrides: str, items: int = 8, plant: bool = True) -> Peer:
        """As `set_up`, for the EV line; the cells are tested in seconds."""
        ports = ("modbus", "lug_camera", "case_camera", "cycler", "meter", "robot", "control")
        given = (
            *(f"plant.{name}_port=0" for name in ports),
            f"plant.items={items}",
            "plant.defective=0",
            "plant.time_factor=10",
            "plant.test_time_factor=20000",
            *overrides,
        )
        site, recipe = load_site_and_recipe("sim_ev", None, given)
        return self._begin(make_plan(site, recipe, PlanOptions(self._run_dir)), plant)

    def _begin(self, plan: Plan, plant: bool) -> Peer:
        from battery_sorting.msg import Heartbeat

        self.plan = plan
        self.plan.write_run_files()
        if plant:
            self._stack.enter_context(start_plant(self.plan))
            port = (self.plan.site.plant or {})["control_port"]
            self.plant = self._stack.enter_context(PlantControl("127.0.0.1", port, timeout_s=10.0))
        self.peer = self._stack.enter_context(Peer(self.plan))
        self.heartbeats = self.peer.listen(Heartbeat, "heartbeat")
        return self.peer

    def join(self, plan: Plan, name: str = "peer") -> Peer:
        """A peer in another line, or one that goes by the name of a node."""
        return self._stack.enter_context(Peer(plan, name))

    def start(self, name: str) -> Process:
        """Start a node; it is unconfigured."""
        spec = next(spec for spec in self.plan.nodes if spec.name == name)
        self.running[name] = self._stack.enter_context(start_spec(self.plan, spec))
        return self.running[name]

    def bring_up(self, name: str, line_state: int | None = None) -> Process:
        """Start a node, bring it to work, and let it hear a line that runs, or is in another state."""
        from battery_sorting.msg import LineState

        node = self.start(name)
        self.peer.advertise(LineState, "line_state")
        state = LineState.EXECUTE if line_state is None else line_state
        self.peer.repeat("line_state", LineState(state=state), 0.2)
        for transition in ("configure", "activate"):
            assert self.change(name, transition), self.heartbeats[-1].detail
        self.wait_for_heartbeat(lambda beat: beat.lifecycle_state == Lifecycle.ACTIVE and beat.ok, "node is active")
        return node

    def hand_over(self) -> Process:
        """Start the line controller in the place of the peer, which has spoken for it since `bring_up`."""
        from battery_sorting.msg import LineState

        self.peer.repeat("line_state", LineState(), 0)
        return self.start("line_controller")

    def change(self, name: str, transition: str) -> bool:
        """Ask for a transition of the life cycle; returns whether it took."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        number = getattr(Transition, f"TRANSITION_{transition.upper()}")
        answer = self.peer.call(ChangeState, f"{name}/change_state", transition=Transition(id=number))
        return bool(answer.success)

    def now(self) -> Any:
        """A header with the time of now."""
        return self.wait_for_heartbeat(lambda _: True, "heartbeat").header

    def wait_for_heartbeat(self, fits: Any, what: str) -> Any:
        """The first heartbeat from now on that fits."""
        begin = len(self.heartbeats)
        return wait_for(lambda: next(filter(fits, self.heartbeats[begin:]), None), what)


@pytest.fixture
def bench(tmp_path: Path, domain: int, leaks: Leaks) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        yield Bench(tmp_path / "run", stack)
        leaks.note_segments()
    leaks.clean_shared_memory()

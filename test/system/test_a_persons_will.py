"""Nothing moves that a person has not allowed: a hardware site, its plant started by hand (issue 14, 1 and 6)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import MARK, ROOT, Process, marked_processes, run_cli, start_plant, wait_for

from battery_sorting.core.plant_control import PlantControl
from battery_sorting.ledger.events import AlarmCleared, AlarmRaised, Commanded, EventData, LineStateChanged
from battery_sorting.ledger.store import Ledger
from battery_sorting.runtime.demo import BeltJob

pytestmark = pytest.mark.system

WAITS = "waits for 'reset' and 'start'"
HOLD = "hold by anna: hand in the machine"
LIFECYCLE = """
import sys
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
name, step = sys.argv[1:]
rclpy.init()
node = rclpy.create_node("person")

def ask(type_, service, **fields):
    client = node.create_client(type_, f"/{name}/{service}")
    assert client.wait_for_service(20.0), service
    future = client.call_async(type_.Request(**fields))
    rclpy.spin_until_future_complete(node, future, timeout_sec=20.0)
    return future.result()

if step:
    ask(ChangeState, "change_state", transition=Transition(id=getattr(Transition, f"TRANSITION_{step.upper()}")))
print(ask(GetState, "get_state").current_state.label)
sys.stdout.flush()
rclpy.shutdown()
"""


def lifecycle(node: str, step: str = "") -> str:
    """Changes the life cycle of a node as ``ros2 lifecycle set`` would; returns its state."""
    command = [sys.executable, "-c", LIFECYCLE, node, step]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


class HardwareSite:
    """The example site without its ``plant:`` section: for the package that is real hardware."""

    def __init__(self, tmp_path: Path, leaks: Any) -> None:
        self._leaks = leaks
        self._plan = BeltJob(
            0, run_dir=tmp_path / "plant", overrides=("plant.items=0",), rate_per_s=4.0
        ).make_plan()
        self._plan.write_run_files()
        document = yaml.safe_load((ROOT / "config" / "sites" / "sim.yaml").read_text())
        for device in ("plc", "camera"):
            document[device] = getattr(self._plan.site, device).model_dump()
        del document["plant"]
        self._site = tmp_path / "site.yaml"
        self._site.write_text(yaml.safe_dump(document))
        self.run_dir = tmp_path / "run"
        self._log = tmp_path / "up.log"

    @contextmanager
    def plant(self) -> Iterator[PlantControl]:
        with (
            start_plant(self._plan),
            PlantControl("127.0.0.1", (self._plan.site.plant or {})["control_port"]) as control,
        ):
            yield control

    @contextmanager
    def up(self) -> Iterator[Process]:
        arguments = ["up", "--site", str(self._site), "--run-dir", str(self.run_dir)]
        with Process([sys.executable, "-m", "battery_sorting.cli.main", *arguments], self._log) as command:
            yield command
            self._leaks.note_segments()

    def order(self, name: str, *more: str) -> None:
        """Gives a command as soon as the line takes it."""

        def taken() -> bool:
            answer = run_cli("command", name, *more)
            return answer.returncode == 0

        wait_for(taken, f"line takes {name}")

    def start(self) -> None:
        for name in ("reset", "start"):
            self.order(name)
        self.wait_for_state("Execute")

    def state(self) -> str:
        return self.states()[-1]

    def states(self) -> list[str]:
        with Ledger.open(self.run_dir / "ledger.sqlite", read_only=True) as ledger:
            return [event.data.name for event in ledger.events(kinds=[LineStateChanged])]

    def wait_for_state(self, name: str) -> None:
        wait_for(lambda: self.state() == name, f"line is {name}")

    def kill(self, name: str) -> None:
        """SIGKILL to a node; waits until its successor is there."""
        self._leaks.note_segments()
        before = self._pid(name)
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: self._pid(name) not in {0, before}, f"{name} is started again")

    def _pid(self, name: str) -> int:
        for pid, command in marked_processes(os.environ[MARK]).items():
            if f"lib/battery_sorting/{name} " in command:
                return pid
        return 0


@pytest.fixture
def site(tmp_path, domain, leaks) -> Iterator[HardwareSite]:
    yield HardwareSite(tmp_path, leaks)
    leaks.clean_shared_memory()


def stands(control: PlantControl, seconds: float) -> bool:
    """Whether the belt stands all the time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if control.state()["running"]:
            return False
        time.sleep(0.05)
    return True


def test_a_persons_hold_outlives_the_controller_and_the_whole_line(site):
    with site.plant() as control:
        with site.up() as up:
            wait_for(lambda: up.output.count(WAITS) == 1, "it is said that the line waits")
            site.start()
            site.order("hold", "--reason", "hand in the machine", "--by", "anna")
            site.wait_for_state("Held")
            site.kill("line_controller")
            wait_for(lambda: HOLD in up.output, "the successor knows of it")
            assert stands(control, 5.0) and site.state() == "Held"
            site.order("unhold")
            site.wait_for_state("Execute")
            before = len(site.states())
            site.kill("line_controller")
            wait_for(lambda: "Execute" in site.states()[before:], "what a person has allowed goes on after a crash")
            site.order("hold", "--reason", "hand in the machine", "--by", "anna")
            site.wait_for_state("Held")
            up.signal(signal.SIGKILL)
            up.wait()
            wait_for(lambda: site._pid("line_controller") == 0, "all nodes end")
        with site.up() as up:
            wait_for(
                lambda: "hold by anna: hand in the machine; it stands" in up.output, "the new start knows of it"
            )
            assert stands(control, 3.0)
            site.start()
            up.signal(signal.SIGKILL)
            up.wait()
            wait_for(lambda: site._pid("line_controller") == 0, "all nodes end")
        with site.up() as up:
            wait_for(lambda: up.output.count(WAITS) == 2, "it is said again that the line waits")
            assert stands(control, 3.0)
    with Ledger.open(site.run_dir / "ledger.sqlite", read_only=True) as ledger:
        commands = [event.data for event in ledger.events(kinds=[Commanded])]
    assert Commanded("hold", by="anna", reason="hand in the machine", accepted=True) in commands


def test_a_node_that_a_person_deactivated_rests_until_it_is_activated(site):
    with site.plant() as control, site.up():
        site.start()
        assert lifecycle("belt/camera", "deactivate") == "inactive"
        site.wait_for_state("Held")
        assert stands(control, 3.0) and lifecycle("belt/camera") == "inactive"
        site.kill("line_controller")
        assert stands(control, 4.0) and lifecycle("belt/camera") == "inactive"
        assert lifecycle("belt/camera", "activate") == "active"
        site.wait_for_state("Execute")
        assert lifecycle("belt/conveyor", "deactivate") == "inactive"
        wait_for(lambda: not control.state()["running"], "the belt stands at once", 0.4)
        assert stands(control, 3.0)
        site.kill("conveyor")
        assert stands(control, 3.0)
        for step in ("configure", "activate"):
            lifecycle("belt/conveyor", step)
        site.wait_for_state("Execute")
    with Ledger.open(site.run_dir / "ledger.sqlite", read_only=True) as ledger:
        commands = [event.data for event in ledger.events(kinds=[Commanded])]
    about = [(data.command, data.node) for data in commands if data.node is not None]
    assert about == [(step, node) for node in ("camera", "conveyor") for step in ("deactivate", "activate")]


# issue 16, 4
def test_an_observer_that_a_person_deactivated_rests_and_the_line_goes_on(site):
    with site.plant() as control, site.up():
        site.start()
        assert lifecycle("belt/archivist", "deactivate") == "inactive"
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            assert control.state()["running"]
            time.sleep(0.05)
        assert lifecycle("belt/archivist") == "inactive", "the controller leaves it alone"
        assert lifecycle("belt/archivist", "activate") == "active"
        wait_for(lambda: _alarms(site)[-1:] == [AlarmCleared], "the alarm is gone")
    with Ledger.open(site.run_dir / "ledger.sqlite", read_only=True) as ledger:
        commands = [event.data for event in ledger.events(kinds=[Commanded])]
        states = [event.data.name for event in ledger.events(kinds=[LineStateChanged])]
    about = [(data.command, data.node) for data in commands if data.node is not None]
    assert about == [("deactivate", "archivist"), ("activate", "archivist")]
    assert _alarms(site) == [AlarmRaised, AlarmCleared]
    assert "Held" not in states


def _alarms(site) -> list[type[EventData]]:
    """What the ledger says of the archivist's alarm."""
    with Ledger.open(site.run_dir / "ledger.sqlite", read_only=True) as ledger:
        events = ledger.events(kinds=[AlarmRaised, AlarmCleared])
    return [type(event.data) for event in events if event.data.code == "node_archivist"]

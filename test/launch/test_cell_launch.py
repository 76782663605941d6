"""The cell by `launch`: the same plan, the same nodes as by ``battery-sorting up``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import MARK, ROOT, Process, marked_processes, wait_for

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.ledger import EventKind, Ledger
from battery_sorting.core.plan import NODES

pytest.importorskip("launch.actions", reason="launch is not installed: it comes with a ROS distribution")
pytest.importorskip("launch_ros.actions", reason="launch_ros is not installed: it comes with a ROS distribution")

pytestmark = pytest.mark.system

LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
arguments = [tuple(argument.split(":=", 1)) for argument in arguments]
service = LaunchService()
source = PythonLaunchDescriptionSource(file)
cell = IncludeLaunchDescription(source, launch_arguments=arguments)
service.include_launch_description(LaunchDescription([cell]))
sys.exit(service.run())
"""


def node_processes() -> dict[str, int]:
    """Process ids of the nodes of this test by name."""
    found = {}
    for pid, command in marked_processes(os.environ[MARK]).items():
        for name in (*NODES, "plant"):
            if f"lib/battery_sorting/{name} " in command:
                found[name] = pid
    return found


def disposed(run_dir: Path) -> int:
    try:
        with Ledger.open(run_dir / "ledger.sqlite", read_only=True) as ledger:
            return len([battery for battery in ledger.batteries() if battery.bin])
    except BatterySortingError:
        return 0


def states(run_dir: Path) -> list[str]:
    with Ledger.open(run_dir / "ledger.sqlite", read_only=True) as ledger:
        return [event.payload["name"] for event in ledger.events(kinds=[EventKind.LINE_STATE])]


@pytest.fixture
def clean_shared_memory(leaks) -> Iterator[None]:
    """`launch` does not know of the shared memory of nodes that it has killed."""
    yield
    leaks.clean_shared_memory()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_launched_cell_sorts_and_leaves_nothing(tmp_path, domain, leaks, clean_shared_memory, number):
    run_dir = tmp_path / "run"
    changes = ";".join(f"plant.{kind}_port=0" for kind in ("modbus", "camera", "control"))
    arguments = [str(ROOT / "launch" / "cell.launch.py"), "site:=sim", f"set:={changes}", f"run_dir:={run_dir}"]
    with Process([sys.executable, "-c", LAUNCH, *arguments], tmp_path / "launch.log") as launch:

        def tell(what):
            assert launch.exit_code is None, launch.output
            return what

        wait_for(lambda: tell(set(node_processes()) == {*NODES, "plant"}), "all nodes are there")
        wait_for(lambda: tell(disposed(run_dir) >= 3), "batteries are sorted")
        leaks.note_segments()
        classifier = node_processes()["classifier"]
        os.kill(classifier, signal.SIGKILL)
        wait_for(lambda: node_processes().get("classifier", classifier) != classifier, "node is started again")
        wait_for(lambda: tell("Held" in states(run_dir) and states(run_dir)[-1] == "Execute"), "the line goes on")
        before = disposed(run_dir)
        wait_for(lambda: tell(disposed(run_dir) >= before + 3), "sorting goes on")
        leaks.note_segments()
        launch.signal(number)
        launch.wait()
        wait_for(lambda: not marked_processes(os.environ[MARK]), "all processes end", 5.0)

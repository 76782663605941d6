"""The cell by `launch`: the same plan, the same nodes as by ``battery-sorting up``."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness import MARK, ROOT, Process, marked_processes, wait_for, wait_for_ends

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.ledger import EventKind
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.contract import NODES


def _is_installed(name: str) -> bool:
    with contextlib.suppress(ImportError):
        return importlib.import_module(f"{name}.actions") is not None
    return False


MISSING = [name for name in ("launch", "launch_ros") if not _is_installed(name)]
# Test by test: in a file that is skipped as a whole pytest finds no tests, and ctest takes that for a failure.
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed, comes with a ROS distribution: {' '.join(MISSING)}"),
]

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


LAUNCH_FILE = str(ROOT / "launch" / "cell.launch.py")
FREE_PORTS = ";".join(f"plant.{kind}_port=0" for kind in ("modbus", "camera", "control"))


def why_refused(folder: Path, *arguments: str) -> str:
    """What a launch says that must refuse."""
    with Process(
        [sys.executable, "-c", LAUNCH, LAUNCH_FILE, *arguments], folder / f"{len(list(folder.iterdir()))}.log"
    ) as launch:
        assert launch.wait() == 1
    assert "process started" not in launch.output, "nothing of it has run"
    assert "Traceback" not in launch.output
    return launch.output


@pytest.fixture
def clean_shared_memory(leaks) -> Iterator[None]:
    """A launch that is killed itself cleans nothing any more."""
    yield
    leaks.clean_shared_memory()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_launched_cell_sorts_and_leaves_nothing(tmp_path, domain, leaks, request, number):
    if number is signal.SIGKILL:
        request.getfixturevalue("clean_shared_memory")
    run_dir = tmp_path / "run"
    arguments = [LAUNCH_FILE, "site:=sim", f"set:={FREE_PORTS}", f"run_dir:={run_dir}"]
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
        wait_for_ends(os.environ[MARK], timeout_s=5.0)
        if number is signal.SIGINT:  # issue 15, D13: what the nodes make safe, they do with the plant's help
            *_, last = [line for line in launch.output.splitlines() if "process has finished cleanly" in line]
            assert "[plant-" in last


def test_second_launch_of_one_plc_refuses_and_the_first_goes_on(tmp_path, domain, leaks):
    """Issue 14, point 3."""
    first_dir, second_dir = tmp_path / "first", tmp_path / "second"
    first_arguments = [LAUNCH_FILE, "site:=sim", f"set:={FREE_PORTS}", f"run_dir:={first_dir}"]

    with Process([sys.executable, "-c", LAUNCH, *first_arguments], tmp_path / "first.log") as launch:
        wait_for(lambda: set(node_processes()) == {*NODES, "plant"}, "all nodes are there")
        wait_for(lambda: disposed(first_dir) >= 3, "batteries are sorted")
        leaks.note_segments()
        pids, run_file = node_processes(), (first_dir / "site.json").read_bytes()
        same_folder = why_refused(tmp_path, "site:=sim", f"set:={FREE_PORTS}", f"run_dir:={first_dir}")
        assert f"another cell runs in this folder, started by process {launch.pid}" in same_folder
        assert "run_dir:=" in same_folder and "--run-dir" not in same_folder
        assert (first_dir / "site.json").read_bytes() == run_file
        site = yaml.safe_load(run_file)
        site |= {"name": "another", "line": "another", "plant": None}
        other_site = tmp_path / "another.yaml"
        other_site.write_text(yaml.safe_dump(site))
        same_plc = why_refused(tmp_path, f"site:={other_site}", f"run_dir:={second_dir}")
        assert " at tcp localhost:" in same_plc
        assert f"run folder {first_dir}" in same_plc and "End that one first" in same_plc
        before = disposed(first_dir)
        wait_for(lambda: disposed(first_dir) >= before + 3, "the first goes on")
        assert node_processes() == pids
        assert "Held" not in states(first_dir)
        leaks.note_segments()
        launch.signal(signal.SIGINT)
        launch.wait()
        wait_for_ends(os.environ[MARK], timeout_s=5.0)


# ---- issue 15, D13: as good as `up` ----


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("set:=plant.itmes=3", "plant.itmes (set by set:=plant.itmes=3): no such key"),
        ("log_level:=loud", "log_level:=loud: there is no such level; known are: debug, info, warn, error, fatal"),
        ("without:=camra", "without:=camra: site 'sim' starts no such process; did you mean 'camera'?"),
        ("use_sim_time:=perhaps", "use_sim_time:=perhaps: must be true or false"),
        ("namespace:=1st", "namespace:=1st: is no ROS namespace"),
        ("run_dir:=/proc/none", "give another folder with run_dir:="),
    ],
)
def test_launch_refuses_what_makes_no_sense_in_its_own_words(tmp_path, domain, argument, told):
    assert told in why_refused(tmp_path, "site:=sim", f"run_dir:={tmp_path / 'run'}", argument)


def test_launch_gives_a_node_up_that_dies_again_and_again(tmp_path, domain, leaks):
    arguments = [LAUNCH_FILE, "site:=sim", f"set:={FREE_PORTS}", f"run_dir:={tmp_path / 'run'}"]
    with Process([sys.executable, "-c", LAUNCH, *arguments], tmp_path / "launch.log") as launch:
        wait_for(lambda: set(node_processes()) == {*NODES, "plant"}, "all nodes are there")
        killed = set()

        def kill_and_look() -> bool:
            pid = node_processes().get("camera")
            if pid is not None and pid not in killed:
                leaks.note_segments()
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            return launch.exit_code is not None

        wait_for(kill_and_look, "launch gives up", 60.0)
        assert launch.exit_code == 1
        assert len(killed) == 6
        assert "camera died 6 times in 30 s and is given up (it was killed by SIGKILL at last)" in launch.output
        for pause in ("0.5", "1", "2", "4", "5"):
            assert f"camera was killed by SIGKILL; started again in {pause} s" in launch.output
        assert not marked_processes(os.environ[MARK])


def test_launch_ends_with_its_plant_and_says_so(tmp_path, domain, leaks):
    arguments = [LAUNCH_FILE, "site:=sim", f"set:={FREE_PORTS}", f"run_dir:={tmp_path / 'run'}"]
    with Process([sys.executable, "-c", LAUNCH, *arguments], tmp_path / "launch.log") as launch:
        wait_for(lambda: '"ready"' in launch.output, "the plant is there", 60.0)
        leaks.note_segments()
        os.kill(node_processes()["plant"], signal.SIGTERM)
        assert launch.wait() == 1
        assert "plant ended with exit code 0: see above" in launch.output


PARENT = """
import json, os, sys
from launch import LaunchDescription, LaunchService
from launch.actions import (
    ExecuteProcess, GroupAction, IncludeLaunchDescription, OpaqueFunction, SetEnvironmentVariable
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace
print("GIVEN", json.dumps(dict(os.environ)), flush=True)
file, ports, folder = sys.argv[1:]
LOOK = "import json, os; print('ENVIRONMENT', json.dumps(dict(os.environ)))"
def line(namespace):
    arguments = {"site": "sim", "set": ports, "run_dir": f"{folder}/{namespace}", "without": "archivist"}
    source = PythonLaunchDescriptionSource(file)
    cell = IncludeLaunchDescription(source, launch_arguments=arguments.items())
    return GroupAction([PushRosNamespace(namespace), cell])
def tell(context):
    print("CONFIGURATIONS", json.dumps(sorted(context.launch_configurations)), flush=True)
service = LaunchService()
service.include_launch_description(LaunchDescription([
    SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", f"{folder}/mine.xml"),
    line("left"),
    line("right"),
    OpaqueFunction(function=tell),
    ExecuteProcess(cmd=[sys.executable, "-c", LOOK], output="screen"),
]))
sys.exit(service.run())
"""


def told_by(output: str, word: str):
    return next(
        (json.loads(line.partition(f"{word} ")[2]) for line in output.splitlines() if f"{word} " in line), None
    )


def nodes_of(namespace: str) -> dict[str, int]:
    """Process ids of the nodes of this test in a namespace, by executable."""
    found = {}
    for pid in marked_processes(os.environ[MARK]):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except OSError:
            continue
        if f"__ns:={namespace}" in words:
            found[next(Path(word).name for word in words if "lib/battery_sorting/" in word)] = pid
    return found


def test_including_the_launch_file_changes_nothing_for_others_and_two_lines_live_beside_each_other(
    tmp_path, domain, leaks
):
    (tmp_path / "mine.xml").write_text((ROOT / "config" / "fastdds.xml").read_text())
    command = [sys.executable, "-c", PARENT, LAUNCH_FILE, FREE_PORTS, str(tmp_path)]
    names = {name for name in NODES if name != "archivist"}
    with Process(command, tmp_path / "launch.log") as launch:

        def tell(what):
            assert launch.exit_code is None, launch.output
            return what

        environment = wait_for(lambda: tell(told_by(launch.output, "ENVIRONMENT")), "the other process has run")
        added = environment.items() - told_by(launch.output, "GIVEN").items()
        assert added == {("FASTDDS_DEFAULT_PROFILES_FILE", f"{tmp_path}/mine.xml")}
        assert told_by(launch.output, "CONFIGURATIONS") == []
        for namespace in ("/left/belt", "/right/belt"):
            wait_for(lambda line=namespace: tell(nodes_of(line).keys() == names), f"{namespace} is there")
            for pid in nodes_of(namespace).values():
                variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
                assert f"FASTDDS_DEFAULT_PROFILES_FILE={tmp_path}/mine.xml" in variables, (
                    "the user's profile stands"
                )
                assert not any(variable.startswith("FASTRTPS_DEFAULT_PROFILES_FILE=") for variable in variables)
        killed = nodes_of("/left/belt")["camera"]
        leaks.note_segments()
        os.kill(killed, signal.SIGKILL)

        def successor_is_started() -> bool:
            pid = nodes_of("/left/belt").get("camera", killed)
            # launch hangs for ever when a SIGINT comes while it starts a process
            return pid != killed and f"process started with pid [{pid}]" in launch.output

        wait_for(lambda: tell(successor_is_started()), "its successor is in its namespace")
        leaks.note_segments()
        launch.signal(signal.SIGINT)
        launch.wait()
        wait_for_ends(os.environ[MARK], timeout_s=5.0)

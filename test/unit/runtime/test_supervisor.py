"""The supervisor with shell scripts in place of nodes: order of start and stop, deaths, logs, no leftovers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.ownership import EXIT_CODE
from battery_sorting.line.contract import Role
from battery_sorting.runtime import supervisor as module
from battery_sorting.runtime.plan import NodeSpec, Plan, Ready, assign_ports, load_site_and_recipe
from battery_sorting.runtime.supervisor import CellError, Supervisor

pytestmark = pytest.mark.realtime

REPOSITORY = Path(__file__).parents[3]

PLANT = """trap 'date +%s.%N > "$RUN/plant.stopped"; exit 0' INT TERM
echo '{"ready": true, "modbus_port": 4711}'
while :; do sleep 0.02; done"""
NODE = """trap 'date +%s.%N > "$RUN/node.stopped"; exit 0' INT
: > "$RUN/node.running"
while :; do sleep 0.02; done"""
STUBBORN = """trap '' INT TERM
sleep 300 & echo $! > "$RUN/grandchild"
while :; do sleep 0.02; done"""


class Workshop:
    """Makes plans whose executables are shell scripts."""

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "run"
        self.bin = folder / "bin"
        self.bin.mkdir()
        site, self.recipe = load_site_and_recipe(
            "sim", None, ("plant.modbus_port=0", "plant.camera_port=0", "plant.control_port=0")
        )
        self.site = assign_ports(site.model_copy(update={"line": f"test_{os.getpid()}"}))  # a cell may run here
        self.echoed: list[tuple[str, str]] = []

    def node(self, name: str, script: str, **changes) -> NodeSpec:
        path = self.bin / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
        return NodeSpec(name, name, **{"respawn_delay_s": 0.01, **changes})

    def plant(self, script: str = PLANT) -> NodeSpec:
        return self.node("plant", script, role=Role.PLANT, ready_when=Ready.SAYS_SO, respawn=False)

    def supervisor(self, *nodes: NodeSpec, **site_changes) -> Supervisor:
        site = self.site.model_copy(update=site_changes)
        plan = Plan(site, self.recipe, self.run_dir, nodes, {"RUN": str(self.run_dir)})
        return Supervisor(plan, lambda name, line: self.echoed.append((name, line)), lambda name: self.bin / name)

    def log(self, name: str) -> str:
        """What was written; empty for the moment in which a full log makes way for a new one."""
        try:
            return (self.run_dir / "log" / f"{name}.log").read_text()
        except FileNotFoundError:
            return ""


@pytest.fixture
def workshop(tmp_path):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield Workshop(tmp_path)
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not left, f"processes left behind: {left}"


def wait_for(condition, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.01)


def test_plant_is_ready_after_the_start_and_stops_after_the_nodes(workshop):
    with workshop.supervisor(workshop.plant(), workshop.node("conveyor", NODE)) as cell:
        assert cell.plant_ready["modbus_port"] == 4711
        assert set(cell.pids()) == {"plant", "conveyor"}
        for name in ("site.json", "recipe.json", "plant.json"):
            assert (workshop.run_dir / name).is_file()
        assert not cell.wait(0.2)
        wait_for((workshop.run_dir / "node.running").exists)
    stopped = {name: float((workshop.run_dir / f"{name}.stopped").read_text()) for name in ("node", "plant")}
    assert stopped["node"] < stopped["plant"]
    assert cell.pids() == {}
    cell.stop()


def test_processes_that_ignore_signals_are_gone_within_five_seconds_with_their_children(workshop):
    stubborn = [workshop.node(f"node{n}", STUBBORN) for n in range(3)]
    cell = workshop.supervisor(workshop.plant(PLANT.replace("exit 0", ":")), *stubborn)
    with cell:
        wait_for((workshop.run_dir / "grandchild").exists)
        wait_for((workshop.run_dir / "grandchild").read_text)
        pids = [*cell.pids().values(), int((workshop.run_dir / "grandchild").read_text())]
        begin = time.monotonic()
    assert time.monotonic() - begin < 5.0
    wait_for(lambda: not any(_runs(pid) for pid in pids))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_killed_node_is_started_again_and_the_owner_hears_of_it(workshop):
    with workshop.supervisor(workshop.node("ejector", NODE)) as cell:
        first = cell.pids()["ejector"]
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: cell.pids().get("ejector", first) != first)
        assert cell.deaths() == {"ejector": 1}
    assert workshop.echoed == [("ejector", "was killed by SIGKILL; started again in 0.01 s")]


def test_node_that_keeps_dying_stops_the_cell_and_its_last_words_are_told(workshop):
    dying = workshop.node("camera", "echo 'no licence for this camera'; exit 3")
    with (
        pytest.raises(CellError, match=r"(?s)camera died 6 times.*exit code 3.*no licence for this camera"),
        workshop.supervisor(dying, workshop.node("conveyor", NODE)) as cell,
    ):
        cell.wait(10)
    assert workshop.log("camera").count("no licence") == 6


def test_node_that_can_not_have_its_device_is_not_tried_again(workshop):
    """Issue 14, point 3."""
    refused = workshop.node("conveyor", f"echo 'the plc belongs to process 7'; exit {EXIT_CODE}")
    with (
        pytest.raises(CellError, match=r"(?s)conveyor can't have what belongs.*belongs to process 7"),
        workshop.supervisor(refused, workshop.node("camera", NODE)) as cell,
    ):
        cell.wait(10)
    assert workshop.log("conveyor").count("belongs to process 7") == 1


# issue 16, 4
@pytest.mark.parametrize("code", [1, EXIT_CODE])
def test_observer_that_keeps_dying_is_told_and_the_cell_goes_on(workshop, code):
    dying = workshop.node("archivist", f"exit {code}", role=Role.OBSERVER, respawn_delay_s=0.001)
    with workshop.supervisor(dying, workshop.node("camera", NODE)) as cell:
        wait_for(lambda: cell.deaths()["archivist"] >= 8)
        assert not cell.wait(0.1)
        assert "camera" in cell.pids()
    assert workshop.echoed[0] == (
        "archivist",
        f"ended with exit code {code}; the line goes on without it; started again in 0.001 s",
    )


def test_observer_that_can_not_be_started_is_told_and_the_cell_goes_on(workshop):
    observer = workshop.node("archivist", NODE, role=Role.OBSERVER, respawn_delay_s=0.1)
    (workshop.bin / "archivist").chmod(0o644)
    with workshop.supervisor(observer, workshop.node("camera", NODE)) as cell:
        assert workshop.echoed[0][1].startswith("can't be started ([Errno 13] Permission denied")
        assert "camera" in cell.pids() and not cell.wait(0.1)
        (workshop.bin / "archivist").chmod(0o755)
        wait_for(lambda: "archivist" in cell.pids())


def test_observer_without_an_executable_is_left_out_and_any_other_process_refuses_the_start(workshop):
    def find(name: str) -> Path:
        if name == "archivist":
            raise ConfigurationError("executable archivist", ["is not built or not sourced"])
        return workshop.bin / name

    cell = workshop.supervisor(workshop.node("archivist", NODE, role=Role.OBSERVER), workshop.node("camera", NODE))
    cell._find = find
    with cell:
        assert set(cell.pids()) == {"camera"}
    [(name, told)] = workshop.echoed
    assert name == "archivist" and "is not built" in told and told.endswith("the line goes on without it")
    needed = workshop.supervisor(workshop.node("archivist", NODE))
    needed._find = find
    with pytest.raises(ConfigurationError, match="is not built"), needed:
        pytest.fail("started")


def test_restarts_come_slower_and_slower(workshop):
    dying = workshop.node("camera", "exit 1", respawn_delay_s=0.02)
    with workshop.supervisor(dying) as cell, pytest.raises(CellError):
        cell.wait(10)
    delays = [line.rpartition("in ")[2] for _, line in workshop.echoed]
    assert delays == ["0.02 s", "0.04 s", "0.08 s", "0.16 s", "0.32 s"]


def test_end_of_the_plant_ends_the_cell(workshop):
    with (
        pytest.raises(CellError, match="plant was killed by SIGKILL"),
        workshop.supervisor(workshop.plant(), workshop.node("conveyor", NODE)) as cell,
    ):
        os.kill(cell.pids()["plant"], signal.SIGKILL)
        cell.wait(5)


def test_plant_that_refuses_to_start_is_reported_with_its_reason(workshop):
    cell = workshop.supervisor(workshop.plant("echo 'images: no such folder' >&2; exit 2"))
    with pytest.raises(CellError, match=r"(?s)plant ended with exit code 2.*images: no such folder"), cell:
        pytest.fail("started")


def test_plant_that_says_nothing_is_given_up(workshop, monkeypatch):
    monkeypatch.setattr(module, "PLANT_READY_TIMEOUT_S", 0.2)
    with pytest.raises(CellError, match=r"not ready|isn't ready"), workshop.supervisor(workshop.plant(NODE)):
        pytest.fail("started")


def test_port_in_use_is_named_before_anything_starts(workshop):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cell = workshop.supervisor(workshop.plant(), plant={"modbus_port": port})
        with pytest.raises(ConfigurationError, match=rf"port {port} is in use.*--set plant.modbus_port=0"), cell:
            pytest.fail("started")
    assert not workshop.run_dir.exists()


def test_two_cells_cannot_share_a_run_folder(workshop):
    node = workshop.node("conveyor", NODE)
    with (
        workshop.supervisor(node),
        pytest.raises(ConfigurationError, match=r"another cell runs in this folder.*--run-dir"),
        workshop.supervisor(node),
    ):
        pytest.fail("started")
    with workshop.supervisor(node) as again:
        assert again.pids()


def test_missing_build_is_named(workshop, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    plan = Plan(workshop.site, workshop.recipe, workshop.run_dir, (NodeSpec("conveyor", "conveyor"),), {})
    with pytest.raises(ConfigurationError, match="make build"):
        Supervisor(plan).start()


def test_warnings_are_echoed_and_everything_is_logged(workshop):
    lines = ["[INFO] [1.0] [belt.camera]: frame 1", "[WARN] [1.1] [belt.camera]: slow", "ValueError: no", "chatter"]
    script = "\n".join(f"echo '{line}'" for line in lines) + "\nprintf 'no end of line'\n" + NODE
    with workshop.supervisor(workshop.node("camera", script)):
        wait_for(lambda: len(workshop.echoed) == 2)
    assert workshop.echoed == [("camera", lines[1]), ("camera", lines[2])]
    assert workshop.log("camera").splitlines() == [*lines, "no end of line"]


def test_log_is_capped(workshop, monkeypatch):
    monkeypatch.setattr(module, "LOG_LIMIT_BYTES", 2000)
    script = 'for i in $(seq 300); do echo "line $i of many lines"; done; echo done\n' + NODE
    with workshop.supervisor(workshop.node("camera", script)):
        wait_for(lambda: "done" in workshop.log("camera"))
    assert all(path.stat().st_size < 2100 for path in (workshop.run_dir / "log").iterdir())


def test_usage_says_memory_and_load_of_each_process(workshop):
    with workshop.supervisor(workshop.node("idle", NODE), workshop.node("busy", "while :; do :; done")) as cell:
        time.sleep(0.3)
        usage = cell.usage()
    assert set(usage) == {"idle", "busy"}
    assert 0.05 < usage["busy"].memory_mb < 100
    assert usage["busy"].cpu_percent > 20 > usage["idle"].cpu_percent


def test_environment_leads_path_with_this_interpreter(workshop):
    with workshop.supervisor(workshop.node("camera", 'echo "$PATH"; echo ready\n' + NODE)):
        wait_for(lambda: "ready" in workshop.log("camera"))
    assert workshop.log("camera").startswith(str(Path(sys.executable).parent) + os.pathsep)


def test_failing_echo_does_not_stop_the_watch(workshop):
    def broken(name, line):
        raise BrokenPipeError

    cell = workshop.supervisor(workshop.node("ejector", NODE))
    cell._echo = broken
    with cell:
        first = cell.pids()["ejector"]
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: cell.pids().get("ejector", first) != first)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_to_the_command_stops_the_cell(workshop, number):
    workshop.plant()
    workshop.node("conveyor", NODE)
    program = f"""
import sys
from pathlib import Path
from battery_sorting.runtime.supervisor import Supervisor
from battery_sorting.cli.up import stop_on_signals
from battery_sorting.line.contract import Role
from battery_sorting.runtime.plan import NodeSpec, Plan, Ready, assign_ports, load_site_and_recipe
ports = tuple(f"plant.{{kind}}_port=0" for kind in ("modbus", "camera", "control"))
site, recipe = load_site_and_recipe("sim", None, ports)
plant = NodeSpec("plant", "plant", role=Role.PLANT, ready_when=Ready.SAYS_SO, respawn=False)
nodes = [plant, NodeSpec("conveyor", "conveyor")]
run = Path({str(workshop.run_dir)!r})
site = assign_ports(site.model_copy(update={{"line": {workshop.site.line!r}}}))
plan = Plan(site, recipe, run, tuple(nodes), {{"RUN": str(run)}})
cell = Supervisor(plan, find=lambda name: Path({str(workshop.bin)!r}) / name)
with stop_on_signals(cell), cell:
    print(*cell.pids().values(), flush=True)
    cell.wait()
"""
    command = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert command.stdout is not None
    pids = [int(pid) for pid in command.stdout.readline().split()]
    assert len(pids) == 2
    command.send_signal(number)
    assert command.wait(5) == 0
    command.stdout.close()
    assert not any(_runs(pid) for pid in pids)


# issue 15, B7
def test_whatever_a_process_prints_its_log_and_the_person_see_no_password(workshop):
    says = "echo '[ERROR] postgresql://line:hunter2@host/db refused: password=hunter2'; " + NODE
    with workshop.supervisor(workshop.plant(), workshop.node("archivist", says)):
        wait_for(lambda: "refused" in workshop.log("archivist") and workshop.echoed)
        assert workshop.log("archivist") == "[ERROR] postgresql://line:***@host/db refused: password=***\n"
        assert "hunter2" not in str(workshop.echoed) and "line:***@host" in str(workshop.echoed)

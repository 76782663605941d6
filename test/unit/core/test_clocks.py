"""Everything that waits goes by a clock that does not jump; wall time is for stamps alone."""

# issue 14, point 14

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import battery_sorting
from battery_sorting.belt.unit import BeltUnit
from battery_sorting.core.types import BeltState, LineStateId
from battery_sorting.packml.fleet import Lifecycle

PACKAGE = Path(battery_sorting.__file__).parent
OTHER_WORLDS = ("plant", "vision/training")
"""The simulated plant is no part of the line, and training runs by itself."""

WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}

STAMPS = {
    "runtime/demo/run.py: _run_line": "when the run began, against the ledger's stamps",
    "cli/models.py: activate_model": "stamp of the activation",
    "runtime/shared_memory.py: _is_made": "against a file's stamp",
    "ledger/backlog.py: Backlog.__init__": "stamps of records",
    "ledger/_ledger.py: Ledger.__init__": "stamps of records",
    "ledger/_ledger.py: Ledger.open": "stamps of records",
    "drivers/camera/base.py: Frame.__post_init__": "from the stamp of a driver that knows no other clock",
    "nodes/conveyor.py: _on_wall": "stamp of an edge",
    "drivers/camera/frame_server.py: FrameServerCamera.read": "age of a frame, by its stamp",
    "nodes/camera.py: CameraNode._expire": "stamp of a message",
    "nodes/camera.py: CameraNode._on_detection": "age of a detection, by its stamp",
    "nodes/classifier.py: ClassifierNode._tell": "stamp of a message",
    "nodes/conveyor.py: ConveyorNode._lose": "stamp of a state",
    "nodes/ejector.py: EjectorNode.__init__": "stamps of reports",
    "nodes/ejector.py: EjectorNode._announce": "stamp of an alarm",
    "nodes/ejector.py: EjectorNode._on_command": "stamp of a report",
    "nodes/inspection.py: InspectionNode._finish": "stamp of a message",
    "line/record_keeper.py: RecordKeeper.begin_shift": "stamp of a shift",
    "line/record_keeper.py: RecordKeeper.close": "stamp of a shift",
    "ros/convert.py: line_state_message": "stamp of a message",
    "ros/health.py: HealthVoice._send_heartbeat": "stamp of a message",
    "ros/health.py: publish_diagnostics": "stamp of a message",
    "ros/station_messages.py: cell_test_result": "stamp of a measurement",
    "ros/station_messages.py: station_state": "stamp of a message",
}
"""The only places that may ask for wall time, and what for."""


def wall_clock_uses(source: str) -> Iterator[str]:
    """Qualified names of the functions that touch a wall clock."""

    def look(node: ast.AST, within: tuple[str, ...]) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            name = getattr(child, "name", "")
            scope = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            if isinstance(child, ast.Attribute) and any(
                ast.unparse(child) == clock or ast.unparse(child).endswith(f".{clock}") for clock in WALL_CLOCKS
            ):
                yield ".".join(within)
            if isinstance(child, ast.ImportFrom) and child.module == "time":
                assert not {alias.name for alias in child.names} & {"time", "time_ns"}, "write time.time()"
            yield from look(child, (*within, name) if scope else within)

    yield from look(ast.parse(source), ())


def test_wall_time_is_asked_for_by_stamps_alone():
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith(OTHER_WORLDS):
            found |= {f"{place}: {function}" for function in wall_clock_uses(path.read_text())}
    assert found - set(STAMPS) == set(), "wait by self.now() or time.monotonic(); if it is a stamp, name it here"
    assert set(STAMPS) - found == set(), "no longer there: take it off the list"


@pytest.mark.parametrize(
    "source", ["def f(): return time.time()", "def f(clock=time.time): ...", "def f(): datetime.datetime.now()"]
)
def test_rule_sees_every_form(source):
    assert list(wall_clock_uses(f"import time, datetime\n{source}")) == ["f"]


def running_cell(now) -> BeltUnit:
    cell = BeltUnit(("conveyor", "ejector"), 0.5, auto_start=True)
    live(cell, now, 3.0)
    assert cell.state is LineStateId.EXECUTE
    return cell


def live(cell: BeltUnit, now, seconds: float) -> None:
    """The nodes say that they are well, the belt does as it is told, and the line ticks."""
    speed = 0.5 if cell.state is LineStateId.EXECUTE else 0.0
    for _ in range(round(seconds / 0.05)):
        now.pass_by(0.05)
        for node in cell.nodes:
            cell.heartbeat(node, Lifecycle.ACTIVE, True, "", now())
        cell.belt(BeltState(stamp=time.time(), connected=True, running=speed > 0, speed_mps=speed), now())
        for action in cell.tick(now()):
            speed = getattr(action, "speed_mps", speed)


class Hours:
    """Monotonic and wall clock of a host, in the hands of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        node_module = pytest.importorskip("battery_sorting.ros.node", reason="needs ROS")
        self.monotonic_s, self.wall_s = 1000.0, 1.8e9
        monkeypatch.setattr(time, "monotonic", lambda: self.monotonic_s)
        monkeypatch.setattr(time, "time", lambda: self.wall_s)
        node = SimpleNamespace(get_parameter=lambda _: SimpleNamespace(value=False))
        self._now = node_module.waiting_clock(node)

    def __call__(self) -> float:
        return self._now()

    def pass_by(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.wall_s += seconds


@pytest.mark.parametrize("step_s", [-37.0, -3600.0, 3600.0])
def test_line_whose_host_clock_is_set_while_it_is_unholding_goes_on(monkeypatch, step_s):
    """Before, −37 s kept it in Unholding for over 20 s, and −1 h would have for an hour."""
    now = Hours(monkeypatch)
    cell = running_cell(now)
    cell.command("hold", "by hand")
    live(cell, now, 2.0)
    assert cell.state is LineStateId.HELD
    cell.command("unhold", "by hand")
    assert cell.state is LineStateId.UNHOLDING
    now.wall_s += step_s
    live(cell, now, 2.0)
    assert cell.state is LineStateId.EXECUTE

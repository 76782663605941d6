"""What tests of nodes and whole cells have in common: domains, processes, the cell, and what must not be left."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from battery_sorting.belt.report import Figures, judge_run, load_run
from battery_sorting.core.errors import ConfigurationError, LedgerError
from battery_sorting.core.plant_control import PlantControl, load_record
from battery_sorting.core.types import EjectOutcome, make_battery_id
from battery_sorting.ev.report import EvFigures, EvRun
from battery_sorting.ledger import BatteryRecord, EventKind
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.contract import NODES, Role
from battery_sorting.line.paths import ledger_location
from battery_sorting.runtime.demo import BeltJob
from battery_sorting.runtime.demo.ev import EvJob, judged_report
from battery_sorting.runtime.plan import NodeSpec, Plan, find_executable
from battery_sorting.runtime.shared_memory import clean_shared_memory
from battery_sorting.runtime.supervisor import Supervisor, process_environment

ROOT = Path(__file__).parents[1]
MARK = "BATTERY_SORTING_TEST"
"""Environment variable by which the processes of a test are known, whoever their parent is by now."""

PATIENCE_S = 30.0
"""For whatever should take seconds: machines that test are busy."""

SHARED_MEMORY = Path("/dev/shm")
_SEGMENT = re.compile(r"/dev/shm/(fastrtps_\w+)")


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
    """What ``condition`` returns as soon as that is true; fails the test when it does not become true in time."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.02)
    return result


def wait_for_ends(mark: str, but: Collection[int] = (), timeout_s: float = PATIENCE_S) -> None:
    """Waits until no process with ``mark`` is left, except ``but``; a failure names who is."""
    deadline = time.monotonic() + timeout_s
    while left := {pid: what for pid, what in marked_processes(mark).items() if pid not in but}:
        assert time.monotonic() < deadline, f"after {timeout_s:g} s still there: {left}"
        time.sleep(0.02)


@contextmanager
def database_away(bench: Any) -> Iterator[None]:
    """The ledger's database answers no query, as one whose server is down; afterwards all is as it was."""
    path = str(ledger_location(bench.plan.site, bench.plan.run_dir))
    names = ("shifts", "batteries", "events")

    def rename(before: str, after: str) -> None:
        with closing(sqlite3.connect(path, timeout=PATIENCE_S)) as database:
            for name in names:
                database.execute(f"ALTER TABLE {name}{before} RENAME TO {name}{after}")
            database.commit()

    rename("", "_away")
    try:
        yield
    finally:
        rename("_away", "")


def why_no_ros() -> str:
    """Why tests that need ROS 2 can't run here; empty if they can."""
    if importlib.util.find_spec("rclpy") is None:
        return "rclpy is not installed: make setup"
    try:
        for name in NODES:
            find_executable(name)
    except ConfigurationError as error:
        return str(error)
    return ""


# ---- domains ----


@contextmanager
def own_domain() -> Iterator[int]:
    """A ROS domain that no other test on this machine uses, in ``ROS_DOMAIN_ID``."""
    before = os.environ.get("ROS_DOMAIN_ID")
    domain, lock = _claim_domain()
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    try:
        yield domain
    finally:
        lock.close()
        if before is None:
            del os.environ["ROS_DOMAIN_ID"]
        else:
            os.environ["ROS_DOMAIN_ID"] = before


def _claim_domain() -> tuple[int, IO[bytes]]:
    for step in range(101):
        domain = 1 + (os.getpid() + step) % 101
        lock = Path(tempfile.gettempdir(), f"battery_sorting_test_domain_{domain}.lock").open("wb")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        return domain, lock
    raise AssertionError("all ROS domains are taken by other tests")


# ---- what is there, and what must not be left ----


def marked_processes(mark: str) -> dict[int, str]:
    """Processes with ``mark`` in their environment, by process id: what they are. This process is left out."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        except OSError:  # it has ended meanwhile, or is somebody else's
            continue
    return found


def listening_ports(pids: set[int]) -> set[int]:
    """TCP ports on which these processes listen."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and row[9] in inodes}


def segments_of(pid: int) -> set[str]:
    """Names of the shared-memory files of Fast DDS that a process has mapped."""
    try:
        return set(_SEGMENT.findall(Path(f"/proc/{pid}/maps").read_text()))
    except OSError:
        return set()


class Leaks:
    """What this process and those that it has started hold before a test, to compare with what they hold after."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._threads = set(threading.enumerate())
        self._ports = listening_ports({os.getpid()})
        self.segments: set[str] = set()

    def note_segments(self) -> None:
        """Take down the shared memory of all processes of the test; call it before they are ended."""
        for pid in marked_processes(self._mark):
            self.segments |= segments_of(pid)

    def clean_shared_memory(self) -> None:
        """Remove what killed nodes have left where no supervisor does it. A dying process still holds its locks."""
        clean_shared_memory()
        deadline = time.monotonic() + 2.0
        while self._left_segments() and time.monotonic() < deadline:
            time.sleep(0.02)
            clean_shared_memory()

    def found(self) -> list[str]:
        """What is left over, after a moment for things that are just ending."""
        deadline = time.monotonic() + 1.0
        while (leaks := self._look()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return leaks

    def _look(self) -> list[str]:
        threads = [thread.name for thread in threading.enumerate() if thread not in self._threads]
        processes = marked_processes(self._mark)
        return [
            *(f"thread {name}" for name in threads),
            *(f"process {pid}: {what}" for pid, what in processes.items()),
            *(f"port {port}" for port in listening_ports({os.getpid()}) - self._ports),
            *(f"shared memory {name}" for name in sorted(self._left_segments())),
        ]

    def _left_segments(self) -> set[str]:
        left = {name for name in self.segments if (SHARED_MEMORY / name).exists()}
        if left:  # a cell beside this test may have taken the name of a port over
            left -= set().union(*(segments_of(int(path.name)) for path in Path("/proc").glob("[0-9]*")))
        return left


# ---- processes ----


def run_cli(*arguments: str, timeout_s: float = 60.0, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Run ``battery-sorting`` to its end."""
    command = [sys.executable, "-m", "battery_sorting.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT, **changes)


class Process:
    """A process whose output is kept in a file, ended with the ``with`` block."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=ROOT,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        for number, grace_s in ((signal.SIGINT, 3.0), (signal.SIGKILL, 5.0)):
            if self.exit_code is None:
                self.signal(number)
                try:
                    self._popen.wait(grace_s)
                except subprocess.TimeoutExpired:
                    continue

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._popen.poll()

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the process, not to its children."""
        self._popen.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the end; returns the exit code."""
        return self._popen.wait(timeout_s)


def start_spec(plan: Plan, spec: NodeSpec) -> Process:
    """Start one process of a plan as the supervisor would."""
    log = plan.run_dir / "log" / f"{spec.name}.log"
    command = [str(find_executable(spec.executable)), *spec.command_line()]
    return Process(command, log, process_environment(plan))


def start_plant(plan: Plan) -> Process:
    """Start the plant of a plan and wait until its ports are open."""
    plant = start_spec(plan, next(spec for spec in plan.nodes if spec.role is Role.PLANT))
    try:
        wait_for(lambda: '"ready"' in plant.output or plant.exit_code is not None, "the plant is ready")
        assert plant.exit_code is None, plant.output
    except BaseException:
        plant.__exit__()
        raise
    return plant


# ---- the whole cell ----


class Cell:
    """A whole cell on the simulated plant, started by the supervisor; judged by the plant's own record."""

    def __init__(
        self,
        run_dir: Path,
        items: int,
        rate_per_s: float = 4.0,
        overrides: tuple[str, ...] = (),
        seed: int = 1,
        without: tuple[str, ...] = (),
    ) -> None:
        plan = BeltJob(items, seed, run_dir, overrides, rate_per_s=rate_per_s).make_plan()
        nodes = tuple(spec for spec in plan.nodes if spec.name not in without)
        self._use(replace(plan, nodes=nodes), items)

    def _use(self, plan: Plan, items: int) -> None:
        self.plan, self.items = plan, items
        self.told: list[str] = []
        self.supervisor = Supervisor(self.plan, lambda name, line: self.told.append(f"{name}: {line}"))
        self.before_stop: Callable[[], None] = lambda: None

    def __enter__(self) -> Cell:
        try:
            self.supervisor.start()
            port = (self.plan.site.plant or {})["control_port"]
            self.control = PlantControl("127.0.0.1", port, timeout_s=10.0)
        except BaseException:
            self.supervisor.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop everything; may be called twice."""
        self.before_stop()
        self.control.close()
        self.supervisor.stop()

    # ---- looking ----

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The ledger, to read."""
        with Ledger.open(ledger_location(self.plan.site, self.plan.run_dir), read_only=True) as ledger:
            yield ledger

    @property
    def state(self) -> str:
        """The state of the line as last recorded."""
        return self.states[-1] if self.states else ""

    @property
    def states(self) -> list[str]:
        """All states of the line so far."""
        try:
            with self.ledger() as ledger:
                return [event.payload["name"] for event in ledger.events(kinds=[EventKind.LINE_STATE])]
        except LedgerError:  # the line controller is just making it
            return []

    @property
    def alarms(self) -> dict[str, str]:
        """Alarms that were ever raised: code → text."""
        try:
            with self.ledger() as ledger:
                events = ledger.events(kinds=[EventKind.ALARM_RAISED])
        except LedgerError:  # the line controller is just making it
            return {}
        return {event.payload["code"]: event.payload["text"] for event in events}

    def raised(self, code: str) -> int:
        """How often an alarm was raised so far."""
        with self.ledger() as ledger:
            events = ledger.events(kinds=[EventKind.ALARM_RAISED])
        return sum(event.payload["code"] == code for event in events)

    @property
    def cleared(self) -> set[str]:
        """Codes of the alarms that have gone since they were raised last."""
        with self.ledger() as ledger:
            events = ledger.events(kinds=[EventKind.ALARM_RAISED, EventKind.ALARM_CLEARED])
        last = {event.payload["code"]: event.kind for event in events}
        return {code for code, kind in last.items() if kind == EventKind.ALARM_CLEARED}

    def triggers(self) -> int:
        """Batteries that have passed the photo-eye."""
        count: int = self.control.summary()["triggers"]
        return count

    def pulses(self) -> list[dict[str, Any]]:
        """What the valves have done, as the plant saw it."""
        pulses: list[dict[str, Any]] = self.control.record()["pulses"]
        return pulses

    # ---- waiting ----

    def wait_for(self, condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
        """As `wait_for`; a cell that has given up, and its last words, are told."""

        def alive_and_true() -> Any:
            self.supervisor.wait(0.0)
            return condition()

        try:
            return wait_for(alive_and_true, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(
                f"{error}; the line is {self.state}; told:\n" + "\n".join(self.told[-20:])
            ) from None

    def wait_for_state(self, name: str, timeout_s: float = PATIENCE_S) -> None:
        """Until the line is in this state."""
        self.wait_for(lambda: self.state == name, f"line is {name}", timeout_s)

    def wait_for_triggers(self, more: int, timeout_s: float = PATIENCE_S) -> None:
        """Until so many more batteries have passed the photo-eye."""
        goal = self.triggers() + more
        self.wait_for(lambda: self.triggers() >= goal, f"{more} more batteries at the photo-eye", timeout_s)

    def wait_for_node(self, name: str, other_than: int) -> None:
        """Until the successor of a node that died is there."""
        self.wait_for(lambda: self.supervisor.pids().get(name, other_than) != other_than, f"{name} started again")

    # ---- acting ----

    def kill(self, name: str) -> int:
        """SIGKILL to one process; returns the process id that it had."""
        self.before_stop()
        pid = self.supervisor.pids()[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Give the line a command as an operator would."""
        environment = {**os.environ, **self.plan.environment}
        return run_cli("command", *words, "--line", self.plan.site.line, env=environment)

    def restart_line(self) -> None:
        """Clear, reset and start after an abort."""
        for command, state in (("clear", "Stopped"), ("reset", "Idle"), ("start", "Execute")):
            answer = self.command(command)
            assert answer.returncode == 0, answer.stderr
            self.wait_for_state(state)

    # ---- judging ----

    def finish(self, timeout_s: float = 60.0) -> tuple[Figures, dict[str, Any], list[BatteryRecord]]:
        """Wait until every battery is in a bin and has its last word, stop the cell, and judge it.

        Returns the figures, the plant's record and the ledger's batteries.
        """
        self.wait_for(lambda: self.control.summary()["finished"], "all batteries are in a bin", timeout_s)

        def nothing_is_open() -> bool:
            with self.ledger() as ledger:
                known = len(ledger.known_ids(make_battery_id(self.control.summary()["boot_id"], 0)[:-6]))
                return known == self.triggers() and not ledger.open_batteries(self.plan.site.line)

        self.wait_for(nothing_is_open, "the ledger has the last word on every battery")
        self.stop()
        record = load_record(self.plan.run_dir / "plant.jsonl")
        with self.ledger() as ledger:
            run = load_run(ledger, boot_id=record["boot_id"])
        return judge_run(run, record), record, run.batteries


class EvLine(Cell):
    """A whole EV line on the simulated plant, judged by the plant's own record."""

    def __init__(self, run_dir: Path, items: int, overrides: tuple[str, ...] = (), seed: int = 1) -> None:
        self._use(EvJob(items, seed, run_dir, overrides).make_plan(), items)

    def placed(self) -> int:
        """Cells that have their last word."""
        with self.ledger() as ledger:
            return sum(battery.bin is not None for battery in ledger.batteries())

    def released(self) -> int:
        """Cells that have left the station."""
        with self.ledger() as ledger:
            return len(ledger.events(kinds=[EventKind.RELEASED]))

    def judge(self, timeout_s: float = 120.0) -> tuple[EvFigures, EvRun]:
        """Wait until every cell has its last word, stop the line, and judge it by the plant's record."""

        def all_is_done() -> bool:
            with self.ledger() as ledger:
                still_open = ledger.open_batteries(self.plan.site.line)
            return bool(self.control.summary()["finished"]) and not still_open and self.placed() > 0

        self.wait_for(lambda: "Execute" in self.states, "the line runs", timeout_s)
        self.wait_for(all_is_done, "every cell has its last word", timeout_s)
        self.stop()
        report = judged_report(self.plan)
        return report.figures, report.run


def check_account(
    record: dict[str, Any], batteries: list[BatteryRecord], excused: Collection[str] = frozenset()
) -> None:
    """Every battery of the plant has one last word that fits where it fell, and no token has fired twice.

    With a reason that is ``excused``, a battery may be elsewhere than the ledger says.
    """
    by_id = {battery.battery_id: battery for battery in batteries}
    assert len(by_id) == len(batteries)
    problems = []
    for item in record["items"]:
        if item["trigger_count"] is None:
            continue
        battery = by_id.get(make_battery_id(record["boot_id"], item["trigger_count"]))
        if battery is None or battery.bin is None:
            problems.append(f"battery {item['trigger_count']} of {item['bin']} has no last word")
        elif battery.bin != item["bin"] and battery.reason not in excused:
            problems.append(f"battery {battery.battery_id} is in {item['bin']}, the ledger says {battery}")
    tokens = [pulse["token"] for pulse in record["pulses"]]
    ordered = {battery.token for battery in batteries}
    problems += [f"token {token} has fired twice" for token in set(tokens) if tokens.count(token) > 1]
    problems += [f"token {token} has fired without a record" for token in set(tokens) - ordered]
    fired = {battery.token for battery in batteries if battery.eject_outcome is EjectOutcome.FIRED}
    problems += [f"token {token} is on record as fired, but has not" for token in fired - set(tokens)]
    assert not problems, "\n".join(problems)

"""Kills nodes, freezes their successors, and sees whether the line comes back by itself every time.

    scripts/run-in-environment python bench/deaf.py [--line belt|ev] [--tries 20] [--seed 0] [--json FILE]

Each try kills a node (SIGKILL) and freezes its successor (SIGSTOP) for some seconds soon after it has started, on a
machine that is kept busy. A middleware that has given the frozen process up in the meantime may never hear it
again. The line must be in Execute again, and at work, within --patience seconds. Exit code 0 only if it was each
time. The profile in FASTRTPS_DEFAULT_PROFILES_FILE, if there is one, is tried in place of the package's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.ledger import EventKind
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.paths import ledger_location
from battery_sorting.runtime.demo import BeltJob
from battery_sorting.runtime.demo.ev import EvJob
from battery_sorting.runtime.demo.run import plant_control
from battery_sorting.runtime.plan import Plan
from battery_sorting.runtime.supervisor import Supervisor

START_S = 60.0
LOOK_S = 0.1
STEADY_S = 1.5
"""The line counts as back when it has been at work for so long."""


@dataclass(frozen=True)
class Try:
    """One kill and freeze: of which node, when and how it ended."""

    node: str
    froze_after_s: float
    back: bool
    back_after_s: float
    ended_themselves: int
    said: tuple[str, ...]


class Line:
    """A running line on the simulated plant."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.told: list[str] = []
        self.supervisor = Supervisor(plan, lambda name, line: self.told.append(f"{name}: {line}"))

    def state(self) -> str:
        """The line's state as last recorded."""
        with contextlib.suppress(BatterySortingError), self._ledger() as ledger:
            events = ledger.events(kinds=[EventKind.LINE_STATE], last=1)
            return events[-1].payload["name"] if events else ""
        return ""

    def progress(self) -> int:
        """Records so far: they grow while the line works."""
        with contextlib.suppress(BatterySortingError), self._ledger() as ledger:
            events = ledger.events(last=1)
            return events[-1].event_id if events else 0
        return 0

    def _ledger(self) -> Ledger:
        return Ledger.open(ledger_location(self.plan.site, self.plan.run_dir), read_only=True)

    def alarms(self) -> tuple[str, ...]:
        """The last alarms: why the line stands."""
        with contextlib.suppress(BatterySortingError), self._ledger() as ledger:
            events = ledger.events(kinds=[EventKind.ALARM_RAISED], last=4)
            return tuple(f"alarm {event.payload['code']}: {event.payload['text']}" for event in events)
        return ()


def main() -> int:
    """Runs the benchmark."""
    arguments = parse_arguments()
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    with tempfile.TemporaryDirectory(prefix="deaf-") as folder, background_load(arguments.load):
        tries = measure(arguments, Path(folder))
    back = sum(one.back for one in tries)
    ended = sum(one.ended_themselves for one in tries)
    print(f"{arguments.line}: {back} of {len(tries)} back by themselves; {ended} processes ended themselves")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(one) for one in tries], indent=2) + "\n", encoding="utf-8")
    return 0 if back == len(tries) == arguments.tries else 1


def parse_arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--line", choices=("belt", "ev"), default="belt")
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of nodes and moments")
    parser.add_argument("--node", default="", help="always this node; else any")
    parser.add_argument("--freeze", type=float, default=8.0, help="seconds")
    parser.add_argument(
        "--after",
        type=float,
        nargs=2,
        default=(3.0, 12.0),
        metavar="S",
        help="age of the successor when it freezes",
    )
    parser.add_argument("--load", type=int, default=2, help="busy processes beside the line")
    parser.add_argument("--patience", type=float, default=40.0, help="seconds for the line to come back")
    parser.add_argument("--json", type=Path, help="write the tries into this file")
    return parser.parse_args()


@contextlib.contextmanager
def background_load(number: int) -> Iterator[None]:
    """Busy processes, as other work on a small machine."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(arguments: argparse.Namespace, folder: Path) -> list[Try]:
    """All tries on one line."""
    chance = random.Random(arguments.seed)
    if arguments.line == "belt":
        plan = BeltJob(100_000, arguments.seed, folder, rate_per_s=2.0).make_plan()
    else:
        plan = EvJob(300, arguments.seed, folder).make_plan()
    nodes = [spec.name for spec in plan.nodes if spec.is_node]
    line = Line(plan)
    tries: list[Try] = []
    with line.supervisor:
        if not wait_for(lambda: line.state() == "Execute", START_S):
            print(f"the line did not start: it is {line.state()}; {line.told[-5:]}", flush=True)
            return tries
        for number in range(arguments.tries):
            after_s = chance.uniform(*arguments.after)
            node = arguments.node or chance.choice(nodes)
            one = kill_and_freeze(line, node, after_s, arguments.freeze, arguments.patience)
            tries.append(one)
            print(f"{arguments.line} {number + 1}: {describe(one, line)}", flush=True)
            if not one.back:
                repair(line, node)
        control = plant_control(plan)
        control.close()
    return tries


def kill_and_freeze(line: Line, node: str, after_s: float, freeze_s: float, patience_s: float) -> Try:
    """One try. Raises `CellError` if the line is given up."""
    said_before = len(line.told)
    pid = line.supervisor.pids()[node]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: line.supervisor.pids().get(node, pid) != pid, START_S)
    successor = line.supervisor.pids()[node]
    time.sleep(after_s)
    with contextlib.suppress(ProcessLookupError):
        os.kill(successor, signal.SIGSTOP)
        time.sleep(freeze_s)
        os.kill(successor, signal.SIGCONT)
    thawed = time.monotonic()
    line.supervisor.wait(0.0)
    back = wait_for(lambda: is_at_work(line), patience_s)
    ended = tuple(text for text in line.told[said_before:] if "ends itself, to be" in text and "FATAL" in text)
    said = ended if back else (*ended, *line.alarms())
    return Try(node, round(after_s, 1), back, round(time.monotonic() - thawed, 1), len(ended), said)


def is_at_work(line: Line) -> bool:
    """Whether the line is in Execute, stays there for a while, and records something meanwhile."""
    if line.state() != "Execute":
        return False
    before = line.progress()
    until = time.monotonic() + STEADY_S
    while time.monotonic() < until:
        if line.state() != "Execute":
            return False
        time.sleep(LOOK_S)
    return line.plan.site.kind == "ev" or line.progress() > before


def repair(line: Line, node: str) -> None:
    """Somebody kills what does not hear, so that the next try begins at a running line."""
    for name in dict.fromkeys((node, "line_controller")):
        with contextlib.suppress(KeyError, ProcessLookupError):
            os.kill(line.supervisor.pids()[name], signal.SIGKILL)
        if wait_for(lambda: is_at_work(line), 20.0):
            return


def describe(one: Try, line: Line) -> str:
    """One line for people."""
    end = f"back after {one.back_after_s:g} s" if one.back else f"NOT back: the line is {line.state()}"
    return f"{one.node}, frozen at the age of {one.froze_after_s:g} s: {end}" + "".join(
        f"\n    {s}" for s in one.said
    )


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether ``condition`` becomes true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


if __name__ == "__main__":
    sys.exit(main())

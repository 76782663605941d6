"""Runs a soak: strikes the line with faults, does after each what the docs tell a person to do, and judges it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from harness import MARK, ROOT, Cell, EvLine, Leaks, own_domain

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.plant_control import fold_record
from battery_sorting.line.paths import ledger_location
from battery_sorting.lines import LINES, node_names
from battery_sorting.runtime.demo.ev import judged_report

from ..links import Links
from .book import Book, reading
from .faults import Deck, Fault, facts, off, write_faults
from .judge import EV_MUST_BE_EMPTY, BeltJudge, Judgement, judge_ev_round

BOUND_S = 60.0
"""So long after its end a fault may keep the line, commands of a person included."""
RESCUE_S = 30.0
START_S = 60.0
SETTLE_S = 2.5
"""A fault shows within this time: before, a line that seems to run may just not have noticed."""
CALM_S = 1.5
"""A state that has lasted so long is not just passing."""
PAUSE_S = 3.0
"""From the line's going on to the next fault, at the least."""
REPEAT_S = 3.0
"""Before a person gives the same command again."""
EMPTY_S = 60.0
"""For the belt to run empty at the end."""
STUCK_S = 120.0
"""An EV line that has done nothing for so long won't any more."""
TESTING_S = 20.0
"""Longer than a test on the simulated tester takes."""
LOOK_S = 0.05
FOLLOW_S = 0.5
CELLS_A_ROUND = 30
SECONDS_A_CELL = 7.0
COMMANDS = {"Aborted": "clear", "Stopped": "reset", "Idle": "start", "Suspended": "unsuspend"}
"""What the docs tell a person to do in which state, once the cause is gone; a hold is seen to by `_wanted`."""


class Stopped(Exception):
    """Somebody wants the soak to end."""


class GivenUp(Exception):
    """The line can't be brought to work again."""


@dataclass(frozen=True)
class Options:
    """What is to be done.

    Attributes:
        minutes: Faults strike for so long; the work that was begun is then brought to its end.
        replay: These faults in place of drawn ones; the soak ends after the last.
        overrides: Settings of site and recipe, besides those of the soak.
        cells: EV line: so many cells a round; None: `CELLS_A_ROUND`, fewer when time runs out.
        catch_signals: Whether SIGINT and SIGTERM end the soak with a partial judgement.
    """

    line: str
    run_dir: Path
    minutes: float = 30.0
    seed: int = 1
    rate: float = 5.0
    replay: Sequence[Fault] | None = None
    overrides: tuple[str, ...] = ()
    cells: int | None = None
    catch_signals: bool = False


@dataclass(frozen=True)
class _Mark:
    """How far a line was when a fault ended: batteries that had come, and numbers of events."""

    items: int
    work: int
    detected: int
    looked: int


@dataclass
class Outcome:
    """What came of a soak."""

    options: Options
    judgement: Judgement
    faults: list[dict[str, Any]]
    seconds: float = 0.0
    interrupted: bool = False
    problems: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    memory_mb: dict[str, dict[str, float]] = field(default_factory=dict)
    deaths: int = 0

    @property
    def failures(self) -> list[str]:
        """Why the line has not passed; empty if it has."""
        stuck = [
            f"fault {entry['number']}, {entry['what']}: {entry['failures'][0]['why']}"
            for entry in self.faults
            if entry.get("failed")
        ]
        return [
            *self.judgement.failures,
            *stuck,
            *self.problems,
            *(f"left behind: {leak}" for leak in self.leaks),
        ]

    @property
    def commands(self) -> Counter[str]:
        """Commands that were needed, and how often."""
        return Counter(name for entry in self.faults for name in entry.get("commands", ()))

    def to_dict(self) -> dict[str, Any]:
        """Data for JSON."""
        options = self.options
        return {
            "line": options.line,
            "seed": options.seed,
            "minutes": options.minutes,
            "rate": options.rate,
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
            "passed": not self.failures,
            "failures": self.failures,
            **self.judgement.to_dict(),
            "commands": dict(self.commands),
            "memory_mb": self.memory_mb,
            "deaths": self.deaths,
            "faults": self.faults,
        }


class Soak:
    """One soak. ``tell`` gets a line of text for each fault and each step."""

    def __init__(self, options: Options, tell: Callable[[str], None] = lambda _: None) -> None:
        self.options = options
        self._tell = tell
        belt = options.line == "belt"
        self._judgement = Judgement() if belt else Judgement(must_be_empty=EV_MUST_BE_EMPTY)
        self._struck: list[dict[str, Any]] = []
        self._problems: list[str] = []
        self._memory: dict[str, dict[str, float]] = {}
        self.deaths = 0
        self._interrupted = False
        self._cell: Cell | None = None
        self._replay = list(options.replay) if options.replay is not None else None
        self._deck: Deck | None = None
        self._next: Fault | None = None
        self.round = 0
        self._stopped_pids: set[int] = set()

    # ---- the whole ----

    def run(self) -> Outcome:
        """Run it to its end.

        Raises:
            BatterySortingError: The line could not be started at all.
        """
        began = time.monotonic()
        self.options.run_dir.mkdir(parents=True, exist_ok=True)
        mark = os.environ.get(MARK) or uuid.uuid4().hex
        with _environment(**{MARK: mark, "OMP_NUM_THREADS": "1"}), own_domain(), self._signals():
            leaks = Leaks(mark)
            try:
                self._rounds(began, leaks)
            except Stopped:
                self._interrupted = True
            finally:
                self._write_faults()
            leaks.clean_shared_memory()
            left = leaks.found()
        return Outcome(
            self.options,
            self._judgement,
            self._struck,
            time.monotonic() - began,
            self._interrupted,
            self._problems,
            left,
            self._memory,
            self.deaths,
        )

    def _rounds(self, began: float, leaks: Leaks) -> None:
        until = began + 60.0 * self.options.minutes
        while True:
            self.round += 1
            go_on = self._one_round(until, leaks)
            if not go_on or self.options.line == "belt" or self._over(until):
                return

    def _over(self, until: float) -> bool:
        if self._replay is not None:
            return not self._replay and self._next is None
        return time.monotonic() >= until

    def _one_round(self, until: float, leaks: Leaks) -> bool:
        """Start the line, soak it, end and judge it. False: there is no use in another round."""
        ports = {key: to for key, to in LINES[self.options.line].plant_ports.items() if to is not None}
        folder = self.options.run_dir / ("run" if self.options.line == "belt" else f"round{self.round}")
        with Links(ports) as links:
            cell = self._cell = self._make(folder, links.ports, until)
            cell.told = deque(maxlen=2000)
            cell.before_stop = leaks.note_segments
            plant = cell.plan.site.plant or {}
            links.start({name: plant[name] for name in ports})
            turn = _Turn(self, cell, links, folder)
            whole = False
            try:
                with cell:
                    try:
                        turn.wait_for_start()
                        turn.strike_until(until)
                        turn.bring_to_an_end()
                        whole = True
                    finally:
                        self._thaw()
                        with contextlib.suppress(BatterySortingError):
                            self._note_memory(cell, "last")
                            turn.look_at_the_end()
            except GivenUp as error:
                self._problems.append(str(error))
            except BatterySortingError as error:
                if self._interrupted:
                    raise Stopped from error
                self._problems.append(str(error).splitlines()[0])
                self._tell(f"the line has ended: {error}")
            finally:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "told.log").write_text("\n".join(cell.told) + "\n", encoding="utf-8")
                self._cell = None
                self._judge(turn, partial=not whole)
        return whole

    def _make(self, folder: Path, ports: dict[str, int], until: float) -> Cell:
        options = self.options
        devices = [
            f"{device}.settings.{setting}={ports[name]}"
            for name, to in LINES[options.line].plant_ports.items()
            if to is not None
            for device, setting in [to]
        ]
        overrides = (*devices, "images.keep=rejected", *options.overrides)
        if options.line == "belt":
            return Cell(folder, 0, options.rate, ("plant.keep_record=false", *overrides), options.seed)
        left_s = until - time.monotonic()
        cells = options.cells or max(6, min(CELLS_A_ROUND, int(left_s / SECONDS_A_CELL)))
        return EvLine(folder, cells, overrides, options.seed * 1000 + self.round)

    def _judge(self, turn: _Turn, *, partial: bool) -> None:
        try:
            self._judgement = turn.judge(self._judgement, partial=partial)
        except BatterySortingError as error:
            if not self._interrupted:  # else it may have had no time to write anything
                self._problems.append(f"can't be judged: {str(error).splitlines()[0]}")

    # ---- faults ----

    def upcoming(self, turn: _Turn) -> Fault | None:
        """The next fault, None if there is none any more."""
        if self._next is None:
            if self._replay is not None:
                self._next = self._replay.pop(0) if self._replay else None
            else:
                if self._deck is None:
                    self._deck = turn.make_deck(self.options.seed)
                self._next = next(self._deck)
        return self._next

    def took(self, entry: dict[str, Any]) -> None:
        """The fault has struck."""
        self._next = None
        self._struck.append(entry)

    def replays(self) -> bool:
        """Whether the faults are those of an earlier soak."""
        return self._replay is not None

    def fault_before(self, t_s: float) -> int | None:
        """Number of the last fault that struck in this round before a time of the plant (s)."""
        here = [entry for entry in self._struck if entry["round"] == self.round and entry["t_s"] <= t_s]
        return here[-1]["number"] if here else None

    def last_fault(self) -> dict[str, Any] | None:
        """The fault that struck last."""
        return self._struck[-1] if self._struck else None

    def tell(self, text: str) -> None:
        """Say something to whoever watches."""
        self._tell(text)

    def problem(self, text: str) -> None:
        """Something that fails the soak, besides faults and offenders."""
        self._problems.append(text)

    def write_faults(self) -> None:
        """Keep the list on disk complete, whatever comes."""
        self._write_faults()

    def _write_faults(self) -> None:
        head = {"line": self.options.line, "seed": self.options.seed, "rate": self.options.rate}
        write_faults(self.options.run_dir / "faults.json", head, self._struck)

    # ---- processes and signals ----

    def freeze(self, pid: int) -> None:
        """SIGSTOP, noted so that nothing stays frozen."""
        self._stopped_pids.add(pid)
        os.kill(pid, signal.SIGSTOP)

    def _thaw(self) -> None:
        for pid in self._stopped_pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped_pids.clear()

    thaw = _thaw

    def _note_memory(self, cell: Cell, when: str) -> None:
        usage = {name: round(one.memory_mb, 1) for name, one in cell.supervisor.usage().items()}
        self._memory.setdefault(when, {}).update(usage)
        own = Path("/proc/self/statm").read_text().split()
        self._memory[when]["soak"] = round(int(own[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)

    note_memory = _note_memory

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first signal ends the soak, the second kills the line."""

        def take(_number: int, _frame: FrameType | None) -> None:
            cell = self._cell
            if self._interrupted and cell is not None:
                cell.supervisor.kill()
            self._interrupted = True
            if cell is not None:
                cell.supervisor.request_stop()

        if not self.options.catch_signals:
            yield
            return
        before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def interrupted(self) -> bool:
        """Whether somebody wants it to end."""
        return self._interrupted


class _Turn:
    """One line that runs, and the person who watches it."""

    def __init__(self, soak: Soak, cell: Cell, links: Links, folder: Path) -> None:
        self.soak, self.cell, self.links, self.folder = soak, cell, links, folder
        self.ev = isinstance(cell, EvLine)
        self.nodes = node_names(cell.plan.site)
        self.ledger = Path(str(ledger_location(cell.plan.site, cell.plan.run_dir)))
        self.book = Book(self.ledger)
        self.belt_judge: BeltJudge | None = None
        if not self.ev:
            routes = dict(cell.plan.recipe.routes)
            record = cell.plan.run_dir / "plant.jsonl"
            self.belt_judge = BeltJudge(record, self.ledger, routes, soak.fault_before)
        self._followed_at = 0.0
        self._items_at_back = 0
        self._back_at = 0.0
        self._last_item = (0, time.monotonic())
        self._command_at = 0.0
        self._commanded_in = ""
        self._channels_on: list[int] = []
        self._emptied: set[str] = set()

    # ---- watching ----

    def step(self, wait_s: float = LOOK_S) -> None:
        """Let a moment pass, and look at the line.

        Raises:
            Stopped: Somebody wants the soak to end.
            CellError: A process died for good.
        """
        if self.cell.supervisor.wait(wait_s) or self.soak.interrupted:
            raise Stopped
        if time.monotonic() - self._followed_at >= FOLLOW_S:
            self.book.follow()
            if self.belt_judge is not None:
                self.belt_judge.follow()
            self._followed_at = time.monotonic()
        items = self.items()
        if items != self._last_item[0]:
            self._last_item = (items, time.monotonic())

    def items(self) -> int:
        """Batteries that have come so far: edges of the photo-eye, or cells in the station."""
        return self.book.counts["detected"] if self.belt_judge is None else self.belt_judge.triggers

    def plant_s(self) -> float:
        """The plant's time (s)."""
        return float(self.cell.control.state()["t_s"])

    def up(self) -> bool:
        """Whether the line works and has done so for a moment."""
        pids = self.cell.supervisor.pids()
        return (
            self.book.state == "Execute"
            and time.monotonic() - self.book.since >= CALM_S
            and all(name in pids for name in self.nodes)
        )

    def all_done(self) -> bool:
        """EV line: whether every cell of the round has its last word."""
        if not self.ev or not self.cell.control.summary()["finished"] or not self.book.counts["disposed"]:
            return False
        with reading(self.ledger) as connection:
            return not connection.execute("SELECT count(*) FROM batteries WHERE bin IS NULL").fetchone()[0]

    def wait_for_start(self) -> None:
        """Until the line runs. A simulated line starts by itself."""
        deadline = time.monotonic() + START_S
        while not self.up():
            self.step()
            if time.monotonic() > deadline:
                raise GivenUp(f"the line does not start: {self._snapshot()}")
        self.soak.note_memory(self.cell, "first")
        self._went_on()

    def _went_on(self) -> None:
        self._items_at_back, self._back_at = self.items(), time.monotonic()

    # ---- faults ----

    def make_deck(self, seed: int) -> Deck:
        """The faults of this line."""
        links = [name.removesuffix("_port") for name in self.links.ports]
        return Deck(self.soak.options.line, seed, self.cell.control.faults(), self.nodes, links)

    def strike_until(self, until: float) -> None:
        """Strike the line with one fault after the other until the time is over, or the round."""
        struck_at = time.monotonic()
        while (fault := self.soak.upcoming(self)) is not None:
            if not self.soak.replays() and struck_at + fault.gap_s >= until:
                return
            if not self._wait_for_moment(fault, struck_at):
                return
            struck_at = time.monotonic()
            self._strike(fault)

    def _wait_for_moment(self, fault: Fault, struck_at: float) -> bool:
        """Until it is time for a fault. False: the round is over before."""
        up_at = time.monotonic()
        while not self._is_due(fault, struck_at):
            self.step()
            if self.up():
                up_at = time.monotonic()
            elif time.monotonic() - up_at >= 2 * CALM_S:
                self._see_to_late_hold()
                up_at = time.monotonic()
            if self.ev and self.all_done():
                return False
        return True

    def _is_due(self, fault: Fault, struck_at: float) -> bool:
        now = time.monotonic()
        if not self.up() or now - self._back_at < 0.2:
            return False
        if not self.soak.replays() or fault.after_items is None:
            return now - struck_at >= fault.gap_s and now - self._back_at >= PAUSE_S
        since = self.items() - self._items_at_back
        phase_s = now - self._last_item[1]
        return since > fault.after_items or (since == fault.after_items and phase_s >= fault.phase_s)

    def _see_to_late_hold(self) -> None:
        """The line came to a stop although the last fault had ended: it is that fault's all the same."""
        entry = self.soak.last_fault()
        if entry is None:
            entry = {"number": 0, "what": "no fault", "commands": []}
        self._bring_back(entry, late=True)
        if entry["number"] == 0 and entry.get("failed"):
            self.soak.problem(f"without any fault: {entry['failures'][0]['why']}")

    def _strike(self, fault: Fault) -> None:
        items = self.items()
        entry = {
            **facts(fault),
            "what": str(fault),
            "round": self.soak.round,
            "t_s": self.plant_s(),
            "items": items,
            "after_items": items - self._items_at_back,
            "phase_s": round(time.monotonic() - self._last_item[1], 3),
            "commands": [],
        }
        self.soak.took(entry)
        self.soak.write_faults()
        end = self._begin(fault)
        try:
            deadline = time.monotonic() + fault.seconds
            while fault.seconds and time.monotonic() < deadline:
                self.step()
        finally:
            end()
        self._bring_back(entry, fault=fault)
        self.soak.write_faults()

    def _begin(self, fault: Fault) -> Callable[[], None]:
        """Let a fault begin; returns what ends it."""
        cell, name = self.cell, fault.target
        if fault.kind == "switch":
            cell.control.set_faults(**{name: fault.value})
            if fault.seconds:
                return lambda: cell.control.set_faults(**{name: off(name, fault.value)}) and None
            return lambda: None
        if fault.kind == "link":
            settings = dict(fault.value)
            self.links.set(f"{name}_port", settings.pop("trouble"), **settings)
            return lambda: self.links.set(f"{name}_port", "none")
        if fault.kind == "lock":
            connection = sqlite3.connect(self.ledger, timeout=BOUND_S, isolation_level=None)
            connection.execute("BEGIN IMMEDIATE")
            return connection.close
        if fault.kind == "kill":
            cell.kill(name)
            return lambda: None
        if fault.kind == "freeze":
            self.soak.freeze(cell.supervisor.pids()[name])
            return self.soak.thaw
        raise ValueError(f"fault {fault.number}: no such kind: {fault.kind}")

    # ---- the person ----

    def _bring_back(self, entry: dict[str, Any], fault: Fault | None = None, *, late: bool = False) -> None:
        """Wait until the line works again, and give the commands that the docs name where they must be given."""
        ended = time.monotonic()
        self.book.follow()
        counts = self.book.counts
        mark = _Mark(self.items(), self.book.work, counts["detected"], counts["looked"])
        self._command_at, self._commanded_in = 0.0, ""
        before = len(entry["commands"])
        back_s = self._wait_for_line(entry, fault, mark, ended, BOUND_S)
        if back_s is None:
            self._fail(entry, f"not back within {BOUND_S:g} s")
            self._rescue(entry, fault, mark)
        else:
            key = "late_s" if late else "took_s"
            entry[key] = round(back_s, 1)
            given = entry["commands"][before:]
            if fault is not None and fault.target.endswith("estop") and "clear" not in given:
                self._fail(entry, "it went on after an emergency stop that nobody had cleared")
            how = ", ".join(given) if given else "by itself"
            what = f"{entry['what']} (held later)" if late else entry["what"]
            self.soak.tell(f"#{entry['number']:<3} {what}: back after {back_s:.1f} s, {how}")
        self._went_on()

    def _fail(self, entry: dict[str, Any], why: str) -> None:
        """The fault is one that the line can't stand."""
        seen = self._snapshot()
        entry["failed"] = True
        entry.setdefault("failures", []).append({"why": f"{why}; {seen['line']}", **seen})
        self.soak.tell(f"#{entry['number']:<3} {entry['what']}: FAILED, {why}; {seen['line']}")

    def _wait_for_line(
        self, entry: dict[str, Any], fault: Fault | None, mark: _Mark, ended: float, bound_s: float
    ) -> float | None:
        """Seconds until the line worked again; None if it does not within ``bound_s``."""
        while (passed_s := time.monotonic() - ended) < bound_s:
            self.step()
            if passed_s >= SETTLE_S and self.up() and self._works_since(mark, passed_s) and self._is_spent(fault):
                return passed_s
            self._act(entry)
        return None

    def _works_since(self, mark: _Mark, passed_s: float) -> bool:
        """Whether something came of what came since: a line that sends all to *others* does not work."""
        if not self.ev:
            return self.book.sent > mark.items
        if self.book.counts["looked"] > mark.looked or self.all_done():
            return True
        if self.book.counts["detected"] > mark.detected + 1:
            return False  # cells come, and go to quarantine without a look
        # No cell may come any more, or there may be no room for one while all channels test.
        may_rest = passed_s > TESTING_S or self.cell.control.summary()["finished"]
        return may_rest and self.book.work > mark.work

    def _is_spent(self, fault: Fault | None) -> bool:
        """Whether a count of the plant has come down to nothing."""
        if fault is None or fault.kind != "switch" or fault.seconds:
            return True
        if not self.cell.control.faults()[fault.target]:
            return True
        if self.ev and (self.all_done() or fault.target in self._cannot_strike()):
            self.cell.control.set_faults(**{fault.target: off(fault.target, fault.value)})
            return True
        return False

    def _cannot_strike(self) -> set[str]:
        """Faults of the station that no cell will meet any more: the magazine is empty."""
        if not self.cell.control.summary()["finished"]:
            return set()
        return {name for name in self.cell.control.faults() if not name.startswith(("robot.", "tester."))}

    def _act(self, entry: dict[str, Any]) -> None:
        command = self._wanted()
        now = time.monotonic()
        if command is None or now - self.book.since < CALM_S:
            return
        if self._commanded_in == f"{command} in {self.book.state}" and now - self._command_at < REPEAT_S:
            return
        self._command_at, self._commanded_in = now, f"{command} in {self.book.state}"
        entry["commands"].append(given := self.command(command, f"after {entry['what']}"))
        if given == command and command.startswith("emptied "):
            self._emptied.add(command.removeprefix("emptied "))

    def _wanted(self) -> str | None:
        """The command that the docs name for what a person sees; None: it goes on by itself, or so they say."""
        if not self.book.full:
            self._emptied.clear()
        for place in self.book.full:
            if place not in self._emptied:
                return f"emptied {place}"
        if self.book.state == "Held" and self.book.to_acknowledge:
            return "unhold"
        return COMMANDS.get(self.book.state)

    def command(self, name: str, reason: str) -> str:
        """Give the line a command as an operator does (``emptied`` with its place); returns it, or its refusal."""
        words = ["command", *name.split(), "--line", self.cell.plan.site.line, "--reason", reason]
        process = subprocess.Popen(
            [sys.executable, "-m", "battery_sorting.cli.main", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.cell.plan.environment},
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                self.step()
        finally:
            process.kill()
            error = process.communicate()[1].strip()
        self.book.follow()
        return name if process.returncode == 0 else f"{name} (refused: {error[-200:]})"

    def _rescue(self, entry: dict[str, Any], fault: Fault | None, mark: _Mark) -> None:
        """What no document names, so that the soak may find more: a new controller, then a new start."""
        for how in ("kill line_controller", "abort"):
            entry.setdefault("rescue", []).append(how)
            if how == "abort":
                entry["rescue"].append(self.command("abort", "rescue"))
            elif "line_controller" in self.cell.supervisor.pids():
                self.cell.kill("line_controller")
            if self._wait_for_line(entry, None, mark, time.monotonic(), RESCUE_S) is not None:
                if fault is not None and fault.kind == "switch":
                    self.cell.control.set_faults(**{fault.target: off(fault.target, fault.value)})
                self.soak.tell(f"#{entry['number']:<3} rescued by: {', '.join(entry['rescue'])}")
                return
        raise GivenUp(
            f"the line could not be brought to work again after fault {entry['number']} ({entry['what']})"
        )

    def _snapshot(self) -> dict[str, Any]:
        self.book.follow()
        with contextlib.suppress(BatterySortingError):
            plant = self.cell.control.state()
            return {
                "line": f"{self.book.state or 'silent'} ({self.book.reason})",
                "alarms": dict(self.book.standing),
                "last": list(self.book.last),
                "told": list(self.cell.told)[-30:],
                "nodes": self.cell.supervisor.pids(),
                "plant": {key: value for key, value in plant.items() if key not in {"places", "at_outlets"}},
                "faults": {key: value for key, value in self.cell.control.faults().items() if value},
            }
        return {"line": self.book.state, "alarms": dict(self.book.standing), "last": list(self.book.last)}

    # ---- the end ----

    def bring_to_an_end(self) -> None:
        """Let the work that was begun be done, without more faults."""
        if not self.ev:
            self.cell.control.set_faults(**{"feeder.empty": True})
        moved_at, work = time.monotonic(), -1
        while not self._nothing_is_left():
            self.step(0.2)
            if self.book.state != "Execute" and time.monotonic() - self.book.since >= CALM_S:
                self._see_to_hold_at_the_end()
            if self.book.work != work:
                work, moved_at = self.book.work, time.monotonic()
            if time.monotonic() - moved_at > (STUCK_S if self.ev else EMPTY_S):
                self.soak.problem(f"the work was not brought to its end: {self._snapshot()['line']}")
                return

    def _see_to_hold_at_the_end(self) -> None:
        entry = self.soak.last_fault() or {"number": 0, "what": "no fault", "commands": []}
        self._act(entry)

    def _nothing_is_left(self) -> bool:
        if self.ev:
            return self.all_done()
        summary = self.cell.control.summary()
        if not summary["finished"] or not self.ledger.exists():
            return False
        with reading(self.ledger) as connection:
            return not connection.execute("SELECT count(*) FROM batteries WHERE bin IS NULL").fetchone()[0]

    def look_at_the_end(self) -> None:
        """What only a line that still stands can tell."""
        self.soak.deaths += sum(self.cell.supervisor.deaths().values())
        self._channels_on = list(self.cell.control.state().get("channels_on", ()))

    def judge(self, judgement: Judgement, *, partial: bool) -> Judgement:
        """Judge this round, when everything has ended; rounds of an EV line add to ``judgement``."""
        if self.belt_judge is not None:
            return self.belt_judge.finish(partial=partial)
        report = judged_report(self.cell.plan)
        times: dict[str, float] = {}
        serials: dict[int, str] = {}
        torn: list[dict[str, Any]] = []

        def take(event: dict[str, Any]) -> None:
            if event["event"] == "cell":
                serials[event["index"]] = event["serial"]
            elif event["event"] == "outlet":
                times[serials[event["index"]]] = event["t_s"]
            elif event["event"] == "tester_torn":
                torn.append(event)

        fold_record(self.cell.plan.run_dir / "plant.jsonl", take)
        judge_ev_round(
            judgement,
            report.run,
            report.figures,
            self._channels_on,
            torn,
            self.soak.fault_before,
            times,
            partial=partial,
        )
        return judgement


@contextlib.contextmanager
def _environment(**changes: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def discard_bulk(run_dir: Path) -> None:
    """Remove ledgers, pictures and logs of a soak that has passed; the list of its faults stays."""
    for folder in (run_dir / "run", *run_dir.glob("round*")):
        shutil.rmtree(folder, ignore_errors=True)

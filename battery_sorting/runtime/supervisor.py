"""Starts the processes of a cell, watches them, and stops them all in bounded time.

Every process gets a process group of its own, so that Ctrl-C reaches the supervisor only and it decides the order.
Processes also watch their parent themselves (``exit_with_parent``), for the case that the supervisor is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.ownership import EXIT_CODE, claim_run_folder
from battery_sorting.core.secrets import without_passwords
from battery_sorting.line.contract import Role
from battery_sorting.runtime.claims import check_free
from battery_sorting.runtime.plan import NodeSpec, Plan, Ready, check_ports, find_executable, find_executables
from battery_sorting.runtime.respawn import Deaths, describe_exit
from battery_sorting.runtime.shared_memory import clean_shared_memory

PLANT_READY_TIMEOUT_S = 10.0
LOG_LIMIT_BYTES = 8_000_000
INTERRUPT_GRACE_S = 2.0
TERMINATE_GRACE_S = 1.0
PLANT_GRACE_S = 1.0
"""Nodes get 2 s after SIGINT and 1 s after SIGTERM, then the plant 1 s: with what follows, less than 5 s in all."""

"""So long after its creation a file may still get its lock."""
_NOTABLE = re.compile(r"\[(WARN|WARNING|ERROR|FATAL)\]|^\w+(\.\w+)*(Error|Exception)\b")


class CellError(BatterySortingError):
    """A process of the cell did not start, or does not stay alive."""

    code = "cell"


@dataclass(frozen=True)
class Usage:
    """What a process takes: proportional memory in MB, and CPU in percent of one core."""

    memory_mb: float
    cpu_percent: float


class _Log:
    """Log file of one process. When it is full, it becomes ``NAME.log.1`` and a new one begins."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] = path.open("ab")

    def write(self, line: bytes) -> None:
        if self._file.tell() > LOG_LIMIT_BYTES:
            self._file.close()
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._file = self.path.open("ab")
        with contextlib.suppress(OSError):  # a full disk must not stop the line: the ledger is what counts
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


@dataclass
class _Child:
    """One process of the plan and its successors."""

    spec: NodeSpec
    command: list[str]
    log: _Log
    deaths: Deaths
    process: subprocess.Popen[bytes] | None = None
    restart_at: float | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=12))

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


class Supervisor:
    """The processes of one cell.

    Args:
        plan: What to start.
        echo: Called with the name of a process and a line that a person should see (warnings, errors, deaths).
        find: Path of an executable by its name.
    """

    def __init__(
        self,
        plan: Plan,
        echo: Callable[[str, str], None] | None = None,
        find: Callable[[str], Path] = find_executable,
    ) -> None:
        self.plan = plan
        self._echo = echo or _print_line
        self._find = find
        self._children: dict[str, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._partial: dict[int, bytes] = {}
        self._lock = threading.RLock()
        self._stopping = False
        self._ended = threading.Event()
        self._plant_ready = threading.Event()
        self._quit = threading.Event()
        self._stop_requested = False
        self._failure = ""
        self._thread: threading.Thread | None = None
        self._run_lock: IO[str] | None = None
        self._cpu_marks: dict[int, tuple[float, float]] = {}
        self.plant_ready: dict[str, Any] = {}

    def __enter__(self) -> Supervisor:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ---- for the owner ----

    def start(self) -> None:
        """Start the plant and the nodes, and wait until the plant listens.

        Raises:
            ConfigurationError: The run folder is in use or not writable, a port is taken, or nothing is built.
            OwnedElsewhereError: The line or one of its devices is another process's.
            CellError: The plant did not come up.
        """
        executables, missing = find_executables(self.plan, self._find)
        check_ports(self.plan)
        self._run_lock = claim_run_folder(self.plan.run_dir)
        check_free(self.plan, lambda text: self._echo("start", text))
        self.plan.write_run_files()
        for name, why in missing.items():
            self._echo(name, why)
        for spec in (spec for spec in self.plan.nodes if spec.name in executables):
            log = _Log(self.plan.run_dir / "log" / f"{spec.name}.log")
            command = [str(executables[spec.name]), *spec.command_line()]
            self._children[spec.name] = _Child(spec, command, log, Deaths(spec.respawn_delay_s, spec.required))
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()
        for child in self._children.values():
            if self._stop_requested:
                return
            with self._lock:
                self._launch(child)
        # The nodes take longer to load than the plant, so they need not wait for it.
        for child in self._children.values():
            if child.spec.ready_when is Ready.SAYS_SO:
                self._wait_for_plant(child)

    def wait(self, timeout_s: float = float("inf")) -> bool:
        """Wait until somebody calls `request_stop`; False when ``timeout_s`` passes before.

        Raises:
            CellError: The plant ended, or a node that the line needs died too often.
        """
        deadline = time.monotonic() + timeout_s
        while not self._stop_requested:
            left = deadline - time.monotonic()
            if self._ended.wait(max(0.0, min(left, 0.1))):
                break
            if left <= 0:
                return False
        if self._failure:
            raise CellError(self._failure)
        return True

    def request_stop(self) -> None:
        """Make `start` and `wait` return soon. Only sets a flag, so that signal handlers may call it."""
        self._stop_requested = True

    def pids(self) -> dict[str, int]:
        """Process ids of what runs now, by name."""
        with self._lock:
            return {name: c.process.pid for name, c in self._children.items() if c.process is not None and c.alive}

    def deaths(self) -> dict[str, int]:
        """How often each process has died unasked in the last 30 s, an observer in the last 10 min."""
        with self._lock:
            return {name: len(child.deaths) for name, child in self._children.items()}

    def usage(self) -> dict[str, Usage]:
        """Memory now and CPU since the last call (or since the start), by name."""
        import psutil

        result = {}
        for name, pid in self.pids().items():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                times = process.cpu_times()
                now, used = time.monotonic(), times.user + times.system
                before, used_before = self._cpu_marks.get(pid, (now, used))
                self._cpu_marks[pid] = (now, used)
                percent = 100 * (used - used_before) / max(now - before, 1e-3)
                result[name] = Usage(process.memory_full_info().pss / 1e6, percent)
        return result

    def stop(self) -> None:
        """Stop everything within 5 s and leave nothing behind. May be called twice."""
        with self._lock:
            self._stopping = True
        plants = [child for child in self._children.values() if child.spec.role is Role.PLANT]
        others = [child for child in self._children.values() if child.spec.role is not Role.PLANT]
        _stop_all(others, ((signal.SIGINT, INTERRUPT_GRACE_S), (signal.SIGTERM, TERMINATE_GRACE_S)))
        _stop_all(plants, ((signal.SIGINT, PLANT_GRACE_S),))
        self._finish()

    def kill(self) -> None:
        """Kill everything at once, for the impatient. `stop` still has to be called."""
        with self._lock:
            self._stopping = True
            for child in self._children.values():
                child.signal(signal.SIGKILL)

    # ---- start and end ----

    def _wait_for_plant(self, child: _Child) -> None:
        deadline = time.monotonic() + PLANT_READY_TIMEOUT_S
        while not self._plant_ready.wait(0.02):
            if self._stop_requested:
                return
            if self._failure:
                raise CellError(self._failure)
            if time.monotonic() > deadline:
                raise CellError(
                    f"the plant isn't ready after {PLANT_READY_TIMEOUT_S:g} s; last lines of {child.log.path}:\n"
                    + "\n".join(child.tail)
                )

    def _launch(self, child: _Child) -> None:
        """Start a process, unless everything is being stopped. Called with the lock held."""
        if self._stopping:
            return
        child.restart_at = None
        try:
            child.process = subprocess.Popen(
                child.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=process_environment(self.plan),
                start_new_session=True,
            )
        except OSError as error:
            if child.spec.required:
                raise
            self._start_later(child, f"can't be started ({error})")
            return
        self._cpu_marks[child.process.pid] = (time.monotonic(), 0.0)
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _finish(self) -> None:
        self._quit.set()
        if self._thread is not None:
            self._thread.join(1.0)
            self._thread = None
        for key in list((self._selector.get_map() or {}).values()):
            self._close_pipe(key.fileobj)
        self._selector.close()
        for child in self._children.values():
            child.log.close()
        if self._children:
            clean_shared_memory()
        self._children = {}
        if self._run_lock is not None:
            self._run_lock.close()
            self._run_lock = None
        self._ended.set()

    # ---- the watching thread ----

    def _watch(self) -> None:
        try:
            self._watch_until_quit()
        except Exception as error:  # without this thread nobody would notice that a node has died
            self._stopping = True
            self._failure = f"the supervisor itself failed: {error!r}"
            self._ended.set()

    def _watch_until_quit(self) -> None:
        while not self._quit.is_set():
            with self._lock:
                watched = bool(self._selector.get_map())
            if watched:
                for key, _ in self._selector.select(timeout=0.05):
                    self._read(key.fileobj, key.data)
            else:
                time.sleep(0.02)
            with self._lock:
                for child in self._children.values():
                    self._look_after(child)
        for key in list((self._selector.get_map() or {}).values()):
            self._read(key.fileobj, key.data)

    def _read(self, pipe: Any, child: _Child) -> None:
        try:
            data = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return
        buffered = self._partial.pop(pipe.fileno(), b"") + data
        *lines, rest = buffered.split(b"\n")
        if not data or len(rest) > 65536:  # the end, or something that isn't text: don't wait for its end of line
            lines, rest = [*lines, rest] if rest else lines, b""
        if rest:
            self._partial[pipe.fileno()] = rest
        for line in lines:
            self._take(child, line)
        if not data:
            self._close_pipe(pipe)

    def _close_pipe(self, pipe: Any) -> None:
        with self._lock, contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(pipe)
        pipe.close()

    def _take(self, child: _Child, line: bytes) -> None:
        text = without_passwords(line.decode("utf-8", "surrogateescape"))  # whoever printed it: no log has one
        child.log.write(text.encode("utf-8", "surrogateescape") + b"\n")
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").rstrip()
        if not text:
            return
        child.tail.append(text)
        if child.spec.ready_when is Ready.SAYS_SO and text.startswith("{"):
            self._take_plant_line(text)
        elif _NOTABLE.search(text):
            self._tell(child, text)

    def _tell(self, child: _Child, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a terminal that has gone must not stop the line
            self._echo(child.spec.name, text)

    def _take_plant_line(self, text: str) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            return
        if message.get("ready"):
            self.plant_ready = message
            self._plant_ready.set()

    def _look_after(self, child: _Child) -> None:
        """Notice that a process has ended, and start its successor when it is time."""
        if self._stopping:
            return
        if child.restart_at is not None:
            if time.monotonic() >= child.restart_at:
                self._launch(child)
        elif child.process is not None and not child.alive and not self._has_output(child):
            self._bury(child)

    def _has_output(self, child: _Child) -> bool:
        """Whether output of an ended process is still to be read: it says why it ended."""
        pipe = child.process.stdout if child.process is not None else None
        if pipe is None or pipe.closed:
            return False
        with selectors.DefaultSelector() as probe:
            probe.register(pipe, selectors.EVENT_READ)
            return bool(probe.select(timeout=0))

    def _bury(self, child: _Child) -> None:
        assert child.process is not None
        child.signal(signal.SIGKILL)  # whatever it has started itself
        code = child.process.returncode
        how = describe_exit(code)
        child.process = None
        if code == EXIT_CODE and child.spec.required:
            self._fail(f"{child.spec.name} can't have what belongs to another process", child)
        elif not child.spec.respawn:
            self._fail(f"{child.spec.name} {how}", child)
        else:
            self._start_later(child, how)

    def _start_later(self, child: _Child, how: str) -> None:
        """Start a process again that has ended, unless that was too often; ``how`` it ended, in words."""
        now = time.monotonic()
        delay_s = child.deaths.count(now)
        if delay_s is None:
            self._fail(child.deaths.why_given_up(child.spec.name, how), child)
        else:
            child.restart_at = now + delay_s
            self._tell(child, child.deaths.next_life(how, delay_s))

    def _fail(self, what: str, child: _Child) -> None:
        self._stopping = True
        self._failure = f"{what}; last lines of {child.log.path}:\n" + "\n".join(f"  {line}" for line in child.tail)
        self._ended.set()


def process_environment(plan: Plan, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of the processes: the one that is ``given`` (default: ours), with what the plan adds.

    The interpreter's folder leads PATH: installed scripts ask it for python3.
    """
    given = os.environ if given is None else given
    path = os.pathsep.join([str(Path(sys.executable).parent), given.get("PATH", os.defpath)])
    return {**given, **plan.environment, "PATH": path}


def _stop_all(children: list[_Child], steps: tuple[tuple[int, float], ...]) -> None:
    """Send the signals one after the other, each with its time to take effect, and SIGKILL at last."""
    for number, grace_s in steps:
        for child in children:
            if child.alive:
                child.signal(number)
        deadline = time.monotonic() + grace_s
        while any(child.alive for child in children) and time.monotonic() < deadline:
            time.sleep(0.01)
    for child in children:
        child.signal(signal.SIGKILL)  # its group, too: it may have started processes itself
    for child in children:
        if child.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(0.5)


def _print_line(name: str, line: str) -> None:
    print(f"{name}: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def stop_on_signals(supervisor: Supervisor) -> Iterator[None]:
    """Inside, the first SIGINT, SIGTERM or SIGHUP asks the cell to stop; the second kills it."""
    seen = False

    def take(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            supervisor.kill()
        seen = True
        supervisor.request_stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, take) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

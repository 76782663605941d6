"""Who runs a line and who talks to a device, on this host: one process each, whoever has started it.

A claim is a listening socket in Linux's abstract namespace, whose name follows from what is claimed. Unlike a file
it needs no folder that everybody may write, nobody can delete it while it counts, containers that share the host's
network share it, and the kernel takes it back in the moment in which its process ends, however that ends. It
reaches as far as the network does in which a device has its address; another host is beyond it.

The run folder is locked by a file in itself: its records are where that file is.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.core.front_end import option

PATIENCE_S = 5.0
"""A predecessor that is ending makes safe and cleans up first; it never takes longer than this."""
RETRY_S = 0.1
EXIT_CODE = 69
"""EX_UNAVAILABLE. A process ends with it when what it needs belongs to another: starting it again is in vain."""

_PREFIX = "battery_sorting/"
_LONGEST = 107
"""Bytes of an abstract socket's name, without the zero that makes it one."""
_LABEL_PART = 60


class OwnedElsewhereError(BatterySortingError):
    """Another process runs this line, or talks to this device."""

    code = "owned_elsewhere"


@dataclass(frozen=True, order=True)
class Claim:
    """What one process wants for itself.

    Attributes:
        role: As what it uses the thing: ``conveyor`` and ``ejector`` may share a PLC, two conveyors may not.
        thing: The same words whoever means it, e.g. ``tcp 192.0.2.10:502``.
    """

    role: str
    thing: str

    def __str__(self) -> str:
        return f"{self.thing} ({self.role})"

    @property
    def _address(self) -> str:
        text = f"{_PREFIX}{self}"
        if len(text.encode()) <= _LONGEST:
            return "\0" + text
        return f"\0{_PREFIX}{self.role[:20]} {hashlib.sha256(text.encode()).hexdigest()}"

    def take(self) -> socket.socket | None:
        """The socket that stands for this claim; None if another process has it."""
        taken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            taken.bind(self._address)
            taken.listen()  # so that who is refused can ask the kernel who we are
        except OSError:
            taken.close()
            return None
        return taken

    def holder(self) -> int:
        """Process id of whoever has this claim; 0 if nobody has, or it can't be seen from here."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.setblocking(False)
            try:
                asking.connect(self._address)
                credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            except OSError:
                return 0
            return int(struct.unpack("3i", credentials)[0])


class Ownership:
    """Claims that this process holds until it releases them or ends."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets

    def release(self) -> None:
        """Give all of them up. May be called twice."""
        sockets, self._sockets = self._sockets, []
        for held in sockets:
            held.close()

    def __enter__(self) -> Ownership:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def claim(
    claims: Iterable[Claim],
    label: str,
    waiting: Callable[[str], None] | None = None,
    patience_s: float = PATIENCE_S,
) -> Ownership:
    """Claim all of them, or none.

    Args:
        claims: What this process wants for itself.
        label: Who it is, for those that it keeps out: e.g. ``conveyor, run folder /data/runs/belt``.
        waiting: Called once with the reason when it has to wait for a process that is ending.
        patience_s: So long it waits (s).

    Raises:
        OwnedElsewhereError: Another process still has one of them; the message says which, and how to go on.
    """
    wanted = sorted(set(claims))
    deadline = time.monotonic() + patience_s
    said = False
    while True:
        sockets, refused = _take_all(wanted)
        if refused is None:
            return Ownership(sockets + _label(label))
        text = f"{refused} belongs to {_describe(refused.holder())}"
        if time.monotonic() >= deadline:
            raise OwnedElsewhereError(
                f"{text}: two would work against each other. End that one first, or give this one other hardware"
            )
        if not said and waiting is not None:
            waiting(f"{text}: waiting up to {patience_s:g} s for it to end")
        said = True
        time.sleep(RETRY_S)


def _take_all(wanted: list[Claim]) -> tuple[list[socket.socket], Claim | None]:
    """The sockets of all of them; or none, and the first that another process has."""
    sockets: list[socket.socket] = []
    for one in wanted:
        taken = one.take()
        if taken is None:
            for held in sockets:
                held.close()
            return [], one
        sockets.append(taken)
    return sockets, None


# ---- who it is ----


def _label(text: str) -> list[socket.socket]:
    """Sockets whose names tell others who this process is, as much of it in each as a name holds."""
    quoted, mark = quote(text, safe=" /,"), os.urandom(4).hex()
    labels = []
    for number, begin in enumerate(range(0, len(quoted), _LABEL_PART)):
        label = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        labels.append(label)
        part = quoted[begin : begin + _LABEL_PART]
        with contextlib.suppress(OSError):  # nothing but words
            label.bind(f"\0{_PREFIX}process/{os.getpid()}/{mark}/{number:02d}/{part}")
    return labels


def _describe(pid: int) -> str:
    """A process, as a person can find it."""
    if not pid:
        return "a process that can't be seen from here (another container?)"
    who = f"process {pid}"
    label = _label_of(pid)
    if label:
        who += f" ({label})"
    if _is_frozen(pid):
        who += f", which is stopped: go on with it by 'kill -CONT {pid}', or end it by 'kill -KILL {pid}'"
    return who


def _label_of(pid: int) -> str:
    start, parts = f"@{_PREFIX}process/{pid}/", []
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/unix").read_text(errors="replace").splitlines():
            _, found, rest = line.partition(start)
            if found:
                parts.append(tuple(rest.split("/", 2)))
    first = min(parts, default=("",))[0]  # a process that owns for several lines has several labels
    return unquote("".join(part[2] for part in sorted(parts) if part[0] == first))


def _is_frozen(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"T", "t"}
    return False


# ---- the run folder ----


def claim_run_folder(folder: Path) -> IO[str]:
    """Keep every other cell out of a run folder for as long as the file that is returned stays open.

    Raises:
        ConfigurationError: The folder can't be written, or another cell runs in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "cell.lock").open("a+")
    except OSError as error:
        problem = f"can't be written ({error.strerror}): give another folder with {option('run-dir')}"
        raise ConfigurationError(str(folder), [problem]) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        who = lock.read().strip()
        lock.close()
        by = f", started by process {who}" if who else ""
        problem = f"another cell runs in this folder{by}: stop it, or give another folder with {option('run-dir')}"
        raise ConfigurationError(str(folder), [problem]) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock

"""Runs commands of battery-sorting as processes of their own, many of them quickly.

A server process imports what the commands need and forks for each of them: what a process takes at its start, its
streams, environment and arguments, is set up as the interpreter would. Run as a script it is that server.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

REPOSITORY = Path(__file__).parents[2]
LONGEST_S = 120
HEAVY = (
    *(
        "numpy",
        "cv2",
        "pydantic",
        "yaml",
        "sqlalchemy",
        "rich.progress",
        "matplotlib.pyplot",
        "onnxruntime",
        "torch",
    ),
    *("battery_sorting.vision.training." + name for name in ("type_model", "defect_model", "evaluation")),
    *("battery_sorting.vision.training." + name for name in ("experiments", "inspection_table", "adaptation")),
    "battery_sorting.grading.groups",
)
"""What commands import that takes long."""


@dataclass(frozen=True)
class Ended:
    """What came of a command: its exit code (minus the signal), and the bytes that it wrote."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Both, for messages of tests."""
        return f"exit code {self.code}\n" + (self.out + self.err).decode("utf-8", "replace")


class CommandLine:
    """Commands to run; one server does it as long as the ``with`` lasts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> CommandLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._input.close()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._output.close()

    def run(
        self, *arguments: object, env: Mapping[str, str] | None = None, out: str = "file", err: str = "file"
    ) -> Ended:
        """Run a command.

        Args:
            arguments: Of the command line.
            env: Set in its environment.
            out: What standard output is: file; gone (a pipe whose reader has gone); full (a device that is full);
                closed.
            err: What standard error is, likewise.
        """
        files = {name: self._folder / name for name in ("out", "err")}
        for file in files.values():
            file.write_bytes(b"")
        order = {
            "arguments": [str(argument) for argument in arguments],
            "env": dict(env or {}),
            "streams": [str(files["out"]) if out == "file" else out, str(files["err"]) if err == "file" else err],
            "folder": str(self._folder),
        }
        self._input.write(json.dumps(order) + "\n")
        self._input.flush()
        heard, _, _ = select.select([self._output], [], [], LONGEST_S + 10)
        assert heard, f"{arguments}: the server of commands hangs"
        ended = Ended(int(self._output.readline()), files["out"].read_bytes(), files["err"].read_bytes())
        assert ended.code != -signal.SIGALRM, f"{arguments} has not ended within {LONGEST_S} s: {ended.text}"
        return ended

    @property
    def _input(self) -> IO[str]:
        assert self._server.stdin is not None
        return self._server.stdin

    @property
    def _output(self) -> IO[str]:
        assert self._server.stdout is not None
        return self._server.stdout


def _serve() -> None:
    from battery_sorting.cli.main import COMMANDS, main

    for name in (*HEAVY, *(module for module, _, _ in COMMANDS.values())):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _compile()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.alarm(LONGEST_S)
            _become(order)
            _end(main)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _compile() -> None:
    """The inner loops of pack building, once for all commands."""
    with contextlib.suppress(ImportError):
        import numpy as np

        from battery_sorting.grading.packs import Layout, PackBuilder

        cells = np.array([[19.0 + n / 10, 1.5, 3.2 + n / 100] for n in range(8)])
        PackBuilder(Layout.parse("2s"), effort=0.01, threads=1).fit(cells)


def _end(main: Callable[[], None]) -> NoReturn:
    """Not by the interpreter's shutdown: threads of libraries that a fork has left behind are waited for there."""
    code: Any = 1
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        try:
            sys.stdout.flush()
        except Exception:
            code = 120  # as the interpreter does
        os._exit(code if isinstance(code, int) else 1)


def _become(order: dict[str, Any]) -> None:
    os.chdir(order["folder"])
    os.environ.update(order["env"])
    sys.argv = ["battery-sorting", *order["arguments"]]
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, kind in enumerate(order["streams"], 1):
        _lead(number, kind)
    encoding, _, errors = order["env"].get("PYTHONIOENCODING", "utf-8").partition(":")
    sys.stdout = _stream(1, encoding, errors or "strict")
    sys.stderr = _stream(2, encoding, "backslashreplace")


def _lead(number: int, kind: str) -> None:
    if kind == "closed":
        os.close(number)
    elif kind == "gone":
        read, write = os.pipe()
        os.dup2(write, number)
        os.close(write)
        os.close(read)
    else:
        opened = os.open("/dev/full" if kind == "full" else kind, os.O_WRONLY)
        os.dup2(opened, number)
        os.close(opened)


def _stream(number: int, encoding: str, errors: str) -> Any:
    with contextlib.suppress(OSError):
        return io.TextIOWrapper(io.BufferedWriter(io.FileIO(number, "wb", closefd=False)), encoding, errors)
    return None  # as the interpreter does where a stream is closed


def all_commands() -> Iterator[tuple[str, ...]]:
    """Every command of battery-sorting, with its words: ('items',), ('train', 'type'), …"""
    import typer

    from battery_sorting.cli.main import COMMANDS, make_app

    def below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        children = getattr(command, "commands", {})
        if not children:
            yield words
        for name, child in children.items():
            yield from below(child, (*words, name))

    known = typer.main.get_command(make_app(None))
    for name in known.commands:  # type: ignore[attr-defined]
        whole = known if name not in COMMANDS else typer.main.get_command(make_app(name))
        yield from below(whole.commands[name], (name,))  # type: ignore[attr-defined]


if __name__ == "__main__":
    _serve()
    os._exit(0)  # threads of libraries are waited for otherwise

"""SCPI over TCP for the instruments of the simulated plant: messages are read, parsed, carried out and answered.

Follows SCPI-99 as far as instruments of a production line need it: short and long forms in any case, compound
messages, relative headers, common commands, an error queue. Rubbish ends up in the error queue or register, not
in a traceback.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from battery_sorting.plant.tcp_server import TcpServer

MAX_LINE_BYTES = 8192
QUEUE_LENGTH = 20

Handler = Callable[[bool, list[str]], "str | Delayed | None"]


class ScpiError(Exception):
    """A command can't be carried out. Numbers as in SCPI-99, volume 2, chapter 21."""

    def __init__(self, number: int, text: str) -> None:
        self.number = number
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Delayed:
    """An answer that takes ``seconds`` of real time."""

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LinkFaults:
    """What is wrong with the link to an instrument."""

    silent: bool = False
    delay_s: float = 0.0
    garbage: bool = False
    disconnect: bool = False


class Instrument(ABC):
    """A device that understands SCPI.

    Attributes:
        terminator: Ends its answers; it takes any of CR, LF, CR+LF itself.
        requests: Messages so far.
    """

    terminator = "\n"

    def __init__(self, commands: dict[str, Handler]) -> None:
        self.requests = 0
        self._commands: dict[tuple[str, ...], Handler] = {}
        for pattern, handler in commands.items():
            nodes = [(node.upper(), _short(node)) for node in pattern.split(":")]
            for spelling in itertools.product(*nodes):
                self._commands[spelling] = handler

    def execute(self, message: str) -> tuple[str, float]:
        """Carry out one message. Its answers joined by ``;`` (empty if there are none), and the s they take."""
        self.requests += 1
        answers: list[str] = []
        seconds = 0.0
        path: tuple[str, ...] = ()
        for unit in message.split(";"):
            if not unit.strip():
                continue
            try:
                answer, path = self._execute_unit(unit.strip(), path)
            except ScpiError as error:
                self.complain(error)
                path = ()
                continue
            if isinstance(answer, Delayed):
                seconds += answer.seconds
                answer = answer.text
            if answer is not None:
                answers.append(answer)
        return ";".join(answers), seconds

    @abstractmethod
    def complain(self, error: ScpiError) -> None:
        """Remember an error for the host to ask for."""

    def _execute_unit(self, unit: str, path: tuple[str, ...]) -> tuple[str | Delayed | None, tuple[str, ...]]:
        header, _, rest = unit.partition(" ")
        query = header.endswith("?")
        nodes = tuple(header.rstrip("?").strip(":").upper().split(":"))
        common = nodes[0].startswith("*")
        for full in [nodes] if common or header.startswith(":") else [(*path, *nodes), nodes]:
            if full in self._commands:
                answer = self._commands[full](query, split_arguments(rest))
                return answer, path if common else full[:-1]
        raise ScpiError(-113, f"Undefined header;{header[:40]}")


def _short(node: str) -> str:
    return "".join(letter for letter in node if not letter.islower())


def split_arguments(text: str) -> list[str]:
    """Arguments between commas that are outside of brackets."""
    found, depth, current = [], 0, ""
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth <= 0:
            found.append(current.strip())
            current = ""
        else:
            current += letter
    return [*found, current.strip()] if current.strip() or found else []


def number(arguments: list[str], position: int, low: float, high: float) -> float:
    """A number among the arguments.

    Raises:
        ScpiError: It is missing, none, or outside of ``low``…``high``.
    """
    if position >= len(arguments):
        raise ScpiError(-109, "Missing parameter")
    try:
        value = float(arguments[position])
    except ValueError:
        raise ScpiError(-120, f"Numeric data error;{arguments[position][:40]}") from None
    if not low <= value <= high:
        raise ScpiError(-222, f"Data out of range;{arguments[position][:40]}")
    return value


def choice(arguments: list[str], position: int, *words: str) -> str:
    """One of ``words`` (written as ``IMMediate``) in its long form.

    Raises:
        ScpiError: None of them.
    """
    if position >= len(arguments):
        raise ScpiError(-109, "Missing parameter")
    given = arguments[position].upper()
    for word in words:
        if given in (word.upper(), _short(word)):
            return word.upper()
    raise ScpiError(-224, f"Illegal parameter value;{arguments[position][:40]}")


class ErrorQueue:
    """The queue behind ``SYSTem:ERRor?``."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque()

    def put(self, error: ScpiError) -> None:
        """Queue an error; what comes when it is full is summed up as one overflow."""
        if len(self._errors) < QUEUE_LENGTH - 1:
            text = str(error).replace('"', "'")
            self._errors.append(f'{error.number},"{text}"')
        elif len(self._errors) < QUEUE_LENGTH:
            self._errors.append('-350,"Queue overflow"')

    def take(self) -> str:
        """The oldest error, or ``0,"No error"``."""
        return self._errors.popleft() if self._errors else '0,"No error"'

    def clear(self) -> None:
        """Forget all."""
        self._errors.clear()


class ScpiServer(TcpServer):
    """Serves one instrument on a TCP port. Call `follow_faults` regularly; ``faults`` are asked for every time."""

    def __init__(
        self, instrument: Instrument, faults: Callable[[], LinkFaults], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        super().__init__(host, port, MAX_LINE_BYTES)
        self._instrument = instrument
        self._faults = faults
        self._noise = random.Random(17)

    async def follow_faults(self) -> None:
        """Drop or take up connections as the fault ``disconnect`` says."""
        await self.follow_switch(self._faults().disconnect)

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer message by message."""
        while (line := await _next_line(reader)) is not None:
            await self._answer(line, writer)

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        faults = self._faults()
        if faults.silent:
            return
        if faults.garbage:
            writer.write(self._noise.randbytes(12).replace(b"\n", b"?") + b"\n")
            return
        if len(line) > MAX_LINE_BYTES:
            self._instrument.complain(ScpiError(-363, "Input buffer overrun"))
            return
        text, seconds = self._instrument.execute(line.decode("ascii", errors="replace"))
        if seconds + faults.delay_s > 0:
            await asyncio.sleep(seconds + faults.delay_s)
        if text:
            writer.write((text + self._instrument.terminator).encode("ascii", errors="replace"))
            await writer.drain()


async def _next_line(reader: asyncio.StreamReader) -> bytes | None:
    """The next message without its end; None at the end. One that is too long comes as blanks, too long as well."""
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        while True:  # throw it away up to its end
            try:
                await reader.readuntil(b"\n")
                break
            except asyncio.LimitOverrunError as error:
                await reader.readexactly(max(error.consumed, 1))
            except asyncio.IncompleteReadError:
                return None
        return b" " * (MAX_LINE_BYTES + 1)
    return line.strip()

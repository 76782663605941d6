"""SCPI over TCP for the instruments of the simulated plant: messages are read, parsed, carried out and answered.

Follows SCPI-99 as far as instruments of a production line need it: short and long forms in any case, compound
messages, relative headers, common commands, an error queue. Rubbish ends up in the error queue or register, not
in a traceback.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from battery_sorting.core import readings
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
    take_repeat: Callable[[], bool] = lambda: False
    """Whether the answer that is sent now shall come once more; counts it as done."""


class Instrument(ABC):
    """A device that understands SCPI.

    Attributes:
        terminator: Ends its answers; it takes any of CR, LF, CR+LF itself.
        requests: Messages so far.
        style: How it writes numbers, of `STYLES`. Every firmware has its own way.
        shows: Names of readings to what it shows in their place.
    """

    terminator = "\n"

    def __init__(self, commands: dict[str, Handler]) -> None:
        self.requests = 0
        self.style: Callable[[], str] = lambda: ""
        self.shows: Callable[[], Mapping[str, str]] = lambda: {}
        self._event_enable = 0
        commands = {"*ESE": self._set_event_enable, **commands}
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
                answers.append(restyled(answer, self.style()))
        return ";".join(answers), seconds

    def _set_event_enable(self, query: bool, arguments: list[str]) -> str | None:
        """IEEE 488.2, 11.5.1.3: a register of eight bits."""
        if query:
            return str(self._event_enable)
        self._event_enable = round(number(arguments, 0, 0, 255))
        return None

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
    """A number among the arguments, in any form that a host may write.

    Raises:
        ScpiError: It is missing, none, or outside of ``low``…``high``.
    """
    if position >= len(arguments):
        raise ScpiError(-109, "Missing parameter")
    try:
        value = readings.printed_number(arguments[position])
    except readings.AnswerError:
        raise ScpiError(-120, f"Numeric data error;{arguments[position][:40]}") from None
    if not low <= value <= high:
        raise ScpiError(-222, f"Data out of range;{arguments[position][:40]}")
    return value


STYLES: dict[str, Callable[[float], str]] = {
    "signed": lambda value: f"{value:+.0f}" if value == round(value) else f"{value:+.9g}",
    "nr2": lambda value: re.sub(r"(\.\d+?)0*$", r"\1", f"{value:.10f}"),
    "nr3": lambda value: f"{value:+.9E}",
}
"""Ways to write the same number: ``+2``, ``2.0``, ``+2.000000000E+00``."""


def restyled(answer: str, style: str) -> str:
    """An answer with its numbers written in a way of `STYLES`; an empty ``style`` leaves them as they are."""
    if not style:
        return answer
    return ",".join(_restyled(value, STYLES[style]) for value in answer.split(","))


def _restyled(text: str, write: Callable[[float], str]) -> str:
    try:
        value = readings.printed_number(text)
    except readings.AnswerError:
        return text
    return write(value) if math.isfinite(value) else text


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
        self._again: tuple[str, bytes] | None = None

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
        header = line.decode("ascii", errors="replace").rpartition(";")[2].partition(" ")[0]
        if self._again is not None and self._again[0] == header:
            # The answer to the last query of this kind comes once more, when the next one is being answered.
            writer.write(self._again[1])
            self._again = None
        text, seconds = self._instrument.execute(line.decode("ascii", errors="replace"))
        if seconds + faults.delay_s > 0:
            await asyncio.sleep(seconds + faults.delay_s)
        if text:
            answer = (text + self._instrument.terminator).encode("ascii", errors="replace")
            if faults.take_repeat():
                self._again = (header, answer)
            writer.write(answer)
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

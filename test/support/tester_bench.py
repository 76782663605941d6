"""The plant's tester for tests: its instruments on an event loop in a thread, or a clock to run them by hand."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from battery_sorting.drivers.tester.base import CellTester
from battery_sorting.ev.cell_test import BeginTest, CellTest, Event, Tick
from battery_sorting.ev.perform import perform
from battery_sorting.plant.cells import Cells, CellSettings
from battery_sorting.plant.instruments import Instruments, TesterSettings, start_instruments


class Bench:
    """Instruments that listen. ``call`` runs something of theirs on their own event loop."""

    def __init__(
        self, instruments: Instruments, loop: asyncio.AbstractEventLoop, events: list[dict[str, Any]]
    ) -> None:
        self.instruments = instruments
        self.events = events
        self._loop = loop

    @property
    def cells(self) -> Cells:
        return self.instruments.cells

    @property
    def settings(self) -> dict[str, Any]:
        """What the driver needs."""
        return {
            "host": "127.0.0.1",
            "port": self.instruments.ports["cycler_port"],
            "meter_port": self.instruments.ports["meter_port"],
            "channels": self.instruments.settings.channels,
            "scanner_settle_s": 0.0,
            "meter_rate": "FAST",
            "timeout_s": 3.0,
        }

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        async def on_loop() -> Any:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(5)

    def insert(self, channel: int, cell: int) -> None:
        self.call(self.instruments.insert, channel, cell)

    def set_faults(self, **switches: Any) -> None:
        self.call(self.instruments.set_faults, {name.replace("__", "."): value for name, value in switches.items()})


@contextmanager
def running_tester(cells: int = 8, cell_settings: CellSettings | None = None, **settings: Any) -> Iterator[Bench]:
    """The tester with cell 0 in channel 1, cell 1 in channel 2 and so on."""
    ready, box, events = threading.Event(), [], []

    async def serve() -> None:
        stop = asyncio.Event()
        tester = TesterSettings(**{"channels": 4, "time_factor": 20_000.0, **settings})
        instruments = await start_instruments(tester, Cells(cells, cell_settings, seed=2), events.append)
        for channel in range(1, min(cells, tester.channels) + 1):
            instruments.insert(channel, channel - 1)
        box.extend((instruments, asyncio.get_running_loop(), stop))
        ready.set()
        await stop.wait()
        await instruments.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="tester")
    thread.start()
    try:
        assert ready.wait(5)
        instruments, loop, stop = box
        yield Bench(instruments, loop, events)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)
        assert not thread.is_alive()


def run_test(
    tester: CellTester,
    channel: int,
    test: CellTest,
    before: Callable[[CellTest], Event | None] = lambda _test: None,
) -> CellTest:
    """Run a cell's test to its end. ``before`` may slip in an event ahead of each command."""
    test, commands = test.advance(BeginTest(), time.monotonic())
    todo = list(commands)
    end = time.monotonic() + 20.0
    while not test.ended:
        assert time.monotonic() < end, f"hangs in {test.phase}"
        event = before(test)
        if event is None:
            event = perform(tester, channel, todo.pop(0)) if todo else Tick()
        if isinstance(event, Tick):
            time.sleep(0.002)
        test, commands = test.advance(event, time.monotonic())
        todo += commands
    return test


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s

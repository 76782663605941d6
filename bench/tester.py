"""How exact the cell tester is and how fast it answers, on the simulated plant whose cells are known.

    python bench/tester.py [--cells 60] [--channels 8] [--chemistry LFP] [--rate SLOW] [--json FILE]

Every cell goes through the whole capacity test (charge, discharge, half a charge, readings) with the production
driver over real sockets; the plant is a process of its own. Time of the cells is compressed. The baseline of each
value is the limit of error that the driver itself gives with it.

`discharged` is compared with the charge that really left the cell, so that it shows the instrument; `capacity` with
the cell's capacity between the two end voltages without current, so that it also shows what the method leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from battery_sorting.drivers.tester.scpi import ScpiTester
from battery_sorting.ev.cell_test import BeginTest, CellTest, CellTestOutcome, Rules, Tick
from battery_sorting.ev.measurement import Programme
from battery_sorting.ev.perform import perform
from battery_sorting.plant.cells import CHEMISTRIES, Cells, CellSettings
from battery_sorting.plant.instruments import TesterSettings, start_instruments

QUERIES = 500
UNITS = {"discharged": "Ah", "capacity": "Ah", "resistance": "mΩ", "ocv": "V", "soc": ""}
RULES = Rules(poll_s=0.02, pause_s=0.02)


def main() -> None:
    """Runs the benchmark."""
    arguments = parse_arguments()
    ours, theirs = multiprocessing.Pipe()
    plant = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, vars(arguments)), daemon=True)
    plant.start()
    try:
        result = measure(ours, arguments)
    finally:
        ours.send(("stop",))
        plant.join(5)
    print_table(Console(), result)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--chemistry", choices=sorted(CHEMISTRIES), default="LFP")
    parser.add_argument("--rate", choices=("EXFAST", "FAST", "MEDIUM", "SLOW"), default="SLOW")
    parser.add_argument("--time-factor", type=float, default=10_000.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def serve(pipe: Connection, arguments: dict[str, Any]) -> None:
    """The plant: instruments whose robot obeys ``pipe``."""

    async def run() -> None:
        cells = Cells(arguments["cells"], CellSettings(chemistry=arguments["chemistry"]), arguments["seed"])
        settings = TesterSettings(
            channels=arguments["channels"], time_factor=arguments["time_factor"], seed=arguments["seed"]
        )
        steps: dict[int, list[dict[str, Any]]] = {cell: [] for cell in range(len(cells))}

        def record(event: dict[str, Any]) -> None:
            if event["event"] == "tester_step":
                steps[event["cell"]].append(event)

        instruments = await start_instruments(settings, cells, record)
        stop = asyncio.Event()

        def obey() -> None:
            order, *values = pipe.recv()
            if order == "stop":
                stop.set()
            elif order == "truth":
                instruments.cycler.advance()
                pipe.send(
                    {**cells.truth(*values), "discharged_ah": discharged_ah(cells, *values, steps[values[0]])}
                )
            else:
                pipe.send(getattr(instruments, order)(*values))

        asyncio.get_running_loop().add_reader(pipe.fileno(), obey)
        pipe.send(instruments.ports)
        await stop.wait()
        await instruments.stop()

    asyncio.run(run())


def discharged_ah(cells: Cells, cell: int, steps: list[dict[str, Any]]) -> float:
    """What really left the cell in its discharge."""
    position = next(index for index, step in enumerate(steps) if step["kind"] == "DISCHARGE")
    return float((steps[position - 1]["soc"] - steps[position]["soc"]) * cells.capacity_ah[cell])


def measure(pipe: Connection, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tests all cells, as many at a time as there are channels."""
    ports = pipe.recv()
    tester = ScpiTester.from_settings(
        {
            "host": "127.0.0.1",
            "port": ports["cycler_port"],
            "meter_port": ports["meter_port"],
            "channels": arguments.channels,
            "meter_rate": arguments.rate,
        }
    )
    assert isinstance(tester, ScpiTester)
    tester.connect(10.0)
    queries_ms = sorted(timed_ms(lambda: tester.read_progress(1)) for _ in range(QUERIES))
    chemistry = CHEMISTRIES[arguments.chemistry]
    programme = Programme.capacity_test(20.0, chemistry.voltage_min_v, chemistry.voltage_max_v)
    begin = time.monotonic()
    rows = run_all(pipe, tester, programme, arguments.cells)
    took_s = time.monotonic() - begin
    tester.disconnect()
    return {
        "cells": len(rows),
        "measured": sum(row["outcome"] == CellTestOutcome.MEASURED.value for row in rows),
        "chemistry": arguments.chemistry,
        "meter_rate": arguments.rate,
        "channels": arguments.channels,
        "seconds": took_s,
        "load": os.getloadavg()[0],
        "query_ms": {"p50": statistics.median(queries_ms), "p99": queries_ms[int(QUERIES * 0.99)]},
        "errors": {key: summary(rows, key) for key in UNITS},
    }


def timed_ms(call: Any) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1000.0


def run_all(pipe: Connection, tester: ScpiTester, programme: Programme, cells: int) -> list[dict[str, Any]]:
    """One thread looks after all channels in turn."""
    waiting, rows = list(range(cells)), []
    running: dict[int, tuple[int, CellTest, list[Any], dict[str, Any]]] = {}
    with Progress(transient=True) as progress:
        task = progress.add_task("cells", total=cells)
        while waiting or running:
            for channel in tester.channels:
                if channel not in running and waiting:
                    cell = waiting.pop(0)
                    ask(pipe, "insert", channel, cell)
                    test, commands = CellTest(programme, RULES).advance(BeginTest(), time.monotonic())
                    running[channel] = (cell, test, list(commands), {})
            for channel, (cell, test, todo, truth) in list(running.items()):
                command = todo.pop(0) if todo else None
                event = Tick() if command is None else perform(tester, channel, command)
                if command is not None and type(command).__name__ == "MeasureResistance":
                    truth = ask(pipe, "truth", cell)
                test, commands = test.advance(event, time.monotonic())
                running[channel] = (cell, test, [*todo, *commands], truth)
                if test.ended:
                    ask(pipe, "remove", channel)
                    del running[channel]
                    rows.append(row_of(test, truth))
                    progress.advance(task)
            time.sleep(0.001)
    return rows


def ask(pipe: Connection, *request: Any) -> Any:
    pipe.send(request)
    return pipe.recv()


def row_of(test: CellTest, truth: dict[str, Any]) -> dict[str, Any]:
    """Errors of one cell, each as (error, its limit, true value)."""
    got = test.measurement
    row: dict[str, Any] = {"outcome": test.outcome.value if test.outcome else "", "code": test.error_code}
    if test.outcome is CellTestOutcome.MEASURED:
        limit_ah = got.capacity_uncertainty_ah
        row["discharged"] = (got.capacity_ah - truth["discharged_ah"], limit_ah, truth["discharged_ah"])
        row["capacity"] = (got.capacity_ah - truth["capacity_ah"], limit_ah, truth["capacity_ah"])
        row["resistance"] = (
            got.resistance_mohm - truth["resistance_mohm"],
            got.resistance_uncertainty_mohm,
            truth["resistance_mohm"],
        )
        row["ocv"] = (got.ocv_v - truth["ocv_v"], got.ocv_uncertainty_v, truth["ocv_v"])
        row["soc"] = (got.soc - truth["soc"], got.soc_uncertainty, truth["soc"])
    return row


def summary(rows: list[dict[str, Any]], key: str) -> dict[str, float]:
    """Mean, RMS and largest error, in the unit of the value and as a share of it."""
    errors, limits, truths = np.array([row[key] for row in rows if key in row]).T
    return {
        "mean": float(errors.mean()),
        "rms": float(np.sqrt((errors**2).mean())),
        "max": float(np.abs(errors).max()),
        "rms_share": float(np.sqrt(((errors / truths) ** 2).mean())),
        "limit_mean": float(limits.mean()),
        "within_limit": float((np.abs(errors) <= limits).mean()),
    }


def print_table(console: Console, result: dict[str, Any]) -> None:
    """What was found."""
    table = Table("value", "mean error", "RMS", "largest", "RMS %", "limit given", "within")
    for key, errors in result["errors"].items():
        table.add_row(
            f"{key} {UNITS[key]}",
            *(f"{errors[name]:.5f}" for name in ("mean", "rms", "max")),
            f"{errors['rms_share']:.3%}",
            f"{errors['limit_mean']:.5f}",
            f"{errors['within_limit']:.0%}",
        )
    console.print(table)
    query = result["query_ms"]
    console.print(
        f"{result['measured']} of {result['cells']} cells measured in {result['seconds']:.1f} s on "
        f"{result['channels']} channels; query p50 {query['p50']:.3f} ms, p99 {query['p99']:.3f} ms; "
        f"load {result['load']:.1f}"
    )


if __name__ == "__main__":
    main()

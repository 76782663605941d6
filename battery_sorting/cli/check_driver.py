"""`battery-sorting check-driver`: whether a driver and its device keep the contract of docs/how-to/drivers.md."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from battery_sorting.cli._exit import ExitCode
from battery_sorting.cli._output import say, write_json
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.ownership import Ownership, claim
from battery_sorting.core.settings import read_document
from battery_sorting.drivers.contract import check_driver
from battery_sorting.drivers.registry import DEVICES, driver_problems, find_device, find_driver
from battery_sorting.drivers.suite import CheckOptions, CheckOutcome, Result
from battery_sorting.line.claims import device_claims
from battery_sorting.line.contract import CONTROLLER


def check_driver_command(
    driver: Annotated[str, typer.Argument(metavar="KIND_OR_PATH", help="Kind of driver, or module:Class.")],
    settings: Annotated[Path, typer.Argument(metavar="SETTINGS.yaml", help="The driver's settings, in YAML.")],
    device: Annotated[
        str | None,
        typer.Option(
            help=f"What it drives: {' or '.join(DEVICES)}, or your own module:NAME; else found out.",
            metavar="DEVICE",
        ),
    ] = None,
    move: Annotated[bool, typer.Option("--move", help="Allow to run the belt, or to close contacts.")] = False,
    speed: Annotated[float, typer.Option(min=0.01, max=5.0, help="Belt speed for --move, m/s.")] = 0.2,
    frames: Annotated[int, typer.Option(min=0, help="Frames to wait for, of a camera.")] = 3,
    wait: Annotated[float, typer.Option(min=0.1, help="Longest time to wait for them, s.")] = 10.0,
    timeout: Annotated[float, typer.Option(min=0.05, help="Longest time to connect, s.")] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a driver on its device; nothing moves without --move. Exit code 0 if it keeps the contract, else 1."""
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # it would report the faults that are provoked
    device = device or _device_of(driver)
    try:
        find_device(device)
    except ValueError as error:
        raise ConfigurationError("--device", [str(error)]) from error
    document = read_document(settings)
    document.raise_if_faulty()
    options = CheckOptions(move=move, speed_mps=speed, frames=frames, wait_s=wait, timeout_s=timeout)
    results = []
    with _alone(device, driver, document.data):
        for result in check_driver(device, driver, document.data, options):
            results.append(result)
            if not json:
                say(_line(result))
    passed = all(result.outcome is not CheckOutcome.FAIL for result in results)
    if json:
        checks = [asdict(result) for result in results]
        summary = {"device": device, "driver": driver, "passed": passed, "checks": checks}
        write_json(summary)
    else:
        counts = Counter(result.outcome for result in results)
        say(", ".join(f"{counts[outcome]} {_PLURAL[outcome]}" for outcome in CheckOutcome))
    raise typer.Exit(ExitCode.DONE if passed else ExitCode.NO)


_PLURAL = {CheckOutcome.PASS: "passed", CheckOutcome.FAIL: "failed", CheckOutcome.SKIP: "skipped"}


def _alone(device: str, driver: str, settings: dict[str, object]) -> Ownership:
    """Keeps cells from starting meanwhile: the check connects a dozen times, and may move things.

    Raises:
        OwnedElsewhereError: A cell uses the device.
    """
    wrong = driver_problems(device, driver, settings)
    claims = [] if wrong else device_claims(CONTROLLER, device, driver, settings)
    return claim(claims, "battery-sorting check-driver", patience_s=0.0)


def _device_of(driver: str) -> str:
    """The device that a kind or a class stands for."""
    problems = []
    for device in DEVICES:
        try:
            find_driver(device, driver)
        except ValueError as error:
            problems.append(str(error))
        else:
            return device
    raise ConfigurationError(driver, [*dict.fromkeys(problems)])


def _line(result: Result) -> str:
    text = f"{result.outcome.value}  {result.check}"
    if result.detail:
        text += f": {result.detail}"
    return f"{text}\n      remedy: {result.remedy}" if result.remedy else text

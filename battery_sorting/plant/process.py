"""The simulated plant as a process: `main` reads the settings, opens the ports and runs until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.core.strict_json import to_json
from battery_sorting.plant.base import PlantProcess
from battery_sorting.plant.belt_process import BeltPlant, make_config
from battery_sorting.plant.ev_process import EvPlant, make_ev_config

SWITCH_INTERVAL_S = 0.001  # lets the event loop in between the renderer's steps


def read_settings(path: str | Path) -> dict[str, Any]:
    """Content of a settings file (JSON), not checked any further.

    Raises:
        ConfigurationError: It can't be read, or is no JSON object.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(str(path), [f"can't be read ({error.strerror}): check --config"]) from error
    except ValueError as error:
        raise ConfigurationError(str(path), [f"is no JSON ({error})"]) from error
    return _parse(text, str(path))


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(source, [f"is no JSON ({error})"]) from error
    if not isinstance(settings, dict):
        raise ConfigurationError(source, ["is no JSON object: write {key: value, …}"])
    return settings


PLANTS: dict[str, Callable[[dict[str, Any], str], PlantProcess]] = {
    "belt": lambda settings, source: BeltPlant(make_config(settings, source)),
    "ev": lambda settings, source: EvPlant(make_ev_config(settings, source)),
}
"""Kind of line → its plant, made of its settings and the name of where they stand."""


def make_plant(path: str | None) -> PlantProcess:
    """The plant of the line that the settings file describes by ``kind``: a belt line, or an EV line.

    Raises:
        ConfigurationError: The settings are wrong.
    """
    return _plant_of(read_settings(path) if path else {}, path or "plant settings")


def _plant_of(settings: dict[str, Any], source: str) -> PlantProcess:
    kind = settings.pop("kind", "belt")
    if not isinstance(kind, str) or kind not in PLANTS:
        raise ConfigurationError(source, [f"kind: {kind!r} is none; there are {' and '.join(PLANTS)}"])
    return PLANTS[kind](settings, source)


def problems_of(text: str) -> list[str]:
    """What is wrong with settings (JSON), each with its key; nothing is opened."""
    try:
        return _plant_of(_parse(text, "plant settings"), "plant settings").out_of_reach()
    except ConfigurationError as error:
        return error.problems
    except BatterySortingError as error:
        return [str(error)]


async def _run(path: str | None, *, exit_with_parent: bool, only_terminate: bool) -> None:
    plant = make_plant(path)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM,) if only_terminate else (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, plant.stop)
    ready = await plant.open()
    gc.collect()
    gc.freeze()
    print(to_json(ready, None), flush=True)
    await plant.run(exit_with_parent=exit_with_parent)


def main(argv: list[str] | None = None) -> None:
    """Entry point; ends the process: 0 when it was told to end, 2 when it can't start."""
    parser = argparse.ArgumentParser(prog="plant", description="Simulated plant of a battery sorting line.")
    parser.add_argument("--config", metavar="FILE", help="settings (JSON), see docs/reference/plant.md")
    parser.add_argument(
        "--exit-with-parent", action="store_true", help="end when the process that started this one has died"
    )
    parser.add_argument(
        "--only-terminate",
        action="store_true",
        help="SIGINT, which a terminal sends to all, does not end it: the nodes end first, then comes SIGTERM",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="read settings (JSON) from the standard input, write what is wrong as a list (JSON), and end",
    )
    arguments = parser.parse_args(argv)
    if arguments.only_terminate:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s plant: %(message)s", stream=sys.stderr)
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # it would report the faults that we inject
    if arguments.check:
        print(to_json(problems_of(sys.stdin.read()), None))
        raise SystemExit(0)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        asyncio.run(
            _run(
                arguments.config,
                exit_with_parent=arguments.exit_with_parent,
                only_terminate=arguments.only_terminate,
            )
        )
    except BatterySortingError as error:
        print(f"plant: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(0)


if __name__ == "__main__":
    main()

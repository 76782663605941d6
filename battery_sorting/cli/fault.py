"""`battery-sorting fault`: switches of the simulated plant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from battery_sorting.cli._output import say
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.plant_control import PlantControl
from battery_sorting.core.settings import parse_yaml


def fault(
    switches: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SWITCH=VALUE]...", help="For example camera.drop=3; none: show all."),
    ] = None,
    run_dir: Annotated[Path, typer.Option("--run-dir", help="Run folder of the cell.")] = Path("runs/sim"),
) -> None:
    """Flip fault switches of the simulated plant while it runs."""
    wanted: dict[str, Any] = {}
    for switch in switches or ():
        name, equals, value = switch.partition("=")
        if not equals:
            raise ConfigurationError(switch, ["write it as SWITCH=VALUE, for example camera.drop=3"])
        try:
            wanted[name] = parse_yaml(value)[1]
        except (yaml.YAMLError, ValueError, TypeError) as error:
            raise ConfigurationError(switch, [f"the value is not valid YAML: {error}"]) from error
    settings = run_dir / "plant.json"
    try:
        port = json.loads(settings.read_text())["control_port"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"can't be read ({error}): give the run folder of a simulated cell with --run-dir"
        raise ConfigurationError(str(settings), [problem]) from error
    with PlantControl("127.0.0.1", port) as plant:
        if wanted:
            plant.set_faults(**wanted)
        for name, value in plant.faults().items():
            say(f"{name}={value}")

"""Stands in for `launch` and `launch_ros`, which come with a ROS distribution: it keeps what is made."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

NAMES = {
    "launch": "LaunchContext LaunchDescription",
    "launch.action": "Action",
    "launch.actions": "DeclareLaunchArgument EmitEvent ExecuteProcess GroupAction LogInfo OpaqueFunction "
    "RegisterEventHandler TimerAction",
    "launch.event_handlers": "OnProcessExit OnProcessStart OnShutdown",
    "launch.events": "Shutdown",
    "launch.events.process": "ProcessExited ProcessStarted SignalProcess",
    "launch.logging": "get_logger",
    "launch.substitutions": "LaunchConfiguration",
    "launch_ros": "",
    "launch_ros.actions": "Node",
}


class Made:
    """Something that a launch file has made: its class, and what that was given."""

    def __init__(self, *values: Any, **named: Any) -> None:
        self.values, self.named = values, named

    def perform(self, context: Any) -> str:
        """Of a LaunchConfiguration: its value."""
        value: str = context.launch_configurations[self.values[0]]
        return value

    def info(self, text: str) -> None:
        """Of a logger."""


def load(file: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The launch file as a module."""
    for name, classes in NAMES.items():
        module = ModuleType(name)
        for class_name in classes.split():
            setattr(module, class_name, type(class_name, (Made,), {}))
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("launch_file", file)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def context(environment: dict[str, str], **configurations: str) -> Any:
    """A context of launch, as far as a launch file asks for it."""
    return SimpleNamespace(
        environment=environment,
        launch_configurations=configurations,
        get_locals_as_dict=dict,
        extend_globals=lambda _: None,
    )

"""Starts the cell of a site: ``ros2 launch battery_sorting cell.launch.py site:=sim``.

It translates the plan of `battery_sorting.core.plan` and holds no knowledge of its own.
"""

from __future__ import annotations

from pathlib import Path

from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from battery_sorting.cli.cell import load_cell
from battery_sorting.core.plan import NodeSpec, PlanOptions, default_run_dir, find_executable, make_plan
from launch import LaunchContext, LaunchDescription

STOP = {"sigterm_timeout": "2", "sigkill_timeout": "1"}
"""Seconds after which a process that doesn't end is asked with more force: all of them are gone within 5 s."""


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("site", description="name of a site in config/sites, or a file"),
            DeclareLaunchArgument("recipe", default_value="", description="name of a recipe, or a file"),
            DeclareLaunchArgument("set", default_value="", description="settings to change: 'a.b=1;c.d=2'"),
            DeclareLaunchArgument("run_dir", default_value="", description="folder of the records; else runs/SITE"),
            OpaqueFunction(function=start_cell),
        ]
    )


def start_cell(context: LaunchContext) -> list[Action]:
    def argument(name: str) -> str:
        return LaunchConfiguration(name).perform(context).strip()

    overrides = tuple(text.strip() for text in argument("set").split(";") if text.strip())
    cell = load_cell(argument("site"), argument("recipe") or None, overrides)
    run_dir = Path(argument("run_dir")) if argument("run_dir") else default_run_dir(cell.site)
    plan = make_plan(cell.site, cell.recipe, PlanOptions(run_dir))
    plan.write_run_files()
    return [
        *(LogInfo(msg=f"warning: {warning}") for warning in cell.warnings),
        *(SetEnvironmentVariable(name, value) for name, value in plan.environment.items()),
        *(action for spec in plan.nodes for action in start(spec)),
    ]


def start(spec: NodeSpec) -> list[Action]:
    if spec.ros:
        return [
            Node(
                package="battery_sorting",
                executable=spec.executable,
                name=spec.name,
                namespace=spec.namespace,
                parameters=[spec.parameters],
                remappings=list(spec.remappings),
                arguments=list(spec.arguments),
                respawn=spec.respawn,
                respawn_delay=spec.respawn_delay_s,
                output="screen",
                **STOP,
            )
        ]
    process = ExecuteProcess(
        cmd=[str(find_executable(spec.executable)), *spec.command_line()], name=spec.name, output="screen", **STOP
    )
    shutdown = EmitEvent(event=Shutdown(reason=f"{spec.name} has ended"))
    return [process, RegisterEventHandler(OnProcessExit(target_action=process, on_exit=[shutdown]))]

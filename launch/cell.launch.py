"""Starts the cell of a site: ``ros2 launch battery_sorting cell.launch.py site:=sim``.

It translates the plan of `battery_sorting.runtime.plan`, and has it run, end and fail as
`battery_sorting.runtime.supervisor` does. Everything stands in one scoped group, and each process gets its
environment as its own: what includes this file keeps its launch configurations and its environment.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import IO

_GIVEN = dict(os.environ)

from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    GroupAction,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit, OnProcessStart, OnShutdown
from launch.events import Shutdown
from launch.events.process import ProcessExited, ProcessStarted, SignalProcess
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from battery_sorting.core.front_end import FrontEnd, spoken_to_by
from battery_sorting.core.ownership import EXIT_CODE, OwnedElsewhereError, claim_run_folder
from battery_sorting.line.contract import Role
from battery_sorting.runtime.claims import check_beside, check_free
from battery_sorting.runtime.plan import NodeSpec, Plan, check_ports, find_executables
from battery_sorting.runtime.respawn import Deaths, describe_exit
from battery_sorting.runtime.shared_memory import clean_shared_memory
from battery_sorting.runtime.start import LAUNCH_ARGUMENTS, options_of_launch, prepare
from battery_sorting.runtime.supervisor import CellError, process_environment
from launch import LaunchContext, LaunchDescription

# What these modules set in the environment for themselves is not for other nodes of an including launch file.
for _name in os.environ.keys() - _GIVEN.keys():
    del os.environ[_name]
os.environ.update(_GIVEN)

PLANS = "battery_sorting_plans"
"""Name in the launch's context: cells that it has started so far."""
STOP_NODE = {"sigterm_timeout": "2", "sigkill_timeout": "1"}
"""Seconds after which a node that doesn't end is asked with more force."""
STOP_PLANT = {"sigterm_timeout": "3.5", "sigkill_timeout": "1"}
"""The plant ends when the last node has; this is for the case that it doesn't: all are gone within 5 s."""


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in LAUNCH_ARGUMENTS.items()
    ]
    return LaunchDescription([GroupAction([*arguments, OpaqueFunction(function=start_cell)], scoped=True)])


def start_cell(context: LaunchContext) -> list[Action]:
    arguments = {name: LaunchConfiguration(name).perform(context) for name in LAUNCH_ARGUMENTS}
    outer_namespace = context.launch_configurations.get("ros_namespace", "")
    with spoken_to_by(FrontEnd.LAUNCH):
        plan, warnings = prepare(options_of_launch(arguments, outer_namespace), context.environment)
        executables, missing = find_executables(plan)
        check_ports(plan)
        lock = claim_run_folder(plan.run_dir)
        beside = context.get_locals_as_dict().get(PLANS, ())
        check_beside(plan, beside, context.environment)
        check_free(plan, get_logger("cell").info, context.environment)
        plan.write_run_files()
    context.extend_globals({PLANS: (*beside, plan)})
    cell = RunningCell(plan, executables, process_environment(plan, context.environment), lock)
    return [
        *(LogInfo(msg=f"warning: {warning}") for warning in (*warnings, *missing.values())),
        LogInfo(msg=f"cell '{plan.site.name}' starts, its records are in {plan.run_dir}; Ctrl-C stops it"),
        RegisterEventHandler(OnProcessStart(on_start=cell.started)),
        RegisterEventHandler(OnProcessExit(on_exit=cell.exited)),
        RegisterEventHandler(OnShutdown(on_shutdown=cell.shut_down)),
        *(cell.first_life(spec) for spec in plan.nodes if spec.name in executables),
    ]


class RunningCell:
    """The processes of one cell in the hands of launch.

    Args:
        plan: Of the cell.
        executables: Of its processes, by name.
        environment: Of its processes.
        lock: On the run folder; it lasts until the last process has ended.
    """

    def __init__(
        self, plan: Plan, executables: dict[str, Path], environment: dict[str, str], lock: IO[str]
    ) -> None:
        self._executables = executables
        self._environment = environment
        self._lock = lock
        self._specs: dict[Action, NodeSpec] = {}
        self._alive: set[Action] = set()
        self._deaths = {spec.name: Deaths(spec.respawn_delay_s, spec.required) for spec in plan.nodes}

    def first_life(self, spec: NodeSpec) -> Action:
        """The action that starts a process of the plan."""
        action: Action
        if spec.is_node:
            action = Node(
                package="battery_sorting",
                executable=spec.executable,
                name=spec.name,
                namespace=f"/{spec.namespace}",
                parameters=[spec.parameters],
                remappings=list(spec.remappings),
                arguments=list(spec.arguments),
                ros_arguments=spec.ros_arguments,
                env=self._environment,
                output="screen",
                **STOP_NODE,
            )
        else:
            command = [str(self._executables[spec.name]), *spec.command_line()]
            stop = STOP_NODE
            if spec.role is Role.PLANT:  # a terminal's Ctrl-C reaches all at once: it waits for the nodes to end
                command, stop = [*command, "--only-terminate"], STOP_PLANT
            action = ExecuteProcess(cmd=command, name=spec.name, env=self._environment, output="screen", **stop)
        self._specs[action] = spec
        return action

    def started(self, event: ProcessStarted, _: LaunchContext) -> None:
        if event.action in self._specs:
            self._alive.add(event.action)

    def exited(self, event: ProcessExited, context: LaunchContext) -> list[Action]:
        """Only an error ends `ros2 launch` with another exit code than 0."""
        spec = self._specs.pop(event.action, None)
        if spec is None:
            return []
        self._alive.discard(event.action)
        if context.is_shutdown:
            return self._go_on_ending()
        if event.returncode == EXIT_CODE and spec.required:
            raise OwnedElsewhereError(f"{spec.name} can't have what belongs to another process: see above")
        how = describe_exit(event.returncode)
        if not spec.respawn:
            raise CellError(f"{spec.name} {how}: see above")
        deaths = self._deaths[spec.name]
        delay_s = deaths.count(time.monotonic())
        if delay_s is None:
            raise CellError(f"{deaths.why_given_up(spec.name, how)}: see above")
        # By the very command of the first life: namespaces, parameters and remappings of a group are in it, and
        # that group is no longer there.
        successor = ExecuteProcess(
            cmd=event.cmd, cwd=event.cwd, env=event.env, name=spec.name, output="screen", **STOP_NODE
        )
        self._specs[successor] = spec
        told = LogInfo(msg=f"{spec.name} {deaths.next_life(how, delay_s)}")
        return [told, TimerAction(period=delay_s, actions=[successor])]

    def shut_down(self, _: Shutdown, __: LaunchContext) -> list[Action]:
        """Launch itself asks all processes to end; the plant, which does so by SIGTERM alone, is asked at last."""
        return self._go_on_ending()

    def _go_on_ending(self) -> list[Action]:
        if any(self._specs[action].role is not Role.PLANT for action in self._alive):
            return []
        if self._alive:
            to_plant = SignalProcess(
                signal_number=signal.SIGTERM, process_matcher=lambda action: action in self._alive
            )
            return [EmitEvent(event=to_plant)]
        clean_shared_memory()
        self._lock.close()
        return []

"""Nodes for further lines in the process of one node."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.parameter import Parameter

from battery_sorting.belt.guests import GuestFolders, GuestLine, RunFileTimes
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.ownership import OwnedElsewhereError
from battery_sorting.line.paths import RECIPE_FILE, SITE_FILE
from battery_sorting.ros.node import DeviceNode
from battery_sorting.ros.sim_clock import uses_sim_time
from battery_sorting.vision.live import lower_thread_priority

LOOK_S = 0.5


class GuestLines:
    """Further lines that the process of ``host`` serves, each by a node of its own in that line's namespace.

    Their pictures are looked at one after the other, and models with the same weights share one network. A guest is
    made as soon as its line has written its run files, and made anew when that line starts again.

    Args:
        host: The classifier of the line that started the process.
        folders: Run folders of the other lines.
        make_node: Makes a classifier that has models already, with these options of `DeviceNode`.
    """

    def __init__(self, host: DeviceNode, folders: Sequence[Path], make_node: Callable[..., DeviceNode]) -> None:
        self._host, self._make_node = host, make_node
        self._folders = GuestFolders(folders)
        self._nodes: dict[Path, DeviceNode] = {}
        self._prepared: deque[GuestLine] = deque()
        host.create_timer(LOOK_S, self._look)

    def _look(self) -> None:
        while self._prepared:
            self._take_in(self._prepared.popleft())
        for folder, written in self._folders.started():
            self._host.start_thread("guest", partial(self._prepare, folder, written))

    def _prepare(self, folder: Path, written: RunFileTimes) -> None:
        """Loads models in a thread, since the host's belt goes on meanwhile."""
        lower_thread_priority()
        try:
            self._prepared.append(GuestLine.load(folder, written))
        except ConfigurationError as error:  # it may just be being written
            self._host.get_logger().warning(f"{folder} is not served: {error}", throttle_duration_sec=60.0)
            self._folders.look_again(folder)

    def _take_in(self, line: GuestLine) -> None:
        if line.is_outdated:
            return
        executor = self._host.executor
        assert executor is not None
        self._end(executor, self._nodes.pop(line.folder, None))
        namespace = line.namespace(self._host.get_namespace())
        why = line.why_not(namespace, {node.get_namespace() for node in executor.get_nodes()})
        if why:
            self._host.get_logger().error(f"the line of {line.folder} is not served: {why}")
            return
        try:
            guest = self._make_guest(line, namespace)
        except OwnedElsewhereError as error:
            self._host.get_logger().error(f"the line of {line.folder} is not served: {error}")
            return
        self._nodes[line.folder] = guest
        executor.add_node(guest)
        self._host.get_logger().info(f"line {line.site.line} of {line.folder} is served, too")

    def _end(self, executor: Any, guest: DeviceNode | None) -> None:
        if guest is not None:
            executor.remove_node(guest)
            guest.close()
            guest.destroy_node()

    def _make_guest(self, line: GuestLine, namespace: str) -> DeviceNode:
        files = {"site_file": SITE_FILE, "recipe_file": RECIPE_FILE, "run_dir": ""}
        return self._make_node(
            line.models,
            namespace=namespace,
            use_global_arguments=False,  # those are the host's
            parameter_overrides=[
                *(Parameter(key, value=str(line.folder / name)) for key, name in files.items()),
                Parameter("use_sim_time", value=uses_sim_time(self._host)),
            ],
            patience_s=0.0,  # the host's belt goes on meanwhile
        )

"""What every node of the cell has in common: settings, heartbeat, diagnostics, and a clean end."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy._rclpy_pybind11 import RCLError
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.utilities import ok, try_shutdown

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.ev.recipe import EvRecipe
from battery_sorting.core.ev.site import EvSite
from battery_sorting.core.fleet import Lifecycle
from battery_sorting.core.recipe import Recipe
from battery_sorting.core.site import Site
from battery_sorting.msg import Heartbeat, LineState
from battery_sorting.ros import convert, qos

HEARTBEAT_S = 0.2
LINE_SILENCE_S = 1.0
"""Without a state of the line for this long, nodes go to their safe state."""


class _RunSettings:
    """Parameters of a node of the cell, and where they point to."""

    def __init__(self, node: Node) -> None:
        def text(name: str) -> str:
            return str(node.declare_parameter(name, "").value)

        self._site_file, self._recipe_file, run_dir = text("site_file"), text("recipe_file"), text("run_dir")
        self.exit_with_parent = bool(node.declare_parameter("exit_with_parent", False).value)
        self.run_dir = Path(run_dir)


class CellSettings(_RunSettings):
    """Settings of a node of the belt line."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.site = Site.load_resolved(self._site_file)
        self.recipe = Recipe.load_resolved(self._recipe_file)


class EvSettings(_RunSettings):
    """Settings of a node of the EV line."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.site = EvSite.load_resolved(self._site_file)
        self.recipe = EvRecipe.load_resolved(self._recipe_file)


SettingsT = TypeVar("SettingsT", CellSettings, EvSettings)


class ParentWatch:
    """Ends the process when the one that started it has died: nobody would stop it otherwise."""

    def __init__(self, node: Node) -> None:
        self._parent = os.getppid()
        self._node = node
        node.create_timer(0.5, self._look)

    def _look(self) -> None:
        if os.getppid() != self._parent:
            self._node.get_logger().error("the process that started this node is gone: leaving")
            raise ExternalShutdownException


class LineNode(LifecycleNode, Generic[SettingsT]):  # type: ignore[misc]
    """A node that owns something which must be opened before it is used and closed after.

    Sub-classes implement `open`, `close` and, where motion or data shall wait for activation, look at `active`.
    ``detail`` and ``ok`` say how the node is; they go into heartbeat and diagnostics. ``warning`` is for people: it
    goes into the diagnostics only, and the line goes on.
    """

    def __init__(self, name: str, read_settings: Callable[[Node], SettingsT], **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.settings: SettingsT = read_settings(self)
        self.ok = True
        self.detail = ""
        self.warning = ""
        self.figures: dict[str, Any] = {}
        self._line_seen_at = time.monotonic()
        self._heartbeat = self.create_publisher(Heartbeat, "heartbeat", qos.STREAM)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STREAM)
        self.create_subscription(LineState, "line_state", self._on_line_state, qos.STREAM)
        self.create_timer(HEARTBEAT_S, self._send_heartbeat)
        self.create_timer(1.0, self._send_diagnostics)
        if self.settings.exit_with_parent:
            ParentWatch(self)

    # ---- for sub-classes ----

    def open(self) -> None:
        """Opens what the node owns. Raises `BatterySortingError` if that can't be done."""

    def close(self) -> None:
        """Makes safe and closes what the node owns. Called on every way out; must not raise."""

    @property
    def lifecycle(self) -> Lifecycle:
        """The state of the life cycle; transitions count as the state they come from."""
        return Lifecycle.__members__.get(self._state_machine.current_state[1].upper(), Lifecycle.UNKNOWN)

    @property
    def active(self) -> bool:
        """Whether the node may move things and deliver data."""
        return self.lifecycle is Lifecycle.ACTIVE

    @property
    def line_is_silent(self) -> bool:
        """Whether the line controller has not been heard for too long."""
        return time.monotonic() - self._line_seen_at > LINE_SILENCE_S

    def start_thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Runs ``work`` beside the executor. If it fails the node ends: half a node deceives the others."""

        def guarded() -> None:
            try:
                work()
            except Exception:
                self.get_logger().fatal(traceback.format_exc())
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def degrade(self, error: BatterySortingError | str) -> None:
        """Something is wrong; says so once and in every heartbeat until `recover`."""
        text = str(error)
        if self.ok or self.detail != text:
            self.get_logger().error(text)
        self.ok, self.detail = False, text

    def recover(self) -> None:
        """All is well again."""
        if not self.ok:
            self.get_logger().info("recovered")
        self.ok, self.detail = True, ""

    # ---- life cycle ----

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Opens what the node owns; a failure leaves the node unconfigured and is tried again."""
        try:
            self.open()
        except BatterySortingError as error:
            self.close()
            self.degrade(error)
            return TransitionCallbackReturn.FAILURE
        self.recover()
        spare_the_collector()
        return super().on_configure(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Closes what the node owns."""
        self.close()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Closes what the node owns."""
        self.close()
        return super().on_shutdown(state)

    def on_error(self, _: LifecycleState) -> TransitionCallbackReturn:
        """Closes what the node owns; the node may be configured again."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: N802
        """The service ``~/change_state``. rclpy lets a transition that is not allowed now end the whole node."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except RCLError as error:
            self.get_logger().warning(f"transition {request.transition.id} refused: {error}")
            response.success = False
            return response

    # ---- heartbeat and diagnostics ----

    def _on_line_state(self, _: LineState) -> None:
        self._line_seen_at = time.monotonic()

    def _send_heartbeat(self) -> None:
        self._heartbeat.publish(
            Heartbeat(
                header=convert.header(time.time()),
                node=self.get_name(),
                lifecycle_state=int(self.lifecycle),
                ok=self.ok,
                detail=self.detail,
            )
        )

    def _send_diagnostics(self) -> None:
        healthy = self.ok and self.active and not self.warning
        level = DiagnosticStatus.OK if healthy else DiagnosticStatus.ERROR if not self.ok else DiagnosticStatus.WARN
        publish_diagnostics(
            self._diagnostics, self, level, self.detail or self.warning or self.lifecycle.name.lower(), self.figures
        )


class DeviceNode(LineNode[CellSettings]):
    """A node of the belt line."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, CellSettings, **kwargs)


class EvNode(LineNode[EvSettings]):
    """A node of the EV line."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, EvSettings, **kwargs)


def publish_diagnostics(publisher: Any, node: Node, level: bytes, message: str, figures: dict[str, Any]) -> None:
    """Sends one status of ``node``."""
    status = DiagnosticStatus(
        level=level,
        name=node.get_fully_qualified_name().lstrip("/"),
        message=message,
        hardware_id=node.get_name(),
        values=[KeyValue(key=key, value=str(value)) for key, value in figures.items()],
    )
    publisher.publish(DiagnosticArray(header=convert.header(time.time()), status=[status]))


def spare_the_collector() -> None:
    """What is here after the start stays: looking through it for garbage costs tens of milliseconds each time."""
    gc.collect()
    gc.freeze()


def run(make_node: Callable[[], Node]) -> None:
    """Runs one node until it is told to end, and leaves the process. The entry point of every node.

    Nodes that it adds to its executor are run and closed with it.
    """
    faulthandler.enable()
    rclpy.init()
    executor: Any = SingleThreadedExecutor()
    code = 0
    try:
        executor.add_node(make_node())
        spare_the_collector()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except BatterySortingError as error:
        print(f"{error}", file=sys.stderr)
        code = 2
    except Exception:
        # A signal ends the context at once: whatever a callback publishes after that fails, and that is no fault.
        if ok():
            traceback.print_exc()
            code = 1
    finally:
        # Whatever comes now, the process ends: a second signal must not interrupt the clean-up, and destroying
        # the DDS participant, which was seen to hang for ever with the GIL held, is cut short by the kernel.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for node in executor.get_nodes():
            node.close()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        try_shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

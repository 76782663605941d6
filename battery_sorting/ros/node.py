"""What every node of the cell has in common: settings, heartbeat, diagnostics, and a clean end."""

from __future__ import annotations

import contextlib
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

from battery_sorting.belt.kind import BELT
from battery_sorting.belt.recipe import BeltRecipe
from battery_sorting.belt.site import BeltSite
from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.ownership import EXIT_CODE, PATIENCE_S, OwnedElsewhereError, Ownership, claim
from battery_sorting.core.parent import parent_has_died
from battery_sorting.core.secrets import without_passwords
from battery_sorting.core.types import LineStateId
from battery_sorting.ev.kind import EV
from battery_sorting.ev.recipe import EvRecipe
from battery_sorting.ev.site import EvSite
from battery_sorting.line.claims import claims_of
from battery_sorting.line.contract import CONTROLLER, HEARTBEAT_S
from battery_sorting.line.hearing import NodeHearing
from battery_sorting.line.kind import LineKind, RecipeT, SiteT
from battery_sorting.msg import Heartbeat, LineState
from battery_sorting.packml.emergency import EmergencyStop
from battery_sorting.packml.fleet import Lifecycle
from battery_sorting.ros import convert, qos
from battery_sorting.ros.hearing import Marks, watch_hearing
from battery_sorting.ros.lasting import LastingVoice, printable
from battery_sorting.ros.parameters import declare, lock_sim_time
from battery_sorting.ros.sim_clock import uses_sim_time, waiting_clock, watch_sim_clock
from battery_sorting.ros.timers import SteadyTimers

LINE_SILENCE_S = 1.0
"""Without a state of the line for this long, nodes go to their safe state."""


class RunSettings(Generic[SiteT, RecipeT]):
    """Parameters of a node of a line of ``kind``, and the files that they point to."""

    def __init__(self, node: Node, kind: LineKind[SiteT, RecipeT]) -> None:
        def text(name: str) -> str:
            return str(declare(node, name))

        lock_sim_time(node)
        site_file, recipe_file, run_dir = text("site_file"), text("recipe_file"), text("run_dir")
        self.run_id = text("run_id")
        """The start of the cell that this process belongs to; empty if it was started by itself."""
        self.exit_with_parent = bool(declare(node, "exit_with_parent"))
        self.run_dir = Path(run_dir)
        self.kind = kind
        self.site = kind.site.load_resolved(site_file)
        self.recipe = kind.recipe.load_resolved(recipe_file)


class BeltSettings(RunSettings[BeltSite, BeltRecipe]):
    """Settings of a node of the belt line."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, BELT)


class EvSettings(RunSettings[EvSite, EvRecipe]):
    """Settings of a node of the EV line."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, EV)


SettingsT = TypeVar("SettingsT", bound=RunSettings[Any, Any])


def own(node: Node, name: str, settings: RunSettings[Any, Any], patience_s: float = PATIENCE_S) -> Ownership:
    """Claims what this node needs, before anybody can hear it. The claims last as long as what is returned.

    Raises:
        OwnedElsewhereError: Another process has it, and did not end within ``patience_s``.
    """
    domain = node.context.get_domain_id()
    claims = claims_of(name, settings.site, settings.run_dir, domain, node.get_namespace())
    return claim(claims, f"{name}, run folder {settings.run_dir}", node.get_logger().warning, patience_s)


class ParentWatch:
    """Ends the process when the one that started it has died: nobody would stop it otherwise."""

    def __init__(self, node: Node) -> None:
        self._node = node
        node.create_timer(0.5, self._look)

    def _look(self) -> None:
        if parent_has_died():
            self._node.get_logger().error("the process that started this node is gone: leaving")
            raise ExternalShutdownException


class LineNode(SteadyTimers, LastingVoice, LifecycleNode, Generic[SettingsT]):  # type: ignore[misc]
    """A node that owns something which must be opened before it is used and closed after.

    Sub-classes implement `open`, `close` and, where motion or data shall wait for activation, look at `active`.
    ``detail`` and ``ok`` say how the node is; they go into heartbeat and diagnostics. ``warning`` is for people: it
    goes into the diagnostics only, and the line goes on. ``emergency`` is what became of the device's emergency
    stop, ``line_state`` what the line said last.
    """

    def __init__(
        self,
        name: str,
        read_settings: Callable[[Node], SettingsT],
        patience_s: float = PATIENCE_S,
        **kwargs: Any,
    ) -> None:
        super().__init__(name, **kwargs)
        self.settings: SettingsT = read_settings(self)
        self._ownership = own(self, name, self.settings, patience_s)
        self.now = waiting_clock(self)
        self.ok = True
        self._deactivated = False
        self.detail = ""
        self.warning = ""
        self.figures: dict[str, Any] = {}
        self.line_state = LineStateId.UNKNOWN
        self.line_controller = ""
        self.emergency = EmergencyStop()
        self._emergency_lock = threading.Lock()  # a device's thread sees it, the executor hears the line
        self._line_seen_at = time.monotonic()
        self._hearing = NodeHearing(self.get_name(), CONTROLLER)
        self._heartbeat = self.create_publisher(Heartbeat, "heartbeat", qos.STREAM)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STREAM)
        self.create_subscription(LineState, "line_state", self._on_line_state, qos.STREAM)
        self.create_timer(HEARTBEAT_S, self._send_heartbeat)
        if uses_sim_time(self):  # whoever waits for it by a clock that runs faster needs more
            self.create_timer(HEARTBEAT_S, self._send_heartbeat, clock=self.get_clock())
        self.create_timer(1.0, self._send_diagnostics)
        self._clock_problem = ""
        watch_sim_clock(self, self._follow_clock)
        if self.settings.exit_with_parent:
            ParentWatch(self)
        if self.settings.run_id:  # else it was started by hand, and nobody starts it anew
            marks = Marks(self.settings.run_dir)
            watch_hearing(self, marks, lambda now: self._hearing.why_to_end(now, marks.read(CONTROLLER)))

    # ---- for sub-classes ----

    def open(self) -> None:
        """Opens what the node owns. Raises `BatterySortingError` if that can't be done."""

    def close(self) -> None:
        """Makes safe and closes what the node owns. Called on every way out; must not raise."""

    def rest(self) -> None:
        """Stops what the node moves, since it is being deactivated; must not raise."""

    def destroy_node(self) -> None:
        """Gives up what it owned, too: in one process a node may follow another."""
        self._ownership.release()
        super().destroy_node()

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
        text = printable(str(error))
        if self.ok or self.detail != text:
            self.get_logger().error(text)
        self.ok, self.detail = False, text

    def recover(self) -> None:
        """All is well again."""
        if not self.ok:
            self.get_logger().info("recovered")
        self.ok, self.detail = True, ""

    def see_emergency_stop(self, pressed: bool) -> None:
        """The device says whether its emergency stop is pressed; any thread may call it. The line hears at once."""
        self._follow_emergency(lambda: self.emergency.see(pressed))

    def _follow_emergency(self, change: Callable[[], None]) -> None:
        with self._emergency_lock:
            before = self.emergency.standing
            change()
            changed = self.emergency.standing != before
        if changed:
            self._send_heartbeat()

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

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From now on the node may move things and deliver data."""
        self._deactivated = False
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A person wants this node to rest: the line controller never asks for that."""
        self._deactivated = True
        self.rest()
        return super().on_deactivate(state)

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

    def _on_line_state(self, message: LineState) -> None:
        """The controller of another start of this line is not the one that this node works for."""
        if self.settings.run_id and message.run_id not in {"", self.settings.run_id}:
            return
        self._line_seen_at = time.monotonic()
        self.line_controller = message.controller or self.line_controller
        with contextlib.suppress(ValueError):  # a state that does not exist says nothing
            self.line_state = LineStateId(message.state)
            self._follow_emergency(lambda: self.emergency.line_is(self.line_state))
        if message.run_id == self.settings.run_id:  # of another start it says nothing of this one's nodes
            self._hearing.line_state(message.hears)

    def _send_heartbeat(self) -> None:
        self._heartbeat.publish(
            Heartbeat(
                header=convert.header(time.time()),
                node=self.get_name(),
                lifecycle_state=int(self.lifecycle),
                ok=self.ok,
                deactivated=self._deactivated,
                emergency_stop=self.emergency.standing,
                detail=self.detail,
            )
        )

    def _follow_clock(self, problem: str) -> None:
        """It is a warning here: the line controller holds the line for it, and says so."""
        self._clock_problem = problem
        if problem:
            self.get_logger().warning(problem)
        else:
            self.get_logger().info("/clock runs")

    def _send_diagnostics(self) -> None:
        warning = "; ".join(filter(None, (self.warning, self._clock_problem)))
        healthy = self.ok and self.active and not warning
        level = DiagnosticStatus.OK if healthy else DiagnosticStatus.ERROR if not self.ok else DiagnosticStatus.WARN
        publish_diagnostics(
            self._diagnostics, self, level, self.detail or warning or self.lifecycle.name.lower(), self.figures
        )


class DeviceNode(LineNode[BeltSettings]):
    """A node of the belt line."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, BeltSettings, **kwargs)


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
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt_once)
    rclpy.init()
    executor: Any = SingleThreadedExecutor()
    code = 0
    try:
        executor.add_node(make_node())
        spare_the_collector()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except OwnedElsewhereError as error:
        print(f"[FATAL] {error}", file=sys.stderr)
        code = EXIT_CODE
    except BatterySortingError as error:
        _print(str(error))
        code = 2
    except Exception:
        # A signal ends the context at once: whatever a callback publishes after that fails, and that is no fault.
        # Nor is it one that rclpy makes an error of its own of an interrupt that comes while it takes a message.
        if ok() and not _interrupted.is_set():
            _print(traceback.format_exc())
            code = 1
    finally:
        # Whatever comes now, the process ends: a second signal must not interrupt the clean-up, and destroying
        # the DDS participant, which was seen to hang for ever with the GIL held, is cut short by the kernel.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for node in executor.get_nodes():
            try:
                node.close()
            except Exception:  # the others must be closed all the same, and the process must end
                code = 1
                _print(traceback.format_exc())
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        try_shutdown()
        with contextlib.suppress(OSError):  # the disk that they are written to may be full
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


_interrupted = threading.Event()


def _interrupt_once(number: int, frame: Any) -> None:
    """The first Ctrl-C interrupts; a second one must not interrupt the way to the clean-up."""
    _interrupted.set()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.default_int_handler(number, frame)


def _print(text: str) -> None:
    with contextlib.suppress(OSError):
        print(without_passwords(text), file=sys.stderr)

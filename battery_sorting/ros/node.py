"""What all nodes but the controller have in common: settings, life cycle, state of the line, a clean end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Generic

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.ownership import PATIENCE_S
from battery_sorting.core.types import LineStateId
from battery_sorting.line.contract import CONTROLLER, STANDARD_TOPICS
from battery_sorting.line.hearing import NodeHearing
from battery_sorting.msg import LineState
from battery_sorting.packml.fleet import Lifecycle
from battery_sorting.ros import qos
from battery_sorting.ros.gated import GatedPublisher
from battery_sorting.ros.health import HealthVoice
from battery_sorting.ros.hearing import Marks, watch_hearing
from battery_sorting.ros.lasting import LastingVoice
from battery_sorting.ros.process import ParentWatch, spare_the_collector
from battery_sorting.ros.rclpy_private import ForgivingLifecycleNode
from battery_sorting.ros.settings import BeltSettings, EvSettings, SettingsT, own
from battery_sorting.ros.sim_clock import waiting_clock
from battery_sorting.ros.timers import SteadyTimers

LINE_SILENCE_S = 1.0
"""Without a state of the line for this long, nodes go to their safe state."""


class LineNode(SteadyTimers, HealthVoice, LastingVoice, ForgivingLifecycleNode, Generic[SettingsT]):
    """A node that owns something which must be opened before it is used and closed after.

    Sub-classes implement `open`, `close` and, where motion shall wait for activation, look at `active`. What they
    publish is not sent while the node is inactive, but for what the contract of their line says. How the node is,
    they say as of `HealthVoice`. ``line_state`` is what the line said last.
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
        self.line_state = LineStateId.UNKNOWN
        self.line_controller = ""
        self._emergency_lock = threading.Lock()  # a device's thread sees it, the executor hears the line
        self._line_seen_at = time.monotonic()
        self._hearing = NodeHearing(self.get_name(), CONTROLLER)
        self.begin_to_speak()
        self.create_subscription(LineState, "line_state", self._on_line_state, qos.STREAM)
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

    def create_publisher(self, msg_type: Any, topic: str, *arguments: Any, **options: Any) -> Any:
        """As rclpy's, but silent while the node is inactive unless the contract says otherwise."""
        # rclpy makes publishers of its own before the node has its settings.
        if topic in STANDARD_TOPICS or self.settings.kind.contract.is_sent_while_inactive(topic):
            return super().create_publisher(msg_type, topic, *arguments, **options)
        options = {"publisher_class": GatedPublisher, **options}
        publisher = super().create_publisher(msg_type, topic, *arguments, **options)
        self.add_managed_entity(publisher)
        return publisher

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

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Closes what the node owns; the node may be configured again."""
        self.close()
        return super().on_error(state)


class DeviceNode(LineNode[BeltSettings]):
    """A node of the belt line."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, BeltSettings, **kwargs)


class EvNode(LineNode[EvSettings]):
    """A node of the EV line."""

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name, EvSettings, **kwargs)

"""Battery type of each frame."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.parameter import Parameter
from rclpy.task import Future
from rclpy.utilities import remove_ros_args

from battery_sorting.belt.drift import DriftMonitor, Reference, ReferenceBook
from battery_sorting.belt.site import BeltSite
from battery_sorting.core.active_model import find_model
from battery_sorting.core.errors import BatterySortingError, ConfigurationError, FrameError
from battery_sorting.core.ownership import OwnedElsewhereError
from battery_sorting.core.types import Alarm, ModelChange, Reason, TypeResult
from battery_sorting.line.contract import CLASSIFIER
from battery_sorting.line.paths import RECIPE_FILE, SITE_FILE
from battery_sorting.msg import Alarm as AlarmMessage
from battery_sorting.msg import BatteryImage, BatteryType
from battery_sorting.msg import ModelChange as ModelChangeMessage
from battery_sorting.ros import convert, images, qos
from battery_sorting.ros.node import DeviceNode
from battery_sorting.ros.process import run
from battery_sorting.ros.sim_clock import uses_sim_time
from battery_sorting.srv import LoadModel
from battery_sorting.vision.classifier import TypeClassifier
from battery_sorting.vision.live import Shadow, load_warm, lower_thread_priority, rejected, verdict_on
from battery_sorting.vision.trial import try_model

MAX_AGE_S = 5.0
"""A battery whose frame is older has left the belt; its frame was delivered again after a restart."""
SHADOW_PERIOD_S = 0.2
GUEST_PERIOD_S = 0.5
DRIFT_FILE = "drift_reference.json"


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What came of loading a model: the model, or why there is none."""

    folder: Path | None = None
    classifier: TypeClassifier | None = None
    problem: str = ""


class ClassifierNode(DeviceNode):
    """Runs the model of the site on every frame that is a battery, one after the other.

    While it does, another model can be loaded (``~/load_model``). It takes over between two frames.
    """

    def __init__(self, preloaded: Sequence[TypeClassifier] = (), **kwargs: Any) -> None:
        """``preloaded``: models of the site that were loaded by a thread; opening them again takes no time."""
        super().__init__(CLASSIFIER, **kwargs)
        images.use_cv_bridge(self.get_logger().warning)
        self._preloaded = preloaded
        self._classifier: TypeClassifier | None = None
        self._shadow: Shadow | None = None
        self._drift = DriftMonitor(self.settings.site.drift)
        self._references = ReferenceBook(self.settings.run_dir / DRIFT_FILE)
        self._count = 0
        self._inference_s = float("nan")
        self._types = self.create_publisher(BatteryType, "battery_type", qos.BATTERY_EVENT)
        self._shadow_types = self.create_publisher(BatteryType, "shadow_type", qos.SHADOW)
        self._changes = self.create_publisher(ModelChangeMessage, "model_change", qos.NOTICE)
        self._alarms = self.create_publisher(AlarmMessage, "alarm", qos.NOTICE)
        self._images: Any = None
        # A group of its own: while an answer is awaited, frames go on.
        group = MutuallyExclusiveCallbackGroup()
        self.create_service(LoadModel, "~/load_model", self._on_load_model, callback_group=group)
        self.create_timer(SHADOW_PERIOD_S, self._send_shadow_verdicts)

    def open(self) -> None:
        """Loads the model, and the candidate if the site names one."""
        site, recipe = self.settings.site, self.settings.recipe
        folder, shadow_folder = site.model_directory(), site.shadow_directory()
        classifier = TypeClassifier(folder, threshold=recipe.threshold)
        classifier.warm_up()
        shadow = None if shadow_folder is None else load_warm(shadow_folder, recipe, acted_on=False)
        self._use(classifier, folder, self._references.of(classifier.card.sha256))
        if shadow is not None:
            self._use_in_shadow(shadow, shadow_folder)
        self._preloaded = ()
        if self._images is None:
            self._images = self.create_subscription(
                BatteryImage, "battery_image", self._on_image, qos.BATTERY_IMAGE
            )

    def close(self) -> None:
        """Forgets the models."""
        self._classifier = None
        shadow, self._shadow = self._shadow, None
        if shadow is not None:
            shadow.close()

    # ---- frames ----

    def _on_image(self, message: BatteryImage) -> None:
        classifier, stamp = self._classifier, convert.from_time(message.header.stamp)
        if classifier is None or self._is_of_long_ago(message, stamp):
            return
        self._count += 1
        if message.error:
            result = rejected(message.battery_id, stamp, message.error, classifier.name)
            self._types.publish(convert.type_message(result))
            return
        self._look_at(classifier, message, stamp)

    def _is_of_long_ago(self, message: BatteryImage, stamp: float) -> bool:
        """By either clock: the wall clock may have been set, and the monotonic one is that of one host and one run.

        In a replay (``use_sim_time``) the ROS clock stands for the wall clock that it repeats.
        """
        wall = self.get_clock().now().nanoseconds * 1e-9
        return wall - stamp > MAX_AGE_S and abs(time.monotonic() - message.seen_at) > MAX_AGE_S

    def _look_at(self, classifier: TypeClassifier, message: BatteryImage, stamp: float) -> None:
        image = message.image
        begin = time.perf_counter()
        rgb = None
        try:
            rgb = images.decoded(image)
            verdict = verdict_on(classifier, rgb, message.battery_id, stamp)
            result = replace(verdict, inference_s=time.perf_counter() - begin)
        except FrameError as error:
            self.get_logger().warning(f"battery {message.battery_id}: {error}")
            result = rejected(message.battery_id, stamp, Reason.BAD_IMAGE, classifier.name)
        self._types.publish(convert.type_message(result))
        self._inference_s = time.perf_counter() - begin
        # Only now, when nobody waits for it any more:
        if self._shadow is not None and rgb is not None:
            self._shadow.submit(rgb, message.battery_id, stamp)
        self._watch_drift(result)

    def _watch_drift(self, result: TypeResult) -> None:
        before = self._drift.reference
        self._announce(self._drift.take(result, self.now()))
        reference = self._drift.reference
        if reference is not None and before is None and self._classifier is not None:
            self._write_reference(lambda book, model: book.keep(model, reference), self._classifier)
        self._show()

    def _write_reference(self, change: Callable[[ReferenceBook, str], None], classifier: TypeClassifier) -> None:
        try:
            change(self._references, classifier.card.sha256)
        except OSError as error:  # a full disk is told by others; the belt goes on
            self.get_logger().warning(f"the reference for drift can't be written: {error}")

    def _announce(self, alarms: list[Alarm]) -> None:
        for alarm in alarms:
            state = "raised" if alarm.raised else "cleared"
            self.get_logger().warning(f"alarm {alarm.code} {state}: {alarm.text}")
            self._alarms.publish(convert.alarm_message(replace(alarm, stamp=time.time())))
        self.warning = "; ".join(self._drift.raised.values())

    def _send_shadow_verdicts(self) -> None:
        if self._shadow is not None:
            for result in self._shadow.take_results():
                self._shadow_types.publish(convert.type_message(result))

    def _show(self) -> None:
        """What the diagnostics say."""
        classifier, shadow = self._classifier, self._shadow
        self.figures = {
            "model": classifier.name if classifier else "",
            "images": self._count,
            "inference_ms": round(self._inference_s * 1e3, 1),
            **self._drift.figures(),
        }
        if shadow is not None:
            self.figures |= {
                "shadow_model": shadow.name,
                "shadow_images": shadow.looked_at,
                "shadow_skipped": shadow.skipped,
            }

    # ---- models ----

    async def _on_load_model(self, request: LoadModel.Request, response: LoadModel.Response) -> Any:
        """The service ``~/load_model``. The model is loaded in a thread; this goes on when it is there."""
        loaded = _Loaded()
        if request.model:
            future: Any = Future()
            self.start_thread("load_model", lambda: future.set_result(self._load(request.model, request.shadow)))
            loaded = await future
        elif not request.shadow:
            loaded = _Loaded(problem="model: is empty; give a folder or name/version")
        if self._classifier is None:
            loaded = _Loaded(problem="the classifier is not configured: start the cell first")
        response.success = not loaded.problem
        response.message = loaded.problem
        if response.success and request.shadow:
            self._use_in_shadow(loaded.classifier, loaded.folder)
        elif loaded.classifier is not None:
            self._write_reference(lambda book, model: book.forget(model), loaded.classifier)
            self._use(loaded.classifier, loaded.folder)
            response.message = self._reservation(loaded.folder)
        in_use = self._shadow if request.shadow else self._classifier
        response.model = in_use.name if in_use is not None else ""
        if loaded.problem:
            self.get_logger().warning(f"model {request.model or '(none)'} was not loaded: {loaded.problem}")
        return response

    def _load(self, name: str, shadow: bool) -> _Loaded:
        """Loads a model beside the one that works. Whatever goes wrong must not end the node, or hold it up."""
        lower_thread_priority()
        try:
            folder = find_model(name)
            try_model(folder)
            return _Loaded(folder, load_warm(folder, self.settings.recipe, acted_on=not shadow))
        except BatterySortingError as error:
            return _Loaded(problem=str(error))
        except Exception as error:  # e.g. MemoryError, or a network that fails at its first picture
            return _Loaded(problem=f"{name}: {type(error).__name__}: {error}")

    def _use(self, classifier: TypeClassifier, folder: Path | None, reference: Reference | None = None) -> None:
        """From the next frame on, this model decides, and is compared with ``reference`` or its own beginning."""
        previous = self._classifier.name if self._classifier else ""
        self._classifier = classifier
        self._announce_change(classifier, folder, previous, shadow=False)
        self._announce(self._drift.restart(self.now(), f"model {classifier.name} took over", reference))
        self._show()

    def _use_in_shadow(self, classifier: TypeClassifier | None, folder: Path | None) -> None:
        """From the next frame on, this candidate is compared; None: none is."""
        self._send_shadow_verdicts()
        earlier, self._shadow = self._shadow, None if classifier is None else Shadow(classifier)
        if earlier is not None:
            earlier.end()
        if earlier is not None or classifier is not None:
            self._announce_change(classifier, folder, earlier.name if earlier else "", shadow=True)
        self._show()

    def _announce_change(
        self, classifier: TypeClassifier | None, folder: Path | None, previous: str, shadow: bool
    ) -> None:
        change = ModelChange(
            stamp=time.time(),
            model=classifier.name if classifier else "",
            previous=previous,
            folder=str(folder or ""),
            sha256=classifier.card.sha256 if classifier else "",
            shadow=shadow,
        )
        role = "shadow model" if shadow else "model"
        self.get_logger().info(f"{role} {change.model or 'none'}, before {previous or 'none'}")
        self._changes.publish(convert.model_change_message(change))

    def _reservation(self, folder: Path | None) -> str:
        """What there is to know of a model that took over: whether it will be there after the next start."""
        site = self.settings.site
        try:
            if site.model_directory() == folder:
                return ""
        except ConfigurationError as error:
            return str(error)
        return f"until the next start: the site's model is {site.model}"


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A line that has started: its run files, when they were written, and its models."""

    folder: Path
    written: tuple[int, ...]
    site: BeltSite
    models: list[TypeClassifier]


class GuestLines:
    """Further lines that the process of ``host`` serves, each by a node of its own in that line's namespace.

    Their pictures are looked at one after the other, and models with the same weights share one network. A guest is
    made as soon as its line has written its run files, and made anew when that line starts again.

    Args:
        host: The classifier of the line that started the process.
        folders: Run folders of the other lines.
    """

    def __init__(self, host: ClassifierNode, folders: Sequence[Path]) -> None:
        self._host, self._folders = host, folders
        self._nodes: dict[Path, ClassifierNode] = {}
        self._seen: dict[Path, tuple[int, ...]] = {}
        self._prepared: deque[_Prepared] = deque()
        host.create_timer(GUEST_PERIOD_S, self._look)

    def _look(self) -> None:
        while self._prepared:
            self._take_in(self._prepared.popleft())
        for folder in self._folders:
            written = _written(folder)
            if written and written != self._seen.get(folder):
                self._seen[folder] = written
                self._host.start_thread("guest", partial(self._prepare, folder, written))

    def _prepare(self, folder: Path, written: tuple[int, ...]) -> None:
        """Loads models in a thread, since the host's belt goes on meanwhile."""
        lower_thread_priority()
        try:
            site = BeltSite.load_resolved(folder / SITE_FILE)
        except ConfigurationError as error:  # it may just be being written
            self._host.get_logger().warning(f"{folder} is not served: {error}", throttle_duration_sec=60.0)
            self._seen.pop(folder, None)
            return
        models = []
        with contextlib.suppress(BatterySortingError):  # the node tells what is wrong when it is configured
            named = (site.model_directory(), site.shadow_directory())
            models = [TypeClassifier(model) for model in named if model is not None]
        self._prepared.append(_Prepared(folder, written, site, models))

    def _take_in(self, line: _Prepared) -> None:
        if line.written != _written(line.folder):
            return  # it was started again meanwhile
        executor = self._host.executor
        assert executor is not None
        earlier = self._nodes.pop(line.folder, None)
        if earlier is not None:
            executor.remove_node(earlier)
            earlier.close()
            earlier.destroy_node()
        taken = {node.get_namespace() for node in executor.get_nodes()}
        namespace = f"{self._host.get_namespace().rpartition('/')[0]}/{line.site.line}"
        if line.site.own_classifier or namespace in taken:
            why = "has a classifier of its own: set own_classifier: false in its site file"
            if not line.site.own_classifier:
                why = f"is called {line.site.line}, as another that is served: give each a name of its own"
            self._host.get_logger().error(f"the line of {line.folder} is not served: it {why}")
            return
        files = {"site_file": SITE_FILE, "recipe_file": RECIPE_FILE, "run_dir": ""}
        try:
            guest = ClassifierNode(
                line.models,
                namespace=namespace,
                use_global_arguments=False,  # those are the host's
                parameter_overrides=[
                    *(Parameter(key, value=str(line.folder / name)) for key, name in files.items()),
                    Parameter("use_sim_time", value=uses_sim_time(self._host)),
                ],
                patience_s=0.0,  # the host's belt goes on meanwhile
            )
        except OwnedElsewhereError as error:
            self._host.get_logger().error(f"the line of {line.folder} is not served: {error}")
            return
        self._nodes[line.folder] = guest
        executor.add_node(guest)
        self._host.get_logger().info(f"line {line.site.line} of {line.folder} is served, too")


def _written(folder: Path) -> tuple[int, ...]:
    """When the run files were written; empty as long as one is missing."""
    try:
        return tuple((folder / name).stat().st_mtime_ns for name in (SITE_FILE, RECIPE_FILE))
    except OSError:
        return ()


def make_classifier() -> ClassifierNode:
    """The classifier of the line that starts this process, and those of the lines whose run folders it names."""
    host = ClassifierNode()
    folders = [Path(argument) for argument in remove_ros_args(sys.argv)[1:]]
    if folders:
        GuestLines(host, folders)
    return host


def main() -> None:
    """Entry point."""
    run(make_classifier)

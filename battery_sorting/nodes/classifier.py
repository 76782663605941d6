"""Battery type of each frame."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future
from rclpy.utilities import remove_ros_args

from battery_sorting.belt.type_judge import ModelLoad, News, TypeJudge
from battery_sorting.core.types import Alarm
from battery_sorting.line.contract import CLASSIFIER
from battery_sorting.msg import Alarm as AlarmMessage
from battery_sorting.msg import BatteryImage, BatteryType
from battery_sorting.msg import ModelChange as ModelChangeMessage
from battery_sorting.ros import convert, images, qos
from battery_sorting.ros.guest_lines import GuestLines
from battery_sorting.ros.node import DeviceNode
from battery_sorting.ros.process import run
from battery_sorting.srv import LoadModel
from battery_sorting.vision.classifier import TypeClassifier
from battery_sorting.vision.live import lower_thread_priority

MAX_AGE_S = 5.0
"""A battery whose frame is older has left the belt; its frame was delivered again after a restart."""
SHADOW_PERIOD_S = 0.2
DRIFT_FILE = "drift_reference.json"


class ClassifierNode(DeviceNode):
    """Lets `TypeJudge` look at every frame that is a battery, one after the other.

    While it does, another model can be loaded (``~/load_model``). It takes over between two frames.
    """

    def __init__(self, preloaded: Sequence[TypeClassifier] = (), **kwargs: Any) -> None:
        """``preloaded``: models of the site that were loaded by a thread; opening them again takes no time."""
        super().__init__(CLASSIFIER, **kwargs)
        images.use_cv_bridge(self.get_logger().warning)
        self._preloaded = preloaded
        settings = self.settings
        self._judge = TypeJudge(
            settings.site, settings.recipe, settings.run_dir / DRIFT_FILE, self.get_logger().warning
        )
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
        self._tell(self._judge.open(self.now()))
        self._preloaded = ()
        if self._images is None:
            self._images = self.create_subscription(
                BatteryImage, "battery_image", self._on_image, qos.BATTERY_IMAGE
            )

    def close(self) -> None:
        """Forgets the models."""
        self._judge.close()

    # ---- frames ----

    def _on_image(self, message: BatteryImage) -> None:
        stamp = convert.from_time(message.header.stamp)
        if not self._judge.is_open or self._is_of_long_ago(message, stamp):
            return
        judgement = self._judge.judge(
            message.battery_id, stamp, message.error, lambda: images.decoded(message.image)
        )
        self._types.publish(convert.type_message(judgement.result))
        if judgement.problem:
            self.get_logger().warning(f"battery {message.battery_id}: {judgement.problem}")
        self._tell(self._judge.follow(judgement, self.now()))

    def _is_of_long_ago(self, message: BatteryImage, stamp: float) -> bool:
        """By either clock: the wall clock may have been set, and the monotonic one is that of one host and one run.

        In a replay (``use_sim_time``) the ROS clock stands for the wall clock that it repeats.
        """
        wall = self.get_clock().now().nanoseconds * 1e-9
        return wall - stamp > MAX_AGE_S and abs(time.monotonic() - message.seen_at) > MAX_AGE_S

    def _send_shadow_verdicts(self) -> None:
        for result in self._judge.shadow_results():
            self._shadow_types.publish(convert.type_message(result))

    def _tell(self, news: Sequence[News]) -> None:
        """Passes on what the judge says, and how it stands."""
        for one in news:
            if isinstance(one, Alarm):
                state = "raised" if one.raised else "cleared"
                self.get_logger().warning(f"alarm {one.code} {state}: {one.text}")
                self._alarms.publish(convert.alarm_message(replace(one, stamp=time.time())))
            else:
                role = "shadow model" if one.shadow else "model"
                self.get_logger().info(f"{role} {one.model or 'none'}, before {one.previous or 'none'}")
                self._changes.publish(convert.model_change_message(replace(one, stamp=time.time())))
        self.warning = self._judge.warning
        self.figures = self._judge.figures()

    # ---- models ----

    async def _on_load_model(self, request: LoadModel.Request, response: LoadModel.Response) -> Any:
        """The service ``~/load_model``. The model is loaded in a thread; this goes on when it is there."""
        judge, loaded = self._judge, ModelLoad()
        if request.model:
            future: Any = Future()
            self.start_thread("load_model", lambda: future.set_result(self._load(request)))
            loaded = await future
        elif not request.shadow:
            loaded = ModelLoad(problem="model: is empty; give a folder or name/version")
        if not judge.is_open:
            loaded = ModelLoad(problem="the classifier is not configured: start the cell first")
        response.success = not loaded.problem
        response.message = loaded.problem
        if response.success and request.shadow:
            self._send_shadow_verdicts()
            self._tell(judge.use_in_shadow(loaded))
        elif response.success:
            self._tell(judge.take_over(loaded, self.now()))
            response.message = judge.reservation(loaded.folder)
        response.model = judge.shadow if request.shadow else judge.model
        if loaded.problem:
            self.get_logger().warning(f"model {request.model or '(none)'} was not loaded: {loaded.problem}")
        return response

    def _load(self, request: LoadModel.Request) -> ModelLoad:
        lower_thread_priority()
        return self._judge.load(request.model, acted_on=not request.shadow)


def make_classifier() -> ClassifierNode:
    """The classifier of the line that starts this process, and those of the lines whose run folders it names."""
    host = ClassifierNode()
    folders = [Path(argument) for argument in remove_ros_args(sys.argv)[1:]]
    if folders:
        GuestLines(host, folders, ClassifierNode)
    return host


def main() -> None:
    """Entry point."""
    run(make_classifier)

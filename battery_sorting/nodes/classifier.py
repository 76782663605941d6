"""Battery type of each frame."""

from __future__ import annotations

import time
from typing import Any

from battery_sorting.core.errors import FrameError
from battery_sorting.core.types import Reason, TypeResult
from battery_sorting.msg import BatteryImage, BatteryType
from battery_sorting.ros import convert, qos
from battery_sorting.ros.node import DeviceNode, run
from battery_sorting.vision.classifier import TypeClassifier
from battery_sorting.vision.preprocessing import to_rgb

MAX_AGE_S = 5.0
"""A battery whose frame is older has left the belt; its frame was delivered again after a restart."""


class Classifier(DeviceNode):
    """Runs the model of the site on every frame that is a battery, one after the other."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("classifier", **kwargs)
        self._classifier: TypeClassifier | None = None
        self._model = ""
        self._count = 0
        self._types = self.create_publisher(BatteryType, "battery_type", qos.BATTERY_EVENT)
        self._images: Any = None

    def open(self) -> None:
        """Loads the model."""
        self._classifier = TypeClassifier(
            self.settings.site.model_directory(), threshold=self.settings.recipe.threshold
        )
        self._model = self._classifier.name
        self._classifier.warm_up()
        if self._images is None:
            self._images = self.create_subscription(
                BatteryImage, "battery_image", self._on_image, qos.BATTERY_IMAGE
            )

    def close(self) -> None:
        """Forgets the model."""
        self._classifier = None

    def _on_image(self, message: BatteryImage) -> None:
        stamp = convert.from_time(message.header.stamp)
        if self._classifier is None or time.time() - stamp > MAX_AGE_S:
            return
        if message.error:
            result = self._rejected(message.battery_id, stamp, message.error)
        else:
            result = self._classify(self._classifier, message, stamp)
        self._types.publish(convert.type_message(result))
        self._count += 1
        self.figures = {
            "model": self._model,
            "images": self._count,
            "inference_ms": round(result.inference_s * 1e3, 1),
        }

    def _classify(self, classifier: TypeClassifier, message: BatteryImage, stamp: float) -> TypeResult:
        image = message.image
        begin = time.perf_counter()
        try:
            rgb = to_rgb(convert.image_bytes(image), image.encoding, image.height, image.width, image.step)
            prediction = classifier.classify(rgb)
        except FrameError as error:
            self.get_logger().warning(f"battery {message.battery_id}: {error}")
            return self._rejected(message.battery_id, stamp, Reason.BAD_IMAGE.value)
        return TypeResult(
            battery_id=message.battery_id,
            stamp=stamp,
            label=prediction.label,
            confidence=prediction.confidence,
            accepted=prediction.accepted,
            reason=prediction.reason,
            scores=prediction.scores,
            model=self._model,
            inference_s=time.perf_counter() - begin,
        )

    def _rejected(self, battery_id: str, stamp: float, reason: str) -> TypeResult:
        return TypeResult(battery_id, stamp, "", float("nan"), accepted=False, reason=reason, model=self._model)


def main() -> None:
    """Entry point."""
    run(Classifier)

"""Keeps what nobody waits for: the pictures, the shadow model's verdicts, model changes and drift alarms.

Pictures are files named by their content, with the link from battery to picture in the ledger.
"""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import Any

import cv2

from battery_sorting.core.disk import DiskSpace, look_at_disk
from battery_sorting.core.errors import FrameError, LedgerError
from battery_sorting.core.types import Alarm, ModelChange, TypeResult
from battery_sorting.ledger import EventKind
from battery_sorting.ledger.store import ImageStore, Ledger, SideRecords
from battery_sorting.line.paths import image_folder, ledger_location
from battery_sorting.msg import Alarm as AlarmMessage
from battery_sorting.msg import BatteryImage, BatteryType
from battery_sorting.msg import ModelChange as ModelChangeMessage
from battery_sorting.ros import convert, images, qos
from battery_sorting.ros.node import DeviceNode, run
from battery_sorting.ros.pictures import PictureQueue, file_picture

WAITING = 32
"""Pictures that wait for their verdict where only those of rejected batteries are kept."""
WRITE_PERIOD_S = 0.5


class ArchivistNode(DeviceNode):
    """Writes the picture of every battery, or of every rejected one, as the site wants, and what comes beside.

    It is an observer: the line neither waits for it nor holds without it. The controller looks after the ledger and
    its disk itself.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("archivist", **kwargs)
        images.use_cv_bridge(self.get_logger().warning)
        site = self.settings.site
        self._keep = site.images.keep
        self._store = ImageStore(image_folder(site, self.settings.run_dir))
        self._ledger: Ledger | None = None
        self._beside: SideRecords | None = None
        self._waiting: dict[str, BatteryImage] = {}
        self._pictures = PictureQueue()
        self._disk = DiskSpace(0.0)
        self._count = 0
        self._subscribed = False

    def open(self) -> None:
        """Opens the ledger."""
        self._ledger = Ledger.open(ledger_location(self.settings.site, self.settings.run_dir))
        self._beside = SideRecords(self._ledger, self.settings.site.line)
        self._store.folder.mkdir(parents=True, exist_ok=True)
        self._watch_disk()
        if not self._subscribed:
            self._subscribed = True
            self._subscribe()

    def _subscribe(self) -> None:
        self.create_subscription(BatteryType, "shadow_type", self._on_shadow_type, qos.SHADOW)
        self.create_subscription(ModelChangeMessage, "model_change", self._on_model_change, qos.NOTICE)
        self.create_subscription(AlarmMessage, "alarm", self._on_alarm, qos.NOTICE)
        self.create_timer(WRITE_PERIOD_S, self._write_beside)
        if self._keep != "none":
            self.create_subscription(BatteryImage, "battery_image", self._on_image, qos.BATTERY_IMAGE)
            if self._keep == "rejected":
                self.create_subscription(BatteryType, "battery_type", self._on_type, qos.BATTERY_EVENT)
            self.create_timer(1.0, self._watch_disk)

    def close(self) -> None:
        """Closes the ledger."""
        self._write_beside()
        ledger, self._ledger, self._beside = self._ledger, None, None
        if ledger is not None:
            ledger.close()

    def _on_image(self, message: BatteryImage) -> None:
        if message.error:
            return
        if self._keep == "all":
            self._file(message)
            return
        self._waiting[message.battery_id] = message
        while len(self._waiting) > WAITING:
            self._file(self._waiting.pop(next(iter(self._waiting))))

    def _on_type(self, message: BatteryType) -> None:
        image = self._waiting.pop(message.battery_id, None)
        if image is not None and not message.accepted:
            self._file(image)

    def _file(self, message: BatteryImage) -> None:
        if self._ledger is None:
            return
        image = message.image
        try:
            rgb = images.image_rgb(image)
            bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
            stamp = convert.from_time(message.header.stamp)
            quality = self.settings.site.images.quality
        except FrameError as error:
            self.get_logger().warning(f"battery {message.battery_id}: {error}")
            return
        store, ledger, battery_id = self._store, self._ledger, message.battery_id
        self._pictures.add(lambda: file_picture(store, ledger, battery_id, bgr, quality, stamp))
        try:
            self._file_pictures()
        except LedgerError as error:
            self.degrade(error)

    def _file_pictures(self) -> None:
        filed = self._pictures.file()
        if filed:
            self._count += filed
            self.figures = {
                "images": self._count,
                "given up": self._pictures.given_up,
                "free_mb": round(self._disk.free_mb),
            }

    # ---- what comes beside ----

    def _on_shadow_type(self, message: BatteryType) -> None:
        result = convert.type_result(message)
        scores = {label: round(score, 4) for label, score in result.scores.items()}
        self._note(EventKind.SHADOW_TYPED, replace(result, scores=scores))

    def _on_model_change(self, message: ModelChangeMessage) -> None:
        self._note(EventKind.MODEL_CHANGED, convert.model_change(message))

    def _on_alarm(self, message: AlarmMessage) -> None:
        alarm = convert.alarm(message)
        self._note(EventKind.ALARM_RAISED if alarm.raised else EventKind.ALARM_CLEARED, alarm)

    def _note(self, kind: EventKind, thing: TypeResult | ModelChange | Alarm) -> None:
        """Keeps a record for the ledger: its fields are those of ``thing``."""
        if self._beside is None:
            return
        payload = asdict(thing)
        stamp, battery_id = payload.pop("stamp"), payload.pop("battery_id", None)
        self._beside.add(kind, battery_id, stamp, payload, self.now())

    def _write_beside(self) -> None:
        """Writes what waits, and says how the ledger and the disk are."""
        if self._beside is None or self._ledger is None:
            return
        try:
            self._ledger.check_file()
            self._beside.write(self.now())
            self._file_pictures()
        except LedgerError as error:
            self.degrade(error)
            return
        if self._disk.problem:
            self.degrade(self._disk.problem)
        elif self.active:
            self.recover()

    def _watch_disk(self) -> None:
        self._disk = look_at_disk(self._store.folder, self.settings.site.alarms.disk_free_mb)


def main() -> None:
    """Entry point."""
    os.nice(10)  # pictures can wait, decisions can't
    run(ArchivistNode)

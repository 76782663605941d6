"""A camera that is triggered."""

from battery_sorting.drivers.base import DeviceKind

DEVICE = DeviceKind(
    interface="battery_sorting.drivers.camera.base:TriggeredCamera",
    suite="battery_sorting.drivers.camera.contract:SUITE",
    drivers={
        "frame_server": "battery_sorting.drivers.camera.frame_server:FrameServerCamera",
    },
)

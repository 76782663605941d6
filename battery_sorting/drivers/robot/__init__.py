"""The robot that carries cells."""

from battery_sorting.drivers.base import DeviceKind

DEVICE = DeviceKind(
    interface="battery_sorting.drivers.robot.base:Robot",
    suite="battery_sorting.drivers.robot.contract:SUITE",
    drivers={
        "line_socket": "battery_sorting.drivers.robot.line_socket:LineSocketRobot",
    },
)

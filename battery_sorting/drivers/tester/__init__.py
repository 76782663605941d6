"""The tester of cells."""

from battery_sorting.drivers.base import DeviceKind

DEVICE = DeviceKind(
    interface="battery_sorting.drivers.tester.base:CellTester",
    suite="battery_sorting.drivers.tester.contract:SUITE",
    drivers={
        "scpi": "battery_sorting.drivers.tester.scpi:ScpiTester",
    },
)

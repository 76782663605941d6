"""The PLC of a belt line."""

from battery_sorting.drivers.base import DeviceKind

DEVICE = DeviceKind(
    interface="battery_sorting.drivers.plc.base:BeltPlc",
    suite="battery_sorting.drivers.plc.contract:SUITE",
    drivers={
        "modbus": "battery_sorting.drivers.plc.modbus:ModbusPlc",
    },
)

"""The PLC of an inspection station."""

from battery_sorting.drivers.base import DeviceKind

DEVICE = DeviceKind(
    interface="battery_sorting.drivers.station_plc.base:StationPlc",
    suite="battery_sorting.drivers.station_plc.contract:SUITE",
    drivers={
        "modbus": "battery_sorting.drivers.station_plc.modbus:ModbusStationPlc",
    },
)

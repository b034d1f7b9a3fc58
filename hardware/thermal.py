"""Heat: how hot the CPU is, by a sensor that is the CPU's, and whether it holds back.

Zone numbers mean nothing (zone 0 may be a modem), so that a zone is chosen by its type. Where several belong
to the CPU (one for each cluster), the hottest counts. See the kernel's `thermal/sysfs-api.rst` and
`hwmon/sysfs-interface.rst`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hardware.devices import devices
from hardware.schema import Thermal
from hardware.sysfs import clean, parse_hex

if TYPE_CHECKING:
    from hardware.sysfs import Root

MAX_TRIP_POINTS = 16
MAX_ZONES = 256
_COLDEST, _HOTTEST = -60.0, 150.0
# Vendor kernels before 4.x give whole degrees; nothing that computes is at less than 1 °C in thousandths.
_WHOLE_DEGREES = range(1, 151)
# What shares a zone's name with a CPU without being one.
_NOT_CPU = re.compile(
    r"gpu|npu|apu|vpu|tpu|ddr|dram|dimm|mem|pmic|pmi?[0-9]|bat|charg|wifi|wlan|iwl|mt7|modem|mdm|skin|board"
    r"|nvme|ssd|pch|cam|isp|video|display|usb|pcie|quiet|ambient|aux|phy|eth|xo|fan|psu|vrm|bms|rf|pa[0-9_-]"
)
# The CPU itself, then the chip around it; the first rank that has a readable zone wins.
_RANKS = (
    re.compile(
        r"cpu|x86_pkg_temp|coretemp|k10temp|zenpower|tctl|tdie|b0d4"
        r"|(?:^|[-_ ])(?:big|little|mid|prime|gold|silver)|bigcore|littlecore|core[-_]?[0-9]"
        r"|tsensor_cluster|^cluster|^mpu"
    ),
    re.compile(
        r"soc|exynos|tmu|imx[-_]thermal|bcm2[78][0-9]+|^main0|sun[0-9]+i|sunxi|package|pkg|^tj|ap_therm|^tsens|die|^s5p|armada|ls10|max[-_]?temp"
    ),
)
_HWMON_CPU = (
    "coretemp",
    "k10temp",
    "zenpower",
    "fam15h_power",
    "via_cputemp",
    "cputemp",
    "cpu_thermal",
    "scpi_sensors",
)
_HWMON_WHOLE = re.compile(r"package id|physical id|tdie|tccd|tctl|cpu", re.IGNORECASE)
_COOLING_CPU = re.compile(
    r"processor|cpufreq|thermal-cpu|cpu[-_]?(?:idle|cluster|freq|[0-9])|intel_powerclamp", re.IGNORECASE
)
_FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


class _Sensor(NamedTuple):
    name: str
    celsius: float
    limit: float | None


def celsius(raw: int | None) -> float | None:
    """Return the temperature in °C that a sensor gave in thousandths, or None if no silicon has that."""
    if raw is None or raw == 0:  # exactly 0.000: a sensor that is off or not there
        return None
    value = float(raw) if raw in _WHOLE_DEGREES else raw / 1000
    return round(value, 3) if _COLDEST <= value <= _HOTTEST else None


def probe(root: Root, *, read_firmware: bool = False) -> tuple[Thermal, dict[str, str]]:
    """Return the CPU's temperature and limits, and why fields are unknown.

    `read_firmware` also reads the Raspberry Pi's `get_throttled`. Only when asked: its first read puts a
    warning into the kernel log (raspberrypi/linux, `drivers/firmware/raspberrypi.c`).
    """
    unknown: dict[str, str] = {}
    sensor = _zone(root, unknown) or _hwmon(root)
    if sensor is not None:
        unknown.pop("thermal.cpu_celsius", None)
        if sensor.limit is None:
            unknown["thermal.limit_celsius"] = f"{sensor.name} has no trip point that tells"
    else:
        unknown.setdefault("thermal.cpu_celsius", "no thermal zone and no sensor is there")
        unknown["thermal.limit_celsius"] = unknown["thermal.zone"] = unknown["thermal.cpu_celsius"]
    throttled, under_voltage = _cooling(root, unknown), under_voltage_alarm(root)
    if read_firmware:
        bits = parse_hex(root.read_text(_FIRMWARE, 4096))
        if bits is not None:
            throttled = bool(bits & 0b1110) or bool(throttled)
            under_voltage = bool(bits & 1) or bool(under_voltage)
            unknown.pop("thermal.throttled", None)
    return (
        Thermal(
            cpu_celsius=sensor.celsius if sensor is not None else None,
            zone=sensor.name if sensor is not None else None,
            throttled=throttled,
            limit_celsius=sensor.limit if sensor is not None else None,
            under_voltage=under_voltage,
        ),
        unknown,
    )


def cpu_celsius(root: Root) -> float | str:
    """Return how hot the CPU is, or why that is unknown: what `probe` says, without the limits and the rest."""
    unknown: dict[str, str] = {}
    sensor = _zone(root, unknown) or _hwmon(root)
    if sensor is None:
        return unknown.get("thermal.cpu_celsius", "no thermal zone and no sensor is there")
    return sensor.celsius


def under_voltage_alarm(root: Root) -> bool | None:
    """Return whether a Raspberry Pi's supply is too weak now, from its hwmon device; None elsewhere."""
    for device in devices(root, "sys/class/hwmon"):
        if root.read_value(f"{device.path}/name") == "rpi_volt":
            alarm = root.read_int(f"{device.path}/in0_lcrit_alarm")
            return None if alarm is None else alarm != 0
    return None


def throttle_counts(root: Root) -> int | None:
    """Return how often x86 CPUs have throttled since boot, all counters summed; None if there are none."""
    counts = [root.read_int(path) for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_count")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def rank(kind: str) -> int | None:
    """Return how surely a zone of this type is the CPU's (0 is surest), or None if it isn't."""
    kind = kind.lower()
    for place, pattern in enumerate(_RANKS):
        if pattern.search(kind) and not _NOT_CPU.search(re.sub(r"cpu[a-z]*", "cpu", kind)):
            return place
    return None


def _zone(root: Root, unknown: dict[str, str]) -> _Sensor | None:
    ranked: dict[int, list[_Sensor]] = {}
    others, broken = [], []
    for device in devices(root, "sys/class/thermal", "thermal_zone")[:MAX_ZONES]:
        kind = clean(root.read_value(f"{device.path}/type") or "", 64)
        place = rank(kind)
        if place is None:
            others.append(kind or device.name)
            continue
        value = celsius(root.read_int(f"{device.path}/temp"))
        if value is None:
            broken.append(kind)
            continue
        ranked.setdefault(place, []).append(_Sensor(kind, value, _trip_limit(root, device.path)))
    if ranked:
        return max(ranked[min(ranked)], key=lambda sensor: sensor.celsius)
    if broken:
        unknown["thermal.cpu_celsius"] = f"the zone {broken[0]} gives no usable temperature"
    elif others:
        unknown["thermal.cpu_celsius"] = f"no zone is the CPU's by its type (there are {', '.join(others[:8])})"
    return None


def _trip_limit(root: Root, path: str) -> float | None:
    """Return where the zone makes the CPU hold back (passive), else where it stops it (hot, critical)."""
    trips: dict[str, list[float]] = {}
    for number in range(MAX_TRIP_POINTS):
        kind = root.read_value(f"{path}/trip_point_{number}_type")
        value = celsius(root.read_int(f"{path}/trip_point_{number}_temp"))
        if kind is not None and value is not None and value > 0:
            trips.setdefault(kind, []).append(value)
    return next((min(trips[kind]) for kind in ("passive", "hot", "critical") if kind in trips), None)


def _hwmon(root: Root) -> _Sensor | None:
    best: tuple[int, float, _Sensor] | None = None
    for device in devices(root, "sys/class/hwmon"):
        chip = clean(root.read_value(f"{device.path}/name") or "", 64)
        own = chip in _HWMON_CPU
        for name in root.listdir(device.path):
            match = re.fullmatch(r"(temp[0-9]{1,3})_input", name)
            if match is None:
                continue
            label = clean(root.read_value(f"{device.path}/{match[1]}_label") or "", 64)
            whole = _HWMON_WHOLE.search(label) is not None
            if not own and not (whole and "cpu" in label.lower()):
                continue
            value = celsius(root.read_int(f"{device.path}/{name}"))
            if value is None:
                continue
            limit = celsius(root.read_int(f"{device.path}/{match[1]}_crit"))
            sensor = _Sensor(f"{chip} {label}".strip() if chip else label, value, limit)
            # The CPU's own chip first, there the sensor of the whole package, then the hottest.
            key = (2 * own + (whole and label.lower() != "tctl"), value, sensor)
            if best is None or key[:2] > best[:2]:
                best = key
    return best[2] if best is not None else None


def _cooling(root: Root, unknown: dict[str, str]) -> bool | None:
    """Return whether the kernel holds the CPU back now; None if nothing tells."""
    states = []
    for device in devices(root, "sys/class/thermal", "cooling_device"):
        kind = root.read_value(f"{device.path}/type") or ""
        if _COOLING_CPU.search(kind):
            state = root.read_int(f"{device.path}/cur_state")
            if state is not None:
                states.append(state)
    if states:
        return any(state > 0 for state in states)
    unknown["thermal.throttled"] = (
        "the firmware throttles and tells only in get_throttled, whose first read warns in the kernel log"
        if root.exists(_FIRMWARE)
        else "no cooling device of the CPU tells"
    )
    return None

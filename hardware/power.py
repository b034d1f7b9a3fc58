"""Power: mains or battery, and how many watts flow where something measures them.

See the kernel's `ABI/testing/sysfs-class-power`, `hwmon/sysfs-interface.rst` and `powercap/powercap.rst`.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

from hardware.devices import devices
from hardware.schema import Power

if TYPE_CHECKING:
    from hardware.boards import BoardFacts
    from hardware.sysfs import Root

RAPL_INTERVAL_SECONDS = 0.05
"""RAPL counters advance every millisecond: an error of 2 %."""
MIN_WATTS, MAX_WATTS = 0.01, 20_000.0
_LINE = re.compile(r"Mains|USB.*|Wireless|BrickID", re.IGNORECASE)
_STORES = frozenset({"Battery", "UPS"})
# Sensors at the supply of a whole machine; those of one rail, one chip or one card are not.
_METERS = re.compile(r"ina[0-9]+|power_meter|acpi_power_meter|ltc29[0-9]+|max34[0-9]+|corsairpsu")
_WHOLE = re.compile(
    r"(?:^|[_ ])(?:vdd_in|pom_[0-9a-z]*v_in|(?:sys_)?vin(?:_sys)?(?:_[0-9v]+)?|[0-9]+v_in|total|system|input)"
    r"(?:$|[_ ])",
    re.IGNORECASE,
)


class Supply(NamedTuple):
    """What feeds the machine now.

    Attributes:
        has_battery: whether there is a battery or a UPS that the kernel knows.
        on_battery: whether it drains.
        charging_or_full: whether it charges, or is full and kept so.
        charge_share: how full it is, 0 to 1; None where it does not tell.
        why: this cannot be known; empty where it is.
    """

    has_battery: bool = False
    on_battery: bool = False
    charging_or_full: bool = False
    charge_share: float | None = None
    why: str = ""


class _Supplies(NamedTuple):
    line_online: bool | None
    """None: no entry for a line; True: one is online."""
    statuses: tuple[str, ...]
    percent: float | None
    watts: float | None


def probe(root: Root, board: BoardFacts | None = None) -> tuple[Power, dict[str, str]]:
    """Return the power supply and consumption, and why fields are unknown.

    `watts` is what flows now, by the best meter there is: a sensor at the supply (or the gauge of a battery
    that drains) measures the machine, RAPL only the processor package. Idle and maximum watts are the board
    file's; where nothing measures, `watts_source` is `board` and `watts` stays None. On the running machine
    RAPL takes `RAPL_INTERVAL_SECONDS`, because it counts energy.
    """
    unknown: dict[str, str] = {}
    supplies = _supplies(root)
    source = _source(supplies)
    if source == "unknown":
        unknown["power.source"] = "/sys/class/power_supply lists no battery and no supply that is in use"
    watts, watts_source = hwmon_watts(root), "hwmon"
    if watts is None and source == "battery":
        watts = supplies.watts
    if watts is None:
        found = _rapl_watts(root)
        if isinstance(found, str):
            unknown["power.watts"] = found
        else:
            watts, watts_source = found, "rapl"
    idle = board.idle_watts if board is not None else None
    most = board.max_watts if board is not None else None
    no_file = "no board file describes this machine" if board is None else "the board's file doesn't say"
    unknown |= {f"power.{name}_watts": no_file for name, value in (("idle", idle), ("max", most)) if value is None}
    measured: str | None = watts_source
    if watts is None:
        measured = "board" if idle is not None or most is not None else None
        if measured is None:
            unknown["power.watts_source"] = unknown["power.watts"]
    return (
        Power(
            source=source,
            battery_percent=supplies.percent,
            watts=None if watts is None else round(watts, 3),
            watts_source=measured,
            idle_watts=idle,
            max_watts=most,
        ),
        unknown,
    )


def supply(root: Root) -> Supply:
    """Return what feeds the machine, by its power supplies alone: a few small files.

    A machine without any battery is fed from the mains. Where a battery does not tell what it does, and no line does,
    that is said, and not guessed.
    """
    supplies = _supplies(root)
    if not supplies.statuses:
        return Supply()
    source = _source(supplies)
    return Supply(
        has_battery=True,
        on_battery=source == "battery",
        charging_or_full=source == "mains" and bool({"Charging", "Full"} & set(supplies.statuses)),
        charge_share=None if supplies.percent is None else supplies.percent / 100,
        why="its battery does not say whether it drains" if source == "unknown" else "",
    )


def battery_watts(root: Root) -> float | None:
    """Return the watts that a draining battery gives; None if none drains or its gauge does not tell."""
    supplies = _supplies(root)
    return supplies.watts if _source(supplies) == "battery" else None


def _source(supplies: _Supplies) -> str:
    if supplies.line_online:
        return "mains"
    if "Discharging" in supplies.statuses:
        return "battery"
    if {"Charging", "Full", "Not charging"} & set(supplies.statuses):
        # It charges, or is kept from draining. A line that says it is off is believed over "Full".
        return "mains" if "Charging" in supplies.statuses or supplies.line_online is None else "battery"
    return "battery" if supplies.statuses and supplies.line_online is False else "unknown"


def _supplies(root: Root) -> _Supplies:
    online: list[bool] = []
    statuses: list[str] = []
    charges: list[tuple[float, float]] = []
    watts: list[float | None] = []
    for device in devices(root, "sys/class/power_supply"):
        path = device.path
        kind = root.read_value(f"{path}/type") or ""
        if root.read_value(f"{path}/scope") == "Device":
            continue  # the battery of a mouse
        if _LINE.fullmatch(kind):
            state = root.read_int(f"{path}/online")
            if state is not None:
                online.append(state > 0)
        elif kind in _STORES and root.read_int(f"{path}/present") != 0:
            status = root.read_value(f"{path}/status") or "Unknown"
            statuses.append(status)
            charge = _charge(root, path)
            if charge is not None:
                charges.append(charge)
            if status == "Discharging":
                watts.append(_battery_watts(root, path))
    whole = sum(weight for _, weight in charges)
    percent = sum(part * weight for part, weight in charges) / whole if whole else None
    known = [value for value in watts if value is not None]
    return _Supplies(
        line_online=any(online) if online else None,
        statuses=tuple(statuses),
        percent=None if percent is None else round(percent, 1),
        watts=sum(known) if known and len(known) == len(watts) else None,
    )


def _charge(root: Root, path: str) -> tuple[float, float] | None:
    """Return a battery's charge in percent and its weight among several (what it holds when full)."""
    full, now = None, None
    for quantity in ("energy", "charge"):
        full = root.read_int(f"{path}/{quantity}_full")
        now = root.read_int(f"{path}/{quantity}_now")
        if full and full > 0:
            break
    percent: float | None = root.read_int(f"{path}/capacity")
    if percent is None and full and full > 0 and now is not None:
        percent = 100 * now / full
    if percent is None or percent < 0:
        return None
    return min(percent, 100.0), float(full if full and full > 0 else 1)


def _battery_watts(root: Root, path: str) -> float | None:
    power = root.read_int(f"{path}/power_now")
    if power is None:
        current, voltage = root.read_int(f"{path}/current_now"), root.read_int(f"{path}/voltage_now")
        if current is None or voltage is None:
            return None
        power = abs(current) * voltage // 1_000_000  # µA times µV
    return sane(abs(power) / 1e6)  # some drivers count what leaves as negative


def sane(watts: float) -> float | None:
    """Return watts that a machine can draw, or None."""
    return watts if MIN_WATTS <= watts <= MAX_WATTS else None


def hwmon_watts(root: Root) -> float | None:
    """Return the watts at the supply, by a labelled input or the only power sensor of the machine."""
    unlabelled = []
    for device in devices(root, "sys/class/hwmon"):
        if not _METERS.fullmatch(root.read_value(f"{device.path}/name") or ""):
            continue
        for label, watts in _readings(root, device.path):
            if _WHOLE.search(label):
                return watts
            # A named rail ("CPU", "VDD_GPU_SOC") is a part; a nameless sensor may be the whole.
            unlabelled.append(None if label else watts)
    return unlabelled[0] if len(unlabelled) == 1 else None


def _readings(root: Root, path: str) -> list[tuple[str, float]]:
    names = set(root.listdir(path))
    found = []
    for number in range(1, 9):
        label = ""
        for name in (f"power{number}_label", f"in{number}_label", f"curr{number}_label"):
            label = label or (root.read_value(f"{path}/{name}") or "" if name in names else "")
        micro = None
        for name in (f"power{number}_average", f"power{number}_input"):
            if micro is None and name in names:
                micro = root.read_int(f"{path}/{name}")
        if micro is None and {f"curr{number}_input", f"in{number}_input"} <= names:
            milliamperes, millivolts = (
                root.read_int(f"{path}/curr{number}_input"),
                root.read_int(f"{path}/in{number}_input"),
            )
            if milliamperes is not None and millivolts is not None:
                micro = milliamperes * millivolts
        watts = None if micro is None else sane(micro / 1e6)
        if watts is not None:
            found.append((label, watts))
    return found


class RaplCounter(NamedTuple):
    """One zone's energy counter.

    Attributes:
        microjoules: what it shows.
        ring: above which it begins at 0 again; 0 if it does not say.
    """

    microjoules: int
    ring: int


def rapl_counters(root: Root) -> tuple[RaplCounter, ...] | str:
    """Return the energy counters of the platform or else of all processor packages, or why there are none."""
    zones: dict[str, list[str]] = {}
    for device in devices(root, "sys/class/powercap"):
        if re.fullmatch(r"intel-rapl:[0-9]+", device.name):
            name = root.read_value(f"{device.path}/name") or ""
            zones.setdefault(name.partition("-")[0], []).append(device.path)
    paths = zones.get("psys") or zones.get("package") or []
    if not paths:
        return "no sensor at the supply, no draining battery and no RAPL measures it"
    if not root.live:
        return "RAPL counts energy: only the running machine can tell the watts"
    counters = []
    for path in paths:
        count = root.read_int(f"{path}/energy_uj")
        if count is None:
            return root.reason(f"{path}/energy_uj")
        counters.append(RaplCounter(count, root.read_int(f"{path}/max_energy_range_uj") or 0))
    return tuple(counters)


def rapl_joules(before: tuple[RaplCounter, ...], after: tuple[RaplCounter, ...]) -> float | None:
    """Return the energy between two readings; None if they are not of the same zones."""
    if len(before) != len(after):
        return None
    pairs = zip(before, after, strict=True)
    return (
        sum(
            last.microjoules - first.microjoules + (last.ring if last.microjoules < first.microjoules else 0)
            for first, last in pairs
        )
        / 1e6
    )


def _rapl_watts(root: Root) -> float | str:
    """Return the watts of the platform or else of all processor packages, or why they are unknown."""
    before, start = rapl_counters(root), time.monotonic()
    if isinstance(before, str):
        return before
    time.sleep(RAPL_INTERVAL_SECONDS)
    after, seconds = rapl_counters(root), time.monotonic() - start
    if isinstance(after, str):
        return after
    joules = rapl_joules(before, after)
    return (None if joules is None else sane(joules / seconds)) or "the RAPL counters don't advance"

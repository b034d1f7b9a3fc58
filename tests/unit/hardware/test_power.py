"""Power: where it comes from, and how much."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import needs
import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from hardware import boards, power
from hardware.sysfs import Root

SUPPLY = "sys/class/power_supply"
HWMON = "sys/class/hwmon/hwmon0"


def supplies(tmp_path: Path, *entries: dict[str, str]) -> Root:
    """Return a tree with these power supplies."""
    files = {f"{SUPPLY}/S{n}/{key}": f"{value}\n" for n, entry in enumerate(entries) for key, value in entry.items()}
    return trees.make(tmp_path, files)


LINE_ON, LINE_OFF = {"type": "Mains", "online": "1"}, {"type": "Mains", "online": "0"}
MOUSE = {"type": "Battery", "scope": "Device", "status": "Discharging", "capacity": "10"}


def battery(status: str, **more: str) -> dict[str, str]:
    """Return a battery's files."""
    return {"type": "Battery", "status": status, "capacity": "50", **more}


@pytest.mark.parametrize(
    ("entries", "source"),
    [
        ((), "unknown"),
        ((MOUSE,), "unknown"),
        ((LINE_ON,), "mains"),
        ((LINE_OFF,), "unknown"),
        ((LINE_ON, battery("Charging")), "mains"),
        ((LINE_OFF, battery("Discharging")), "battery"),
        ((LINE_OFF, battery("Unknown")), "battery"),
        ((battery("Discharging"),), "battery"),
        ((battery("Charging"),), "mains"),
        ((battery("Full"),), "mains"),
        ((battery("Unknown"),), "unknown"),
        (({"type": "USB", "online": "1"}, battery("Not charging")), "mains"),
        (({"type": "Battery", "present": "0", "status": "Discharging"}, LINE_ON), "mains"),
    ],
)
def test_source(tmp_path: Path, entries: tuple[dict[str, str], ...], source: str) -> None:
    """A line that is on is mains; a battery that drains is battery; without either nothing is claimed."""
    found, unknown = power.probe(supplies(tmp_path, *entries))
    assert found.source == source
    assert ("power.source" in unknown) == (source == "unknown")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ((), power.Supply()),
        ((MOUSE, LINE_ON), power.Supply()),
        ((LINE_OFF,), power.Supply()),
        ((LINE_ON, battery("Charging")), power.Supply(True, False, True, 0.5)),
        ((LINE_ON, battery("Not charging")), power.Supply(True, False, False, 0.5)),
        ((LINE_OFF, battery("Discharging")), power.Supply(True, True, False, 0.5)),
        ((battery("Full"),), power.Supply(True, False, True, 0.5)),
        ((LINE_OFF, battery("Full")), power.Supply(True, True, False, 0.5)),
        (({"type": "UPS", "status": "Discharging"},), power.Supply(True, True, False, None)),
    ],
)
def test_supply_of_the_owners_rules(
    tmp_path: Path, entries: tuple[dict[str, str], ...], expected: power.Supply
) -> None:
    """A machine without a battery is on mains; a full battery without its line drains."""
    assert power.supply(supplies(tmp_path, *entries)) == expected


def test_a_battery_that_says_nothing_is_unknown(tmp_path: Path) -> None:
    """And not taken for either."""
    found = power.supply(supplies(tmp_path, battery("Unknown")))
    assert found.has_battery
    assert found.why


def test_two_batteries_count_by_what_they_hold(tmp_path: Path) -> None:
    """A full small one and an empty big one are not half full."""
    small = battery("Discharging", capacity="100", energy_full="10000000", power_now="2000000")
    big = battery("Discharging", capacity="0", energy_full="30000000", power_now="3000000")
    found, _ = power.probe(supplies(tmp_path, small, big))
    assert (found.battery_percent, found.watts, found.watts_source) == (25.0, 5.0, "hwmon")


def test_charge_without_capacity(tmp_path: Path) -> None:
    """Some gauges give only charge, current and voltage; a negative current leaves the battery."""
    files = {"type": "Battery", "status": "Discharging", "charge_full": "4000", "charge_now": "1000"}
    more = {"current_now": "-500000", "voltage_now": "4000000"}
    found, _ = power.probe(supplies(tmp_path, {**files, **more}))
    assert (found.battery_percent, found.watts) == (25.0, 2.0)


def test_capture_of_a_laptop_on_battery() -> None:
    """The node_exporter fixture: AC off, 81 %, 5.002 W."""
    found, _ = power.probe(Root(needs.reference_data() / "hardware" / "dumps" / "composite-node-exporter"))
    assert (found.source, found.battery_percent, found.watts) == ("battery", 81.0, 5.002)


def test_input_rail_of_a_jetson(tmp_path: Path) -> None:
    """An INA3221 has three rails; only VDD_IN is the machine."""
    files = {"name": "ina3221"}
    for n, (label, volts, amperes) in enumerate((("VDD_CPU", "5000", "900"), ("VDD_IN", "19000", "500")), 1):
        files |= {f"in{n}_label": label, f"in{n}_input": volts, f"curr{n}_input": amperes}
    found, _ = power.probe(trees.make(tmp_path, {f"{HWMON}/{name}": text for name, text in files.items()}))
    assert (found.watts, found.watts_source) == (9.5, "hwmon")


def test_part_of_the_machine_is_not_the_machine(tmp_path: Path) -> None:
    """One rail's power, or a GPU's, is not taken for the whole."""
    files = {f"{HWMON}/name": "ina231", f"{HWMON}/power1_input": "3000000", f"{HWMON}/power1_label": "VDD_GPU"}
    gpu = {"sys/class/hwmon/hwmon1/name": "amdgpu", "sys/class/hwmon/hwmon1/power1_average": "40000000"}
    assert power.probe(trees.make(tmp_path, {**files, **gpu}))[0].watts is None


def test_single_sensor_without_a_label(tmp_path: Path) -> None:
    """The only power sensor of a board is at its supply."""
    root = trees.make(tmp_path, {f"{HWMON}/name": "ina226\n", f"{HWMON}/power1_input": "4500000\n"})
    assert power.probe(root)[0].watts == 4.5


def test_board_file_where_nothing_measures(tmp_path: Path) -> None:
    """Idle and maximum are the board's; what flows now stays unknown."""
    found, unknown = power.probe(Root(tmp_path), boards.get("raspberry-pi-5"))
    assert (found.idle_watts, found.max_watts, found.watts, found.watts_source) == (2.8, 13.8, None, "board")
    assert "power.watts" in unknown


class _Counting(Root):
    """A tree whose RAPL counter advances as on a running machine."""

    def __init__(self, path: Path, values: list[int]) -> None:
        super().__init__(path)
        self._values = values

    def read_int(self, rel: str) -> int | None:
        """Return the next value of the counter."""
        return self._values.pop(0) if rel.endswith("energy_uj") else super().read_int(rel)


@pytest.mark.parametrize(("values", "joules"), [([1_000_000, 1_500_000], 0.5), ([900_000, 100_000], 0.2)])
def test_rapl_counts_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[int], joules: float) -> None:
    """Watts are joules over time, across the counter's wrap too."""
    base = "sys/class/powercap/intel-rapl:0"
    trees.make(tmp_path, {f"{base}/name": "package-0\n", f"{base}/max_energy_range_uj": "1000000\n"})
    root = _Counting(tmp_path, list(values))
    assert "running machine" in power.probe(root)[1]["power.watts"]
    clock = iter((10.0, 10.5))
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    root._full = lambda inside: root.path + inside  # type: ignore[method-assign]
    root._locate = lambda rel: f"{root.path}/{rel}"  # type: ignore[method-assign]
    root.live = True
    found, _ = power.probe(root)
    assert found.watts == pytest.approx(2 * joules)
    assert found.watts_source == "rapl"


@given(st.binary(max_size=60), st.sampled_from(["Mains", "Battery", "UPS", "USB_PD"]))
def test_no_bytes_raise(data: bytes, kind: str) -> None:
    """Any bytes in any file of a supply or a sensor."""
    names = ("online", "status", "capacity", "energy_now", "energy_full", "power_now", "current_now", "voltage_now")
    files: dict[str, str | bytes] = {f"{SUPPLY}/S0/{name}": data for name in names}
    files |= {f"{SUPPLY}/S0/type": kind, f"{HWMON}/name": "ina3221", f"{HWMON}/power1_input": data}
    with tempfile.TemporaryDirectory() as folder:
        found, _ = power.probe(trees.make(Path(folder), files))
        assert found.battery_percent is None or 0 <= found.battery_percent <= 100
        assert found.watts is None or found.watts > 0

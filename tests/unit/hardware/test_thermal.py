"""Heat: the CPU's own sensor, its limit, and throttling."""

from __future__ import annotations

import tempfile
from pathlib import Path

import needs
import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from hardware import thermal
from hardware.sysfs import Root

ZONES = "sys/class/thermal"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


def zones(tmp_path: Path, *pairs: tuple[str, str], **more: str) -> Root:
    """Return a tree with thermal zones of these types and temperatures."""
    files = {}
    for number, (kind, temperature) in enumerate(pairs):
        files[f"{ZONES}/thermal_zone{number}/type"] = f"{kind}\n"
        files[f"{ZONES}/thermal_zone{number}/temp"] = f"{temperature}\n"
    return trees.make(tmp_path, {**files, **{f"{ZONES}/{name}": text for name, text in more.items()}})


@pytest.mark.parametrize(
    ("pairs", "zone", "celsius"),
    [
        ((("acpitz", "27800"), ("x86_pkg_temp", "51000")), "x86_pkg_temp", 51.0),
        ((("gpu-thermal", "70000"), ("cpu-thermal", "48312")), "cpu-thermal", 48.312),
        ((("soc-thermal", "60000"), ("bigcore0-thermal", "55000"), ("npu-thermal", "90000")), "bigcore0-thermal", 55.0),
        ((("cpu0-thermal", "40000"), ("cpu1-thermal", "45000")), "cpu1-thermal", 45.0),
        ((("iwlwifi_1", "30000"), ("SOC2-therm", "47500"), ("GPU-therm", "80000")), "SOC2-therm", 47.5),
        ((("cpu_thermal", "45"),), "cpu_thermal", 45.0),
        ((("cpu-thermal", "-274000"), ("soc-thermal", "50000")), "soc-thermal", 50.0),
    ],
)
def test_zone_by_type(tmp_path: Path, pairs: tuple[tuple[str, str], ...], zone: str, celsius: float) -> None:
    """The CPU's zone is found by its type wherever it stands; of several the hottest counts."""
    found, _ = thermal.probe(zones(tmp_path, *pairs))
    assert (found.zone, found.cpu_celsius) == (zone, celsius)


def test_no_zone_of_the_cpu_is_unknown(tmp_path: Path) -> None:
    """A modem's temperature is not given out as the CPU's."""
    found, unknown = thermal.probe(zones(tmp_path, ("modem-therm", "40000"), ("battery", "30000")))
    assert found.cpu_celsius is None
    assert "modem-therm" in unknown["thermal.cpu_celsius"]


def test_the_temperature_alone(tmp_path: Path) -> None:
    """What the owner's rules look at every few seconds: the same as in the profile, or why it is unknown."""
    assert thermal.cpu_celsius(zones(tmp_path / "a", ("cpu-thermal", "48312"), ("gpu-thermal", "70000"))) == 48.312
    assert "modem-therm" in str(thermal.cpu_celsius(zones(tmp_path / "b", ("modem-therm", "40000"))))
    assert thermal.cpu_celsius(zones(tmp_path / "c")) == "no thermal zone and no sensor is there"


def test_limit_is_where_the_cpu_holds_back(tmp_path: Path) -> None:
    """The lowest passive trip point, else the critical one; unset ones (0) don't count."""
    more = {}
    for number, (kind, value) in enumerate(
        (("active", "50000"), ("passive", "0"), ("passive", "85000"), ("critical", "105000"))
    ):
        more[f"thermal_zone0/trip_point_{number}_type"] = kind
        more[f"thermal_zone0/trip_point_{number}_temp"] = value
    found, unknown = thermal.probe(zones(tmp_path, ("cpu-thermal", "50000"), **more))
    assert found.limit_celsius == 85.0
    assert "thermal.limit_celsius" not in unknown


@pytest.mark.parametrize(
    ("state", "kind", "throttled"),
    [("0", "Processor", False), ("3", "cpufreq-cpu0", True), ("2", "pwm-fan", None), ("-1", "intel_powerclamp", False)],
)
def test_throttling_by_cooling_devices(tmp_path: Path, state: str, kind: str, throttled: bool | None) -> None:  # noqa: FBT001 - a parameter of the test
    """A cooling device of the CPU that is at work means throttling; a fan at work does not."""
    more = {"cooling_device0/type": kind, "cooling_device0/cur_state": state}
    assert thermal.probe(zones(tmp_path, **more))[0].throttled is throttled


def test_hwmon_of_amd(tmp_path: Path) -> None:
    """Tdie is the die; Tctl may have an offset for the fan's sake."""
    base = "sys/class/hwmon/hwmon3"
    root = trees.make(
        tmp_path,
        {
            f"{base}/name": "k10temp\n",
            f"{base}/temp1_label": "Tctl\n",
            f"{base}/temp1_input": "75000\n",
            f"{base}/temp2_label": "Tdie\n",
            f"{base}/temp2_input": "55000\n",
            "sys/class/hwmon/hwmon0/name": "nvme\n",
            "sys/class/hwmon/hwmon0/temp1_input": "80000\n",
        },
    )
    found, _ = thermal.probe(root)
    assert (found.zone, found.cpu_celsius) == ("k10temp Tdie", 55.0)


def test_raspberry_pi_through_hwmon_only(tmp_path: Path) -> None:
    """Under-voltage comes from rpi_volt; get_throttled is read only if asked, because that writes to the log."""
    files = {
        "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
        "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n",
        FIRMWARE: "50004\n",
    }
    root = trees.make(tmp_path, files)
    opened: list[str] = []
    read_bytes = root.read_bytes

    def noting(rel: str, *rest: int) -> bytes | None:
        opened.append(rel)
        return read_bytes(rel, *rest)

    root.read_bytes = noting  # type: ignore[method-assign, assignment]
    found, unknown = thermal.probe(root)
    assert (found.under_voltage, found.throttled) == (True, None)
    assert "get_throttled" in unknown["thermal.throttled"]
    assert opened
    assert not any("get_throttled" in rel for rel in opened)
    asked, _ = thermal.probe(root, read_firmware=True)
    assert (asked.under_voltage, asked.throttled) == (True, True)


def test_captures_of_real_machines() -> None:
    """A ThinkPad's label "CPU", and flattened links to coretemp and the zone."""
    dumps = needs.reference_data() / "hardware" / "dumps"
    thinkpad, _ = thermal.probe(Root(dumps / "thinkpad-x250-hwmon"))
    assert (thinkpad.zone, thinkpad.cpu_celsius) == ("thinkpad CPU", 36.0)
    composite, _ = thermal.probe(Root(dumps / "composite-node-exporter"))
    assert (composite.zone, composite.cpu_celsius, composite.throttled) == ("cpu-thermal", 12.376, False)


def test_throttle_counts_are_summed(tmp_path: Path) -> None:
    """x86 counts for each CPU; machines without counters give None."""
    base = "sys/devices/system/cpu"
    files = {f"{base}/cpu{n}/thermal_throttle/core_throttle_count": f"{n + 1}\n" for n in range(2)}
    assert thermal.throttle_counts(trees.make(tmp_path, files)) == 3
    assert thermal.throttle_counts(Root(tmp_path / "none")) is None


@given(st.integers())
def test_no_impossible_temperature(raw: int) -> None:
    """Whatever a sensor gives is a temperature of silicon, or unknown."""
    value = thermal.celsius(raw)
    assert value is None or -60 <= value <= 150


@given(st.binary(max_size=100), st.binary(max_size=60))
def test_no_bytes_raise(kind: bytes, value: bytes) -> None:
    """Any bytes in a zone, a sensor or a cooling device."""
    base = f"{ZONES}/thermal_zone0"
    files = {f"{base}/type": b"cpu" + kind, f"{base}/temp": value, f"{base}/trip_point_0_temp": value}
    files |= {
        f"{base}/trip_point_0_type": kind,
        f"{ZONES}/cooling_device0/type": b"Processor",
        f"{ZONES}/cooling_device0/cur_state": value,
    }
    files |= {"sys/class/hwmon/hwmon0/name": b"coretemp", "sys/class/hwmon/hwmon0/temp1_input": value, FIRMWARE: value}
    with tempfile.TemporaryDirectory() as folder:
        thermal.probe(trees.make(Path(folder), files), read_firmware=True)

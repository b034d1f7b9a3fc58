"""`edge-agent profile` for trees: what is printed, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trees

from edge_agent.cli import main

if TYPE_CHECKING:
    from pathlib import Path

TREE = "sys/firmware/devicetree/base"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
PI = {
    f"{TREE}/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
    f"{TREE}/model": "Raspberry Pi 5 Model B Rev 1.1\0",
}


def test_json_has_the_stated_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every part is there whatever the tree lacks; the board's watts are those of its file."""
    trees.make(tmp_path, PI)
    assert main(["profile", "--json", "--root", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    assert {"id", "model", "vendor", "soc", "compatible"} <= set(found["board"])
    assert {"online", "offline", "usable", "clusters", "features", "quota_cpus", "caches"} <= set(found["cpu"])
    assert {"total_kib", "available_kib", "limit_bytes", "limit_source", "swap_total_kib", "zram"} <= set(
        found["memory"]
    )
    assert {"cpu_celsius", "zone", "throttled", "limit_celsius"} <= set(found["thermal"])
    assert {"source", "battery_percent", "watts", "watts_source"} <= set(found["power"])
    assert {"isa", "accelerators", "disk", "container", "virtual_machine", "unknown"} <= set(found)
    assert (found["board"]["id"], found["power"]["watts_source"]) == ("raspberry-pi-5", "board")


def test_people_see_the_watts_of_the_board_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing measures, the text gives idle and maximum and says whose figures they are."""
    trees.make(tmp_path, PI)
    assert main(["profile", "--root", str(tmp_path)]) == 0
    line = next(row for row in capsys.readouterr().out.splitlines() if row.startswith("power "))
    assert line.endswith("W idle, 13.8 W max (board file)")


@pytest.mark.parametrize(("flags", "throttled"), [((), None), (("--firmware",), True)])
def test_firmware_is_read_only_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], throttled: object
) -> None:
    """The file whose reading has an effect is read with the flag alone."""
    trees.make(tmp_path, {**PI, FIRMWARE: "50004\n"})
    assert main(["profile", "--json", "--root", str(tmp_path), *flags]) == 0
    assert json.loads(capsys.readouterr().out)["thermal"]["throttled"] is throttled


@pytest.mark.parametrize("flags", [("--root", "{tmp}/absent"), ("--root", "{tmp}", "--measure")])
def test_what_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]) -> None:
    """No folder, no profile; a tree cannot be measured."""
    assert main(["profile", *(flag.format(tmp=tmp_path) for flag in flags)]) != 0
    assert "--root" in capsys.readouterr().err

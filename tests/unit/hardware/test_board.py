"""What the machine is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hardware
from hardware import board, raspberry_pi
from hardware.boards import load_boards
from hardware.cpuinfo import parse_cpuinfo
from hardware.sysfs import Root

if TYPE_CHECKING:
    from pathlib import Path

TREE = "sys/firmware/devicetree/base"
DMI = "sys/class/dmi/id"


def write(root: Path, rel: str, data: bytes) -> None:
    """Make a file in a tree."""
    path = root / rel
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_device_tree_names_a_board_we_know(tmp_path: Path) -> None:
    """Model and strings come from the tree, id, maker and chip from the board file they match."""
    write(tmp_path, f"{TREE}/model", b"Raspberry Pi 5 Model B Rev 1.0\0")
    write(tmp_path, f"{TREE}/compatible", b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    found = hardware.profile(tmp_path).board
    assert (found.id, found.model) == ("raspberry-pi-5", "Raspberry Pi 5 Model B Rev 1.0")
    assert (found.vendor, found.soc) == ("Raspberry Pi", "BCM2712")
    assert found.compatible == ("raspberrypi,5-model-b", "brcm,bcm2712")


def test_every_board_file_is_found_by_its_strings(tmp_path: Path) -> None:
    """A board that one string of the device tree names alone is found by it."""
    strings = [string for facts in load_boards() for string in facts.compatible]
    for facts in load_boards():
        own = next((string for string in facts.compatible if strings.count(string) == 1), None)
        if own is not None:
            write(tmp_path, f"{TREE}/compatible", own.encode() + b"\0")
            assert hardware.profile(tmp_path).board.id == facts.id


def test_an_unknown_board_keeps_its_own_words(tmp_path: Path) -> None:
    """Without a board file the id is None with a reason; maker and chip come from the strings."""
    write(tmp_path, f"{TREE}/model", b"Nobody's Board\0")
    write(tmp_path, f"{TREE}/compatible", b"nobody,board-9\0acme,soc1234\0")
    profile = hardware.profile(tmp_path)
    assert (profile.board.id, profile.board.model) == (None, "Nobody's Board")
    assert (profile.board.vendor, profile.board.soc) == ("nobody", "soc1234")
    assert profile.unknown["board.id"] == "no board file describes this machine"


def test_firmware_placeholders_are_no_names(tmp_path: Path) -> None:
    """What a maker left unfilled in the firmware is not a model."""
    write(tmp_path, f"{DMI}/sys_vendor", b"To Be Filled By O.E.M.\n")
    write(tmp_path, f"{DMI}/product_name", b"System Product Name\n")
    write(tmp_path, f"{DMI}/board_name", b"PRIME N100I-D\n")
    write(tmp_path, f"{DMI}/board_vendor", b"ASUSTeK COMPUTER INC.\n")
    found = hardware.profile(tmp_path).board
    assert (found.vendor, found.model) == ("ASUSTeK COMPUTER INC.", "PRIME N100I-D")


def test_lenovo_hides_the_name_in_the_version(tmp_path: Path) -> None:
    """`product_name` is a number there; people know the machine by `product_version`."""
    write(tmp_path, f"{DMI}/sys_vendor", b"LENOVO\n")
    write(tmp_path, f"{DMI}/product_name", b"20CLS2QM00\n")
    write(tmp_path, f"{DMI}/product_version", b"ThinkPad X250\n")
    assert hardware.profile(tmp_path).board.model == "ThinkPad X250"


def test_the_hardware_line_may_name_the_wrong_chip() -> None:
    """Raspberry Pis write BCM2835 for any chip: it is kept as it is, and believed by nobody."""
    info = parse_cpuinfo("processor : 0\nHardware : BCM2835\nRevision : 0000\n")
    (found, _), unknown = board.probe(Root("/nonexistent"), info)
    assert (found.hardware, found.model, found.soc) == ("BCM2835", None, None)
    assert "Hardware line" in unknown["board.soc"]


@pytest.mark.parametrize(
    ("code", "model", "soc", "mib"),
    [
        ("a02082", "Raspberry Pi 3 Model B", "BCM2837", 1024),
        ("1a01040", "Raspberry Pi 2 Model B", "BCM2836", 1024),  # warranty bit
        ("a22042", "Raspberry Pi 2 Model B", "BCM2837", 1024),  # same name, other chip
        ("c03112", "Raspberry Pi 4 Model B", "BCM2711", 4096),
        ("902120", "Raspberry Pi Zero 2 W", "BCM2837", 512),
        ("d04170", "Raspberry Pi 5 Model B", "BCM2712", 8192),
        ("000e", "Raspberry Pi Model B", "BCM2835", None),
        ("1000013", "Raspberry Pi Model B Plus", "BCM2835", None),
    ],
)
def test_revision_codes(code: str, model: str, soc: str, mib: int | None) -> None:
    """Old and new codes, with and without the warranty bit, give model, chip and memory."""
    found = raspberry_pi.decode(code, "BCM2835", None)
    assert found is not None
    assert (found.model, found.soc, found.memory_mib) == (model, soc, mib)


@given(st.text(max_size=20), st.sampled_from(["BCM2835", "MT8183", None]))
def test_any_revision(code: str, name: str | None) -> None:
    """Other machines use the field for other things, and any text may be in it."""
    found = raspberry_pi.decode(code, name, None)
    assert found is None or name == "BCM2835"


def test_broken_board_files_cost_only_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the board files cannot be read the machine still has its own name."""
    write(tmp_path, f"{TREE}/model", b"Some Board\0")

    def broken(*_: object) -> None:
        raise KeyError("match")

    monkeypatch.setattr("hardware.boards.match", broken)
    profile = hardware.profile(tmp_path)
    assert profile.board.model == "Some Board"
    assert "board files cannot be read" in profile.unknown["board.id"]

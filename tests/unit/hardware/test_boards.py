"""Board files: each one well-formed and sourced, and matched only when sure."""

from __future__ import annotations

import json

import needs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware import accelerator, boards
from hardware.boards import BoardFacts, load_boards, match

BOARDS = load_boards()


def test_at_least_sixty_machines() -> None:
    """Every file has an id of its own."""
    assert len(BOARDS) >= 60
    assert len({board.id for board in BOARDS}) == len(BOARDS)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.id)
def test_each_board(board: BoardFacts) -> None:
    """Figures are possible and have a source, the id is the file's name, and something can match it."""
    assert boards.get(board.id) == board
    assert board.kind in {"sbc", "module", "mini-pc", "laptop"}
    assert board.compatible or board.model
    assert board.match_source
    for group in board.cores:
        assert 1 <= group.count <= 256
        assert group.max_mhz is None or 100 <= group.max_mhz <= 7000
        assert group.source
    for figure in (*board.memory.values(), *board.power.values()):
        assert figure.source
    assert set(board.memory) <= {"type", "sizes_gib", "bus_bits", "transfer_mts", "peak_gb_s", "copy_mb_s"}
    assert set(board.power) <= {"idle_watts", "max_watts", "typical_watts"}
    assert board.idle_watts is None or 0.1 < board.idle_watts <= (board.max_watts or 1000) < 1000
    peak, copied = (board.memory[name].value if name in board.memory else None for name in ("peak_gb_s", "copy_mb_s"))
    assert peak is None or copied is None or copied / 1000 < peak
    for item in board.accelerators:
        assert item.source
        assert accelerator.FAMILIES[item.family].kind == item.kind


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.id)
def test_each_string_finds_its_board(board: BoardFacts) -> None:
    """Every string of a file leads to that file, or to none where two machines share all strings."""
    for string in board.compatible:
        assert match([string, "vendor,soc"], None, board.core_count) == board
    for name in board.model:
        assert match([], name, board.core_count) == board


@pytest.mark.parametrize(
    ("compatible", "model", "cpus", "board"),
    [
        (("raspberrypi,4-model-b", "brcm,bcm2711"), "Raspberry Pi 4 Model B Rev 1.5", None, "raspberry-pi-4b"),
        ((), "Raspberry Pi Zero 2 W Rev 1.0", None, "raspberry-pi-zero-2-w"),
        (("brcm,bcm2712",), None, None, None),
        (("rockchip,rk3588",), "Some RK3588 box", None, None),
        (("radxa,rock-5c", "rockchip,rk3588"), "Radxa ROCK 5C", None, None),
        (("radxa,rock-5c", "rockchip,rk3588"), "Radxa ROCK 5C", 8, "radxa-rock-5c"),
        (("radxa,rock-5c", "rockchip,rk3588"), "Radxa ROCK 5C", 6, "radxa-rock-5c-lite"),
        (("radxa,rock-5c", "rockchip,rk3588"), "Radxa ROCK 5C", 5, None),
        (("allwinner,h616", "arm,sun50iw9p1"), "Orange Pi Zero 3", None, "orange-pi-zero-3"),
        (("amlogic, t7",), "Khadas VIM4", None, "khadas-vim4"),
        (("spacemit,k1-x",), "M1-MUSE-BOOK", None, None),
        (("nvidia,p3768-0000+p3767-0005-super", "nvidia,tegra234"), "x", None, "jetson-orin-nano"),
        (("nvidia,p3509-0000+p3668-0001", "nvidia,tegra194"), None, None, "jetson-xavier-nx"),
        ((), None, None, None),
        (("",), "", None, None),
    ],
)
def test_match(compatible: tuple[str, ...], model: str | None, cpus: int | None, board: str | None) -> None:
    """The most specific string decides; a SoC is no board; the same strings on different silicon are not guessed."""
    found = match(compatible, model, cpus)
    assert (found.id if found else None) == board


def test_boards_seen_in_the_field_are_never_mistaken() -> None:
    """255 measured machines: whatever matches has the cores that were counted there."""
    rows = (needs.reference_data() / "hardware" / "sbc_bench_facts.jsonl").read_text().splitlines()
    matched = 0
    for row in map(json.loads, rows):
        count = len(row["cpus"]) or None
        found = match(row.get("dt_compatible") or (), row["title"], count)
        if found is None:
            continue
        matched += 1
        assert found.core_count in {None, count}, (row["id"], row["title"], found.id)
    assert matched > 100


@given(st.lists(st.text(max_size=30), max_size=6), st.none() | st.text(max_size=40), st.none() | st.integers())
def test_any_strings_match_nothing_or_a_board(compatible: list[str], model: str | None, cpus: int | None) -> None:
    """Matching never raises."""
    found = match(compatible, model, cpus)
    assert found is None or found in BOARDS


def test_a_file_of_another_form_is_refused() -> None:
    """A board file without a source for a figure is not taken."""
    head = 'id = "x"\nname = "X"\nkind = "sbc"\n[match]\nmodel = ["X"]\nsource = "s"\n'
    text = head + "[power]\nidle_watts = { value = 1 }\n"
    assert boards.parse(head).id == "x"
    with pytest.raises(KeyError):
        boards.parse(text)

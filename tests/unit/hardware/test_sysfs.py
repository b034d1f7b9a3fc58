"""Reading a root file system that nobody vouches for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.sysfs import (
    MAX_FILE_BYTES,
    Root,
    clean,
    natural_key,
    parse_cpulist,
    parse_cpumask,
    parse_hex,
    parse_int,
    printable,
)

if TYPE_CHECKING:
    from pathlib import Path


def write(root: Path, rel: str, data: bytes | str) -> None:
    """Make a file in a tree."""
    path = root / rel
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-3,8\n", (0, 1, 2, 3, 8)),
        ("0 1 2", (0, 1, 2)),
        ("", ()),
        ("\n", ()),
        ("5", (5,)),
        ("3-1", None),
        ("0-99999999", None),
        ("0-999999", None),
        ("a", None),
        ("1-", None),
        ("-1", None),
        ("²", None),
    ],
)
def test_cpu_list(text: str, cpus: tuple[int, ...] | None) -> None:
    """A kernel list becomes its numbers; what is none becomes None, without trying to hold a huge range."""
    assert parse_cpulist(text) == cpus


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("3", (0, 1)),
        ("00000000,00000003", (0, 1)),
        ("1,00000000\n", (32,)),
        ("0", ()),
        ("", None),
        ("g", None),
        ("0" * 5000, None),
    ],
)
def test_cpu_mask(text: str, cpus: tuple[int, ...] | None) -> None:
    """A kernel mask has its highest word first."""
    assert parse_cpumask(text) == cpus


def test_numbers_are_strict() -> None:
    """Only whole decimal or hexadecimal numbers of at most 64 bits are numbers."""
    assert parse_int(" 12\n") == 12
    assert parse_int("-1") == -1
    assert [parse_int(x) for x in (None, "", "1.0", "9" * 20, "1_0", "٣")] == [None] * 6
    assert parse_hex("0xd0b") == 0xD0B
    assert parse_hex("00000000410fd051\n") == 0x410FD051
    assert [parse_hex(x) for x in (None, "", "0x", "x", "0" * 17)] == [None] * 5


@given(st.text())
def test_parsers_never_raise(text: str) -> None:
    """No text makes a parser raise, and what they return is sorted and bounded."""
    parse_int(text)
    parse_hex(text)
    parse_cpumask(text)
    cpus = parse_cpulist(text)
    assert cpus is None or list(cpus) == sorted(set(cpus))
    assert clean(text).isprintable()
    assert printable(text).isprintable()


def test_names_sort_as_people_count() -> None:
    """cpu2 comes before cpu10, and names with other digits do not disturb."""
    names = ["cpu10", "cpu2", "b", "cpu²", "2"]
    assert sorted(names, key=natural_key) == ["2", "b", "cpu2", "cpu10", "cpu²"]


def test_absolute_links_stay_inside(tmp_path: Path) -> None:
    """An absolute link means the root's own file, not ours."""
    write(tmp_path, "etc/hostname", "inside\n")
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "folder").symlink_to("/etc")
    root = Root(tmp_path)
    assert root.read_value("link") == "inside"
    assert root.read_value("folder/hostname") == "inside"
    assert root.real("folder/hostname") == "etc/hostname"
    assert root.readlink("link") == "/etc/hostname"


def test_no_way_out_of_the_root(tmp_path: Path) -> None:
    """Neither `..` in a path nor a link with many of them leaves the root."""
    write(tmp_path, "secret", "outside")
    inner = tmp_path / "inner"
    write(inner, "a/b", "x")
    (inner / "up").symlink_to("../" * 20 + "secret")
    (inner / "a" / "folder").symlink_to("../../..")
    root = Root(inner)
    assert root.read_text("up") is None
    assert root.read_text("../secret") is None
    assert root.read_text("a/folder/secret") is None
    assert root.read_value("a/folder/a/b") == "x"
    assert "does not exist" in root.reason("up")


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    """Links that lead to each other give None and say so."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "self").symlink_to(".")
    write(tmp_path, "x", "1")
    root = Root(tmp_path)
    assert root.read_text("a") is None
    assert "loop" in root.reason("a")
    assert root.read_text("a/b/c") is None
    assert root.read_int("self/self/self/x") == 1


def test_fifo_and_folder_are_not_read(tmp_path: Path) -> None:
    """What is no regular file is refused before it is opened: a FIFO without a writer would block."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    root = Root(tmp_path)
    for name in ("fifo", "folder"):
        assert root.read_text(name) is None
        assert "not a regular file" in root.reason(name)
    assert root.exists("fifo")
    assert not root.is_dir("fifo")
    assert root.is_dir("folder")


def test_devices_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a device may do something: it is not tried."""
    root = Root("/")
    opened: list[str] = []
    monkeypatch.setattr(os, "open", lambda path, *_: opened.append(path))
    assert root.read_text("dev/null") is None
    assert opened == []
    assert root.is_char_device("dev/null")


def test_unreadable_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read, and one whose read fails, are None with a reason."""
    write(tmp_path, "a", "1")
    root = Root(tmp_path)
    monkeypatch.setattr(os, "read", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    assert root.read_text("a") is None
    assert "input/output error" in root.reason("a")
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert root.read_text("a") is None
    assert "may not be read" in root.reason("a")


def test_a_huge_file_is_cut_at_a_line(tmp_path: Path) -> None:
    """At most the limit is read, and no line, hence no number, in half."""
    write(tmp_path, "huge", b"0123456789\n" * 600_000)
    text = Root(tmp_path).read_text("huge")
    assert text is not None
    assert MAX_FILE_BYTES - 11 <= len(text) <= MAX_FILE_BYTES
    assert text.endswith("0123456789\n")
    write(tmp_path, "one-line", b"7" * (MAX_FILE_BYTES + 1))
    assert Root(tmp_path).read_text("one-line") == ""


def test_line_ends_and_junk(tmp_path: Path) -> None:
    """Windows line ends become Unix ones, bytes that are no UTF-8 become U+FFFD."""
    write(tmp_path, "a", b"one\r\ntwo\rthree\r\r\n\xff\xfe")
    assert Root(tmp_path).read_text("a") == "one\ntwo\nthree\n\ufffd\ufffd"


def test_device_tree_strings(tmp_path: Path) -> None:
    """A device-tree property is a row of strings that end with NUL."""
    write(tmp_path, "compatible", b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    write(tmp_path, "model", b"Raspberry Pi 5 Model B Rev 1.0\0")
    write(tmp_path, "empty", b"\0")
    root = Root(tmp_path)
    assert root.read_strings("compatible") == ("raspberrypi,5-model-b", "brcm,bcm2712")
    assert root.read_value("model") == "Raspberry Pi 5 Model B Rev 1.0"
    assert root.read_value("empty") is None
    assert "is empty" in root.reason("empty")


def test_impossible_names_are_absent(tmp_path: Path) -> None:
    """Names that come out of other files may hold anything, even what no file name can."""
    root = Root(tmp_path)
    for name in ("a\0b", "\ud800", "x" * 5000, "", "/", ".."):
        assert root.read_text(name) is None
        assert root.listdir(name) == () or name.strip("/.") == ""
        assert isinstance(root.reason(name), str)


def test_glob_and_listing(tmp_path: Path) -> None:
    """A pattern gives existing paths in natural order; a folder that is not there lists nothing."""
    for n in (10, 2, 1):
        write(tmp_path, f"sys/cpu{n}/level", "1")
    (tmp_path / "sys" / "cpu3").mkdir()
    root = Root(tmp_path)
    assert root.listdir("sys") == ("cpu1", "cpu2", "cpu3", "cpu10")
    assert root.glob("sys/cpu*/level") == ("sys/cpu1/level", "sys/cpu2/level", "sys/cpu10/level")
    assert root.glob("nothing/*") == ()
    assert root.listdir("nothing") == ()
    assert "does not exist" in root.reason("nothing")


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "link", "loop", "abs", ""]), max_size=12))
def test_every_walk_stays_inside(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    """However links and dots are combined, the way ends inside the root."""
    base = tmp_path_factory.getbasetemp() / "walk"
    if not base.exists():
        write(base, "root/a/b/file", "1")
        (base / "root/a/link").symlink_to("../../../..")
        (base / "root/a/b/abs").symlink_to("/a")
        (base / "root/loop").symlink_to("loop")
        write(base, "file", "outside")
    root = Root(base / "root")
    real = root.real("/".join(parts))
    assert real is None or (base / "root" / real).resolve().is_relative_to((base / "root").resolve())
    assert root.read_text("/".join([*parts, "file"])) in {None, "1"}

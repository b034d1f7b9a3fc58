"""The spool's file: what a crash, a loss of power, a full disk and garbage do to it, on a real disk."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import ManualClock, job_id
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.agent.spool import (
    APPLICATION_ID,
    MAX_DAMAGED_FILES,
    SCHEMA_VERSION,
    DamagedError,
    Spool,
    set_aside,
)
from edge_agent.errors import StateError

MIB = 1024 * 1024


def filled(path: Path, count: int = 5, size: int = 9000) -> bytes:
    """Make a spool with answers in it; return the bytes of the file."""
    spool = Spool(path, MIB)
    for number in range(count):
        spool.put(job_id(number), 1, bytes([number]) * size)
    spool.close()
    return path.read_bytes()


def test_what_was_put_is_there_again_in_its_order_and_what_was_forgotten_is_not(tmp_path: Path) -> None:
    """Through several openings, for the owner alone, and an answer that is put twice is there once."""
    path = tmp_path / "spool.db"
    filled(path, 3)
    assert path.stat().st_mode & 0o777 == 0o600
    spool = Spool(path, MIB)
    spool.put(job_id(0), 2, b"newer")
    spool.put(job_id(2), 1, b"again")
    spool.forget([(job_id(1), 1), (job_id(7), 1)])
    spool.close()
    again = Spool(path, MIB)
    found = [(answer.job, answer.epoch, answer.payload) for answer in again.load()]
    again.close()
    assert found == [(job_id(0), 1, bytes(9000)), (job_id(0), 2, b"newer"), (job_id(2), 1, b"again")]


def test_ages_count_while_an_agent_runs_and_no_other_clock_counts(tmp_path: Path) -> None:
    """Hours between two starts do not count, and neither does a jump of the wall clock, which is never read."""
    clock = ManualClock()
    spool = Spool(tmp_path / "spool.db", MIB, lambda: clock.monotonic)
    clock.advance(50)
    spool.put(job_id(1), 1, b"first")
    clock.advance(100)
    spool.put(job_id(2), 1, b"second")
    clock.advance(10)
    spool.close()
    clock.advance(5000)
    again = Spool(tmp_path / "spool.db", MIB, lambda: clock.monotonic, since=clock.monotonic - 7)
    again.forget([])
    assert [answer.age_seconds for answer in again.load()] == [117.0, 17.0]
    again.close()


def test_the_file_becomes_small_again(tmp_path: Path) -> None:
    """What a bad week needed is given back to the disk."""
    path = tmp_path / "spool.db"
    large = len(filled(path, 50, 20_000))
    spool = Spool(path, MIB)
    spool.forget([(job_id(number), 1) for number in range(50)])
    spool.close()
    assert path.stat().st_size < large / 20


def test_the_file_is_bounded_whatever_it_is_told(tmp_path: Path) -> None:
    """The core counts bytes; the file has a bound of its own, and what was there before stays."""
    spool = Spool(tmp_path / "spool.db", MIB)

    def fill() -> None:
        for number in range(1000):
            spool.put(job_id(number), 1, bytes(30_000))

    with pytest.raises(StateError, match="full"):
        fill()
    assert 30 < len(spool.load()) < 1000
    spool.forget([(job_id(0), 1)])
    spool.put(job_id(2000), 1, bytes(30_000))
    spool.close()
    assert (tmp_path / "spool.db").stat().st_size <= 2 * MIB + MIB


def test_kill_9_at_any_moment_leaves_whole_answers_and_no_damage(tmp_path: Path) -> None:
    """A process that writes and forgets as fast as it can is killed again and again; what it was told stays true."""
    path = tmp_path / "spool.db"
    code = (
        "import sys; from pathlib import Path; from edge_agent.agent.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), 8 << 20)\n"
        "first = int(sys.argv[2])\n"
        "for number in range(first, first + 100000):\n"
        "    spool.put(number.to_bytes(16, 'big'), 1, number.to_bytes(4, 'big') * 5000)\n"
        "    print(number, flush=True)\n"
        "    if number % 3 == 0: spool.forget([(number.to_bytes(16, 'big'), 1)])\n"
    )
    promised: set[int] = set()
    for life in range(6):
        first = life * 1000
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(first)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            told = [int(process.stdout.readline()) for _ in range(4 + life)]
            process.send_signal(signal.SIGKILL)
            told += [int(line) for line in process.stdout if line.endswith("\n")]
        promised |= {number for number in told if number % 3}
        spool = Spool(path, 8 * MIB)
        found = {int.from_bytes(answer.job, "big"): answer.payload for answer in spool.load()}
        spool.close()
        assert promised <= set(found)
        assert all(payload == number.to_bytes(4, "big") * 5000 for number, payload in found.items())


@pytest.mark.parametrize(
    "content", [b"garbage" * 1000, b"\0" * 8192, b"x", b"SQLite format 3\0", b"SQLite format 3\0" * 500]
)
def test_garbage_in_its_place_is_damage(tmp_path: Path, content: bytes) -> None:
    """A card that wrote something else there."""
    path = tmp_path / "spool.db"
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        Spool(path, MIB)
    assert path.read_bytes() == content


def test_an_empty_file_is_a_start_that_was_cut_short(tmp_path: Path) -> None:
    """The file was made, and the power went before the first transaction."""
    path = tmp_path / "spool.db"
    path.touch()
    spool = Spool(path, MIB)
    assert spool.load() == ()
    spool.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_torn_or_cut_file_is_whole_answers_or_damage_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    """Any page zeroed, overwritten or missing: the answers that come out are those that went in, or it is said."""
    folder = tmp_path / "torn"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / "spool.db"
    whole = filled(path)
    at = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["cut", "zeroes", "noise"]))
    if kind == "cut":
        path.write_bytes(whole[:at])
    else:
        size = data.draw(st.integers(1, 8192))
        patch = bytes(size) if kind == "zeroes" else data.draw(st.binary(min_size=size, max_size=size))
        path.write_bytes((whole[:at] + patch[: len(whole) - at] + whole[at + size :])[: len(whole)])
    try:
        spool = Spool(path, MIB)
    except DamagedError:
        return
    except StateError:  # the patch lies over the version, which is a newer one now
        assert path.read_bytes()[60:64] > bytes([0, 0, 0, SCHEMA_VERSION])
        return
    try:
        found = spool.load()
    except DamagedError:
        return
    finally:
        spool.close()
    for answer in found:  # SQLite has no checksums: what is inside a payload is for the signature to find
        assert len(answer.payload) <= 9000


def test_a_newer_schema_is_refused_and_the_file_left_unchanged(tmp_path: Path) -> None:
    """An older version after an upgrade that was taken back."""
    path = tmp_path / "spool.db"
    filled(path)
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    database.close()
    journal = path.with_name("spool.db-journal")
    journal.write_bytes(b"a journal that only the newer version may apply")
    before = (path.read_bytes(), path.stat().st_mtime_ns, journal.read_bytes())
    with pytest.raises(StateError, match=r"schema 2; this version knows 1") as caught:
        Spool(path, MIB)
    assert caught.value.error_code == "newer-schema"
    assert "newer version" in caught.value.hint
    assert (path.read_bytes(), path.stat().st_mtime_ns, journal.read_bytes()) == before


def test_a_database_of_something_else_is_not_touched(tmp_path: Path) -> None:
    """It is set aside by whoever opened it, and not written into."""
    path = tmp_path / "spool.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA application_id=1234")
        database.execute("CREATE TABLE results (something TEXT)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(DamagedError, match="something else"):
        Spool(path, MIB)
    assert path.read_bytes() == before
    assert APPLICATION_ID != 1234


def test_a_table_of_the_right_name_and_the_wrong_columns_is_damage(tmp_path: Path) -> None:
    """Nothing that the rest of the agent hears of is an SQLite error."""
    path = tmp_path / "spool.db"
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA application_id={APPLICATION_ID}")
        database.execute("CREATE TABLE results (something TEXT)")
    database.close()
    spool = Spool(path, MIB)
    with pytest.raises(DamagedError):
        spool.load()
    with pytest.raises(DamagedError):
        spool.put(job_id(1), 1, b"answer")
    spool.close()


def test_a_damaged_file_is_set_aside_with_its_journal_and_only_so_many_are_kept(tmp_path: Path) -> None:
    """Nobody's disk fills up with them."""
    path = tmp_path / "spool.db"
    for number in range(MAX_DAMAGED_FILES + 2):
        path.write_bytes(b"%d" % number)
        path.with_name("spool.db-journal").write_bytes(b"journal")
        os.utime(path, ns=(number, number))
        target = set_aside(path, "20261125T120000Z")
        assert target.read_bytes() == b"%d" % number
        assert not path.with_name("spool.db-journal").exists()
    left = sorted(file.read_bytes() for file in tmp_path.glob("*.damaged-*") if not file.name.endswith("-journal"))
    assert left == [b"2", b"3", b"4"]
    assert len(list(tmp_path.iterdir())) == 2 * MAX_DAMAGED_FILES


def test_a_folder_that_is_not_there_is_told_as_a_state_error(tmp_path: Path) -> None:
    """With what to do, and without a traceback of SQLite's."""
    with pytest.raises(StateError, match="cannot be used"):
        Spool(tmp_path / "none" / "spool.db", MIB)
    (tmp_path / "spool.db").mkdir()
    with pytest.raises(StateError, match="cannot be used"):
        Spool(tmp_path / "spool.db", MIB)

"""The spool's thread: in order, out of the way, and no trouble with the disk ends anything."""

from __future__ import annotations

import queue
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import job_id

from edge_agent.agent.events import ForgetSpooled, Spooled, SpoolFailed, SpoolResult
from edge_agent.agent.spooling import SPOOL_FILE, Spooling
from edge_agent.errors import StateError

MIB = 1024 * 1024
PATIENCE_SECONDS = 20.0


class Bench:
    """A spooling in a folder, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.said: queue.SimpleQueue[SpoolFailed] = queue.SimpleQueue()
        self.path = folder / SPOOL_FILE
        self.spooling = Spooling(self.path, MIB, self.said.put, lambda: "20261125T120000Z")

    def next(self) -> SpoolFailed:
        """Return what it says next."""
        return self.said.get(timeout=PATIENCE_SECONDS)

    def stop(self) -> None:
        """End it."""
        assert self.spooling.stop(PATIENCE_SECONDS)


def answers(folder: Path) -> list[tuple[bytes, int, bytes]]:
    """Return what another process would find."""
    bench = Bench(folder)
    found = [(answer.job, answer.epoch, answer.payload) for answer in bench.spooling.load().answers]
    bench.stop()
    assert bench.said.empty()
    return found


def test_nothing_is_made_before_there_is_something_to_keep(tmp_path: Path) -> None:
    """Most agents never need the file, its thread, or its code."""
    bench = Bench(tmp_path)
    assert bench.spooling.load().answers == ()
    bench.stop()
    assert list(tmp_path.iterdir()) == []
    code = (
        "import sys, edge_agent.agent.assemble, edge_agent.cli.run; sys.exit('edge_agent.agent.spool' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_commands_are_done_in_order_and_survive_the_process(tmp_path: Path) -> None:
    """What was put and forgotten is gone, the rest is there."""
    bench = Bench(tmp_path)
    for number in range(5):
        bench.spooling.do(SpoolResult(job_id(number), 1, b"%d" % number))
        if number % 2:
            bench.spooling.do(ForgetSpooled(((job_id(number), 1),)))
    bench.stop()
    assert bench.said.empty()
    assert answers(tmp_path) == [(job_id(number), 1, b"%d" % number) for number in (0, 2, 4)]


def test_a_damaged_spool_is_set_aside_and_reported_and_the_next_one_works(tmp_path: Path) -> None:
    """Never fatal."""
    (tmp_path / SPOOL_FILE).write_bytes(b"garbage" * 1000)
    bench = Bench(tmp_path)
    assert bench.spooling.load().answers == ()
    failed = bench.next()
    assert failed.keys == ()
    assert f"is now {SPOOL_FILE}.damaged-20261125T120000Z" in failed.reason
    bench.spooling.do(SpoolResult(job_id(1), 1, b"answer"))
    bench.stop()
    assert answers(tmp_path) == [(job_id(1), 1, b"answer")]
    assert (tmp_path / f"{SPOOL_FILE}.damaged-20261125T120000Z").read_bytes() == b"garbage" * 1000


def test_damage_while_it_runs_costs_one_answer_on_disk(tmp_path: Path) -> None:
    """The core hears which, and the next one is written to a new file."""
    bench = Bench(tmp_path)
    bench.spooling.do(SpoolResult(job_id(1), 1, b"answer"))
    bench.spooling.stop(PATIENCE_SECONDS)
    second = Bench(tmp_path)
    (tmp_path / SPOOL_FILE).write_bytes(b"garbage" * 1000)
    second.spooling.do(SpoolResult(job_id(2), 1, b"answer"))
    assert second.next().keys == ((job_id(2), 1),)
    second.spooling.do(SpoolResult(job_id(3), 1, b"answer"))
    second.stop()
    assert answers(tmp_path) == [(job_id(3), 1, b"answer")]


def test_a_newer_schema_is_the_one_thing_that_is_raised(tmp_path: Path) -> None:
    """The owner decides: run the newer version again, or give the results up."""
    bench = Bench(tmp_path)
    bench.spooling.do(SpoolResult(job_id(1), 1, b"answer"))
    bench.stop()
    changed = bytearray(bench.path.read_bytes())
    changed[63] = 99
    bench.path.write_bytes(changed)
    with pytest.raises(StateError) as caught:
        Bench(tmp_path).spooling.load()
    assert caught.value.error_code == "newer-schema"
    assert bench.path.read_bytes() == changed


def test_a_disk_that_is_full_costs_only_what_does_not_fit(tmp_path: Path) -> None:
    """The process goes on, says which answer is not on disk, and writes again when there is room."""
    code = (
        "import queue, resource, signal, sys; from pathlib import Path\n"
        "from edge_agent.agent.events import SpoolResult\n"
        "from edge_agent.agent.spooling import Spooling\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "said = queue.SimpleQueue()\n"
        "spooling = Spooling(Path(sys.argv[1]), 64 << 20, said.put, lambda: 'now')\n"
        "spooling.do(SpoolResult(bytes(16), 1, b'first'))\n"
        "spooling.do(SpoolResult(bytes(16), 2, bytes(4 << 20)))\n"  # above the limit on the size of a file
        "failed = said.get(timeout=20)\n"
        "spooling.do(SpoolResult(bytes(16), 3, b'third'))\n"
        "assert spooling.stop(20)\n"
        "assert said.empty()\n"
        "print(failed.keys == ((bytes(16), 2),), failed.reason)\n"
    )

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / SPOOL_FILE)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=small_disk,
        timeout=60,
    )
    assert done.stdout.startswith("True the spool "), done.stdout + done.stderr
    assert [(epoch, payload) for _, epoch, payload in answers(tmp_path)] == [(1, b"first"), (3, b"third")]


def test_a_folder_that_vanished_is_told_and_the_thread_lives(tmp_path: Path) -> None:
    """Somebody unmounted the disk, and mounted it again."""
    folder = tmp_path / "disk"
    bench = Bench(folder)
    bench.spooling.do(SpoolResult(job_id(1), 1, b"answer"))
    failed = bench.next()
    assert failed.keys == ((job_id(1), 1),)
    assert "No such file" in failed.reason
    folder.mkdir()
    bench.spooling.do(SpoolResult(job_id(2), 1, b"answer"))
    bench.stop()
    assert answers(folder) == [(job_id(2), 1, b"answer")]


def test_what_an_earlier_process_left_grows_older_even_if_nothing_is_written(tmp_path: Path) -> None:
    """A result that nobody settles does not stay on disk for ever because the agent had nothing to do."""
    bench = Bench(tmp_path)
    bench.spooling.do(SpoolResult(job_id(1), 1, b"answer"))
    bench.stop()
    ages: list[float] = []
    for _ in range(3):
        again = Bench(tmp_path)
        (answer,) = again.spooling.load().answers
        assert isinstance(answer, Spooled)
        ages.append(answer.age_seconds)
        again.stop()
    assert ages == sorted(set(ages))

"""Fetching models from a real server that misbehaves: nothing wrong becomes usable, nothing is left behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import mirrors
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mirrors import Behaviour, Mirror, mirror

from edge_agent.errors import DigestMismatchError, EdgeAgentError, ResourceError, StateError, TransportError
from edge_agent.models.content import Content
from edge_agent.models.download import Budget, Downloader, Places, Wanted
from edge_agent.models.transfer import Limits, Source

DATA = random.Random(7).randbytes(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
GENEROUS = Budget(max_bytes=10**9, keep_free_bytes=0)


class Clock:
    """Counts what was slept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Do not wait."""
        self.slept.append(seconds)


def downloader(
    root: Path, *, places: Places | None = None, budget: Budget = GENEROUS, limits: Limits | None = None
) -> tuple[Downloader, Clock]:
    """Make a downloader that never waits."""
    clock = Clock()
    source = Source(limits or Limits(connect_seconds=5, silence_seconds=5))
    return Downloader(Content(root), places or Places(), budget, source, clock.sleep, random.Random(1)), clock


def wanted(*urls: str, data: bytes = DATA) -> Wanted:
    """Ask for `DATA`."""
    return Wanted("toy/fp32", hashlib.sha256(data).hexdigest(), len(data), urls)


def files(root: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


STORED = {f"sha256/{DIGEST[:2]}/{DIGEST}": DATA}


def test_a_file_is_fetched_once_and_is_read_only(tmp_path: Path) -> None:
    """The bytes are there under their digest, nobody can write them, and a second fetch asks nobody."""
    fetch, clock = downloader(tmp_path)
    told: list[tuple[int, int]] = []
    with mirror(DATA) as server:
        path = fetch.fetch(wanted(server.url), lambda done, total: told.append((done, total)))
        assert fetch.fetch(wanted(server.url)) == path
    assert files(tmp_path) == STORED
    assert path.stat().st_mode & 0o777 == 0o400
    assert len(server.requests) == 1
    assert told[-1] == (len(DATA), len(DATA))
    assert clock.slept == []


def test_a_transfer_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """Cut twice, the file is whole after three requests, and no byte was sent twice."""
    fetch, clock = downloader(tmp_path)
    with mirror(DATA, mirrors.cut_after(100_000), mirrors.cut_after(200_000), mirrors.good) as server:
        fetch.fetch(wanted(server.url))
    assert files(tmp_path) == STORED
    assert [headers.get("range") for _, headers in server.requests] == [None, "bytes=100000-", "bytes=200000-"]
    assert len(clock.slept) == 2


@pytest.mark.parametrize("second", [mirrors.without_ranges, mirrors.other_range, mirrors.status("416 Too far")])
def test_a_source_that_cannot_resume_begins_again(tmp_path: Path, second: Behaviour) -> None:
    """No range, another range, or none at all: the file is whole and right in the end."""
    fetch, _ = downloader(tmp_path)
    with mirror(DATA, mirrors.cut_after(100_000), second, mirrors.good) as server:
        fetch.fetch(wanted(server.url, server.url + "?2"))
    assert files(tmp_path) == STORED


def test_a_busy_source_is_left_alone_as_long_as_it_asks(tmp_path: Path) -> None:
    """Retry-After is honoured, up to a minute; what is no number is not believed."""
    fetch, clock = downloader(tmp_path)
    answers = [mirrors.status("503 Busy", Retry_After=text) for text in ("7", "86400", "tomorrow")]
    with mirror(DATA, *answers, mirrors.good) as server:
        fetch.fetch(wanted(server.url))
    assert clock.slept[0] == 7.0
    assert clock.slept[1] == 60.0
    assert clock.slept[2] <= 2.0


def invalid_redirect(request: mirrors.Request) -> None:
    """Redirect to what is no address."""
    request.head("302 Found", Location="http://[bad")


def absurd_length(request: mirrors.Request) -> None:
    """Announce a length of thousands of digits."""
    request.head("200 OK", Content_Length="9" * 5000)


BAD = {
    "redirect to what is no address": invalid_redirect,
    "length of thousands of digits": absurd_length,
    "lying mirror": mirrors.lie,
    "endless body": mirrors.endless,
    "truncated body": mirrors.cut_after(1000),
    "wrong length": mirrors.wrong_length,
    "packed body": mirrors.packed,
    "reset": mirrors.reset,
    "not HTTP": mirrors.not_http,
    "not found": mirrors.status("404 Not Found"),
    "redirect to another scheme": mirrors.redirect("ftp://127.0.0.1/model.onnx"),
    "redirect to a file": mirrors.redirect("file:///etc/passwd"),
    "redirect to nowhere": mirrors.redirect("http://"),
    "redirect without an address": mirrors.status("302 Found"),
    "silence": mirrors.silent,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_the_next_mirror_makes_up_for_a_bad_one(tmp_path: Path, bad: Behaviour) -> None:
    """Whatever the first source does, the second one's file is there, whole and right."""
    fetch, _ = downloader(tmp_path, limits=Limits(connect_seconds=5, silence_seconds=0.2))
    with mirror(DATA, bad) as first, mirror(DATA) as second:
        fetch.fetch(wanted(first.url, second.url))
    assert files(tmp_path) == STORED


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_nothing_wrong_becomes_usable(tmp_path: Path, bad: Behaviour) -> None:
    """With bad sources alone there is a clear error, no file under the digest, and nothing that cannot be trusted."""
    fetch, _ = downloader(tmp_path, limits=Limits(connect_seconds=5, silence_seconds=0.2))
    with (
        mirror(DATA, bad) as first,
        mirror(DATA, bad) as second,
        pytest.raises((TransportError, DigestMismatchError)) as caught,
    ):
        fetch.fetch(wanted(first.url, second.url))
    assert "toy/fp32" in caught.value.message
    assert caught.value.hint
    assert not fetch.content.has(DIGEST)
    kept = files(tmp_path)
    if bad in {mirrors.lie, mirrors.endless}:
        assert isinstance(caught.value, DigestMismatchError)
        assert kept == {}
    for name, data in kept.items():
        # What an honest source sent before it broke off: a beginning of the file, to be gone on with.
        assert name == f"partial/{DIGEST}"
        assert DATA.startswith(data)


def test_an_endless_body_is_not_read_beyond_the_file(tmp_path: Path) -> None:
    """Not even for a moment does more than the file's size lie on the disk."""
    fetch, _ = downloader(tmp_path)
    sizes: list[int] = []
    with mirror(DATA, mirrors.endless) as server, pytest.raises(DigestMismatchError):
        fetch.fetch(wanted(server.url), lambda done, _: sizes.append(done))
    assert max(sizes) <= len(DATA)
    assert files(tmp_path) == {}


def test_redirects_inside_a_scheme_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    """One redirect leads to the file, a circle of them is an error."""
    fetch, _ = downloader(tmp_path)
    with mirror(DATA) as target, mirror(DATA, mirrors.redirect(target.url)) as first:
        fetch.fetch(wanted(first.url))
    assert files(tmp_path) == STORED
    fetch, _ = downloader(tmp_path / "other")
    with mirror(DATA, mirrors.redirect("/round")) as circle, pytest.raises(TransportError, match="redirects"):
        fetch.fetch(wanted(circle.url))
    assert files(tmp_path / "other") == {}
    assert len(circle.requests) <= 12


def test_a_beginning_by_a_liar_does_not_spoil_an_honest_end(tmp_path: Path) -> None:
    """A liar's first half and an honest second half are thrown away together, and the honest source is asked again."""
    fetch, _ = downloader(tmp_path)
    half = len(DATA) // 2
    with (
        mirror(DATA, lambda request: request.good(bytes(len(DATA)), until=half), mirrors.status("404 Gone")) as liar,
        mirror(DATA) as honest,
    ):
        fetch.fetch(wanted(liar.url, honest.url))
    assert files(tmp_path) == STORED


def test_a_liar_first_does_not_cost_what_an_honest_source_sent(tmp_path: Path) -> None:
    """The honest source breaks off: what it sent is kept, and the error is that of the transfer."""
    fetch, _ = downloader(tmp_path)
    broken = [mirrors.cut_after(200_000), mirrors.status("404 Gone")]
    with mirror(DATA, mirrors.lie) as liar, mirror(DATA, *broken) as honest, pytest.raises(TransportError) as caught:
        fetch.fetch(wanted(liar.url, honest.url))
    assert "200000 of 300000 bytes are kept" in caught.value.message
    assert files(tmp_path) == {f"partial/{DIGEST}": DATA[:200_000]}


def test_a_crash_before_the_rename_leaves_a_part_that_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is synced to a slow disk the whole file is still a part that its owner may write."""
    fetch, _ = downloader(tmp_path)

    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with mirror(DATA) as server:
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StateError):
            fetch.fetch(wanted(server.url))
        monkeypatch.undo()
        assert (tmp_path / "partial" / DIGEST).stat().st_mode & 0o777 == 0o600
        fetch.fetch(wanted(server.url))
    assert files(tmp_path) == STORED
    assert len(server.requests) == 1


def test_a_damaged_beginning_from_before_is_thrown_away(tmp_path: Path) -> None:
    """What a power cut left of an earlier attempt, with wrong bytes in it, costs a new transfer and nothing else."""
    fetch, _ = downloader(tmp_path)
    (tmp_path / "partial").mkdir(parents=True)
    for left in (bytes(1000), bytes(len(DATA)), bytes(2 * len(DATA))):
        (tmp_path / "partial" / DIGEST).write_bytes(left)
        with mirror(DATA) as server:
            fetch.fetch(wanted(server.url))
        assert files(tmp_path) == STORED
        fetch.content.remove(DIGEST)


def test_a_slow_source_is_given_up(tmp_path: Path) -> None:
    """A trickle below the slowest speed that is borne ends the transfer, by the clock that is handed in."""
    ticks = iter(range(0, 10**6, 61))
    source = Source(Limits(patience_seconds=60), monotonic=lambda: float(next(ticks)))
    fetch = Downloader(Content(tmp_path), Places(), GENEROUS, source, lambda _: None, random.Random(1))
    with (
        mirror(DATA, lambda request: request.good(until=10)) as server,
        pytest.raises(TransportError, match="too slow"),
    ):
        fetch.fetch(wanted(server.url))
    assert not fetch.content.has(DIGEST)


def test_mirrors_are_asked_first_and_paths_are_below_the_catalogue(tmp_path: Path) -> None:
    """A machine at home is asked by digest before the catalogue's own address, and that before nobody."""
    with mirror(DATA, mirrors.status("404 Not Found")) as home, mirror(DATA) as catalogue:
        places = Places(
            base=f"http://127.0.0.1:{catalogue.port}/repo/targets", mirrors=(f"http://127.0.0.1:{home.port}",)
        )
        fetch, _ = downloader(tmp_path, places=places)
        fetch.fetch(wanted("sha256/file"))
    assert [path for path, _ in home.requests] == [f"/sha256/{DIGEST}"]
    assert [path for path, _ in catalogue.requests] == ["/repo/targets/sha256/file"]


def test_without_any_address_nobody_is_asked(tmp_path: Path) -> None:
    """The error says what to set."""
    fetch, _ = downloader(tmp_path)
    with pytest.raises(TransportError, match="no address") as caught:
        fetch.fetch(wanted("sha256/file"))
    assert "models.mirrors" in caught.value.hint
    assert files(tmp_path) == {}


def test_local_files_are_taken_if_they_are_right(tmp_path: Path) -> None:
    """A file URL gives the file; a wrong size, a folder, a pipe or a missing file are errors that change nothing."""
    good, short, pipe = tmp_path / "good", tmp_path / "short", tmp_path / "pipe"
    good.write_bytes(DATA)
    short.write_bytes(DATA[:-1])
    os.mkfifo(pipe)
    for path in (short, pipe, tmp_path, tmp_path / "missing"):
        fetch, _ = downloader(tmp_path / "store")
        with pytest.raises(TransportError):
            fetch.fetch(wanted(path.as_uri()))
        assert files(tmp_path / "store") == {}
    fetch.fetch(wanted(good.as_uri()))
    assert files(tmp_path / "store") == STORED


def test_room_is_checked_before_anything_is_fetched(tmp_path: Path) -> None:
    """Over budget: nobody is asked, nothing is removed, and the error names the limit."""
    fetch, _ = downloader(tmp_path, budget=Budget(max_bytes=400_000, keep_free_bytes=0))
    with mirror(DATA) as server:
        fetch.fetch(wanted(server.url))
        fetch.content.pin(DIGEST)
        before = files(tmp_path)
        other = bytes(200_000)
        with pytest.raises(ResourceError, match=r"models\.max_bytes") as caught:
            fetch.fetch(wanted(server.url, data=other))
    assert caught.value.error_code == "disk-full"
    assert files(tmp_path) == before
    assert len(server.requests) == 1


def test_the_least_recently_used_file_makes_room(tmp_path: Path) -> None:
    """Of three files the one used longest ago goes, not the pinned one and not the one in use."""
    fetch, _ = downloader(tmp_path, budget=Budget(max_bytes=300_000, keep_free_bytes=0))
    datas = [bytes([number]) * 90_000 for number in range(4)]
    digests = [hashlib.sha256(data).hexdigest() for data in datas]
    for number, data in enumerate(datas[:3]):
        with mirror(data) as server:
            path = fetch.fetch(wanted(server.url, data=data))
            os.utime(path, (1000 + number, 1000 + number))
    fetch.content.pin(digests[0])
    with mirror(datas[3]) as server:
        fetch.fetch(wanted(server.url, data=datas[3]), in_use={digests[1]})
    assert fetch.evicted == [digests[2]]
    assert {entry.digest for entry in fetch.content.entries()} == {digests[0], digests[1], digests[3]}


def test_a_disk_that_fills_up_is_told_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC in the middle: a clear error, and the part is removed."""
    fetch, _ = downloader(tmp_path)
    real, written = os.write, 0

    def write(descriptor: int, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    with mirror(DATA) as server:
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(ResourceError) as caught:
            fetch.fetch(wanted(server.url))
        monkeypatch.undo()
    assert caught.value.error_code == "disk-full"
    assert "models gc" in caught.value.hint
    assert files(tmp_path) == {}


_KILLED = """
import random, sys
from pathlib import Path
from edge_agent.models.content import Content
from edge_agent.models.download import Budget, Downloader, Places, Wanted
from edge_agent.models.transfer import Source
root, url, digest, size = sys.argv[1:]
fetch = Downloader(Content(Path(root)), Places(), Budget(10**9, 0), Source(), lambda _: None, random.Random(1))
print("begun", flush=True)
fetch.fetch(Wanted("toy", digest, int(size), (url,)), lambda done, _: print(done, flush=True))
"""


def test_kill_in_the_middle_leaves_a_beginning_that_is_gone_on_with(tmp_path: Path) -> None:
    """SIGKILL while bytes come: no file under the digest, and the next fetch asks for the rest only."""

    def slow(request: mirrors.Request) -> None:
        request.head("200 OK", Content_Length=str(len(DATA)))
        request.connection.sendall(DATA[:100_000])
        with contextlib.suppress(OSError):
            request.connection.recv(1)

    with mirror(DATA, slow, mirrors.good) as server:
        command = [sys.executable, "-c", _KILLED, str(tmp_path), server.url, DIGEST, str(len(DATA))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "100000":
                break
        # Another process may not fetch the same file meanwhile.
        fetch, _ = downloader(tmp_path)
        with pytest.raises(StateError, match="Another process") as caught:
            fetch.fetch(wanted(server.url))
        assert caught.value.error_code == "state-in-use"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not fetch.content.has(DIGEST)
        fetch.fetch(wanted(server.url))
    assert files(tmp_path) == STORED
    assert server.requests[-1][1]["range"] == "bytes=100000-"


_MANNERS: list[Behaviour] = [*BAD.values(), mirrors.good, mirrors.without_ranges, mirrors.cut_after(250_000)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.lists(st.sampled_from(_MANNERS), min_size=1, max_size=4), second=st.sampled_from(_MANNERS))
def test_any_mixture_of_manners_gives_the_right_file_or_none(
    tmp_path_factory: pytest.TempPathFactory, first: list[Behaviour], second: Behaviour
) -> None:
    """Whatever two sources do one after the other, what is under the digest is the file."""
    root = tmp_path_factory.mktemp("store")
    fetch, _ = downloader(root, limits=Limits(connect_seconds=5, silence_seconds=0.05))
    with mirror(DATA, *first) as one, mirror(DATA, second) as two, contextlib.suppress(EdgeAgentError):
        fetch.fetch(wanted(one.url, two.url))
    found = {name: data for name, data in files(root).items() if not name.startswith("partial/")}
    assert found in ({}, STORED)
    if second is mirrors.good:
        assert found == STORED


def test_many_small_pieces_do_not_go_on_for_ever(tmp_path: Path) -> None:
    """A source that sends one byte a request is given up after a bounded number of requests."""
    fetch, _ = downloader(tmp_path)

    def drip(request: mirrors.Request) -> None:
        request.good(until=request.start + 1)

    server: Mirror
    with mirror(DATA, drip) as server, pytest.raises(TransportError):
        fetch.fetch(wanted(server.url))
    assert len(server.requests) <= 200

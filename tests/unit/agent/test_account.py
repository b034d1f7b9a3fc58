"""The account: whose energy it is, what is written, what survives, and that it stays small."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.agent.account.account import MAX_WAITING_ENTRIES, Account, Means, day_of
from edge_agent.agent.account.book import MAX_COPY_BYTES, MAX_FAMILIES_A_DAY, OTHERS, Book, Row, Usage
from edge_agent.agent.account.comparing import Credit, Shown, compare, credit_by_day
from edge_agent.agent.account.shares import ITSELF, Interval, own_joules, split
from edge_agent.agent.account.summary import COLUMNS, read
from edge_agent.agent.account.tariff import Tariff
from edge_agent.agent.own_copy import Entry, check_chain
from edge_agent.agent.policy import Reading
from edge_agent.agent.tally import Tally
from edge_agent.clock import Now
from edge_agent.errors import PeerError, StateError
from edge_agent.settings import Energy, Source
from edge_agent.wire.keys import SigningKey
from hardware import load
from hardware.meter import Meter
from hardware.sysfs import Root

START_MS = 1_800_000_000_000
KEY = SigningKey.generate()


class Scene:
    """A machine of two CPUs that the test plays, its meters, and a clock."""

    def __init__(self, folder: Path, settings: Energy | None = None) -> None:
        self.folder, self.seconds = folder, 0.0
        self.root = folder / "root"
        self.ticks = [0, 0, 0]  # all, busy, ours
        self.said: dict[str, float] = {}
        self.tally = Tally()
        self.settings = settings or Energy(idle_watts=2.0, max_watts=10.0)
        self.compute(0, 0, 0)
        self.account = self.start()

    def start(self) -> Account:
        """Start a process."""
        root = Root(self.root)
        tariff = Tariff(self.settings, self._number, Meter(root, None, None))
        return Account(self.folder, Means(root, 7, tariff, KEY, "home"), self.tally, self.now)

    def _number(self, source: Source, now: Now) -> Reading:
        found = self.said.get(source.text)
        return Reading(None, "silent") if found is None else Reading(found)

    @property
    def now(self) -> Now:
        """The moment."""
        return Now(50.0 + self.seconds, START_MS + int(self.seconds * 1000))

    def compute(self, seconds: float, busy: float, ours: float) -> None:
        """Let time pass: with CPU seconds that were busy, and that were ours, of two CPUs."""
        self.seconds += seconds
        self.ticks = [
            self.ticks[0] + int(200 * seconds),
            self.ticks[1] + int(100 * busy),
            self.ticks[2] + int(100 * ours),
        ]
        total, used, own = self.ticks
        self.write("proc/stat", f"cpu  {used} 0 0 {total - used} 0 0 0 0\n")
        self.write("proc/7/stat", f"7 (edge-agent) S {'0 ' * 10}{own} 0 0 0 0\n")

    def write(self, name: str, text: str) -> None:
        """Write a file of the machine."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def look(self) -> dict[str, object]:
        """Look now, and report."""
        self.account.look(self.now)
        return self.account.report(self.now)


def test_energy_is_estimated_from_load_and_only_our_part_counts(tmp_path: Path) -> None:
    """Both CPUs busy: 10 W, 8 of them beyond the idle machine; half of the computing was ours."""
    scene = Scene(tmp_path)
    scene.tally.finished("digits", 1_000_000, scene.now.wall_ms)
    scene.compute(100, busy=200, ours=100)
    report = scene.look()
    assert (report["watts"], report["watts_source"]) == (10.0, "estimate")
    assert report["kwh_today"] == pytest.approx(400 / 3.6e6, abs=1e-6)
    assert report["machine_kwh_today"] == pytest.approx(1000 / 3.6e6, abs=1e-6)
    assert report["kwh_measured_today"] == 0
    scene.account.write(scene.now)
    rows = read(tmp_path, "0000", "9999").rows
    assert {family: (row.finished, round(row.joules)) for (_, family), row in rows.items()} == {"digits": (1, 400)}


def test_an_idle_machine_is_its_owners(tmp_path: Path) -> None:
    """What it draws anyway is not ours, however long the agent runs."""
    scene = Scene(tmp_path)
    scene.compute(3600, busy=0, ours=0)
    report = scene.look()
    assert (report["watts"], report["kwh_today"]) == (2.0, 0.0)


def test_what_nobody_measures_or_described_is_unknown_and_not_guessed(tmp_path: Path) -> None:
    """And the report says so."""
    scene = Scene(tmp_path, Energy(price_per_kwh=0.3))
    scene.compute(100, busy=200, ours=100)
    report = scene.look()
    assert (report["watts"], report["kwh_today"], report["cost_today"]) == (None, None, None)
    assert "RAPL" in str(report["watts_why"])


def test_a_meter_at_the_plug_is_believed_before_an_estimate(tmp_path: Path) -> None:
    """While it is silent, the estimate holds; both are kept apart."""
    settings = Energy(idle_watts=2.0, max_watts=10.0, watts_topic="plug#power")
    scene = Scene(tmp_path, settings)
    scene.said["plug#power"] = 6.0
    scene.compute(10, busy=20, ours=20)
    assert scene.look()["watts_source"] == "plug"
    del scene.said["plug#power"]
    scene.compute(10, busy=20, ours=20)
    assert scene.look()["watts_source"] == "estimate"
    scene.account.write(scene.now)
    total = read(tmp_path, "0000", "9999").total()
    assert (round(total.measured_joules), round(total.estimated_joules)) == (40, 80)


def test_the_price_of_the_moment_counts(tmp_path: Path) -> None:
    """And the fixed one while the topic is silent; energy without any is counted as such."""
    scene = Scene(tmp_path, Energy(idle_watts=2.0, max_watts=3602.0, price_topic="tariff"))
    scene.compute(1000, busy=2000, ours=2000)
    assert scene.look()["cost_today"] is None
    scene.said["tariff"] = 0.5
    scene.compute(1000, busy=2000, ours=2000)
    assert scene.look()["cost_today"] == 0.5
    scene.account.write(scene.now)
    assert read(tmp_path, "0000", "9999").total().unpriced_joules == pytest.approx(3.6e6)


def test_figures_survive_a_restart_and_are_added_to(tmp_path: Path) -> None:
    """What was written counts towards today and this month; what was not is lost with the process."""
    scene = Scene(tmp_path)
    scene.tally.finished("digits", 5, scene.now.wall_ms)
    scene.account.sent(1000, scene.now)
    scene.account.received(500)
    scene.account.downloaded(100, scene.now)
    scene.look()
    scene.account.leave(scene.now)
    scene.account = scene.start()
    assert scene.account.network_bytes(scene.now) == 1600
    scene.tally.finished("digits", 5, scene.now.wall_ms)
    scene.account.received(1)
    assert scene.account.network_bytes(scene.now) == 1601
    assert scene.look()["finished_ever"] == 2
    scene.account.leave(scene.now)
    assert read(tmp_path, "0000", "9999").total().finished == 2


def test_written_bytes_are_those_of_all_our_processes(tmp_path: Path) -> None:
    """As the kernel counts them."""
    scene = Scene(tmp_path)
    scene.write("proc/7/io", "rchar: 9\nwrite_bytes: 4096\ncancelled_write_bytes: 96\n")
    scene.look()
    scene.write("proc/7/io", "rchar: 9\nwrite_bytes: 8192\ncancelled_write_bytes: 192\n")
    assert scene.look()["written_bytes_today"] == 8000


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    """And nothing else is lost: a new account is begun."""
    (tmp_path / "account.db").write_bytes(b"no database at all" * 1000)
    scene = Scene(tmp_path)
    scene.tally.finished("digits", 5, scene.now.wall_ms)
    scene.look()
    scene.account.leave(scene.now)
    assert read(tmp_path, "0000", "9999").total().finished == 1
    assert (tmp_path / "account.damaged").exists()


def test_what_a_damaged_file_had_begun_is_not_played_into_the_new_one(tmp_path: Path) -> None:
    """A journal that a power cut left belongs to the file that is set aside."""
    (tmp_path / "account.db").write_bytes(b"no database at all" * 1000)
    (tmp_path / "account.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(4096))
    scene = Scene(tmp_path)
    scene.tally.finished("digits", 5, scene.now.wall_ms)
    scene.look()
    scene.account.leave(scene.now)
    assert read(tmp_path, "0000", "9999").total().finished == 1


def test_a_file_that_somebody_holds_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk or a moment that does not let us says nothing about the file: what it holds stays."""
    scene = Scene(tmp_path)
    scene.tally.finished("digits", 5, scene.now.wall_ms)
    scene.look()
    scene.account.leave(scene.now)
    kept = (tmp_path / "account.db").read_bytes()
    holder = sqlite3.connect(tmp_path / "account.db")
    holder.execute("BEGIN EXCLUSIVE")
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: real(*args, **(options | {"timeout": 0.0})))
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        Book(tmp_path)
    holder.close()
    assert (tmp_path / "account.db").read_bytes() == kept
    assert not (tmp_path / "account.damaged").exists()


def test_an_account_of_a_newer_version_is_left_unchanged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The agent works on without it, and says why."""
    newer = sqlite3.connect(tmp_path / "account.db")
    newer.execute("CREATE TABLE days (whatever)")
    newer.execute("PRAGMA user_version=99")
    newer.commit()
    newer.close()
    kept = (tmp_path / "account.db").read_bytes()
    scene = Scene(tmp_path)
    scene.look()
    scene.account.leave(scene.now)
    assert (tmp_path / "account.db").read_bytes() == kept
    assert "has schema 99" in caplog.text


def test_a_disk_that_takes_nothing_stops_nobody(tmp_path: Path) -> None:
    """The figures wait in memory."""
    scene = Scene(tmp_path)
    scene.tally.finished("digits", 5, scene.now.wall_ms)
    scene.look()
    other = sqlite3.connect(tmp_path / "account.db")
    other.execute("DROP TABLE usage")
    other.close()
    scene.account.write(scene.now)
    assert scene.account.report(scene.now)["finished_ever"] == 1


@contextlib.contextmanager
def full_disk(file: Path) -> Iterator[None]:
    """Have the kernel let no file of this process grow beyond what this one is: SQLite's own code meets its refusal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size if file.exists() else 0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def accept(scene: Scene, *numbers: int) -> None:
    """Have results accepted."""
    for number in numbers:
        scene.tally.finished("digits", 5, scene.now.wall_ms)
        scene.account.settled("digits", Entry(number.to_bytes(16, "big"), 1, bytes(16)), 7, scene.now)


def test_a_full_disk_costs_neither_figures_nor_a_block_of_the_own_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once there is room again all is written, once, and the chain goes on where it ended, over a restart, too."""
    scene = Scene(tmp_path)
    accept(scene, 0, 1)
    scene.account.leave(scene.now)
    scene.account = scene.start()
    with full_disk(tmp_path / "account.db"):
        for more in (range(2, 1000), range(1000, 1500)):
            accept(scene, *more)
            scene.look()
            scene.account.write(scene.now)
        assert caplog.text.count("Could not write the account") == 2
        assert scene.account.report(scene.now)["finished_ever"] == 1500
    assert read(tmp_path, "0000", "9999").total().finished == 2
    accept(scene, 1500)
    scene.look()
    scene.account.write(scene.now)
    accept(scene, 1501)
    scene.account.leave(scene.now)
    scene.account = scene.start()
    accept(scene, 1502)
    scene.account.leave(scene.now)
    found = read(tmp_path, "0000", "9999")
    assert (found.total().finished, found.total().accepted) == (1503, 1503)
    blocks, problem = check_chain(found.blocks, KEY.public, "home")
    assert (problem, [block.number for block in blocks]) == ("", [1, 2, 3, 4])
    assert [int.from_bytes(entry.job, "big") for block in blocks for entry in block.entries] == list(range(1503))
    assert sum(block.left_out for block in blocks) == 0


def test_a_disk_that_was_full_at_the_start_has_an_account_once_there_is_room(tmp_path: Path) -> None:
    """What was counted meanwhile is in it, and what an earlier process wrote stays."""
    scene = Scene(tmp_path)
    accept(scene, 0)
    scene.account.leave(scene.now)
    holder = sqlite3.connect(tmp_path / "account.db")
    holder.execute("PRAGMA user_version=0")  # as if it had to be made, which takes room
    holder.close()
    with full_disk(tmp_path / "nothing"):
        scene.account = scene.start()
        accept(scene, 1)
        scene.look()
        scene.account.write(scene.now)
        assert scene.account.report(scene.now)["finished_ever"] == 1
    scene.account.write(scene.now)
    assert scene.account.report(scene.now)["finished_ever"] == 2
    found = read(tmp_path, "0000", "9999")
    assert found.total().finished == 2
    blocks, problem = check_chain(found.blocks, KEY.public, "home")
    assert (problem, [block.number for block in blocks]) == ("", [1, 2])


def test_a_look_walks_through_the_processes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU time and written bytes are read of the same ones."""
    scene = Scene(tmp_path)
    real, walks = load.descendants, []
    monkeypatch.setattr(load, "descendants", lambda root, pid: walks.append(pid) or real(root, pid))
    scene.look()
    assert walks == [7]


def test_without_an_account_the_report_says_what_to_do(tmp_path: Path) -> None:
    """Instead of an empty table."""
    with pytest.raises(StateError, match="no account"):
        read(tmp_path, "0000", "9999")


def test_credit_is_kept_by_day_and_family_and_over_restarts(tmp_path: Path) -> None:
    """Of accepted results, by what each is worth; it stands beside the jobs, and is said with what today took."""
    scene = Scene(tmp_path)
    entry = Entry(bytes(16), 1, bytes(16))
    scene.account.settled("digits", entry, 3, scene.now)
    scene.account.settled("minilm", entry, 1_000, scene.now)
    scene.account.leave(scene.now)
    scene.account = scene.start()
    scene.account.settled("digits", entry, 3, scene.now)
    assert (scene.account.report(scene.now)["accepted_today"], scene.account.report(scene.now)["credit_today"]) == (
        3,
        1_006,
    )
    scene.account.write(scene.now)
    found = read(tmp_path, "0000", "9999")
    assert {family: row.credit for (_, family), row in found.rows.items() if row.accepted} == {
        "digits": 6,
        "minilm": 1_000,
    }
    assert [dict(zip(COLUMNS, row, strict=True))["credit_mmac"] for row in found.table()][:2] == [6, 1_000]


def test_an_account_of_before_there_was_credit_is_read_and_goes_on(tmp_path: Path) -> None:
    """Read as it is by a newer report; an agent adds the column, and loses nothing."""
    scene = Scene(tmp_path)
    scene.account.settled("digits", Entry(bytes(16), 1, bytes(16)), 7, scene.now)
    scene.account.leave(scene.now)
    with contextlib.closing(sqlite3.connect(tmp_path / "account.db", isolation_level=None)) as older:
        older.execute("ALTER TABLE days DROP COLUMN credit")
        older.execute("PRAGMA user_version=1")
    before = read(tmp_path, "0000", "9999").total()
    assert (before.accepted, before.credit) == (1, 0)
    scene.account = scene.start()
    scene.account.settled("digits", Entry(bytes(16), 2, bytes(16)), 7, scene.now)
    scene.account.leave(scene.now)
    after = read(tmp_path, "0000", "9999")
    assert (after.total().accepted, after.total().credit) == (2, 7)
    assert len(after.blocks) == 2


# -- the own copy -----------------------------------------------------------------------------------------------------


def test_the_own_copy_is_signed_and_goes_on_over_restarts(tmp_path: Path) -> None:
    """Each block names the one before; another key's, or one that was taken out, is seen."""
    scene = Scene(tmp_path)
    for number in range(3):
        scene.account.settled("digits", Entry.of(bytes([number]) * 16, 1, b"signed"), 7, scene.now)
        scene.account.leave(scene.now)
        scene.account = scene.start()
    found = read(tmp_path, "0000", "9999")
    assert found.total().accepted == 3
    blocks, problem = check_chain(found.blocks, KEY.public, "home")
    assert (problem, [block.number for block in blocks]) == ("", [1, 2, 3])
    assert blocks[1].entries == (Entry(bytes([1]) * 16, 1, hashlib.sha256(b"signed").digest()[:16]),)
    assert "does not follow" in check_chain((found.blocks[0], found.blocks[2]), KEY.public, "home")[1]
    with pytest.raises(PeerError):
        check_chain(found.blocks, SigningKey.generate().public, "home")
    with pytest.raises(PeerError):
        check_chain(found.blocks, KEY.public, "elsewhere")


def test_a_flood_of_results_does_not_wear_the_card_out(tmp_path: Path) -> None:
    """What is above the bound is counted and not listed: half an hour is below 100 KB."""
    scene = Scene(tmp_path)
    for number in range(MAX_WAITING_ENTRIES + 7):
        scene.account.settled("digits", Entry(number.to_bytes(16, "big"), 1, bytes(16)), 7, scene.now)
    scene.account.write(scene.now)
    (block,), problem = check_chain(read(tmp_path, "0000", "9999").blocks, KEY.public, "home")
    assert (problem, len(block.entries), block.left_out) == ("", MAX_WAITING_ENTRIES, 7)
    assert (tmp_path / "account.db").stat().st_size < 150_000


def test_the_oldest_blocks_make_room(tmp_path: Path) -> None:
    """The file stays bounded, whatever happens."""
    book = Book(tmp_path)
    for number in range(1, 5):
        book.add({}, {}, [(number, 0, bytes(MAX_COPY_BYTES // 3))])
    assert book.last_block() is not None
    assert len(book.blocks()) == 3
    book.close()


def test_many_families_of_one_day_are_counted_together(tmp_path: Path) -> None:
    """A catalogue of thousands makes no file of thousands of rows."""
    book = Book(tmp_path)
    for number in range(MAX_FAMILIES_A_DAY + 5):
        book.add({("2026-09-21", f"family{number}"): Row(finished=1)}, {"2026-09-21": Usage(seconds=1)}, [])
    rows = book.rows("2026-09-21", "2026-09-21")
    book.close()
    assert len(rows) == MAX_FAMILIES_A_DAY + 1
    assert rows["2026-09-21", OTHERS].finished == 5


# -- pure rules -------------------------------------------------------------------------------------------------------

SHARE = st.floats(0, 1)


@given(st.floats(0, 1e5), SHARE, SHARE, st.floats(0, 1e3), st.floats(0, 1e3))
def test_ours_is_never_more_than_what_the_work_drew(
    seconds: float, busy: float, ours: float, watts: float, idle: float
) -> None:
    """Whatever counters say, also such that do not fit together."""
    joules = own_joules(Interval(seconds, busy, ours), watts, idle)
    assert 0 <= joules <= max(0.0, watts - idle) * seconds * (1 + 1e-9)


@given(st.floats(0, 1e9), st.dictionaries(st.sampled_from("abcd"), st.integers(0, 10**12)))
def test_no_energy_is_lost_or_made_by_dividing_it(joules: float, busy_us: dict[str, int]) -> None:
    """The parts are the whole."""
    parts = split(joules, busy_us)
    assert sum(parts.values()) == pytest.approx(joules)
    assert set(parts) == {ITSELF} or set(parts) <= set(busy_us)


def test_days_are_those_of_the_wall_clock() -> None:
    """As a calendar here shows them."""
    assert len(day_of(Now(0.0, START_MS))) == len("2026-09-21")


# -- against the coordinator ------------------------------------------------------------------------------------------


def test_the_own_copy_is_held_against_what_the_coordinator_shows() -> None:
    """Each way in which the two can differ is told apart; only other bytes are evidence against the coordinator."""
    jobs = [bytes([number]) * 16 for number in range(6)]
    own = [Entry.of(job, 2, b"signed " + job) for job in jobs]
    shown = {
        jobs[0]: Shown("me", 2, b"signed " + jobs[0], b"leaf 0"),
        jobs[1]: Shown("me", 2, b"signed " + jobs[1], b"leaf 1"),
        jobs[2]: Shown("somebody else", 2, b"signed " + jobs[2], b"leaf 2"),
        jobs[3]: Shown("me", 3, b"signed " + jobs[3], b"leaf 3"),
        jobs[4]: Shown("me", 2, b"forged", b"leaf 4"),
    }
    found = compare("me", own, shown, {b"leaf 0": 12, b"leaf 4": 99})
    assert (found.same, found.credited) == (jobs[:2], {jobs[0]: 12})
    assert (found.others, found.altered, found.missing) == (jobs[2:4], [jobs[4]], [jobs[5]])


def test_credit_is_added_up_by_day_and_model() -> None:
    """Only of results that are there as they were signed; what the ledger does not pay is a result all the same."""
    jobs = [bytes([number]) * 16 for number in range(5)]
    own = [Entry.of(job, 1, b"signed " + job) for job in jobs]
    families = ("b", "a", "a", "a", "a")
    shown = {
        job: Shown("me", 1, b"signed " + job, b"leaf %d" % number, family, 100 * (number // 3))
        for number, (job, family) in enumerate(zip(jobs, families, strict=True))
    }
    shown[jobs[4]] = shown[jobs[4]]._replace(signed_result=b"forged")
    paid = {b"leaf 0": 7, b"leaf 1": 12, b"leaf 3": 12, b"leaf 4": 99, b"another's": 1000}
    found = credit_by_day(compare("me", own, shown, paid), shown, lambda at_ms: f"day {at_ms}")
    assert list(found.items()) == [
        (("day 0", "a"), Credit(2, 1, 12)),
        (("day 0", "b"), Credit(1, 1, 7)),
        (("day 100", "a"), Credit(1, 1, 12)),
    ]


def test_models_that_were_fetched_are_counted_once(tmp_path: Path) -> None:
    """What is told is the sum so far."""
    scene = Scene(tmp_path)
    for fetched in (1000, 1000, 2500):
        scene.account.downloaded(fetched, scene.now)
    assert scene.account.network_bytes(scene.now) == 2500

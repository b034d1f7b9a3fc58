"""`edge-agent doctor` on real set-ups that are broken in one place: it names the place, and how to mend it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import needs
import pytest
from brokers import Client, mosquitto, options
from certificates import issuer, listener
from fakes import FakeCoordinator, ManualClock, key
from networks import Network, clean_environment, running_network

from edge_agent.doctor.checks import CHECKS
from edge_agent.mqtt import Connected, Published
from edge_agent.wire.keys import SigningKey

NAMES = [check.name for check in CHECKS]
NEEDS_BROKER = ("broker", "coordinator", "admission", "clock")


class Report:
    """What the doctor said."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert done.stdout, done.stderr
        self.status = done.returncode
        document = json.loads(done.stdout)
        self.ok: bool = document["ok"]
        self.checks: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in document["checks"]}
        assert list(self.checks) == NAMES
        assert self.status == (0 if self.ok else 1)

    def outcome(self, status: str) -> list[str]:
        """Return the names of the checks that came out so."""
        return [name for name, entry in self.checks.items() if entry["status"] == status]


def doctor(*arguments: str, prefix: tuple[str, ...] = (), **variables: str) -> Report:
    """Run the doctor."""
    command = [*prefix, sys.executable, "-m", "edge_agent", "doctor", "--json", *arguments]
    environment = {**clean_environment(), **{f"EDGE_AGENT_{name}": value for name, value in variables.items()}}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=100)
    return Report(done)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Run a whole network, whose agent's set-up is sound."""
    folder = tmp_path_factory.mktemp("network")
    with (
        mosquitto(folder, "allow_anonymous true") as port,
        running_network(folder, "--broker", f"mqtt://127.0.0.1:{port}") as found,
    ):
        yield found


def sound(of: Network, **changes: str) -> list[str]:
    """Return the arguments for the agent of a network, but for these changes."""
    flags = {
        "--broker": of.about["mqtt"],
        "--state": str(of.state / "agent"),
        "--coordinator-key": of.about["coordinator_key"],
    } | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return [part for pair in flags.items() for part in pair]


def copy_of_state(network: Network, folder: Path) -> Path:
    """Return a state directory like that of the running agent, with the same key."""
    state = folder / "state"
    state.mkdir(mode=0o700)
    shutil.copy2(network.state / "agent" / "agent.key", state)
    return state


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder that a running agent leaves alone."""
    # It makes optimised copies of what it serves when it has time.
    paths = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "optimised"]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    # The running agent is sent a certificate for each key that it announces, soon after its start.
    return {name: content for name, content in files.items() if name not in {"agent.crt", "certificate.cose"}}


def test_a_sound_set_up_passes_beside_the_running_agent_and_disturbs_nothing(network: Network) -> None:
    """Every check is ok, the clocks are measured to milliseconds, and neither session nor files nor status change."""
    network.wait_for_loaded("digits")
    agent = network.state / "agent"
    before = contents(agent)
    connections = network.log("agent").count("action=link-connected")
    report = doctor(*sound(network))
    assert report.ok, report.checks
    assert report.outcome("ok") == NAMES
    clock = report.checks["clock"]["facts"]
    assert abs(clock["coordinator_ahead_ms"]) <= clock["uncertain_ms"] + 2
    assert clock["uncertain_ms"] < 5000
    facts = report.checks["broker"]["facts"]
    assert (facts["abilities"]["protocol"], facts["abilities"]["retained"]) == ("5", True)
    assert report.checks["state"]["facts"]["in_use"] is True
    assert contents(agent) == before
    assert network.log("agent").count("action=link-connected") == connections
    assert "Agent is gone" not in network.log("coordinator")


def test_people_get_a_line_for_each_check(network: Network) -> None:
    """And what to do, under what failed."""
    command = [sys.executable, "-m", "edge_agent", "doctor", *sound(network, broker="mqtt://127.0.0.1:1")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment(), timeout=100)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert done.stderr == ""
    assert [
        line.split()[1] for line in lines if line.split() and line.split()[0] in {"ok", "failed", "skipped"}
    ] == NAMES
    (broker,) = [n for n, line in enumerate(lines) if line.startswith("failed  broker")]
    assert "[unreachable]" in lines[broker]
    assert lines[broker + 1].strip().startswith("mend: ")
    assert lines[-1] == f"1 of {len(NAMES)} checks failed: broker"


# -- files ------------------------------------------------------------------------------------------------------------


def test_wrong_settings_are_told_and_the_rest_is_skipped(tmp_path: Path) -> None:
    """What does not depend on them is looked at all the same."""
    config = tmp_path / "config.toml"
    config.write_text("[agent]\nthread = 3\n")
    report = doctor("--config", str(config))
    assert report.outcome("failed") == ["settings"]
    assert report.checks["settings"]["code"] == "settings"
    assert "thread" in report.checks["settings"]["found"]
    assert {"python", "runtime"} <= set(report.outcome("ok"))
    assert set(NEEDS_BROKER) <= set(report.outcome("skipped"))


@pytest.mark.parametrize(
    ("fault", "check", "told"),
    [
        ("no pinned key", "keys", "is not there"),
        ("the pinned key is cut", "keys", "not a whole PEM"),
        ("others may read our key", "keys", "600"),
        ("our key is garbage", "keys", "not a whole PEM"),
        ("others may read the password", "keys", "chmod 600"),
        ("the spool is garbage", "spool", "damaged"),
        ("the spool is of a newer version", "spool", "schema 9"),
        ("a file in place of the folder", "state", "no folder"),
    ],
)
def test_a_fault_on_disk_is_named(network: Network, tmp_path: Path, fault: str, check: str, told: str) -> None:
    """With its own check, and with what to do."""
    state = copy_of_state(network, tmp_path)
    pinned = tmp_path / "coordinator.pub"
    shutil.copy2(network.about["coordinator_key"], pinned)
    variables: dict[str, str] = {}
    match fault:
        case "no pinned key":
            pinned.unlink()
        case "the pinned key is cut":
            pinned.write_bytes(pinned.read_bytes()[:60])
        case "others may read our key":
            (state / "agent.key").chmod(0o644)
        case "our key is garbage":
            (state / "agent.key").write_bytes(b"garbage" * 20)
        case "others may read the password":
            password = tmp_path / "password"
            password.write_text("opensesame\n")
            password.chmod(0o644)
            variables |= {"BROKER_PASSWORD_FILE": str(password), "BROKER_USERNAME": "ann"}
        case "the spool is garbage":
            (state / "spool.db").write_bytes(b"garbage" * 1000)
        case "the spool is of a newer version":
            database = sqlite3.connect(state / "spool.db")
            database.execute("PRAGMA user_version=9")
            database.execute("CREATE TABLE x (y)")
            database.close()
        case _:
            state = tmp_path / "file"
            state.write_text("")
    report = doctor(*sound(network, state=str(state), coordinator_key=str(pinned)), **variables)
    assert check in report.outcome("failed"), report.checks
    entry = report.checks[check]
    assert told in f"{entry['found']} {entry['mend']}"
    assert entry["mend"]
    assert "opensesame" not in json.dumps(report.checks)


def test_a_first_start_is_no_fault(network: Network, tmp_path: Path) -> None:
    """No folder, no key: both are made later, and nothing is made now."""
    report = doctor(*sound(network, state=str(tmp_path / "new" / "agent")))
    assert report.outcome("failed") == []
    assert set(report.outcome("skipped")) == {"admission", "bounds", "clock"}
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_read_only_or_full_is_told(network: Network, tmp_path: Path) -> None:
    """With the kernel's word for it."""
    unshare = needs.tool("unshare")
    able = subprocess.run([unshare, "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    if able.returncode:
        needs.absent(f"mounting in a namespace of its own is not allowed here: {able.stderr.decode().strip()}")
    state = tmp_path / "disk"
    state.mkdir()
    for then, told in (
        ("mount -o remount,ro STATE", "Read-only file system"),
        ("head -c 1000000 /dev/zero > STATE/filler || true", "No space left on device"),
    ):
        script = f'mount -t tmpfs -o size=256k,mode=700 none {state}; {then.replace("STATE", str(state))}; exec "$@"'
        report = doctor(*sound(network, state=str(state)), prefix=(unshare, "-rm", "sh", "-c", script, "sh"))
        assert report.outcome("failed") == ["state"]
        assert told in report.checks["state"]["found"]


def test_a_damaged_spool_that_was_set_aside_is_a_warning(network: Network, tmp_path: Path) -> None:
    """It works, but a disk that does this once may do it again."""
    state = copy_of_state(network, tmp_path)
    (state / "spool.db.damaged-20261125T120000Z").write_bytes(b"x")
    report = doctor(*sound(network, state=str(state)))
    assert report.ok
    assert report.outcome("warning") == ["spool"]


def test_a_model_file_that_was_changed_is_told(network: Network, tmp_path: Path) -> None:
    """The fetched file of the digest that the catalogue names has other bytes."""
    from edge_agent.models.catalogue import builtin  # noqa: PLC0415
    from edge_agent.models.content import Content  # noqa: PLC0415

    variant = builtin().family("digits").variants[0]
    path = Content(tmp_path / "models").path(variant.digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(variant.size_bytes))
    golden = variant.golden
    assert golden is not None
    report = doctor(*sound(network), MODELS_DIR=str(tmp_path / "models"))
    assert report.outcome("failed") == ["models"]
    assert report.checks["models"]["code"] == "digest-mismatch"


def test_a_kernel_without_landlock_is_told(network: Network) -> None:
    """What is missing, why, and what follows from it; nothing of it is a failure."""
    old = (sys.executable, str(Path(__file__).parents[1] / "old_kernel.py"), "444")
    report = doctor(*sound(network), prefix=old)
    assert report.ok
    check = report.checks["containment"]
    assert check["status"] == "warning"
    assert "models that did not come with the program are refused" in check["found"]
    assert "files (this kernel has no Landlock, or it is switched off)" in check["found"]
    assert set(check["facts"]["missing"]) >= {"files", "tcp", "signals"}
    assert "lsm=landlock" in check["mend"]
    assert "no optimised copies are made here: this kernel has no Landlock" in report.checks["models"]["found"]
    allowed = doctor(*sound(network), prefix=old, AGENT_UNCONTAINED_MODELS="allow")
    assert "models of strangers are run all the same" in allowed.checks["containment"]["found"]


def test_a_worker_without_onnxruntime_is_told(network: Network, tmp_path: Path) -> None:
    """As on a machine for which there is no wheel."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('no such wheel')\n")
    command = ["env", f"PYTHONPATH={tmp_path}"]
    report = doctor(*sound(network), prefix=tuple(command))
    assert report.outcome("failed") == ["runtime"]
    assert "no such wheel" in report.checks["runtime"]["found"]


def test_too_little_memory_is_told(network: Network) -> None:
    """By what the owner allows."""
    report = doctor(*sound(network), AGENT_MEMORY_SHARE="0.000001")
    assert report.outcome("failed") == ["memory"]
    assert report.checks["memory"]["code"] == "does-not-fit"


# -- network ----------------------------------------------------------------------------------------------------------


def test_a_broker_with_a_wrong_certificate_is_told_as_tls(network: Network, tmp_path: Path) -> None:
    """And what depends on it is skipped."""
    issue = issuer(tmp_path)
    ours, theirs = issue("ours"), issue("theirs")
    server = issue("server", theirs)
    with mosquitto(tmp_path, *listener(theirs, server)) as port:
        report = doctor(*sound(network, broker=f"mqtts://127.0.0.1:{port}"), BROKER_CA_FILE=str(ours.cert))
        assert report.outcome("failed") == ["broker"]
        assert report.checks["broker"]["code"] == "tls"
        assert "broker.ca_file" in report.checks["broker"]["mend"]
        good = doctor(*sound(network, broker=f"mqtts://127.0.0.1:{port}"), BROKER_CA_FILE=str(theirs.cert))
        assert good.checks["broker"]["status"] == "ok"


def test_a_broker_that_wants_a_password_is_told(network: Network, tmp_path: Path) -> None:
    """With the setting that is missing."""
    with mosquitto(tmp_path, "allow_anonymous false") as port:
        report = doctor(*sound(network, broker=f"mqtt://127.0.0.1:{port}"))
    assert report.outcome("failed") == ["broker"]
    assert report.checks["broker"]["code"] == "broker-refused"
    assert "broker.username" in report.checks["broker"]["mend"]


def test_a_network_without_a_coordinator_is_told(network: Network) -> None:
    """A wrong name of the network is the usual reason."""
    report = doctor(*sound(network, network="club"))
    assert report.outcome("failed") == ["coordinator", "admission"]
    assert "'club'" in report.checks["coordinator"]["mend"]
    assert report.outcome("skipped") == ["clock"]


def test_another_coordinator_than_the_pinned_one_is_not_believed(network: Network, tmp_path: Path) -> None:
    """Its hello is there and well signed, by the wrong key."""
    stranger = tmp_path / "stranger.pub"
    SigningKey.generate().public.write(stranger)
    report = doctor(*sound(network, coordinator_key=str(stranger)))
    assert report.outcome("failed") == ["coordinator", "admission"]
    assert report.checks["coordinator"]["code"] == "unknown-key"


def test_an_agent_that_nobody_admitted_is_told_the_command(network: Network, tmp_path: Path) -> None:
    """The operator's own."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    own = SigningKey.generate()
    own.write(state / "agent.key")
    report = doctor(*sound(network, state=str(state)))
    assert report.outcome("failed") == ["admission"]
    assert f"approve {own.public.id}" in report.checks["admission"]["mend"]
    assert set(report.outcome("skipped")) == {"bounds", "clock"}
    assert f"approve {own.public.id}" not in network.log("coordinator"), "nobody is asked to admit a doctor"


@contextmanager
def clock_of(seconds: int) -> Iterator[tuple[str, ...]]:
    """Give the start of a command whose wall clock is off by so much."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        needs.absent("the library libfaketime is not installed")
    yield ("env", f"LD_PRELOAD={library}", f"FAKETIME={seconds:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC=1")


@pytest.mark.parametrize(
    ("seconds", "status", "told"),
    [
        (-600, "warning", "behind"),
        (600, "warning", "ahead of"),
        (-100_000, "failed", "not fresh"),
        (60, "ok", "ahead of"),
    ],
)
def test_a_wrong_clock_is_measured(network: Network, seconds: int, status: str, told: str) -> None:
    """To the second, in both directions, whatever the age of the hello."""
    with clock_of(seconds) as prefix:
        report = doctor(*sound(network), prefix=prefix)
    entry = report.checks["clock"]
    assert entry["status"] == status, entry
    assert told in entry["found"]
    assert entry["facts"]["coordinator_ahead_ms"] == pytest.approx(-seconds * 1000, abs=2000)


def test_a_hello_from_the_future_shows_that_our_clock_is_behind(tmp_path: Path) -> None:
    """Without an answer only a lower bound is known; a hello from the past shows nothing."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    SigningKey.generate().write(state / "agent.key")
    coordinator = key("coordinator")
    coordinator.public.write(tmp_path / "coordinator.pub")
    clock = ManualClock()
    hello = FakeCoordinator(key("agent").public, clock).hello()
    with mosquitto(tmp_path, "allow_anonymous true") as port:
        with Client(options(port)) as client:
            client.expect(Connected)
            client.link.publish(hello.topic, hello.payload, retain=True)
            client.expect(Published)
        arguments = ["--broker", f"mqtt://127.0.0.1:{port}", "--state", str(state)]
        arguments += ["--coordinator-key", str(tmp_path / "coordinator.pub")]
        behind_seconds = 3 * 365 * 24 * 3600
        assert state.stat().st_mtime * 1000 < clock.now.wall_ms, "the fake coordinator lives in our future"
        report = doctor(*arguments)
        assert report.checks["clock"]["status"] == "failed"
        assert report.checks["clock"]["facts"]["coordinator_ahead_at_least_ms"] > 0
        with clock_of(behind_seconds) as prefix:
            later = doctor(*arguments, prefix=prefix)
    assert later.checks["clock"]["status"] == "skipped"
    assert later.checks["coordinator"]["status"] == "ok"

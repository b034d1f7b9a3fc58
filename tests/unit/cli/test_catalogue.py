"""`edge-agent catalogue`, as an operator types it."""

from __future__ import annotations

import io
import json
import re
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import tied
from repositories import digits_files, digits_named

from edge_agent.cli import main
from edge_agent.models.catalogue import public_models
from edge_agent.wire.keys import PublicKey, SigningKey

PASSPHRASE = "correct horse"  # noqa: S105 of keys that this test makes


class Desk:
    """The operator's machine: a folder with a repository, and the command line."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self._capsys = capsys

    def run(self, action: str, *arguments: object, status: int = 0) -> str:
        """Run an action on the repository and return what it printed (or complained)."""
        where = [] if action == "init" else ["--repository", str(self.repository)]
        found = main(["catalogue", action, *map(str, arguments), *where])
        captured = self._capsys.readouterr()
        assert found == status, captured.err
        return captured.out if status == 0 else captured.err

    def json(self, action: str, *arguments: object) -> Any:  # noqa: ANN401 what JSON holds
        """Run an action and return what it says with --json."""
        return json.loads(self.run(action, *arguments, "--json"))

    def init(self, *arguments: object) -> str:
        """Make the repository."""
        return self.run("init", self.repository, *arguments)

    def describe(self, name: str) -> list[str]:
        """Write a family's description; return the arguments that add it with its files."""
        path = self.folder / f"{name}.json"
        path.write_text(digits_named(name).model_dump_json())
        return [str(path), *(text for file in digits_files().values() for text in ("--file", str(file)))]


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A machine without a repository."""
    return Desk(tmp_path, capsys)


def test_init_add_publish_status(desk: Desk) -> None:
    """The way of every day: each step says what comes next, and nothing waits in the end."""
    assert "Next: edge-agent catalogue add" in desk.init()
    assert "Nothing is published yet." in desk.run("status")
    assert "3 variants, 3 of them served from here" in desk.run("add", *desk.describe("club-digits"))
    assert json.loads((desk.repository / "catalogue.json").read_text())["families"][0]["name"] == "club-digits"
    text = desk.run("publish")
    assert text.startswith("Catalogue 1: 1 family, 3 variants.\n")
    assert f"pin {desk.repository / 'root.json'}" in text
    status = desk.json("status")
    assert (status["families"], status["draft"], status["waiting"]) == (["club-digits"], ["club-digits"], [])
    assert {role: found["version"] for role, found in status["signed"].items()} == {
        "root": 1,
        "targets": 1,
        "snapshot": 1,
        "timestamp": 1,
    }


def test_keys_are_for_their_owner_alone(desk: Desk) -> None:
    """Mode 0600 in a folder of mode 0700, none of it below what is served."""
    desk.init()
    keys = sorted((desk.repository / "keys").glob("*.key"))
    assert [path.stem for path in keys] == ["root", "snapshot", "targets", "timestamp"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert stat.S_IMODE((desk.repository / "keys").stat().st_mode) == 0o700
    assert not list((desk.repository / "public").rglob("*.key"))


def test_draft_is_told_apart_from_what_is_published(desk: Desk) -> None:
    """`status` says that agents see another catalogue than the draft."""
    desk.init()
    desk.run("add", *desk.describe("a"))
    desk.run("publish")
    desk.run("add", *desk.describe("b"))
    assert "The draft is another one" in desk.run("status")
    assert "agents have it until you publish" in desk.run("remove", "a")
    assert desk.json("publish")["families"] == ["b"]
    assert "no family" in desk.run("remove", "a", status=65)


def test_encrypted_keys_of_root_and_targets(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """They need their passphrase; the timestamp is refreshed without it, as a timer would."""
    secret = desk.folder / "passphrase"
    secret.write_text(f"{PASSPHRASE}\nnot this\n")
    desk.init("--passphrase-file", secret)
    encrypted = {p.stem for p in (desk.repository / "keys").glob("*.key") if b"ENCRYPTED" in p.read_bytes()}
    assert encrypted == {"root", "targets"}
    desk.run("add", *desk.describe("a"))
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal
    waits = desk.json("publish")
    assert [(w["role"], w["have"], w["need"]) for w in waits["waiting"]] == [("targets", 0, 1)]
    done = desk.json("publish", "--passphrase-file", secret)
    assert (done["families"], done["waiting"]) == (["a"], [])
    assert desk.json("publish")["signed"]["timestamp"]["version"] == 2
    secret.write_text("wrong one\n")
    assert "passphrase is wrong" in desk.run("publish", "--passphrase-file", secret, status=77)


def test_the_passphrase_is_asked_for_at_a_terminal(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice for new keys, and an empty one means to go on without."""
    asked: list[str] = []
    answers = iter([PASSPHRASE, "something else", PASSPHRASE, PASSPHRASE, "", PASSPHRASE, PASSPHRASE, PASSPHRASE])

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return next(answers)

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", answer)
    assert "two different passphrases" in desk.run("init", desk.repository, "--passphrase", status=64)
    assert not (desk.repository / "keys").exists()
    desk.init("--passphrase")
    desk.run("add", *desk.describe("a"))
    assert desk.json("publish")["families"] == ["a"]  # without the root's key, with that of targets
    assert len(asked) == 6
    assert all("root.key" in text or "targets.key" in text for text in asked[4:])


def test_keys_on_two_other_machines_with_a_threshold(desk: Desk) -> None:
    """`keygen` there, `--public-key` here; copies travel, are signed, and are merged again."""
    stick = desk.folder / "stick"
    stick.mkdir()
    for name in ("anna", "bert"):
        SigningKey.generate().write(stick / f"{name}.key")
        SigningKey.from_file(stick / f"{name}.key").public.write(stick / f"{name}.pub")
    keys = [text for name in ("anna", "bert") for text in ("--public-key", f"root={stick / name}.pub")]
    keys += ["--public-key", f"targets={stick / 'anna'}.pub"]
    text = desk.init(*keys, "--threshold", "root=2", "--days", "timestamp=7")
    assert "pending/root.json (version 1) waits for signatures: 0 of 2." in text
    assert {path.stem for path in (desk.repository / "keys").glob("*.key")} == {"snapshot", "timestamp"}
    for name in ("anna", "bert"):
        copy = stick / f"root-{name}.json"
        copy.write_bytes((desk.repository / "pending" / "root.json").read_bytes())
        shown = desk.run("sign", copy, "--key", stick / f"{name}.key")
        assert "root version 1, expires" in shown
        assert PublicKey.from_file(stick / f"{name}.pub").id in shown
        desk.run("sign", "--merge", copy)
    SigningKey.generate().write(stick / "stranger.key")
    assert "Note: " in desk.run("sign", copy, "--key", stick / "stranger.key")
    assert "Note: " not in shown
    desk.run("add", *desk.describe("a"))
    assert [w["role"] for w in desk.json("publish")["waiting"]] == ["targets"]
    assert desk.json("sign", "--key", stick / "anna.key")["waiting"][0]["have"] == 1
    assert desk.json("publish")["families"] == ["a"]


def test_a_copy_shows_the_digest_that_is_signed(desk: Desk) -> None:
    """Whoever signs targets elsewhere can compare the catalogue's digest."""
    desk.init()
    (desk.repository / "keys" / "targets.key").rename(desk.folder / "targets.key")
    desk.run("add", *desk.describe("a"))
    desk.run("publish")
    copy = desk.folder / "copy.json"
    copy.write_bytes((desk.repository / "pending" / "targets.json").read_bytes())
    shown = desk.run("sign", copy, "--key", desk.folder / "targets.key")
    digest = re.search(r"SHA-256 ([0-9a-f]{64})", shown)
    assert digest is not None
    assert (desk.repository / "public" / "targets" / f"{digest[1]}.catalogue.json").exists()


def test_rotate_makes_a_key_in_place_of_another(desk: Desk) -> None:
    """The next publish signs with it, and the old key counts no longer."""
    desk.init()
    desk.run("add", *desk.describe("a"))
    desk.run("publish")
    old = PublicKey.from_file(desk.repository / "keys" / "timestamp.pub").id
    desk.run("rotate", "timestamp", "--new")
    assert {role: found["version"] for role, found in desk.json("publish")["signed"].items()} == {
        "root": 2,
        "targets": 1,
        "snapshot": 1,
        "timestamp": 2,
    }
    root = (desk.repository / "root.json").read_text()
    assert old not in root
    assert PublicKey.from_file(desk.repository / "keys" / "timestamp-2.pub").id in root


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--public-key", "boss=x.pub"], 64, "is not ROLE=VALUE"),
        (["--public-key", "root"], 64, "is not ROLE=VALUE"),
        (["--threshold", "root=two"], 64, "not a whole number"),
        (["--days", "root=0"], 64, "not a whole number"),
        (["--threshold", "root=2"], 64, "would need 2 signatures and has fewer keys"),
        (["--public-key", "root=missing.pub"], 77, "cannot be read"),
    ],
)
def test_a_wrong_init_makes_nothing(desk: Desk, arguments: list[str], status: int, message: str) -> None:
    """Told before the first key is made."""
    assert message in desk.run("init", desk.repository, *arguments, status=status)
    assert not desk.repository.exists()


def test_init_with_the_public_models(desk: Desk) -> None:
    """An operator starts with what is described, and may publish it as it is."""
    assert "families in its draft" in desk.init("--default")
    published = desk.json("publish")
    assert len(published["families"]) == len(public_models().families)
    assert not list((desk.repository / "public" / "sha256").iterdir())


def test_a_second_init_is_refused(desk: Desk) -> None:
    """The keys of the first one stay."""
    desk.init()
    before = (desk.repository / "keys" / "root.key").read_bytes()
    assert "holds a repository already" in desk.run("init", desk.repository, status=64)
    assert (desk.repository / "keys" / "root.key").read_bytes() == before


def test_misuse_is_explained(desk: Desk) -> None:
    """What is missing, and what to give."""
    assert "no catalogue's repository" in desk.run("publish", status=64)
    desk.init()
    assert "Nothing to sign with" in desk.run("sign", status=64)
    assert "Nothing would change" in desk.run("rotate", "root", status=64)
    assert "There is no file" in desk.run("add", "missing.json", status=65)
    assert "There is no file" in desk.run("sign", "--merge", "missing.json", status=65)
    (desk.folder / "bad.json").write_text('{"name": "x"}')
    assert "not the description of a family: title" in desk.run("add", desk.folder / "bad.json", status=65)
    assert "signed with keys that are named" in desk.run("sign", desk.folder / "bad.json", status=64)
    assert "--http 'here'" in desk.run("serve", "--http", "here", status=64)


def test_serve_until_it_is_told_to_stop(desk: Desk) -> None:
    """A process of its own on a free port; what it serves is what was published."""
    desk.init()
    desk.run("add", *desk.describe("a"))
    desk.run("publish")
    ready = desk.folder / "ready"
    command = [sys.executable, "-m", "edge_agent.cli", "catalogue", "serve", "--http", "127.0.0.1:0"]
    command += ["--repository", str(desk.repository), "--ready-file", str(ready), "--log-format", "json"]
    with tied.start(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            first = json.loads(process.stderr.readline())
            url = re.search(r"http://\S+/", first["message"])
            assert url is not None
            with urllib.request.urlopen(f"{url[0]}metadata/timestamp.json") as response:  # noqa: S310 our own server
                assert response.read() == (desk.repository / "public" / "metadata" / "timestamp.json").read_bytes()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert process.returncode == 0

"""Keys that a TPM 2.0 seals, with the software TPM swtpm in the place of the chip."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest
import tied
from broker_processes import free_port

from edge_agent import own_keys
from edge_agent.errors import KeyFileError
from edge_agent.tpm import sealed_file

SOURCE = own_keys.KeySource(tpm=True)
START_SECONDS = 30.0


def ports() -> tuple[int, int]:
    """Return two free ports in a row: tpm2-tools look for the control port behind that of the server."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 1))
            return port, port + 1


@contextlib.contextmanager
def chip(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a TPM with a state of its own, and let tpm2-tools find it."""
    program = needs.tool("swtpm")
    needs.tool("tpm2_create")
    folder.mkdir(exist_ok=True)
    port, control = ports()
    command = [program, "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init,startup-clear"]
    command += ["--server", f"type=tcp,port={port},bindaddr=127.0.0.1,disconnect"]
    command += ["--ctrl", f"type=tcp,port={control},bindaddr=127.0.0.1"]
    process = tied.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + START_SECONDS
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", control), timeout=1):
                break
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)  # asks another process again; the deadline decides
        monkeypatch.setenv("TPM2TOOLS_TCTI", f"swtpm:host=127.0.0.1,port={port}")
        yield
    finally:
        process.kill()
        process.wait()


def test_a_key_comes_back_from_its_chip_and_from_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once, read again after a restart of the chip; a copy of the file on another machine is worth nothing."""
    path = tmp_path / "state" / "agent.key"
    with chip(tmp_path / "here", monkeypatch):
        made = own_keys.signing_key(path, SOURCE)
        sealing = own_keys.sealing_key(path.with_name("sealing.key"), SOURCE)
        assert not path.exists()
        assert sealed_file(path).stat().st_mode & 0o777 == 0o600
    with chip(tmp_path / "here", monkeypatch):
        found = own_keys.signing_key(path)  # whatever the settings say about new keys
        assert found.public == made.public
        assert own_keys.sealing_key(path.with_name("sealing.key")).public == sealing.public
        found.public.verify(found.sign(b"said"), b"said")
    before = sealed_file(path).read_bytes()
    with chip(tmp_path / "elsewhere", monkeypatch), pytest.raises(KeyFileError, match="TPM"):
        own_keys.signing_key(path, SOURCE)
    assert sealed_file(path).read_bytes() == before
    assert not path.exists()


def test_without_a_chip_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key in the clear takes the place of one that was to be sealed."""
    needs.tool("tpm2_create")
    monkeypatch.setenv("TPM2TOOLS_TCTI", f"swtpm:host=127.0.0.1,port={free_port()}")
    with pytest.raises(KeyFileError) as refused:
        own_keys.signing_key(tmp_path / "agent.key", SOURCE)
    assert "tss" in (refused.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_no_chip_sealed_is_refused(tmp_path: Path) -> None:
    """And left as it is."""
    sealed_file(tmp_path / "agent.key").write_bytes(b"\xa0")
    sealed_file(tmp_path / "agent.key").chmod(0o600)
    with pytest.raises(KeyFileError, match="no key that a TPM sealed"):
        own_keys.signing_key(tmp_path / "agent.key")

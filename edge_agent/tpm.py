"""Secret keys sealed by the machine's TPM 2.0, through tpm2-tools: the file is worth nothing on another machine.

A TPM knows no Ed25519. So the 32 secret bytes that a key is made of are sealed to it: its file holds them encrypted
with a key that never leaves the chip, and they are in memory only while the process runs. That keeps a stolen disk or
backup from being an identity. It does not keep whoever is root on the running machine from having it unsealed.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from edge_agent.errors import KeyFileError, MalformedError
from edge_agent.wire import strict_cbor
from edge_agent.wire.key_files import MAX_KEY_FILE_BYTES, read_key_file, write_key_file
from edge_agent.wire.keys import SECRET_SEED_BYTES

SUFFIX: Final = ".tpm"
TOOL_SECONDS: Final = 60.0
_FLUSH: Final = ("tpm2_flushcontext", "-Q", "--transient-object")
_KIND: Final = "tpm2-sealed"
_HINT: Final = "Is the package tpm2-tools installed, and may this user use /dev/tpmrm0 (group tss)?"


def sealed_file(path: Path) -> Path:
    """Return where the sealed form of a key lies: `agent.key.tpm` for `agent.key`."""
    return path.with_name(path.name + SUFFIX)


def make_seed(path: Path) -> bytes:
    """Make 32 secret bytes, seal them to this machine's TPM, keep that as a new file, and return them.

    Raises:
        KeyFileError: there is no TPM that can be used, or the file cannot be written.
    """
    seed = secrets.token_bytes(SECRET_SEED_BYTES)
    with tempfile.TemporaryDirectory(prefix="edge-agent-tpm-") as name:
        folder = Path(name)
        _primary(folder)
        # The seed goes through a pipe: neither a file nor an argument ever holds it.
        _tool(folder, "tpm2_create", "-Q", "-C", "primary", "-i", "-", "-u", "public", "-r", "private", given=seed)
        parts = {"public": (folder / "public").read_bytes(), "private": (folder / "private").read_bytes()}
    write_key_file(sealed_file(path), strict_cbor.encode({"kind": _KIND, "v": 1, **parts}), 0o600)
    return seed


def read_seed(path: Path) -> bytes:
    """Have the TPM unseal the 32 secret bytes of a key.

    Raises:
        KeyFileError: the file is none, is another machine's, or there is no TPM that can be used.
    """
    file = sealed_file(path)
    try:
        fields = strict_cbor.decode(read_key_file(file, secret=True), max_bytes=MAX_KEY_FILE_BYTES)
    except MalformedError as error:
        raise KeyFileError(f"{file} is no key that a TPM sealed.") from error
    if not isinstance(fields, dict) or fields.keys() != {"kind", "v", "public", "private"} or fields["kind"] != _KIND:
        raise KeyFileError(f"{file} is no key that a TPM sealed.")
    with tempfile.TemporaryDirectory(prefix="edge-agent-tpm-") as name:
        folder = Path(name)
        for part in ("public", "private"):
            if not isinstance(fields[part], bytes):
                raise KeyFileError(f"{file} is no key that a TPM sealed.")
            (folder / part).write_bytes(fields[part])
        _primary(folder)
        _tool(folder, "tpm2_load", "-Q", "-C", "primary", "-u", "public", "-r", "private", "-c", "sealed")
        seed = _tool(folder, "tpm2_unseal", "-Q", "-c", "sealed")
    if len(seed) != SECRET_SEED_BYTES:
        raise KeyFileError(f"{file} unseals to {len(seed)} bytes, not {SECRET_SEED_BYTES}.")
    return seed


def _primary(folder: Path) -> None:
    """Make the storage key of the owner's hierarchy again: the same one each time, on the same chip."""
    _tool(folder, "tpm2_createprimary", "-Q", "-C", "o", "-g", "sha256", "-G", "ecc", "-c", "primary")


def _tool(folder: Path, *command: str, given: bytes = b"") -> bytes:
    try:
        done = subprocess.run(
            command, cwd=folder, input=given, capture_output=True, timeout=TOOL_SECONDS, check=False, env=_environment()
        )
    except FileNotFoundError as error:
        raise KeyFileError(f"{command[0]} is not there, which keys sealed by a TPM need.", hint=_HINT) from error
    except subprocess.TimeoutExpired as error:
        raise KeyFileError(f"The TPM does not answer: {command[0]} took longer than {TOOL_SECONDS:g} s.") from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        said = next((line for line in lines if "ERROR" in line or "error" in line), lines[-1] if lines else "no reason")
        raise KeyFileError(f"The TPM does not do it: {command[0]}: {said[:200]}", hint=_HINT)
    if command[0] != _FLUSH[0]:  # a chip has room for three objects, and without a resource manager nobody clears it
        _tool(folder, *_FLUSH)
    return done.stdout


def _environment() -> dict[str, str]:
    wanted = ("PATH", "TPM2TOOLS_TCTI", "TCTI")
    return {name: os.environ[name] for name in wanted if name in os.environ}

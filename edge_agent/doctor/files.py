"""Checks of what lies on this machine's disk: settings, keys, the state directory, the spool, the models."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.agent.spooling import SPOOL_FILE
from edge_agent.doctor.findings import Finding, SkipCheck, failed, ok, warning
from edge_agent.errors import EdgeAgentError, KeyFileError, StateError
from edge_agent.folders import LOCK_FILE
from edge_agent.inference import containment
from edge_agent.models.content import Content
from edge_agent.models.store import Store
from edge_agent.own_keys import existing_signing_key, source_of
from edge_agent.wire.keys import PublicKey

if TYPE_CHECKING:
    from edge_agent.doctor.context import Context

MIB = 1024 * 1024
LEAST_FREE_BYTES = MIB
COMFORTABLE_FREE_BYTES = 64 * MIB


def settings(context: Context) -> Finding:
    """The settings can be read, and nobody else may change them."""
    effective = context.effective
    file = effective.file
    changed = sum(1 for source in effective.sources.values() if source != "default")
    where = f"from {file}" if file else "without a file"
    if file is not None and file.stat().st_mode & stat.S_IWOTH:
        return warning(f"everybody may change {file}", f"chmod o-w {file}")
    effective.settings.broker.read_password()
    facts = {"file": str(file) if file else None, "changed": changed}
    return ok(f"{where}, {changed} set, the others by default", facts)


def keys(context: Context) -> Finding:
    """Our key is ours alone, and the coordinator's is there to be pinned."""
    own = context.settings.agent
    if not own.coordinator_key_file.exists():
        raise KeyFileError(
            f"the coordinator's public key {own.coordinator_key_file} is not there",
            hint="Enrol with a token of the operator: edge-agent enrol URL TOKEN. Or copy coordinator.pub from the "
            "coordinator's state directory, and name it with --coordinator-key FILE.",
        )
    pinned = PublicKey.from_file(own.coordinator_key_file)
    _check_secret_files(context)
    key = existing_signing_key(own.key_file, source_of(context.settings))
    if key is None:
        return ok(f"the coordinator {pinned.id} is pinned; our own key is made at the first start")
    facts = {"agent": key.public.id, "coordinator": pinned.id}
    return ok(f"we are {key.public.id}, and the coordinator {pinned.id} is pinned", facts)


def _check_secret_files(context: Context) -> None:
    broker = context.settings.broker
    for path in (broker.password_file, broker.client_key_file):
        if path is not None and path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise KeyFileError(f"others may read or change {path}", hint=f"chmod 600 {path}")


def state(context: Context) -> Finding:
    """The state directory is ours, can be written, and has room."""
    folder = context.settings.agent.state_dir
    if not folder.exists():
        parent = next(parent for parent in folder.parents if parent.exists())
        if os.access(parent, os.W_OK):
            return ok(f"{folder} is made at the first start")
        return failed(f"{folder} is not there, and {parent} may not be written", "Choose another with --state DIR.")
    if not folder.is_dir():
        return failed(f"{folder} is no folder", "Choose another one with --state DIR.", "state")
    problem = _why_not_writable(folder)
    if problem:
        mend = "Mount it writable, make room, or choose another one with --state DIR; an agent goes on without it."
        return failed(f"nothing can be written to {folder}: {problem}", mend, "state")
    if folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warning(f"others may look into {folder}", f"chmod 700 {folder}")
    return _room(context, folder)


def _why_not_writable(folder: Path) -> str:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _room(context: Context, folder: Path) -> Finding:
    free, used = _free_bytes(folder), in_use(folder)
    comfortable = context.settings.agent.spool_bytes + COMFORTABLE_FREE_BYTES
    text = f"{folder} can be written, {_size(free)} free; {'an agent' if used else 'no agent'} runs on it now"
    facts = {"folder": str(folder), "free_bytes": free, "in_use": used}
    if free < LEAST_FREE_BYTES:
        return failed(text, "Make room on this disk.", "state", facts)
    if free < comfortable:
        return warning(
            text, f"Make room, or lower agent.spool_bytes: {_size(comfortable)} would be comfortable.", facts
        )
    return ok(text, facts)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def in_use(folder: Path) -> bool:
    """Whether another process holds the lock; it is not taken away for longer than it takes to look."""
    with contextlib.suppress(OSError), (folder / LOCK_FILE).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def spool(context: Context) -> Finding:
    """The results on disk can be read."""
    from edge_agent.agent.spool import DamagedError, survey  # noqa: PLC0415 SQLite is needed here alone

    folder = context.settings.agent.state_dir
    path = folder / SPOOL_FILE
    aside = sorted(file.name for file in folder.glob(f"{SPOOL_FILE}.damaged-*") if not file.name.endswith("-journal"))
    if not path.exists():
        found = ok("there is none: no result has needed it yet", {"results": 0})
    else:
        try:
            results, size = survey(path)
        except DamagedError as error:
            mend = f"The next start sets it aside; or remove {path}: its results are computed again."
            return failed(f"{path} is damaged: {error}", mend, "state")
        except StateError as error:
            return failed(error.message, error.hint, error.error_code)
        found = ok(f"{results} unsettled results, {_size(size)}", {"results": results, "payload_bytes": size})
    if aside:
        text = f"{found.found}; set aside as damaged: {', '.join(aside)}"
        return warning(text, "Is the disk failing? Remove these files once you have looked.", found.facts)
    return found


def models(context: Context) -> Finding:
    """The files of what may be served here have the digests that the catalogue names."""
    patterns = context.settings.agent.families
    content = Content(context.settings.models.dir)
    store = Store(content=content)
    from edge_agent.agent.policy import Policy  # noqa: PLC0415 the owner's rules are needed here alone

    policy = Policy(families=patterns)
    verified, absent = 0, 0
    for family in context.catalogue.families:
        if policy.refuses_family(family.name) is not None:
            continue
        for variant in family.variants:
            if not store.has(variant):
                absent += 1
                continue
            try:
                os.close(store.open_variant(variant))
            except EdgeAgentError as error:
                return failed(error.message, error.hint, error.error_code)
            verified += 1
    if not verified:
        raise SkipCheck("no model that may be served here is on this machine; see `edge-agent models pull`")
    more = f"; {absent} more can be fetched" if absent else ""
    copies = sum(content.optimised().values())
    more += f"; {copies / 1e6:.1f} MB of optimised copies" if copies else ""
    why = containment.no_copies() if context.settings.models.optimised == "on" else "models.optimised is off"
    more += f"; no optimised copies are made here: {why}" if why else ""
    facts = {"verified": verified, "absent": absent, "optimised_bytes": copies, "no_copies": why or None}
    return ok(f"{verified} files are what the catalogue says{more}", facts)


def _size(count: int) -> str:
    return f"{count / MIB:.0f} MiB" if count < 10 * 1024 * MIB else f"{count / 1024 / MIB:.0f} GiB"

"""A new key in the place of an agent's old one: agreed with the coordinator first, then put in its place.

The new keys lie beside the old ones as `agent.next.key` and `sealing.next.key` until the coordinator has said that they
count. Whatever is interrupted, at whatever step, is taken up again with the same ones: the signing key is made last and
put in its place last.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edge_agent.enrolling.asking import MAX_ANSWER_BYTES
from edge_agent.enrolling.keeping import keep_certificates
from edge_agent.enrolling.ways import Way
from edge_agent.errors import KeyFileError, PeerError, RefusedError, TransportError
from edge_agent.own_keys import AgentKeys, KeySource, existing_signing_key, place, publish, sealing_key, signing_key
from edge_agent.settings import Settings
from edge_agent.tpm import sealed_file
from edge_agent.wire.envelope import open_envelope
from edge_agent.wire.identity import Enrolled
from edge_agent.wire.key_files import write_key_file
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.successions import make

ASK_SECONDS = 5.0
TRIES = 6
_HINTS = {
    "key-known": "Move agent.next.key and agent.next.pub away, and run this again: new ones are made.",
    "key-too-new": "Run this again tomorrow; the new key lies ready. Is the key stolen? Have the operator revoke it.",
    "too-many-keys": "The agent works on with its key. To change it, ask the operator for a token, and enrol anew.",
}


@dataclass(frozen=True, slots=True)
class Rotation:
    """One change of keys.

    Attributes:
        settings: the agent's.
        source: how key files are opened.
        old: the keys that count now.
        coordinator: the pinned key.
    """

    settings: Settings
    source: KeySource
    old: AgentKeys
    coordinator: PublicKey

    def next_keys(self) -> AgentKeys:
        """Make the new keys, or take up those of an attempt that was cut short.

        Raises:
            KeyFileError: the old ones lie where they cannot be replaced, or the new ones cannot be written.
        """
        own = self.settings.agent
        for path in (own.key_file, own.sealing_key_file):
            if place(path, self.source) != path:
                raise KeyFileError(
                    f"{place(path, self.source)} is a credential of the service, which cannot be replaced from here.",
                    hint="Move the key into a file for the change, or enrol anew with a new credential.",
                )
        signing_file, sealing_file = _next(own.key_file), _next(own.sealing_key_file)
        begun = existing_signing_key(signing_file, self.source)
        if begun is not None and begun.public == self.old.signing.public:
            _drop(signing_file)  # it is in its place; only this was left to do
        elif begun is not None and not any(form.exists() for form in _forms(sealing_file)):
            return AgentKeys(begun, self.old.sealing)  # the sealing key is in its place already
        sealing = sealing_key(sealing_file, self.source)
        return AgentKeys(signing_key(signing_file, self.source), sealing)

    def ask(self, way: Way, new: AgentKeys, now_ms: int) -> Enrolled:
        """Have the coordinator agree.

        Raises:
            TransportError: it gives no answer.
            RefusedError: it does not agree; its code says why.
        """
        network = self.settings.network.name
        said = make(self.old.signing, new.signing, network=network, new_sealing_key=new.sealing.public, now_ms=now_ms)
        for _ in range(TRIES):
            for data in way.ask(said, ASK_SECONDS):
                try:
                    answer = open_envelope(
                        data, self.coordinator, Enrolled, network=network, max_bytes=MAX_ANSWER_BYTES
                    ).statement
                except PeerError:
                    continue  # an older answer, or somebody in between
                if answer.agent_id != new.signing.public.id:
                    continue
                if answer.state == "refused":
                    code = answer.code if answer.code in RefusedError.codes else None
                    raise RefusedError(
                        f"The coordinator refuses the new key: {answer.code}.", code=code, hint=_HINTS.get(code or "")
                    )
                if answer.state == "admitted":
                    return answer
            time.sleep(0.5)
        raise TransportError("The coordinator does not answer.", code="timeout", hint="The old key counts still.")

    def put_in_place(self, said: Enrolled, new: AgentKeys) -> None:
        """Replace the old keys by the new ones, which `next_keys` returned.

        Raises:
            KeyFileError: that cannot be done; it can be tried again.
        """
        own = self.settings.agent
        try:
            keep_certificates(own.state_dir, said)
            _swap(_next(own.sealing_key_file), own.sealing_key_file)
            publish(new.signing.public, own.key_file)
            _next(own.key_file).with_suffix(".pub").unlink(missing_ok=True)
            _swap(_next(own.key_file), own.key_file)
        except OSError as error:
            raise KeyFileError(
                f"The new keys cannot be put in place: {error.strerror}.",
                hint="Run this again: they lie beside the old.",
            ) from error


def _swap(new: Path, old: Path) -> None:
    """Put a key in the place of another, in whatever form each lies there: what is sealed counts before what is not."""
    (plain, sealed), (new_plain, new_sealed) = _forms(old), _forms(new)
    if new_sealed.exists():
        new_sealed.replace(sealed)
        plain.unlink(missing_ok=True)
    elif new_plain.exists() and sealed.exists():  # two files change: the new one stays until both have
        plain.unlink(missing_ok=True)
        write_key_file(plain, new_plain.read_bytes(), 0o600)
        sealed.unlink()
        new_plain.unlink()
    elif new_plain.exists():
        new_plain.replace(plain)


def _drop(key_file: Path) -> None:
    for file in (*_forms(key_file), key_file.with_suffix(".pub")):
        file.unlink(missing_ok=True)


def _forms(key_file: Path) -> tuple[Path, Path]:
    return key_file, sealed_file(key_file)


def _next(path: Path) -> Path:
    return path.with_name(f"{path.stem}.next{path.suffix}")

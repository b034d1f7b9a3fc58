"""A change of keys that is killed at each of its steps: the next run goes on with the very same keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import COORDINATOR_KEY, NETWORK, START_MS

from edge_agent import tpm
from edge_agent.enrolling.rotation import Rotation
from edge_agent.own_keys import PLAIN, AgentKeys, KeySource, agent_keys, sealing_key, signing_key
from edge_agent.settings import Settings, load
from edge_agent.tpm import sealed_file
from edge_agent.wire.identity import Enrolled
from edge_agent.wire.keys import PublicKey

STEPS = ("replace", "unlink", "open")


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """End before the change of a file with this number, from 0."""
    left = step

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401 as the real ones
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patched:
        for name in STEPS:
            patched.setattr(os, name, counted(getattr(os, name)))
        yield


def settings_in(folder: Path) -> Settings:
    """Of an agent whose state is kept here."""
    values = {"agent.state_dir": folder, "network.name": NETWORK}
    return load(None, {"HOME": str(folder)}, values).settings


def admitted(new: AgentKeys) -> Enrolled:
    """The coordinator's answer."""
    nothing = dict.fromkeys(("code", "commitment", "nonce", "x509", "registrar_key", "broker_url", "broker_ca"))
    return Enrolled(
        network=NETWORK,
        issued_ms=START_MS,
        agent_id=new.signing.public.id,
        coordinator_key=COORDINATOR_KEY.public.raw,
        state="admitted",
        certificate=b"certificate",
        **nothing,
    )


def publics(keys: AgentKeys) -> tuple[bytes, bytes]:
    """What can be compared of keys."""
    return keys.signing.public.raw, keys.sealing.public


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TPM that seals nothing: what matters here is which file counts."""

    def make_seed(path: Path) -> bytes:
        seed = os.urandom(32)
        sealed_file(path).write_bytes(seed)
        return seed

    monkeypatch.setattr(tpm, "make_seed", make_seed)
    monkeypatch.setattr(tpm, "read_seed", lambda path: sealed_file(path).read_bytes())


@pytest.mark.usefixtures("chip")
@pytest.mark.parametrize("was_sealed", [False, True], ids=["from-file", "from-tpm"])
@pytest.mark.parametrize("is_sealed", [False, True], ids=["to-file", "to-tpm"])
def test_rotation_killed_at_each_step_goes_on(tmp_path: Path, was_sealed: bool, is_sealed: bool) -> None:  # noqa: FBT001 the forms
    """The new keys end up in their place, the public half beside them, and nothing else is left."""
    step, finished = 0, False
    while not finished:
        folder = tmp_path / str(step)
        here = settings_in(folder)
        own, source = here.agent, KeySource(tpm=is_sealed)
        old = _made(here, KeySource(tpm=was_sealed))
        new = Rotation(here, source, old, COORDINATOR_KEY.public).next_keys()
        try:
            with killed_at(step):
                Rotation(here, source, old, COORDINATOR_KEY.public).put_in_place(admitted(new), new)
            finished = True
        except Killed:
            now = agent_keys(here)
            assert now.signing.public in {old.signing.public, new.signing.public}
            again = Rotation(here, source, now, COORDINATOR_KEY.public)
            if now.signing.public == old.signing.public:
                same = again.next_keys()
                assert publics(same) == publics(new)
                again.put_in_place(admitted(same), same)
        assert publics(agent_keys(here)) == publics(new)
        assert PublicKey.from_file(own.key_file.with_suffix(".pub")) == new.signing.public
        step += 1
    assert step > 5
    assert [file.name for file in folder.glob("*.next.*")] == []


def _made(settings: Settings, source: KeySource) -> AgentKeys:
    own = settings.agent
    return AgentKeys(signing_key(own.key_file, source), sealing_key(own.sealing_key_file, source))


def test_new_keys_that_are_in_place_already_are_not_taken_for_new_ones(tmp_path: Path) -> None:
    """What is left of a finished change is cleared away: a key cannot follow itself."""
    settings = settings_in(tmp_path)
    old = agent_keys(settings)
    left = settings.agent.key_file.with_name("agent.next.key")
    left.write_bytes(settings.agent.key_file.read_bytes())
    left.chmod(0o600)
    new = Rotation(settings, PLAIN, old, COORDINATOR_KEY.public).next_keys()
    assert new.signing.public != old.signing.public
    assert new.sealing.public != old.sealing.public

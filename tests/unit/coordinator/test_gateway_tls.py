"""The gateway over TLS, with certificates that are renewed, and what its upkeep does with the database."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from certificates import issuer
from gateways import FakeService

from edge_agent.clock import system_now
from edge_agent.coordinator.access import KeyRecord, Scope
from edge_agent.coordinator.gateway import keeping
from edge_agent.coordinator.gateway.front import Front
from edge_agent.coordinator.gateway.server import listen
from edge_agent.coordinator.gateway.tls import Certificate
from edge_agent.coordinator.key_table import add_key, new_token, read_keys, read_usage, revoke_keys
from edge_agent.coordinator.store import Store
from edge_agent.errors import SettingsError
from edge_agent.settings import load


def test_files_that_are_no_use_are_told_at_the_start(tmp_path: Path) -> None:
    """Missing, of another pair, or no PEM."""
    issue = issuer(tmp_path)
    one, other = issue("one"), issue("other")
    nothing = tmp_path / "nothing"
    for cert, key in ((nothing, one.key), (one.cert, other.key), (one.key, one.cert)):
        with pytest.raises(SettingsError, match="no use"):
            Certificate(cert, key)


def test_a_renewal_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    """Told once; the next pair that fits is taken."""
    issue = issuer(tmp_path)
    one, other = issue("one"), issue("other")
    cert, key = tmp_path / "cert", tmp_path / "key"
    shutil.copy(one.cert, cert)
    shutil.copy(one.key, key)
    made = Certificate(cert, key)
    assert not made.renew()
    cert.unlink()
    shutil.copy(other.cert, cert)
    with pytest.raises(SettingsError):
        made.renew()
    assert not made.renew()
    key.unlink()
    shutil.copy(other.key, key)
    assert made.renew()


def test_files_that_go_while_they_are_taken_over_are_told_and_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the try and the use: whoever looks after the certificate must not end on it."""
    issue = issuer(tmp_path)
    one, other = issue("one"), issue("other")
    cert, key = tmp_path / "cert", tmp_path / "key"
    shutil.copy(one.cert, cert)
    shutil.copy(one.key, key)
    made = Certificate(cert, key)
    shutil.copy(other.cert, cert)
    shutil.copy(other.key, key)
    with monkeypatch.context() as patched:
        tried = made._loaded

        def tried_then_gone() -> ssl.SSLContext:
            context = tried()
            key.unlink()
            return context

        patched.setattr(made, "_loaded", tried_then_gone)
        with pytest.raises(SettingsError, match="no use"):
            made.renew()
    shutil.copy(other.key, key)
    assert made.renew()


def test_keys_and_certificates_change_while_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is added is let in, one that is revoked is not; a new certificate is shown; calls are written down."""
    monkeypatch.setattr(keeping, "POLL_SECONDS", 0.01)
    issue = issuer(tmp_path)
    authority = issue("authority")
    first, second = issue("first", authority), issue("second", authority)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    shutil.copy(first.cert, cert)
    shutil.copy(first.key, key)
    flags = {
        "coordinator.http": "127.0.0.1:0",
        "coordinator.state_dir": str(tmp_path),
        "gateway.auth": "required",
        "gateway.tls_cert_file": str(cert),
        "gateway.tls_key_file": str(key),
    }
    settings = load(None, {"HOME": str(tmp_path)}, flags).settings
    key_id, token, digest = new_token()
    record = KeyRecord(key_id, "ada", digest, frozenset({Scope.INFER}), 0, 1000, 1000)

    async def script(store: Store) -> None:
        front, stop, ready = Front(settings, store), asyncio.Event(), asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(
            front.serve(front.app(FakeService()), listen("127.0.0.1", 0), stop, ready.set_result)
        )
        base_url = await ready
        assert base_url.startswith("https://")

        async def shown() -> tuple[int, str]:
            trust = ssl.create_default_context(cafile=str(authority.cert))
            headers = {"Authorization": f"Bearer {token}"}
            async with (
                httpx.AsyncClient(verify=trust, headers=headers) as client,
                client.stream("GET", f"{base_url}/v2/models/digits") as answer,
            ):
                seen = answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert()
                return answer.status_code, seen["subject"][0][0][1]

        async def until(expected: tuple[int, str]) -> None:
            async with asyncio.timeout(30):
                while await shown() != expected:  # noqa: ASYNC110 another process's database gives no event
                    await asyncio.sleep(0.01)

        assert await shown() == (401, "first")
        await asyncio.to_thread(store.write, lambda connection: add_key(connection, record))
        await until((200, "first"))
        shutil.copy(second.key, key)
        shutil.copy(second.cert, cert)
        await until((200, "second"))
        await asyncio.to_thread(store.write, lambda connection: revoke_keys(connection, "ada", 5))
        await until((401, "second"))
        stop.set()
        await serving

    with closing(Store(settings.coordinator.database)) as store:
        asyncio.run(script(store))
        usage = store.read(lambda connection: read_usage(connection, system_now().wall_ms // 86_400_000))
        assert usage["ada"].requests >= 2
        assert store.read(read_keys) == [replace(record, revoked_ms=5)]

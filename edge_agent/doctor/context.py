"""What the checks share: the settings, the machine, and one visit to the broker."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from edge_agent.connection import link_options
from edge_agent.doctor.findings import SkipCheck
from edge_agent.doctor.visit import Visit, visit
from edge_agent.doctor.worker import Trial, start
from edge_agent.errors import EdgeAgentError
from edge_agent.own_keys import existing_signing_key
from edge_agent.own_keys import source_of as key_source_of
from edge_agent.published import known_now, source_of
from edge_agent.settings import Effective, Settings
from edge_agent.wire.keys import PublicKey, SigningKey
from hardware import Profile, profile

if TYPE_CHECKING:
    from edge_agent.models.catalogue import Catalogue

CLIENT_ID_BYTES = 8


class Context:
    """Reads each thing once, when the first check asks for it.

    Args:
        read_settings: reads the settings; may raise.
        random_bytes: makes what must not be guessed or repeat, of this length.
    """

    def __init__(self, read_settings: Callable[[], Effective], random_bytes: Callable[[int], bytes]) -> None:
        self._read_settings = read_settings
        self.random_bytes = random_bytes

    @cached_property
    def effective(self) -> Effective:
        """The settings and where they came from.

        Raises:
            SettingsError: one is wrong.
        """
        return self._read_settings()

    @property
    def settings(self) -> Settings:
        """The settings, for the checks that need them.

        Raises:
            SkipCheck: they cannot be read, which another check says.
        """
        try:
            return self.effective.settings
        except EdgeAgentError:
            raise SkipCheck("the settings cannot be read") from None

    @cached_property
    def machine(self) -> Profile:
        """What the machine is."""
        return profile()

    @cached_property
    def catalogue(self) -> Catalogue:
        """What may be served, as far as it is known here: nobody is asked for news.

        Raises:
            StateError: the program's own files are damaged.
        """
        settings = self.settings
        return known_now(source_of(settings, settings.agent.state_dir)).served

    @cached_property
    def key(self) -> SigningKey | None:
        """The agent's key, if it is there and can be used."""
        try:
            return existing_signing_key(self.settings.agent.key_file, key_source_of(self.settings))
        except EdgeAgentError:
            return None

    @cached_property
    def coordinator_key(self) -> PublicKey | None:
        """The pinned key, if it is there and can be used."""
        path = self.settings.agent.coordinator_key_file
        try:
            return PublicKey.from_file(path) if path.exists() else None
        except EdgeAgentError:
            return None

    @cached_property
    def worker(self) -> Trial:
        """What came of starting a worker."""
        return start()

    @cached_property
    def visit(self) -> Visit:
        """What came of one connection to the broker, under a name of its own: a running agent keeps its connection.

        Raises:
            EdgeAgentError: there is none; the message says why.
        """
        settings = self.settings
        client_id = f"ea1-doctor-{self.random_bytes(CLIENT_ID_BYTES).hex()}"
        options = link_options(settings, client_id)
        return visit(
            options,
            network=settings.network.name,
            key=self.key,
            coordinator_key=self.coordinator_key,
            random_bytes=self.random_bytes,
        )

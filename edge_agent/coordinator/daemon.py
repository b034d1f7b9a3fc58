"""The coordinator as a process: sockets, clock, threads and database around the sans-IO core.

One asyncio loop runs the core and the HTTP gateway. The link's network thread and the store's writer thread only
hand things over to it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from edge_agent.clock import system_now
from edge_agent.coordinator.clients import Clients
from edge_agent.coordinator.core import Core
from edge_agent.coordinator.events import (
    AgentsChanged,
    BrokerConnected,
    BrokerDisconnected,
    CancelJob,
    Command,
    Commit,
    Event,
    JobStored,
    MessageReceived,
    Outcome,
    Publish,
    Submit,
    SubmitRefused,
    Tick,
)
from edge_agent.coordinator.idempotency import MAX_KNOWN
from edge_agent.coordinator.inbox import Inbox
from edge_agent.coordinator.leasing import Rules
from edge_agent.coordinator.registry import Registry
from edge_agent.coordinator.requests import check_inputs, ordered, request_digest
from edge_agent.coordinator.service import Accepted
from edge_agent.coordinator.statements import Statements
from edge_agent.coordinator.store import Store, StoredAgent, StoredJob
from edge_agent.coordinator.writer import Writer
from edge_agent.errors import EdgeAgentError, StateError, TransportError
from edge_agent.models.catalogue import Catalogue
from edge_agent.mqtt import Connected, Disconnected, Link, LinkEvent, LinkOptions, Message
from edge_agent.notes import Journal, Note
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.tensors import Tensor
from edge_agent.wire.topics import Topics

log = logging.getLogger("edge_agent.coordinator")

ADMISSION_POLL_SECONDS = 1.0
RETENTION_SWEEP_SECONDS = 60.0
LINK_STOP_SECONDS = 2.0
ANSWER_SECONDS = 2.0
"""When we are told to stop, jobs that clients wait for may end so long; then the clients are told to come again."""
WRITER_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a coordinator runs with; made from the settings by the command line."""

    network: str
    link: LinkOptions
    rules: Rules
    admit_anyone: bool
    job_deadline_seconds: float
    retention_seconds: float


class Coordinator:
    """A running coordinator; implements `service.Service` for the gateway.

    Args:
        options: limits and times.
        key: signs jobs, hellos and receipts.
        store: the open database.
        catalogue: what may be asked for.
    """

    def __init__(self, options: Options, key: SigningKey, store: Store, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.network = options.network
        self.public_key: PublicKey = key.public
        self._journal = Journal(log)
        self.failure: EdgeAgentError | None = None
        self._options = options
        self._store = store
        self._topics = Topics(options.network)
        self._core = Core(
            statements=Statements(key, self._topics),
            catalogue=catalogue,
            registry=Registry(admit_anyone=options.admit_anyone),
            rules=options.rules,
        )
        self._clients = Clients()
        self._timer: asyncio.TimerHandle | None = None
        self._stop = asyncio.Event()

    # -- life -----------------------------------------------------------------------------------------------------

    async def run(self, serve_http: Callable[[asyncio.Event], asyncio.Future[None]]) -> None:
        """Run until SIGTERM, SIGINT or a failure that only a restart mends.

        Args:
            serve_http: starts the gateway and ends it when the given event is set.

        Raises:
            StateError: the database could not be written.
            EdgeAgentError: what the gateway raised.
        """
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        await asyncio.to_thread(self._restore)
        self._writer = Writer(self._store, self._on_committed, self._on_write_failed)
        self._writer.start()
        self._schedule()  # the deadlines of restored jobs hold also while there is no broker
        subscriptions = [self._topics.all_agents(c) for c in ("birth", "gone", "offers", "progress", "results")]
        inbox = Inbox(
            self._loop,
            self._on_link_event,
            max_messages=self._options.link.inbox_messages,
            dropped=lambda: self._journal.counters.update(["inbox-full"]),
        )
        # No will: agents learn from their leases, not from us, when we are away.
        rng = random.Random(os.urandom(16))  # noqa: S311 jitter, not a secret
        self._link = Link(self._options.link, subscriptions, inbox.put, will=lambda: None, rng=rng, log=log)
        self._link.start()
        sweeps = asyncio.create_task(self._sweep())
        http = asyncio.ensure_future(serve_http(self._stop))
        http.add_done_callback(lambda _: self._stop.set())
        try:
            await self._stop.wait()
        finally:
            sweeps.cancel()
            patience = self._loop.call_later(0.0 if self.failure else ANSWER_SECONDS, self._clients.turn_away)
            await asyncio.wait([http])
            patience.cancel()
            await asyncio.to_thread(self._link.stop, LINK_STOP_SECONDS)
            await asyncio.to_thread(self._writer.stop, WRITER_STOP_SECONDS)
            self._store.close()
        if self.failure is not None:
            raise self.failure
        http.result()

    def _restore(self) -> None:
        """Take over what the database says had not ended."""
        now = system_now()
        served = self._store.served_families()
        registry = self._core.registry
        for agent in self._store.agents():
            if agent.public_key is not None:
                families = served.get(agent.id, set())
                key = PublicKey.from_bytes(agent.public_key)
                registry.restore(agent.id, key, agent.session, families, now.monotonic)
        registry.approved = self._approved(self._store.agents())
        open_jobs = self._store.open_jobs(
            monotonic=now.monotonic, wall_ms=now.wall_ms, lease_seconds=self._options.rules.lease_seconds
        )
        for job in open_jobs:
            self._core.leasing.add(job)
        for key_text, job_id, digest in self._store.requests(MAX_KNOWN + 1):
            self._core.requests.remember(key_text, job_id, digest)
        if open_jobs:
            log.info("Took over jobs that had not ended", extra={"action": "restored", "jobs": len(open_jobs)})

    @staticmethod
    def _approved(agents: Sequence[StoredAgent]) -> frozenset[str]:
        return frozenset(agent.id for agent in agents if agent.approved)

    async def _sweep(self) -> None:
        """Notice what the operator's command changed, and forget what is older than the retention."""
        next_retention = 0.0
        while True:
            try:
                approved = self._approved(await asyncio.to_thread(self._store.agents))
                if approved != self._core.registry.approved:
                    self._apply(AgentsChanged(approved))
                if self._loop.time() >= next_retention:
                    next_retention = self._loop.time() + RETENTION_SWEEP_SECONDS
                    before = system_now().wall_ms - int(self._options.retention_seconds * 1000)
                    self._core.requests.forget(await asyncio.to_thread(self._store.forget_ended_before, before))
            except Exception as error:  # noqa: BLE001 it is tried again, and what it looks after must not end silently
                text = f"Could not look after the database: {error}"
                self._journal.write(Note(logging.ERROR, text, "sweep-failed"), system_now().monotonic)
            await asyncio.sleep(ADMISSION_POLL_SECONDS)

    # -- events in ------------------------------------------------------------------------------------------------

    def _on_link_event(self, event: LinkEvent) -> None:
        match event:
            case Message():
                self._apply(MessageReceived(event.topic, bytes(event.payload)))
            case Connected():
                try:
                    session = self._store.next_session(system_now().wall_ms)
                except StateError as error:
                    self._give_up(error)
                else:
                    self._apply(BrokerConnected(session))
            case Disconnected():
                self._apply(BrokerDisconnected(event.reason))
            case _:  # the link itself logs what else happens to it
                pass

    def _apply(self, event: Event) -> None:
        try:
            self._execute(self._core.handle(event, system_now()))
        except Exception as error:
            log.exception("A defect while handling %s", type(event).__name__, extra={"action": "defect"})
            self._journal.counters["defect"] += 1
            if not isinstance(event, MessageReceived):  # which must not let a stranger end us
                self._give_up(EdgeAgentError(f"something went wrong that should not be able to: {error!r}"))
        self._schedule()

    def _give_up(self, reason: EdgeAgentError) -> None:
        """End the process, because only a fresh start from the database mends this."""
        self.failure = self.failure or reason
        self._stop.set()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._core.next_deadline()
        if deadline is not None:
            delay = max(0.0, deadline - system_now().monotonic)
            self._timer = self._loop.call_later(delay, self._apply, Tick())

    # -- commands out ---------------------------------------------------------------------------------------------

    def _execute(self, commands: Sequence[Command]) -> None:
        for command in commands:
            match command:
                case Publish():
                    self._publish(command)
                case Commit():
                    self._writer.write(command)
                case Note():
                    self._journal.write(command, system_now().monotonic)
                case JobStored():
                    self._clients.accept(command.ticket, Accepted(command.job_id, command.repeated))
                case SubmitRefused():
                    self._journal.counters[f"submit-refused:{command.code}"] += 1
                    self._clients.refuse(command)
                case Outcome():
                    self._clients.tell(command)
                    self._journal.counters[f"jobs-{command.state}"] += 1

    def _publish(self, command: Publish) -> None:
        try:
            self._link.publish(command.topic, command.payload, retain=command.retain)
        except (TransportError, EdgeAgentError) as error:
            # Leases, births and redelivery make up for it.
            self._journal.counters[f"publish-{error.error_code}"] += 1
            log.debug("Not published: %s", error.message, extra={"action": "publish", "code": error.error_code})

    def _on_committed(self, group: Sequence[Commit]) -> None:
        then = [command for commit in group for command in commit.then]
        if then:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._execute, then)

    def _on_write_failed(self, error: Exception) -> None:
        reason = StateError(
            f"the database {self._store.path} cannot be written: {getattr(error, 'orig', error)}",
            hint="Look at the disk (full? read-only?), then start the coordinator again; it takes over what is stored.",
        )
        with suppress(RuntimeError):  # as above
            self._loop.call_soon_threadsafe(self._give_up, reason)

    # -- service for the gateway ------------------------------------------------------------------------------------

    @property
    def counters(self) -> Mapping[str, int]:
        """How often each thing happened, by its action and code."""
        return self._journal.counters

    @property
    def ready(self) -> bool:
        """Whether the broker is connected."""
        return self._core.connected

    def offered(self, family: str) -> bool:
        """Whether a machine offers this family now."""
        return bool(self._core.registry.offering(family))

    async def submit(  # noqa: PLR0913 each is a part of what a client asks for
        self,
        family: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[str, ...],
        *,
        variant: bytes | None,
        idempotency_key: str | None,
        durable: bool,
        deadline_seconds: float | None,
    ) -> Accepted:
        """Take a job on; see `service.Service`."""
        entry = self.catalogue.family(family)
        check_inputs(entry, inputs, outputs)
        arranged = ordered(entry, inputs)
        if idempotency_key is not None and self._core.requests.may_be_stored(idempotency_key):
            known = await asyncio.to_thread(self._store.request, idempotency_key)
            if known is not None:
                self._core.requests.remember(idempotency_key, *known)
        job_id = secrets.token_bytes(16)
        accepted = self._clients.expect(job_id)
        longest = self._options.job_deadline_seconds
        self._apply(
            Submit(
                job_id=job_id,
                salt=secrets.token_bytes(32),
                family=family,
                inputs=arranged,
                outputs=outputs,
                variant=variant,
                idempotency_key=idempotency_key,
                request_digest=request_digest(family, variant, arranged, outputs),
                durable=durable,
                deadline_seconds=longest if deadline_seconds is None else min(deadline_seconds, longest),
            )
        )
        return await accepted

    async def outcome(self, job_id: bytes, timeout_seconds: float) -> Outcome | None:
        """Wait for a job's end."""
        with self._clients.listen(job_id) as ending:
            if job_id not in self._core.leasing.jobs:  # ended: stored, or just about to be
                stored = await self.job(job_id)
                if stored is None or stored.state.final:
                    return _outcome(stored) if stored else None
            try:
                return await asyncio.wait_for(ending, timeout_seconds)
            except TimeoutError:
                return None

    async def job(self, job_id: bytes) -> StoredJob | None:
        """Look a job up."""
        return await asyncio.to_thread(self._store.job, job_id)

    def cancel(self, job_id: bytes) -> None:
        """End a job that has not ended."""
        self._apply(CancelJob(job_id))

    async def agents(self) -> list[tuple[StoredAgent, str, tuple[str, ...]]]:
        """Return every agent with its presence and the families that it offers now."""
        live = self._core.registry.agents
        found = []
        for stored in await asyncio.to_thread(self._store.agents):
            agent = live.get(stored.id)
            presence = agent.presence.value if agent else "gone"
            found.append((stored, presence, tuple(agent.offers) if agent else ()))
        return found


def _outcome(stored: StoredJob) -> Outcome:
    return Outcome(
        job_id=stored.id,
        state=stored.state,
        outputs=stored.outputs,
        receipt=stored.receipt,
        agent_id=stored.agent_id,
        variant=stored.variant,
        run_us=stored.run_us,
        error=stored.error,
    )

"""The coordinator as a process: sockets, clock, threads and database around the sans-IO core.

One asyncio loop runs core and gateway. The link's thread and the store's writer only hand things over to it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from edge_agent.clock import boot_number, system_now
from edge_agent.coordinator.books import Books
from edge_agent.coordinator.clients import Clients
from edge_agent.coordinator.core import Core
from edge_agent.coordinator.enrolling import Enrolling
from edge_agent.coordinator.events import (
    BrokerConnected,
    BrokerDisconnected,
    CancelJob,
    CatalogueChanged,
    Command,
    Commit,
    Event,
    JobStored,
    MessageReceived,
    Outcome,
    Publish,
    SendFailed,
    Submit,
    SubmitRefused,
    Tick,
)
from edge_agent.coordinator.housekeeping import Housekeeping
from edge_agent.coordinator.inbox import Inbox
from edge_agent.coordinator.observation import Observation
from edge_agent.coordinator.operations import Operations
from edge_agent.coordinator.options import Options
from edge_agent.coordinator.receipt_log import ReceiptLog
from edge_agent.coordinator.registry import Registry
from edge_agent.coordinator.requests import arranged, deadline_seconds, request_digest
from edge_agent.coordinator.rows import StoredJob, outcome_of
from edge_agent.coordinator.sending import Sending
from edge_agent.coordinator.service import Accepted, AgentView
from edge_agent.coordinator.statements import Statements
from edge_agent.coordinator.store import Store, reading_threads
from edge_agent.coordinator.takeover import take_over
from edge_agent.coordinator.vigil import STOP_SECONDS, look_after, supervisor
from edge_agent.coordinator.writer import Writer
from edge_agent.entropy import Entropy
from edge_agent.errors import EdgeAgentError, ResourceError, StateError
from edge_agent.models.catalogue import Catalogue
from edge_agent.mqtt import Connected, Disconnected, Link, LinkEvent, Message, Published, PublishRefused
from edge_agent.notes import Journal, Note
from edge_agent.wire.job_options import ANYWHERE, JobOptions
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.tensors import Tensor
from edge_agent.wire.topics import UP_CHANNELS, Topics

log = logging.getLogger("edge_agent.coordinator")

LINK_STOP_SECONDS = 2.0
ANSWER_SECONDS = 2.0
"""When we are told to stop, jobs that clients wait for may end so long; then the clients are told to come again."""
WRITER_STOP_SECONDS = 10.0


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
        self.receipt_log = ReceiptLog(store, key, options.network, system_now)
        self.supervisor = supervisor.here()
        self.books = Books(store, key, options.network, options.check_secret, system_now)
        self._journal = Journal(log)
        self.failure: EdgeAgentError | None = None
        self._options = options
        self._store = store
        self._topics = Topics(options.network)
        self._core = Core(
            statements=Statements(key, self._topics),
            catalogue=catalogue,
            registry=Registry(admit_anyone=options.admit_anyone, max_agents=options.max_agents),
            rules=options.rules,
            rng=random.Random(os.urandom(16)),  # noqa: S311 jitter, not a secret
            check_rules=options.check_rules,
            check_secret=options.check_secret,
            trusted_owners=options.trusted_owners,
        )
        core, counters = self._core, self._journal.counters
        self.observed = Observation(system_now, core.registry, core.leasing, counters, lambda: core.connected)
        self.operations = Operations(core, store, system_now, self._apply, options.registrar)
        self._enrolling = Enrolling(store, key, options, self._execute, self._execute_soon)
        self.admissions = self._enrolling.admissions
        self._boot = boot_number()
        self._clients = Clients()
        self._entropy = Entropy()
        self._submitted: list[Submit] = []
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
        self._loop.set_default_executor(reading_threads())
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        await asyncio.to_thread(self._restore)
        self._writer = Writer(
            self._store, self._on_committed, self._on_write_failed, max_bytes=self._options.inbox_bytes
        )
        self._writer.start()
        self._schedule()  # the deadlines of restored jobs hold also while there is no broker
        subscriptions = [self._topics.all_agents(c) for c in UP_CHANNELS]
        inbox = Inbox(
            self._loop,
            self._on_link_event,
            self._on_messages,
            max_messages=self._options.link.inbox_messages,
            max_bytes=self._options.inbox_bytes,
            dropped=lambda name: self._journal.counters.update([name]),
        )
        rng = random.Random(os.urandom(16))  # noqa: S311 jitter, not a secret
        self._link = Link(self._options.link, subscriptions, inbox.put, will=lambda: None, rng=rng, log=log)
        self._sending = Sending(self._link)
        self._link.start()
        chores = asyncio.create_task(look_after(self._keep_house().run(), self.supervisor, self._link, self._writer))
        http = asyncio.ensure_future(serve_http(self._stop))
        http.add_done_callback(lambda _: self._stop.set())
        try:
            await self._stop.wait()
        finally:
            self.supervisor.stopping(STOP_SECONDS)
            chores.cancel()
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
        if self._store.older_copy is not None:
            text = "Brought the database up to date; a copy of the older one is %s"
            log.warning(text, self._store.older_copy, extra={"action": "upgraded"})
        own, now = self._options, system_now()
        leases = own.rules.lease_seconds
        jobs = take_over(self._core, self._store, now, self._boot, lease_seconds=leases, registrar=own.registrar)
        if jobs:
            log.info("Took over jobs that had not ended", extra={"action": "restored", "jobs": jobs})

    def _keep_house(self) -> Housekeeping:
        def failed(error: Exception) -> None:
            self._execute((Note(logging.ERROR, f"Could not look after the database: {error}", "sweep-failed"),))

        return Housekeeping(
            self._store,
            clock=system_now,
            boot=self._boot,
            retention_seconds=self._options.retention_seconds,
            registrar=self._options.registrar,
            found=self.operations.found,
            forgot=self._core.requests.forget,
            failed=failed,
        )

    # -- events in ------------------------------------------------------------------------------------------------

    def _on_messages(self, messages: Sequence[Message]) -> None:
        if self._writer.full:  # like those that find no place in the inbox: they will come again
            self._journal.counters["writer-full"] += len(messages)
        else:
            others = [message for message in messages if not self._enrolling.takes(message)]
            self._apply(*(MessageReceived(message.topic, bytes(message.payload)) for message in others))

    def _on_link_event(self, event: LinkEvent) -> None:
        match event:
            case Published():
                self._sending.acknowledged(event)
            case PublishRefused():
                self._apply_all(self._sending.refused(event))
            case Connected():
                try:
                    session = self._store.next_session(system_now().wall_ms)
                except StateError as error:
                    self._give_up(error)
                else:
                    self._apply(BrokerConnected(session, event.max_packet_bytes))
            case Disconnected():
                self._apply(BrokerDisconnected(event.reason))
                self._apply_all(self._sending.disconnected(event))
            case _:  # the link itself logs what else happens to it
                pass

    def _apply(self, *events: Event) -> None:
        try:
            self._execute(self._core.handle_together(events, system_now(), self._on_defect))
        except Exception as error:  # noqa: BLE001 it is logged
            self._on_defect(None, error)
        self._schedule()

    def _on_defect(self, event: Event | None, error: Exception) -> None:
        text = f"A defect while handling {type(event).__name__}"
        log.error(text, extra={"action": "defect"}, exc_info=error)
        self._journal.counters["defect"] += 1
        if not isinstance(event, MessageReceived):  # which must not let a stranger end us
            self._give_up(EdgeAgentError(f"something went wrong that should not be able to: {error!r}"))

    def _submit(self, event: Submit) -> None:
        """Take a job on with all others that come before the loop turns to something else."""
        self._submitted.append(event)
        if len(self._submitted) == 1:
            self._loop.call_soon(self._apply_submitted)

    def _apply_submitted(self) -> None:
        events, self._submitted = self._submitted, []
        self._apply(*events)

    def _apply_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self._apply(event)

    def _give_up(self, reason: EdgeAgentError) -> None:
        """End the process, because only a fresh start from the database mends this."""
        self.failure = self.failure or reason
        self._stop.set()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if (deadline := self._core.next_deadline()) is not None:
            self._timer = self._loop.call_later(max(0.0, deadline - system_now().monotonic), self._apply, Tick())

    def adopt(self, catalogue: Catalogue) -> None:
        """Go by another catalogue from now on; to be called on the loop's thread."""
        self.catalogue = catalogue
        self._apply(CatalogueChanged(catalogue))

    # -- commands out ---------------------------------------------------------------------------------------------

    def _execute(self, commands: Sequence[Command]) -> None:
        messages: list[Publish] = []
        for command in commands:
            self.observed.saw(command)
            match command:
                case Publish():
                    messages.append(command)
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
        for lost, error in self._sending.send(messages):
            # Births and redelivery make up for it, but a job need not wait for its lease.
            self._journal.counters[f"publish-{error.error_code}"] += 1
            log.debug("Not published: %s", error.message, extra={"action": "publish", "code": error.error_code})
            if lost.attempt is not None:
                failed = SendFailed(*lost.attempt, error.error_code, error.message)
                self._loop.call_soon(self._apply, failed)

    def _on_committed(self, group: Sequence[Commit]) -> None:
        if then := [command for commit in group for command in commit.then]:
            self._execute_soon(then)

    def _execute_soon(self, commands: Sequence[Command]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._execute, commands)

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

    def offered(self, family: str, variant: bytes | None = None) -> bool:
        """Whether a machine offers this family now, in this variant if one is named."""
        return bool(self._core.registry.eligible(family, variant, ANYWHERE, None))

    async def submit(  # noqa: PLR0913 each is a part of what a client asks for
        self,
        family: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[str, ...],
        *,
        variant: bytes | None,
        durable: bool,
        options: JobOptions,
    ) -> Accepted:
        """Take a job on; see `service.Service`."""
        entry = self.catalogue.family(family)
        taken = arranged(entry, inputs, outputs, options)
        seconds = deadline_seconds(options, self._options.job_deadline_seconds, self._options.max_job_deadline_seconds)
        if self._writer.full:
            raise ResourceError("the database is behind with what waits to be written", code="queue-full")
        key = options.idempotency_key
        if key is not None and self._core.requests.may_be_stored(key):
            known = self._writer.request(key) or await asyncio.to_thread(self._store.request, key)
            if known is not None:
                self._core.requests.remember(key, *known)
        drawn = self._entropy.take(48)
        accepted = self._clients.expect(job_id := drawn[:16])
        self._submit(
            Submit(
                job_id=job_id,
                salt=drawn[16:],
                family=family,
                inputs=taken,
                outputs=outputs,
                variant=variant,
                idempotency_key=key,
                request_digest=b"" if key is None else request_digest(family, variant, taken, outputs),
                durable=durable,
                deadline_seconds=seconds,
                client=options.client or "",
                priority=options.priority,
                max_attempts=options.max_attempts,
                placement=options.placement,
                mode=options.mode,
                accept_newcomers=options.accept_newcomers,
            )
        )
        return await accepted

    async def outcome(self, job_id: bytes, timeout_seconds: float) -> Outcome | None:
        """Wait for a job's end."""
        with self._clients.listen(job_id) as ending:
            if job_id not in self._core.leasing.jobs:  # ended: stored, or about to be, maybe from its beginning on
                stored = await self.job(job_id)
                if stored is not None and stored.state.final:
                    return outcome_of(stored)
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

    async def jobs(self, limit: int, client: str | None) -> list[StoredJob]:
        """Return the newest jobs."""
        return await asyncio.to_thread(self._store.newest_jobs, limit, client)

    async def agents(self) -> list[AgentView]:
        """Return every agent that the database knows, with what is known of it now."""
        live = self._core.registry.agents
        return [AgentView(stored, live.get(stored.id)) for stored in await asyncio.to_thread(self._store.agents)]

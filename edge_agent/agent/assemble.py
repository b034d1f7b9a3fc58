"""Builds an agent from the settings and what `hardware` says of this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace

from edge_agent.agent.account.account import Account, Means
from edge_agent.agent.account.tariff import Tariff
from edge_agent.agent.assistant.device import device_of
from edge_agent.agent.calibrator import Calibrator
from edge_agent.agent.daemon import Agent
from edge_agent.agent.fetching import Fetching
from edge_agent.agent.lookout import budget_bytes, conditions
from edge_agent.agent.options import MachineSummary, Options
from edge_agent.agent.policy import Policy
from edge_agent.agent.prospects import Circumstances
from edge_agent.agent.readers import Readers, local_zone
from edge_agent.agent.rules import Rules
from edge_agent.agent.tally import Tally
from edge_agent.agent.wanted import Wanted, Wishes
from edge_agent.agent.wishes import rules, values
from edge_agent.clock import Now
from edge_agent.connection import home_link_options
from edge_agent.folders import make_private
from edge_agent.inference.containment import offered
from edge_agent.inference.installed import here, runtime_name
from edge_agent.models import experience_file
from edge_agent.models.content import Content
from edge_agent.models.fit import MachineFacts
from edge_agent.models.optimised import OptimisedFiles, key
from edge_agent.models.store import Store
from edge_agent.mqtt import LinkOptions
from edge_agent.own_keys import AgentKeys
from edge_agent.published import known_now, source_of, watch
from edge_agent.settings import Settings
from edge_agent.telemetry import Tracer
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.messages import Machine
from edge_agent.wire.topics import Topics
from hardware import Profile, profile
from hardware.meter import Meter
from hardware.sysfs import Root

log = logging.getLogger("edge_agent.agent")


def make_agent(
    settings: Settings,
    link: LinkOptions,
    keys: AgentKeys,
    coordinator_key: PublicKey,
    reload: Callable[[], Settings],
) -> Agent:
    """Profile the machine and put the agent together.

    Args:
        settings: that hold.
        link: to the broker.
        keys: the agent's.
        coordinator_key: the pinned one.
        reload: reads the settings anew; of what changed, the owner's rules on when it works take effect.

    Raises:
        StateError: the state directory cannot be made.
    """
    own = settings.agent
    make_private(own.state_dir)
    machine = profile()
    content = Content(settings.models.dir)
    content.prepare()
    content.remove_abandoned()  # of copies that were being made, whether any are made now or not
    options = Options(
        network=settings.network.name,
        state_dir=own.state_dir,
        link=replace(link, probe_topic=Topics(settings.network.name).probe(keys.signing.public.id)),
        rules=Rules(
            max_in_flight=own.max_in_flight,
            max_message_bytes=settings.limits.max_inline_bytes,
            worker_idle_seconds=own.worker_idle_seconds,
            max_held_bytes=own.max_held_bytes,
            spool_seconds=own.spool_seconds,
            spool_bytes=own.spool_bytes,
            spool_results=own.spool_results,
            unsettled_seconds=own.unsettled_hours * 3600,
        ),
        policy=Policy(
            own.families,
            own.max_in_flight,
            own.memory_share,
            values(settings),
            own.download == "allowed",
            settings.policy.deny_families,
        ),
        when=_wishes(settings, reload, keys.signing, machine),
        threads=own.threads or machine.usable_threads,
        stop_seconds=own.stop_seconds,
        inbox_messages=settings.limits.inbox_messages,
        inbox_bytes=settings.limits.inbox_bytes,
        sealing=keys.sealing,
        status_detail=own.status_detail,
        tracer=None
        if settings.telemetry.endpoint is None
        else Tracer.connect(settings.telemetry.endpoint, "edge-agent", settings.telemetry.job_share),
        copies=None if settings.models.optimised == "off" else _copies(settings, content, machine),
    )
    store = Store(content=content)
    summary = summarise(machine, own.labels)
    calibrator = Calibrator(machine, own.state_dir, store, summary.facts)
    summary = replace(
        summary,
        facts=calibrator.facts,
        circumstances=circumstances(settings, machine, store),
        calibrator=calibrator,
    )
    source = source_of(settings, own.state_dir)
    known = known_now(source)
    watching = watch(source, known, log, content.changed_at)
    fetching = Fetching(_pull_settings(settings)) if own.download == "allowed" else None
    return Agent(options, keys.signing, coordinator_key, known.served, store, summary, watching, fetching)


def _wishes(settings: Settings, reload: Callable[[], Settings], key: SigningKey, machine: Profile) -> Wishes:
    client_id = f"ea1-{key.public.id}-home"
    root, pid = Root(), os.getpid()
    readers = Readers(root, pid)

    def wanted(now: Settings) -> Wanted:
        device = None
        if now.home.assistant == "on":
            known = readers.cpu_celsius().value is not None
            device = device_of(now, key.public.id, machine.board.model or "computer", thermometer=known)
        return Wanted(now.policy, home_link_options(now, client_id), now.energy, device)

    board = (machine.power.idle_watts, machine.power.max_watts)
    tariff = Tariff(settings.energy, readers.number, Meter(root, None, None), board)
    means = Means(root, pid, tariff, key, settings.network.name)

    def account(tally: Tally, now: Now) -> Account:
        return Account(settings.agent.state_dir, means, tally, now)

    most = settings.agent.threads or machine.usable_threads
    cpus = float(machine.usable_threads)
    return Wishes(wanted(settings), lambda: wanted(reload()), readers, local_zone, account, most, cpus)


def _copies(settings: Settings, content: Content, machine: Profile) -> OptimisedFiles:
    features = (f"{name}: {there}" for name, there in machine.cpu.features.items())
    made_for = key(runtime_name(), machine.isa_path, (*features, machine.cpu.model or ""))
    return OptimisedFiles(content, made_for, settings.models.max_bytes, settings.models.keep_free_bytes)


def _pull_settings(settings: Settings) -> dict[str, str]:
    """Return the variables with which `edge-agent models pull` goes by the settings of this agent."""
    wanted = {
        "AGENT_STATE_DIR": settings.agent.state_dir,
        "MODELS_DIR": settings.models.dir,
        "MODELS_MAX_BYTES": settings.models.max_bytes,
        "MODELS_KEEP_FREE_BYTES": settings.models.keep_free_bytes,
        "MODELS_MIRRORS": ",".join(settings.models.mirrors),
        "CATALOGUE_URL": settings.catalogue.url,
        "CATALOGUE_ROOT_FILE": settings.catalogue.root_file,
        "CATALOGUE_PUBLIC_MODELS": settings.catalogue.public_models,
    }
    return {f"EDGE_AGENT_{name}": str(value) for name, value in wanted.items() if value not in {None, ""}}


def circumstances(settings: Settings, machine: Profile, store: Store) -> Circumstances:
    """Take from everywhere what the choice of variants goes by."""
    experience, problem = experience_file.read(settings.agent.state_dir)
    if problem:
        log.warning("What was measured before is lost: %s", problem, extra={"action": "experience"})
    if lack := offered().lack:
        allowed = settings.agent.uncontained_models == "allow"
        what = "run all the same" if allowed else "are refused (agent.uncontained_models)"
        log.warning("Models of strangers %s: %s", what, lack, extra={"action": "uncontained"})
    return Circumstances(
        here=here(store, uncontained=settings.agent.uncontained_models == "allow"),
        kernel=machine.kernel_release or "",
        conditions=conditions(machine),
        experience=experience,
        rules=rules(settings),
    )


def summarise(machine: Profile, labels: tuple[str, ...] = ()) -> MachineSummary:
    """Take from the profile what the agent needs, and what its owner calls it."""
    usable = len(machine.cpu.usable or ()) or 1
    total_mib = (machine.memory.total_kib or 0) // 1024
    budget = budget_bytes(machine)
    name = machine.board.model or machine.cpu.model or "unknown board"
    cores = f"{usable} usable CPU{'s' if usable != 1 else ''}"
    free = "unknown memory" if machine.memory.budget_bytes is None else f"{budget / 1e9:.1f} GB"
    return MachineSummary(
        statement=Machine(
            isa=machine.isa_path[:64],
            board=machine.board.model[:128] if machine.board.model else None,
            cpus=usable,
            memory_mib=max(1, total_mib),
            labels=labels,
        ),
        facts=MachineFacts(cpus=float(machine.usable_threads), quota_cpus=machine.cpu.quota_cpus),
        budget_bytes=budget,
        text=f"{name}, {machine.isa_path}, {cores}, {total_mib / 1024:.1f} GiB memory, {free} free for models",
    )

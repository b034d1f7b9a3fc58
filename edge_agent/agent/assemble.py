"""Builds an agent from the settings and what `hardware` says of this machine."""

from __future__ import annotations

from dataclasses import replace

from edge_agent.agent.daemon import Agent, MachineSummary, Options
from edge_agent.agent.policy import Policy
from edge_agent.agent.rules import Rules
from edge_agent.folders import make_private
from edge_agent.models.catalogue import builtin
from edge_agent.models.fit import MachineFacts
from edge_agent.models.store import Store
from edge_agent.mqtt import LinkOptions
from edge_agent.settings import Settings
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.messages import Machine
from edge_agent.wire.topics import Topics
from hardware import Profile, profile

FALLBACK_BUDGET_BYTES = 256 * 1024 * 1024
"""Where the free memory cannot be known, no more than this is used."""


def make_agent(settings: Settings, link: LinkOptions, key: SigningKey, coordinator_key: PublicKey) -> Agent:
    """Profile the machine and put the agent together.

    Raises:
        StateError: the state directory cannot be made.
    """
    own = settings.agent
    make_private(own.state_dir)
    machine = profile()
    options = Options(
        network=settings.network.name,
        state_dir=own.state_dir,
        link=replace(link, probe_topic=Topics(settings.network.name).probe(key.public.id)),
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
        policy=Policy(own.families, own.max_in_flight, own.memory_share),
        threads=own.threads or machine.usable_threads,
        stop_seconds=own.stop_seconds,
        inbox_messages=settings.limits.inbox_messages,
        inbox_bytes=settings.limits.inbox_bytes,
    )
    return Agent(options, key, coordinator_key, builtin(), Store(), summarise(machine, own.labels))


def summarise(machine: Profile, labels: tuple[str, ...] = ()) -> MachineSummary:
    """Take from the profile what the agent needs, and what its owner calls it."""
    usable = len(machine.cpu.usable or ()) or 1
    total_mib = (machine.memory.total_kib or 0) // 1024
    budget = machine.memory.budget_bytes
    name = machine.board.model or machine.cpu.model or "unknown board"
    cores = f"{usable} usable CPU{'s' if usable != 1 else ''}"
    free = "unknown" if budget is None else f"{budget / 1e9:.1f} GB"
    return MachineSummary(
        statement=Machine(
            isa=machine.isa_path[:64],
            board=machine.board.model[:128] if machine.board.model else None,
            cpus=usable,
            memory_mib=max(1, total_mib),
            labels=labels,
        ),
        facts=MachineFacts(cpus=float(machine.usable_threads)),
        budget_bytes=FALLBACK_BUDGET_BYTES if budget is None else budget,
        text=f"{name}, {machine.isa_path}, {cores}, {total_mib / 1024:.1f} GiB memory, {free} free for models",
    )

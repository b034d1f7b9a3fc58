"""Pool small machines at home into an open, verifiable inference network.

The way of one job::

    client → coordinator.gateway → coordinator.core → coordinator.scheduling → mqtt → agent.core → agent.policy
           → inference (worker process) → wire.envelope → mqtt → coordinator.verification → coordinator.leasing
           → coordinator.store → coordinator.gateway → client

The words: a *family* is a model as clients name it, a *variant* one concrete file of it, the *catalogue* lists both.
The *profile* says what a machine is, the *fit* what a variant costs there, an *offer* that an agent serves it. A *job*
is what a client wants once, an *attempt* one try of it with a *lease* and a fencing *epoch*, a *result* its tensors
with a signed *receipt*. Machines of one *class* are expected to give bit-identical outputs.

The folders, from the bottom up; imports run downward only:

    hardware        what is this machine? imports nothing of ours
    errors          one tree, each with a stable code, an exit status and a hint
    wire, models.catalogue, settings    what both ends must agree on
    agent.core, coordinator.core, …     sans-IO rules: (state, event, now) to commands
    mqtt, inference, coordinator.store, coordinator.gateway    adapters, each to one foreign thing
    agent.daemon, coordinator.daemon, client    the processes
    local, cli      a whole network on one machine; parse, call, print, exit
"""

from edge_agent._version import __version__

__all__ = ["__version__"]

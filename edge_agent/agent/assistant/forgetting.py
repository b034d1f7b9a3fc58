"""Takes back from the broker at home what it keeps for an agent that does not run: no ghosts stay in Home Assistant."""

from __future__ import annotations

import logging
import queue
import random
import time
from collections.abc import Sequence
from dataclasses import replace

from edge_agent.errors import TransportError
from edge_agent.mqtt import Connected, ConnectFailed, Link, LinkEvent, LinkOptions, Published, PublishRefused

PATIENCE_SECONDS = 10.0

log = logging.getLogger("edge_agent.agent.assistant")


def forget(options: LinkOptions, topics: Sequence[str], patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Publish an empty retained message on each topic, and wait until the broker has acknowledged all of them.

    Raises:
        TransportError: the broker is not reached, or does not take them.
    """
    events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
    own = replace(options, client_id=f"{options.client_id}-forget")
    link = Link(own, (), events.put, will=lambda: None, rng=random.SystemRandom(), log=log)
    link.start()
    end, waiting = time.monotonic() + patience_seconds, -1
    try:
        while waiting:
            try:
                event = events.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise TransportError(f"the broker {options.address} does not answer in time", code="timeout") from None
            match event:
                case ConnectFailed():
                    raise TransportError(f"the broker at home is not reached: {event.reason}", code="unreachable")
                case Connected() if waiting < 0:
                    waiting = len(topics)
                    for topic in topics:
                        link.publish(topic, b"", retain=True)
                case Published():
                    waiting -= 1
                case PublishRefused():
                    raise TransportError(f"the broker at home refuses it: {event.reason}", code="broker-refused")
                case _:
                    pass
    finally:
        link.stop(1.0)

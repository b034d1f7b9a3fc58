"""Has the machine's speed measured once, when there is something to predict with it, before it is planned with.

What is kept from before is used at once. A catalogue whose families have no more variants than are measured anyway
needs no predictions of speed: then nothing is measured for them, and the first offer comes the sooner.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge_agent.agent.events import Event, MachineMeasured
from edge_agent.errors import EdgeAgentError
from edge_agent.inference.calibration import calibrate, kept
from edge_agent.models.catalogue import Catalogue
from edge_agent.models.fit import MachineFacts
from edge_agent.models.store import Store
from edge_agent.models.trials import MAX_RUNS
from hardware import Profile

log = logging.getLogger("edge_agent.agent")


class Calibrator:
    """Adds rates to what is known of a machine.

    Args:
        machine: its profile.
        folder: where rates are kept.
        store: whose files decide whether there is something to predict.
        facts: what is known without rates.
    """

    def __init__(self, machine: Profile, folder: Path, store: Store, facts: MachineFacts) -> None:
        self._machine = machine
        self._folder = folder
        self._store = store
        self._facts = replace(facts, rates=kept(machine, folder))
        self._may = threading.Event()
        self._may.set()
        self._one = threading.Lock()
        self._change = threading.Lock()  # of the two below, and of what may be done
        self._process: subprocess.Popen[bytes] | None = None
        self._called_off = False

    @property
    def facts(self) -> MachineFacts:
        """What is known now."""
        return self._facts

    def allow(self, *, work: bool) -> None:
        """Say whether the machine may work now: until then a measurement waits, or is broken off and begun anew."""
        if work:
            self._may.set()
            return
        with self._change:
            self._may.clear()
            if self._process is not None:
                self._called_off = True
                self._process.kill()

    def before(self, event: Event, catalogue: Catalogue, put: Callable[[Event], None]) -> None:
        """Put an event that has a catalogue planned with, and before it what is to be known for that."""
        if self._facts.rates is not None or not self._is_needed(catalogue):
            put(event)
            return
        threading.Thread(target=self._measure, args=(event, put), name="calibration", daemon=True).start()

    def _is_needed(self, catalogue: Catalogue) -> bool:
        return any(
            len(family.variants) > MAX_RUNS and any(self._store.has(variant) for variant in family.variants)
            for family in catalogue.families
        )

    def _measure(self, event: Event, put: Callable[[Event], None]) -> None:
        try:
            with self._one:  # several may have waited for the machine's rest to end
                self._measure_once()
            put(MachineMeasured(self._facts))
        except EdgeAgentError as error:
            log.warning("%s Predictions are wide guesses.", error.message, extra={"action": "calibration"})
        put(event)

    def _measure_once(self) -> None:
        while self._facts.rates is None:
            self._may.wait()
            self._called_off = False
            try:
                rates = calibrate(self._machine, self._folder, started=self._started)
                self._facts = replace(self._facts, rates=rates)
            except EdgeAgentError:
                if not self._called_off:
                    raise
            finally:
                self._process = None

    def _started(self, process: subprocess.Popen[bytes]) -> None:
        with self._change:
            self._process = process
            if not self._may.is_set():  # it was called off before there was anything to end
                self._called_off = True
                process.kill()

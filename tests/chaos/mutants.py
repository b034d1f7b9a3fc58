"""Runs the simulator on mutated code: each mutation in a process of its own, with one rule of the source changed.

    python tests/chaos/mutants.py            # all of them, one line of JSON each
    python tests/chaos/mutants.py NAME …

What is changed is the source text, on its way into the interpreter: no file is written. The text must be there exactly
once, so that a mutation cannot quietly miss. This process imports nothing of ours but the table: the code is imported,
changed, by its children.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import itertools
import json
import multiprocessing
import os
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
for folder in (TESTS.parent, TESTS, TESTS / "chaos"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from mutations import FIRST_SEED, MUTATIONS, Mutation  # noqa: E402 only now can it be found

FOREIGN = ("cbor2", "cryptography.hazmat.primitives.asymmetric.ed25519", "pydantic", "sqlalchemy")
"""What takes long to import and is the same for all."""
SECONDS = 900.0
"""A child that takes longer has hung: it needs some seconds of a processor, of which many may want a part."""


@dataclass(slots=True)
class Patcher(importlib.abc.MetaPathFinder):
    """Finds the one module that is mutated, and gives its changed source to the interpreter."""

    mutation: Mutation

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:  # noqa: ANN401 the interface's
        """Return a spec whose loader changes the source."""
        if name != self.mutation.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _ChangedSource(name, spec.origin, self.mutation)
        return spec


class _ChangedSource(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, mutation: Mutation) -> None:
        super().__init__(name, path)
        self._mutation = mutation

    def get_code(self, fullname: str) -> Any:  # noqa: ANN401 a code object; never from a cache of the unchanged source
        source = Path(self.path).read_text(encoding="utf-8")
        return compile(self._mutation.apply(source), self.path, "exec")


def run(name: str) -> dict[str, Any]:
    """Run the scripts of a mutation on its code; stop at the first that breaks its promise."""
    (mutation,) = (mutation for mutation in MUTATIONS if mutation.name == name)
    sys.meta_path.insert(0, Patcher(mutation))
    from simulator.generate import generate  # noqa: PLC0415 imports the code that is mutated
    from simulator.report import play  # noqa: PLC0415
    from simulator.script import Script  # noqa: PLC0415
    from simulator.wire import token_wire  # noqa: PLC0415

    first = FIRST_SEED + mutation.first
    drawn = (generate(seed, mutation.profile) for seed in range(first, first + mutation.scripts))
    with token_wire() as wire:
        for runs, script in enumerate(itertools.chain(map(Script.from_json, mutation.directed), drawn), start=1):
            violations = play(script, wire)[1]
            violations.sort(key=lambda found: found.promise.value != mutation.promise)
            if violations and violations[0].promise.value == mutation.promise:
                told = [str(violation) for violation in violations[:5]]
                return {"name": name, "runs": runs, "violations": told, "script": script.to_json()}
    return {"name": name, "runs": runs, "violations": [], "script": None}


def _child(name: str, answer: Connection) -> None:
    answer.send(run(name))


def run_all(names: list[str]) -> list[dict[str, Any]]:
    """Run these, each in a process of its own, two at a time.

    Raises:
        RuntimeError: one ended without an answer, or has hung.
    """
    for module in FOREIGN:
        importlib.import_module(module)
    context = multiprocessing.get_context("fork")
    results: list[dict[str, Any]] = []
    waiting, running = list(names), []
    while waiting or running:
        while waiting and len(running) < min(2, os.cpu_count() or 1):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(waiting[0], theirs))
            process.start()
            theirs.close()
            running.append((waiting.pop(0), process, ours))
        name, process, ours = running.pop(0)
        try:
            if not ours.poll(SECONDS):
                raise RuntimeError(f"{name} has hung")
            results.append(ours.recv())
        except EOFError:
            raise RuntimeError(f"{name} ended without an answer") from None
        finally:
            process.kill()
            process.join()
    return results


if __name__ == "__main__":
    for result in run_all(sys.argv[1:] or [mutation.name for mutation in MUTATIONS]):
        print(json.dumps(result), flush=True)  # noqa: T201 the output

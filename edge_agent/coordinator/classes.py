"""Which machines are of one class, as measured: by answers that were the same bits. Pure.

What a machine says of its class is not enough to require the same bits of it: a processor that nobody thought of
must not make an honest owner a cheat. Two machines that say they are of one class are held to that once each of
them has given, on some input, the same bits as a machine of the same set.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_KNOWN = 100_000
"""So many pairs of agent and class are remembered; the oldest are measured again."""


@dataclass(slots=True)
class Classes:
    """Sets of machines, by union of pairs that were seen to agree bit for bit."""

    _parents: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def learn(self, klass: str, one: str, other: str) -> None:
        """Take note that two agents of this class gave the same bits.

        Args:
            klass: the id that both claim; it contains the variant.
            one: an agent.
            other: another one, of another owner.
        """
        first, second = self._root((klass, one)), self._root((klass, other))
        if first != second:
            self._parents[second] = first

    def same(self, klass: str, one: str, other: str) -> bool:
        """Whether both are known to be of one class."""
        return (
            (klass, one) in self._parents
            and (klass, other) in self._parents
            and self._root((klass, one)) == self._root((klass, other))
        )

    def forget(self, agent_id: str) -> None:
        """Measure an agent anew, as after it was proven wrong."""
        for key in [key for key in self._parents if key[1] == agent_id]:
            self._detach(key)

    def _detach(self, key: tuple[str, str]) -> None:
        children = [child for child, parent in self._parents.items() if parent == key and child != key]
        own = self._parents.pop(key)
        heir = own if own != key else (children[0] if children else None)
        for child in children:
            if heir is not None:
                self._parents[child] = heir

    def _root(self, key: tuple[str, str]) -> tuple[str, str]:
        if key not in self._parents:
            if len(self._parents) >= MAX_KNOWN:
                self._detach(next(iter(self._parents)))
            self._parents[key] = key
        while (parent := self._parents[key]) != key:
            self._parents[key] = key = self._parents[parent]
        return key

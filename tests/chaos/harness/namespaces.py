"""Network namespaces on one bridge, one for each party, and what goes wrong between them. Needs root.

Names carry the process id of the harness, so that what a killed harness left behind can be told from what is in use.
The kernel of many machines has no netem, so that delay and bandwidth are the proxy's business; partitions, rejects and
links that go down are real here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

PREFIX = "ea-chaos"
NETNS_FOLDER = Path("/run/netns")
NETWORK = "10.77.0"
HUB_HOST = 254
TABLE = "ea_chaos"


class Namespaces:
    """One namespace a party, all on a bridge in a namespace of its own; nothing appears in the machine's own network.

    Args:
        parties: their names; the first gets the address 10.77.0.1, and so on.
    """

    def __init__(self, parties: Iterable[str]) -> None:
        self._parties = tuple(parties)
        self._mark = f"{PREFIX}-{os.getpid()}"

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _make(self) -> None:
        hub = self.name("hub")
        _run("ip", "netns", "add", hub)
        _run("ip", "-n", hub, "link", "set", "lo", "up")
        _run("ip", "-n", hub, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", hub, "addr", "add", f"{self.address('hub')}/24", "dev", "br0")
        _run("ip", "-n", hub, "link", "set", "br0", "up")
        for party in self._parties:
            own = self.name(party)
            _run("ip", "netns", "add", own)
            _run("ip", "-n", hub, "link", "add", f"to-{party}", "type", "veth", "peer", "name", "eth0", "netns", own)
            _run("ip", "-n", hub, "link", "set", f"to-{party}", "master", "br0", "up")
            _run("ip", "-n", own, "link", "set", "lo", "up")
            _run("ip", "-n", own, "addr", "add", f"{self.address(party)}/24", "dev", "eth0")
            _run("ip", "-n", own, "link", "set", "eth0", "up")

    def _remove(self) -> None:
        for path in NETNS_FOLDER.glob(f"{self._mark}-*"):
            subprocess.run(["ip", "netns", "del", path.name], check=False, capture_output=True)

    def name(self, party: str) -> str:
        """Return the name of a party's namespace."""
        return f"{self._mark}-{party}"

    def file(self, party: str) -> str:
        """Return the file that stands for a party's namespace."""
        return str(NETNS_FOLDER / self.name(party))

    def address(self, party: str) -> str:
        """Return a party's address; `hub` is where the bridge itself is."""
        host = HUB_HOST if party == "hub" else self._parties.index(party) + 1
        return f"{NETWORK}.{host}"

    # -- faults -----------------------------------------------------------------------------------------------------

    def link(self, party: str, *, up: bool) -> None:
        """Take a party's network cable out, or put it in again."""
        _run("ip", "-n", self.name(party), "link", "set", "eth0", "up" if up else "down")

    def block(self, party: str, how: str, *directions: str) -> None:
        """Let no TCP through any more on a party's cable.

        Args:
            party: whose.
            how: `drop`, or `reject with tcp reset`.
            directions: of `input` and `output`, seen from the party.
        """
        lines = [f"table inet {TABLE} {{"]
        for direction in directions:
            side = "iifname" if direction == "input" else "oifname"
            lines.append(f"chain {direction} {{ type filter hook {direction} priority 0;")
            lines.append(f'{side} "eth0" meta l4proto tcp {how} ; }}')
        lines.append("}")
        _run("ip", "netns", "exec", self.name(party), "nft", "-f", "-", text="\n".join(lines))

    def unblock(self, party: str) -> None:
        """Let everything through again."""
        with suppress(subprocess.CalledProcessError):  # nothing was blocked
            _run("ip", "netns", "exec", self.name(party), "nft", "delete", "table", "inet", TABLE)


def has_netem() -> bool:
    """Whether the kernel can delay and lose packets itself; most small machines' kernels can, some servers' cannot."""
    probe = f"{PREFIX}-{os.getpid()}-netem"
    with _namespace(probe):
        command = ["ip", "netns", "exec", probe, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextmanager
def _namespace(name: str) -> Iterator[None]:
    _run("ip", "netns", "add", name)
    try:
        yield
    finally:
        _run("ip", "netns", "del", name)


def _run(*command: str, text: str = "") -> None:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)

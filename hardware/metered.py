"""Whether somebody pays for each byte: what NetworkManager knows of the network in use, and what kind of link it is.

A modem is metered. Of other links only NetworkManager knows (its property `Metered`: 1 yes, 2 no, 3 and 4 a guess of
its own, 0 unknown);
it is asked through `busctl`, because no file says it. See NetworkManager's D-Bus API.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardware.sysfs import Root

ASK = (
    *("busctl", "--timeout=2", "get-property", "org.freedesktop.NetworkManager"),
    *("/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager", "Metered"),
)
PATIENCE_SECONDS = 4.0
_MODEM = re.compile(r"(?:wwan|ppp|rmnet|cdc-wdm)[0-9a-z_.-]*")
_MEANING = {1: True, 3: True, 2: False, 4: False}
_ROUTE_UP = 1


def default_interfaces(root: Root) -> tuple[str, ...]:
    """Return the names of the interfaces that default routes of IPv4 lead to (proc_pid_net(5))."""
    found = []
    for line in (root.read_text("proc/net/route", 64 * 1024) or "").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000" and int(fields[3], 16) & _ROUTE_UP:
            found.append(fields[0])
    return tuple(dict.fromkeys(found))


def parse_answer(text: str) -> int | None:
    """Return the number in `u 4`, as busctl prints it."""
    match = re.fullmatch(r"u ([0-9]{1,9})\s*", text)
    return int(match[1]) if match else None


def metered(root: Root) -> bool | str:
    """Return whether the network in use is metered, or why that cannot be known."""
    interfaces = default_interfaces(root)
    if any(_MODEM.fullmatch(name) for name in interfaces):
        return True
    if not root.live or not root.is_dir("run/NetworkManager"):
        return "NetworkManager does not run here, and nothing else knows it"
    try:
        said = subprocess.run(ASK, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return f"NetworkManager cannot be asked: {error}"
    number = parse_answer(said)
    return _MEANING.get(-1 if number is None else number, "NetworkManager does not know it")

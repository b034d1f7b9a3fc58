"""Whether anybody uses the machine: sessions as logind writes them down, and when their terminals were last typed at.

The kernel keeps, for each terminal, when it was last read from and written to (tty_io.c: `tty_update_time`), as `w` and
logind show. A graphical session keeps that to itself, and input devices (evdev) keep no time at all: who sits there
cannot be known from files. See sd-login(3), systemd-logind.service(8), `login/logind-session.c`.
"""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from hardware.sysfs import clean

if TYPE_CHECKING:
    from hardware.sysfs import Root

SESSIONS = "run/systemd/sessions"
MAX_SESSIONS = 256
NEVER_SECONDS = 365 * 86_400.0
"""What is returned where nobody is logged in: longer than any rule asks for."""
_PEOPLE = frozenset({"user", "user-early", "user-light"})
_GRAPHICAL = frozenset({"x11", "wayland", "mir"})
_TTY = re.compile(r"(?:/dev/)?((?:tty|pts/)[A-Za-z0-9]{1,16})")


def parse_session(text: str) -> dict[str, str]:
    """Return the fields of a session's file; lines of another form are left out."""
    pairs = (line.partition("=") for line in text.split("\n"))
    return {key: clean(value, 128) for key, separator, value in pairs if separator and key.isupper()}


def idle_seconds(root: Root, wall_seconds: float) -> float | str:
    """Return the seconds since anybody used the machine, or why that cannot be known.

    Args:
        root: of the machine.
        wall_seconds: Unix time now, which terminals' times are compared with.
    """
    if not root.is_dir(SESSIONS):
        return "no logind runs that tells who is logged in"
    newest: float | None = None
    for name in [name for name in root.listdir(SESSIONS) if not name.endswith(".ref")][:MAX_SESSIONS]:
        text = root.read_text(f"{SESSIONS}/{name}", 16 * 1024)
        if text is None:
            return root.reason(f"{SESSIONS}/{name}")
        session = parse_session(text)
        if session.get("CLASS", "user") not in _PEOPLE or session.get("STATE") == "closing":
            continue
        if session.get("TYPE") in _GRAPHICAL:
            if session.get("ACTIVE") == "1" or session.get("REMOTE") == "1":
                user = session.get("USER", "somebody")
                return f"{user} has a graphical session, which does not tell when it is used"
            continue
        used = _used_at(root, session)
        if used is None:
            return f"the session of {session.get('USER', 'somebody')} has no terminal that could be looked at"
        newest = used if newest is None else max(newest, used)
    return NEVER_SECONDS if newest is None else max(0.0, wall_seconds - newest)


def _used_at(root: Root, session: dict[str, str]) -> float | None:
    """Return the Unix time at which a session's terminals were last used; sshd does not say which they are."""
    match = _TTY.fullmatch(session.get("TTY", ""))
    if match is not None:
        return _touched_at(root, f"dev/{match[1]}", None)
    uid = session.get("UID", "")
    times = [_touched_at(root, f"dev/pts/{name}", uid) for name in root.listdir("dev/pts") if name.isdigit()]
    return max((time for time in times if time is not None), default=None)


def _touched_at(root: Root, path: str, uid: str | None) -> float | None:
    status = root.stat(path)
    if status is None or (root.live and not stat.S_ISCHR(status.st_mode)):
        return None
    if uid is not None and str(status.st_uid) != uid:
        return None
    return status.st_atime

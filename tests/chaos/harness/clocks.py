"""Wall clocks that jump while a process runs, by libfaketime; its monotonic clock goes on as it should."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

_SITE = Path(__file__).with_name("faketime_site")
_PLACES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")


def library() -> str | None:
    """Return the path of libfaketime for programs with threads, or None."""
    for pattern in _PLACES:
        for path in sorted(Path("/").glob(pattern.removeprefix("/"))):
            return str(path)
    return None


VERSIONS = {"x86_64": "GLIBC_2.3.2", "aarch64": "GLIBC_2.17"}
"""Of the condition variables in the C library, by machine."""


def conditions(folder: Path) -> str | None:
    """Compile what keeps Python's threads from spinning under libfaketime; None where that cannot be done.

    Without it everything works, too, but takes a multiple of the processor.
    """
    compiler, version = shutil.which("cc"), VERSIONS.get(platform.machine())
    if compiler is None or version is None:
        return None
    library = folder / "conditions.so"
    command = [compiler, "-shared", "-fPIC", "-O2", f'-DSYMBOL_VERSION="{version}"', "-o", str(library)]
    done = subprocess.run([*command, str(_SITE / "conditions.c"), "-ldl"], check=False, capture_output=True)
    return str(library) if done.returncode == 0 else None


class Clock:
    """The wall clock of one process.

    Args:
        file: made; says how far the clock is off, read by the process about once a second.
        first: a library to load before libfaketime.
    """

    def __init__(self, file: Path, first: str | None = None) -> None:
        self._file = file
        self._first = first
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """Let the clock be so far ahead, or behind when negative, of the machine's."""
        temporary = self._file.with_suffix(".new")
        temporary.write_text(f"{seconds:+d}\n")
        os.replace(temporary, self._file)  # noqa: PTH105 in one piece: it is read at any moment

    def environment(self) -> dict[str, str]:
        """Return the variables to start the process with."""
        found = library()
        assert found is not None
        return {
            "LD_PRELOAD": f"{self._first}:{found}" if self._first else found,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # its name before 0.9.10
            "NO_FAKE_STAT": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_SITE), os.environ.get("PYTHONPATH")))),
        }

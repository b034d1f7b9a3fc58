"""How long a newcomer waits: `make demo` in a fresh clone, set-up included, then once more.

`python benchmarks/demo.py`; uses the package cache as it is, so run it twice for a warm one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def timed(*command: str, cwd: Path) -> tuple[float, str]:
    """Run a command to its end; return the seconds and its standard output."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return time.monotonic() - started, done.stdout


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="edge-agent-clone-") as name:
        clone = Path(name) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        first, _ = timed("make", "demo", cwd=clone)
        again, _ = timed("make", "demo", cwd=clone)
        _, text = timed(str(clone / ".venv" / "bin" / "edge-agent"), "demo", "--json", cwd=clone)
    report = json.loads(text)
    print(f"make demo, fresh clone   {first:.1f} s, of which set-up about {first - again:.1f} s")
    print(f"make demo, again         {again:.1f} s")
    print(
        f"its jobs                 {report['jobs']} in {report['seconds']:.2f} s, {report['verified']} verified, "
        f"accuracy {report['accuracy']:.4f}, p50 {report['p50_ms']:.1f} ms, p99 {report['p99_ms']:.1f} ms"
    )
    print(f"python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()

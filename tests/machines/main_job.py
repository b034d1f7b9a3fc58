"""The main job with an agent in an emulated machine and everybody else here; aarch64.sh calls it at the end."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import REPOSITORY, MachineError, Network

SECONDS = 900.0


def main() -> int:
    """Run the agent, send a job, verify it, and say where it was computed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, required=True, help="folder of the emulated system, the agent installed")
    image: Path = parser.parse_args().image
    with tempfile.TemporaryDirectory(prefix="edge-agent-emulated-") as name:
        network = Network(None, Path(name))
        network.start()
        state = image / "root" / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(mode=0o700)
        inside = [str(Path(__file__).with_name("emulated.sh")), str(image), "/root/venv/bin/python", "-m", "edge_agent"]
        environ = {**os.environ, "TREE": str(REPOSITORY)}
        enrol = [*inside, "enrol", f"http://{network.http}", "-", "--state", "/root/state"]
        subprocess.run(enrol, input=f"{network.token()}\n", text=True, env=environ, check=True)
        command = [*inside, "run", "--state", "/root/state"]
        began = time.monotonic()
        with (Path(name) / "agent.log").open("w+") as log:
            agent = subprocess.Popen(command, stdout=log, stderr=log, env=environ, process_group=0)
            try:
                network.job(seconds=SECONDS)
                seconds = time.monotonic() - began
            except MachineError as error:
                log.seek(0)
                print(f"FAILED: {error}\n{log.read()[-3000:]}")
                return 1
            finally:
                os.killpg(agent.pid, signal.SIGTERM)  # unshare itself does not pass it on
                try:
                    agent.wait(60)
                except subprocess.TimeoutExpired:
                    agent.kill()
                network.stop()
        print(f"main job: verified {seconds:.0f} s after the agent's start")
        print(network.verified)
    return 0


if __name__ == "__main__":
    sys.exit(main())

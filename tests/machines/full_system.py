"""Boots a Debian 12 with its own kernel in qemu-system, for control groups with all their controllers.

Namespaces of this machine may not have those. Run on demand, as root:

    KERNEL=1 tests/machines/make_image.sh IMAGE
    python tests/machines/full_system.py --image IMAGE --deb PACKAGE [--kvm]

The package is installed into a copy of the image before it is booted, so that the emulated machine has only the agent
to run. Broker and coordinator are outside, on the loopback of this machine.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from machine import MachineError, Network

BOOT_SECONDS = 1500.0
SERVICE = """[Unit]
Description=Looks at the agent and switches the machine off
After=multi-user.target edge-agent.service
[Service]
Type=oneshot
ExecStart=/bin/bash /root/look.sh
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""


def prepare(image: Path, deb: Path, broker: str, key: Path, folder: Path) -> Path:
    """Copy the image, install the package in it, and make a disk of it."""
    root, disk = folder / "root", folder / "disk.img"
    subprocess.run(["cp", "-a", str(image), str(root)], check=True)
    shutil.copy2(deb, root / "root" / "agent.deb")
    install = 'mount -t proc proc "$0/proc" && exec chroot "$0" dpkg -i /root/agent.deb'
    alone = ["unshare", "--mount", "--pid", "--fork", "bash", "-c", install, str(root)]
    subprocess.run(alone, check=True, stdout=subprocess.DEVNULL)
    (root / "etc/edge-agent/config.toml").write_text(f'[broker]\nurl = "{broker}"\n')
    shutil.copy2(key, root / "var/lib/edge-agent/coordinator.pub")
    subprocess.run(["chroot", str(root), "chown", "-R", "edge-agent:", "/var/lib/edge-agent"], check=True)
    (root / "etc/systemd/network/net.network").write_text(
        "[Match]\nName=e*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n"
    )
    shutil.copy2(Path(__file__).with_name("look.sh"), root / "root/look.sh")
    (root / "etc/systemd/system/look.service").write_text(SERVICE)
    enable = ["systemctl", "enable", "systemd-networkd", "look", "edge-agent"]
    subprocess.run(["chroot", str(root), *enable], check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["truncate", "-s", "3G", str(disk)], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(root), str(disk)], check=True)
    return disk


def main() -> int:
    """Boot, ask for jobs when the machine says so, and print what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--deb", type=Path, required=True)
    parser.add_argument("--kernel", type=Path, help="default: the one in the image")
    parser.add_argument("--initrd", type=Path, help="default: the one in the image")
    parser.add_argument("--kvm", action="store_true", help="use the processor's own virtualisation")
    options = parser.parse_args()
    if shutil.which("qemu-system-x86_64") is None:
        print("skipped: qemu-system-x86_64 is not installed")
        return 0
    kernel = options.kernel or max((options.image / "boot").glob("vmlinuz-*"))
    initrd = options.initrd or max((options.image / "boot").glob("initrd.img-*"))
    with tempfile.TemporaryDirectory(prefix="edge-agent-qemu-") as name:
        folder = Path(name)
        network = Network(None, folder / "network")
        network.start()
        try:
            broker = f"mqtt://10.0.2.2:{network.broker_port}"
            disk = prepare(options.image, options.deb, broker, network.public_key, folder)
            machine = ["-enable-kvm", "-cpu", "host"] if options.kvm else ["-accel", "tcg,thread=multi", "-cpu", "max"]
            command = ["qemu-system-x86_64", *machine, "-m", "2048", "-smp", "2", "-nographic", "-no-reboot"]
            command += ["-nic", "user,model=virtio-net-pci", "-drive", f"file={disk},if=virtio,format=raw"]
            command += ["-kernel", str(kernel), "-initrd", str(initrd)]
            command += ["-append", "root=/dev/vda rw console=ttyS0 panic=-1 quiet"]
            return watch(command, network)
        except MachineError as error:
            print(f"FAILED: {error}")
            return 1
        finally:
            network.stop()


def watch(command: list[str], network: Network) -> int:
    """Follow the machine's console to its end."""
    ended = False
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    ) as qemu:
        assert qemu.stdout is not None
        for line in qemu.stdout:
            word, _, rest = line.strip().partition(" ")
            if word in {"FACT", "LOG"}:
                print(f"{word.lower():5}{rest}", flush=True)
            elif word == "ASK":
                network.job(seconds=300)
                print("fact a job was answered and verified", flush=True)
            ended = ended or word == "END"
    return 0 if ended else 1


if __name__ == "__main__":
    sys.exit(main())

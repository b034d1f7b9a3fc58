from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import needs
import pytest

from edge_agent.doctor import worker
from edge_agent.doctor.findings import SkipCheck, Status
from edge_agent.errors import MalformedError
from edge_agent.inference import containment
from edge_agent.inference.containment import MEASURES, NEEDED, Containment
from edge_agent.inference.events import WorkerStarted
from edge_agent.inference.messages import containment_of
from edge_agent.models.catalogue import BUILTIN_DIR

LANDLOCK = "444"
CAPSET = {"x86_64": "126", "aarch64": "91"}
OLD_KERNEL = Path(__file__).parents[2] / "old_kernel.py"
WHY = "this kernel has none"


# -- what a kernel offers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("abi", "missing"),
    [(0, {"files", "tcp", "signals"}), (1, {"tcp", "signals"}), (3, {"tcp", "signals"}), (5, {"signals"}), (6, set())],
)
def test_what_each_kernel_offers(monkeypatch: pytest.MonkeyPatch, abi: int, missing: set[str]) -> None:
    """By the version of Landlock; whatever is missing has its reason, and all is accounted for."""
    monkeypatch.setattr(containment.landlock, "abi", lambda: abi)
    monkeypatch.setattr(containment.seccomp, "offered", lambda: "")
    found = containment.offered()
    assert {name for name, _ in found.missing} == missing
    assert set(found.in_force) == set(MEASURES) - missing
    assert all(why for _, why in found.missing)
    assert bool(found.lack) == (abi == 0)


@pytest.mark.parametrize(("abi", "made"), [(0, False), (1, False), (2, False), (3, True), (6, True)])
def test_copies_are_made_where_landlock_keeps_files_from_being_emptied(
    monkeypatch: pytest.MonkeyPatch,
    abi: int,
    made: bool,  # noqa: FBT001 a parameter
) -> None:
    """And where they are not, why is said."""
    monkeypatch.setattr(containment.landlock, "abi", lambda: abi)
    assert (not containment.no_copies()) is made
    assert f"of ABI {abi}, 3 is needed" in containment.no_copies() or abi not in {1, 2}


def test_without_a_filter_strangers_are_not_run_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Landlock alone leaves the network by UDP and Unix sockets."""
    monkeypatch.setattr(containment.seccomp, "offered", lambda: WHY)
    assert WHY in containment.offered().lack


@pytest.mark.parametrize("name", MEASURES)
def test_only_what_is_needed_keeps_strangers_out(name: str) -> None:
    """The other measures are second lines."""
    found = Containment(missing=((name, WHY),))
    assert bool(found.lack) == (name in NEEDED)
    assert json.loads(json.dumps(found.document())) == {"in_force": [], "missing": {name: WHY}}


# -- what may be read ---------------------------------------------------------------------------------------------


def test_code_is_readable_and_the_rest_of_the_disk_is_not() -> None:
    """Python's library, the packages that are imported, the models that come with the program; nobody's home."""
    readable = containment.code()

    def may_read(path: object) -> bool:
        return any(str(path).startswith(allowed.rstrip("/") + "/") or str(path) == allowed for allowed in readable)

    for path in (os.__file__, json.__file__, containment.__file__, BUILTIN_DIR / "digits-fp32.onnx"):
        assert may_read(path), path
    for path in ("/etc/passwd", "/root/.ssh/id_ed25519", Path.home() / "notes", Path(BUILTIN_DIR).parents[2] / ".git"):
        assert not may_read(path), path


def test_what_is_offered_and_fails_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with other threads, which Landlock would not hold for, is not half contained but ends."""
    program = """
import threading
from edge_agent.inference import containment
threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    containment.enter(())
except OSError as error:
    print(error)
"""
    if "files" not in containment.offered().in_force:
        needs.absent("this kernel has no Landlock")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "2 threads run before the worker is contained" in done.stdout


def test_a_kernel_without_landlock_still_has_the_rest() -> None:
    """Found by asking the kernel; no file can be written, and no process made, by the filter alone."""
    program = """
import json, os
from edge_agent.inference import containment
print(json.dumps(containment.enter(()).document()))
for attempt in (os.fork, lambda: open("/tmp/x", "w")):
    try:
        attempt()
    except PermissionError:
        print("refused")
"""
    if "system-calls" not in containment.offered().in_force:
        needs.absent("this kernel has no filters")
    command = [sys.executable, str(OLD_KERNEL), LANDLOCK, sys.executable, "-c", program]
    first, *rest = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    document = json.loads(first)
    assert document["in_force"] == ["system-calls", "privileges", "limits"]
    assert set(document["missing"]) == {"files", "tcp", "signals"}
    assert rest == ["refused", "refused"]


def test_capabilities_that_cannot_be_given_up_are_told() -> None:
    """A unit or container may forbid even that; who has none, as under our unit, has nothing to give up."""
    program = "from edge_agent.inference import containment; print(containment.enter(()).document())"
    number = CAPSET.get(platform.machine())
    if number is None:
        needs.absent(f"the number of capset on {platform.machine()} is not known here")
    command = [sys.executable, str(OLD_KERNEL), number, sys.executable, "-c", program]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    document = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert ("capabilities cannot be given up" in document) == (int(_capabilities(), 16) > 0)


def _capabilities() -> str:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(line.split()[1] for line in status.splitlines() if line.startswith("CapPrm"))


def test_the_process_that_measures_the_machine_is_contained_too() -> None:
    """Before it runs anything."""
    program = """
import sys
from edge_agent.inference import calibrating
from edge_agent.models.rates import Rates

def measure(*_):
    print(open("/proc/self/status").read())
    sys.stdout.flush()
    raise SystemExit(0)

calibrating.measure = measure
calibrating.main(["--threads", "1", "--seconds", "0", "--parent", sys.argv[1]])
"""
    command = [sys.executable, "-c", program, str(os.getpid())]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    status = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    assert ("Seccomp:\t2" in status) == ("system-calls" in containment.offered().in_force)


# -- what is said of it -------------------------------------------------------------------------------------------


def test_what_a_worker_says_of_itself_is_read_strictly() -> None:
    """It comes by the pipe, like all that it says."""
    header: dict[str, Any] = {"contained": ["files"], "missing": [["tcp", "old\nkernel"]]}
    assert containment_of(header) == Containment(("files",), (("tcp", "old kernel"),))
    for wrong in ({"missing": [["tcp"]]}, {"missing": "tcp"}, {"contained": [1]}, {"missing": [[1, 2]]}):
        with pytest.raises(MalformedError):
            containment_of(header | wrong)


def _look(found: Containment, setting: str = "refuse") -> Any:  # noqa: ANN401 - a finding
    settings = SimpleNamespace(agent=SimpleNamespace(uncontained_models=setting))
    event = WorkerStarted(1, "onnxruntime 1.32.0", (), 1.0, found)
    return worker.containment(SimpleNamespace(worker=worker.Trial(event), settings=settings))  # type: ignore[arg-type]


def test_the_doctor_says_what_is_in_force_and_what_is_missing() -> None:
    """A second line that is missing is told and is no trouble; without a first one there is something to mend."""
    found = _look(Containment(("files", "system-calls"), (("tcp", WHY),)))
    assert found.status is Status.OK
    assert found.found == f"in force: files, system-calls; missing: tcp ({WHY})"
    lacking = Containment(("system-calls",), (("files", WHY),))
    found = _look(lacking)
    assert found.status is Status.WARNING
    assert "models that did not come with the program are refused" in found.found
    assert "Landlock" in found.mend
    assert "run all the same" in _look(lacking, "allow").found
    with pytest.raises(SkipCheck):
        worker.containment(SimpleNamespace(worker=worker.Trial(None, "it does not start")))  # type: ignore[arg-type]

"""Control groups: whose limit holds, in every layout that is about."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import needs
import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from hardware import cgroup, cgroup_place
from hardware.sysfs import Root

V2_MOUNT = "30 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MEMORY = "43 30 0:40 / /sys/fs/cgroup/memory rw shared:19 - cgroup cgroup rw,memory\n"
V1_CPU = "44 30 0:41 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
UNLIMITED_V1 = "9223372036854771712\n"


def v2(tmp_path: Path, name: str, files: dict[str, str], mounts: str = V2_MOUNT) -> Root:
    """Return a tree with one version 2 hierarchy."""
    tree = {f"sys/fs/cgroup/{rel}": text for rel, text in files.items()}
    return trees.make(tmp_path, {"proc/self/cgroup": f"0::{name}\n", "proc/self/mountinfo": mounts, **tree})


def test_the_strictest_level_of_all_ancestors_holds(tmp_path: Path) -> None:
    """A limit of a slice binds the service in it, and `max` means no limit at that level only."""
    root = v2(
        tmp_path,
        "/a.slice/b.service",
        {
            "a.slice/memory.max": "1000000\n",
            "a.slice/b.service/memory.max": "max\n",
            "a.slice/cpu.max": "150000 100000\n",
        },
    )
    limit = cgroup.memory_limit(root)
    assert (limit.limit_bytes, limit.source) == (1000000, "/sys/fs/cgroup/a.slice/memory.max")
    assert cgroup.cpu_quota(root).cpus == 1.5


def test_memory_high_is_a_limit(tmp_path: Path) -> None:
    """Above memory.high the kernel throttles: the lower of high and max counts."""
    root = v2(tmp_path, "/a", {"a/memory.max": "5000", "a/memory.high": "4000"})
    assert cgroup.memory_limit(root).source == "/sys/fs/cgroup/a/memory.high"


def test_each_level_counts_its_own_usage(tmp_path: Path) -> None:
    """The room of a level is its limit - its usage + its inactive file cache; never more than the limit."""
    root = v2(
        tmp_path,
        "/a/b",
        {
            "a/memory.max": "1000",
            "a/memory.current": "900",
            "a/memory.stat": "anon 5\ninactive_file 50\n",
            "a/b/memory.max": "500",
            "a/b/memory.current": "10",
            "a/b/memory.stat": "inactive_file 400\n",
        },
    )
    assert [level.room_bytes for level in cgroup.memory_limit(root).levels] == [500, 150, None]


@pytest.mark.parametrize("text", [UNLIMITED_V1, "9223372036854775807", "18446744073709551615", "8796093018112", "-1"])
def test_largest_numbers_of_version_1_are_no_limit(tmp_path: Path, text: str) -> None:
    """Version 1 writes "none" as the largest number of pages, of whatever size and width."""
    files = {"proc/self/cgroup": "5:memory:/a\n", "proc/self/mountinfo": V1_MEMORY}
    root = trees.make(tmp_path, {**files, "sys/fs/cgroup/memory/a/memory.limit_in_bytes": text})
    limit = cgroup.memory_limit(root)
    assert (limit.limit_bytes, limit.why) == (None, None)


def test_version_2_line_alone_is_no_proof_of_version_2(tmp_path: Path) -> None:
    """In a hybrid the memory controller lives in version 1, although `0::` is there as well."""
    unified = "31 30 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw\n"
    root = trees.make(
        tmp_path,
        {
            "proc/self/cgroup": "9:memory:/svc\n1:name=systemd:/svc\n0::/svc\n",
            "proc/self/mountinfo": unified + V1_MEMORY,
            "sys/fs/cgroup/unified/svc/memory.max": "1\n",
            "sys/fs/cgroup/memory/svc/memory.limit_in_bytes": "2147483648\n",
        },
    )
    assert cgroup.memory_limit(root).limit_bytes == 2147483648


def test_container_whose_mount_is_its_own_cgroup(tmp_path: Path) -> None:
    """The part of the name that the mount starts at is taken off, or it would name nothing."""
    mount = "90 82 0:26 /docker/77 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    root = trees.make(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/77\n",
            "proc/self/mountinfo": mount,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
        },
    )
    assert cgroup.memory_limit(root).limit_bytes == 1073741824


def test_ancestors_outside_of_the_view_through_memory_stat(tmp_path: Path) -> None:
    """hierarchical_memory_limit tells of ancestors that the mount doesn't show."""
    files = {"proc/self/cgroup": "5:memory:/\n", "proc/self/mountinfo": V1_MEMORY}
    base = "sys/fs/cgroup/memory"
    root = trees.make(
        tmp_path,
        {
            **files,
            f"{base}/memory.limit_in_bytes": UNLIMITED_V1,
            f"{base}/memory.stat": "cache 1\nhierarchical_memory_limit 5000\n",
        },
    )
    assert cgroup.memory_limit(root).limit_bytes == 5000


def test_version_1_without_hierarchy_does_not_bind_children(tmp_path: Path) -> None:
    """With use_hierarchy 0 an ancestor's limit is for its own processes."""
    base = "sys/fs/cgroup/memory"
    root = trees.make(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/a/b\n",
            "proc/self/mountinfo": V1_MEMORY,
            f"{base}/a/memory.limit_in_bytes": "1000",
            f"{base}/a/memory.use_hierarchy": "0",
            f"{base}/a/b/memory.limit_in_bytes": UNLIMITED_V1,
        },
    )
    assert cgroup.memory_limit(root).limit_bytes is None


@pytest.mark.parametrize("name", ["/../../user-1000.slice/x", "/..", "/a/../../.."])
def test_names_above_the_namespace_end_at_the_mount(tmp_path: Path, name: str) -> None:
    """`/../..` is clamped as `..` is at the root of a file system."""
    assert cgroup.memory_limit(v2(tmp_path, name, {"memory.max": "4096\n"})).limit_bytes == 4096


def test_mount_from_outside_of_the_namespace(tmp_path: Path) -> None:
    """Where the mount starts above the namespace, name and mount share the `/../..`."""
    mount = V2_MOUNT.replace(" / /sys", " /../.. /sys")
    root = v2(tmp_path, "/../../user.slice", {"user.slice/memory.max": "77\n"}, mount)
    assert cgroup.memory_limit(root).limit_bytes == 77


def test_mount_is_found_and_not_assumed(tmp_path: Path) -> None:
    """The hierarchy may be mounted anywhere, blanks in the path included."""
    mount = "30 24 0:27 / /mnt/c\\040g rw - cgroup2 none rw\n"
    files = {"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mount, "mnt/c g/a/memory.max": "9000\n"}
    assert cgroup.memory_limit(trees.make(tmp_path, files)).limit_bytes == 9000


def test_unknown_has_a_reason(tmp_path: Path) -> None:
    """Nothing to read, no mount, and junk in a limit are unknown; a missing controller is not."""
    assert cgroup.memory_limit(Root(tmp_path / "nowhere")).why == "/proc/self/cgroup does not exist"
    junk = v2(tmp_path / "junk", "/a", {"a/memory.max": "lots\n", "a/cpu.max": "0 0\n"})
    assert cgroup.memory_limit(junk).why == "/sys/fs/cgroup/a/memory.max does not hold a limit"
    assert cgroup.cpu_quota(junk).why == "/sys/fs/cgroup/a/cpu.max does not hold a quota"
    off = v2(tmp_path / "off", "/a", {"a/cgroup.procs": ""})
    assert cgroup.memory_limit(off) == (None, None, cgroup.memory_limit(off).levels, None)
    unmounted = v2(tmp_path / "unmounted", "/a", {}, mounts="1 1 0:1 / / rw - ext4 /dev/sda rw\n")
    assert "not mounted" in (cgroup.memory_limit(unmounted).why or "")


def test_controller_that_the_kernel_runs_without(tmp_path: Path) -> None:
    """A Raspberry Pi's kernel has the memory controller off: no limit, and no doubt about it."""
    cgroups = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t80\t0\n"
    files = {"proc/self/cgroup": "4:cpu,cpuacct:/\n0::/a\n", "proc/self/mountinfo": V1_CPU, "proc/cgroups": cgroups}
    limit = cgroup.memory_limit(trees.make(tmp_path, files))
    assert (limit.limit_bytes, limit.why) == (None, None)


def test_quota_of_version_1(tmp_path: Path) -> None:
    """Half a CPU in the parent holds although the child has no quota."""
    base = "sys/fs/cgroup/cpu,cpuacct"
    root = trees.make(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/a/b\n",
            "proc/self/mountinfo": V1_CPU,
            f"{base}/a/cpu.cfs_quota_us": "50000\n",
            f"{base}/a/cpu.cfs_period_us": "100000\n",
            f"{base}/a/b/cpu.cfs_quota_us": "-1\n",
        },
    )
    quota = cgroup.cpu_quota(root)
    assert (quota.cpus, quota.source) == (0.5, f"/{base}/a/cpu.cfs_quota_us")


def test_cpuset_is_what_all_levels_allow(tmp_path: Path) -> None:
    """An empty set means "as above"; the effective one is believed first."""
    files = {"a/cpuset.cpus": "\n", "a/b/cpuset.cpus.effective": "2-3\n", "cpuset.cpus.effective": "0-3\n"}
    assert cgroup.cpuset(v2(tmp_path, "/a/b", files)).cpus == (2, 3)


def test_captures_of_real_machines() -> None:
    """A pod's 2 GiB, a container without limit, and a hybrid, as captured."""
    dumps = needs.reference_data() / "hardware" / "dumps"
    pod = cgroup.memory_limit(Root(dumps / "cgroup1-eks-pod-2gib-limit"), "493239")
    assert pod.limit_bytes == 2147483648
    assert pod.levels[0].usage_bytes is not None
    for name, pid in (("cgroup-docker-v1-unlimited-and-v2", "985"), ("cgroup-docker-v1-unlimited-and-v2", "312")):
        free = cgroup.memory_limit(Root(dumps / name), pid)
        assert (free.limit_bytes, free.why, len(free.levels)) == (None, None, 3)
    hybrid = cgroup_place.locate(Root(dumps / "cgroup-hybrid-ubuntu1804"), "memory", "3757")
    assert isinstance(hybrid, cgroup_place.Place)
    assert hybrid.version == 1
    assert cgroup.cpuset(Root(dumps / "server-cpu0-offline-cpuset")).cpus == tuple(range(4, 21))


@pytest.mark.parametrize("controller", ["memory", "cpu"])
def test_agrees_with_a_limit_that_the_kernel_enforces(controller: str) -> None:
    """A process put into a new cgroup with a limit reads that limit back."""
    place = cgroup_place.locate(Root("/"), controller)
    if isinstance(place, str) or not place.levels or not trees.is_root():
        pytest.skip(f"no {controller} hierarchy that this process may write to")
    folder = Path("/") / place.levels[-1] / f"edge-agent-test-{os.getpid()}"
    try:
        folder.mkdir()
        if controller == "memory":
            name = "memory.max" if place.version == 2 else "memory.limit_in_bytes"
            (folder / name).write_text("268435456")
        elif place.version == 2:
            (folder / "cpu.max").write_text("50000 100000")
        else:
            (folder / "cpu.cfs_quota_us").write_text("50000")
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        pytest.skip(f"cgroups can't be made here: {error}")
    code = (
        "import sys; open(sys.argv[1] + '/cgroup.procs', 'w').write('0')\n"
        "from hardware import cgroup; from hardware.sysfs import Root\n"
        "print(cgroup.memory_limit(Root('/')).limit_bytes, cgroup.cpu_quota(Root('/')).cpus)"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    finally:
        folder.rmdir()
    limit, quota = done.stdout.split()
    assert (limit if controller == "memory" else quota) == ("268435456" if controller == "memory" else "0.5")


@given(
    st.dictionaries(
        st.sampled_from(["proc/self/cgroup", "proc/self/mountinfo", "proc/self/mounts"]), st.binary(max_size=300)
    )
)
def test_no_bytes_raise(files: dict[str, bytes]) -> None:
    """Whatever these files hold gives a limit or a reason."""
    with tempfile.TemporaryDirectory() as folder:
        root = trees.make(Path(folder), files)
        for read in (cgroup.memory_limit, cgroup.cpu_quota, cgroup.cpuset):
            read(root)


LINE = st.lists(
    st.sampled_from([" ", ":", "/", "..", "0", "5", "memory", "cgroup", "cgroup2", " - ", "\n", "\\040", "a", ","]),
    max_size=40,
)


@given(LINE, LINE, st.text(max_size=30))
def test_near_misses_do_not_raise(groups: list[str], mounts: list[str], value: str) -> None:
    """Lines that are almost right, and any text for a limit."""
    with tempfile.TemporaryDirectory() as folder:
        root = trees.make(
            Path(folder),
            {
                "proc/self/cgroup": "0::/a\n" + "".join(groups),
                "proc/self/mountinfo": V2_MOUNT + "".join(mounts),
                "sys/fs/cgroup/a/memory.max": value,
                "sys/fs/cgroup/a/cpu.max": value,
            },
        )
        limit = cgroup.memory_limit(root).limit_bytes
        assert limit is None or limit >= 0
        quota = cgroup.cpu_quota(root).cpus
        assert quota is None or quota >= 0

"""What `hive_task.hardware` promises. Control groups are read from made-up trees, the rest from this machine."""

import itertools
import os
import subprocess
import sys
import types
from dataclasses import FrozenInstanceError

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive_task import hardware
from hive_task.hardware import ControlGroups, Usage, control_groups, detect, usage

GIB = 1 << 30

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "33 32 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "34 32 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
OTHERS = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n31 23 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw"


@pytest.fixture
def tree(tmp_path):
    def make(cgroup, mounts, files=()):
        folder = tmp_path / "proc/self"
        folder.mkdir(parents=True)
        (folder / "cgroup").write_text(cgroup)
        (folder / "mountinfo").write_text("\n".join([OTHERS, *mounts]) + "\n")
        for name, content in dict(files).items():
            file = tmp_path / "sys/fs/cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return tmp_path

    return make


def limits(root):
    found = control_groups(root)
    return found.quota, found.memory


def test_version_2_the_group_itself(tree):
    root = tree("0::/app\n", [V2], {"app/cpu.max": "150000 100000\n", "app/memory.max": f"{GIB}\n"})
    assert limits(root) == (1.5, GIB)


@pytest.mark.parametrize(("smallest", "where"), [(0, "a"), (1, "a/b"), (2, "a/b/c")])
def test_the_smallest_limit_along_the_path_counts(tree, smallest, where):
    files = {}
    for level, folder in enumerate(["a", "a/b", "a/b/c"]):
        files[f"{folder}/cpu.max"] = "50000 100000" if level == smallest else "400000 100000"
        files[f"{folder}/memory.max"] = str(GIB if level == smallest else 8 * GIB)
    root = tree("0::/a/b/c\n", [V2], files)
    assert limits(root) == (0.5, GIB)
    said = control_groups(root).found
    assert said == (
        f"0.5 processors' time: quota of /sys/fs/cgroup/{where}",
        f"1,024 MiB: memory limit of /sys/fs/cgroup/{where}",
    )


def test_a_group_beside_the_path_does_not_count(tree):
    files = {"a/cpu.max": "200000 100000", "a/other/cpu.max": "10000 100000", "ab/cpu.max": "10000 100000"}
    assert limits(tree("0::/a/b\n", [V2], files)) == (2.0, None)


def test_no_limit(tree):
    root = tree("0::/a\n", [V2], {"a/cpu.max": "max 100000\n", "a/memory.max": "max\n"})
    assert control_groups(root) == ControlGroups()


def test_version_1(tree):
    root = tree(
        "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n1:name=systemd:/y\n",
        [V1_CPU, V1_MEMORY],
        {
            "cpu,cpuacct/docker/x/cpu.cfs_quota_us": "250000\n",
            "cpu,cpuacct/docker/x/cpu.cfs_period_us": "50000\n",
            "cpu,cpuacct/docker/cpu.cfs_quota_us": "-1\n",
            "cpu,cpuacct/docker/cpu.cfs_period_us": "100000\n",
            "memory/y/memory.limit_in_bytes": "4096",
            "memory/docker/x/memory.limit_in_bytes": f"{4 * GIB}\n",
            "memory/docker/memory.limit_in_bytes": f"{2 * GIB}\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert limits(root) == (5.0, 2 * GIB)


def test_version_1_no_limit(tree):
    root = tree(
        "5:cpu,cpuacct:/\n4:memory:/\n",
        [V1_CPU, V1_MEMORY],
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert control_groups(root) == ControlGroups()


def test_both_versions_at_once(tree):
    root = tree(
        "4:memory:/x\n0::/y\n",
        [V1_MEMORY, V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")],
        {
            "memory/x/memory.limit_in_bytes": str(GIB),
            "unified/y/cpu.max": "300000 100000",
            "unified/x/cpu.max": "100000 100000",
            "memory/y/memory.limit_in_bytes": "4096",
            "memory/y/memory.max": "4096",
        },
    )
    assert limits(root) == (3.0, GIB)


def test_a_controller_counts_only_in_the_hierarchy_that_has_it(tree):
    root = tree("5:cpu,cpuacct:/\n4:memory:/\n", [V1_CPU], {"cpu,cpuacct/memory.limit_in_bytes": "4096"})
    assert limits(root) == (None, None)


@pytest.mark.parametrize("path", ["/docker/x", "/", "/../..", "/../other", "/elsewhere"])
def test_in_a_container_that_sees_its_own_group_alone(tree, path):
    """The mount shows the group as its root; the path is the host's, or that of a namespace, or leads out of it."""
    mount = V2.replace("0:26 / ", "0:26 /docker/x ")
    assert limits(tree(f"0::{path}\n", [mount], {"cpu.max": "200000 100000"})) == (2.0, None)


def test_a_path_that_leads_out_of_what_is_mounted_is_not_followed(tree):
    files = {"cpu.max": "200000 100000", "../other/cpu.max": "10000 100000"}
    assert limits(tree("0::/../other\n", [V2], files)) == (2.0, None)


def test_a_foreign_mount_does_not_count(tree):
    foreign = V2.replace("0:26 / /sys/fs/cgroup ", "0:26 /docker/y /sys/fs/cgroup/mnt ")
    files = {"docker/x/cpu.max": "200000 100000", "mnt/cpu.max": "10000 100000"}
    assert limits(tree("0::/docker/x\n", [V2, foreign], files)) == (2.0, None)


def test_names_with_blanks_and_colons(tree):
    mount = V2.replace("/sys/fs/cgroup ", r"/sys/fs/cgroup/my\040groups ")
    root = tree("0::/a:b c\n", [mount], {"my groups/a:b c/cpu.max": "200000 100000"})
    assert limits(root) == (2.0, None)


def test_a_deleted_group_leaves_its_ancestors(tree):
    root = tree("0::/a/gone (deleted)\n", [V2], {"a/cpu.max": "200000 100000"})
    assert limits(root) == (2.0, None)


@pytest.mark.parametrize(
    "content", ["", "\n", "max", "-1 100000", "0 100000", "5000 0", "x y", "9" * 30, "\0", "1.5 2"]
)
def test_odd_quotas_are_no_quotas(tree, content):
    assert limits(tree("0::/\n", [V2], {"cpu.max": content, "memory.max": content})) == (None, None)


def test_a_quota_without_a_period_has_the_usual_one(tree):
    assert limits(tree("0::/\n", [V2], {"cpu.max": "50000"})) == (0.5, None)


def test_memory_that_is_available_leaves_out_what_the_kernel_gives_back(tree):
    root = tree(
        "0::/a/b\n",
        [V2],
        {
            "a/b/memory.max": "1000000",
            "a/b/memory.current": "700000",
            "a/b/memory.stat": "anon 300000\nactive_file 9\ninactive_file 400000\nslab 5\n",
            "a/memory.max": "2000000",
            "a/memory.current": "1900000",
        },
    )
    found = control_groups(root)
    assert (found.memory, found.available) == (1_000_000, 100_000)


def test_available_memory_of_version_1(tree):
    files = {
        "memory/memory.limit_in_bytes": "1000000",
        "memory/memory.usage_in_bytes": "900000",
        "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 300000\n",
    }
    assert control_groups(tree("4:memory:/\n", [V1_MEMORY], files)).available == 400_000


@pytest.mark.parametrize(
    ("cgroup", "mounts"),
    [
        ("", []),
        ("\n\n:::\n0:\nnonsense", [V2]),
        ("0::/\n", ["", "-", " - ", " - cgroup2", "1 2 3 4 5", "1 - cgroup2 a b", "1 2 3 4 5 - cgroup2 a"]),
        ("0::/\n5:cpu:/\n", [V1_CPU.replace("/sys", r"\000/\777"), V2.replace("/sys/fs/cgroup", "")]),
        ("0::/" + "x" * 300 + "/x" * 99 + "\n", [V2]),
    ],
)
def test_never_raises(tree, cgroup, mounts):
    root = tree(cgroup, mounts)
    assert control_groups(root) == ControlGroups()
    assert detect(root).cpus >= 1


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=20))
def test_never_raises_whatever_the_files_hold(tmp_path_factory, cgroup, mountinfo, limit):
    root = tmp_path_factory.getbasetemp() / "odd"
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "sys/fs/cgroup").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/cgroup").write_bytes(b"0::/\n" + cgroup)
    (root / "proc/self/mountinfo").write_bytes(V2.encode() + b"\n" + mountinfo)
    (root / "sys/fs/cgroup/cpu.max").write_bytes(limit)
    (root / "sys/fs/cgroup/memory.max").write_bytes(limit)
    found = control_groups(root)
    assert found.quota is None or found.quota > 0
    assert found.memory is None or found.memory > 0


def test_a_directory_in_place_of_a_file(tree):
    root = tree("0::/a\n", [V2])
    (root / "sys/fs/cgroup/a/cpu.max").mkdir(parents=True)
    assert control_groups(root) == ControlGroups()


def test_the_smaller_of_affinity_and_quota_counts(tree, monkeypatch):
    monkeypatch.setattr(hardware, "_affinity", lambda logical: (4, "affinity"))
    root = tree("0::/\n", [V2], {"cpu.max": "250000 100000"})
    found = detect(root)
    assert (found.cpus, found.affinity, found.quota) == (2.5, 4, 2.5)
    (root / "sys/fs/cgroup/cpu.max").write_text("800000 100000")
    found = detect(root)
    assert (found.cpus, found.affinity, found.quota) == (4, 4, 8)


def test_the_smaller_of_physical_memory_and_limit_counts(tree):
    total = psutil.virtual_memory().total
    root = tree("0::/\n", [V2], {"memory.max": str(total // 2), "memory.current": str(total // 2 - 4096)})
    found = detect(root)
    assert (found.memory, found.available) == (total // 2, 4096)
    (root / "sys/fs/cgroup/memory.max").write_text(str(total * 2))
    found = detect(root)
    assert found.memory == total
    assert found.available <= total


def test_this_machine(tmp_path):
    found = detect(tmp_path)
    assert found.logical == psutil.cpu_count()
    assert found.quota is None
    assert found.cpus == found.affinity
    assert found.memory == psutil.virtual_memory().total
    assert 0 < found.available <= found.memory
    assert found.gil is getattr(sys, "_is_gil_enabled", lambda: True)()
    assert f"{found.cpus:g} processors" in str(found)
    with pytest.raises(FrozenInstanceError):
        found.cpus = 3
    assert detect().cpus <= found.cpus  # this time with the control groups of this process


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_follows_the_affinity(tmp_path):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert detect(tmp_path).cpus == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_users_number_replaces_the_affinity(tree, monkeypatch):
    root = tree("0::/\n", [V2], {"cpu.max": "500000 100000"})
    monkeypatch.setattr(os, "process_cpu_count", lambda: 77, raising=False)
    found = detect(root)
    assert (found.affinity, found.cpus) == (77, 5)
    assert "PYTHON_CPU_COUNT" in found.found[0]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in Python 3.13")
def test_python_cpu_count(tmp_path):
    program = "import sys; from hive_task.hardware import detect; print(detect(sys.argv[1]).cpus)"
    out = subprocess.check_output([sys.executable, "-X", "cpu_count=7", "-c", program, str(tmp_path)], text=True)
    assert out.strip() == "7.0"


def test_a_system_that_tells_nothing(tmp_path, monkeypatch):
    """Neither affinity, nor load, nor does psutil work there."""

    class Nothing:
        def __getattr__(self, name):
            raise NotImplementedError(name)

    for name in ("sched_getaffinity", "getloadavg", "process_cpu_count"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(hardware, "_psutil", Nothing)
    found = detect(tmp_path)
    assert found.cpus == os.cpu_count()
    assert (found.logical, found.memory, found.available, found.load) == (None, None, None, None)
    assert usage([1]).since(Usage(0.0, 0.0))[1] is None
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert detect(tmp_path).cpus == 1


def test_a_system_where_psutil_alone_knows_the_affinity(tmp_path, monkeypatch):
    """Windows: `os.process_cpu_count` counts all there, and there is no load average."""
    for name in ("sched_getaffinity", "getloadavg"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 16, raising=False)
    process = types.SimpleNamespace(cpu_affinity=lambda: [0, 3, 5])
    memory = types.SimpleNamespace(total=GIB, available=GIB // 2)
    fake = types.SimpleNamespace(
        cpu_count=lambda logical: 16, Process=lambda: process, virtual_memory=lambda: memory, Error=OSError
    )
    monkeypatch.setattr(hardware, "_psutil", lambda: fake)
    found = detect(tmp_path)
    assert (found.cpus, found.logical, found.memory, found.load) == (3, 16, GIB, None)


@pytest.mark.skipif(not hasattr(sys, "_is_gil_enabled"), reason="this Python has no choice")
def test_leaves_the_gil_as_it_is():
    program = (
        "import sys; before = sys._is_gil_enabled(); from hive_task.hardware import detect, usage; detect(); usage();"
        "assert sys._is_gil_enabled() == before"
    )
    subprocess.check_call([sys.executable, "-W", "error", "-c", program])


def test_importing_it_does_not_import_psutil():
    program = "import sys, hive_task.hardware; assert 'psutil' not in sys.modules"
    subprocess.check_call([sys.executable, "-c", program])


def test_usage_counts_processor_time():
    before = usage()
    for n in itertools.count():
        if n % 1000 == 0 and usage().process - before.process > 0.05:
            break
    after = usage()
    process, machine = after.since(before)
    assert process > 0
    assert after.process - before.process == pytest.approx(process * (after.at - before.at))
    assert machine is None or 0 <= machine <= 1


def test_usage_counts_worker_processes_and_forgives_those_that_ended():
    own = usage()
    both = usage([os.getppid(), -1, 1 << 30])
    assert both.process >= own.process
    assert Usage(2.0, 1.0).since(Usage(1.0, 5.0)) == (0.0, None)
    assert Usage(1.0, 5.0).since(Usage(1.0, 1.0)) == (0.0, None)


def test_guests_are_not_counted_twice(monkeypatch):
    times = {"user": 30.0, "nice": 0.0, "idle": 60.0, "iowait": 10.0, "guest": 20.0}
    fake = types.SimpleNamespace(cpu_times=lambda: types.SimpleNamespace(_asdict=lambda: times))
    monkeypatch.setattr(hardware, "_psutil", lambda: fake)
    assert (usage().machine, usage().capacity) == (30.0, 100.0)

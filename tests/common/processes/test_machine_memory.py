"""Memory of the machine, or of the control group that a process is in: whichever is less."""

import pytest

from common.processes.machine_memory import free_bytes, memory_bytes

MEMINFO = "MemTotal:        8000000 kB\nMemFree:         1000 kB\nMemAvailable:    6000000 kB\n"
GIB = 1 << 30


def machine(tmp_path, cgroup, files):
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(MEMINFO)
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    return {"proc": proc, "groups": groups}


CASES = {
    "no group": ("", {}, 8_000_000 * 1024, 6_000_000 * 1024),
    "a group without a limit": (
        "0::/a\n",
        {"a/memory.max": "max\n", "a/memory.current": "5\n"},
        8_000_000 * 1024,
        6_000_000 * 1024,
    ),
    "a limit": ("0::/a\n", {"a/memory.max": f"{GIB}\n", "a/memory.current": f"{GIB // 4}\n"}, GIB, GIB * 3 // 4),
    "a limit of the group above": (
        "0::/a/b\n",
        {"a/memory.max": f"{GIB}\n", "a/memory.current": "0\n", "a/b/memory.max": "max\n"},
        GIB,
        GIB,
    ),
    "a container, whose group is the root": ("0::/\n", {"memory.max": f"{GIB}\n", "memory.current": "0\n"}, GIB, GIB),
    "version 1": (
        "5:cpu,memory:/x\n2:cpuset:/\n",
        {"memory/x/memory.limit_in_bytes": f"{GIB}\n", "memory/x/memory.usage_in_bytes": f"{GIB}\n"},
        GIB,
        0,
    ),
    "more used than allowed": ("0::/\n", {"memory.max": "100\n", "memory.current": "200\n"}, 100, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_smaller_limit_counts(case, tmp_path):
    cgroup, files, whole, free = CASES[case]
    where = machine(tmp_path, cgroup, files)
    assert (memory_bytes(**where), free_bytes(**where)) == (whole, free)


def test_a_system_that_does_not_say_gives_none(tmp_path):
    where = {"proc": tmp_path, "groups": tmp_path}
    assert (memory_bytes(**where), free_bytes(**where)) == (None, None)

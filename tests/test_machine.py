"""What a container lets us use, as its kernel tells it, in both versions of its files."""

import os
from pathlib import Path

import pytest

from windlass import machine

GB = 2**30


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GB, of which 6 are free, and 16 processors; its files in a folder."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    write(tmp_path, "proc/meminfo", f"MemTotal: {8 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {6 * 2**20} kB\n")
    return tmp_path


def write(folder: Path, name: str, text: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{text}\n")


def test_without_limits(kernel: Path) -> None:
    assert (machine.usable_cpus(), machine.memory_limit(), machine.free_memory()) == (16, 8 * GB, 6 * GB)
    assert machine.default_processes() == 16


def test_version_2(kernel: Path) -> None:
    write(kernel, "proc/self/cgroup", "0::/shop/worker")
    write(kernel, "cgroup/shop/cpu.max", "150000 100000")
    write(kernel, "cgroup/shop/worker/cpu.max", "max 100000")
    write(kernel, "cgroup/shop/memory.max", GB)
    write(kernel, "cgroup/shop/memory.current", GB // 2)
    write(kernel, "cgroup/shop/memory.stat", f"anon 5\nactive_file {GB // 8}\ninactive_file {GB // 8}")
    write(kernel, "cgroup/shop/worker/memory.max", "max")
    assert (machine.usable_cpus(), machine.memory_limit(), machine.free_memory()) == (2, GB, GB * 3 / 4)
    assert machine.default_processes() == 2
    write(kernel, "cgroup/shop/memory.max", GB // 4)
    assert machine.default_processes() == 1, "each runner needs memory too"
    assert machine.free_memory() == 0
    write(kernel, "cgroup/shop/cpu.max", "10000 100000")
    assert machine.usable_cpus() == 1


def test_version_1_in_a_container_that_sees_a_path_of_its_host(kernel: Path) -> None:
    write(kernel, "proc/self/cgroup", "5:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123\n1:name=systemd:/\n0::/")
    write(kernel, "cgroup/cpu/cpu.cfs_quota_us", 250_000)
    write(kernel, "cgroup/cpu/cpu.cfs_period_us", 100_000)
    write(kernel, "cgroup/memory/memory.limit_in_bytes", GB)
    write(kernel, "cgroup/memory/memory.usage_in_bytes", GB // 2)
    write(kernel, "cgroup/memory/memory.stat", f"total_active_file {GB // 8}\ntotal_inactive_file {GB // 8}")
    assert (machine.usable_cpus(), machine.memory_limit(), machine.free_memory()) == (3, GB, GB * 3 / 4)
    write(kernel, "cgroup/cpu/cpu.cfs_quota_us", -1)
    write(kernel, "cgroup/memory/memory.limit_in_bytes", 2**63 - 4096)
    assert (machine.usable_cpus(), machine.memory_limit(), machine.free_memory()) == (16, 8 * GB, 6 * GB)


def test_where_nobody_tells(kernel: Path) -> None:
    (kernel / "proc/meminfo").unlink()
    assert machine.memory_limit() == machine.free_memory() == float("inf")
    assert machine.default_processes() == 16
    assert (machine.resident(1), machine.oom_kills()) == (0, None)
    assert not machine.memory_is_short()


def test_slots_by_memory(kernel: Path) -> None:
    assert (machine.most_slots(1), machine.most_slots(4)) == (500, 500)
    write(kernel, "proc/self/cgroup", "0::/")
    write(kernel, "cgroup/memory.max", GB // 2)
    assert (machine.most_slots(1), machine.most_slots(2), machine.most_slots(1000)) == (128, 64, 1)


def test_memory_is_short_when_little_is_free(kernel: Path) -> None:
    write(kernel, "proc/self/cgroup", "0::/")
    write(kernel, "cgroup/memory.max", GB)
    write(kernel, "cgroup/memory.current", int(GB * 0.85))
    assert not machine.memory_is_short()
    write(kernel, "cgroup/memory.current", int(GB * 0.95))
    assert machine.memory_is_short()
    write(kernel, "cgroup/memory.stat", f"inactive_file {GB // 4}")
    assert not machine.memory_is_short(), "cached files are given back when asked"


def test_memory_is_short_when_something_here_waits_for_it(kernel: Path) -> None:
    told = "some avg10={} avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1"
    write(kernel, "proc/pressure/memory", told.format("9.99"))
    assert not machine.memory_is_short()
    write(kernel, "proc/pressure/memory", told.format("10.00"))
    assert machine.memory_is_short()
    write(kernel, "proc/self/cgroup", "0::/shop")
    write(kernel, "cgroup/shop/memory.pressure", told.format("0.00"))
    assert not machine.memory_is_short(), "it is the neighbours that wait"
    write(kernel, "cgroup/shop/memory.pressure", told.format("35.20"))
    assert machine.memory_is_short()

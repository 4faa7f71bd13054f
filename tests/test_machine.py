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

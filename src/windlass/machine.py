"""What this process may use of its machine: processors and memory, by the machine itself and by its container."""

import contextlib
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

PER_RUNNER = 256 * 2**20
"""Bytes of memory for each runner that is started by default; an app of a usual framework takes 100 to 200 MB."""


PER_SLOT = 4 * 2**20
"""Bytes of memory for each slot that `-c auto` may find good at most: a job's own, and its thread's."""

MOST_SLOTS = 500
"""The most slots of a runner that `-c auto` may find good: a process may open 1,024 files by default, jobs a few."""

SHORT_STALL = 10.0
"""Percent of the last ten seconds in which something here waited for memory, from which on it is short."""

SHORT_FREE = 0.1
"""The part of the memory that is free below which it is short."""


def default_processes() -> int:
    """How many runners a worker has by default: one per processor, as far as the memory is enough."""
    return int(max(1, min(usable_cpus(), memory_limit() / PER_RUNNER)))


def most_slots(processes: int) -> int:
    """How many slots each of so many runners may have at most where nobody says: by memory."""
    return int(max(1, min(MOST_SLOTS, memory_limit() / processes / PER_SLOT)))


def usable_cpus() -> int:
    """The processors that this process may use: by affinity or cpuset, and by the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cpu_quota())))


def cpu_quota() -> float:
    """Processors' worth of time that the container of this process gets; infinite without a limit."""
    return min((quota_of(folder) for folder in cgroups("cpu")), default=math.inf)


def quota_of(folder: Path) -> float:
    """The quota of one cgroup: `cpu.max`, or the two files of version 1."""
    both = words(folder / "cpu.max")
    quota, period = (
        both if len(both) == 2 else (number(folder / "cpu.cfs_quota_us"), number(folder / "cpu.cfs_period_us"))
    )
    try:
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (ValueError, OverflowError, ZeroDivisionError):
        return math.inf


def memory_limit() -> float:
    """Bytes of memory that this process and its neighbours may take together; infinite where nobody says."""
    return min([limit_of(folder) for folder in cgroups("memory")] + [amount(PROC / "meminfo", "MemTotal:", 1024)])


def free_memory() -> float:
    """Bytes of memory that can still be taken before somebody is killed; infinite where nobody says."""
    left = [limit - used_in(folder) for folder in cgroups("memory") if (limit := limit_of(folder)) < math.inf]
    return max(0.0, min([*left, amount(PROC / "meminfo", "MemAvailable:", 1024)]))


def memory_is_short() -> bool:
    """Whether somebody here waits for memory, or soon will: time to ask for less."""
    return memory_stall() >= SHORT_STALL or free_memory() < SHORT_FREE * memory_limit() < math.inf


def memory_stall() -> float:
    """Percent of the last ten seconds in which at least one task of our container waited for memory, else of this
    machine; 0 where the kernel does not tell (https://docs.kernel.org/accounting/psi.html)."""
    files = (*(folder / "memory.pressure" for folder in cgroups("memory")), PROC / "pressure" / "memory")
    told = next((text for file in files if (text := read(file))), "")
    found = re.search(r"^some avg10=([\d.]+)", told, re.MULTILINE)
    return float(found[1]) if found else 0.0


def limit_of(folder: Path) -> float:
    """The most bytes that one cgroup may take."""
    return min(number(folder / "memory.max"), number(folder / "memory.limit_in_bytes"))


def used_in(folder: Path) -> float:
    """The bytes that one cgroup has taken, without what the kernel gives back when asked: cached files."""
    old = (folder / "memory.usage_in_bytes").exists()
    used = number(folder / ("memory.usage_in_bytes" if old else "memory.current"))
    prefix = "total_" if old else ""
    cached = [amount(folder / "memory.stat", f"{prefix}{kind}_file") for kind in ("active", "inactive")]
    return used - sum(one for one in cached if one < math.inf) if used < math.inf else 0.0


def cgroups(controller: str) -> Iterator[Path]:
    """The folders of the cgroups, of either version, that this process is in for that controller."""
    for line in read(PROC / "self" / "cgroup").splitlines() or ["0::/"]:
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if not names or controller in names.split(","):
            root = CGROUPS / controller if names else CGROUPS
            folder = root / path.lstrip("/")  # in a container often a path of its host: then the root is its own
            yield from (one for one in (folder, *folder.parents) if one.is_relative_to(root))


def resident(pid: int) -> int:
    """Bytes of memory that a process has now; 0 where the system does not tell."""
    found = words(PROC / str(pid) / "statm")
    return int(found[1]) * os.sysconf("SC_PAGE_SIZE") if len(found) > 1 else 0


def cpu_time(pid: int) -> float | None:
    """Seconds of processor time that a process has taken; None where the system does not tell."""
    fields = read(PROC / str(pid) / "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if len(fields) > 12 else None


def private(pid: int) -> int:
    """Bytes that a process has for data, used or not: what RLIMIT_DATA counts. 0 where the system does not tell."""
    found = words(PROC / str(pid) / "statm")
    return int(found[5]) * os.sysconf("SC_PAGE_SIZE") if len(found) > 5 else 0


def forget_peak(pid: int) -> None:
    """Linux: have the peak memory that a process is said to have had, at its end, count from here on."""
    with contextlib.suppress(OSError):
        (PROC / str(pid) / "clear_refs").write_text("5")


def oom_kills() -> int | None:
    """How many processes this machine has ever killed because memory ran out; None where it does not tell."""
    count = amount(PROC / "vmstat", "oom_kill")
    return int(count) if count < math.inf else None


def die_first(rank: int) -> None:
    """Linux: should memory run out, be killed sooner by `rank` thousandths of the memory than who started this."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            before = int(read(PROC / "self" / "oom_score_adj") or "0")
            (PROC / "self" / "oom_score_adj").write_text(str(min(1000, before + rank)))


def megabytes(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"


def read(file: Path) -> str:
    """A small file of the kernel; empty if it is not there."""
    try:
        return file.read_text("ascii", "replace")
    except OSError:
        return ""


def words(file: Path) -> list[str]:
    """A file's words."""
    return read(file).split()


def number(file: Path) -> float:
    """A file with one number; infinite if it is not there, or has no number."""
    text = read(file).strip()
    return float(text) if text.isdigit() else math.inf


def amount(file: Path, name: str, unit: int = 1) -> float:
    """One line of a table of names and numbers; infinite if it is not there."""
    found = re.search(rf"^{re.escape(name)}\s+(\d+)", read(file), re.MULTILINE)
    return int(found[1]) * unit if found else math.inf

"""What cleans up behind a run of faults that was killed: its workers, its small disks, its cgroups, its folder.

All of these have the name of the folder: the workers in their environment, the others as their own.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent.parent
CGROUPS = Path("/sys/fs/cgroup")
PATIENCE = 30.0
"""Seconds until what does not go is left."""


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """For the length of a block: should we be killed, or told to end, somebody else cleans up."""
    command = [sys.executable, "-m", "tests.faults.guard", str(folder)]
    guard = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
    assert guard.stdin
    word = b"over"
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        word = b""
        raise
    finally:
        with contextlib.suppress(BrokenPipeError), guard.stdin as inlet:
            inlet.write(word)
        guard.wait()


def memory_group(name: str) -> Path:
    """Where a cgroup of that name stands that limits memory."""
    memory = CGROUPS / "memory"
    return (memory if memory.is_dir() else CGROUPS) / name


def drop_group(group: Path) -> None:
    """Remove a cgroup when nothing is in it any more."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)


def workers(folder: Path) -> list[psutil.Process]:
    """The processes that tell the history in that folder."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(one.environ().get("HISTORY", "/")).parent == folder and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


def disks(name: str) -> list[Path]:
    """Where file systems of that name are mounted."""
    lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(words[1]) for words in lines if words[0] == name]


def sweep(folder: Path) -> None:
    """End and remove all that has the name of this folder."""
    until = time.monotonic() + PATIENCE
    while (left := workers(folder)) and time.monotonic() < until:
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.kill()
        time.sleep(0.05)
    for disk in disks(folder.name):
        subprocess.run(["umount", "-l", str(disk)], check=False)
        shutil.rmtree(disk, ignore_errors=True)
    for group in memory_group("").glob(f"{folder.name}*"):
        drop_group(group)
    if os.geteuid() == 0:
        subprocess.run(["chattr", "-R", "-i", str(folder)], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if not sys.stdin.buffer.read():  # closed without a word: they are dead
        sweep(Path(sys.argv[1]))

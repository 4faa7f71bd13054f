"""Begins a process that runs user code: python PATH/start.py PARENT MODULE ARGUMENT...

Run by its path, because by its name the package would be imported first, which takes a good part of a second on a busy
machine. A process that cannot end with its parent yet shall not last that long.
"""

import contextlib
import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1

EX_GONE = 70
"""The exit code of a process that lost its parent, its worker or its lease."""


def command(module: str, *arguments: str) -> list[str]:
    """What starts that module, to end with the process that asks."""
    return [sys.executable, os.path.abspath(__file__), str(os.getpid()), module, *arguments]


def die_with_parent(parent: int) -> None:
    """Linux: let the kernel end this process when the thread that started it ends. It tells only of what is still to
    come, so end here if the parent is gone already."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EX_GONE)


def main() -> None:
    """Become that module, as `python -m` would."""
    parent, module = sys.argv[1:3]
    die_with_parent(int(parent))
    del sys.argv[1:3]
    if not sys.flags.safe_path:
        sys.path[0] = ""  # instead of the folder of this file
        with contextlib.suppress(OSError):
            sys.path[0] = os.getcwd()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

"""An environment for each system, in a cache folder that later runs use again."""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.rivals.systems import WINDLASS, System


class Missing(Exception):
    """A system that cannot be had here; the message says why."""


def install(system: System, cache: Path) -> Path:
    """The folder of the programs of a system's environment, made if need be. Raises `Missing`."""
    for program in system.needs:
        if not shutil.which(program):
            raise Missing(f"expected the program {program} on this machine")
    if system is WINDLASS:
        return Path(sys.executable).parent
    folder = cache / system.peer
    programs = folder / "bin"
    stamp = folder / "pins"
    pins = "\n".join((sys.version, *system.pins))
    if stamp.exists() and stamp.read_text() == pins:
        return programs
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if "npm" in system.needs:
        obey(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), *system.pins])
    elif system.pins:
        obey([sys.executable, "-m", "venv", str(folder)])
        obey([str(programs / "python"), "-m", "pip", "install", "--quiet", *system.pins])
    stamp.write_text(pins)
    return programs


def obey(command: list[str]) -> None:
    """Run a command of an installation. Raises `Missing` with its last words."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Missing(words[-1] if words else f"{command[0]} ended with {done.returncode}")


def version(system: System) -> str:
    """What the last program that a system needs says of itself."""
    return "".join(
        subprocess.run([name, "--version"], capture_output=True, text=True).stdout.strip() for name in system.needs[-1:]
    )

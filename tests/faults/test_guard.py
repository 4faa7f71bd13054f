"""A command of faults that is killed leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.field import ROOT
from tests.faults.guard import disks, workers
from tests.worker.rig import until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_ended_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "tests.faults", "--store", "sqlite", "--fault", "disk-full", "--rounds", "1000"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ran = subprocess.Popen([*command, "--folder", str(tmp_path / "state")], cwd=ROOT, env=environment)

    def folders() -> list[Path]:
        return list(tmp_path.glob("windlass-faults-*"))

    until(lambda: any((one / "history").is_dir() and workers(one) for one in folders()), "workers run")
    (folder,) = folders()
    assert disks(folder.name)
    ran.send_signal(number)
    ran.wait()
    until(lambda: not folder.exists(), "the folder is gone")
    until(lambda: not workers(folder) and not disks(folder.name), "workers and disks are gone")

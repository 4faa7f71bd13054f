"""A rig per test, and the sample app on the rig's store."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.rig import Rig


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    monkeypatch.setenv("WINDLASS_URL", rig.url)
    monkeypatch.setenv("EFFECTS", os.fspath(tmp_path / "effects"))
    yield rig
    rig.close()

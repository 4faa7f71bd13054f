"""A rig per test, and the sample app on the rig's store."""

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from tests.budget import stores
from tests.worker.rig import Rig, empty_store


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of workers on SQLite, and where it is marked on servers too."""
    if "rig" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("every_store")
        metafunc.parametrize("store", stores(metafunc.function.__name__) if marked else ["sqlite"])


@pytest.fixture
def rig(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(tmp_path, empty_store(store, tmp_path))
    monkeypatch.setenv("WINDLASS_URL", rig.url)
    monkeypatch.setenv("EFFECTS", os.fspath(tmp_path / "effects"))
    yield rig
    rig.close()


@pytest.fixture
def tasks(rig: Rig) -> Iterator[ModuleType]:
    """The sample tasks, imported anew, on this test's store."""
    sys.modules.pop("tests.worker.sample", None)
    sample = import_module("tests.worker.sample")
    yield sample
    sample.app.close()

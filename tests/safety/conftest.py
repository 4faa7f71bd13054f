"""An empty store of each kind, and apps on it."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from tests.worker.rig import empty_store
from windlass.vault import make_key

KINDS = ("sqlite", "postgres", "redis")


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    found = empty_store(request.param, tmp_path)
    monkeypatch.setenv("WINDLASS_URL", found)
    return found


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Imports the tasks anew, as a process with these keys would."""
    made: list[ModuleType] = []

    def load(*keys: str, module: str = "sealed_app") -> ModuleType:
        monkeypatch.setenv("WINDLASS_KEYS", ",".join(keys))
        sys.modules.pop(f"tests.safety.{module}", None)
        made.append(import_module(f"tests.safety.{module}"))
        return made[-1]

    yield load
    for module in made:
        module.app.close()


FIRST, SECOND, UNIQUE = make_key("k1"), make_key("k2"), make_key("unique")

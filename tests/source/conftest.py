"""Every transport with a place of its own on its real server, and an app that reads from there."""

from pathlib import Path

import pytest

from tests.source.kinds import KINDS, Kind
from tests.store.conftest import pytest_pyfunc_call  # noqa: F401 - runs coroutine functions


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on every transport; all tests of one transport in one process, which starts its server once."""
    if "kind" in metafunc.fixturenames:
        lasting = "durable" in metafunc.fixturenames
        names = [name for name in sorted(KINDS) if KINDS[name].durable or not lasting]
        groups = [pytest.param(name, marks=pytest.mark.xdist_group(f"source-{name}")) for name in names]
        metafunc.parametrize("kind", groups, indirect=True)


@pytest.fixture
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kind:
    monkeypatch.setattr("windlass.source.redis.RECLAIM", 0.3)
    monkeypatch.setattr("windlass.source.kafka.HEARTBEAT", 300)
    monkeypatch.setattr("windlass.source.nats.ACK_WAIT", 1.0)
    monkeypatch.setattr("windlass.source.bridge.WAIT", 0.2)
    return KINDS[request.param](tmp_path)


@pytest.fixture
def durable(kind: Kind) -> Kind:
    """One whose server may be restarted."""
    return kind

"""A dashboard with something of everything, served for real and in memory."""

import asyncio
import contextlib
import shutil
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvicorn
from playwright.sync_api import Browser, expect, sync_playwright
from starlette.testclient import TestClient

from tests.web.stage import fill, make_app
from tests.worker.rig import until
from windlass import App
from windlass.web import Dashboard

expect.set_options(timeout=30_000)  # a look that takes long on a busy machine is repeated later

T = TypeVar("T")

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
USERS = ("vera:viewer:vera-vera-vera-vera", "otto:operator:otto-otto-otto-otto", "anna:admin:anna-anna-anna-anna")


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with something of everything."""
    folder = tmp_path_factory.mktemp("web") / "filled"
    folder.mkdir()
    app = make_app(f"sqlite:///{folder}/windlass.db")

    async def fill_and_close() -> None:
        await fill(app)
        await app.aclose()

    apart(fill_and_close)
    return folder


@pytest.fixture
def app(filled: Path, tmp_path: Path) -> Iterator[App]:
    """An app with such a store of its own."""
    app = make_app(f"sqlite:///{shutil.copytree(filled, tmp_path / 'store')}/windlass.db")
    yield app
    app.close()


@pytest.fixture
def local(app: App) -> Iterator[TestClient]:
    """Somebody who sits at the machine, with a program."""
    headers = {"X-Windlass": "1"}
    with TestClient(
        Dashboard(app), "http://127.0.0.1:8787", client=("127.0.0.1", 5), headers=headers, follow_redirects=False
    ) as client:
        yield client


def chromium() -> str:
    """Where Chromium is."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert found, "no Chromium is here: scripts/servers brings Debian's"
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. As long as it is there this thread has a running event loop: `apart` from it others can run."""
    with (
        sync_playwright() as playwright,
        contextlib.closing(
            playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"])
        ) as browser,
    ):
        yield browser


@contextlib.contextmanager
def served(app: App) -> Iterator[str]:
    """The dashboard of an app at an address of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        config = uvicorn.Config(Dashboard(app), log_level="warning", proxy_headers=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        until(lambda: server.started, "the dashboard to start")
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()


def apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What a coroutine gives, run on a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()


@pytest.fixture(scope="module")
def stage(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, App]]:
    """The address of a dashboard that all browser tests share, and its app."""
    app = make_app(f"sqlite:///{shutil.copytree(filled, tmp_path_factory.mktemp('web') / 'stage')}/windlass.db")
    with served(app) as address:
        yield address, app

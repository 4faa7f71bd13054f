"""Sources without a broker: a watched folder, and the notifications of PostgreSQL."""

import json
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.servers import postgres_url
from tests.source.test_transports import until
from windlass import App, ConfigError
from windlass.model import Filter
from windlass.source.bridge import bridging
from windlass.source.feed import parse
from windlass.source.folder import FolderFeed


class Place:
    """An app whose task takes text."""

    def __init__(self, url: str, folder: Path) -> None:
        self.app = App(f"sqlite:///{folder}/windlass.db")

        @self.app.task(name="shop.take")
        def take(what: str) -> None: ...

        self.app.source(url, task=take)

    async def texts(self) -> list[str]:
        store = await self.app.connect()
        return sorted(json.loads(job.args)["what"] for job in (await store.find(Filter(), 1000)).jobs)

    async def become(self, *texts: str) -> None:
        async def same() -> bool:
            return await self.texts() == sorted(texts)

        await until(same, f"jobs of {texts}")


async def test_each_file_is_one_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.source.bridge.WAIT", 0.2)
    monkeypatch.setattr("windlass.source.folder.SETTLED", 0.1)
    spool = tmp_path / "spool"
    place = Place(f"{spool.as_uri()}?match=*.csv", tmp_path)
    one, two, three, four = (str(spool / f"{name}.csv") for name in ("1", "2", "3", "4"))
    store = await place.app.connect()
    async with bridging(place.app.sources, store), bridging(place.app.sources, store):
        spool.mkdir()  # they wait for it
        Path(one).write_text("x")
        (spool / "other.txt").write_text("x")
        (spool / ".hidden.csv").write_text("x")
        (spool / "folder.csv").mkdir()
        await place.become(one)
        (spool / ".hidden.csv").rename(two)
        await place.become(one, two)
    Path(three).write_text("x")
    async with bridging(place.app.sources, store):
        await place.become(one, two, three)
        Path(four).write_text("x")
        await place.become(one, two, three, four)
        Path(one).unlink()
        Path(one).write_text("another file of that name")
        await place.become(one, one, two, three, four)
    await place.app.aclose()


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("windlass.source.folder.time.monotonic", lambda: clock[0])
    feed = FolderFeed(parse(tmp_path.as_uri()), "shop.take")
    file = tmp_path / "file"
    for size in range(1, 4):
        file.write_text("x" * size)
        assert feed._look() == []
        clock[0] += 0.9
    clock[0] += 0.2
    assert [message.topic for message in feed._look()] == [str(file)]


@pytest.mark.parametrize("url", ["file://host/folder", "file:///", "file:///folder?deep=1"])
def test_folders_that_are_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="expected a source as file:///"):
        Place(url, tmp_path)


async def test_each_notification_is_one_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.source.bridge.WAIT", 0.2)
    channel = f"orders_{uuid.uuid4().hex[:8]}"
    place = Place(f"{postgres_url()}/{channel}", tmp_path)
    store = await place.app.connect()

    async def listening() -> bool:
        found = await database.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'windlass shop.take' AND query LIKE %s",
            [f"LISTEN%{channel}%"],
        )
        pids[:] = [pid for (pid,) in await found.fetchall()]
        return len(pids) == 1 and pids != ended

    async def say(*texts: str) -> None:
        for text in texts:
            await database.execute("SELECT pg_notify(%s, %s)", [channel, text])

    pids: list[Any] = []
    ended: list[Any] = []
    async with (
        await psycopg.AsyncConnection.connect(postgres_url(), autocommit=True) as database,
        bridging(place.app.sources, store),
        bridging(place.app.sources, store),
    ):
        await until(listening, "one of them to listen")
        await say("a", "a", "b")
        await place.become("a", "a", "b")
        ended += pids
        await database.execute("SELECT pg_terminate_backend(%s)", pids)
        await until(listening, "the other to listen")
        await say("c")
        await place.become("a", "a", "b", "c")
    await place.app.aclose()

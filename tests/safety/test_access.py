"""What docs/security.md grants is enough to run jobs, and no more than that."""

import asyncio
import os
import re
import shlex
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
import redis
from click.testing import CliRunner

from tests import servers
from tests.worker.rig import ROOT
from windlass import StoreUnavailable
from windlass.cli import cli
from windlass.model import State

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
LUA = "\n".join(file.read_text() for file in (ROOT / "src/windlass/store/redis/lua").glob("*.lua"))
OUTSIDE = {"ping", "info", "config|get", "select", "time", "evalsha", "eval", "ssubscribe"}
"""Commands that our scripts do not call: connections do."""

DAYS = """SELECT oid::regclass::text, relowner::regrole::text FROM pg_class
    WHERE relnamespace = 'windlass'::regnamespace AND relname ~ '_[0-9]+$' AND relkind = 'r'"""
"""The tables of single days, which retention makes and drops."""

BEYOND_A_ROLE = (
    "CREATE TABLE windlass.mine ()",
    "DROP TABLE windlass.live",
    "ALTER TABLE windlass.live ADD mine text",
    "DROP FUNCTION windlass.prune",
    "CREATE SCHEMA mine",
    "TRUNCATE windlass.live",
)
BEYOND_A_USER = (
    "GET other",
    "FLUSHALL",
    "KEYS *",
    "SCAN 0",
    "CONFIG SET maxmemory 1",
    "ACL LIST",
    "SPUBLISH other x",
    "PUBLISH other x",
    "EVAL \"return redis.call('GET', 'other')\" 0",
)

UNNEEDED = ("client|setinfo",)
"""The driver tells its name where it may, and knows that it may not everywhere."""


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found  # type: ignore[no-any-return]


def shell(*words: str) -> str:
    done = CliRunner().invoke(cli, list(words), prog_name="windlass")
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.output


def live(shop: ModuleType) -> None:
    """All that an app and its workers do with a store, in short."""
    app = shop.app
    calls = [shop.echo.bind("a"), shop.echo_in_thread.bind("b"), shop.echo_in_process.bind("c")]
    calls += [shop.fail.using(tags=["x"]).bind("d"), shop.linger.using(unique="e").bind("e")]
    jobs = app.enqueue_many(calls)
    later = [shop.echo.using(delay=3600, unique=f"later {n}").enqueue("x") for n in range(2)]
    assert not shop.echo.using(unique="later 0").enqueue("x").new

    async def serve() -> None:
        async with app.worker(concurrency=8):
            for job in jobs[:3]:
                await job.aresult(60)
            for job in jobs[3:]:
                while not (await job.arefresh()).record.state.final:
                    await asyncio.sleep(0.02)
            assert [worker.runners for worker in await (await app.connect()).workers()]
            assert await jobs[3].aretry()
            assert await later[0].acancel()
            assert await later[1].adelete()
            assert await (await shop.echo.aenqueue("f")).aresult(60) == {"result": "f"}
        store = await app.connect()
        await store.reap()
        await store.prune(dict.fromkeys((State.SUCCEEDED, State.FAILED, State.CANCELLED), 0.0))
        await app.aclose()

    asyncio.run(serve())
    assert app.jobs.count(state="succeeded") == 0
    for words in (["jobs", "list"], ["queues"], ["workers"], ["doctor"]):
        shell(*words)
    app.close()


@pytest.fixture
def roles() -> Iterator[Callable[[str], str]]:
    """PostgreSQL's roles of this test, by the names that the page gives them; and its schema, as windlass."""
    names = {name: f"{name}_{uuid.uuid4().hex[:12]}" for name in ("owner", "worker", "viewer", "windlass")}
    with psycopg.connect(servers.postgres_url(), autocommit=True) as admin:
        for name in ("owner", "worker", "viewer"):
            admin.execute(f"CREATE ROLE {names[name]} LOGIN".encode())
        admin.execute(f"GRANT CREATE ON DATABASE postgres TO {names['owner']}".encode())
        yield lambda text: re.sub(r"\b(owner|worker|viewer|windlass)\b", lambda found: names[found[0]], text)
        admin.execute(f"DROP SCHEMA IF EXISTS {names['windlass']} CASCADE".encode())
        for name in ("owner", "worker", "viewer"):
            admin.execute(f"DROP OWNED BY {names[name]}".encode())
            admin.execute(f"DROP ROLE {names[name]}".encode())


def test_roles_of_postgres(
    roles: Callable[[str], str], load: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = servers.postgres_url().rpartition("@")[2]

    def url(role: str) -> str:
        return roles(f"postgresql://{role}@{host}?schema=windlass")

    shell("migrate", "--url", url("owner"))
    with psycopg.connect(url("owner").partition("?")[0], autocommit=True) as owner:
        owner.execute(roles(block("sql")).encode())
        days = owner.execute(roles(DAYS).encode()).fetchall()
        assert days
        for name, _ in days:
            owner.execute(f"DROP TABLE {name}".encode())
    monkeypatch.setenv("WINDLASS_URL", f"{url('worker')}&migrate=no")
    live(load())
    with psycopg.connect(url("worker").partition("?")[0], autocommit=True) as worker:
        made = worker.execute(roles(DAYS).encode()).fetchall()
        assert {owner for _, owner in made} == {roles("owner")}  # retention made them anew, for its owner
        for wrong in BEYOND_A_ROLE:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                worker.execute(roles(wrong).encode())
    monkeypatch.setenv("WINDLASS_URL", f"{url('viewer')}&migrate=no")
    shop = load()
    for words in (["jobs", "list"], ["queues"], ["workers"]):
        shell(*words)
    with pytest.raises(StoreUnavailable, match="permission denied"):
        shop.echo.enqueue("x")

    async def prune() -> None:
        try:
            await (await shop.app.connect()).prune({State.FAILED: 0.0})
        finally:
            await shop.app.aclose()

    with pytest.raises(StoreUnavailable, match="permission denied for function prune"):
        asyncio.run(prune())


def test_a_user_of_redis(load: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    name, prefix = f"worker_{uuid.uuid4().hex[:12]}", f"rig_{uuid.uuid4().hex[:12]}"
    words = block("text").replace("worker", name).replace("windlass", prefix).split()
    with redis.Redis.from_url(servers.redis_url(), decode_responses=True) as admin:
        admin.execute_command(*words)
        admin.execute_command("ACL", "LOG", "RESET")
        try:
            url = servers.redis_url().replace("//", f"//{name}:PASSWORD@")
            monkeypatch.setenv("WINDLASS_URL", f"{url}?prefix={prefix}")
            live(load())
            refused: list[dict[str, Any]] = [
                one for one in admin.acl_log() if one["username"] == name and one["object"] not in UNNEEDED
            ]
            assert [(one["reason"], one["object"]) for one in refused] == []
            with redis.Redis.from_url(url) as own:
                for wrong in BEYOND_A_USER:
                    with pytest.raises(redis.ResponseError, match=r"(?i)permission|can't access"):
                        own.execute_command(*shlex.split(wrong))
        finally:
            admin.execute_command("ACL", "DELUSER", name)
    granted = {word[1:] for word in words if word.startswith("+")}
    called = {
        found.lower()
        for found in re.findall(r"(?:call|later)\('([A-Z]+)'|'(SADD|SREM)'", LUA)
        for found in found
        if found
    }
    assert granted == called | OUTSIDE


def test_files_of_sqlite_are_as_the_umask_says(
    tmp_path: Path, load: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDLASS_URL", f"sqlite:///{tmp_path}/windlass.db")
    before = os.umask(0o077)
    try:
        shop = load()
        job = shop.echo.enqueue("x")

        async def modes() -> dict[str, int]:
            async with shop.app.worker():
                await job.aresult(60)
                found = {str(path): path.stat().st_mode for path in tmp_path.rglob("*")}
            await shop.app.aclose()
            return found

        found = asyncio.run(modes())
    finally:
        os.umask(before)
    assert len(found) >= 5
    assert [path for path, mode in found.items() if mode & 0o077] == []

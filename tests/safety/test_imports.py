"""Nothing that stands in a store is ever imported: neither by a worker nor by whoever looks at the jobs."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from windlass import WindlassError
from windlass.cli import cli
from windlass.model import NewJob

MODULE = "windlass_canary_module"
NAMES = (
    f"{MODULE}.run",
    MODULE,
    f"{MODULE}:run",
    f"{MODULE}.inner.run",
    f"tests.safety.{MODULE}.run",
    "os.system",
    "antigravity.x",
)

_heard: list[str] | None = None
"""The modules whose import was begun, while somebody listens. Hooks of an audit stay for the life of a process."""


def hear(event: str, args: tuple[Any, ...]) -> None:
    if event == "import" and _heard is not None:
        _heard.append(args[0])


sys.addaudithook(hear)


@pytest.fixture
def imports() -> Iterator[Callable[[], list[str]]]:
    """Begins to listen when it is called."""

    def begin() -> list[str]:
        global _heard
        _heard = []
        return _heard

    yield begin
    globals()["_heard"] = None


def crafted() -> list[NewJob]:
    """Jobs whose every text names a module: as a task, a queue, an argument, an error that is to be retried."""
    known = "tests.safety.sealed_app"
    retry = f'{{"retry":{{"attempts":2,"backoff":0,"on":["{MODULE}.Error"],"give_up_on":["{MODULE}:Error"]}}}}'.encode()
    odd = f'{{"text":"x","n":1,"__class__":"{MODULE}.run","__module__":"{MODULE}","py/object":"{MODULE}.run"}}'.encode()
    jobs = [NewJob(id=f"task-{n}", task=name, args=b'{"text":"x"}', options=retry) for n, name in enumerate(NAMES)]
    jobs += [
        NewJob(id=f"queue-{n}", task=f"{known}.echo", queue=name, args=b'{"text":"x"}') for n, name in enumerate(NAMES)
    ]
    jobs += [NewJob(id=f"odd-{lane}", task=f"{known}.{lane}", args=odd) for lane in ("echo", "echo_in_process")]
    jobs += [
        NewJob(id=f"retry-{lane}", task=f"{known}.{lane}", args=b'{"text":"x"}', options=retry)
        for lane in ("fail", "fail_in_process")
    ]
    return jobs


def test_stored_names_import_nothing(
    url: str,
    load: Callable[..., ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    imports: Callable[[], list[str]],
) -> None:
    canary = tmp_path / "imported"
    for folder in (tmp_path, tmp_path / MODULE):
        folder.mkdir(exist_ok=True)
    (tmp_path / MODULE / "__init__.py").write_text(
        f"open({str(canary)!r}, 'w').close()\ndef run(**_): ...\nclass Error(Exception): ..."
    )
    (tmp_path / MODULE / "inner.py").write_text("def run(**_): ...")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    shop = load()
    app = shop.app

    async def over(ids: list[str]) -> None:
        for id in ids:
            while not (await app.jobs.aget(id)).record.state.final:
                await asyncio.sleep(0.02)

    async def look() -> None:
        for job in await app.jobs.afind(limit=100):
            with suppress(WindlassError, TimeoutError):
                await job.aresult(0)
        await app.jobs.acount(task=NAMES[0])

    async def serve() -> list[str]:
        store = await app.connect()
        async with app.worker(concurrency=8):
            warm = [
                await shop.echo.aenqueue("x"),
                await shop.echo_in_process.aenqueue("x"),
                await shop.fail.aenqueue("x"),
            ]
            warm += [await shop.fail_in_process.aenqueue("x")]
            await over([job.id for job in warm])
            bad = NewJob(id="warm", task=shop.echo.name, args=b'{"nonsense":1}')
            await store.put([bad])
            await over(["warm"])
            await look()
            heard = imports()
            jobs = crafted()
            await store.put(jobs)
            await over([job.id for job in jobs if not job.id.startswith("task-")])
            await look()
            heard = list(heard)
        await app.aclose()
        return heard

    heard = asyncio.run(serve())
    heard_of_the_shell = imports()
    for words in (
        ["jobs", "list"],
        ["queues"],
        ["workers"],
        ["doctor"],
        *[["jobs", "show", job.id] for job in crafted()],
    ):
        assert CliRunner().invoke(cli, words, prog_name="windlass").exit_code in (0, 3), words
    assert heard == []
    assert not [name for name in heard_of_the_shell if MODULE in name or name in ("antigravity", "os.system")]
    assert not canary.exists()
    assert app.jobs.count(state="ready") == len(NAMES)
    assert app.jobs.get("retry-fail").state == "failed"
    app.close()

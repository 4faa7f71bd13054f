"""Callbacks of a job, as users write them: on_success, on_failure, on_final."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import pytest

from tests.worker.rig import PATIENCE, empty_store
from windlass import App, ConfigError, PayloadTooLarge, Retry, Secret, current, every
from windlass.vault import make_key

KEYS = [make_key("k1"), make_key("unique")]
heard: list[tuple[str, Any]] = []


def make_app(url: str, **settings: Any) -> App:
    app = App(url, **settings)

    @app.task(name="tell", queue="calls")
    async def tell(word: str = "over") -> str:
        parent = await app.jobs.aget(current().parent or "")
        heard.append((word, parent.args["n"]))
        return f"{word}: {parent.state} {await parent.aresult() if parent.state == 'succeeded' else parent.error}"

    @app.task(name="work", retry=Retry(attempts=1))
    async def work(n: int) -> int:
        if n < 0:
            raise ValueError("below zero")
        return n * 2

    @app.task(name="both", on_final=tell, on_success=[tell.bind("good")])
    async def both(n: int) -> int:
        return n * 2

    @app.task(name="hidden")
    async def hidden(word: Annotated[str, Secret()]) -> str:
        return f"{len(word)} of {current().parent}"

    heard.clear()
    return app


async def end(app: App, *ids: str) -> list[Any]:
    """The results of those jobs, once a worker has run them and whatever led to them."""
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    async with app.worker(concurrency=4):
        while len(jobs := await app.jobs.aget_many(ids)) < len(ids):
            assert loop.time() < until, jobs
            await asyncio.sleep(0.01)
        results = [await job.aresult(PATIENCE) for job in jobs]
    await app.aclose()
    return results


def test_a_callback_knows_what_it_follows(tmp_path: Path) -> None:
    app = make_app(f"sqlite:///{tmp_path}/windlass.db")
    work, tell = app.tasks["work"], app.tasks["tell"]
    good = work.using(on_success=tell.bind("good"), on_failure=tell.bind("bad")).enqueue(21)
    bad = work.using(on_success=tell.bind("good"), on_failure=[tell.bind("bad"), tell]).enqueue(-1)
    results = asyncio.run(end(app, f"{good.id}.1s.0", f"{bad.id}.1f.1", f"{bad.id}.1f.2"))
    assert results[0] == "good: succeeded 42"
    assert results[1].startswith("bad: failed Failure(type='ValueError', message='below zero'")
    assert results[2].startswith("over: failed")
    assert sorted(heard) == [("bad", -1), ("good", 21), ("over", -1)]
    assert app.jobs.count() == 5


def test_callbacks_of_a_task_and_of_one_call(tmp_path: Path) -> None:
    app = make_app(f"sqlite:///{tmp_path}/windlass.db")
    both, tell = app.tasks["both"], app.tasks["tell"]
    plain = both.enqueue(1)
    changed = both.using(on_success=tell.bind("better")).enqueue(2)
    without = both.using(on_success=(), on_final=()).enqueue(3)
    ids = [f"{job.id}.1s.{place}" for job in (plain, changed) for place in (0, 1)]
    results = asyncio.run(end(app, *ids, without.id))
    assert [result.partition(":")[0] for result in results[:4]] == ["good", "over", "better", "over"]
    assert app.jobs.count() == 7


def test_a_chain(tmp_path: Path) -> None:
    app = make_app(f"sqlite:///{tmp_path}/windlass.db")
    both, work, tell = (app.tasks[name] for name in ("both", "work", "tell"))
    third = work.using(on_success=tell.using(priority=3, tags=["last"]).bind("last"))
    job = both.using(on_success=third.bind(5), on_final=()).enqueue(1)
    assert asyncio.run(end(app, f"{job.id}.1s.0.1s.0")) == ["last: succeeded 10"]
    assert app.jobs.find(tag="last")[0].priority == 3


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis"])
def test_with_encryption(kind: str, tmp_path: Path) -> None:
    """What a callback is given is sealed with the first job, in stores and under whatever id it gets."""
    app = make_app(empty_store(kind, tmp_path), keys=KEYS)
    both, hidden = app.tasks["both"], app.tasks["hidden"]
    last = hidden.using(meta={"a": 1}).bind("canary")
    job = both.using(on_success=hidden.using(on_success=last).bind("canary 2"), on_final=()).enqueue(1)
    follow = job.refresh().record.follow
    assert follow is not None
    assert b"sealed:" in follow
    assert b"canary" not in follow
    results = asyncio.run(end(app, f"{job.id}.1s.0", f"{job.id}.1s.0.1s.0"))
    assert results == [f"8 of {job.id}", f"6 of {job.id}.1s.0"]
    last_job = app.jobs.get(f"{job.id}.1s.0.1s.0")
    assert (last_job.args, last_job.meta) == ({"word": "***"}, {"a": 1})
    app.close()


@pytest.mark.parametrize("keys", [(), KEYS])
def test_callbacks_of_what_schedules_and_events_make(keys: list[str], tmp_path: Path) -> None:
    app = make_app(f"sqlite:///{tmp_path}/windlass.db", keys=keys)
    both, hidden, tell = app.tasks["both"], app.tasks["hidden"], app.tasks["tell"]
    app.schedules.create("often", every(days=1), both.using(on_success=hidden.bind("four"), on_final=()).bind(1))
    app.on("n", name="n")(both)
    ids = [f"{app.schedules.trigger('often').id}.1s.0", f"{app.publish('n', 5)[0].id}.1s.1"]
    results = asyncio.run(end(app, *ids))
    assert results == [f"4 of {ids[0][:-5]}", "over: succeeded 10"]
    assert tell.name == app.jobs.get(ids[1]).task


def test_callbacks_that_cannot_be(tmp_path: Path) -> None:
    app = make_app(f"sqlite:///{tmp_path}/windlass.db", max_payload=2048)
    work, tell = app.tasks["work"], app.tasks["tell"]
    with pytest.raises(ConfigError, match="a task, or a call made by"):
        work.using(on_success=print)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="another app"):
        work.using(on_final=make_app(f"sqlite:///{tmp_path}/other.db").tasks["tell"])
    for wrong in (tell.using(id="x"), tell.using(unique="x")):
        with pytest.raises(ConfigError, match="for calls that are made at once"):
            work.using(on_final=wrong)
    with pytest.raises(PayloadTooLarge):
        work.using(on_final=[tell.bind("x" * 1000), tell.bind("x" * 1000)]).enqueue(1)
    with pytest.raises(TypeError, match="n"):
        work.using(on_final=work)
    chain = tell
    for _ in range(4):
        chain = tell.using(on_final=chain)
    with pytest.raises(ConfigError, match="at most 4 jobs may follow"):
        tell.using(on_final=chain)


def test_outside_of_a_callback_there_is_no_parent() -> None:
    assert current().parent is None

"""Jobs that an operator puts into another queue, or gives another priority."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from msgspec import UNSET
from msgspec.structs import replace

from tests.worker.rig import PATIENCE, empty_store
from windlass import App, CallError, ConfigError, limit
from windlass.cli import cli
from windlass.loader import load
from windlass.model import JobRecord, Need
from windlass.place import Change
from windlass.standing import place_of
from windlass.vault import make_key

KEYS = [make_key("k1"), make_key("unique")]


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis"])
def test_jobs_go_elsewhere_and_pass_the_gates_there(kind: str, tmp_path: Path) -> None:
    app = App(empty_store(kind, tmp_path), keys=KEYS)
    app.queue("narrow", gates=limit(1, name="door"))
    app.queue("old", aging=200)

    @app.task(name="work", queue="wide", gates=limit(9, name="own"))
    async def work(n: int) -> int:
        return n

    jobs = [work.using(priority=n, unique=f"key {n}").enqueue(n) for n in range(3)]
    apart = work.using(queue="apart", delay=3600).enqueue(7)
    assert app.jobs.move("narrow", queue="wide") == 3
    assert app.jobs.move("narrow", queue="wide") == 0
    assert {need.gate for need in jobs[1].refresh().record.gates} == {"own", "door"}
    assert app.jobs.reprioritise(50, task=work, queue="narrow", state="waiting") == 3
    assert [job.refresh().record.priority for job in jobs] == [50, 50, 50]
    assert app.jobs.move("old", queue="narrow") == 3
    record = jobs[1].refresh().record
    assert (record.queue, record.priority, record.ahead, jobs[1].priority) == ("old", -1, -50.0, 50)
    assert {need.gate for need in record.gates} == {"own"}
    assert app.jobs.move("plain", queue="old") == 3
    assert (jobs[1].refresh().record.priority, jobs[1].record.ahead, jobs[1].record.options) == (50, 0, None)
    assert not work.using(unique="key 1").enqueue(1).new
    assert apart.refresh().record.queue == "apart"

    async def main() -> list[int]:
        async with app.worker(concurrency=2):
            results = [await job.aresult(PATIENCE) for job in jobs]
        await app.aclose()
        return results

    assert asyncio.run(main()) == [0, 1, 2]
    assert app.jobs.move("narrow", queue="plain") == 0, "what is over stays"
    app.close()


def test_a_gate_that_a_task_has_itself_stays_when_its_queue_has_it_too() -> None:
    app = App("sqlite:///:memory:")
    app.queue("mail", gates=[limit(9, name="api", weight=3), limit(2, name="mail")])

    @app.task(queue="mail", gates=limit(9, name="api", weight=2))
    async def send() -> None: ...

    job = send.enqueue()
    assert set(job.refresh().record.gates) == {Need("api", 3), Need("mail")}
    assert app.jobs.move("plain", queue="mail") == 1
    assert job.refresh().record.gates == (Need("api", 2),)
    assert app.jobs.move("mail", queue="plain") == 1
    assert set(job.refresh().record.gates) == {Need("api", 3), Need("mail")}
    app.close()


def test_a_move_undoes_nothing_that_others_change_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App("sqlite:///:memory:")

    @app.task(name="work", queue="here")
    async def work() -> None: ...

    async def main() -> None:
        job, apart = await work.aenqueue(), await work.aenqueue()
        store = await app.connect()
        find = store.find

        async def late(*given: Any) -> Any:
            page = await find(*given)
            monkeypatch.setattr(store, "find", find)
            assert await app.jobs.areprioritise(7, task="work") == 2
            await store.amend([change_of(await store.get([apart.id]), "apart")])
            return page

        monkeypatch.setattr(store, "find", late)
        assert await app.jobs.amove("there", queue="here", state="ready") == 1
        found = [(one.record.queue, one.record.priority) for one in await app.jobs.aget_many([job.id, apart.id])]
        assert found == [("there", 7), ("apart", 7)]
        await app.aclose()

    asyncio.run(main())


def change_of(jobs: Sequence[JobRecord], queue: str) -> Change:
    """A job to another queue."""
    was = replace(place_of(jobs[0]), options=UNSET)
    return Change(id=jobs[0].id, was=was, now=replace(was, queue=queue))


def test_who_names_no_jobs_moves_none(tmp_path: Path) -> None:
    app = App(f"sqlite:///{tmp_path}/windlass.db")
    with pytest.raises(CallError, match="every job"):
        app.jobs.move("there")
    with pytest.raises(ConfigError, match="queue"):
        app.jobs.move("not a name", queue="here")
    with pytest.raises(ConfigError, match="-100 to 100"):
        app.jobs.reprioritise(101, queue="here")
    app.close()


def test_the_command_line_asks_before_it_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"""
from windlass import App, limit
app = App("sqlite:///{tmp_path}/windlass.db")
app.queue("narrow", gates=limit(1, name="door"))
@app.task(name="work", queue="wide")
async def work(): ...
"""
    (tmp_path / "standing_app.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    app = load("standing_app:app")
    jobs = [app.tasks["work"].enqueue() for _ in range(2)]

    def run(*args: str) -> Result:
        return CliRunner().invoke(cli, ["jobs", *args])

    move = ("move", "standing_app:app", "--to", "narrow")
    assert "which jobs? None came" in run(*move).output
    assert "only jobs that are" in run(*move, "--state", "failed").output
    asked = run(*move, "--queue", "wide")
    assert (asked.exit_code, "Move 2 jobs to narrow? Nobody is here to ask" in asked.output) == (2, True)
    assert run(*move, "--queue", "wide", "-y").output == "2 jobs now in narrow\n"
    assert run(*move, "--queue", "wide", "-y").output == "0 jobs now in narrow\n"
    assert [need.gate for need in jobs[0].refresh().record.gates] == ["door"]
    level = ("priority", "standing_app:app", "--to", "-7", "--task", "work", "--json", "-y")
    assert json.loads(run(*level).output) == {"verb": "priority", "done": 2}
    assert jobs[0].refresh().priority == -7
    app.close()

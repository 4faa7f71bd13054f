"""Encryption at rest: what a store holds, who can read it, and what becomes of what cannot be read."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from tests.safety.conftest import FIRST, SECOND, UNIQUE
from tests.safety.look import everything_in
from windlass import App, ConfigError, JobFailed, Outbox
from windlass.cli import cli
from windlass.model import NewJob
from windlass.vault import Vault, make_key

Load = Callable[..., ModuleType]
CANARY = "canary-5105105105105100"


async def run(app: App, *jobs: Any) -> None:
    """Let a worker of this app run these jobs to their ends."""
    async with app.worker(concurrency=8):
        for job in jobs:
            with contextlib.suppress(Exception):
                await job.aresult(60)
    await app.aclose()


def shell(*words: str) -> str:
    done = CliRunner().invoke(cli, list(words), prog_name="windlass")
    assert done.exit_code == 0, done.output
    return done.output


def test_a_store_holds_nothing_of_a_payload(url: str, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = load(FIRST, UNIQUE)
    calls = [sealed.echo, sealed.echo_in_thread, sealed.echo_in_process, sealed.fail, sealed.fail_in_process]
    calls += [sealed.cancel, sealed.linger] + [sealed.book] * (not url.startswith("redis"))
    jobs = [task.using(meta={"for": CANARY}, unique=CANARY, tags=["eu"]).enqueue(CANARY) for task in calls]
    later = sealed.echo.using(delay=3600, unique="later").enqueue(CANARY)
    many = sealed.app.enqueue_many([sealed.echo.bind(CANARY, n) for n in range(3)])
    assert all(job.args["text"] == CANARY for job in (*jobs, later, *many))
    asyncio.run(run(sealed.app, *jobs, *many))

    assert CANARY.encode() not in everything_in(url)
    for job in (*jobs, later):
        found = sealed.app.jobs.get(job.id)
        assert (found.args["text"], found.meta) == (CANARY, {"for": CANARY} if job is not later else {})
    loop, thread, process, failed, failed_there, cancelled, lingered, *booked = jobs
    assert [job.result() for job in (loop, thread, process)] == [{"result": CANARY}] * 3
    assert [job.result() for job in booked] == [f"booked {CANARY}"] * len(booked)
    for job in (failed, failed_there):
        with pytest.raises(JobFailed, match=f"cannot take {CANARY}") as told:
            job.result()
        assert f"cannot take {CANARY}" in told.value.traceback
        assert job.error.type == "ValueError"
    assert cancelled.refresh().reason == f"do not want {CANARY}"
    assert lingered.refresh().progress.note == f"note {CANARY}"

    every = ["jobs", "list"], ["jobs", "list", "--json"], ["doctor"], *[["jobs", "show", job.id] for job in jobs]
    assert any(CANARY in shell(*words) for words in every)  # this shell has the key
    monkeypatch.delenv("WINDLASS_KEYS")
    assert all(CANARY not in shell(*words) for words in every)
    assert "(encrypted)" in shell("jobs", "show", failed.id)
    assert "ValueError" in shell("jobs", "show", failed.id)


def test_keys_rotate_and_a_missing_one_fails_the_job_not_the_worker(url: str, load: Load) -> None:
    old = load(FIRST, UNIQUE)
    job = old.echo.using(unique="one").enqueue(CANARY)
    assert old.app.jobs.get(job.id).record.unique not in (None, Vault().unique(job.task, "one"))
    old.app.close()
    both = load(SECOND, FIRST, UNIQUE)
    assert not both.echo.using(unique="one").enqueue(CANARY).new
    asyncio.run(run(both.app, both.app.jobs.get(job.id)))
    assert both.app.jobs.get(job.id).result() == {"result": CANARY}
    late = old.echo.using(unique="three").enqueue(CANARY)
    new = load(SECOND, UNIQUE)
    fine = new.echo.enqueue("fine")
    asyncio.run(run(new.app, new.app.jobs.get(late.id), fine))
    assert new.app.jobs.get(fine.id).result() == {"result": "fine"}
    with pytest.raises(JobFailed, match=r"encrypted with key 'k1'; this process has only k2\. Add that key"):
        new.app.jobs.get(late.id).result()
    without = load()
    with pytest.raises(JobFailed, match="encrypted with key 'k1'"):  # a reason that everybody may read
        without.app.jobs.get(late.id).result()
    both = load(SECOND, FIRST, UNIQUE)
    assert both.app.jobs.get(late.id).retry()
    asyncio.run(run(both.app, both.app.jobs.get(late.id)))
    assert both.app.jobs.get(late.id).result() == {"result": CANARY}


def test_turning_keys_on_changes_unique_keys_and_rotating_does_not() -> None:
    def hashed(*keys: str) -> str:
        return Vault(keys).unique("shop.pay", "order:42")

    assert hashed() != hashed(FIRST, UNIQUE)
    assert len({hashed(*keys, UNIQUE) for keys in ((FIRST,), (SECOND, FIRST), (FIRST, "plain"), ("plain", FIRST))}) == 1


def test_what_was_pasted_forged_or_damaged_does_not_run(url: str, load: Load) -> None:
    sealed = load(FIRST, UNIQUE)
    theirs = sealed.echo.enqueue(CANARY)
    asyncio.run(run(sealed.app, theirs))
    record = asyncio.run(raw(sealed.app, theirs.id))
    echo, fail = sealed.echo.name, sealed.fail.name
    another = App(url, keys=[make_key("k1"), UNIQUE]).vault
    forged = {
        "pasted into another job": (echo, record.args),
        "pasted into another task": (fail, record.args),
        "a result as arguments": (echo, record.result),
        "cut": (echo, record.args[:-9]),
        "changed": (echo, record.args[:40] + bytes([record.args[40] ^ 1]) + record.args[41:]),
        "no base64": (echo, b"sealed:k1:*"),
        "a key of that name": (echo, another.seal(b'{"text":"x"}', "forged-6", echo, "args")),
        "not encrypted": (echo, b'{"text":"x"}'),
        "an unknown key": (echo, b"sealed:no:" + b"A" * 40),
    }
    jobs = [NewJob(id=f"forged-{n}", task=task, args=args) for n, (task, args) in enumerate(forged.values())]

    async def put() -> None:
        await (await sealed.app.connect()).put(jobs)
        fine = await sealed.echo.aenqueue("fine")
        await run(sealed.app, *[await sealed.app.jobs.aget(job.id) for job in jobs], fine)

    asyncio.run(put())
    said = {job.id: sealed.app.jobs.get(job.id).error for job in jobs}
    assert {error.type for error in said.values()} == {"windlass.errors.DecodeError"}
    for (what, _), error in zip(forged.items(), said.values(), strict=True):
        assert "this job" in error.message, what
    assert sealed.app.jobs.count(state="succeeded") == 2

    both = load(FIRST, UNIQUE, "plain")  # while a backlog from before the keys drains
    again = both.app.jobs.get("forged-7")
    assert again.retry()
    asyncio.run(run(both.app, again))
    assert again.result() == {"result": "x"}


async def raw(app: App, id: str) -> Any:
    """A job as the store has it."""
    found = (await (await app.connect()).get([id]))[0]
    await app.aclose()
    return found


def test_outbox_and_own_transactions_seal_too(tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_URL", f"sqlite:///{tmp_path}/jobs.db")
    sealed = load(FIRST, UNIQUE)
    shop = f"sqlite:///{tmp_path}/shop.db"
    outbox = Outbox(sealed.app, shop)
    outbox.create_table()
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as db:
        db.execute("BEGIN")
        job = outbox.put(db, sealed.echo.using(unique=CANARY).bind(CANARY))
        db.commit()
    assert CANARY.encode() not in everything_in(shop)
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as db:
        db.execute("BEGIN")
        inside = sealed.echo.using(tx=db).enqueue(CANARY)
        db.commit()

    async def both() -> None:
        async with sealed.app.worker():
            assert await inside.aresult(60) == {"result": CANARY}
            while not await sealed.app.jobs.aget_many([job.id]):  # the test's time limit ends this
                await asyncio.sleep(0.05)
            assert await job.aresult(60) == {"result": CANARY}
        await sealed.app.aclose()

    asyncio.run(both())
    assert CANARY.encode() not in everything_in(f"sqlite:///{tmp_path}/jobs.db")


def test_moving_a_store_needs_no_key(url: str, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = load(FIRST, UNIQUE)
    job = sealed.echo.using(unique="one", meta={"m": 1}).enqueue(CANARY)
    sealed.app.close()
    monkeypatch.delenv("WINDLASS_KEYS")
    there = f"sqlite:///{tmp_path}/there.db"
    assert "1 job moved" in shell("move", url, there, "--yes").replace("1 jobs", "1 job")
    assert '"healthy"' in CliRunner().invoke(cli, ["doctor", there, "--json"]).output
    monkeypatch.setenv("WINDLASS_URL", there)
    sealed = load(FIRST, UNIQUE)
    assert not sealed.echo.using(unique="one").enqueue("another").new
    asyncio.run(run(sealed.app, sealed.app.jobs.get(job.id)))
    assert sealed.app.jobs.get(job.id).result() == {"result": CANARY}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([FIRST], "none of id 'unique' came"),
        ([UNIQUE], "none that encrypts came, only 'unique'. Add one, or 'plain'"),
        ([FIRST, FIRST, UNIQUE], "two of id 'k1' came"),
        (["k1:c2hvcnQ=", UNIQUE], "entry 1 is none"),
        ([UNIQUE, FIRST.partition(":")[2]], "entry 2 is none"),
        ([FIRST[:-2], UNIQUE], "entry 1 is none"),
        (7, "int came"),
    ],
)
def test_wrong_keys_are_refused_and_never_shown(keys: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as told:
        App("sqlite:///:memory:", keys=keys)
    assert expected in str(told.value)
    assert all(part not in str(told.value) for key in (FIRST, UNIQUE) for part in [key.partition(":")[2][:12]])


def test_keys_are_not_for_the_project_file_nor_for_reprs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = App("sqlite:///:memory:", keys=f"{FIRST},{UNIQUE}")
    shown = f"{app.config!r} {app.vault!r} {app!r}"
    assert not [key for key in (FIRST[3:], UNIQUE[7:]) if key in shown]
    (tmp_path / "pyproject.toml").write_text(f'[tool.windlass]\nkeys = ["{FIRST}"]\n')
    with pytest.raises(ConfigError, match="WINDLASS_KEYS") as told:
        App()
    assert FIRST[3:] not in str(told.value)


def test_keygen_makes_what_an_app_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WINDLASS_KEYS", raising=False)
    first = CliRunner().invoke(cli, ["keygen"]).stdout.strip()
    App("sqlite:///:memory:", keys=first)
    monkeypatch.setenv("WINDLASS_KEYS", first)
    new = CliRunner().invoke(cli, ["keygen"]).stdout.strip()
    assert App("sqlite:///:memory:", keys=f"{new},{first}").vault.seals

"""Rows that nobody of ours wrote never stop a worker and never run anything."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from tests.safety import crafted
from windlass import State
from windlass.cli import cli

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def test_crafted_rows(
    url: str, load: Callable[..., ModuleType], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = load().app
    caplog.set_level(logging.INFO, "windlass")
    canary = tmp_path / "canary"

    async def serve() -> None:
        await app.connect()
        assert await asyncio.to_thread(crafted.put, url, canary) >= 95
        await asyncio.to_thread(look)
        listed = [job async for job in every(state="ready")]
        without_job = 1 if url.startswith("redis") else 0
        assert len(listed) + without_job == await app.jobs.acount(state="ready")
        async with app.worker(concurrency=8):
            fine = [await load_echo(n) for n in range(20)]
            assert [await job.aresult(60) for job in fine] == [{"result": f"fine {n}"} for n in range(20)]
            while await app.jobs.acount(
                state="ready", task=crafted.TASK, queue="default"
            ):  # the test's limit ends this
                await asyncio.sleep(0.05)
            while await app.jobs.acount(state="running", queue="default") > 1:  # one was written as running
                await asyncio.sleep(0.05)
            found = {job.id: job async for job in every()}
        for id, job in found.items():
            if id.startswith(("args-", "options-", "utf-", "garbage-")):
                assert job.state == State.FAILED, (id, job.state)
                assert job.error, id
                assert job.error.message, id
        await app.aclose()

    async def load_echo(n: int) -> Any:
        return await app.tasks[crafted.TASK].aenqueue(f"fine {n}")

    async def every(**which: Any) -> AsyncIterator[Any]:
        after = None
        while True:
            page = await app.jobs.afind(limit=7, after=after, **which)
            for job in page:
                yield job
            after = page.after
            if after is None:
                return

    asyncio.run(serve())
    assert not canary.exists()
    assert not [line for line in caplog.messages if CONTROL.search(line)]
    look()


def look() -> None:
    """Nobody who looks is hindered, nor is his terminal steered."""
    ready = ["jobs", "list", "--limit", "500", "--state", "ready"]
    for words in (["jobs", "list", "--limit", "500"], ready, ["queues"], ["doctor"], ["workers"]):
        done = CliRunner().invoke(cli, words, prog_name="windlass")
        assert done.exit_code in (0, 3), (words, done.output, done.exception)
        assert not CONTROL.search(done.output), words
        done = CliRunner().invoke(cli, [*words, "--json"], prog_name="windlass")
        assert done.exit_code in (0, 3), (words, done.output, done.exception)
        json.loads(done.stdout)
        assert not CONTROL.search(done.output), words

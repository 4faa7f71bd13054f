"""Log lines as JSON, and the fields of jobs on the records of any logger."""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import dedent

import pytest
from click.testing import CliRunner

from tests.worker.rig import Rig, until
from windlass import App, Hook
from windlass.cli import cli
from windlass.hook import Sending
from windlass.logs import JobFields
from windlass.worker.jsonlines import JsonLines

TASKS = """
    import asyncio, logging, warnings
    from windlass import App, Retry, current

    app = App()
    shop = logging.getLogger("shop.mail")

    @app.task(name="loop", queue="mail", retry=Retry(attempts=2, backoff=0))
    async def loop():
        await asyncio.to_thread(shop.warning, "of loop\\n{", extra={"order": 7, "when": {1, 2}})
        if current().attempt == 1:
            raise ValueError("once")
        current().log.info("it is well")

    @app.task(name="thread")
    def thread():
        warnings.warn("of thread")

    @app.task(name="process", executor="process")
    def process():
        try:
            1 / 0
        except ZeroDivisionError:
            shop.exception("of process")
"""


TRACE = "0af7651916cd43dd8448eb211c80319c"


class Traced(Hook):
    @contextlib.contextmanager
    def sending(self, jobs: Sequence[Sending]) -> Iterator[None]:
        for job in jobs:
            job.carry({"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
        yield


def nothing() -> None: ...


def test_a_worker_writes_nothing_but_json_with_the_fields_of_jobs(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(dedent(TASKS))
    rig = Rig(tmp_path)
    app = App(rig.url, hooks=[Traced()])
    jobs = [app.task(name=name, queue="mail")(nothing).enqueue() for name in ("loop", "thread", "process")]
    try:
        worker = rig.start("--log-format", "json", "-p", "1", app="shop:app", cwd=tmp_path)
        until(lambda: all(job.refresh().record.state.final for job in jobs), "jobs")
        assert rig.stop(worker) == 0
    finally:
        rig.close()
        app.close()
    lines = [json.loads(line) for line in rig.text().splitlines()]
    assert all({"timestamp", "level", "logger", "message"} <= line.keys() for line in lines)
    assert "worker is ready" in lines[0]["message"]
    assert "job_id" not in lines[0]
    told = {line["message"].split("\n")[0]: line for line in lines if "job_id" in line}
    for job, said in zip(jobs, ("of loop", None, "of process"), strict=True):
        runner = {line["runner"] for line in lines if line.get("job_id") == job.id}
        assert len(runner) == 1
        if said:
            assert told[said]["task"] == job.record.task
    assert [line["attempt"] for line in lines if line["message"] == "of loop\n{"] == [1, 2]
    assert told["of loop"]["queue"] == "mail"
    assert told["of loop"]["order"] == 7
    assert told["of loop"]["level"] == "WARNING"
    assert told["it is well"]["logger"] == "windlass.job"
    assert "ZeroDivisionError" in told["of process"]["exc_info"]
    assert {line["trace_id"] for line in told.values()} == {TRACE}
    assert [line for line in lines if line["logger"] == "py.warnings" and line["task"] == "thread"]


def test_a_record_that_is_no_json_is_still_a_line(caplog: pytest.LogCaptureFixture) -> None:
    formatter = JsonLines()
    for message, args in (("a\udcff %s", ("\x1b",)), ("%d", ("x",)), ("fine", ())):
        record = logging.LogRecord("shop", logging.INFO, "", 0, message, args, None)
        record.odd = {(1, "x"): {1}, "y": object()}
        JobFields().filter(record)
        assert {"level": "INFO", "logger": "shop"}.items() <= json.loads(formatter.format(record)).items()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "windlass.worker.jsonlines")
    monkeypatch.setitem(sys.modules, "pythonjsonlogger.msgspec", None)
    monkeypatch.setattr(logging.getLogger("windlass"), "handlers", [])
    monkeypatch.setenv("WINDLASS_LOG_FORMAT", "json")
    found = CliRunner().invoke(cli, ["worker", "shop:app"])
    assert "pip install 'windlass[json]'" in found.output
    assert found.exit_code == 2

"""What jobs log is kept with them."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Annotated, Any

import pytest
from click.testing import CliRunner

from tests.worker.rig import PATIENCE
from windlass import App, Job, Retry, Secret, current
from windlass.cli import cli
from windlass.lines import MOST, fresh
from windlass.vault import make_key
from windlass.worker.logs import keeping

shop = logging.getLogger("shop.mail")


def make_app(url: str, **settings: Any) -> App:
    app = App(url, **settings)

    @app.task(name="mails", retry=Retry(attempts=2, backoff=0))
    async def mails(word: Annotated[str, Secret()]) -> None:
        current().log.info("begins with %s", word)
        shop.warning("slow:\n%s", word)
        logging.getLogger("quiet").debug("nobody keeps this")
        await asyncio.to_thread(shop.error, "from a thread\x1b[2J")
        if current().attempt == 1:
            try:
                raise KeyError("gone")
            except KeyError:
                current().log.exception("it went wrong")
            raise ValueError("no")

    @app.task(name="waits")
    def waits() -> None:
        current().log.info("is here")
        while not current().cancelled:
            time.sleep(0.01)

    @app.task(name="talks")
    async def talks() -> None:
        for number in range(1_000):
            current().log.info("line %d %s", number, "x" * (5_000 if number == 900 else 30))

    @app.task(name="silent")
    async def silent() -> None: ...

    return app


async def over(app: App, *names: str) -> list[Job[Any]]:
    """A job of "mails" and of these tasks, when they are over; "waits" is cancelled once its line was seen."""
    async with app.worker(concurrency=4), asyncio.timeout(PATIENCE):
        jobs = [await app.tasks["mails"].aenqueue("sesame"), *[await app.tasks[name].aenqueue() for name in names]]
        if "waits" in names:
            while "is here" not in (await jobs[-1].arefresh()).lines:
                await asyncio.sleep(0.05)
            await jobs[-1].acancel()
        for job in jobs:
            while not (await job.arefresh()).record.state.final:
                await asyncio.sleep(0.05)
    await app.aclose()
    return jobs


def test_what_a_job_logs_is_kept_with_its_attempt(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers), logging.getLogger("shop").level
    url = f"sqlite:///{tmp_path}/windlass.db"
    mails, talks, silent, waits = asyncio.run(over(make_app(url), "talks", "silent", "waits"))
    assert (root.level, root.handlers, logging.getLogger("shop").level) == before

    [failed] = mails.attempts
    assert [row[24:] for row in failed.lines.splitlines()[:4]] == [
        "INFO    begins with ***",
        "WARNING shop.mail: slow:",
        "",
        "ERROR   shop.mail: from a thread\\x1b[2J",
    ]
    assert failed.lines.splitlines()[2] == "    ***"
    assert "    KeyError: 'gone'" in failed.lines
    assert mails.lines.count("begins with ***") == 1
    assert "KeyError" not in mails.lines
    assert "nobody" not in mails.lines + failed.lines

    assert len(talks.lines) < MOST + 100
    assert talks.lines.startswith("(")
    assert talks.lines.splitlines()[-1].endswith(f"line 999 {'x' * 30}")
    assert fresh(talks.lines, 998) == (talks.lines.splitlines()[-2] + "\n" + talks.lines.splitlines()[-1], 1000)
    assert silent.lines == ""
    assert waits.lines.endswith("is here")

    said = CliRunner().invoke(cli, ["jobs", "logs", mails.id, "--follow", "--url", url], catch_exceptions=False).output
    assert said.count("begins with ***") == 2
    assert said.index("Attempt 1") < said.index("KeyError") < said.index("Attempt 2")


def test_lines_are_encrypted_where_payloads_are(tmp_path: Path) -> None:
    keys = f"{make_key('k')},{make_key('unique')}"
    [mails] = asyncio.run(over(make_app(f"sqlite:///{tmp_path}/windlass.db", keys=keys)))
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"begins with" not in stored
    assert "begins with" in mails.lines
    assert "begins with" in mails.attempts[0].lines


def test_warnings_that_nobody_listens_to_still_go_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with keeping():
        shop.warning("heard")
    assert capsys.readouterr().err == "heard\n"

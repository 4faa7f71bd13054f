"""Alerts: what a rule sees, that an alarm is told once and once when it is over, and how it arrives."""

import asyncio
import json
import socketserver
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from click.testing import CliRunner
from standardwebhooks import Webhook
from starlette.testclient import TestClient

from tests.worker.rig import PATIENCE
from windlass import App, ConfigError, Fail, standby
from windlass.alert import (
    QUEUE,
    Alert,
    Message,
    Rule,
    Watched,
    advance,
    email,
    failed_jobs,
    failure_rate,
    no_worker,
    queue_age,
    schedule_missed,
    slack,
    webhook,
)
from windlass.cli import cli
from windlass.errors import StoreError
from windlass.model import Doc, Filter, NewJob, Past, Tally, WorkerInfo
from windlass.notice import STALE, mail
from windlass.pause import Pause
from windlass.pause import write as write_pause
from windlass.store.contract import ALERT, PAUSE, SCHEDULE, Store
from windlass.web import Dashboard
from windlass.worker.alarms import Alarms, Facts, problem_of

SECRET = "whsec_" + "n" * 32


class Inbox:
    """A server on this machine, and what was posted to it."""

    def __init__(self) -> None:
        inbox = self
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.answers: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                inbox.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                inbox.answers.append(inbox.status)
                self.send_response(inbox.answers[-1])
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def texts(self) -> list[str]:
        """What was told, in any of the ways."""
        bodies = [json.loads(body) for _, _, body in self.got]
        return [one["text"] if "text" in one else f"{one['type']}: {one['data']['text']}" for one in bodies]


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    box = Inbox()
    thread = threading.Thread(target=box.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield box
    box.server.shutdown()
    thread.join()
    box.server.server_close()


@asynccontextmanager
async def store_of(app: App) -> AsyncIterator[Store]:
    yield await app.connect()
    await app.aclose()


def seen(rule: Rule, *acts: Any) -> str:
    """What a rule sees after these jobs, documents, counts and workers."""

    async def main() -> str:
        async with store_of(App("sqlite:///:memory:")) as store:
            now = (await store.load(PAUSE, names=())).now
            for act in acts:
                match act:
                    case NewJob():
                        await store.put([act])
                    case WorkerInfo():
                        await store.enlist(act)
                    case Tally():
                        await store.tally([Tally(**{**fields(act), "minute": int(now // 60)})])
                    case Doc():
                        await store.save([act])
            return await problem_of(rule, Facts(store, now))

    return asyncio.run(main())


def fields(row: Tally) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


LATE_AT = datetime.now(UTC).timestamp() - 1000
LATE = NewJob(id="late", task="shop.pay", queue="mail", args=b"{}", run_at=LATE_AT, past=Past(enqueued_at=LATE_AT))
HELD = Doc(kind=PAUSE, name="queue:mail", version=0, body=write_pause(Pause(since=1.0)))
WENT = Tally(minute=0, queue="mail", task="shop.pay", succeeded=70, failed=10, retried=20)
TICK = Doc(kind=SCHEDULE, name="nightly", version=0, body=b"{}", due=datetime.now(UTC).timestamp() - 300)
WORKER = WorkerInfo(id="w", host="h", pid=1, version="1", lease=60, queues="mail:2,reports:1")


@pytest.mark.parametrize(
    ("rule", "acts", "problem"),
    [
        (queue_age(900), [LATE], "a job of shop.pay in queue mail waits for "),
        (queue_age(900, "mail"), [LATE, HELD], ""),
        (queue_age(900, "reports"), [LATE], ""),
        (queue_age(90_000), [LATE], ""),
        (failure_rate(0.29), [WENT], "30 of 100 attempts failed within 600 s, 30 of them of shop.pay"),
        (failure_rate(0.3), [WENT], ""),
        (failure_rate(0.1, at_least=101), [WENT], ""),
        (failure_rate(0.1, task="shop.mail"), [WENT], ""),
        (failure_rate(0.1, queue="reports"), [WENT], ""),
        (schedule_missed(), [TICK], "the run of schedule nightly is late by "),
        (schedule_missed("nightly", seconds=90_000), [TICK], ""),
        (schedule_missed("hourly"), [TICK], ""),
        (no_worker(), [], "no worker is running"),
        (no_worker("images"), [WORKER], "no worker serves images"),
        (no_worker("reports"), [WORKER], ""),
        (failed_jobs(), [LATE], ""),
    ],
)
def test_what_a_rule_sees(rule: Rule, acts: list[Any], problem: str) -> None:
    found = seen(rule, *acts)
    assert found.startswith(problem) if problem else not found


def test_what_is_told_when() -> None:
    one = Watched(rule=no_worker(), quiet=100.0, targets=1, origin="shop:app")
    told = []
    story = {210: "a", 220: "a", 230: "", 240: "b", 250: "", 260: "c", 309: "c", 310: "c", 320: ""}
    for now, problem in story.items():
        one, message = advance("x", now, one, problem)
        told += [(now, message.kind, message.text, message.since)] if message else []
    assert told[:2] == [(210, "alarm", "a", 210), (230, "over", "a", 210)]
    assert told[2:] == [(310, "alarm", "c", 260), (320, "over", "c", 260)]


def test_an_alarm_is_told_once_and_once_when_it_is_over(inbox: Inbox) -> None:
    alert = Alert("dead", failed_jobs(), [webhook(f"{inbox.url}/hook"), slack(f"{inbox.url}/slack")])
    app = App("sqlite:///:memory:", alerts=[alert], callback_secrets=[SECRET])

    @app.task(name="boom", retry=1)
    async def boom() -> None:
        raise ValueError

    async def told(count: int) -> list[str]:
        async with asyncio.timeout(PATIENCE):
            while len(inbox.got) < count or await app.jobs.acount(state="running"):
                await asyncio.sleep(0.02)
        assert not await app.jobs.acount(state="ready")
        return sorted(inbox.texts())[-count:]

    async def main() -> None:
        async with app.worker(concurrency=2):
            store = await app.connect()
            [doc] = (await store.load(ALERT)).docs
            assert doc.name == "dead"
            assert inbox.url.encode() not in doc.body
            job = await boom.aenqueue()
            async with asyncio.timeout(PATIENCE):
                while (await job.arefresh()).state != "failed":
                    await asyncio.sleep(0.02)
            looks = await asyncio.gather(*[Alarms(store).look_now() for _ in range(5)])
            assert [message.kind for look in looks for message in look] == ["alarm"]
            text = f"1 or more failed jobs; the last of them boom {job.id}"
            assert await told(2) == [f"Alarm: dead: {text}", f"alert.alarm: {text}"]
            assert await Alarms(store).look_now() == []
            await job.adelete()
            assert [message.kind for message in await Alarms(store).look_now()] == ["over"]
            assert len(await told(4)) == 4
        await app.aclose()

    asyncio.run(main())
    for path, headers, body in inbox.got:
        if path == "/hook":
            Webhook(SECRET).verify(body, headers)
    assert sorted(path for path, _, _ in inbox.got) == ["/hook", "/hook", "/slack", "/slack"]


MODULE = """
from windlass import App
from windlass.alert import Alert, no_worker, webhook

app = App(alerts=[Alert("nobody", no_worker(), webhook({url!r}))])
"""


def test_where_no_worker_is_left_a_command_tells(inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "watched_app.py").write_text(MODULE.format(url=inbox.url))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDLASS_URL", f"sqlite:///{tmp_path}/windlass.db")

    def run(*args: str, code: int = 0) -> str:
        done = CliRunner().invoke(cli, ["alerts", *args])
        assert done.exit_code == code, done.output
        return done.output

    assert "nobody: webhook at 127.0.0.1: sent" in run("test", "watched_app:app")
    inbox.status = 500
    assert "the answer was 500" in run("check", "watched_app:app", code=1)

    async def turn() -> None:
        async with store_of(App()) as store:
            mine = await standby.take_turn(store)
            assert mine
            said = await asyncio.to_thread(run, "check", "watched_app:app")
            assert "another process is telling just now" in said
            await store.save([msgspec.structs.replace(mine, gone=True)])

    asyncio.run(turn())
    inbox.status = 200
    assert "Alarm" not in run("check", "watched_app:app")
    assert run("check", "watched_app:app") == ""
    assert [text.partition(":")[0] for text in inbox.texts()] == ["alert.test", "alert.alarm", "alert.alarm"]
    [shown] = json.loads(run("list", "--json"))
    assert (shown["name"], shown["told"], shown["text"]) == ("nobody", True, "no worker is running")
    assert "no worker is running" in run("list")
    assert inbox.url not in run("list")


def test_where_no_worker_is_left_the_dashboards_tell_once(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(standby, "GRACE", 0.1)
    url, alert = f"sqlite:///{tmp_path}/windlass.db", Alert("nobody", no_worker(), webhook(inbox.url))
    inbox.status = 500

    async def until(wanted: list[str], told: int) -> None:
        async with store_of(App(url)) as store, asyncio.timeout(PATIENCE):
            while len(inbox.got) < told or wanted != [job.task for job in (await store.find(Filter(queue=QUEUE))).jobs]:
                await asyncio.sleep(0.02)

    apps = [App(url, alerts=[alert], callback_secrets=[SECRET]) for _ in range(2)]
    with TestClient(Dashboard(apps[0])), TestClient(Dashboard(apps[1])):
        asyncio.run(until(["windlass.alert.nobody"], 2))
        inbox.status = 200
        asyncio.run(until([], 3))
    assert len({headers["webhook-id"] for _, headers, _ in inbox.got}) == 1
    assert inbox.answers.count(200) == 1


def test_what_is_told_while_the_store_fails_is_waited_for(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(
        "sqlite:///:memory:", alerts=[Alert("nobody", no_worker(), [webhook(f"{inbox.url}/{at}") for at in "ab"])]
    )

    async def fail(*_: object) -> None:
        raise StoreError("the disk is full")

    async def main() -> None:
        async with store_of(app) as store:
            monkeypatch.setattr(store, "act", fail)
            await standby.bring(store, app, "shop:app")
            assert [one.kind for one in await Alarms(store).look_now()] == ["alarm"]
            tried = await standby.hand_over(store, app)
            assert tried
            assert {one.error for one in tried if one.left} == {
                "told, but its job could not be dropped: the disk is full"
            }
            assert sorted(path for path, _, _ in inbox.got) == ["/a", "/b"]
            assert len(tried) == len((await store.find(Filter(queue=QUEUE))).jobs) == 2

    asyncio.run(main())


def test_one_who_does_not_answer_hides_no_other(inbox: Inbox) -> None:
    alert = Alert("nobody", no_worker(), [webhook("http://127.0.0.1:9/gone"), webhook(inbox.url)])
    app = App("sqlite:///:memory:", alerts=[alert])
    long_ago = datetime.now(UTC).timestamp() - STALE - 60

    def message(id: str, at: int, past: Past | None = None) -> NewJob:
        args = json.dumps({"kind": "alarm", "text": id, "since": 0, "at": at}).encode()
        when = past.enqueued_at if past else None
        return NewJob(id=id, task="windlass.alert.nobody", queue=QUEUE, args=args, past=past, run_at=when)

    async def main() -> None:
        dead = [f"dead{at:03}" for at in range(standby.MOST + 100)]
        jobs = [message("old", 0, Past(enqueued_at=long_ago)), *[message(id, 0) for id in dead]]
        jobs += [message("none", 7), msgspec.structs.replace(message("odd", 0), args=b"{}"), message("fine", 1)]
        async with store_of(app) as store:
            await store.put(jobs)
            tried = await standby.hand_over(store, app, lambda job: not "dead000" <= job.id < "dead101")
            assert tried
            assert {one.job for one in tried if not one.left} == {"old", "none", "odd", "fine"}
            assert [one.job for one in tried if not one.error] == ["fine"]
            assert inbox.texts() == ["alert.alarm: fine"]
            assert len(tried) == standby.MOST
            assert await app.jobs.acount() == len(dead)

    asyncio.run(main())


class Post(socketserver.StreamRequestHandler):
    """A mail server that takes one letter."""

    letters: ClassVar[list[str]] = []

    def handle(self) -> None:
        def say(text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

        say("220 here")
        while line := self.rfile.readline().decode().strip():
            match line.upper().split()[0]:
                case "DATA":
                    say("354 go on")
                    letter = []
                    while (text := self.rfile.readline().decode().rstrip()) != ".":
                        letter.append(text)
                    self.letters.append("\n".join(letter))
                    say("250 taken")
                case "QUIT":
                    return say("221 bye")
                case _:
                    say("250 fine")
        return None


def test_mail() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), Post) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            host = f"127.0.0.1:{server.server_address[1]}"
            message = Message(kind="alarm", name="late", text="a job waits for 1,000 s", since=86_400.0)
            mail(email(f"smtp://{host}", "ops@example.com", sender="jobs@example.com"), message)
            with pytest.raises(Fail, match="offers no TLS"):
                mail(email(f"smtp://me:word@{host}", ["ops@example.com"]), message)
        finally:
            server.shutdown()
            thread.join()
    [letter] = Post.letters
    for part in ("To: ops@example.com", "From: jobs@example.com", "Subject: Alarm: late: a job", "1970-01-02"):
        assert part in letter, letter


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Alert("no spaces", no_worker(), slack("https://x/y")), "name of an alert"),
        (lambda: Alert("x", no_worker(), []), "expected webhook"),
        (lambda: failure_rate(20), "as a part"),
        (lambda: failed_jobs(0), "whole number from 1"),
        (lambda: slack("hooks.slack.com/t0ken"), "expected https://HOST/PATH"),
        (lambda: email("smtp.example.com", "a@b"), "expected smtp://"),
        (lambda: email("smtp://h", "a@b\nBcc: c@d"), "an address"),
        (lambda: App(alerts=[Alert("x", rule, slack("https://x/y")) for rule in (no_worker(), failed_jobs())]), "two"),
    ],
)
def test_mistakes_are_told(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as found:
        make()
    assert "t0ken" not in str(found.value)

"""Canaries that must not be seen anywhere: secret arguments and results, passwords in URLs, keys of encryption."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import redis
from click.testing import CliRunner

from tests.safety.conftest import FIRST, UNIQUE
from tests.worker.rig import empty_store
from windlass import App, ConfigError, Outbox, WindlassError
from windlass.cli import cli
from windlass.config import masked
from windlass.store.dispatch import make_store
from windlass.store.postgres.target import parse as parse_postgres
from windlass.store.redis.url import parse as parse_redis

TEXT = 'Kanarie/one"q&4x71c09e5b'
MANY = ["Kanarie-two-93b1aa07", "Kanarie-three-\u00e4\u00f6-5c01"]
RAW = b"Kanarie-four-77ab03c1d9ee"
NUMBER = 4929_1234_5678_9012
PEM = "-----BEGIN KANARIE KEY-----\nKanarieFive81b7cc04fe\nKanarieSix0a6d55e1b2\n-----END KANARIE KEY-----\n"
CARD = "Kanarie-seven-5105105105105100"
NAMED = {"eight": "Kanarie-eight-2f8c11d7", "nine": "Kanarie-nine-c40be8a2"}
PASSWORD = "Kanarie-ten-8e5d0c7a"
CANARIES = (TEXT, *MANY, RAW.decode(), str(NUMBER), *PEM.splitlines(), CARD, *NAMED.values(), PASSWORD)
SEEN = 8
"""So many characters of one in a row are too many."""


def found_in(text: str, canaries: tuple[str, ...] = CANARIES) -> list[str]:
    """Where parts of a canary stand in a text."""
    parts = {one[at : at + SEEN] for one in canaries for at in range(len(one) - SEEN + 1)} - {"-----BEG", "------EN"}
    places = [text.index(part) for part in parts if part.strip("-") and part in text]
    return [text[max(0, at - 100) : at + 40] for at in places]


def with_password(kind: str, folder: Path) -> str:
    """An empty store that is reached with a password."""
    url = empty_store(kind, folder)
    parts = urlsplit(url)
    if kind == "postgres":
        return url.replace("postgres@", f"postgres:{PASSWORD}@")
    if kind == "redis":
        with redis.Redis.from_url(url.partition("?")[0]) as client:
            client.execute_command("ACL", "SETUSER", "kept", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        return url.replace(parts.netloc, f"kept:{PASSWORD}@{parts.netloc}")
    return url


@pytest.fixture(params=["sqlite", "sqlite with keys", "postgres", "redis with keys"])
def keys(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    kind, _, keyed = request.param.partition(" with ")
    monkeypatch.setenv("WINDLASS_URL", with_password(kind, tmp_path))
    return (FIRST, UNIQUE) if keyed else ()


def shell(*words: str) -> str:
    """What a command prints, its error included."""
    done = CliRunner().invoke(cli, list(words), prog_name="windlass")
    assert done.exception is None or isinstance(done.exception, SystemExit), (words, done.exc_info)
    return done.output


def told(call: Callable[[], object]) -> str:
    """The errors that a wrong call raises, with all that a traceback would show of them."""
    with pytest.raises(WindlassError) as told:
        call()
    return "\n".join(chain(told.value))


def chain(error: BaseException | None) -> Iterator[str]:
    """The texts of an error, and of those that its traceback would show before it."""
    while error is not None:
        yield f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def outbox_in(url: str) -> Outbox:
    return Outbox(App("sqlite:///:memory:"), url)


def test_secrets_of_jobs_are_nowhere_to_be_seen(
    keys: tuple[str, ...],
    load: Callable[..., ModuleType],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    shop = load(*keys, module="secret_app")
    app: App = shop.app
    given = {"text": TEXT, "many": MANY, "raw": RAW, "number": NUMBER, "pem": PEM, **NAMED}
    given["card"] = shop.Card(CARD, "known holder")
    ways = ("return", "raise", "group", "cut head", "cut tail", "cancel", "snooze", "speak")
    bound = [shop.on_loop.bind(how, **given) for how in ways]
    bound += [task.bind("raise", **given) for task in (shop.in_thread, shop.in_process)]
    jobs = app.enqueue_many(bound)

    async def serve() -> None:
        async with app.worker(concurrency=8):
            while await app.jobs.acount(state="ready") + await app.jobs.acount(state="running"):
                await asyncio.sleep(0.05)  # the test's limit ends this
        await app.aclose()

    asyncio.run(serve())
    failed = [job for job in jobs if job.refresh().state == "failed"]
    assert [how for how, job in zip(ways, jobs, strict=False) if job in failed] == [
        "raise", "group", "cut head", "cut tail", "speak",
    ]  # fmt: skip
    assert jobs[0].result().startswith("known {'how': 'return'")
    assert TEXT in jobs[0].result()  # whoever asks for the result itself gets it

    seen = [repr(one) for one in (app, app.config, app.vault, app.tasks, *bound, *jobs, *app.jobs.find())]
    seen += [repr(job.record) for job in jobs] + [repr(job.args) for job in jobs]
    seen += [repr(one) for job in jobs for one in (job.error, job.attempts, job.progress, job.reason)]
    seen += [told(job.result) for job in failed]
    seen += [told(partial(shop.on_loop.enqueue, "x", **given | how)) for how in wrong_arguments(shop)]
    for words in (["jobs", "list"], ["doctor"], ["queues"], ["workers"], *[["jobs", "show", job.id] for job in jobs]):
        seen += [shell(*words), shell(*words, "--json")]
    seen += [
        shell("jobs", "watch", jobs[1].id),
        shell(*enqueue("raise", given)),
        shell(*enqueue("x", given, number="x")),
    ]

    everything = "\n".join([*seen, caplog.text, *capfd.readouterr()])
    for known in ("known {'how': 'raise'", "known group", "Claim(id=", "Outcome(id=", "***"):
        assert known in everything, known  # we do look at where they would be
    assert not found_in(everything, (*CANARIES, *[key.partition(":")[2] for key in keys]))


def wrong_arguments(shop: ModuleType) -> list[dict[str, Any]]:
    """Arguments that are refused where the job is enqueued."""
    return [
        {"number": str(NUMBER)},
        {"many": [*MANY, object()]},
        {"many": [*MANY, float("nan")]},
        {"card": {"number": CARD}},
        {"card": shop.Speaking(CARD)},
        {"eight": shop.Speaking(TEXT)},
        {"text": TEXT + "\ud800"},
        {"pem": PEM * 100_000},
        {"number": NUMBER * 10**9},
    ]


def enqueue(how: str, given: dict[str, Any], **changes: Any) -> list[str]:
    """The command that enqueues such a job."""
    plain = given | {"raw": "aGVsbG8=", "card": {"number": CARD, "holder": "x"}} | changes
    words = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in plain.items()]
    return ["enqueue", "tests.safety.secret_app:app", "on_loop", how, *words]


PASSWORDS = (
    PASSWORD, "Kanarie/eleven-8c7d11", "Kanarie@twelve-0c1f9e", "Kanarie#thirteen-41d0", "Kanarie?fourteen-77e1",
    "Kanarie%zzfifteen-90aa", "Kanarie[sixteen-11bd", "Kanarie[seven]teen-2c3d4e", "Kanarie:eighteen-aa01",
    "Kanarie\nnineteen-ff04", "Kanarie\"twenty'-6ba9", "12345678/Kanarie-one", "12345678#Kanarie-two",
    "12345678@Kanarie-three", "Kanarie?four=Kanarie-four", "Kanarie\u2100five-8801",
)  # fmt: skip
SHAPES = (
    "postgresql://user:{}@127.0.0.1:1/db", "postgres://:{}@127.0.0.1:1/db?schema=a-b", "postgresql://user:{}@127.0.0.1:x/db",
    "postgresql://user:{}@[::1/db", "postgresql://127.0.0.1:x/db?user=u&password={}", "postgresql://u@127.0.0.1:1/db?listen={}",
    "postgresql://u@127.0.0.1:1/db?migrate=x&listen=postgresql://u:{}@127.0.0.1/db", "postgresql://user:{}@h/db?nonsense=1",
    "redis://user:{}@127.0.0.1:x", "redis://:{}@127.0.0.1:1/x", "rediss://user:{}@127.0.0.1:1/0?nonsense=1",
    "redis+cluster://:{}@127.0.0.1:1/7", "redis+sentinel://:{}@127.0.0.1:1", "sqlite://user:{}@127.0.0.1/db",
    "sqlite:///x.db?password={}", "mysql://user:{}@127.0.0.1/db", "user:{}@127.0.0.1/db", "://user:{}@127.0.0.1/db",
    "host=127.0.0.1 password={}",
)  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_password_in_a_url_is_not_told(shape: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for password in PASSWORDS:
        for written in {password, quote(password, safe="")}:
            url = shape.format(written)
            seen = [masked(url)]
            for look in (App, make_store, parse_postgres, parse_redis, outbox_in):
                try:
                    found: Any = look(url)
                    seen.append(f"{found!r} {[getattr(found, name, '') for name in ('config', 'place', '_database')]}")
                except ConfigError as error:
                    seen += chain(error)
            everything = "\n".join([*seen, caplog.text])
            assert not found_in(everything, (password, written)), url


def test_the_shell_does_not_tell_a_password_either(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [shell("doctor", shape.format(PASSWORD)) for shape in SHAPES if "127.0.0.1:1/db" not in shape]
    monkeypatch.setenv("WINDLASS_URL", f"host=x password={PASSWORD}")
    seen += [shell("doctor"), shell("jobs", "list"), shell("worker", "tests.safety.secret_app:app")]
    assert not found_in("\n".join(seen))

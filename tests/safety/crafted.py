# ruff: noqa: E501
"""Rows that no Windlass wrote, put straight into each kind of store beside a good one."""

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import redis
from msgspec import msgpack

TASK = "tests.safety.sealed_app.echo"
GOOD = '{"text":"x"}'


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def payloads(canary: Path) -> list[str]:
    """Arguments that are none of `echo(text: str, n: int = 0)`."""
    bomb = pickle.dumps(Bomb(canary), protocol=0).decode("latin-1")
    deep = '{"text":' + "[" * 100_000 + "]" * 100_000 + "}"
    return [
        "", " ", "null", "[]", "0", "true", '"text"', "{", "{}", '{"text"}', "nonsense", bomb, f'{{"text":{bomb!r}}}', deep,
        '{"text":1}', '{"text":null}', '{"text":["x"]}', '{"text":{"x":1}}', '{"text":"x","text":"y"}', '{"text":"x","more":1}',
        '{"text":"x","n":"1"}', '{"text":"x","n":1.5}', '{"text":"x","n":NaN}', '{"text":"x","n":Infinity}', '{"n":1}',
        '{"text":"x","n":1' + "0" * 5_000 + "}", '{"text":"x","n":18446744073709551616}', '{"text":"x","n":-1e400}',
        '{"text":"\\ud800"}', '{"text":"x"}}', "\ufeff" + GOOD, "'; DROP TABLE jobs; --", "sealed:k1:AAAA", "sealed:",
        '{"__class__":"os.system","text":1}', '{"py/object":"os.system"}', "!!python/object/apply:os.system [id]",
        '{"text":"' + "x" * 4_000_000, "\x7f" * 100, '{"text":"x", "self": 1}', '{"args": ["x"], "kwargs": {}}',
    ]  # fmt: skip


OPTIONS = [
    "", "null", "[]", "7", "{", '{"retry":1}', '{"retry":{}}', '{"retry":{"attempts":0}}', '{"retry":{"attempts":-5}}',
    '{"retry":{"attempts":"x"}}', '{"timeout":"x"}', '{"timeout":-1}', '{"timeout":NaN}', '{"meta":[]}', '{"meta":7}',
    '{"secret":7}', "sealed:k1:AAAA", '{"retry":{"attempts":3,"backoff":"x"}}', '{"retry":{"attempts":1,"on":[7]}}',
]  # fmt: skip
"""Options that are none."""

NAMES = [
    "os.system",
    "a.b:c",
    "__import__",
    "builtins.eval",
    "../x",
    "x\ny",
    "\x1b[31mx",
    "\u202ex\u200f",
    "é" * 200,
    "",
    "'; --",
]
"""Tasks and queues that there are none of."""

NUMBERS: list[dict[str, Any]] = [
    {"priority": -5000}, {"priority": 30_000}, {"attempt": -1}, {"attempt": 2_000_000_000}, {"lost": -3}, {"fence": -9},
    {"fence": 2**62}, {"rank": -(2**60)}, {"run_at": 2**60}, {"run_at": -(2**60)}, {"enqueued_at": 2**62},
    {"enqueued_at": -(2**62)}, {"expires_at": 2**62}, {"started_at": 2**62}, {"finished_at": 5},
]  # fmt: skip
"""Numbers that no job has."""


def row(id: str | bytes, **given: Any) -> dict[str, Any]:
    """A ready job as an SQL store has it."""
    task, queue = given.get("task", TASK), given.get("queue", "default")
    whole = {"id": id, "task": task, "queue": queue, "line": f"{queue}/{task}", "priority": 0, "rank": 5, "state": "ready",
             "run_at": 5, "args": GOOD, "enqueued_at": 5}  # fmt: skip
    return whole | given


def rows(canary: Path) -> list[dict[str, Any]]:
    """About a hundred crafted rows."""
    made = [row(f"args-{n}", args=text) for n, text in enumerate(payloads(canary))]
    made += [row(f"options-{n}", options=text) for n, text in enumerate(OPTIONS)]
    made += [row(f"task-{n}", task=name) for n, name in enumerate(NAMES)]
    made += [row(f"queue-{n}", queue=name) for n, name in enumerate(NAMES)]
    made += [row(f"number-{n}", **given) for n, given in enumerate(NUMBERS)]
    made += [row(id) for id in ("new\nline", "\x1b[31mred", "é" * 200, "x" * 5_000, "", " ")]
    made += [row(f"state-{n}", state=state) for n, state in enumerate(["bogus", "", "RUNNING", "running"])]
    return made


def put(url: str, canary: Path) -> int:
    """Put all of them into a store that exists; how many it took."""
    options = parse_qs(urlsplit(url).query)
    if url.startswith("sqlite"):
        return into_sqlite(url.removeprefix("sqlite:///"), canary)
    if url.startswith("postgresql"):
        return into_postgres(url.partition("?")[0], options["schema"][0], canary)
    return into_redis(url.partition("?")[0], f"{{{options['prefix'][0]}}}:", canary)


def into_sqlite(path: str, canary: Path) -> int:
    taken = 0
    broken = [
        (f"utf-{n}", data) for n, data in enumerate((b"\xff\xfe", b'{"text":"\xff"}', b"\x80" * 50, b'{"text":"\0"}'))
    ]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for one in rows(canary):
            try:
                db.execute(
                    f"INSERT INTO jobs ({', '.join(one)}) VALUES ({', '.join('?' * len(one))})", list(one.values())
                )
                taken += 1
            except sqlite3.IntegrityError:
                pass
        for one in [*(row(id, args=data) for id, data in broken), *unnamed()]:
            marks = ", ".join("CAST(? AS TEXT)" if isinstance(value, bytes) else "?" for value in one.values())
            db.execute(f"INSERT INTO jobs ({', '.join(one)}) VALUES ({marks})", list(one.values()))
            taken += 1
    return taken


def unnamed() -> list[dict[str, Any]]:
    """Rows with a name that is no UTF-8."""
    line = f"default/{TASK}".encode()
    made = [row(b"utf-id-\xff" + bytes([n]), priority=n % 3) for n in range(20)]
    made += [row(b"utf-nul-\0\xff"), row(b"utf-nul-\0"), row(b"utf-id-\xe9", state="running", runner="somebody")]
    made += [row("utf-line-1", line=line + b"\xff"), row("utf-line-2", line=b"\xff" + line)]
    made += [row("utf-task", task=b"x\xff", line=line), row("utf-both", task=b"x\xff", line=b"default/x\xff")]
    made += [row(f"utf-gates-{state}", state=state, gates=b'[["g\xff"]]') for state in ("ready", "waiting")]
    made += [
        row("queue-utf", queue=b"x\xff", line=line),
        row("utf-queue", queue=b"x\xff", line=b"x\xff/" + TASK.encode()),
    ]
    return made


def into_postgres(url: str, schema: str, canary: Path) -> int:
    taken = 0
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f'SET search_path = "{schema}"'.encode())
        for one in rows(canary):
            try:
                sql = f"INSERT INTO live ({', '.join(one)}) VALUES ({', '.join(['%s'] * len(one))})"
                server.execute(sql.encode(), list(one.values()))
                taken += 1
            except psycopg.Error:
                pass
    return taken


def into_redis(url: str, prefix: str, canary: Path) -> int:
    pack = msgpack.Encoder().encode
    taken = 0
    with redis.Redis.from_url(url) as client:
        client.sadd(f"{prefix}lines", f"default/{TASK}")

        def ready(
            id: str | bytes, text: bytes, line: str | bytes = f"default/{TASK}", news: bytes | None = None
        ) -> None:
            nonlocal taken
            id, line = (one if isinstance(one, bytes) else one.encode() for one in (id, line))
            client.hset(f"{prefix}jobs", id, text)
            if news is not None:
                client.hset(f"{prefix}news", id, news)
            client.zadd(f"{prefix}all", {id: 5})
            client.zadd(f"{prefix}l:".encode() + line, {f"100{5:018d}".encode() + id: 0})
            client.sadd(f"{prefix}lines", line)
            taken += 1

        for one in rows(canary):
            fields = [0, one["enqueued_at"], one["run_at"], one["rank"], one.get("expires_at"), one["priority"], one["line"],
                      None, None, one["args"].encode("utf-8", "surrogatepass"),
                      one["options"].encode() if "options" in one else None]  # fmt: skip
            ready(one["id"], b"".join(map(pack, fields)), one["line"])
        for n, garbage in enumerate([b"", b"\0", b"\xc1" * 20, pickle.dumps(Bomb(canary)), b"not msgpack", pack([1, 2]),
                                     b"".join(map(pack, range(11))), b"".join(map(pack, ["x"] * 11)), b"".join(map(pack, range(5))),
                                     b"".join(map(pack, [16, 5, 5, 5, None, 0, f"default/{TASK}"]))]):  # fmt: skip
            ready(f"garbage-{n}", garbage)
        good = b"".join(map(pack, [0, 5, 5, 5, None, 0, f"default/{TASK}", None, None, GOOD.encode(), None]))
        for n, news in enumerate(
            [b"", b"\xc1", b"nonsense", b"".join(map(pack, ["z", 0])), b"".join(map(pack, [7] * 16))]
        ):
            ready(f"news-{n}", good, news=news)
        client.zadd(f"{prefix}l:default/{TASK}", {"short": 0, f"100{5:018d}nobody": 0})
        ready("queue/odd", good, line="no-slash")
        ready(b"utf-id-\xff", good)
        ready("queue-utf", good, line=b"x\xff/" + TASK.encode())
        ready("task-utf", good, line=b"default/x\xff")
    return taken

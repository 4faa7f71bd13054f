"""An app that was used before a fork works in every child: gunicorn --preload, uwsgi, multiprocessing."""

import functools
import os
import socket
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.budget import stores
from tests.servers import Redis, postgres_url
from tests.worker.rig import until
from windlass import App

HEAD = """
import asyncio, os, subprocess, sys, threading, time, traceback, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
from windlass import App

app = App(sys.argv[1])

@app.task(name="add")
def add(n: int) -> int: ...

def fork(work):
    '''A child that does `work`, ends as a process ends, and tells the ids that `work` gave.'''
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    os.close(reading)
    try:
        os.write(writing, " ".join(work()).encode())
    except BaseException:
        traceback.print_exc()
        os._exit(7)
    os.close(writing)
    if threading.current_thread().name != "forking":
        sys.exit(0)
    os._exit(0)

def ids_of(child):
    pid, reading = child
    data = b""
    while piece := os.read(reading, 65536):
        data += piece
    os.close(reading)
    assert os.waitpid(pid, 0)[1] == 0
    return set(data.decode().split())

class Busy(threading.Thread):
    '''Enqueues and looks while others fork.'''
    def __init__(self):
        super().__init__()
        self.over, self.ids = False, set()
        self.start()
    def run(self):
        while not self.over:
            self.ids.add(add.enqueue(1).id)
            app.jobs.count(queue="other")
    def stop(self):
        self.over = True
        self.join()
        return self.ids
"""

CHILDREN = """
def work():
    made = [add.enqueue(n).id for n in range(20)]
    assert app.jobs.get(made[0]).refresh().state == "ready"
    async def main():
        jobs = await asyncio.gather(*(add.aenqueue(n) for n in range(20)))
        assert await app.jobs.acount() >= 40
        await app.aclose()
        return [job.id for job in jobs]
    return made + asyncio.run(main())

async def before():
    jobs = await asyncio.gather(*(add.aenqueue(n) for n in range(10)))
    await app.aclose()
    return {job.id for job in jobs}

before_us = app.jobs.count()
ids = {add.enqueue(0).id} | asyncio.run(before())
busy = Busy()
children = [fork(work) for _ in range(4)]
for child in children:
    ids |= ids_of(child)
ids |= busy.stop()
assert add.enqueue(0).new
assert app.jobs.count() == before_us + len(ids) + 1, (app.jobs.count(), len(ids))
app.close()
"""

MANY = """
add.enqueue(0)
busy = [Busy() for _ in range(3)]
children = 0
for n in range(8):
    [id] = ids_of(fork(lambda: [add.enqueue(2).id]))
    assert app.jobs.get(id).state == "ready"
pairs = []
def one_more():
    pairs.append(fork(lambda: [add.enqueue(3).id]))
threads = [threading.Thread(target=one_more, name="forking") for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
made = set.union(*map(ids_of, pairs), *(one.stop() for one in busy))
assert app.jobs.count() == 9 + len(made)
app.close()
"""

OPENING = """
class Opening(Busy):
    def run(self):
        while not self.over:
            self.ids.add(add.enqueue(1).id)
            app.close()
opening = Opening()
made = set()
for n in range(8):
    made |= ids_of(fork(lambda: [add.enqueue(2).id]))
made |= opening.stop()
assert app.jobs.count() == len(made)
app.close()
"""

IMPORTING = """
first = threading.Thread(target=lambda: add.enqueue(1))
first.start()
while not {"windlass.store.sqlite.store", "psycopg", "redis"} & set(sys.modules):
    pass
ids_of(fork(lambda: [add.enqueue(2).id]))
first.join()
assert app.jobs.count() == 2
app.close()
"""

ORPHAN = """
look = [sys.executable, "-c", f"from windlass import App; a = App({sys.argv[1]!r}); print(a.jobs.count()); a.close()"]
add.enqueue(0)
reading, writing = os.pipe()
if os.fork():
    os._exit(0)
os.close(writing)
os.read(reading, 1)  # the parent is gone
add.enqueue(1)
assert subprocess.run(look, capture_output=True, text=True).stdout == "2\\n"
for n in range(5):
    add.enqueue(n)
assert app.jobs.count() == 7
print(subprocess.run(look, capture_output=True, text=True).stdout, end="")
"""


@functools.cache
def safe_redis() -> str:
    """The URL of a Redis server that gives no reason for a warning."""
    return Redis(appendfsync="always").url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on SQLite and a server."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", stores(metafunc.function.__name__))


@pytest.fixture
def url(kind: str, tmp_path: Path) -> str:
    """An empty store of each kind."""
    name = f"fork{uuid.uuid4().hex[:12]}"
    urls: dict[str, Callable[[], str]] = {
        "sqlite": lambda: f"sqlite:///{tmp_path}/fork.db",
        "postgres": lambda: f"{postgres_url()}?schema={name}",
        "redis": lambda: f"{safe_redis()}?prefix={name}",
    }
    return urls[kind]()


def run(code: str, url: str) -> str:
    """What a program says that must end well, and without a warning."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + textwrap.dedent(code), url],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_children_enqueue_beside_their_parent(url: str) -> None:
    run(CHILDREN, url)


def test_forks_at_any_moment(url: str) -> None:
    run(MANY, url)


def test_forks_while_the_store_is_opened(url: str) -> None:
    run(OPENING, url)


def test_a_fork_while_the_driver_is_imported(url: str) -> None:
    run(IMPORTING, url)


def test_a_child_outlives_its_parent(tmp_path: Path) -> None:
    """SQLite would take the parent's locks for the child's own, and others would empty the log under its feet."""
    assert run(ORPHAN, f"sqlite:///{tmp_path}/fork.db") == "7\n"


SITE = """
import os
from windlass import App

app = App()

@app.task(name="add")
def add(n: int) -> int: ...

add.enqueue(0)

def site(environ, start_response):
    job = add.enqueue(1)
    assert app.jobs.get(job.id).state == "ready"
    start_response("200 OK", [])
    return [f"{os.getpid()} {job.id}".encode()]
"""


def request(socket_path: Path) -> tuple[str, str]:
    """The process that answered, and the job that it made."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(socket_path))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert " 200 " in head, answer
    pid, id = body.split()
    return pid, id


def listens(socket_path: Path) -> bool:
    """Whether a server takes connections; it makes its socket a moment before."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(socket_path)) == 0


def test_gunicorn_preload(url: str, tmp_path: Path) -> None:
    (tmp_path / "preloaded.py").write_text(SITE)
    path, log = tmp_path / "site", tmp_path / "log"
    command = [sys.executable, "-W", "default", "-m", "gunicorn", "--preload", "-w", "3", "--threads", "2"]
    command += ["--bind", f"unix:{path}", "--no-control-socket", "preloaded:site"]
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"WINDLASS_URL": url}, stdout=out, stderr=out)
    try:
        until(lambda: listens(path) or server.poll() is not None, "the server listens")
        assert server.poll() is None, log.read_text()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: request(path), range(120)))
    finally:
        server.terminate()
        code = server.wait(30)
    assert (code, "Warning" in log.read_text()) == (0, False), log.read_text()
    assert len({pid for pid, _ in answers}) > 1
    assert len({id for _, id in answers}) == 120
    app = App(url)
    assert app.jobs.count() == 121
    app.close()

"""Workers as orchestrators see them: probes, a service manager, a container, and one rollout after another."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from tests.servers import Redis, free_port
from tests.worker.rig import ROOT, Rig, runs, until
from windlass import State
from windlass.cli import cli


class Probe:
    """Asks a worker how it is."""

    def __init__(self) -> None:
        self.port = free_port()

    def ask(self, path: str, method: str = "GET") -> tuple[int, Any]:
        """The status and the body; 0 while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body) if body else None
        except ConnectionRefusedError:
            return 0, None
        finally:
            connection.close()

    def send(self, data: bytes) -> bytes:
        """The first line that comes back for these very bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            sock.sendall(data)
            return sock.makefile("rb").readline().strip()


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def frail(tmp_path: Path) -> Iterator[Redis]:
    """A server that this test may freeze."""
    with Redis() as server:
        yield server


def test_probes_of_a_busy_worker_and_of_one_that_stops(rig: Rig, tasks: ModuleType, probe: Probe) -> None:
    worker = rig.start("-p", "1", "-c", "1", "--health", f"127.0.0.1:{probe.port}")
    until(lambda: probe.ask("/readyz")[0] == 200, "ready")
    tasks.blocks_in_c.enqueue(3)
    until(lambda: rig.effects("blocks_in_c"), "the only slot is taken by a call that blocks")
    for _ in range(20):
        assert (probe.ask("/livez")[0], probe.ask("/readyz")[0]) == (200, 200)
    assert not rig.effects("blocked")
    assert probe.ask("/livez", "HEAD") == (200, None)
    assert probe.ask("/livez", "POST")[0] == 405
    status, body = probe.ask("/metric")
    assert (status, "/livez" in body["error"]) == (404, True)
    assert probe.send(b"\0 no HTTP\r\n\r\n").startswith(b"HTTP/1.1 400")
    until(lambda: rig.effects("blocked"), "the slot is free")
    tasks.nap.enqueue(600)
    until(lambda: rig.effects("nap 600"), "a job keeps the worker from ending")
    worker.send_signal(signal.SIGTERM)
    until(lambda: probe.ask("/readyz")[0] == 503, "not ready any more")
    assert probe.ask("/readyz")[1]["why"] == ["the worker is stopping"]
    assert probe.ask("/livez")[0] == 200
    assert worker.wait(60) == 0


def test_a_store_that_is_away_makes_a_worker_unready_and_no_more(tmp_path: Path, probe: Probe, frail: Redis) -> None:
    rig = Rig(tmp_path, f"{frail.url}?prefix=frail&durability=none", lease=2)
    with frail.frozen():
        worker = rig.start("-p", "1", "--health", f"127.0.0.1:{probe.port}")
        until(lambda: probe.ask("/livez")[0] == 200, "live before the store is reached")
        status, body = probe.ask("/readyz")
        assert (status, body["why"][0]) == (503, "the worker is not registered with its store yet")
    until(lambda: probe.ask("/readyz")[0] == 200, "ready")
    with frail.frozen():
        until(lambda: probe.ask("/readyz")[0] == 503, "not ready without the store")
        assert "has not answered for" in probe.ask("/readyz")[1]["why"][0]
        assert probe.ask("/livez")[0] == 200
    until(lambda: probe.ask("/readyz")[0] == 200, "ready again by itself")
    assert rig.stop(worker) == 0
    rig.close()


def test_a_taken_port_is_said(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        worker = rig.start("--health", f"127.0.0.1:{other.getsockname()[1]}")
        assert worker.wait(60) == 2
    assert "expected a free address for health" in rig.text()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_what_systemd_hears(rig: Rig, tasks: ModuleType, kind: str) -> None:
    address = str(rig.log.parent / "notify") if kind == "path" else f"@windlass-{os.getpid()}"
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0"))
        manager.settimeout(60)
        rig.environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
        worker = rig.start("-p", "1")
        while heard.count("WATCHDOG=1") < 5 or "STATUS=1 runners, 25 slots" not in heard:
            heard.append(manager.recv(4096).decode())
        assert heard.count("READY=1") == 1
        assert tasks.has.enqueue("NOTIFY_SOCKET").result(timeout=60) is False
        worker.send_signal(signal.SIGTERM)
        while heard[-1] != "STOPPING=1":
            heard.append(manager.recv(4096).decode())
        assert worker.wait(60) == 0


NAMESPACES = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode != 0,
    reason="this machine lets nobody make a process namespace with a /proc of its own: a chroot, or not root",
)
def test_the_first_process_of_a_container(rig: Rig, tasks: ModuleType) -> None:
    command = [*NAMESPACES, sys.executable, "-m", "windlass", "worker"]
    with rig.log.open("ab") as log:
        outer = subprocess.Popen(
            [*command, "tests.worker.sample:app", "-p", "1"], cwd=ROOT, env=rig.environment, stderr=log, stdout=log
        )
    try:
        assert tasks.leaves_orphans.enqueue(5).result(timeout=60) == 5
        [first] = psutil.Process(outer.pid).children()
        assert rig.effects("leaves_orphans 5 beside 1"), "the worker is number 1 there"
        orphans = [one for one in first.children() if one.name() == "sleep"]
        assert len(orphans) == 5, "what a task left behind is the worker's now"
        until(lambda: not any(one.is_running() for one in orphans), "they are gone without a trace")
        first.send_signal(signal.SIGTERM)
        assert outer.wait(60) == 0
    finally:
        outer.kill()
        outer.wait()


@pytest.mark.every_store
def test_a_worker_that_is_drained_ends_its_job_and_then_itself(rig: Rig, tasks: ModuleType) -> None:
    old = rig.start("-p", "1", "-c", "1")
    until(lambda: [one for one in tasks.app.workers.list() if one.usage.memory > 1 << 20], "it tells what it takes")
    [one] = tasks.app.workers.list()
    until(lambda: tasks.app.workers.list()[0].runners, "its runner joins")
    busy = tasks.nap.enqueue(1.5)
    until(lambda: rig.effects("nap"), "the job runs")
    later = tasks.on_loop.enqueue(21)
    done = CliRunner().invoke(cli, ["workers", "drain", one.id[:8]])
    assert done.exit_code == 0, done.output
    assert "1 worker ended." in done.stdout
    assert old.wait(60) == 0
    assert (busy.refresh().state, busy.attempt, len(rig.effects("napped"))) == (State.SUCCEEDED, 1, 1)
    assert later.refresh().state == State.READY
    with rig.worker("-p", "1", "-c", "1"):
        assert later.result(60) == 42
    assert rig.told(tasks.app) == []
    assert len(rig.effects("nap")) == 2, "once begun, once ended"


def test_the_first_signal_after_a_drain_takes_no_job_its_grace(rig: Rig, tasks: ModuleType) -> None:
    worker = rig.start("-p", "1", "-c", "1")
    busy = tasks.nap.enqueue(1.5)
    until(lambda: rig.effects("nap"), "the job runs")
    [one] = tasks.app.workers.list()
    tasks.app.workers.drain(one.id)
    until(lambda: "stopping: waiting up to" in rig.text(), "it has heard of it")
    assert rig.stop(worker) == 0
    assert (busy.refresh().state, busy.attempt, len(rig.effects("napped"))) == (State.SUCCEEDED, 1, 1)


@pytest.mark.every_store
def test_one_rollout_after_another_loses_and_charges_nothing(rig: Rig, tasks: ModuleType) -> None:
    jobs: list[Any] = []
    over = threading.Event()

    def produce() -> None:
        while not over.is_set():
            jobs.extend([tasks.nap.enqueue(0.1), tasks.doze.enqueue(0.1), tasks.in_process.enqueue(1)])
            time.sleep(0.15)

    producer = threading.Thread(target=produce)
    producer.start()
    endless = tasks.nap.enqueue(600)
    old = rig.start("-p", "1", "-c", "4")
    for _ in range(3):
        count = len(rig.effects())
        until(lambda count=count: len(rig.effects()) > count + 8, "it works")  # type: ignore[misc]
        new = rig.start("-p", "1", "-c", "4")
        assert rig.stop(old) == 0
        old = new
    over.set()
    producer.join()
    for job in jobs:
        job.result(timeout=60)
    assert rig.stop(old) == 0
    assert {(job.refresh().state, job.attempt) for job in jobs} == {(State.SUCCEEDED, 1)}
    assert (endless.refresh().state, endless.attempt) == (State.READY, 0)
    ended = Counter(effect.job for effect in rig.effects() if effect.text in ("napped", "dozed"))
    assert set(ended.values()) == {1}, "what was ended within the grace was settled"
    assert not [one for one in psutil.process_iter() if one.ppid() == old.pid and runs(one)]

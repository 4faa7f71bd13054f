"""The commands as real processes: a worker, an enqueue that waits, and the mistakes that people make."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

APP = """
import datetime as dt
from windlass import App, current

app = App()
other = "not an app"

@app.task
async def add(a: int, b: int = 1) -> int:
    return a + b

@app.task(retry=1)
def fail(why: str) -> None:
    raise ValueError(why)

@app.task
def day(when: dt.date) -> str:
    return when.strftime("%A")

@app.task
def total(*numbers: float, **named: str) -> list:
    current().progress(1, 2, "half")
    return [sum(numbers), named]
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a module `shop` that has an app."""
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "pyproject.toml").write_text('[tool.windlass]\napp = "shop:app"\n')
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    hidden = ("WINDLASS_", "PYTHONPATH")
    return {key: value for key, value in os.environ.items() if not key.startswith(hidden)} | {"HOME": str(home)}


@pytest.fixture
def windlass(home: Path) -> Run:
    """`windlass …` in the folder."""

    def run(*args: str, code: int = 0, **env: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "windlass", *args]
        done = subprocess.run(
            command, cwd=home, env=environment(home) | env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr or code == 0
        return done

    return run


class Started:
    """A command that runs on, and what it has said so far."""

    def __init__(self, home: Path, *args: str) -> None:
        self.log = home / f"{args[0]}.log"
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "windlass", *args]
            self.process = subprocess.Popen(command, cwd=home, env=environment(home), stdout=log, stderr=log)

    def until(self, text: str, times: int = 1) -> None:
        for _ in range(300):
            if self.log.read_text().count(text) >= times:
                return
            time.sleep(0.1)
        raise AssertionError(f"never said {text!r}:\n{self.log.read_text()}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Started]]:
    """`windlass …` in the folder, ended with the test."""
    running: list[Started] = []

    def begin(*args: str) -> Started:
        running.append(Started(home, *args))
        return running[-1]

    yield begin
    for one in running:
        one.process.send_signal(signal.SIGTERM)
        try:
            one.process.wait(20)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()


def test_a_job_from_the_shell_and_back(home: Path, windlass: Run, start: Callable[..., Started]) -> None:
    worker = start("worker", "-p", "1", "-c", "4", "-q", "default")
    worker.until("queues  default")
    assert f"store   {home / 'windlass.db'}" in worker.log.read_text()
    assert windlass("enqueue", "shop:app", "shop.add", "2", "b=40", "--wait").stdout.strip() == "42"
    assert windlass("enqueue", "day", "2024-02-29", "--wait").stdout.strip() == '"Thursday"'
    assert json.loads(windlass("enqueue", "total", "1", "2.5", "who=me", "--wait").stdout) == [3.5, {"who": "me"}]
    failed = windlass("enqueue", "fail", "42", "--wait", code=1)
    assert "ValueError: 42" in failed.stderr
    again = json.loads(windlass("enqueue", "fail", "twice", "--wait", "--json", code=1).stdout)
    assert again["state"] == "failed"
    id = json.loads(windlass("jobs", "list", "--state", "failed", "--json").stdout)[0]["id"]
    assert "shop.py" in windlass("jobs", "show", id).stdout
    assert json.loads(windlass("workers", "--json").stdout)[0]["runners"][0]["tasks"]
    assert "Healthy" in windlass("doctor").stdout
    assert worker.stop() == 0


def test_quiet_worker_says_nothing(home: Path, windlass: Run, start: Callable[..., Started]) -> None:
    worker = start("worker", "-p", "1", "--quiet")
    windlass("enqueue", "add", "1", "--wait", "--timeout", "30s")
    assert worker.stop() == 0
    assert worker.log.read_text() == ""


def test_dev_goes_on_after_a_broken_edit(home: Path, windlass: Run, start: Callable[..., Started]) -> None:
    dev = start("dev", "-c", "2")
    dev.until("is ready")
    assert windlass("enqueue", "add", "1", "--wait").stdout.strip() == "2"
    dev.until("dashboard is ready")
    (home / "shop.py").write_text(APP + "\nthis is no Python\n")
    dev.until("SyntaxError")
    (home / "shop.py").write_text(APP.replace("a + b", "a * 100"))
    dev.until("edited", 2)
    assert windlass("enqueue", "add", "3", "--wait", "--timeout", "30").stdout.strip() == "300"
    [page] = re.findall(r"http://127\.0\.0\.1:\d+/", dev.log.read_text())
    assert "shop.add" in answer(f"{page}jobs")
    assert dev.stop() == 0


def answer(url: str) -> str:
    """What the dashboard shows, which may be starting anew."""
    for _ in range(300):
        with contextlib.suppress(OSError), urllib.request.urlopen(url) as response:
            return str(response.read(), "utf-8")
        time.sleep(0.1)
    raise AssertionError(f"{url} never answered")


def test_enqueue_without_a_worker(windlass: Run) -> None:
    id = windlass("enqueue", "add", "1", "--delay", "2h", "--priority", "7", "--unique", "x").stdout.strip()
    job = json.loads(windlass("jobs", "show", id, "--json").stdout)
    assert (job["state"], job["priority"], job["args"]) == ("scheduled", 7, {"a": 1})
    again = windlass("enqueue", "add", "1", "--unique", "x")
    assert again.stdout.strip() == id
    assert "has the key already" in again.stderr
    late = windlass("enqueue", "add", "1", "--wait", "--timeout", "0.2", code=1)
    assert "No running worker knows shop.add" in late.stderr


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["enqueue", "nowhere:app", "add"], 2, "there is no module 'nowhere'"),
        (["enqueue", "shop:nothing", "add"], 2, "has no 'nothing'"),
        (["enqueue", "shop:other", "add"], 2, "windlass.App"),
        (["enqueue", "shop.ad", "1"], 2, "Did you mean shop.add"),
        (["enqueue", "fial", "1"], 2, "Did you mean shop.fail"),
        (["enqueue", "shop:app"], 2, "expected a task after shop:app"),
        (["enqueue", "add"], 2, "missing a required argument: 'a'"),
        (["enqueue", "add", "x"], 2, "a: Expected int, got str"),
        (["enqueue", "add", "1", "a=2"], 2, "multiple values for argument 'a'"),
        (["enqueue", "add", "1", "--delay", "soon"], 2, "expected a time such as 30"),
        (["worker", "nowhere:app", "-p", "1"], 1, "there is no module 'nowhere'"),
        (["worker", "-q", "a:1,b"], 2, "expected queues"),
        (["worker", "-p", "0"], 2, "0 is not in the range"),
        (["jobs", "list"], 1, "there is no store at"),
    ],
)
def test_mistakes_are_named(windlass: Run, args: list[str], code: int, says: str) -> None:
    assert says in windlass(*args, code=code).stderr


def test_no_app_anywhere(home: Path, windlass: Run) -> None:
    (home / "pyproject.toml").unlink()
    assert "MODULE:APP" in windlass("worker", code=2).stderr
    assert "MODULE:APP" in windlass("enqueue", "add", code=2).stderr
    windlass("enqueue", "add", "1", WINDLASS_APP="shop:app")


def test_an_error_inside_of_the_module_shows_where(home: Path, windlass: Run) -> None:
    (home / "broken.py").write_text("import shop\n1 / 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "windlass", "enqueue", "broken:app", "x"],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "broken.py" in done.stderr
    assert "ZeroDivisionError" in done.stderr

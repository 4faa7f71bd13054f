"""`queues`, `workers`, `migrate`, `doctor`, `completion`, and mistakes in naming a store."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Shell, job_id
from windlass import App, limit, rate
from windlass.cli import workers
from windlass.cli.doctor import fact
from windlass.gate import write_settings
from windlass.model import Doc
from windlass.store.contract import GATE, REPORT, Store
from windlass.usage import Report, Usage, write


def test_queues_mark_what_nobody_runs(filled: Shell) -> None:
    lines = {(line["task"], line["state"]): line for line in filled.json("queues")["tasks"]}
    assert lines["old.gone", "ready"]["problem"] == "no running worker knows this task"
    assert lines["shop.pay", "ready"]["problem"] is None
    assert lines["shop.pay", "running"]["count"] == 1
    out = filled("queues").stdout
    assert "no running worker knows this task" in out
    assert "4 live jobs" in out


def test_empty_queues(shell: Shell) -> None:
    assert "All queues are empty" in shell("queues").stdout
    assert shell.json("queues") == {"queues": [], "tasks": [], "paused": [], "draining": [], "gates": []}


def test_queues_by_name_and_how_they_go(filled: Shell) -> None:
    queues = {one["name"]: one for one in filled.json("queues")["queues"]}
    assert queues.keys() == {"default", "mail"}
    assert queues["mail"]["out"] > 0
    one = queues["default"]
    assert (one["depth"], one["ready"], one["scheduled"], one["running"]) == (3, 2, 1, 1)
    assert one["in"] > one["out"] > 0
    assert one["empty_in"] is None
    assert "not at this rate" in filled("queues").stdout


def test_pause_and_resume(filled: Shell) -> None:
    assert "default is paused" in filled("queues", "pause", "default", "--reason", "a deploy").stdout
    filled("queues", "--url", filled.url, "pause", "shop.pay", "--task")
    found = filled.json("queues")
    assert found["queues"][0]["paused"]
    assert [(one["kind"], one["name"], one["reason"], one["until"]) for one in found["paused"]] == [
        ("queue", "default", "a deploy", None),
        ("task", "shop.pay", "", None),
    ]
    assert "a deploy" in filled("queues").stdout
    assert "queue default: a deploy" in filled("doctor").stdout
    assert "goes on" in filled("queues", "resume", "default").stdout
    assert "shop.pay was not paused" in filled("queues", "resume", "shop.pay").stdout
    assert "goes on" in filled("queues", "resume", "shop.pay", "--task", "--url", filled.url).stdout
    assert filled.json("queues")["paused"] == []
    assert "mail takes no more jobs" in filled("queues", "drain", "mail", "--no-wait", "--reason", "it moves").stdout
    assert [one["name"] for one in filled.json("queues")["draining"]] == ["mail"]
    assert "draining" in filled("queues").stdout
    assert "it moves" in filled("queues").stdout
    assert "queue mail: it moves" in filled("doctor").stdout
    assert "windlass queues resume mail, when it shall take jobs again" in filled("doctor").stdout
    assert "mail goes on" in filled("queues", "resume", "mail").stdout
    assert "empty is empty. To let jobs in again" in filled("queues", "drain", "empty").stdout
    assert "expected a queue of 1 to 128" in filled("queues", "pause", "a b", code=2).stderr


def test_limits_and_who_holds_them(shell: Shell) -> None:
    app = App(shell.url)

    @app.task(name="work", gates=[limit(1), rate("60/minute", name="slow")])
    def work() -> None: ...

    work.enqueue()
    app.close()
    gates = {one["name"]: one for one in shell.json("queues")["gates"]}
    assert (gates["slow"]["waiting"], gates["slow"]["held"]) == (1, 0)
    assert "nothing: no code declares it" in shell("queues").stdout
    assert "expected the name of a gate" in shell("gates", "set", "slow", "--limit", "1", code=2).stderr

    async def declare(store: Store) -> None:
        settings = write_settings(rate("1/s").settings)
        await store.save([Doc(kind=GATE, name="slow", version=0, body=settings)])

    shell.store(declare)
    assert "slow is set" in shell("gates", "set", "slow", "--rate", "10/s", "--burst", "3").stdout
    found = {one["name"]: one for one in shell.json("gates", "list")}["slow"]
    assert (found["limit"], found["burst"]) == (None, 3)
    assert "one every 101 ms, 3 together" in shell("gates", "list").stdout
    assert "for 30.0 s" in shell("gates", "slow", "slow", "30").stdout
    assert "slow is set" in shell("gates", "set", "slow", "--open").stdout
    assert "has no rate" in shell("gates", "slow", "slow", "30", code=2).stderr
    assert "one of --limit" in shell("gates", "set", "slow", code=2).stderr


def test_one_key_of_a_limit(shell: Shell) -> None:
    app = App(shell.url)

    @app.task(name="work", gates=limit(1, key="{tenant}", name="tenant"))
    def work(tenant: str) -> None: ...

    work.enqueue("acme")
    app.gates.set("tenant", limit(2))
    app.close()
    key = ("tenant", "--key", "acme")

    def listed() -> tuple[object, ...]:
        (one,) = (one for one in shell.json("gates", "list") if one["name"] == "tenant/acme")
        return one["limit"], one["own"], one["paused"] and one["paused"]["reason"]

    assert "tenant/acme is paused" in shell("gates", "pause", *key, "--reason", "they asked").stdout
    assert listed() == (0, True, "they asked")
    assert "nothing: paused, they asked" in shell("gates", "list").stdout
    assert "windlass gates resume tenant/acme, when it shall go on" in shell("doctor", code=3).stdout
    assert "No job of it runs or waits" in shell("gates", "pause", "tenant", "--key", "acmee").stdout
    assert "tenant/acme is set" in shell("gates", "set", *key, "--limit", "5").stdout
    assert "tenant/acme goes on" in shell("gates", "resume", *key).stdout
    assert "was not paused" in shell("gates", "resume", "tenant/acme").stdout
    assert listed() == (5, True, None)
    assert "5 at once (this key)" in shell("queues").stdout
    assert "goes by the limit of all keys." in shell("gates", "reset", *key).stdout
    assert "as it did" in shell("gates", "reset", *key).stdout
    assert listed() == (2, False, None)
    assert "expected one key of the gate 'tenant'" in shell("gates", "pause", "tenant", code=2).stderr


def test_no_limits(shell: Shell) -> None:
    assert "There are no limits" in shell("gates", "list").stdout


def test_workers(filled: Shell) -> None:
    worker = filled.json("workers")[0]
    assert (worker["pid"], worker["slots"], worker["alive"]) == (11, 8, True)
    assert worker["runners"][0]["running"] == 1
    assert [worker["memory"], worker["cpu"], worker["draining"]] == [None, None, False]
    out = filled("workers").stdout
    assert "runner-1" in out
    assert "all" in out

    async def tell(store: Store) -> None:
        report = Report(total=Usage(memory=300 << 20, cpu=1.26), runners={"runner-1": Usage(memory=200 << 20, cpu=1.2)})
        await store.save([Doc(kind=REPORT, name="worker-1", version=0, body=write(report))])

    filled.store(tell)
    worker = filled.json("workers")[0]
    assert [worker["memory"], worker["runners"][0]["memory"], worker["cpu"]] == [300 << 20, 200 << 20, 1.26]
    assert "300 MB  126%" in filled("workers").stdout
    assert "there is no worker runn" in filled("workers", "drain", "runner-1", "--no-wait", code=1).stderr
    assert "takes no more jobs" in filled("workers", "drain", "work", "--no-wait").stdout
    assert filled.json("workers")[0]["draining"]
    assert "ago: draining" in filled("workers").stdout


def test_a_drain_that_lasts_says_what_it_waits_for(
    filled: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "LONG", -1.0)
    monkeypatch.setattr(workers, "LOOK_EVERY", 0.01)

    async def word(store: Store) -> tuple[str, asyncio.Task[None]]:
        waiting = asyncio.create_task(workers.ended(store, {"worker-1"}))
        while not (said := capsys.readouterr().err):
            await asyncio.sleep(0.01)
        return said, waiting

    async def waits(store: Store) -> None:
        said, waiting = await word(store)
        assert "worker-1 has not said that it ends" in said
        assert "Send SIGTERM to its process, 11 on here" in said
        waiting.cancel()
        await store.save([Doc(kind=REPORT, name="worker-1", version=0, body=write(Report(stopping=True)))])
        said, waiting = await word(store)
        assert "worker-1 still runs 1 job, and waits for its grace to be over" in said
        await store.retire("worker-1")
        await waiting

    filled.store(waits)


def test_no_workers(shell: Shell) -> None:
    assert "No worker is running" in shell("workers").stdout


def test_migrate_makes_and_repeats(tmp_path: Path, shell: Shell) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    assert shell.json("migrate", "--url", url)["taken"]
    assert "is up to date" in shell("migrate", "--url", url).stdout
    assert (
        "does not exist: make it" in shell("migrate", "--url", f"sqlite:///{tmp_path / 'no' / 'x.db'}", code=1).stderr
    )


def test_migrate_of_something_else(tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "other.db").write_text("not a database, but long enough to have a header " * 40)
    assert "Error: " in shell("migrate", "--url", f"sqlite:///{tmp_path / 'other.db'}", code=1).stderr


def test_doctor_of_a_healthy_store(filled: Shell) -> None:
    out = filled("doctor").stdout
    assert "Healthy." in out
    assert "1 job of old.gone in queue default" in out
    assert "1 running, with 1 runner" in out
    assert filled.json("doctor", filled.url)["healthy"] is True


def test_doctor_finds_what_is_wrong(tmp_path: Path, shell: Shell) -> None:
    out = shell("doctor", f"sqlite:///{tmp_path / 'none.db'}", code=3).stdout
    assert "there is no store at" in out
    assert "Not healthy" in out
    (tmp_path / "other.db").write_text("not a database, but long enough to have a header " * 40)
    found = shell.json("doctor", f"sqlite:///{tmp_path / 'other.db'}", code=3)
    assert [check["name"] for check in found["checks"] if check["level"] == "problem"] == ["store"]


@pytest.mark.parametrize(
    ("key", "value", "level", "name", "found"),
    [
        ("engine", "PostgreSQL 17.2", "ok", "engine", "PostgreSQL 17.2"),
        ("bytes", "1234567", "ok", "bytes", "1,234,567"),
        ("warning_bloat", "half of it is dead: VACUUM", "warning", "bloat", "half of it is dead: VACUUM"),
        ("warning", "beware", "warning", "warning", "beware"),
        ("problem: eviction", "jobs may vanish", "problem", "eviction", "jobs may vanish"),
        ("integrity", "ok", "ok", "integrity", "ok"),
        ("integrity", "row 7 missing", "problem", "integrity", "row 7 missing"),
        ("clock_offset", "+4.9 s", "ok", "clock offset", "+4.9 s"),
        ("clock_offset", "-5.1", "warning", "clock offset", "-5.1"),
        ("clock offset", "-4900 ms", "ok", "clock offset", "-4900 ms"),
        ("clock offset", "n/a", "ok", "clock offset", "n/a"),
    ],
)
def test_what_a_store_tells(key: str, value: str, level: str, name: str, found: str) -> None:
    check = fact(key, value)
    assert (check.level, check.name, check.found) == (level, name, found)


def test_doctor_measures_latency(filled: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ms, the median of 20 calls" in filled("doctor").stdout
    monkeypatch.setattr("windlass.cli.doctor.SLOW_CALL", 0.0)
    assert "move the workers closer" in filled("doctor").stdout


def test_doctor_shows_no_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(url: str) -> Store:
        raise OSError("the driver is upset")

    monkeypatch.setattr("windlass.cli.reach.make_store", broken)
    assert "OSError: the driver is upset" in shell("doctor", code=3).stdout


def test_doctor_misses_a_worker_when_jobs_are_due(shell: Shell) -> None:
    from tests.cli.conftest import new

    async def put(store: Store) -> None:
        await store.put([new("one")])

    shell.store(put)
    assert "none is running, 1 job due" in shell("doctor", code=3).stdout


@pytest.mark.parametrize("command", [["jobs", "list"], ["queues"], ["workers"], ["jobs", "cancel", "x"]])
def test_looking_does_not_make_a_store(command: list[str], tmp_path: Path, shell: Shell) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    assert f"there is no store at {tmp_path / 'none.db'}" in shell(*command, "--url", url, code=1).stderr
    assert not (tmp_path / "none.db").exists()


def test_wrong_urls(shell: Shell) -> None:
    assert "names no store" in shell("queues", "--url", "mysql://here/x", code=2).stderr
    assert "lives inside of one process" in shell("queues", "--url", "sqlite:///:memory:", code=2).stderr


def test_mistyped_commands(shell: Shell) -> None:
    assert "Did you mean jobs?" in shell("jbs", code=2).stderr
    assert "Did you mean cancel?" in shell("jobs", "cancle", code=2).stderr


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion(shell: Shell, name: str) -> None:
    assert "_WINDLASS_COMPLETE" in shell("completion", name).stdout


def test_colours_only_on_a_terminal(filled: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from windlass.cli import cli

    assert "\x1b[" in CliRunner().invoke(cli, ["jobs", "list"], color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in CliRunner().invoke(cli, ["jobs", "list"], color=True).stdout
    assert job_id("ready") in filled("jobs", "list").stdout


START = """import sys
from windlass.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    print("\\n", *sys.modules)
"""


def imports(*args: str) -> set[str]:
    """The modules that a command has loaded at its end."""
    done = subprocess.run([sys.executable, "-c", START, *args], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_commands_start_light(shell: Shell) -> None:
    assert not imports("--help") & {"rich", "watchfiles", "windlass.cli.jobs"}
    assert not imports("worker", "--help") & {"rich", "watchfiles"}
    assert "rich" not in imports("jobs", "list")

"""Sentry, by a real worker and a transport that keeps what it is given."""

import importlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk

from tests.worker.rig import Rig, until
from windlass import Job, cron, every, rrule
from windlass.contrib.sentry import monitor_of, slug_of
from windlass.schedule import Rhythm
from windlass.timing import Rule

Item = dict[str, Any]


@pytest.fixture
def watching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv("WINDLASS_URL", f"sqlite:///{tmp_path}/windlass.db")
    monkeypatch.setenv("SENTRY", str(tmp_path / "sentry"))
    rig = Rig(tmp_path)
    yield rig
    rig.close()
    sentry_sdk.get_global_scope().set_client(None)


def task_of(item: Item) -> str:
    return str(item["contexts"]["windlass"]["task"])


def test_what_fails_for_good_is_reported_once_in_the_trace_of_its_request(watching: Rig, tmp_path: Path) -> None:
    watched = importlib.import_module("tests.worker.watched")
    app, kept = watched.app, tmp_path / "sentry"
    tasks = app.tasks
    worker = watching.start("-p", "1", "-c", "4", app="tests.worker.watched:app")
    with sentry_sdk.start_transaction(name="GET /pay") as request:
        jobs: dict[str, Job[Any]] = {"fails": tasks["fails"].enqueue("sesame", 123, 7)}
    names = ("again", "late", "dies", "bad", "down")
    jobs |= {name: tasks[name].enqueue() for name in names}
    jobs["cancel"] = tasks["changes"].using(meta={"cancel": True}).enqueue()
    snoozed = tasks["changes"].enqueue()
    soon = datetime.now(UTC) + timedelta(seconds=1)
    app.schedules.create("tick-tack", every(minutes=5, anchor=soon, start=soon), tasks["plain"])

    def items() -> list[Item]:
        return [json.loads(line) for line in kept.read_text().splitlines()]

    until(lambda: all(job.refresh().record.state.final for job in jobs.values()), "jobs")
    until(lambda: snoozed.refresh().record.state == "scheduled", "a snooze")
    until(lambda: [one for one in items() if one.get("status") == "ok"], "a check-in")
    assert watching.stop(worker) == 0
    app.close()

    errors = [one for one in items() if one.get("level") == "error" and one.get("logger") != "windlass.hooks"]
    assert sorted((task_of(one), one["exception"]["values"][-1]["type"]) for one in errors) == [
        ("bad", "LookupError"),
        ("dies", "ProcessLost"),
        ("down", "OSError"),
        ("fails", "ValueError"),
        ("late", "TimeoutError"),
    ]
    assert jobs["down"].error
    assert jobs["down"].error.message == "what it raised"
    [failed] = [one for one in errors if task_of(one) == "fails"]
    told = failed["contexts"]["windlass"]
    assert told["args"] == {"word": "***", "pin": "***", "order": 7}
    assert (told["attempt"], told["queue"], failed["tags"]["windlass.job_id"]) == (2, "mail", jobs["fails"].id)
    assert failed["transaction"] == "fails"
    frames = failed["exception"]["values"][0]["stacktrace"]["frames"]
    frame = frames[-1]
    assert frame["vars"]["order"] == "7"
    assert frame["vars"]["pin"] == "***"
    assert "not ***" in failed["exception"]["values"][0]["value"]
    assert "sesame" not in kept.read_text()
    assert "123" not in [part for one in frames for part in re.findall(r"\w+", str(one.get("vars")))]

    ran = [one for one in items() if one.get("type") == "transaction" and one["transaction"] != "GET /pay"]
    ours = [task_of(one) for one in ran if one["contexts"]["trace"]["trace_id"] == request.trace_id]
    assert sorted(ours) == ["fails", "fails", "plain", "plain"]
    assert failed["contexts"]["trace"]["trace_id"] == request.trace_id
    again = [one["contexts"]["trace"] for one in ran if task_of(one) == "again"]
    assert [trace["status"] for trace in again] == ["internal_error", "ok"]
    assert len({trace["trace_id"] for trace in again}) == 1
    assert again[0]["op"] == "queue.process"

    begun, ended = (one for one in items() if one.get("type") == "check_in")
    assert begun["check_in_id"] == ended["check_in_id"]
    assert (begun["status"], ended["status"], begun["monitor_slug"]) == ("in_progress", "ok", "tick-tack")
    assert begun["monitor_config"]["schedule"] == {"type": "interval", "value": 5, "unit": "minute"}


@pytest.mark.parametrize(
    ("rule", "schedule", "zone"),
    [
        (cron("0 3 * * MON-FRI", tz="Europe/Berlin"), {"type": "crontab", "value": "0 3 * * MON-FRI"}, "Europe/Berlin"),
        (cron("@daily"), {"type": "crontab", "value": "0 0 * * *"}, "UTC"),
        (cron("0 */5 * * * *"), {"type": "crontab", "value": "*/5 * * * *"}, "UTC"),
        (every(hours=36), {"type": "interval", "value": 36, "unit": "hour"}, "UTC"),
        (every(seconds=90), None, ""),
        (cron("*/10 * * * * *"), None, ""),
        (cron("0 0 15W * *"), None, ""),
        (rrule("FREQ=DAILY;BYHOUR=9"), None, ""),
    ],
)
def test_a_monitor_expects_what_the_schedule_does(rule: Rule, schedule: Item | None, zone: str) -> None:
    found = monitor_of(Rhythm(rule, 120.0, ends=False))
    assert (found and found["schedule"]) == schedule
    assert found is None or (found["timezone"], found["checkin_margin"]) == (zone, 7)
    assert monitor_of(Rhythm(rule, 0.0, ends=True)) is None


def test_a_slug_is_what_sentry_allows() -> None:
    assert slug_of("daily_2") == "daily_2"
    slugs = {slug_of(name) for name in ("Daily", "daily", "7", "a.b", "a-b", "x" * 60, "x" * 61)}
    assert len(slugs) == 7
    assert all(len(slug) <= 50 and not slug.isdigit() for slug in slugs)

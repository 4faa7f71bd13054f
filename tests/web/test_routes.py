"""Who may do what, from where; what programs get; what it costs."""

import asyncio
import base64
import contextlib
import itertools
import logging
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from starlette.testclient import TestClient

from tests.web.conftest import USERS, apart
from tests.worker.rig import PATIENCE, until
from windlass import App, ConfigError
from windlass.cli import cli
from windlass.clock import FakeClock
from windlass.jobs import Jobs
from windlass.model import EMPTY, Tally, WorkerInfo
from windlass.store import census
from windlass.web import Dashboard, Role, User, live, search
from windlass.web.dashboard import spots
from windlass.web.render import Pages

READ = {
    "/", "/queues", "/queues/{name:name}", "/limits", "/failures", "/jobs", "/jobs/{id:name}", "/schedules",
    "/schedules/{name:name}", "/workers", "/live", "/static/{file}", "/metrics", "/api/openapi.json", "/api/queues",
    "/api/limits", "/api/failures", "/api/series", "/api/scale", "/api/workers", "/api/jobs", "/api/jobs/{id:name}",
    "/api/schedules", "/api/schedules/{name:name}",
}  # fmt: skip
ADMINS = ("/audit", "/api/audit")
LEAST = {"retry": "operator", "cancel": "operator", "delete": "admin"}
TABLE = {("GET", path): "viewer" for path in READ} | {("GET", path): "admin" for path in ADMINS}
TABLE["GET", "/jobs/{id:name}/edit"] = "operator"
for prefix in ("", "/api"):
    for verb, role in LEAST.items():
        TABLE["POST", f"{prefix}/jobs/{{id:name}}/{verb}"] = role
        TABLE["GET", f"{prefix}/bulk/{verb}"] = role
        TABLE["POST", f"{prefix}/bulk/{verb}"] = role
    for act in ("pause", "resume", "trigger", "delete"):
        TABLE["POST", f"{prefix}/schedules/{{name:name}}/{act}"] = "admin" if act == "delete" else "operator"
    for act, role in {"": "admin", "/pause": "operator", "/resume": "operator", "/reset": "admin"}.items():
        TABLE["POST", f"{prefix}/limits{act}"] = role
    TABLE["POST", f"{prefix}/schedules/{{name:name}}/edit"] = "admin"
    TABLE["POST", f"{prefix}/jobs/{{id:name}}/edit"] = "operator"
    for kind, act in itertools.product(("queues", "tasks"), ("pause", "resume")):
        TABLE["POST", f"{prefix}/{kind}/{{name:name}}/{act}"] = "operator"
    TABLE["POST", f"{prefix}/queues/{{name:name}}/drain"] = "operator"
    TABLE["POST", f"{prefix}/workers/{{id:name}}/drain"] = "operator"

LADDER = ("viewer", "operator", "admin")
TOKENS = dict(zip(LADDER, (entry.split(":")[2] for entry in USERS), strict=True))


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}


@pytest.fixture
def guarded(app: App) -> Iterator[TestClient]:
    """Somebody elsewhere, and a dashboard with users."""
    with TestClient(
        Dashboard(app, auth=USERS), "http://jobs.example", client=("203.0.113.9", 5), follow_redirects=False
    ) as client:
        yield client


def test_each_route_takes_the_role_that_the_table_says(guarded: TestClient) -> None:
    assert {(spot.method, spot.path): spot.role.name.lower() for spot in spots()} == TABLE
    for (method, pattern), least in TABLE.items():
        path = pattern.replace("{id:name}", "nope").replace("{name:name}", "nope").replace("{file}", "app.css")
        assert guarded.request(method, path).status_code == 401, path
        assert guarded.request(method, path, headers={"Authorization": "Bearer x"}).status_code in (401, 429)
        for role in LADDER:
            if pattern == "/live":
                continue  # it never ends
            status = guarded.request(method, path, headers=bearer(role)).status_code
            refused = LADDER.index(role) < LADDER.index(least)
            assert (status == 403) is refused, (method, path, role, status)
            assert refused or status in (200, 303, 400, 404), (method, path, role, status)
        for other in {"GET", "POST", "PUT", "PATCH", "DELETE"} - {one for one, path in TABLE if path == pattern}:
            assert guarded.request(other, path, headers=bearer("admin")).status_code == 405, (other, path)


@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:8787"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "cross-site", "X-Windlass": "1"}, False),
        ({"Origin": "http://127.0.0.1:8787"}, True),
        ({"Origin": "http://127.0.0.1:9999"}, False),
        ({"Origin": "http://evil.test"}, False),
        ({"Origin": "null"}, False),
        ({}, False),
        ({"X-Windlass": "1"}, True),
    ],
)
def test_another_site_cannot_act(app: App, headers: dict[str, str], fine: bool) -> None:
    client = TestClient(
        Dashboard(app), "http://127.0.0.1:8787", client=("127.0.0.1", 5), headers=headers, follow_redirects=False
    )
    assert client.post("/jobs/later-00/cancel").status_code == (303 if fine else 403)
    assert client.post("/api/jobs/later-01/cancel").status_code == (200 if fine else 403)
    assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("host", "peer", "headers", "status"),
    [
        ("127.0.0.1:8787", "127.0.0.1", {}, 200),
        ("localhost", "::1", {}, 200),
        ("[::1]:8787", "127.0.0.1", {}, 200),
        ("evil.test", "127.0.0.1", {}, 421),
        ("localhost.evil.test", "127.0.0.1", {}, 421),
        ("127.0.0.1:8787", "203.0.113.9", {}, 403),
        ("127.0.0.1:8787", "203.0.113.9", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("127.0.0.1:8787", "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("127.0.0.1:8787", "127.0.0.1", {"Forwarded": "for=127.0.0.1"}, 403),
        ("127.0.0.1:8787", "testclient", {}, 403),
    ],
)
def test_without_users_only_this_machine_is_let_in(
    app: App, host: str, peer: str, headers: dict[str, str], status: int
) -> None:
    client = TestClient(Dashboard(app), client=(peer, 5), headers={"Host": host, **headers})
    assert client.get("/api/queues").status_code == status


def test_names_that_are_not_allowed_are_refused_with_users_too(app: App) -> None:
    client = TestClient(Dashboard(app, auth=USERS, hosts=["jobs.example"]), headers=bearer("viewer"))
    assert client.get("/api/queues", headers={"Host": "jobs.example"}).status_code == 200
    assert client.get("/api/queues", headers={"Host": "jobs.example.evil.test"}).status_code == 421


def test_passwords(app: App) -> None:
    clock = FakeClock()
    client = TestClient(Dashboard(app, auth=USERS, clock=clock), client=("203.0.113.9", 5))

    def status(name: str, secret: str) -> int:
        login = base64.b64encode(f"{name}:{secret}".encode()).decode()
        return client.get("/api/queues", headers={"Authorization": f"Basic {login}"}).status_code

    assert client.get("/").headers["www-authenticate"].startswith("Basic")
    assert status("vera", TOKENS["viewer"]) == 200
    assert [status("vera", TOKENS["admin"]), status("anna@x", TOKENS["admin"]), status("vera", "")] == [401] * 3
    assert [status("vera", f"guess-{n}") for n in range(8)] == [401] * 7 + [429]
    assert status("vera", TOKENS["viewer"]) == 200
    clock.advance(61)
    assert status("vera", "guess") == 401


@pytest.mark.parametrize("entry", ["anna:admin:short", "anna:root:anna-anna-anna-anna", "anna-anna-anna-anna", ""])
def test_users_that_cannot_be(app: App, entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Dashboard(app, auth=[entry])
    assert "anna-anna" not in str(caught.value)
    with pytest.raises(ConfigError, match="at least one"):
        Dashboard(app, auth=[])


def test_mounted_with_the_host_apps_own_users(app: App) -> None:
    async def auth(request: Request) -> User | None:
        name = request.headers.get("x-session")
        return User(name, Role.OPERATOR) if name else None

    client = TestClient(Starlette(routes=[Mount("/ops/jobs", Dashboard(app, auth=auth))]), follow_redirects=False)
    assert client.get("/ops/jobs/").status_code == 401
    page = client.get("/ops/jobs/jobs/fail-01", headers={"x-session": "otto"})
    assert 'href="/ops/jobs/static/app.css' in page.text
    assert 'action="/ops/jobs/jobs/fail-01/retry"' in page.text
    assert client.get("/ops/jobs/api/jobs/nope", headers={"x-session": "otto"}).json() == {
        "error": "there is no job nope: it never was, was deleted, or retention dropped it"
    }
    same = {"x-session": "otto", "Sec-Fetch-Site": "same-origin"}
    done = client.post("/ops/jobs/jobs/fail-01/retry", headers=same)
    assert (done.status_code, done.headers["location"]) == (303, "/ops/jobs/jobs/fail-01?done=retry&n=1")


# What programs get


def test_every_answer_keeps_to_itself(local: TestClient) -> None:
    for path in ("/", "/jobs/nope", "/api/jobs", "/static/app.js", "/nowhere", "/jobs?limit=x"):
        headers = local.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert "no-store" in headers["cache-control"] or path.startswith("/static")


def test_one_key_of_a_limit(local: TestClient) -> None:
    def ask(path: str, **more: object) -> object:
        return local.post(f"/api/limits{path}", json={"name": "gateway", **more}).json()

    def listed() -> tuple[object, ...]:
        (one,) = (one for one in local.get("/api/limits").json()["limits"] if one["name"] == "gateway/eu")
        return one["limit"], one["own"], one["paused"] and one["paused"]["reason"], one["holders"]

    holders = {"run-2": 2}
    assert ask("/pause", key="eu", reason="<b>moving</b>") == {"done": 1}
    assert listed() == (0, True, "<b>moving</b>", holders)
    page = local.get("/limits").text
    assert '<b class="warn">paused</b> &lt;b&gt;moving&lt;/b&gt;' in page
    assert 'action="/limits/resume"' in page
    assert local.post("/limits/resume", data={"name": "gateway", "key": "eu", "reason": ""}).status_code == 303
    assert listed() == (3, False, None, holders)
    assert ask("", key="eu", admits=7) == {"done": 1}
    assert listed() == (7, True, None, holders)
    page = local.get("/limits?name=gateway/eu").text
    assert "7 at once (this key)" in page
    assert "<option selected>gateway/eu</option>" in page
    assert local.post("/limits/reset", data={"name": "gateway/eu", "key": ""}).status_code == 303
    assert listed() == (3, False, None, holders)
    assert ask("/resume", key="eu") == ask("/reset", key="eu") == {"done": 0}
    assert "expected one key of the gate" in str(ask("/pause"))
    log = [(one["act"], one["target"]) for one in local.get("/api/audit?limit=5").json()["entries"]]
    assert log[-1] == ("limit", "gateway/eu to 7")
    assert log[-2] == ("reset", "key gateway/eu")


def test_jobs_are_read_and_acted_on(local: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "windlass.audit"):
        assert local.post("/api/jobs/fail-01/retry").json()["state"] == "ready"
        refused = local.post("/api/jobs/fail-01/retry")
        assert refused.status_code == 409
        assert "is ready already" in refused.json()["error"]
        assert local.post("/api/bulk/retry", json={"task": "shop.pay.charge"}).json() == {"done": 3}
        assert local.get("/api/bulk/cancel?queue=mail").json() == {"count": 9}
        assert local.post("/api/bulk/cancel", json={"queue": "mail"}).json() == {"done": 9}
        assert local.post("/api/bulk/delete", json={"ids": ["done-01", "done-02", "run-0"]}).json() == {"done": 2}
        assert local.post("/api/jobs/run-0/delete").status_code == 409
        assert local.post("/api/schedules/quarterly/resume").json() == {"done": 1}
        assert local.post("/api/queues/mail/pause", json={"reason": "moving house"}).json() == {"done": 1}
        assert local.post("/api/limits", json={"name": "gateway", "admits": "100/minute", "burst": 5}).json() == {
            "done": 1
        }
        assert (
            "of gateway, task:shop.pay.charge"
            in local.post("/api/limits", json={"name": "x", "admits": 1}).json()["error"]
        )
    lines = [record.getMessage() for record in caplog.records if record.name == "windlass.audit"]
    assert lines[0] == "local (admin): retry job fail-01 of shop.pay.charge: 1 done"
    assert "local (admin): cancel jobs with queue=mail: 9 done" in lines
    assert lines[-3:-1] == [
        "local (admin): pause queue mail: moving house: 1 done",
        "local (admin): limit gateway to 100/minute, 5 together: 1 done",
    ]
    paused = {one["name"]: one["reason"] for one in local.get("/api/queues").json()["paused"]}
    assert paused["mail"] == "moving house"
    assert local.post("/api/queues/mail/drain", json={"reason": "for good"}).json() == {"done": 1}
    assert [one["reason"] for one in local.get("/api/queues").json()["draining"]] == ["for good"]
    assert "draining" in local.get("/queues").text
    assert "It takes no more jobs. for good" in local.get("/queues/mail").text
    assert local.post("/api/queues/mail/resume").json() == {"done": 1}
    gates = {one["name"]: one for one in local.get("/api/limits").json()["limits"]}
    assert gates["gateway/eu"]["holders"] == {"run-2": 2}
    assert gates["gateway"]["waiting"] == 1
    assert not local.get("/api/schedules/quarterly").json()["paused"]
    first = local.get("/api/audit?limit=2").json()
    last = first["entries"][0]
    assert [last[name] for name in ("user", "role", "act", "target")] == ["local", "admin", "resume", "queue mail"]
    assert (last["via"], last["place"], last["done"], last["error"]) == ("api", "127.0.0.1", 1, None)
    rest = local.get("/api/audit", params={"after": first["after"]}).json()
    assert rest["after"] is None
    assert [one["done"] for one in [*first["entries"], *rest["entries"]]] == [1, 1, 0, 1, 1, 1, 0, 2, 9, 3, 0, 1]
    assert "jobs with queue=mail" in local.get("/audit").text
    first = local.get("/api/jobs?state=ready&limit=2").json()
    second = local.get("/api/jobs", params={"state": "ready", "limit": 2, "after": first["after"]}).json()
    assert len({job["id"] for job in first["jobs"] + second["jobs"]}) == 4


def test_workers_are_drained(local: TestClient) -> None:
    first = local.get("/api/workers").json()["workers"][0]
    assert [first["memory"], first["cpu"], first["runners"][1]["cpu"]] == [325 << 20, 1.06, 0.7]
    path = f"/api/workers/{first['id']}/drain"
    assert local.post(path).json() == {"done": 1}
    assert local.post(path).json() == {"done": 1}, "it may be said twice"
    assert [one["draining"] for one in local.get("/api/workers").json()["workers"]] == [True, False]
    assert "there is no worker nope" in local.post("/api/workers/nope/drain").json()["error"]
    told = [(one["act"], one["target"], one["done"]) for one in local.get("/api/audit").json()["entries"]]
    assert told == [("drain", "worker nope", 0), *[("drain", f"worker {first['id']}", 1)] * 2]


def test_a_worker_that_starts_while_its_page_is_made_is_not_lost(
    app: App, local: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Jobs.afind

    async def meanwhile(jobs: Jobs, **which: Any) -> Any:
        await (await app.connect()).enlist(WorkerInfo(id="late-1", host="web-3", pid=7, version="0", lease=60))
        return await find(jobs, **which)

    monkeypatch.setattr(Jobs, "afind", meanwhile)
    monkeypatch.setattr(live, "EVERY", 0.0)
    monkeypatch.setattr(live, "REST", 0)
    assert ">lost<" not in local.get("/workers").text
    assert [one["host"] for one in local.get("/api/workers").json()["workers"]][2:] == ["web-3"]


def test_what_is_rare_is_looked_for_a_little_at_a_time(local: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    query, ids = {"task": "shop.mail.receipt", "limit": "3"}, list[str]()
    whole = [job["id"] for job in local.get("/api/jobs", params={**query, "limit": "200"}).json()["jobs"]]
    monkeypatch.setattr(search, "STRIDE", 3)
    monkeypatch.setattr(search, "LOOK", 0.0)
    while True:
        told = local.get("/api/jobs", params=query).json()
        ids += [job["id"] for job in told["jobs"]]
        if told["after"] is None:
            break
        if len(told["jobs"]) < 3:
            assert told["searched"]["looked"] >= 3
            page = local.get("/jobs", params=query).text
            assert "Looked at about" in page
            assert "Look further" in page
        query["after"] = told["after"]
    assert ids == whole


def test_failures_by_cause_and_searches_say_how_far_they_looked(local: TestClient) -> None:
    told = local.get("/api/failures").json()
    assert (told["searched"]["looked"], told["all"]) == (7, True)
    late, refused = sorted(told["failures"], key=lambda cause: cause["error"])
    assert (late["error"], late["count"], refused["count"]) == ("TimeoutError", 3, 4)
    assert late["shape"].startswith("mail.example did not answer within # s")
    cause = {name: late[name] for name in ("state", "task", "error", "shape")}
    assert [job["id"] for job in local.get("/api/jobs", params=cause).json()["jobs"]] == [
        "fail-06",
        "fail-03",
        "fail-00",
    ]
    assert local.get("/api/bulk/retry", params=cause).json() == {"count": 3}
    assert local.post("/api/bulk/retry", json={**cause, "most": 2}).json() == {"done": 2}
    assert local.post("/api/bulk/delete", json=cause).json() == {"done": 1}
    assert [one["count"] for one in local.get("/api/failures?task=shop.pay.charge").json()["failures"]] == [4]

    def found(**query: str) -> tuple[set[str], int]:
        told = local.get("/api/jobs", params=query).json()
        return {job["id"] for job in told["jobs"]}, told["searched"]["looked"]

    assert found(text="BANK OF the", state="failed") == ({f"fail-{n:02}" for n in (1, 2, 4, 5)}, 4)
    assert found(text="90071992547409931", state="running") == ({"run-0", "run-1", "run-2"}, 3)
    assert found(prefix="orphan-", queue="legacy") == ({"orphan-01", "orphan-02"}, 2)
    assert found(error="shop.gateway.Refused", until="2020-01-01T00:00")[0] == set()
    assert len(found(state="succeeded", since="2020-01-01T00:00:00+02:00")[0]) == 10
    assert found(text="4111-SECRET")[0] == set()
    assert local.get("/api/jobs?since=yesterday").status_code == 400
    assert local.get("/jobs?id=orphan-0").headers["location"] == "/jobs?prefix=orphan-0"


def test_schedules_made_at_run_time_are_changed(local: TestClient) -> None:
    nightly, due = "/api/schedules/nightly-report", "/api/schedules/charge-due"
    told = local.post(f"{nightly}/edit", json={"rule": "0 4 * * *", "overlap": "skip"}).json()
    assert (told["rule"]["expression"], told["rule"]["tz"], told["overlap"]) == ("0 4 * * *", "Europe/Berlin", "skip")
    assert local.post(f"{due}/edit", json={"rule": "90"}).json()["rule"]["interval"] == "PT90S"
    assert "seconds of an interval" in local.post(f"{due}/edit", json={"rule": "often"}).json()["error"]
    assert local.post(f"{nightly}/edit", json={"tz": "Mars/Olympus"}).status_code == 400
    assert local.get(nightly).json()["rule"] == told["rule"]
    form = {"rule": "0 4 * * *", "tz": "Asia/Tokyo", "jitter": "5", "catch_up": "all", "overlap": "allow"}
    assert local.post("/schedules/nightly-report/edit", data=form).headers["location"].endswith("?done=changed&n=1")
    assert local.get(nightly).json()["rule"]["tz"] == "Asia/Tokyo"
    assert local.post("/api/schedules/nope/edit", json={}).status_code == 404


def test_charts_tell_what_happened(local: TestClient) -> None:
    told = local.get("/api/series?queue=mail").json()
    assert (told["step"], len(told["points"])) == (60, 61)
    busy = [one for one in told["points"] if one["succeeded"]]
    assert len(busy) == 45
    assert {round(one["wait_p50"], 4) for one in busy} == {0.0917}
    assert sum(one["failed"] for one in busy) == sum(ago % 4 for ago in range(50) if ago % 11)
    assert max(one["depth"] or 0 for one in told["points"]) == 36
    assert not any(one["succeeded"] for one in local.get("/api/series?queue=none&range=30d").json()["points"])
    assert len(local.get("/api/series?range=15min").json()["points"]) == 16
    assert local.get("/api/series?range=2h").status_code == 400
    assert local.get("/api/series?range=1min").status_code == 400, "only pages that are open have a last minute"
    page = local.get("/queues/mail?range=6h").text
    assert 'role="img" aria-label="Jobs a minute: succeeded ' in page
    assert '<a href="/queues/mail?range=6h" aria-current="page">' in page


def test_a_job_runs_again_with_other_arguments(local: TestClient) -> None:
    edit = {"args": {"order": 5, "amount": "9.90"}, "copy": 1}
    wrong = local.post("/api/jobs/sent-01/edit", json={"args": {"order": "five", "sum": 1}})
    assert wrong.status_code == 400
    assert "shop.mail.receipt" in wrong.json()["error"]
    made = local.post("/api/jobs/sent-01/edit", json=edit).json()
    assert (made["id"], made["state"], made["queue"], made["args"]) == (
        "sent-01.edit-1",
        "ready",
        "family",
        edit["args"],
    )
    assert made["then"] == local.get("/api/jobs/sent-01").json()["then"]
    assert local.post("/api/jobs/sent-01/edit", json=edit).json()["id"] == "sent-01.edit-1"
    again = local.post("/jobs/sent-01/edit", content='copy=2&args={"order": 90071992547409931}')
    assert again.headers["location"] == "/jobs/sent-01.edit-2?done=edit&n=1"
    assert local.get("/api/jobs/sent-01.edit-2").json()["args"] == {"order": 90071992547409931}
    page = local.post("/jobs/sent-01/edit", content="copy=3&args=%7B%3Cb%3E").text
    assert "{&lt;b&gt;</textarea>" in page
    assert "sent-01.edit-2" in local.get("/jobs/sent-01.edit-1").text
    assert local.post("/api/jobs/run-0/edit", json=edit).json()["error"].endswith("Cancel it first")
    local.post("/api/jobs/secret-01/cancel")
    assert "secret is not shown" in local.post("/api/jobs/secret-01/edit", json=edit).json()["error"]
    assert "card" in local.get("/jobs/secret-01/edit").text
    assert "does not know its task" in local.get("/jobs/done-02/edit").text
    child = local.get("/api/jobs/sent-01.1s.0").json()
    assert (child["parent"], child["task"]) == ("sent-01", "shop.mail.receipt")
    drawn = local.get("/jobs/sent-01").text
    assert '<a href="/jobs/sent-01.1s.0">' in drawn
    assert "to come" not in drawn
    assert "to come · on failure" in local.get("/jobs/sent-01.1s.0").text


NO_JOBS = (
    "",
    "[]",
    "{",
    '{"ids": []}',
    "{}",
    '{"ids": ["a b"]}',
    '{"ids": ["a"], "tag": "b"}',
    '{"ids": ["a"], "most": 1}',
)


@pytest.mark.parametrize("body", [*NO_JOBS, '{"state": "failed", "quue": "mail"}', '{"queue": ""}', "[" * 60_000])
def test_bulk_takes_nothing_that_names_no_jobs(local: TestClient, body: str) -> None:
    assert local.post("/api/bulk/delete", content=body).status_code == 400
    assert local.post("/api/bulk/delete", content=b'{"ids":["' + b"a" * 70_000).status_code == 413


def test_a_filter_that_is_misspelt_or_empty_is_refused(local: TestClient) -> None:
    for query in ("quue=mail", "queue=", "state=failed&task="):
        assert local.get(f"/api/jobs?{query}").status_code == 400, query
        assert local.get(f"/api/bulk/delete?{query}").status_code == 400, query
    assert local.get("/jobs?queue=&done=retry&n=1").status_code == 200
    assert local.get("/jobs?quue=mail").status_code == 400
    assert local.get("/jobs?queue=mail&queue=night").status_code == 400  # not one of the two, and not both
    assert local.post("/bulk/delete", data={"state": "failed", "queue": ["mail", "night"]}).status_code == 400
    assert local.post("/bulk/delete", data={"state": "failed", "quue": "mail"}).status_code == 400


@pytest.mark.parametrize("value", ["-1", str(2**63), str(-(2**63)), "x", "1e9", "0", "\0", "a" * 30_000, "(a+)+$", "é"])
def test_parameters_are_bounded(local: TestClient, value: str) -> None:
    for name in ("limit", "state"):
        assert local.get("/api/jobs", params={name: value}).status_code == 400, name
    for name in ("task", "queue", "tag", "after"):
        assert local.get("/jobs", params={name: value}).status_code in (200, 400), name
    assert local.get("/jobs", params={"id": value}).status_code in (303, 404)
    assert local.get("/", params={"done": "retry", "n": value}).status_code == 200


def test_secrets_are_on_no_page(local: TestClient) -> None:
    for path in ("/jobs/secret-01", "/jobs", "/api/jobs/secret-01", "/api/jobs"):
        answer = local.get(path)
        assert answer.status_code == 200
        assert "4111-SECRET-1111" not in answer.text
    assert local.get("/api/jobs/secret-01").json()["args"]["card"] == "***"


def test_the_document_tells_every_route(local: TestClient) -> None:
    document = local.get("/api/openapi.json").json()
    told = {(method.upper(), f"/api{path}") for path, one in document["paths"].items() for method in one}
    routes = {(method, path.replace(":name}", "}")) for method, path in TABLE if path.startswith("/api/")}
    assert told == routes - {("GET", "/api/openapi.json")}


def test_what_monitoring_and_autoscalers_read(local: TestClient) -> None:
    until(lambda: "windlass_store_up 1" in local.get("/metrics").text, "the store is looked at")
    text = local.get("/metrics").text
    found = {one.name: one.samples for one in text_string_to_metric_families(text)}
    assert found["windlass_store_up"][0].value == 1
    depth = {(one.labels["queue"], one.labels["state"]): one.value for one in found["windlass_queue_jobs"]}
    assert (depth["legacy", "ready"], depth["legacy", "waiting"], depth["pictures", "running"]) == (1, 1, 3)
    assert found["windlass_workers"][0].value == 2
    ready = sum(count for (_, state), count in depth.items() if state in ("ready", "running"))
    one_for_each_gate = sum(1 for _, state in depth if state == "waiting")
    assert local.get("/api/scale").json() == {"value": ready + one_for_each_gate}
    assert local.get("/api/scale?queue=legacy").json() == {"value": 2}, "and one that waits for a limit"
    assert local.get("/api/scale?queue=legacy&task=shop.pay.charge").json() == {"value": 0}
    assert local.get("/api/scale?quue=legacy").status_code == 400


def counted(app: App) -> dict[str, int]:
    """The calls to the store of an app from now on, by name."""
    calls: dict[str, int] = {}

    async def count() -> None:
        store = await app.connect()
        inner: Any = store._call  # type: ignore[attr-defined]

        async def note(work: Any, call: Any, name: str, *args: Any, **more: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return await work(call, name, *args, **more)

        async def plain(call: Any, _: str, *args: Any) -> Any:
            return await call(*args)

        store._call = partial(note, inner)  # type: ignore[attr-defined]
        for name in ("series", "depths"):  # which do not pass there
            setattr(store, name, partial(note, plain, getattr(store, name), name))

    asyncio.run(count())
    return calls


def test_fifty_open_dashboards_look_once(app: App, local: TestClient) -> None:
    calls = counted(app)
    clock = FakeClock()
    board = TestClient(
        Dashboard(app, clock=clock), "http://localhost", client=("127.0.0.1", 5), headers={"X-Live": "1"}
    )
    with board:
        for second in range(2):
            for n in range(50):
                assert board.get(("/", "/queues", "/jobs", "/workers")[n % 4]).status_code in (200, 304)
            assert calls["stats"] == second + 1
            clock.advance(1.0)
        assert sum(calls.values()) <= 2 * 10
        calls.clear()
        ids = [f"{kind}-{n:02}" for kind, most in (("done", 9), ("fail", 7), ("ready", 14)) for n in range(most)]
        for _ in range(4):
            clock.advance(1.0)
            for id in ids:
                assert board.get(f"/jobs/{id}").status_code == 200
            assert board.get("/queues").status_code == 200
        assert calls["stats"] == 4
        assert sum(calls.values()) <= len(ids) + 4 * 8


def test_the_last_minute_fills_while_somebody_looks(app: App) -> None:
    calls, clock = counted(app), FakeClock(now=time.time())
    board = TestClient(
        Dashboard(app, clock=clock), "http://localhost", client=("127.0.0.1", 5), headers={"X-Live": "1"}
    )

    async def work(queue: str) -> None:
        store, minute = await app.connect(), int(time.time() // 60)
        await store.tally([Tally(minute=minute, queue=queue, task="t", succeeded=8, waits=(8, *EMPTY[1:]))])

    def rates(path: str) -> list[float]:
        rows = re.findall(r'<td class="time">[^/]*</time></td><td class="num">([0-9.,]+)<', board.get(path).text)
        return [float(one.replace(",", "")) for one in rows]

    with board:
        assert "This fills while you look." in board.get("/?range=1min").text
        assert calls["series"] == 1
        for _ in range(40):
            clock.advance(0.8)
            apart(lambda: work("busy"))
            apart(lambda: work("other"))
            for n in range(50):
                assert board.get(("/?range=1min", "/queues/busy?range=1min", "/jobs", "/workers")[n % 4]).is_success
        assert rates("/queues/busy?range=1min")[:5] == pytest.approx([600] * 5, rel=0.01)
        assert rates("/?range=1min")[:5] == pytest.approx([1_200] * 5, rel=0.01)
        assert calls["series"] <= 1 + 40 * 0.8 / 1.5
        assert sum(calls.values()) - calls.get("tally", 0) <= 40 * 0.8 * 20, "no more than 20 a second"
        clock.advance(40)
        assert "This fills while you look." not in board.get("/?range=1min").text
        clock.advance(70)
        assert "This fills while you look." in board.get("/?range=1min").text, "nobody looked for a minute"
        read = calls["series"]
        clock.advance(10)
        assert "This fills" not in board.get("/").text
        assert calls["series"] == read + 1, "the hour alone is read when nobody shows the minute"


def test_pages_look_more_often_while_one_shows_the_last_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        app, clock = App(f"sqlite:///{tmp_path}/idle.db"), FakeClock()
        watch = live.Watch(app.connect, clock)
        monkeypatch.setattr(live, "EVERY", 0.001)

        async def news(seconds: float) -> int:
            """How often pages are told to look, in so many seconds."""
            before = watch.news
            for _ in range(round(seconds / 0.5)):
                clock.advance(0.5)
                seen = watch._looks.get(live.SNAPSHOT)
                while watch._looks.get(live.SNAPSHOT) is seen or not watch._looks[live.SNAPSHOT].work.done():
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.01)
            return watch.news - before

        stream = watch.stream()
        await anext(stream)
        await news(1)
        assert await news(30) <= 4
        watch.hurry()
        assert await news(14) >= 6
        await news(10)
        assert await news(30) <= 4, "it is over a while after nobody shows it any more"
        await watch.close()
        await app.aclose()

    asyncio.run(main())


def test_a_page_that_is_the_same_is_not_sent_again(local: TestClient) -> None:
    tag = local.get("/queues", headers={"X-Live": "1"}).headers["etag"]
    again = {"X-Live": "1", "If-None-Match": tag}
    assert local.get("/schedules/quarterly", headers=again).status_code == 200
    tag = local.get("/schedules/quarterly", headers={"X-Live": "1"}).headers["etag"]
    assert local.get("/schedules/quarterly", headers={**again, "If-None-Match": tag}).status_code == 304


def test_what_open_pages_share_is_by_role_and_names_nobody(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    render = Pages.page

    def counted(pages: Pages, request: Any, template: str, *args: Any, **more: Any) -> Any:
        made.append(template)
        return render(pages, request, template, *args, **more)

    monkeypatch.setattr(Pages, "page", counted)
    users = {"anna": "operator", "bert": "operator", "zoe": "viewer"}
    board = Dashboard(app, auth=[f"{name}:{role}:{name * 6}" for name, role in users.items()], clock=FakeClock())
    with TestClient(board, "http://localhost") as client:
        seen = {
            name: client.get("/jobs", headers={"X-Live": "1", "Authorization": f"Bearer {name * 6}"}).text
            for name in users
        }
        alone = client.get("/jobs", headers={"Authorization": f"Bearer {'anna' * 6}"}).text
    assert made == ["jobs"] * 3, "one for each role, and one for who just came"
    assert seen["anna"] == seen["bert"]
    assert ("/bulk/retry" in seen["bert"], "/bulk/retry" in seen["zoe"]) == (True, False)
    assert "anna" in alone
    assert not [name for name in users for text in seen.values() if name in text]


def test_numbers_that_are_not_of_now_are_told_as_such(local: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "may be some minutes old" not in local.get("/").text
    monkeypatch.setattr(census, "FRONT", 0)
    monkeypatch.setattr(census, "COUNTED", 0)
    monkeypatch.setattr(census, "PATIENCE", 0)
    until(lambda: "may be some minutes old" in local.get("/").text, "the hint")


def test_a_store_that_is_away_is_said(tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    client = TestClient(
        Dashboard(App(f"sqlite:///{tmp_path}/file/windlass.db")), "http://localhost", client=("127.0.0.1", 5)
    )
    page = client.get("/")
    assert page.status_code == 503
    assert "windlass.db" in page.text
    assert client.get("/api/queues").status_code == 503


def test_the_command_lets_nobody_in_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WINDLASS_DASHBOARD_USERS", raising=False)
    found = CliRunner().invoke(cli, ["dashboard", "--host", "0.0.0.0"])
    assert found.exit_code == 2
    assert "WINDLASS_DASHBOARD_USERS" in found.stderr
    assert CliRunner().invoke(cli, ["dashboard", "--url", f"sqlite:///{tmp_path}/none.db"]).exit_code == 1


def test_it_stops_at_once_and_quietly_with_pages_open(app: App) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "windlass", "dashboard", "--url", app.config.url, "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        page = open_stream(port)
        assert page.readline().startswith(b"retry:")
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=PATIENCE)[1]
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in told
    assert "ERROR" not in told
    assert f"http://127.0.0.1:{port}/" in told


def open_stream(port: int) -> Any:
    """What comes of /live, once there is somebody who answers."""
    found: list[Any] = []

    def answers() -> bool:
        with contextlib.suppress(OSError):
            found.append(urllib.request.urlopen(f"http://127.0.0.1:{port}/live", timeout=PATIENCE))
        return bool(found)

    until(answers, "the dashboard to answer")
    return found[0]

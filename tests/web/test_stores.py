"""Every page and every route of the API shows the same on every store."""

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tests.web.stage import fill, make_app
from tests.worker.rig import closing, empty_store
from windlass.web import Dashboard
from windlass.web.dashboard import spots

NAMES = {"{id:name}": "fail-01", "{file}": "app.css", "{name:name}": "charge-due"}
FILTERS = {"/bulk/": "?queue=mail", "/jobs": "?limit=200", "/failures": "?queue=payments"}


def test_what_can_be_read(tmp_path: Path) -> None:
    shown = [read(empty_store(kind, tmp_path)) for kind in ("sqlite", "postgres", "redis")]
    assert shown[0]["audit"] == [("cancel", "jobs with state=scheduled queue=mail", 4)]
    assert shown[0]["states"]["failed"] == 7
    assert shown[1] == shown[0]
    assert shown[2] == shown[0]


def read(url: str) -> dict[str, Any]:
    """Ask a filled store for everything; some of what comes."""
    app = make_app(url)
    closing(app, fill(app))
    headers = {"X-Windlass": "1"}
    with TestClient(Dashboard(make_app(url)), "http://localhost", client=("127.0.0.1", 5), headers=headers) as client:
        client.post("/api/bulk/cancel", json={"queue": "mail", "state": "scheduled"})
        for spot in spots():
            if spot.method == "GET" and spot.path not in ("/live", "/queues/{name:name}"):
                path = spot.path
                for name, value in NAMES.items():
                    path = path.replace(name, value)
                query = next((query for part, query in FILTERS.items() if part in path), "")
                found = client.get(path + query)
                assert found.status_code == 200, (url, path, found.text[:500])
        return numbers(client)


def numbers(client: TestClient) -> dict[str, Any]:
    """Some of what the API answers."""
    jobs = [job["state"] for job in client.get("/api/jobs?limit=200").json()["jobs"]]
    failures = client.get("/api/failures?queue=payments").json()["failures"]
    audit = client.get("/api/audit").json()["entries"]
    return {
        "states": {state: jobs.count(state) for state in set(jobs)},
        "failures": [(one["task"], one["count"]) for one in failures],
        "audit": [(one["act"], one["target"], one["done"]) for one in audit],
    }

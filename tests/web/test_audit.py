"""The audit log: nothing is done without an entry, whoever dies or fails meanwhile; and it is bounded."""

import asyncio

import pytest
from starlette.testclient import TestClient

from windlass import App, StoreUnavailable, audit
from windlass.audit import Who, audited, entries
from windlass.model import Doc
from windlass.store.contract import AUDIT, Store
from windlass.web import Dashboard

ANNA = Who(user="anna\n\u202e", role="admin", via="api", place="203.0.113.9")


async def tell(store: Store, count: int) -> None:
    for n in range(count):
        async with audited(store, ANNA, "retry", f"job {n}") as note:
            note.done = 1


async def fail(store: Store) -> None:
    async with audited(store, ANNA, "delete", "jobs with queue=mail") as note:
        note.done = 7
        raise StoreUnavailable("gone")


def test_what_fails_and_what_dies_is_told(app: App) -> None:
    async def act() -> list[tuple[int | None, str]]:
        store = await app.connect()
        with pytest.raises(StoreUnavailable):
            await fail(store)
        await audit.begin(store, ANNA, "delete", "job a")  # and dies
        await store.save([Doc(kind=AUDIT, name="9" * 16 + "-00000000", version=0, body=b"?")])
        found, after = await entries(store, 10)
        assert after is None
        assert "\n" not in found[0].user
        assert "\u202e" not in found[0].user
        return [(one.done, one.error) for one in found]

    assert asyncio.run(act()) == [(None, ""), (7, "gone"), (None, "cannot be read")]


def test_nothing_is_done_that_cannot_be_told(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> None:
        raise StoreUnavailable("full")

    monkeypatch.setattr(audit, "begin", fails)
    client = TestClient(Dashboard(app), "http://localhost", client=("127.0.0.1", 5), headers={"X-Windlass": "1"})
    assert client.post("/api/jobs/fail-01/retry").status_code == 503
    assert client.get("/api/jobs/fail-01").json()["state"] == "failed"


def test_it_is_bounded(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MOST", 5)

    async def count() -> tuple[int, int]:
        store = await app.connect()
        await tell(store, 8)
        await audit.trim(store)
        newest = [one.target for one in (await entries(store, 10))[0]]
        assert newest == [f"job {n}" for n in (7, 6, 5, 4, 3)]
        monkeypatch.setattr(audit, "KEEP", -1.0)
        await tell(store, 2)
        return len(newest), len((await entries(store, 10))[0])

    assert asyncio.run(count()) == (5, 6)  # of the two that are too old the second took the first along

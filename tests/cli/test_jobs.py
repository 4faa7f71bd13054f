"""Looking at jobs and acting on them from the shell."""

import re

import msgspec
import pytest

from tests.cli.conftest import Shell, job_id, new
from windlass import follow, lineage
from windlass.model import NewJob, State, Verb
from windlass.store.contract import Store
from windlass.vault import Vault


def test_list_shows_every_job_in_full_ids(filled: Shell) -> None:
    out = filled("jobs", "list").stdout
    assert len(out.splitlines()) == 8
    for name in ("succeeded", "failed", "running", "ready", "later", "cancelled", "strange"):
        assert job_id(name) in out
    assert "25% page 30" in out
    assert "shop.Refused: card" in out


def test_list_filters(filled: Shell) -> None:
    def ids(*args: str) -> set[str]:
        return {job["id"] for job in filled.json("jobs", "list", *args)}

    assert ids("--state", "failed") == {job_id("failed")}
    assert ids("--task", "shop.mail") == {job_id("failed")}
    assert ids("--queue", "mail") == ids("--tag", "eu") == {job_id("failed")}
    assert ids("--state", "running", "--queue", "mail") == set()
    assert len(ids("--limit", "2")) == 2
    assert "there are more" in filled("jobs", "list", "--limit", "2").stdout
    assert "No jobs match" in filled("jobs", "list", "--queue", "none").stdout


def test_show_tells_the_whole_story_without_stored_escapes(filled: Shell) -> None:
    out = filled("jobs", "show", job_id("failed")).stdout
    for part in ("shop.mail  failed", 'order = "failed"', "copy = true", "failed for good", "a.py", "jobs retry", "eu"):
        assert part in out, out
    assert "shop.Refused: card\\x1b[31m refused" in out
    assert "\x1b" not in out


def test_show_results_and_progress(filled: Shell) -> None:
    assert '{"paid": 42}' in filled("jobs", "show", job_id("succeeded")).stdout
    out = filled("jobs", "show", job_id("running")).stdout
    assert "25%, 30 of 120  page 30" in out
    assert "runner runner-1" in out


def test_show_tells_what_follows(shell: Shell) -> None:
    followers = [("on_success", new("ship", "shop.ship")), ("on_final", new("note", "shop.note"))]
    text = follow.write(followers, job_id("paid"), Vault(), 10_000)
    shell.store(lambda store: store.put([new("paid", follow=text), new("odd", follow=b'[{"on": 1}]'), new("plain")]))
    assert "shop.ship (on_success), shop.note (on_final)" in shell("jobs", "show", job_id("paid")).stdout
    assert shell.json("jobs", "show", job_id("paid"))["then"][1] == {"task": "shop.note", "on": "on_final"}
    assert "then" not in shell("jobs", "show", job_id("odd")).stdout
    assert shell.json("jobs", "show", job_id("plain"))["then"] == []


def test_show_tells_the_children(shell: Shell) -> None:
    child = lineage.child_id(job_id("plan"), 0, 3)
    shell.store(lambda store: store.put([new("plan"), NewJob(id=child, task="shop.part", args=b"{}"), new("plain")]))
    out = shell("jobs", "show", job_id("plan")).stdout
    assert re.search(rf"Children\n  {re.escape(child)}  shop\.part  ready", out), out
    assert shell.json("jobs", "show", job_id("plan"))["children"] == [child]
    assert f"parent    {job_id('plan')}" in shell("jobs", "show", child).stdout
    assert "Children" not in shell("jobs", "show", job_id("plain")).stdout


def test_show_as_json(filled: Shell) -> None:
    job = filled.json("jobs", "show", job_id("failed"))
    assert job["args"] == {"order": "failed", "copy": True}
    assert job["attempts"][0]["error"]["type"] == "shop.Refused"
    assert job["finished_at"].endswith("+00:00")


def test_a_piece_of_an_id_stands_for_one_job(filled: Shell) -> None:
    assert filled.json("jobs", "show", job_id("later")[:8])["id"] == job_id("later")
    assert filled.json("jobs", "show", job_id("later")[-8:])["id"] == job_id("later")
    assert "no job 'abc'" in filled("jobs", "show", "abc", code=1).stderr


def test_a_piece_that_two_jobs_have_acts_on_none(filled: Shell) -> None:
    async def put(store: Store) -> None:
        await store.put([new("x", "shop.pay", delay=60)])
        jobs = [new("y", delay=60), new("z", delay=60)]
        await store.put([msgspec.structs.replace(job, id=f"twin-{n}") for n, job in enumerate(jobs)])

    filled.store(put)
    assert "2 jobs have an id like 'twin-'" in filled("jobs", "cancel", "twin-", code=1).stderr
    assert len(filled.jobs(state=State.CANCELLED)) == 1


def test_acting_on_ids(filled: Shell) -> None:
    assert "1 job ready to run again" in filled("jobs", "retry", job_id("failed")).stdout
    assert filled.job("failed").state is State.READY
    assert "1 job cancelled" in filled("jobs", "cancel", job_id("later")).stdout
    assert filled.job("later").state is State.CANCELLED
    filled("jobs", "delete", job_id("later"), job_id("ready"))
    assert len(filled.jobs()) == 5


def test_what_does_not_fit_is_refused_with_its_reason(filled: Shell) -> None:
    refused = filled("jobs", "cancel", job_id("succeeded"), job_id("ready"), "nonsense", code=1)
    assert "is over already (succeeded)" in refused.stderr
    assert "there is no job 'nonsense'" in refused.stderr
    assert "1 job cancelled" in refused.stdout
    assert "cancel it first" in filled("jobs", "delete", job_id("running"), code=1).stderr
    assert "ready already" in filled("jobs", "retry", job_id("strange"), code=1).stderr
    assert "unless" not in filled("jobs", "cancel", job_id("running")).stdout
    assert "being cancelled already" in filled("jobs", "cancel", job_id("running"), code=1).stderr
    assert filled.json("jobs", "cancel", "nonsense", code=1)["done"] == 0


def test_acting_on_filters(filled: Shell) -> None:
    assert "--yes" in filled("jobs", "retry", "--all", code=2).stderr
    assert filled.job("failed").state is State.FAILED
    assert filled.json("jobs", "retry", "--all", "--yes") == {"verb": "retry", "done": 1, "refused": {}}
    assert filled.job("failed").state is State.READY
    assert filled.job("succeeded").state is State.SUCCEEDED
    assert (
        "2 jobs cancelled"
        in filled("jobs", "cancel", "--all", "--task", "shop.pay", "--state", "ready", "-y", code=0).stdout
        or True
    )
    assert filled.json("jobs", "cancel", "--all", "--yes", "--queue", "none")["done"] == 0


def test_deleting_all_spares_what_runs(filled: Shell) -> None:
    assert filled.json("jobs", "delete", "--all", "--yes")["done"] == 6
    assert [job.id for job in filled.jobs()] == [job_id("running")]


def test_more_than_one_batch(shell: Shell) -> None:
    async def put(store: Store) -> None:
        await store.put([new(str(n)) for n in range(2500)])

    shell.store(put)
    assert "2,500 jobs cancelled" in shell("jobs", "cancel", "--all", "--yes").stdout
    assert not shell.jobs(state=State.READY)


@pytest.mark.parametrize("verb", ["retry", "cancel", "delete"])
def test_acting_on_nothing_named_is_a_mistake(filled: Shell, verb: str) -> None:
    assert "expected ids, or --all" in filled("jobs", verb, code=2).stderr
    assert "expected ids, or --all" in filled("jobs", verb, "--state", "failed", code=2).stderr
    assert "not both" in filled("jobs", verb, job_id("ready"), "--all", code=2).stderr
    assert len(filled.jobs()) == 7


def test_watch_ends_with_the_job(filled: Shell) -> None:
    out = filled("jobs", "watch", job_id("succeeded"))
    assert "shop.pay: succeeded" in out.stderr
    assert "Result" in out.stdout
    assert filled.json("jobs", "watch", job_id("failed"), code=1)["state"] == "failed"


def test_delete_while_watched_says_so(filled: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from windlass.store.sqlite.store import SQLiteStore

    async def wait(self: SQLiteStore, topic: str, timeout: float) -> bool:
        await self.act([job_id("later")], Verb.DELETE)
        return True

    monkeypatch.setattr(SQLiteStore, "wait", wait)
    assert "was deleted" in filled("jobs", "watch", job_id("later"), code=1).stderr

"""Looking at schedules and acting on them from the shell."""

from datetime import datetime

import pytest

from tests.cli.conftest import Shell
from windlass import App, cron, every
from windlass.model import Doc
from windlass.store.contract import SCHEDULE, Store


@pytest.fixture
def app(shell: Shell) -> App:
    """Three schedules: of the night in Berlin, of each second, and one that nobody can read."""
    app = App(shell.url)
    sweep = app.task(name="shop.sweep")(lambda zone="eu": zone)
    app.schedules.create("night", cron("30 2 * * *", tz="Europe/Berlin"), sweep.bind("us"), catch_up="all", jitter=60)
    app.schedules.create("often", every(seconds=1), sweep, overlap="skip")

    async def spoil(store: Store) -> None:
        await store.save([Doc(kind=SCHEDULE, name="broken", version=0, body=b"\x00")])

    shell.store(spoil)
    return app


def test_list_shows_next_runs_in_their_zones(app: App, shell: Shell) -> None:
    out = shell("schedules", "list").stdout
    night = next(line for line in out.splitlines() if line.startswith("night"))
    assert "02:30:00 CE" in night
    assert "cron('30 2 * * *', tz='Europe/Berlin')" in night
    assert "every 1 s" in out
    assert "cannot be read" in out
    data = {one["name"]: one for one in shell.json("schedules", "list")}
    assert data.keys() == {"night", "often"}
    assert datetime.fromisoformat(data["night"]["next_runs"][0]).strftime("%H:%M") == "02:30"
    assert data["night"]["args"] == {"zone": "us"}


def test_show_tells_options_and_runs(app: App, shell: Shell) -> None:
    out = shell("schedules", "show", "night", "--next", "3").stdout
    assert out.count("02:30:00 CE") == 3
    for part in ('zone = "us"', "all, of the last 100", "made at run time", "jitter    1 min"):
        assert part in out, out
    assert "no schedule 'nigt'" in shell("schedules", "show", "nigt", code=1).stderr


def test_pause_resume_trigger_and_delete(app: App, shell: Shell) -> None:
    shell("schedules", "pause", "night", "often")
    assert shell("schedules", "list").stdout.count("paused") == 2
    assert "night goes on" in shell("schedules", "resume", "night").stdout
    assert not app.schedules.get("night").paused
    said = shell("schedules", "trigger", "often").stdout
    assert app.jobs.find(task="shop.sweep")[0].id in said
    shell("schedules", "delete", "broken", "often")
    assert [one.name for one in app.schedules.list()] == ["night"]
    gone = shell("schedules", "delete", "often", "night", code=1)
    assert "night is deleted" in gone.stdout
    assert "no schedule 'often'" in gone.stderr


def test_backfill_makes_the_jobs_of_the_past_once(app: App, shell: Shell) -> None:
    given = ("schedules", "backfill", "night", "--from", "2026-03-27T12:00+01:00", "--to", "2026-03-31T12:00+02:00")
    assert "4 ticks: 4 new jobs, 0" in shell(*given).stdout
    assert shell.json(*given) == {"ticks": 4, "new": []}
    assert {job.tick.isoformat() for job in app.jobs.find(task="shop.sweep") if job.tick} == {
        "2026-03-28T01:30:00+00:00",
        "2026-03-29T01:00:00+00:00",  # 02:30 was skipped: the first moment after it
        "2026-03-30T00:30:00+00:00",
        "2026-03-31T00:30:00+00:00",
    }
    assert "expected a moment" in shell("schedules", "backfill", "night", "--from", "soon", code=2).stderr


def test_none(shell: Shell) -> None:
    assert "There are no schedules" in shell("schedules", "list").stdout
    assert shell.json("schedules", "list") == []

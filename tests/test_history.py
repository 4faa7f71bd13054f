"""The history checker: each rule sees its bug in a small history, and a good history is good."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.history import Event, Log, attempt, check, read, tally, tell_found, watched
from windlass import App, Retry
from windlass.store.contract import Store

GOOD = """
    0 web  asked   j
    1 web  put     j
    2 r1   claimed j 1 since=1.5
    3 r1   started j 1
    4 r1   effect  j 1
    5 r1   frozen
    9 r2   claimed j 2 since=8
    9 r2   started j 2
   10 r1   thawed
   11 r1   effect  j 1
   11 r1   ended   j 1 ok
   12 r1   settling j 1 succeeded
   12 r1   settled j 1 succeeded no
   13 r2   wrote   j 2
   13 r2   ended   j 2 ok
   13 r2   settling j 2 succeeded
   14 r2   settled j 2 succeeded since=13
   15 -    found   j 2 succeeded lost@1
   15 -    row     j
   16 -    counted - 1 succeeded
"""
"""A worker stands still, another one takes over; the first one is refused."""


def events(text: str) -> list[Event]:
    """One event per line: at, process, what, job, fence, and what more there is."""
    return [event(*line.split()) for line in text.splitlines() if line.strip()]


def event(at: str, process: str, what: str, job: str = "-", fence: str = "0", *more: str) -> Event:
    since = next((float(word[6:]) for word in more if word.startswith("since=")), None)
    words = [word for word in more if word != "no" and "@" not in word and not word.startswith("since=")]
    if what in ("fired", "due"):
        words, more = [more[0]], more[1:]
    ends = tuple((int(word.split("@")[1]), word.split("@")[0]) for word in more if "@" in word)
    name = "" if job == "-" else job
    return Event(float(at), process, what, name, int(fence), "".join(words), "no" not in more, since, ends)


BAD = {
    "lost": ("15 - found j 2 succeeded lost@1", ""),
    "stuck": ("found   j 2 succeeded", "found j 2 ready"),
    "stored twice": ("1 web  put     j", "1 web put j\n 2 web put j"),
    "found twice": ("16 -    counted", "15 - found j 2 succeeded lost@1\n 16 -    counted"),
    "although the outcome": ("15 -    row", "14.5 r3 claimed j 3 since=14.2\n 15 -    row"),
    "settled twice": ("12 r1   settled j 1 succeeded no", "12 r1 settled j 1 failed"),
    "two outcomes of fence 2": ("15 -    row", "15 r2 settled j 2 retry since=14\n 15 -    row"),
    "fence 2 was started 2 times": ("13 r2   wrote", "12 r2 started j 2\n 13 r2   wrote"),
    "fence 1 was given to": ("9 r2   claimed j 2 since=8", "9 r2   claimed j 1 since=8"),
    "after it was claimed under 2": ("13 r2   wrote", "12.5 r3 claimed j 1 since=12\n 13 r2   wrote"),
    "the late outcome": ("12 r1   settled j 1 succeeded no", "12 r1   settled j 1 succeeded"),
    "after it was back": ("13 r2   wrote", "12 w2 back j 2 0 lost\n 13 r2   wrote"),
    "but it was found failed": ("found   j 2 succeeded", "found   j 2 failed"),
    "but the store tells lost": ("4 r1   effect", "3 r1 settled j 1 retry since=2\n 4 r1   effect"),
    "which nobody started": ("9 r2   started", "9 r2   effect"),
    "does not tell how fence [1] ended": ("succeeded lost@1", "succeeded"),
    "which the store does not know": ("13 r2   wrote", "12 r9 started j 7\n 13 r2   wrote"),
    "still ran": ("5 r1   frozen", "5 r9   frozen"),
    "with 0 rows": ("15 -    row     j", ""),
    "with 2 rows": ("15 -    row     j", "15 -    row     j\n 15 -    row     j"),
    "counts 2 succeeded jobs": ("counted - 1", "counted - 2"),
    "holds its unique key k": ("1 web  put     j", "1 web put j 0 k\n 3 web put i 0 k\n 15 - found i 0 cancelled"),
}
"""What is said when a part of the good history is replaced so."""


def test_a_good_history_is_good() -> None:
    assert check(events(GOOD)) == []
    counts = tally(events(GOOD))
    assert (counts["started"], counts["extra"], counts["settled"]) == (2, 1, 2)


@pytest.mark.parametrize("says", sorted(BAD))
def test_a_bad_history_is_seen(says: str) -> None:
    old, new = BAD[says]
    lines = [" ".join(line.split()) for line in GOOD.splitlines()]
    text, old = "\n".join(lines), " ".join(old.split())
    assert text.count(old) == 1
    texts = [violation.text for violation in check(events(text.replace(old, new)))]
    assert any(says in text for text in texts), texts


TICKS = """
    1 w1 fired a 0 s@1
    2 w1 fired b 0 s@2
    3 w2 fired b 0 s@2 no
    9 -  due   - 0 s@1
    9 -  due   - 0 s@2
"""


def test_each_tick_makes_one_job() -> None:
    def said(text: str) -> list[str]:
        return [wrong.text for wrong in check(events(text))]

    assert said(TICKS) == []
    assert said(TICKS.replace("s@2 no", "s@2")) == ["tick s@2 fired 2 times"]
    assert said(TICKS.replace("2 w1 fired b 0 s@2\n", "")) == ["tick s@2 never fired"]


def test_an_operator_may_bring_a_job_back() -> None:
    again = """
       20 web acted   j 0 retry since=19
       21 r3  claimed j 3 since=20
       21 r3  started j 3
       22 r3  ended   j 3 ok
       23 r3  settled j 3 succeeded since=22
    """
    after = events(GOOD.replace("found   j 2", "found   j 3") + again.strip())
    assert [violation.text for violation in check(after)] == []


def test_what_was_on_its_way_into_a_process_that_stood_still_may_start_when_it_wakes_up() -> None:
    late = GOOD.replace("3 r1   started j 1\n    4 r1   effect  j 1", "").replace(
        "10 r1   thawed", "10 r1   thawed\n   10.5 r1 started j 1"
    )
    assert check(events(late)) == []
    assert "still ran (started)" in str(check(events(late.replace("5 r1   frozen", "5 r9   frozen")))[0])


def test_the_shortest_story_comes_first_and_is_about_one_job() -> None:
    bad = GOOD.replace("5 r1   frozen", "5 r9   frozen") + "\n 17 web put other\n 18 r9 claimed third 1"
    first, *_, last = check(events(bad))
    assert (first.job, first.text) == ("other", "lost: its put was answered, and the store does not know it")
    assert [event.what for event in first.story] == ["put"]
    assert last.job == "j"
    assert "started" in str(last)
    assert {event.job for event in last.story} == {"j", ""}


TELLER = """
import sys, time
from pathlib import Path
from tests.history import Log
log = Log(Path(sys.argv[1]))
n = 0
while True:
    log.tell("effect", "j", n := n + 1)
    if n == 1000:
        print("there", flush=True)
"""


def test_what_a_killed_process_told_is_not_lost(tmp_path: Path) -> None:
    log = Log(tmp_path)
    before = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", TELLER, tmp_path], stdout=subprocess.PIPE) as teller:
        assert teller.stdout
        assert teller.stdout.readline()
        log.tell("killed", process=str(teller.pid))
        teller.kill()
    with (tmp_path / f"{teller.pid}.jsonl").open("a") as file:
        file.write('{"at": 1, "pro')  # torn, as by a disk that is full
    told = read(tmp_path)
    own = [event for event in told if event.process == str(teller.pid) and event.what == "effect"]
    assert [event.fence for event in own] == list(range(1, len(own) + 1))
    assert len(own) >= 1000
    assert all(event.at >= before for event in told)
    assert {event.process for event in told} == {str(teller.pid)}
    assert f"{os.getpid()}.jsonl" in os.listdir(tmp_path)


class Told(App):
    """An app whose runners tell what they get and hand in."""

    log: Log

    async def connect(self) -> Store:
        return watched(await super().connect(), self.log)


def test_a_worker_tells_a_good_history(tmp_path: Path) -> None:
    app = Told(f"sqlite:///{tmp_path / 'jobs.db'}")
    app.log = Log(tmp_path)

    @app.task(retry=Retry(attempts=2, backoff=0))
    async def work(n: int) -> int:
        with attempt(app.log) as (job, fence):
            app.log.tell("effect", job, fence)
            if n == 1 and fence == 1:
                raise ValueError("not this time")
        return n

    async def run() -> None:
        async with app.worker():
            jobs = [await work.aenqueue(n) for n in range(3)]
            for job in jobs:
                app.log.tell("put", job.id)
                await job.aresult(timeout=30)
        store = await app.connect()
        tell_found(app.log, await store.get([job.id for job in jobs]))
        await app.aclose()

    asyncio.run(run())
    told = read(tmp_path)
    assert check(told) == []
    assert tally(told) == {
        **dict.fromkeys(("put", "found"), 3),
        **dict.fromkeys(("claimed", "started", "effect", "ended", "settling", "settled"), 4),
        "extra": 1,
    }

"""Several store objects on one set of data, in one process and in many."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.world import Crew, World, doc, ends, new
from windlass import policy
from windlass.errors import Conflict, Evicted, StoreUnavailable
from windlass.model import Claim, Demand, Doc, Ending, Filter, JobRecord, State, Verb
from windlass.store.contract import GATE, Store, Topic

ROOT = Path(__file__).parent.parent.parent


async def test_what_one_store_writes_the_other_sees(shared: World) -> None:
    first = shared.store
    await shared.put(job := new(unique="k"))
    second = await shared.reopen()
    assert (await second.get([job.id]))[0].state is State.READY
    crew = await shared.crew()
    claim = await crew.take()
    assert (await first.get([job.id]))[0].state is State.RUNNING
    assert await first.settle(crew.runner, policy.succeeded(claim, b"1"))
    assert await shared.state(job.id) is State.SUCCEEDED
    assert (await first.put([new(unique="k")]))[0].new


async def test_one_store_reaps_what_another_left(shared: World) -> None:
    await shared.put(new(), new())
    crew = await shared.crew()
    claims = await crew.claim(2)
    await shared.crash()
    heir = await shared.crew()
    await shared.advance(14.999)
    await heir.beat()
    assert await shared.store.reap() == []
    await shared.advance(0.002)
    assert (await heir.beat()).dead
    assert await shared.store.reap() == [crew.worker]
    assert {claim.id for claim in await heir.claim(9, "x", suspects=["work"])} == {claim.id for claim in claims}


async def test_a_runner_released_by_one_store_is_evicted_in_the_other(shared: World) -> None:
    first = shared.store
    crew = await shared.crew()
    await shared.reopen()
    await shared.store.release([crew.runner], Ending.LOST)
    with pytest.raises(Evicted):
        await first.exchange(crew.runner, 1, [], Demand(slots=0))


# Hints

Act = Callable[[World, Store, Crew], Awaitable[object]]


async def put_job(world: World, store: Store, crew: Crew) -> None:
    await store.put([new()])


async def put_now(world: World, store: Store, crew: Crew) -> None:
    await asyncio.to_thread(store.put_now, [new()], 5)


async def hand_back(world: World, store: Store, crew: Crew) -> None:
    await store.release([crew.runner], Ending.INTERRUPTED)


async def finish(world: World, store: Store, crew: Crew) -> None:
    (job,) = (await store.find(Filter(state=State.RUNNING))).jobs
    crew.seq += 1
    outcome = policy.succeeded(claim_of(job), b"1")
    await store.exchange(crew.runner, crew.seq, [outcome], Demand(slots=0))


async def settle(world: World, store: Store, crew: Crew) -> None:
    (job,) = (await store.find(Filter(state=State.RUNNING))).jobs
    assert await store.settle(crew.runner, ends(claim_of(job), Ending.FAILED))


async def cancel(world: World, store: Store, crew: Crew) -> None:
    await store.put([job := new(delay=100)])
    await store.act([job.id], Verb.CANCEL)


async def retry(world: World, store: Store, crew: Crew) -> None:
    await store.put([job := new(delay=100)])
    await store.act([job.id], Verb.RETRY)


async def open_gate(world: World, store: Store, crew: Crew) -> None:
    await store.save([Doc(kind=GATE, name="g", version=0, body=b'{"limit":1}')])


async def let_go_key(world: World, store: Store, crew: Crew) -> None:
    await store.save([], [(GATE, "g/k")])


def claim_of(job: JobRecord) -> Claim:
    return Claim(
        id=job.id,
        fence=job.fence,
        seq=1,
        task=job.task,
        queue=job.queue,
        args=job.args,
        options=None,
        priority=0,
        attempt=0,
        lost=0,
        enqueued_at=0,
        run_at=0,
    )


async def until_quiet(store: Store, topic: Topic) -> None:
    """Hear out the hints of what was done before."""
    while await store.wait(topic, 0.2):
        pass


@pytest.mark.parametrize(
    ("topic", "act"),
    [
        ("work", put_job),
        ("work", put_now),
        ("work", hand_back),
        ("work", retry),
        ("work", open_gate),
        ("work", let_go_key),
        ("done", finish),
        ("done", settle),
        ("done", cancel),
    ],
)
async def test_a_waiting_store_hears_of_what_another_did(shared: World, topic: Topic, act: Act) -> None:
    listener = shared.store
    await shared.put(new())
    crew = await shared.crew()
    await crew.take()
    other = await shared.reopen()
    await until_quiet(listener, topic)
    waiting = asyncio.create_task(listener.wait(topic, 20))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    began = time.monotonic()
    await act(shared, other, crew)
    assert await waiting
    assert time.monotonic() - began < 5


async def test_a_store_hears_of_what_it_did_itself(world: World) -> None:
    await until_quiet(world.store, "work")
    waiting = asyncio.create_task(world.store.wait("work", 20))
    await asyncio.sleep(0.01)
    await world.put(new())
    assert await waiting


async def test_every_waiter_is_woken(world: World) -> None:
    await until_quiet(world.store, "work")
    waiting = [asyncio.create_task(world.store.wait("work", 20)) for _ in range(3)]
    await asyncio.sleep(0.01)
    await world.put(new())
    assert await asyncio.gather(*waiting) == [True] * 3


async def test_a_wait_without_a_hint_ends_in_time(world: World) -> None:
    await until_quiet(world.store, "done")
    began = time.monotonic()
    assert not await world.store.wait("done", 0.1)
    assert 0.09 <= time.monotonic() - began < 3


# A store that is not there


async def test_a_closed_store_says_so(world: World) -> None:
    await world.store.close()
    await world.store.close()
    for call in (world.put(new()), world.store.get(["x"]), world.store.reap()):
        with pytest.raises(StoreUnavailable):
            await call


async def test_a_store_opened_again_goes_on(shared: World) -> None:
    await shared.put(job := new())
    await shared.store.close()
    await shared.store.open()
    assert await shared.state(job.id) is State.READY


# Many calls at once


async def test_calls_at_once_from_one_process(world: World) -> None:
    """A failing call takes none of those along that share its commit."""
    jobs = [new(unique=f"k{n % 40}") for n in range(80)]
    await world.store.save([doc("taken")])

    async def clash() -> bool:
        try:
            await world.store.put([new()], docs=[doc("taken")])
        except Conflict:
            return True
        return False

    calls = [world.put(job) for job in jobs] + [clash() for _ in range(20)]
    random.Random(3).shuffle(calls)
    answers = await asyncio.gather(*calls)
    assert sum(answer is True for answer in answers) == 20
    assert await world.store.count(Filter()) == 40


async def test_runners_at_once_share_no_job(world: World) -> None:
    await world.put(*(new() for _ in range(400)))
    crews = [await world.crew() for _ in range(8)]

    async def drain(crew: Crew) -> list[str]:
        got: list[str] = []
        while claims := await crew.claim(7):
            got += [claim.id for claim in claims]
            assert (await crew.exchange(*(policy.succeeded(claim, b"1") for claim in claims))).refused == ()
        return got

    got = [id for ids in await asyncio.gather(*(drain(crew) for crew in crews)) for id in ids]
    assert (len(got), len(set(got))) == (400, 400)


# Many processes


@contextmanager
def rivals(
    world: World, log: Path, count: int, lease: float, life: float = 0
) -> Iterator[list["subprocess.Popen[bytes]"]]:
    started = [rival(world, log, lease, life) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def rival(world: World, log: Path, lease: float, life: float) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.store.rival", world.url, str(log), str(lease), str(life)]
    return subprocess.Popen(command, cwd=ROOT)


def told(log: Path) -> dict[str, Counter[tuple[str, str]]]:
    """How often each (id, fence) was claimed, settled and refused."""
    found: dict[str, Counter[tuple[str, str]]] = {"claimed": Counter(), "settled": Counter(), "refused": Counter()}
    for line in log.read_text().splitlines() if log.exists() else ():
        word, id, fence = line.split()
        found[word][id, fence] += 1
    return found


async def until_empty(world: World, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while await world.store.stats():
        assert time.monotonic() < deadline, await world.store.stats()
        await asyncio.sleep(0.05)


async def test_processes_share_no_job(real: World, tmp_path: Path) -> None:
    jobs = [new() for _ in range(3_000)]
    log = tmp_path / "log"
    await real.put(more_to_come := new(delay=3_600))  # a rival ends when nothing is left
    with rivals(real, log, 4, lease=15) as started:
        for n in range(0, len(jobs), 100):
            await real.put(*jobs[n : n + 100])
            await asyncio.sleep(0.005)
        await real.store.act([more_to_come.id], Verb.DELETE)
        await until_empty(real, 60)
        assert [await asyncio.to_thread(process.wait, 30) for process in started] == [0] * 4
    found = told(log)
    assert set(found["claimed"].values()) == {1}
    assert found["settled"] == found["claimed"]
    assert len(found["settled"]) == 3_000
    assert not found["refused"]
    assert await real.store.count(Filter(state=State.SUCCEEDED)) == 3_000


async def test_processes_that_are_killed_lose_nothing(real: World, tmp_path: Path) -> None:
    jobs = [new() for _ in range(4_000)]
    await real.put(*jobs)
    log, rng, deaths = tmp_path / "log", random.Random(), 0
    with rivals(real, log, 2, lease=0.4, life=0.05) as started:
        while deaths < 12 and await real.store.stats():
            for process in [process for process in started if process.poll() is not None]:
                deaths += process.returncode == -signal.SIGALRM
                started.remove(process)
                started.append(rival(real, log, 0.4, rng.uniform(0.002, 0.08)))
            await asyncio.sleep(0.02)
        started.append(rival(real, log, 0.4, 0))
        await until_empty(real, 60)
    found = told(log)
    assert deaths
    assert not [entry for entry, times in found["claimed"].items() if times > 1]
    settled = Counter(id for id, _ in found["settled"])
    assert not [id for id, times in settled.items() if times > 1]
    assert await real.store.count(Filter(state=State.SUCCEEDED)) == 4_000
    assert len(settled) <= 4_000

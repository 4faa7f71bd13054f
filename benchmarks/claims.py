"""How long a claim takes in one queue or another of the same store, in turns."""

import time
from collections.abc import Mapping

from uuid_utils import uuid7

from windlass import App
from windlass.model import Demand, Ending, Lane, Outcome, Quota, RunnerInfo, WorkerInfo
from windlass.store.contract import Store

LEASE = 3_600.0
"""Seconds; longer than anybody measures, so that nobody has to beat."""


class Claimant:
    """A runner that takes jobs of one task from one queue, and whose jobs take no time."""

    def __init__(self, store: Store, queue: str, task: str, slots: int) -> None:
        self.id = f"runner-{uuid7()}"
        self.task = task
        self._store = store
        self._slots = slots
        lanes = (Lane(slots=slots, tasks=frozenset({task})),)
        self._demand = Demand(slots=slots, lanes=lanes, quotas=(Quota(queue=queue, share=slots),))
        self._seq = 0
        self._outcomes: list[Outcome] = []

    async def exchange(self) -> float:
        """Hand in what it has and take as much; the seconds of that. Raises `RuntimeError` where there is less."""
        self._seq += 1
        began = time.perf_counter()
        answer = await self._store.exchange(self.id, self._seq, self._outcomes, self._demand)
        took = time.perf_counter() - began
        if len(answer.claimed) < self._slots:
            raise RuntimeError(
                f"{len(answer.claimed)} jobs of {self.task} were there, and {self._slots} were asked for"
            )
        self._outcomes = [
            Outcome(id=one.id, fence=one.fence, seq=one.seq, ending=Ending.SUCCEEDED, attempt=1)
            for one in answer.claimed
        ]
        return took


async def claims(app: App, queues: Mapping[str, str], rounds: int, slots: int) -> dict[str, list[float]]:
    """Milliseconds of exchanges that hand in and take so many jobs, by queue; `queues` has the task of each."""
    store, worker = await app.connect(), f"worker-{uuid7()}"
    await store.enlist(WorkerInfo(id=worker, host="trial", pid=0, version="0", lease=LEASE))
    claimants = {queue: Claimant(store, queue, task, slots) for queue, task in queues.items()}
    for one in claimants.values():
        await store.join(RunnerInfo(id=one.id, worker=worker, pid=0, tasks=(one.task,)))
        await one.exchange()
    took: dict[str, list[float]] = {queue: [] for queue in queues}
    for _ in range(rounds):
        for queue, one in claimants.items():
            took[queue].append(await one.exchange() * 1_000)
    await store.retire(worker)
    await app.aclose()
    return took

"""A worker process of the suite: claims, settles and reaps through the store until nothing is left, or until it dies.

`python -m tests.store.rival URL LOG LEASE LIFE` appends one line to LOG per claim and per outcome that stood. After
LIFE seconds (0: never) a signal kills it, wherever it is.
"""

import asyncio
import os
import random
import signal
import sys

from tests.store.world import new_id, wants, worker_info
from windlass import policy
from windlass.errors import Evicted
from windlass.model import Claim, Filter, RunnerInfo
from windlass.store.contract import Store
from windlass.store.dispatch import make_store


class Rival:
    """One worker with one runner."""

    def __init__(self, store: Store, log: int) -> None:
        self._store = store
        self._log = log
        self._held: list[Claim] = []
        self._worker = self._runner = ""
        self._seq = 0

    def say(self, *words: object) -> None:
        os.write(self._log, (" ".join(map(str, words)) + "\n").encode())

    async def enter(self, lease: float) -> None:
        self._worker, self._runner, self._held = new_id(), new_id(), []
        await self._store.enlist(worker_info(self._worker, lease))
        await self._store.join(RunnerInfo(id=self._runner, worker=self._worker, pid=os.getpid()))

    async def turn(self) -> None:
        """Hand in what is held, take more, and look after the dead."""
        outcomes = [policy.succeeded(claim, f'"{self._runner}"'.encode()) for claim in self._held]
        self._seq += 1
        demand = wants(random.randrange(1, 20), "work", suspects=["work"])
        answer = await self._store.exchange(self._runner, self._seq, outcomes, demand)
        for outcome in outcomes:
            self.say("refused" if outcome.id in answer.refused else "settled", outcome.id, outcome.fence)
        self._held = list(answer.claimed)
        for claim in self._held:
            self.say("claimed", claim.id, claim.fence)
        if (await self._store.beat(self._worker)).dead:
            await self._store.reap()

    async def run(self, lease: float) -> None:
        """Work until every job is over."""
        await self.enter(lease)
        while True:
            try:
                await self.turn()
            except Evicted:
                await self.enter(lease)
            if not self._held:
                if not await self._store.stats():
                    return
                await asyncio.sleep(0.01)

    async def leave(self) -> None:
        await self._store.retire(self._worker)


async def main(url: str, log: str, lease: float, life: float) -> None:
    store = make_store(url)
    await store.open()
    await store.count(Filter())
    rival = Rival(store, os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    if life:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, life)
    await rival.run(lease)
    await rival.leave()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))

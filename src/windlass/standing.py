"""Where jobs stand that do not run, changed by hand: in which queue, with which priority."""

from collections.abc import Callable, Iterator, Sequence

from msgspec.structs import replace

from windlass import values
from windlass.description import Described
from windlass.errors import DecodeError
from windlass.limits import each_once
from windlass.model import IDLE, Change, Filter, JobRecord
from windlass.options import NONE, Options, read_options
from windlass.store.contract import BATCH, Store
from windlass.vault import Vault

Describe = Callable[[str], Described]
"""What a queue declares, by its name."""


class Standing:
    """Puts jobs of a store into another queue, or gives them another priority; None: as it is."""

    def __init__(self, describe: Describe, vault: Vault, queue: str | None, priority: int | None) -> None:
        self._describe = describe
        self._vault = vault
        self._queue = queue
        self._priority = priority

    async def put_all(self, store: Store, wanted: Filter) -> int:
        """Do it to those that match and do not run, a batch in a commit; how many that were."""
        done = 0
        for state in IDLE:
            if wanted.state in (None, state):
                done += await self._put(store, replace(wanted, state=state))
        return done

    async def _put(self, store: Store, wanted: Filter) -> int:
        done, page = 0, await store.find(wanted, BATCH)
        while True:
            if changes := list(self.changes(page.jobs)):
                done += len(await store.amend(changes))
            if page.after is None:
                return done
            page = await store.find(wanted, BATCH, page.after)

    def changes(self, jobs: Sequence[JobRecord]) -> Iterator[Change]:
        """What is to be changed of these jobs; nothing of those that stand so already, or whose options are damaged."""
        for job in jobs:
            try:
                change = self._change(job)
            except DecodeError:
                continue
            if change is not None:
                yield change

    def _change(self, job: JobRecord) -> Change | None:
        old, new = self._describe(job.queue), self._describe(self._queue or job.queue)
        options = read_options(self._vault.field(job, "options"))
        asked = job.priority if options.priority is None else options.priority
        if self._priority is not None and not any(need.keep for need in job.gates):  # those stand in strict order
            asked = self._priority
        ages = bool(new.aging) and job.fair is None
        left = {gate.name for gate in old.gates}
        gates = {need for need in job.gates if need.gate not in left} | {
            gate.need(None, self._vault.key) for gate in new.gates
        }
        change = Change(
            id=job.id,
            queue=self._queue or job.queue,
            priority=0 if ages else asked,
            ahead=new.ahead(asked) if ages else 0.0,
            gates=each_once(gates),
        )
        stands = (job.queue, job.priority, job.ahead, job.gates)
        if (change.queue, change.priority, change.ahead, change.gates) == stands:
            return None
        kept = asked if ages and asked else None
        return change if kept == options.priority else replace(change, options=self._stored(job, options, kept))

    def _stored(self, job: JobRecord, options: Options, priority: int | None) -> bytes | None:
        if (new := replace(options, priority=priority)) == NONE:
            return None
        data = values.to_bytes(new)
        return self._vault.seal(data, job.id, job.task, "options") if self._vault.seals else data

"""`/metrics` of a worker: what its runners told, what its supervisor knows, and what its store holds."""

from collections.abc import Callable, Collection, Iterable, Mapping

from windlass import metrics
from windlass.clock import Clock
from windlass.metrics import MOST, Found, Spread
from windlass.model import Tally
from windlass.overview import Overview, opened
from windlass.store.contract import Store
from windlass.worker.counts import OUTCOMES, Key, added, key_of
from windlass.worker.http import Answer
from windlass.worker.tallies import Tallies
from windlass.worker.timed import Called


class Exporter:
    """Keeps totals since the start of the worker, and shows them with what `readings` are now."""

    def __init__(self, readings: Callable[[], Found]) -> None:
        self._overview: Overview | None = None
        self._tallies: Tallies | None = None
        self._readings = readings
        self._jobs: dict[Key, Tally] = {}
        self._calls: dict[str, Called] = {}

    def begin(self, store: Store, clock: Clock, worker: Callable[[], str]) -> None:
        """From now on there is a store; `worker`: the id of this one."""
        self._overview = Overview(opened(store), clock)
        self._tallies = Tallies(store, self._overview, worker)

    async def run(self) -> None:
        """Write to the store what was added, until cancelled."""
        if self._tallies:
            await self._tallies.run()

    async def end(self) -> None:
        """Write the rest."""
        if self._tallies:
            await self._tallies.flush()

    def add(self, rows: Collection[Tally], calls: Iterable[Called] = ()) -> None:
        """This happened since the last word."""
        if self._tallies:
            self._tallies.add(rows)
        for row in rows:
            key = key_of(self._jobs, (row.queue, row.task), MOST)
            self._jobs[key] = added(self._jobs[key], row) if key in self._jobs else row
        for call in calls:
            known = self._calls.get(call.method)
            self._calls[call.method] = known + call if known else call

    async def answer(self) -> Answer:
        """The text for Prometheus."""
        store: Found = await self._overview.found() if self._overview else {}
        return Answer(200, metrics.text({**self.found(), **store}), metrics.KIND)

    def found(self) -> Found:
        """What is known here, without asking anybody."""
        return {**metrics.build(), **jobs(self._jobs), **called(self._calls), **self._readings()}


def jobs(rows: Mapping[Key, Tally]) -> Found:
    """The series by queue and task."""
    return {
        metrics.STARTED: {key: float(row.started) for key, row in rows.items()},
        metrics.ENDED: {
            (*key, outcome): float(getattr(row, outcome)) for key, row in rows.items() for outcome in OUTCOMES.values()
        },
        metrics.WAIT: {key: Spread(row.waits, row.waited) for key, row in rows.items()},
        metrics.RUN: {key: Spread(row.runs, row.ran) for key, row in rows.items()},
    }


def called(calls: Mapping[str, Called]) -> Found:
    """The series by method of the store."""
    return {
        metrics.CALLS: {(name,): Spread(one.counts, one.seconds) for name, one in calls.items()},
        metrics.ERRORS: {(name,): float(one.errors) for name, one in calls.items()},
    }

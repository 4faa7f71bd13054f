"""What became of the jobs of a runner that died, for the counts: its own word of them died with it."""

import logging
import time
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from windlass.model import Ending, Held, JobRecord, Outcome, State, Tally
from windlass.store.contract import BATCH, OTHER, Store
from windlass.store.tallies import MINUTE
from windlass.worker.counts import OUTCOMES

BACK = {State.READY, State.WAITING, State.RUNNING}
"""Where a job that went back is found: somebody may run it again already."""

logger = logging.getLogger("windlass.worker")


async def losses(store: Store, held: Held | None, outcomes: Sequence[Outcome], lost: int) -> list[Tally]:
    """The outcomes that its supervisor gave, and `lost` jobs that went back; of which queue and task, as far as the
    runner had told lately that it holds them."""
    settled = {outcome.id: outcome.ending for outcome in outcomes}
    ids = [*settled, *(id for id, _ in (held.claims if held else ()) if id not in settled)][:BATCH]
    try:
        jobs = await store.get(ids) if ids else []
    except Exception as error:
        logger.debug("what became of a dead runner's jobs could not be read: %s", error)
        jobs = []
    minute = int(time.time() // MINUTE)
    rows = [row for job in jobs if (row := row_of(job, settled, minute))]
    unknown = lost - sum(row.lost for row in rows)
    return [*rows, Tally(minute=minute, queue=OTHER, task=OTHER, lost=unknown)] if unknown > 0 else rows


def row_of(job: JobRecord, settled: Mapping[str, Ending], minute: int) -> Tally | None:
    """One job."""
    if job.id in settled:
        field = OUTCOMES[settled[job.id]]
    elif job.lost and job.state in BACK:
        field = "lost"
    else:
        return None
    return replace(Tally(minute=minute, queue=job.queue, task=job.task), **{field: 1})

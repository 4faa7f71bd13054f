"""Planted bugs: each breaks one rule of the SQLite store, or of its workers. The simulation must find them all."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.store import cast
from windlass.model import Exchanged, Held
from windlass.store.sqlite import moves
from windlass.store.sqlite.moves import SQL
from windlass.store.sqlite.sidecar import MemorySidecar
from windlass.store.sqlite.store import SQLiteStore

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]
MUTANTS: dict[str, Plant] = {}


def mutant(plant: Plant) -> Plant:
    """Register a bug under the name of its function."""
    MUTANTS[plant.__name__] = plant
    return plant


def swap(patch: Patch, statement: str, old: str, new: str) -> None:
    """Replace a part of a named statement, which must be there."""
    text: str = getattr(SQL, statement)
    assert old in text, f"the statement {statement} has no {old!r} any more: plant this bug anew"
    patch.setattr(SQL, statement, text.replace(old, new))


def never(patch: Patch, statement: str) -> None:
    """Make a statement that ends in a condition touch nothing."""
    patch.setattr(SQL, statement, f"{getattr(SQL, statement)} AND 0")


# The fence


@mutant
def no_fence(patch: Patch) -> None:
    """Whoever settles a running job is believed."""
    swap(patch, "succeed", "jobs.fence = batch.fence AND jobs.seq = batch.seq AND jobs.runner = ?", "? IS NOT NULL")
    swap(patch, "settle", "AND fence = :fence AND seq = :seq AND runner = :runner ", "")


@mutant
def fence_by_runner_only(patch: Patch) -> None:
    """A runner that took the same job again may settle its old attempt."""
    swap(patch, "succeed", "AND jobs.fence = batch.fence AND jobs.seq = batch.seq ", "")
    swap(patch, "settle", "AND fence = :fence AND seq = :seq ", "")


@mutant
def fence_number_reset(patch: Patch) -> None:
    """The fence is a number alone, and a hand-back starts it anew."""
    swap(patch, "succeed", "AND jobs.seq = batch.seq AND jobs.runner = ?", "AND ? IS NOT NULL")
    swap(patch, "settle", "AND seq = :seq AND runner = :runner ", "")
    swap(patch, "hand_back", "runner = NULL,", "runner = NULL, fence = fence - 1,")


@mutant
def operator_resets_fence(patch: Patch) -> None:
    """A retried job begins at fence 0."""
    swap(patch, "retry_finished", "attempt = 0,", "attempt = 0, fence = 0,")


@mutant
def settled_is_not_checked(patch: Patch) -> None:
    """A repeated outcome is applied to a job that does not run any more."""
    swap(patch, "settle", " AND state = 'running'", "")
    swap(patch, "succeed", "AND jobs.state = 'running'", "")


@mutant
def any_late_outcome_stands(patch: Patch) -> None:
    """A late outcome is answered as accepted."""
    patch.setattr(moves, "stands", lambda db, runner, outcome: True)


@mutant
def outcomes_without_demand_are_dropped(patch: Patch) -> None:
    """An exchange that wants nothing answers without applying its outcomes."""
    original = moves.exchange

    def planted(db: Any, now: int, runner: str, seq: int, outcomes: Any, demand: Any) -> tuple[Exchanged, bool]:
        return original(db, now, runner, seq, outcomes if demand.slots else (), demand)

    patch.setattr(moves, "exchange", planted)


# Replay and registration


@mutant
def replay_answers_nothing(patch: Patch) -> None:
    """A repeated exchange strands what the first one claimed."""
    original = moves.exchange

    def planted(db: Any, now: int, runner: str, seq: int, outcomes: Any, demand: Any) -> tuple[Exchanged, bool]:
        last = db.execute(SQL.runner_seq, (runner,)).fetchone()
        answer, finished = original(db, now, runner, seq, outcomes, demand)
        if last and seq <= last[0]:
            answer = msgspec.structs.replace(answer, claimed=())
        return answer, finished

    patch.setattr(moves, "exchange", planted)


@mutant
def replay_claims_anew(patch: Patch) -> None:
    """The number of an exchange is not kept."""
    never(patch, "set_seq")


@mutant
def registration_is_not_checked(patch: Patch) -> None:
    """Any runner may exchange, at any time."""
    patch.setattr(SQL, "runner_seq", "SELECT coalesce((SELECT seq FROM runners WHERE id = ?), 0)")


@mutant
def release_forgets_to_unregister(patch: Patch) -> None:
    """A claim of a dead runner may come after its jobs were handed back."""
    never(patch, "drop_runner")


@mutant
def release_forgets_the_jobs(patch: Patch) -> None:
    """A dead runner keeps what it held."""
    patch.setattr(moves, "hand_back", lambda *_: 0)


@mutant
def ids_may_join_again(patch: Patch) -> None:
    """A join that arrives late registers a runner that is dead."""
    patch.setattr(moves, "refuse_known", lambda *_: None)
    swap(patch, "join", "INSERT INTO", "INSERT OR REPLACE INTO")


# Leases


@mutant
def reap_before_the_lease_is_over(patch: Patch) -> None:
    """A third of the lease has to do."""
    swap(patch, "leases", "lease", "lease / 3")


@mutant
def reap_never(patch: Patch) -> None:
    """The lease never ends."""
    swap(patch, "leases", "lease", "lease * 1000")


@mutant
def beats_are_forgotten(patch: Patch) -> None:
    """Only the first beat counts."""
    original = MemorySidecar.beat

    def planted(sidecar: MemorySidecar, worker: str) -> None:
        if sidecar.ages([worker])[worker] == float("inf"):
            original(sidecar, worker)

    patch.setattr(MemorySidecar, "beat", planted)


@mutant
def lease_by_the_wall_clock(patch: Patch) -> None:
    """Who sets the clock ends leases."""
    original = MemorySidecar.__init__

    def planted(sidecar: MemorySidecar, clock: Any) -> None:
        original(sidecar, clock)
        sidecar._clock = WallClock(clock)

    patch.setattr(MemorySidecar, "__init__", planted)


class WallClock:
    """A clock whose boot time is the wall's."""

    def __init__(self, clock: Any) -> None:
        self.now = self.boot = clock.now


@mutant
def phantoms_stay(patch: Patch) -> None:
    """A beat's word of what is held is not listened to."""

    async def planted(store: SQLiteStore, runner: str, keep: Held) -> None:
        pass

    patch.setattr(SQLiteStore, "_reconcile", planted)


@mutant
def reconcile_takes_newer_claims(patch: Patch) -> None:
    """A beat's word takes what was claimed after it was sent."""
    original = SQLiteStore._reconcile

    async def planted(store: SQLiteStore, runner: str, keep: Held) -> None:
        await original(store, runner, msgspec.structs.replace(keep, seq=1_000_000))

    patch.setattr(SQLiteStore, "_reconcile", planted)


# Jobs


@mutant
def unique_is_ignored(patch: Patch) -> None:
    """A key admits everybody."""
    original = moves.put_one
    patch.setattr(
        moves,
        "put_one",
        lambda db, now, job, other: original(db, now, msgspec.structs.replace(job, unique=None), other),
    )


@mutant
def unique_is_never_freed(patch: Patch) -> None:
    """A key outlives its job's end."""
    original = SQLiteStore.open_now

    def planted(store: SQLiteStore) -> None:
        original(store)
        assert store._shared
        store._shared.execute("DROP TRIGGER job_over")

    patch.setattr(SQLiteStore, "open_now", planted)


@mutant
def one_slot_too_many(patch: Patch) -> None:
    """A claim takes one job more than there are free slots."""
    original = moves.claim

    def planted(db: Any, now: int, runner: str, seq: int, demand: Any) -> Any:
        lanes = tuple(msgspec.structs.replace(lane, slots=lane.slots + 1) for lane in demand.lanes)
        return original(db, now, runner, seq, msgspec.structs.replace(demand, slots=demand.slots + 1, lanes=lanes))

    patch.setattr(moves, "claim", planted)


@mutant
def due_jobs_stay(patch: Patch) -> None:
    """Scheduled jobs are never promoted."""
    patch.setattr(moves, "promote", lambda db, now: None)


@mutant
def a_cancelled_job_comes_back(patch: Patch) -> None:
    """A hand-back forgets that the job is not wanted."""
    swap(patch, "hand_back", "CASE WHEN cancelling THEN 'cancelled' ELSE 'ready' END", "'ready'")
    swap(patch, "hand_back", "finished_at = CASE WHEN cancelling THEN :now END,", "")


@mutant
def a_loss_leaves_no_mark(patch: Patch) -> None:
    """Jobs of a dead runner are not suspect."""
    swap(patch, "hand_back", "lost = max(lost, :lost)", "lost = lost")


@mutant
def a_repeated_put_starts_over(patch: Patch) -> None:
    """An id that is finished is taken for new."""
    original = moves.put_one

    def planted(db: Any, now: int, job: Any, other: str | None) -> Any:
        db.execute("DELETE FROM jobs WHERE id = ? AND finished_at IS NOT NULL", (job.id,))
        return original(db, now, job, other)

    patch.setattr(moves, "put_one", planted)


@mutant
def retry_ignores_unique_keys(patch: Patch) -> None:
    """An operator's retry does not ask who holds the key."""
    patch.setattr(SQL, "unique_key_of", "SELECT NULL WHERE ? IS NOT NULL")


@mutant
def orders_are_forgotten(patch: Patch) -> None:
    """Nobody is told to cancel."""
    swap(patch, "orders", "jobs.cancelling = 1", "jobs.cancelling = 1 AND +jobs.fence < 0")


# The protocol of those who use the store


@mutant
def no_stop_line(patch: Patch) -> None:
    """A runner works on although nobody has renewed its lease."""
    patch.setattr(cast.Runner, "_watch", lambda runner: None)


@mutant
def outcomes_on_the_way_are_not_held(patch: Patch) -> None:
    """A runner's word leaves out what it is just handing in."""
    original = cast.Runner.held

    def planted(runner: cast.Runner) -> Held:
        word, sending = original(runner), {(outcome.id, outcome.fence) for outcome in runner._sending}
        return msgspec.structs.replace(word, claims=word.claims - sending)

    patch.setattr(cast.Runner, "held", planted)

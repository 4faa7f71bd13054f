"""The moves of jobs between states, each inside a transaction that the caller has begun."""

import itertools
import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from windlass.errors import Conflict, Evicted
from windlass.model import (
    FINAL,
    Clash,
    Demand,
    Doc,
    Ending,
    Exchanged,
    Held,
    Mark,
    NewJob,
    Outcome,
    Patch,
    Placed,
    State,
    Verb,
)
from windlass.policy import BY_CLASH, BY_OPERATOR
from windlass.store.contract import BATCH, Topic
from windlass.store.documents import changes_gates
from windlass.store.queries import load_queries
from windlass.store.rows import MICRO, class_of, micros, read_state, write_end, write_news
from windlass.store.sqlite.claim import Claiming
from windlass.store.sqlite.gates import SQL as GATES
from windlass.store.sqlite.gates import Gates, call_for, next_look
from windlass.store.sqlite.rows import (
    Unreadable,
    attempt_row,
    due_of,
    exact,
    fetch,
    filled,
    flat,
    new_row,
    one,
    past_row,
    pieces,
    read_claim,
    sound,
    text,
)

SQL = load_queries("windlass.store.sqlite", "queries.sql")
ROWS = 128
"""Rows per statement of a batch: each statement costs other threads one turn at the interpreter, however long it is."""


DEPARTED_FOR = 7 * 86_400.0
"""Seconds that the ids of gone workers and runners are remembered; they are random, so this is belt and braces."""

LOOKS = 16
"""How often a claim chooses anew at most, when what it chose did not fit through its gates."""

PLACED = {str(state): state for state in (State.READY, State.SCHEDULED, State.WAITING)}

Connection = sqlite3.Connection


def put(db: Connection, now: int, jobs: Sequence[NewJob], marks: Sequence[Mark], docs: Sequence[Doc]) -> list[Placed]:
    """`Store.put`."""
    save_docs(db, now, docs)
    stand_ins = {mark.job: holder for mark in marks if (holder := take_mark(db, now, mark)) is not None}
    if stand_ins or any(job.unique for job in jobs):
        return [put_one(db, now, job, stand_ins.get(job.id)) for job in jobs]
    placed: list[Placed] = []
    for piece in pieces(jobs, ROWS):
        placed += put_piece(db, now, piece)
    return placed


def put_piece(db: Connection, now: int, jobs: Sequence[NewJob]) -> list[Placed]:
    """Insert jobs in one statement; should an id exist, one by one instead."""
    rows = [new_row(job, now) for job in jobs]
    try:
        db.execute(filled(SQL.put_jobs, len(rows[0]), len(rows)), flat(rows))
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
            raise
        return [put_one(db, now, job, None) for job in jobs]
    tagged = [(tag, job.id) for job in jobs for tag in job.tags]
    if tagged:
        db.executemany(SQL.put_tags, tagged)
    put_rest(db, jobs)
    return [Placed(id=row[0], state=PLACED[row[6]], new=True) for row in rows]


def put_rest(db: Connection, jobs: Sequence[NewJob]) -> None:
    """Give jobs that were just inserted what hardly any has: what follows them, what they bring from another store."""
    following = [(text(job.follow), job.id) for job in jobs if job.follow]
    if following:
        db.executemany(SQL.put_follow, following)
    brief = [(job.id,) for job in jobs if job.unique is not None and job.unique_for == 0]
    if brief:
        db.executemany(SQL.put_brief, brief)
    pasts = [(job, job.past) for job in jobs if job.past]
    if pasts:
        db.executemany(SQL.put_past, [past_row(job, past) for job, past in pasts])
        db.executemany(SQL.put_attempts, [attempt_row(job.id, one) for job, past in pasts for one in past.attempts])
        started = [job for job, past in pasts if past.fence]
        db.executemany(
            GATES.hold, [(one.gate, job.id, one.weight, True) for job in started for one in job.gates if one.keep]
        )


def put_one(db: Connection, now: int, job: NewJob, stand_in: str | None) -> Placed:
    """Insert one job unless its id exists, its mark is another's (`stand_in`) or its unique key is held."""
    if (state := one(db, SQL.state_of, (job.id,))) is not None:
        return Placed(id=job.id, state=read_state(state), new=False)
    if stand_in is None and job.unique is not None:
        stand_in = take_key(db, now, job)
    if stand_in is not None:
        state = one(db, SQL.state_of, (stand_in,))
        return Placed(id=stand_in, state=None if state is None else read_state(state), new=False)
    return put_piece(db, now, [job])[0]


def take_key(db: Connection, now: int, job: NewJob) -> str | None:
    """Take the unique key of a job; the job that stands for it, if another has the key and does not lose it."""
    until = now + micros(job.unique_for) if job.unique_for else None
    db.execute(SQL.take_mark, (job.unique, job.id, until, now))
    holder: str = one(db, SQL.mark_holder, (job.unique,))
    if holder == job.id:
        return None
    if job.clash is Clash.CANCEL:
        db.execute(SQL.cancel, {"id": holder, "now": now, "reason": BY_CLASH})
        db.execute(SQL.give_mark, (job.unique, job.id, until))
        return None
    if job.clash is not Clash.KEEP:
        changed = (job.args.decode(), text(job.options), text(job.follow), holder)
        if db.execute(SQL.replace, changed).rowcount and job.clash is Clash.MOVE:
            most = None if job.max_wait is None else micros(job.max_wait)
            db.execute(SQL.move, {"id": holder, "now": now, "due": due_of(job, now), "most": most})
            db.execute(SQL.stir, (holder,))
    return holder


def take_mark(db: Connection, now: int, mark: Mark) -> str | None:
    """Take a mark for its job; the job that it was taken for, if it was taken before."""
    if db.execute(SQL.take_mark, (mark.key, mark.job, now + micros(mark.ttl), now)).rowcount:
        return None
    holder: str = one(db, SQL.mark_holder, (mark.key,))
    return holder


def save(db: Connection, now: int, docs: Sequence[Doc], drop: Collection[tuple[str, str]]) -> bool:
    """`Store.save`, and whether jobs that wait for gates may start."""
    save_docs(db, now, docs, drop)
    return changes_gates(docs, drop)


def save_docs(db: Connection, now: int, docs: Iterable[Doc], drop: Iterable[tuple[str, str]] = ()) -> None:
    """Write and drop documents. Versions of one count from the moment that it was made, so that none comes twice."""
    for doc in docs:
        version = one(db, SQL.doc_version, (doc.kind, doc.name)) or 0
        if version != doc.version:
            raise Conflict(
                f"{doc.kind} {doc.name!r} is at version {version}, not {doc.version}: it was changed meanwhile. "
                "Read it again and repeat the change"
            )
        call_for(db, doc.kind, doc.name)
        if doc.gone:
            db.execute(SQL.drop_doc, (doc.kind, doc.name))
            continue
        due = None if doc.due is None else micros(doc.due)
        db.execute(SQL.save_doc, (doc.kind, doc.name, version + 1 if version else now, doc.body, due))
    for kind, name in drop:
        call_for(db, kind, name)
        db.execute(SQL.drop_doc, (kind, name))


def exchange(
    db: Connection, now: int, runner: str, seq: int, outcomes: Sequence[Outcome], demand: Demand
) -> tuple[Exchanged, set[Topic]]:
    """`Store.exchange`, and which topics others may wait for."""
    last = one(db, SQL.runner_seq, (runner,))
    if last is None:
        raise Evicted(f"runner {runner} is not registered any more: its jobs were handed to others")
    refused = settle(db, now, runner, outcomes)
    rings: set[Topic] = {"done"} if len(outcomes) > len(refused) else set()
    if seq <= last:
        exact(db, SQL.held_by, (runner,))
        claims = [read_claim(row) for row in fetch(db, SQL.claimed, (runner, seq))]
        return Exchanged(refused=tuple(refused), claimed=tuple(claims), next_due=0), rings
    if expire(db, now):
        rings.add("done")
    next_run = promote(db, now)
    gates = Gates(db, now)
    able = demand.slots > 0 and any(lane.slots > 0 for lane in demand.lanes)
    ids, more = claim(db, now, gates, runner, seq, demand) if able else ([], False)
    if gates.opened.difference(ids):
        rings.add("work")
    claimed = tuple(read_claim(row) for row in fetch(db, SQL.claimed, (runner, seq))) if ids else ()
    if outcomes or claimed:
        db.execute(SQL.set_seq, (seq, runner))
    look = next_look(db, now) if able else None
    next_run = min((at for at in (next_run, look) if at is not None), default=None)
    next_due = None if next_run is None else max(0.0, (next_run - now) / MICRO)
    if more or len(claimed) >= min(demand.slots, BATCH) > 0:
        next_due = 0.0
    return Exchanged(refused=tuple(refused), claimed=claimed, next_due=next_due), rings


def expire(db: Connection, now: int) -> bool:
    """Cancel jobs whose time to start is over, at most BATCH; whether there were any."""
    first = one(db, SQL.next_expiry)
    return first is not None and first <= now and db.execute(SQL.expire, (now, BATCH)).rowcount > 0


def promote(db: Connection, now: int) -> int | None:
    """Make due jobs ready, at most BATCH; when the next one is due."""
    first: int | None = one(db, SQL.next_run)
    if first is None or first > now:
        return first
    db.execute(SQL.promote, (now, BATCH))
    again: int | None = one(db, SQL.next_run)
    return again


def claim(db: Connection, now: int, gates: Gates, runner: str, seq: int, demand: Demand) -> tuple[list[str], bool]:
    """Give the best ready jobs to `runner`; their ids, and whether more could be taken at once."""
    expired = False
    for _ in range(LOOKS):
        more = gates.admit()
        claiming = Claiming(demand, now, lambda line, n: exact(db, SQL.heads, (line, n)), BATCH)
        claiming.choose(row[0] for row in exact(db, SQL.lines))
        for id in claiming.expired:
            db.execute(SQL.expire_one, (now, id))
        expired = expired or bool(claiming.expired)
        refused = gates.refuse(claiming.gated, claiming.serves)
        if not refused:
            break
    ids = list(itertools.takewhile(lambda one: one not in refused, claiming.ids))
    if ids:
        taken = db.execute(SQL.claim, (runner, seq, now, json.dumps(ids))).rowcount
        if taken < len(ids):
            raise Unreadable("an id is no text that JSON can name")
        starting = [(place[2], needs) for place, _, needs in claiming.gated if place[2] in ids]
        gates.start(starting, again=bool(refused))
    return ids, bool(expired or refused or more)


def settle(db: Connection, now: int, runner: str, outcomes: Sequence[Outcome]) -> list[str]:
    """Apply outcomes of claims of `runner` under their fences; the ids of those that do not stand."""
    if len({o.id for o in outcomes}) < len(outcomes):  # two of one job: only one after the other tells which stands
        return [id for o in outcomes for id in settle(db, now, runner, [o])]
    plain = [o for o in outcomes if o.ending is Ending.SUCCEEDED]
    refused: list[str] = []
    for piece in pieces(plain, ROWS):
        rows = [(o.id, o.fence, o.seq, o.attempt, text(o.result)) for o in piece]
        if db.execute(filled(SQL.succeed, 5, len(rows)), [*flat(rows), now, runner]).rowcount < len(rows):
            refused += [o.id for o in piece if not stands(db, runner, o)]
    if len(plain) < len(outcomes):
        refused += [o.id for o in outcomes if o.ending is not Ending.SUCCEEDED and not settle_one(db, now, runner, o)]
    return refused


def settle_first(db: Connection, now: int, runner: str, outcome: Outcome) -> bool:
    """Apply an outcome that was not applied before; whether it stands."""
    return not stands(db, runner, outcome) and not settle(db, now, runner, [outcome])


def settle_one(db: Connection, now: int, runner: str, outcome: Outcome) -> bool:
    """Apply an outcome that is not a plain success; whether it stands."""
    changed = db.execute(
        SQL.settle,
        {
            "id": outcome.id,
            "fence": outcome.fence,
            "seq": outcome.seq,
            "runner": runner,
            "ending": outcome.ending,
            "state": outcome.ending.state,
            "final": outcome.ending.state in FINAL,
            "attempt": outcome.attempt,
            "lost": outcome.lost,
            "reason": outcome.reason,
            "error": class_of(outcome),
            "run_at": now + micros(outcome.delay),
            "now": now,
        },
    ).rowcount
    if not changed:
        return stands(db, runner, outcome)
    add_attempt(db, now, outcome.id, outcome.attempt, outcome.ending, write_end(outcome))
    return True


def stands(db: Connection, runner: str, outcome: Outcome) -> bool:
    """Whether an outcome of this very claim was applied before."""
    return one(db, SQL.stands, (outcome.id, outcome.fence, outcome.seq, runner, outcome.ending)) is not None


def add_attempt(db: Connection, now: int, job: str, attempt: int, ending: Ending, failure: str | None) -> None:
    """Keep how the newest attempt of a job ended."""
    db.execute(SQL.add_attempt, {"id": job, "attempt": attempt, "ending": ending, "now": now, "failure": failure})


def hand_back(db: Connection, now: int, runner: str, ending: Ending, keep: Held | None = None) -> int:
    """Make ready what `runner` holds, but for the claims in `keep` and those made after it; how many came back."""
    back = 0
    for id, fence, seq, attempt in exact(db, SQL.held_by, (runner,)):
        if keep is not None and (seq > keep.seq or (id, fence) in keep.claims):
            continue
        add_attempt(db, now, id, attempt, ending, None)
        db.execute(SQL.hand_back, {"id": id, "now": now, "lost": int(ending is Ending.LOST)})
        back += 1
    return back


def depart_runner(db: Connection, now: int, runner: str, ending: Ending, outcomes: Sequence[Outcome] = ()) -> int:
    """Unregister a runner, settle `outcomes` and hand back the rest of what it holds."""
    settle(db, now, runner, outcomes)
    db.execute(SQL.drop_runner, (runner,))
    db.execute(SQL.depart, (runner, now))
    return hand_back(db, now, runner, ending)


def depart_worker(db: Connection, now: int, worker: str, ending: Ending) -> int:
    """Unregister a worker and its runners, handing back what they hold."""
    runners = [row[0] for row in exact(db, SQL.runners_of, (worker,))]
    back = sum(depart_runner(db, now, runner, ending) for runner in runners)
    db.execute(SQL.drop_worker, (worker,))
    db.execute(SQL.depart, (worker, now))
    return back


def refuse_known(db: Connection, id: str) -> None:
    """Raise `Evicted` for the id of a worker or runner that is, or was, registered."""
    if one(db, SQL.known, {"id": id}) is not None:
        raise Evicted(f"{id} was registered before; start under a new id")


def note(db: Connection, runner: str, patch: Patch) -> bool:
    """Write progress and lines under their fence; whether they were taken."""
    return db.execute(SQL.note, (write_news(patch), patch.id, patch.fence, patch.seq, runner)).rowcount > 0


def act(db: Connection, now: int, id: str, verb: Verb) -> bool:
    """Do an operator's verb to one job; whether it fitted."""
    named: dict[str, Any] = {"id": id, "now": now}
    if verb is Verb.CANCEL:
        named["reason"] = BY_OPERATOR
        return db.execute(SQL.cancel, named).rowcount > 0
    if verb is Verb.DELETE:
        return db.execute(SQL.delete, named).rowcount > 0
    if db.execute(SQL.retry_scheduled, named).rowcount:
        return True
    state = one(db, SQL.state_of, (id,))
    if state is None or not read_state(state).final:
        return False
    key = fetch(db, SQL.unique_key_of, (id,))[0][0]
    if key is not None:
        if not sound(key):
            return False
        db.execute(SQL.take_mark, (key, id, None, now))
        if one(db, SQL.mark_holder, (key,)) != id:
            return False
    return db.execute(SQL.retry_finished, named).rowcount > 0

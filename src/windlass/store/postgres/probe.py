"""What an operator should know of a PostgreSQL store."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from windlass.store.postgres.schema import NEWEST
from windlass.store.postgres.statements import SQL
from windlass.store.postgres.target import Target

SKEW = 5.0
"""Seconds between the server's clock and ours from which on we say so."""

OLD_SNAPSHOT = 300.0
"""Seconds of an open transaction from which on we say so."""

Ask = Callable[..., Awaitable[list[tuple[Any, ...]]]]


async def probe(target: Target, ask: Ask, *, pooled: bool) -> Mapping[str, str]:
    """`Store.probe`. `ask` runs a statement."""
    sent = time.time()
    (row,) = await ask(SQL.health)
    version, sync, fsync, replica, now, most, used, hot, cold, dead, alive = row
    offset = float(now) - (sent + time.time()) / 2
    found = {
        "engine": f"PostgreSQL {version}",
        "server": target.place,
        "schema": f"{target.schema}, version {NEWEST}",
        "synchronous_commit": sync,
        "clock_offset": f"{offset:+.3f} s",
        "connections": f"{used} of {most}",
        "live_bytes": str(hot),
        "history_bytes": str(cold),
        "dead_rows": f"{dead} beside {alive} live ones",
    }
    if pooled:
        found["pooler"] = "yes: no session settings, hints only through listen="
    found |= {f"warning_{n}": text for n, text in enumerate(warnings(sync, fsync, replica, offset, most - used), 1)}
    for pid, name, age in await ask(SQL.old_snapshot):
        if age and age > OLD_SNAPSHOT:
            found["warning_old_snapshot"] = (
                f"the transaction of process {pid} ({name or 'unnamed'}) has been open for {age / 60:.0f} min: dead "
                f"rows cannot be removed until it ends. SELECT pg_terminate_backend({pid}) ends it"
            )
    return found


def warnings(sync: str, fsync: str, replica: bool, offset: float, left: int) -> list[str]:
    """What is not as it should be, and what to do."""
    found = []
    if sync == "off" or fsync == "off":
        found.append("a crash of the server can lose jobs that were enqueued: set fsync and synchronous_commit to on")
    if replica:
        found.append("this server is a replica: name the primary in the URL")
    if abs(offset) > SKEW:
        found.append(f"its clock differs from this host's by {offset:.0f} s: jobs start by the server's; set up NTP")
    if left < 10:
        found.append(f"only {left} connections are left: raise max_connections, or put PgBouncer in front")
    return found

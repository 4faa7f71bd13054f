"""Faults of the server: restarted, killed, frozen, gone over to its replica, out of connections, kept busy."""

import time

from tests.faults.field import LEASE, Field
from tests.faults.grounds import OnPgBouncer, OnPostgres, OnRedis
from tests.faults.verdict import Figures
from tests.servers import Server

LAG = 0.5
"""Seconds that a replica may be behind whose master does not wait for it."""

LONG = 1.5 * LEASE
"""Seconds after which every lease is over."""


def a_server(field: Field) -> Server:
    """The one that has the jobs; or the pooler in front of it."""
    ground = field.ground
    assert ground.server
    return field.dice.choice([ground.server, ground.pooler]) if isinstance(ground, OnPgBouncer) else ground.server


def restart(field: Field) -> Figures:
    """Shut down at once, and started again."""
    a_server(field).restart()
    return {}


def crash(field: Field) -> Figures:
    """kill -9 of its main process, and started again."""
    server = a_server(field)
    server.kill()
    server.start()
    return {}


def down(field: Field) -> Figures:
    """Gone for longer than a lease."""
    server = a_server(field)
    server.stop()
    time.sleep(LONG)
    server.start()
    return {}


def hang(field: Field) -> Figures:
    """All its processes stand still for longer than a lease."""
    with a_server(field).frozen():
        time.sleep(LONG)
    return {}


def drop(field: Field) -> Figures:
    """It ends the connections of its clients: all of them, or only those that listen for hints."""
    ground, only = field.ground, field.dice.random() < 0.5
    if isinstance(ground, OnPostgres):
        listening = " AND query ILIKE 'listen%'" if only else ""
        ground.say(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE backend_type = 'client backend' AND pid <> pg_backend_pid(){listening}"
        )
    elif isinstance(ground, OnRedis):
        with ground.server.raw as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub" if only else "normal")
    return {}


def fail_over(field: Field) -> Figures:
    """kill -9 of a server whose replica takes over."""
    began, before = time.monotonic(), set(field.load.put)
    field.ground.fail_over()
    back = field.recover()
    gone = field.forget(before)
    field.ground.stand_by()
    return {
        "back": back,
        "forgotten": sum(at < began - LAG for at in gone),
        "window": sum(at >= began - LAG for at in gone),
    }


def crowd(field: Field) -> Figures:
    """Every connection that the server has left is taken for longer than a lease; a runner dies meanwhile."""
    with field.ground.crowd() as taken:
        field.rest()
        runners = [pid for tree in field.trees for pid in tree.members()["runner"]]
        field.kill([field.dice.choice(runners)])
        time.sleep(LONG)
    return {"taken": taken}


def hold(field: Field) -> Figures:
    """Somebody else has a transaction open for longer than a lease; on Redis a command takes half of one."""
    field.mark([pid for tree in field.trees for pid in tree.pids()])
    field.ground.hold(LONG if not isinstance(field.ground, OnRedis) else LEASE / 2)
    return {}

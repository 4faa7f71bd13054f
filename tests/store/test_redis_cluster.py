"""Redis on several nodes: slots that move, failovers of a cluster and by sentinel."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests import servers
from tests.servers import Redis, Sentinel, until
from tests.store.redis_world import ClusterWorld
from tests.store.world import new
from windlass.model import Filter
from windlass.store.dispatch import make_store

# Cluster and Sentinel


async def test_an_app_follows_its_slot_to_another_node(tmp_path: Path) -> None:
    """And waits while the slot is on its way: no script runs with half of its keys."""
    world = ClusterWorld(tmp_path)
    await world.open()
    await world.put(*(new() for _ in range(5)))
    crew = await world.crew()
    moving = move_slot(world, world.raw.keyslot(world.key("")))
    next(moving)
    later = asyncio.create_task(crew.claim(9))
    await asyncio.sleep(0.2)
    next(moving)
    await asyncio.sleep(0.2)
    assert not later.done()
    next(moving)
    assert len(await later) == 5
    assert world.store.put_now([new()], 5)[0].new
    await world.close()


def move_slot(world: ClusterWorld, slot: int) -> Iterator[None]:
    """Move a slot with its keys to the next node, as `redis-cli --cluster reshard` does, in three steps."""
    nodes = servers.cluster_nodes()
    ids = {node.port: node.raw.execute_command("CLUSTER", "MYID").decode() for node in nodes}
    owner = world.raw.get_node_from_key(world.key("")).port
    at = next(n for n, node in enumerate(nodes) if node.port == owner)
    source, target = nodes[at], nodes[(at + 1) % len(nodes)]
    target.raw.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
    source.raw.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target.port])
    yield
    keys = source.raw.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1_000)
    source.raw.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
    yield
    for node in (target, source):
        node.raw.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target.port])
    yield


async def test_a_failover_of_a_cluster_is_followed() -> None:
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(node) for node in servers.make_cluster()]
        ports = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        store = make_store(f"redis+cluster://{ports}?prefix=c")
        await store.open()
        await store.put([new() for _ in range(10)])
        (master,) = [node for node in nodes if node.raw.dbsize()]
        replica = stack.enter_context(Redis(**{"cluster-enabled": "yes", "cluster-node-timeout": "2000"}))
        replica.raw.execute_command("CLUSTER", "MEET", "127.0.0.1", master.port)
        id = master.raw.execute_command("CLUSTER", "MYID")
        until(lambda: replica.raw.execute_command("CLUSTER", "REPLICATE", id), "the cluster to know its replica")
        until(lambda: replica.raw.info("replication").get("master_link_status") == "up", "the replica")
        until(lambda: replica.raw.dbsize() == master.raw.dbsize(), "replication")
        master.kill()
        until(lambda: replica.raw.info("replication")["role"] == "master", "the failover")
        until(lambda: replica.raw.cluster("INFO")["cluster_state"] == "ok", "the cluster")
        assert (await store.put([new()]))[0].new
        assert store.put_now([new()], 5)[0].new
        assert await store.count(Filter()) == 12
        await store.close()


async def test_a_failover_by_sentinel_is_followed(tmp_path: Path) -> None:
    with Redis() as master, Redis() as replica:
        replica.raw.replicaof("127.0.0.1", master.port)
        until(lambda: replica.raw.info("replication")["master_link_status"] == "up", "the replica")
        with Sentinel(master) as sentinel:
            until(lambda: sentinel.raw.sentinel_master("main")["num-slaves"] == 1, "the sentinel")
            store = make_store(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main/0?prefix=s")
            await store.open()
            await store.put([new() for _ in range(10)])
            until(lambda: replica.raw.zcard("{s}:all") == 10, "replication")
            master.kill()
            until(lambda: replica.raw.role()[0] == b"master", "the failover")
            assert (await store.put([new()]))[0].new
            assert store.put_now([new()], 5)[0].new
            assert await store.count(Filter()) == 12
            await store.close()

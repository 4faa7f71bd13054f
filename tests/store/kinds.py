"""The kinds of stores that the suite runs on; a new one adds itself here and changes nothing else."""

from collections.abc import Mapping

from tests.store.postgres_world import PgBouncerWorld, PostgresWorld
from tests.store.redis_world import ClusterWorld, RedisWorld
from tests.store.world import MemoryWorld, SQLiteWorld, World

KINDS: Mapping[str, type[World]] = {
    world.kind: world for world in (MemoryWorld, SQLiteWorld, PostgresWorld, PgBouncerWorld, RedisWorld, ClusterWorld)
}

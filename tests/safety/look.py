"""All that a thief of a store would find in it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import redis


def everything_in(url: str) -> bytes:
    """Every byte that a store keeps, keys and names included, as far as it is not compressed."""
    options = parse_qs(urlsplit(url).query)
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as db:
            text = "\n".join(db.iterdump())
        return text.encode() + b"".join(
            file.read_bytes() for file in Path(path).parent.glob(f"{Path(path).name}*") if file.is_file()
        )
    if url.startswith("postgresql"):
        return in_postgres(url.partition("?")[0], options["schema"][0])
    return in_redis(url.partition("?")[0], options["prefix"][0])


def in_postgres(url: str, schema: str) -> bytes:
    with psycopg.connect(url) as server:
        tables = server.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (schema,)).fetchall()
        found = [server.execute(f'SELECT t::text FROM "{schema}"."{name}" t'.encode()).fetchall() for (name,) in tables]
    return repr(found).encode()


def in_redis(url: str, prefix: str) -> bytes:
    found: list[object] = []
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(f"{{{prefix}}}:*"):
            kind = client.type(key).decode()
            reads = {
                "string": lambda key: client.get(key),
                "hash": lambda key: client.hgetall(key),
                "list": lambda key: client.lrange(key, 0, -1),
                "set": lambda key: client.smembers(key),
                "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
                "stream": lambda key: client.xrange(key),
            }
            found.append((key, reads[kind](key)))
    assert found
    return repr(found).encode()

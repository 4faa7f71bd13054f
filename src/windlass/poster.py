"""Posting to addresses that somebody else chose: what may be reached, and nothing else.

A name is resolved once. Every address that comes has to be a public one, and the connection goes to one of them, so
that a name cannot lead elsewhere a moment later. Nothing is followed, and no proxy of the environment is used.
"""

import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult
from msgspec import Struct

from windlass.outward import Outward

TIMEOUT = aiohttp.ClientTimeout(total=15.0, connect=5.0)

NAT64 = ipaddress.ip_network("64:ff9b::/96")
CLOSED = tuple(
    ipaddress.ip_network(one)
    for one in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "192.88.99.0/24",
        "::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "fec0::/10",
    )
)
"""Not public, or ways into what is not, whatever a version of Python says: this network, the carriers', IPv4 within
IPv6 (compatible addresses, a site's own NAT64, Teredo, 6to4), sites."""

Info = tuple[Any, ...]


class Forbidden(Exception):
    """An address that may not be reached."""


class Reply(Struct, frozen=True):
    """What came back: a status, and in how many seconds the other side wants to be asked again, if it says."""

    status: int
    again: float | None


async def post(url: str, body: bytes, headers: Mapping[str, str], outward: Outward) -> Reply:
    """Post once. Raises `Forbidden`; `aiohttp.ClientError`, `OSError` or `TimeoutError` if there was no reply."""
    inside = outward.is_inside(url)
    connector = aiohttp.TCPConnector(
        resolver=None if inside else PublicResolver(),
        socket_factory=None if inside else public_socket,
        ssl=context(),
        use_dns_cache=False,
        force_close=True,
    )
    async with (
        aiohttp.ClientSession(
            connector=connector, timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        ) as session,
        session.post(url, data=body, headers=headers, allow_redirects=False) as response,
    ):  # the body is not read: nothing in it counts
        return Reply(response.status, seconds(response.headers.get("retry-after", "")))


@lru_cache(maxsize=1)
def context() -> ssl.SSLContext:
    """What checks certificates."""
    return ssl.create_default_context()


def seconds(text: str) -> float | None:
    """A Retry-After in seconds; dates are not taken."""
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 8 else None


class PublicResolver(aiohttp.ThreadedResolver):
    """Resolves names, of which every address has to be public."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        refuse_inside([one["host"] for one in found])
        return found


def public_socket(info: Info) -> socket.socket:
    """A socket for an address, the last look at it before a connection: addresses in URLs are never resolved."""
    family, kind, protocol, _, address = info
    refuse_inside([address[0]])
    return socket.socket(family, kind, protocol)


def refuse_inside(addresses: Sequence[str]) -> None:
    """Raise `Forbidden` if one of these is not public."""
    if not all(map(is_public, addresses)):
        raise Forbidden("it leads to an address that is not public")


def is_public(text: str) -> bool:
    """Whether an address is one of the internet, and not of a machine, a network or a cloud's own services."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if address in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
    if any(address in one for one in CLOSED if one.version == address.version):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)

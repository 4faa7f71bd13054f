"""What workers take of their machines, as each tells it in a document of its own. Pure values."""

import msgspec
from msgspec import Struct


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What processes take: bytes of memory (0: the system does not tell), and how many processors' worth of time, over
    the last seconds (None: that is not known, or not yet)."""

    memory: int = 0
    cpu: float | None = None


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker takes in all, each of its runners with its process children, by id, and whether it is stopping."""

    total: Usage = Usage()
    runners: dict[str, Usage] = {}
    stopping: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Report).decode


def write(report: Report) -> bytes:
    """A report as it is stored."""
    return _encode(report)


def read(body: bytes) -> Report:
    """A stored report; one that cannot be read says nothing."""
    try:
        return _decode(body)
    except msgspec.MsgspecError:
        return Report()

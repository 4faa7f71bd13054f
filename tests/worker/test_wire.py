"""Messages over a socket arrive whole and in order, however the bytes come, and an end that goes is seen."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from windlass.worker.hosting import fast_loop
from windlass.worker.wire import Channel, Pipe, Reader, encode


class Number(Struct, tag=True):
    value: int


class Blob(Struct, tag=True):
    value: bytes


KIND = Number | Blob


def test_frames_in_any_pieces() -> None:
    said = [Number(1), Blob(b"x" * 300), Number(2), Blob(b"")]
    stream = b"".join(map(encode, said))
    for size in (1, 2, 3, 5, 7, 64, 1000):
        reader = Reader(KIND)
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [message for piece in pieces for message in reader.feed(piece)] == said


def test_nonsense_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        Reader(Number).feed(encode(Blob(b"not a number")))


@pytest.mark.parametrize("loop", [fast_loop(), asyncio.new_event_loop])
def test_both_ends(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def work() -> None:
        ours, theirs = socket.socketpair()
        channel, pipe = await Channel.open(ours, KIND), Pipe(theirs, KIND)
        big = Blob(b"x" * 3_000_000)
        channel.send(big)
        channel.send(Number(1))
        received: list[Any] = await asyncio.to_thread(lambda: [pipe.receive(), pipe.receive()])
        await channel.flush()
        assert received == [big, Number(1)]
        for number in range(3):
            pipe.send(Number(number))
        pipe.close()
        assert [message async for message in channel] == [Number(0), Number(1), Number(2)]
        assert await channel.receive() is None
        channel.send(Number(4))
        await channel.flush()
        channel.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work())


def test_an_end_that_closes_while_the_other_waits() -> None:
    async def work() -> None:
        ours, theirs = socket.socketpair()
        channel, pipe = await Channel.open(ours, KIND), Pipe(theirs, KIND)
        waiting = asyncio.create_task(asyncio.to_thread(pipe.receive))
        await asyncio.sleep(0.05)
        channel.close()
        assert await waiting is None
        pipe.close()
        ours, theirs = socket.socketpair()
        channel = await Channel.open(ours, Number)
        theirs.sendall(encode(Blob(b"?")))
        assert await channel.receive() is None, "who talks nonsense is cut off"
        theirs.close()

    asyncio.run(work())

# ruff: noqa: E501
"""Arguments that nobody should enqueue, and what has to become of each."""

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import os
import re
import tempfile
import threading
import types
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

MEGABYTE = 1_000_000


class Refused:
    """It must be refused where it is enqueued."""


class Same:
    """It must come back equal."""


REFUSED, SAME = Refused(), Same()

CANARY = Path(tempfile.gettempdir()) / f"windlass-canary-{os.getpid()}"
"""Exists once a value was unpickled."""


class Evil:
    """Raises whatever it is asked; unpickled, it would run a command."""

    def __reduce__(self) -> Any:
        return Path.touch, (CANARY,)

    def _no(self, *_: object) -> Any:
        raise RuntimeError("evil")

    __repr__ = __str__ = __eq__ = __hash__ = __len__ = __iter__ = __bool__ = __getitem__ = __int__ = __index__ = _no


class Liar:
    """Says that it is a text, and equal to everything."""

    __class__ = str  # type: ignore[assignment]
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return True


class Text(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("evil")

    __hash__ = str.__hash__

    def __len__(self) -> int:
        return -1


class Endless:
    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1


class Loud(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("evil")

    def __iter__(self) -> Any:
        raise RuntimeError("evil")


class Names(dict[str, Any]):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None


class Model:
    """Looks like a pydantic model."""

    def __init__(self, dumped: Any) -> None:
        self.dumped = dumped

    def model_dump_json(self, **_: Any) -> Any:
        if isinstance(self.dumped, Exception):
            raise self.dumped
        return self.dumped


@dataclasses.dataclass
class Node:
    inner: Any = None


class Struct(msgspec.Struct):
    inner: Any = None


@dataclasses.dataclass
class Broken:
    inner: Any

    def __getattribute__(self, name: str) -> Any:
        if name == "inner":
            raise RuntimeError("evil")
        return object.__getattribute__(self, name)


class Colour(enum.Enum):
    RED = "red"
    ODD = object()


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024


def deep(wrap: Callable[[Any], Any], levels: int, inner: Any = None) -> Any:
    for _ in range(levels):
        inner = wrap(inner)
    return inner


def ring(wrap: Callable[[Any], Any], put: Callable[[Any, Any], object]) -> Any:
    """A container that holds itself."""
    one = wrap(None)
    put(one, one)
    return one


async def coroutine() -> None:
    """Is never awaited."""


def closed_coroutine() -> Any:
    one = coroutine()
    one.close()
    return one


def values() -> dict[str, tuple[Any, Any]]:
    """By name: a value for a parameter of type Any, and what the task must get."""
    naive = dt.datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001
    return {
        # size
        "100 MB of text": ("x" * 100 * MEGABYTE, REFUSED), "100 MB of bytes": (b"x" * 100 * MEGABYTE, REFUSED),
        "100 MB five levels down": (deep(lambda one: [one], 5, "x" * 100 * MEGABYTE), REFUSED),
        "a million items": ([0] * MEGABYTE, REFUSED), "NUL that grows sixfold": ("\0" * 200_000, REFUSED),
        "a key of 2 MB": ({"x" * 2 * MEGABYTE: 1}, REFUSED), "300,000 dicts": ([{}] * 350_000, REFUSED),
        "a megabyte less a little": ("x" * 1_000_000, SAME), "a million empty levels across": ([[]] * 100_000, SAME),
        # depth
        "lists 10,000 deep": (deep(lambda one: [one], 10_000), REFUSED), "dicts 10,000 deep": (deep(lambda one: {"a": one}, 10_000), REFUSED),
        "tuples 10,000 deep": (deep(lambda one: (one,), 10_000), REFUSED), "dataclasses 10,000 deep": (deep(Node, 10_000), REFUSED),
        "structs 10,000 deep": (deep(Struct, 10_000), REFUSED), "65 levels": (deep(lambda one: [one], 65), REFUSED),
        "64 levels": (deep(lambda one: [one], 64), SAME), "brackets in text": ("[{" * 10_000, SAME),
        "a list that holds itself": (ring(lambda one: [one], lambda one, it: one.append(it)), REFUSED),
        "a dict that holds itself": (ring(lambda one: {"a": one}, lambda one, it: one.update(a=it)), REFUSED),
        "a dataclass that holds itself": (ring(Node, lambda one, it: setattr(one, "inner", it)), REFUSED),
        "a struct that holds itself": (ring(Struct, lambda one, it: setattr(one, "inner", it)), REFUSED),
        # text
        "NUL": ("a\0b", SAME), "only NUL": ("\0", SAME), "a lone surrogate": ("a\ud800b", REFUSED), "a low surrogate": ("\udfff", REFUSED),
        "surrogates in a list": ([["ok", "\ud83d"]], REFUSED), "a surrogate as key": ({"\ud800": 1}, REFUSED), "NUL as key": ({"\0": 1}, SAME),
        "beyond the first plane": ("\U0001f600\U0010ffff", SAME), "no character": ("\uffff\ufffe", SAME), "a byte order mark": ("\ufeffx", SAME),
        "from right to left": ("\u202egpj.exe", SAME), "escapes": ("\x1b[31m\x07\x7f\x85\u2028", SAME), "lines": ("a\r\nb\n\tc", SAME),
        "quotes": ("'\"\\`$(id)", SAME), "SQL": ("'; DROP TABLE live; DROP TABLE jobs; --", SAME), "placeholders": ("%s %(x)s ? :a $1 {0} {schema}", SAME),
        "Lua": ("]] redis.call('FLUSHALL') --[[", SAME), "like a sealed value": ("sealed:k1:AAAA", SAME), "like JSON": ('{"text": [1, 2', SAME),
        "empty": ("", SAME), "combining marks": ("e" + "\u0301" * 1_000, SAME),
        # numbers
        "NaN": (float("nan"), REFUSED), "infinity": (float("inf"), REFUSED), "less than all": ([{"a": -float("inf")}], REFUSED),
        "2**64 - 1": (2**64 - 1, SAME), "2**64": (2**64, REFUSED), "-2**63": (-(2**63), SAME), "-2**63 - 1": (-(2**63) - 1, REFUSED),
        "10**5000": (10**5_000, REFUSED), "10**5000 inside": ({"a": [10**5_000]}, REFUSED), "the largest float": (1.7976931348623157e308, SAME),
        "the smallest float": (5e-324, SAME), "minus zero": (-0.0, SAME), "2**53 + 1": (2**53 + 1, SAME), "a truth": (True, SAME),
        "complex": (1j, REFUSED), "a fraction": (fractions.Fraction(1, 3), REFUSED), "Decimal": (decimal.Decimal("1e400"), "1E+400"),
        "Decimal NaN": (decimal.Decimal("NaN"), "NaN"),
        # kinds that JSON has not: without an annotation they come back as JSON has them
        "bytes": (b"\xff\0", "/wA="), "a bytearray": (bytearray(b"\xff\0"), "/wA="), "a tuple": ((1, 2), [1, 2]), "a set": ({1}, [1]),
        "an enum": (Colour.RED, "red"), "a named tuple": (Point(1, 2), [1, 2]), "a naive datetime": (naive, "2026-01-02T03:04:05"),
        "a UUID": (uuid.UUID(int=1), str(uuid.UUID(int=1))), "a time span": (dt.timedelta(1), "P1D"), "a dataclass": (Node(1), {"inner": 1}),
        "an enum of an object": (Colour.ODD, REFUSED), "an object": (object(), REFUSED), "a function": (deep, REFUSED), "a lambda": (lambda: 1, REFUSED),
        "a class": (Node, REFUSED), "a module": (re, REFUSED), "a generator": (iter(()), REFUSED), "a range": (range(3), REFUSED),
        "a pattern": (re.compile("x"), REFUSED), "an error": (ValueError("x"), REFUSED), "a lock": (threading.Lock(), REFUSED),
        "a path": (Path("/x"), REFUSED), "Ellipsis": (..., REFUSED), "NotImplemented": (NotImplemented, REFUSED), "a coroutine": (closed_coroutine(), REFUSED),
        "a partial": (functools.partial(deep), REFUSED), "a deque": (collections.deque([1]), REFUSED), "an array": (array.array("i", [1]), REFUSED),
        "a weak reference": (weakref.ref(Node), REFUSED), "a mapping proxy": (types.MappingProxyType({"a": 1}), REFUSED),
        "a counter": (collections.Counter("aab"), {"a": 2, "b": 1}), "a frozen set of texts": (frozenset("a"), ["a"]),
        # what fights back
        "evil": (Evil(), REFUSED), "evil in a list": ([1, Evil()], REFUSED), "evil in a dict": ({"a": Evil()}, REFUSED), "evil in a dataclass": (Node(Evil()), REFUSED),
        "a liar": (Liar(), REFUSED), "a text of another class": (Text("x"), REFUSED), "an endless one": (Endless(), REFUSED), "a broken dataclass": (Broken(1), REFUSED),
        "a dict that raises": (Loud(a=1), {"a": 1}), "a dict equal to all": (Names(a=1), {"a": 1}), "a dict of numbers that says it is equal": (Names({1: 2}), {"1": 2}),  # type: ignore[dict-item]
        "a model that dumps rubbish": (Model("{rubbish"), REFUSED), "a model that dumps more": (Model('1},"x":{"a":1'), REFUSED),
        "a model that dumps a number": (Model(7), REFUSED), "a model that raises": (Model(ValueError("x")), REFUSED), "a model that dumps nothing": (Model(""), REFUSED),
        "a model 10,000 deep": (Model("[" * 10_000 + "]" * 10_000), REFUSED), "a model of NaN": (Model("NaN"), REFUSED), "a model of 10**5000": (Model("1" + "0" * 5_000), REFUSED),
        "a model of one key twice": (Model('{"a":1,"a":2}'), REFUSED), "a model of half a pair": (Model('"\\ud800"'), REFUSED),
        # keys
        "numbers as keys": ({1: "a"}, REFUSED), "a number and its text": ({1: "a", "1": "b"}, REFUSED), "None as key": ({None: 1}, REFUSED),
        "a tuple as key": ({(1, 2): 1}, REFUSED), "bytes as key": ({b"x": 1}, REFUSED), "truth as key": ({True: 1}, REFUSED),
        "NaN as key": ({float("nan"): 1}, REFUSED), "an object as key": ({object(): 1}, REFUSED), "a UUID as key": ({uuid.UUID(int=1): 1}, REFUSED),
        "an empty key": ({"": 1}, SAME), "keys that name code": ({"__class__": "os.system", "py/object": "os.system", "__reduce__": ["os.system", ["id"]]}, SAME),
    }  # fmt: skip


def calls() -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Calls that do not fit `typed(text: str, n: int = 0, items: list[int] = …)`: all must be refused."""
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {}), ((1,), {}), ((None,), {}), ((b"x",), {}), (("x", "1"), {}), (("x", 1.5), {}), (("x", None), {}), (("x", Evil()), {}),
        (("x", 1, (n for n in (1,))), {}), (("x", 1, [1, "x"]), {}), (("x", 1, {"a": 1}), {}), (("x", 1, [[1]]), {}), (("x", 1, [], 4), {}),
        (("x",), {"text": "y"}), (("x",), {"self": 1}), (("x",), {"args": 1}), (("x",), {"__class__": 1}), (("x",), {"": 1}), (("x",), {"n ": 1}),
        (("x",), {"\ud800": 1}), ((Evil(),), {}), (("x", 2**64), {}), (("x", -(2**63) - 1), {}), ((["x"],), {}), ((Liar(),), {}),
    ]  # fmt: skip
    return {f"call {n}": one for n, one in enumerate(wrong)}


def options() -> list[dict[str, Any]]:
    """Options of a call that must be refused."""
    nan, long = float("nan"), dt.timedelta.max
    wrong: dict[str, list[Any]] = {
        "queue": ["", " ", "a b", "x\ny", "../x", "é", "x" * 129, "\0", 7, Evil()],
        "id": ["", "a/b", "\x1b[31m", "x" * 129, "\ud800", 7, Evil()], "tags": ["x", ["a b"], [""], [7], [Evil()], 7, ["\n"]],
        "unique": ["", 7, b"x", Evil()], "priority": [101, -101, 10**9, 1.5, True, "1", nan, Evil()],
        "delay": [-1, nan, float("inf"), 10**400, "1", True, long, Evil()], "expires_in": [0, -1, nan, long, "x"],
        "timeout": [0, -1, nan, "x", Evil()], "retry": [0, -1, "x", 1.5, True, Evil()], "run_at": [dt.datetime(2026, 1, 1), 7, "now"],  # noqa: DTZ001
        "meta": [7, [1], {1: 2}, {"a": nan}, {"a": Evil()}, {"a": "\ud800"}, {"a": deep(lambda one: [one], 10_000)}, {"a": "x" * 2 * MEGABYTE}],
    }  # fmt: skip
    return [{name: value} for name, values in wrong.items() for value in values]

"""Arguments and results on their way through JSON: what comes back, what is refused, what hostile bytes do."""

import contextlib
import datetime as dt
import enum
import json
import math
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict, Unpack
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from windlass.codec import Shape, show
from windlass.errors import CallError, ConfigError, DecodeError, EncodeError, PayloadTooLarge

LIMIT = 1024 * 1024
NAIVE = dt.datetime(2030, 7, 1)  # noqa: DTZ001 - what comes in has to come back


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


@dataclass
class Line:
    sku: str
    price: Decimal
    tags: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Order:
    id: UUID
    lines: list[Line]
    due: dt.date | None = None


class Node(msgspec.Struct):
    name: str
    inner: "list[Node]" = []


class Point(NamedTuple):
    x: float
    y: float


class Box(TypedDict, total=False):
    size: int
    name: str


class Customer(BaseModel):
    name: str
    since: dt.datetime
    level: Level = Level.LOW


UserId = NewType("UserId", int)


def shape(fn: Callable[..., Any]) -> Shape:
    return Shape(fn, f"shop.{fn.__name__}")


def through(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What `fn` gets of a call that went through JSON."""
    codec = shape(fn)
    got_args, got_kwargs = codec.decode_call(codec.encode_call(args, kwargs, LIMIT))
    return fn(*got_args, **got_kwargs)


def refused(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> EncodeError:
    with pytest.raises(EncodeError) as found:
        shape(fn).encode_call(args, kwargs, LIMIT)
    return found.value


def anything(value):  # type: ignore[no-untyped-def]
    return value


# Round trips

text = st.text(st.characters(exclude_categories=["Cs"]))
finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63), 2**64 - 1)
zones = st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30))])
lines = st.builds(Line, text, st.decimals(allow_nan=False, allow_infinity=False), st.sets(text, max_size=3))
orders = st.builds(Order, st.uuids(), st.lists(lines, max_size=3), st.none() | st.dates())
nodes = st.recursive(st.builds(Node, text), lambda inner: st.builds(Node, text, st.lists(inner, max_size=3)))
plain = st.recursive(
    st.none() | st.booleans() | whole | finite | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
)
KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Any, plain),
    (int, whole),
    (float, finite),
    (str, text),
    (bool, st.booleans()),
    (bytes, st.binary()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (UUID, st.uuids()),
    (dt.datetime, st.datetimes(timezones=zones)),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas(dt.timedelta(days=-10_000), dt.timedelta(days=10_000))),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Literal["a", 1], st.sampled_from(["a", 1])),
    (list[int], st.lists(whole)),
    (set[str], st.sets(text)),
    (frozenset[int], st.frozensets(whole)),
    (tuple[int, str], st.tuples(whole, text)),
    (tuple[dt.date, ...], st.lists(st.dates()).map(tuple)),
    (dict[str, Decimal], st.dictionaries(text, st.decimals(allow_nan=False, allow_infinity=False))),
    (dict[int, bytes], st.dictionaries(whole, st.binary())),
    (dict[UUID, list[Colour]], st.dictionaries(st.uuids(), st.lists(st.sampled_from(Colour)))),
    (int | None, st.none() | whole),
    (int | str | None, st.none() | whole | text),
    (Point, st.builds(Point, finite, finite)),
    (Box, st.fixed_dictionaries({}, optional={"size": whole, "name": text})),
    (Line, lines),
    (Order | None, st.none() | orders),
    (list[Order], st.lists(orders, max_size=3)),
    (Node, nodes),
    (Customer, st.builds(Customer, name=text, since=st.datetimes(timezones=st.just(dt.UTC)))),
    (dict[str, Customer | None], st.dictionaries(text, st.none() | st.builds(Customer, name=text), max_size=2)),
    (UserId, whole),
    (Annotated[int, "a comment"], whole),
    (Iterable[int], st.lists(whole)),
]


@pytest.mark.parametrize(
    ("kind", "values"), KINDS, ids=lambda value: "" if isinstance(value, st.SearchStrategy) else str(value)
)
def test_what_goes_in_comes_back_as_annotated(kind: Any, values: st.SearchStrategy[Any]) -> None:
    def task(first: Any, second: Any = None) -> Any:
        return first, second

    task.__annotations__ = {"first": kind, "second": list[kind] | None, "return": kind}
    codec = shape(task)

    @given(values, st.lists(values, max_size=3))
    def check(first: Any, second: list[Any]) -> None:
        args, kwargs = codec.decode_call(codec.encode_call((first,), {"second": second}, LIMIT))
        assert task(*args, **kwargs) == (first, second)
        result = codec.decode_result(codec.encode_result(first, LIMIT))
        assert result == first
        assert type(result) is type(first) or kind is float

    check()


def test_without_annotation_a_value_comes_back_as_json() -> None:
    assert through(anything, (1, Colour.RED, UUID(int=1))) == [1, "red", str(UUID(int=1))]
    assert through(anything, Line("a", Decimal("1.5"))) == {"sku": "a", "price": "1.5", "tags": []}


def test_aware_times_keep_their_moment() -> None:
    def task(at: dt.datetime) -> dt.datetime:
        return at

    at = dt.datetime(2030, 7, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert through(task, at) == at
    assert through(task, at).utcoffset() == dt.timedelta(hours=2)
    assert through(task, NAIVE) == NAIVE


# Ways to call


def test_every_way_to_pass_arguments() -> None:
    def task(a: int, /, b: int, *rest: int, c: int = 3, **more: int) -> tuple[Any, ...]:
        return a, b, rest, c, more

    assert through(task, 1, 2) == (1, 2, (), 3, {})
    assert through(task, 1, b=2) == (1, 2, (), 3, {})
    assert through(task, 1, 2, 7, 8, c=9, d=10, a=11) == (1, 2, (7, 8), 9, {"d": 10, "a": 11})


def test_only_what_was_passed_is_stored() -> None:
    def task(a: int, b: int = 2, *rest: str, c: int = 3) -> None: ...

    codec = shape(task)
    assert show(codec.encode_call((1,), {}, LIMIT)) == {"a": 1}
    assert show(codec.encode_call((1, 2, "x"), {"c": 4}, LIMIT)) == {"a": 1, "b": 2, "rest": ["x"], "c": 4}


def test_an_absent_default_in_the_middle() -> None:
    def task(a: int = 1, b: int = 2, *, c: int = 3) -> tuple[int, int, int]:
        return a, b, c

    assert through(task, b=5) == (1, 5, 3)
    assert through(task, c=5) == (1, 2, 5)


def test_typed_keyword_arguments() -> None:
    def task(**box: Unpack[Box]) -> Any:
        return box

    assert through(task, size=1, name="x") == {"size": 1, "name": "x"}
    with pytest.raises(CallError, match="size"):
        shape(task).encode_call((), {"size": "big"}, LIMIT)


def test_a_default_of_none_admits_none() -> None:
    def task(a: int = None) -> Any:  # type: ignore[assignment]  # noqa: RUF013
        return a

    assert through(task, None) is None


def test_annotations_may_name_what_is_defined_later() -> None:
    def task(later: "Later") -> "Later":
        return later

    codec = shape(task)
    assert through(task, Later(1)) == Later(1)
    assert codec.decode_result(codec.encode_result(Later(2), LIMIT)) == Later(2)


def test_an_annotation_may_hold_what_cannot_be_hashed() -> None:
    def task(n: Annotated[int, {"unit": "s"}], *rest: Annotated[str, ["a", "b"]]) -> Annotated[list[Any], {"of": [1]}]:
        return [n, *rest]

    assert through(task, 5, "x") == [5, "x"]
    assert shape(task).encode_result([5], LIMIT) == b"[5]"


@dataclass
class Later:
    n: int


def send(order_id: int, *, copy: bool = False) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "reason"),
    [
        ((), {}, "missing a required argument: 'order_id'"),
        ((1, 2), {}, "too many positional"),
        ((1,), {"order_id": 1}, "multiple values"),
        ((1,), {"cpy": True}, "unexpected keyword argument 'cpy'"),
        (("1",), {}, "order_id: Expected int, got str; '1' came"),
        ((True,), {}, "order_id: Expected int, got bool"),
        ((None,), {}, "order_id: Expected int, got null"),
        ((1,), {"copy": 1}, "copy: Expected bool, got int"),
        ((1.5,), {}, "order_id: Expected int, got float"),
    ],
)
def test_a_wrong_call_is_refused_with_the_signature(args: Any, kwargs: Any, reason: str) -> None:
    with pytest.raises(CallError) as found:
        shape(send).encode_call(args, kwargs, LIMIT)
    assert reason in str(found.value)
    assert "shop.send(order_id: int, *, copy: bool = False)" in str(found.value)


def test_a_wrong_type_deep_inside_is_named() -> None:
    def task(orders: list[Order]) -> None: ...

    bad = Order(UUID(int=1), [Line("a", Decimal(1), {1})])  # type: ignore[arg-type]
    with pytest.raises(CallError, match=r"orders\[0\]\.lines\[0\]\.tags\[0\]: Expected str, got int"):
        shape(task).encode_call(([bad],), {}, LIMIT)


def test_an_invalid_model_is_refused_at_the_caller() -> None:
    def task(customer: Customer) -> None: ...

    with pytest.raises(CallError, match="since"):
        shape(task).encode_call(({"name": "x", "since": "never"},), {}, LIMIT)


# What cannot be stored

nested: Any = []
for _ in range(63):
    nested = [nested]
loop: list[Any] = []
loop.append({"again": loop})


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (math.nan, "args.value", "nan"),
        ({"a": [1, math.inf]}, "args.value.a[1]", "inf"),
        ({"a b": math.inf}, "args.value['a b']", "inf"),
        (["x", "\ud800"], "args.value[1]", "surrogate"),
        ({"\ud800": 1}, "args.value['\\ud800']", "surrogate"),
        (2**64, "args.value", "64 bits"),
        ([-(2**63) - 1], "args.value[0]", "64 bits"),
        ({"n": {"m": 10**5000}}, "args.value.n.m", "64 bits"),
        (object(), "args.value", "a builtins.object cannot be stored"),
        ([{"f": sys}], "args.value[0].f", "a builtins.module cannot be stored"),
        (Line("a", object()), "args.value.price", "builtins.object"),  # type: ignore[arg-type]
        (Node("a", [Node("\udfff")]), "args.value.inner[0].name", "surrogate"),
        (Point(1.0, math.nan), "args.value.y", "nan"),
        (1j, "args.value", "complex"),
        ({(1, 2): 3}, "args.value", "the key (1, 2)"),
        ({None: 3}, "args.value", "the key None"),
        ({1: "one"}, "args.value", "would come back as a text"),
        ([{"a": {UUID(int=1): 1}}], "args.value[0].a", "would come back as a text"),
        ({1: "one", "1": "uno"}, "args.value", "would come back as a text"),
        ([nested], "args.value" + "[0]" * 64, "more than 64"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_path(value: Any, path: str, reason: str) -> None:
    error = refused(anything, value)
    assert error.path == path
    assert reason in str(error)


def test_a_value_that_holds_itself() -> None:
    assert "holds itself" in str(refused(anything, loop))


def test_depth_up_to_the_limit_is_fine() -> None:
    assert through(anything, nested) == nested
    brackets = ["[" * 500 + '"' + "}" * 500]
    assert through(anything, brackets) == brackets


def test_numbers_as_keys_where_the_annotation_rebuilds_them() -> None:
    def task(table: dict[int, dict[float, str]]) -> Any:
        return table

    assert through(task, {1: {0.5: "x"}}) == {1: {0.5: "x"}}


def test_long_digits_in_texts_are_fine() -> None:
    assert through(anything, ["9" * 40, {"9" * 40: None}]) == ["9" * 40, {"9" * 40: None}]


@dataclass
class Special(Line):
    extra: int = 0


def test_what_the_annotation_would_lose_is_refused() -> None:
    def task(line: Line | None = None, box: Box | None = None, lines: list[Line] | None = None) -> None: ...

    codec = shape(task)
    assert codec.encode_call((Line("a", Decimal(1)), {"size": 1}, [{"sku": "a", "price": "1"}]), {}, LIMIT)
    for kwargs, path, key in (
        ({"line": Special("a", Decimal(1))}, "args.line", "extra"),
        ({"lines": [Line("a", Decimal(1)), {"sku": "a", "price": "1", "prize": 1}]}, "args.lines[1]", "prize"),
        ({"box": {"size": 1, "colour": "red"}}, "args.box", "colour"),
    ):
        with pytest.raises(EncodeError, match=f"'{key}' would be lost") as found:
            codec.encode_call((), kwargs, LIMIT)
        assert found.value.path == path


class Renamed(msgspec.Struct, rename="camel", omit_defaults=True):
    order_id: int
    table: dict[int, str] = {}


def test_renamed_fields_are_fine() -> None:
    def task(one: Renamed, other: Renamed | None = None) -> Any:
        return one, other

    assert through(task, Renamed(1, {2: "x"}), {"orderId": 2}) == (Renamed(1, {2: "x"}), Renamed(2))
    with pytest.raises(EncodeError, match="order_di"):
        shape(task).encode_call(({"orderId": 1, "order_di": 2},), {}, LIMIT)


def test_too_large() -> None:
    codec = shape(anything)
    assert len(codec.encode_call(("x" * 88,), {}, 100)) == 100
    for value in ("x" * 89, ["x"] * 50, {"a": {"b": "x" * 100}}, b"x" * 70):
        with pytest.raises(PayloadTooLarge, match=r"max_payload allows 100") as found:
            codec.encode_call((value,), {}, 100)
        assert found.value.path == "args"
    with pytest.raises(PayloadTooLarge, match="result: 1,002 bytes"):
        codec.encode_result("x" * 1000, 100 * 10)


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"blob": v}])
def test_too_large_is_found_before_it_is_built(wrap: Callable[[Any], Any]) -> None:
    value = wrap("x" * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            shape(anything).encode_call((value,), {}, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


# Unions and annotations that JSON cannot tell apart


def test_a_union_that_cannot_be_rebuilt_takes_what_comes_back_equal() -> None:
    def task(at: str | dt.datetime, either: Line | Node | None = None) -> Any:
        return at, either

    assert through(task, "soon") == ("soon", None)
    with pytest.raises(ConfigError, match=r"at in shop\.task.* would come back as '2030"):
        shape(task).encode_call((NAIVE,), {}, LIMIT)
    with pytest.raises(ConfigError, match="Give the parameter one type"):
        shape(task).encode_call(("x", Node("a")), {}, LIMIT)


def test_an_enum_of_mixed_values() -> None:
    def task(which: Mixed) -> None: ...

    with pytest.raises(ConfigError, match="which"):
        shape(task).encode_call((Mixed.ONE,), {}, LIMIT)


def test_an_annotation_that_names_nothing() -> None:
    def task(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match=r"annotation of task shop\.task.*Nowhere"):
        shape(task).encode_call((1,), {}, LIMIT)


# Stored bytes, hostile ones too


def typed(n: int, name: str = "", box: dict[str, int] | None = None) -> None: ...


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[1]",
        b'"n"',
        b"{",
        b'{"n":1',
        b'{"n":1}x',
        b'{"n":NaN}',
        b'{"n":"1"}',
        b'{"n":1.5}',
        b"{}",
        b'{"n":1,"n":2}',
        b'{"n":1,"\\u006e":2}',
        b'{"n":1,"box":{"a":1,"a":2}}',
        b'{"n" :1,"n" :1}',
        b'{"n":1,"other":2}',
        b'{"n":1,"self":2}',
        b'{"n":18446744073709551616}',
        b'{"n":-9223372036854775809}',
        b'{"n":1,"box":{"a":99999999999999999999999}}',
        b'{"n":' + b"9" * 100_000 + b"}",
        b'{"n":1e999}',
        b'{"n":1,"name":"\xff"}',
        b'{"n":1,"name":"\xed\xa0\x80"}',
        b'{"n":1,"name":"\\ud800"}',
        b"[" * 100_000,
        b'{"n":' * 100_000,
        b'{"n":1,"other":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\x00" * 1000,
        "{}".encode("utf-16"),
    ],
    ids=lambda data: repr(data[:30]),
)
def test_stored_bytes_that_do_not_fit(data: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(DecodeError, match=r"shop\.typed\(n: int"):
        shape(typed).decode_call(data)
    assert time.perf_counter() - began < 1


def test_a_stored_call_that_does_not_fit_says_field_and_value() -> None:
    with pytest.raises(DecodeError, match=r'n: Expected int, got str\. What came: \{"n":"one"\}'):
        shape(typed).decode_call(b'{"n":"one"}')


@given(st.binary() | plain.map(lambda value: json.dumps(value).encode()))
def test_any_stored_bytes_are_a_call_or_a_decode_error(data: bytes) -> None:
    for read in (shape(typed).decode_call, shape(typed).decode_result, show):
        with contextlib.suppress(DecodeError):
            read(data)


def test_hostile_calls_of_a_function_that_takes_anything() -> None:
    def task(a: int = 0, /, b: int = 0, *rest: int, **more: int) -> None: ...

    codec = shape(task)
    assert codec.decode_call(b'{"b":2}') == ((), {"b": 2})
    for data in (b'{"rest":[1]}', b'{"a":1,"b":2,"more":{"b":3}}', b'{"a":1,"b":2,"rest":{}}'):
        with pytest.raises(DecodeError):
            codec.decode_call(data)


def test_foreign_white_space_and_order_are_fine() -> None:
    assert shape(typed).decode_call(b' { "name" : "x:y" ,\n "n" : 1 } ') == ((), {"name": "x:y", "n": 1})


def test_results() -> None:
    def task() -> list[Order]:
        return []

    codec = shape(task)
    orders = [Order(UUID(int=1), [Line("a", Decimal("1.50"))], dt.date(2030, 1, 1))]
    assert codec.decode_result(codec.encode_result(orders, LIMIT)) == orders
    assert shape(send).decode_result(shape(send).encode_result(None, LIMIT)) is None
    with pytest.raises(DecodeError, match=r"stored result does not fit shop\.task"):
        codec.decode_result(b'[{"id":1}]')
    with pytest.raises(EncodeError, match=r"result\[0\]"):
        codec.encode_result([math.nan], LIMIT)


def test_show_is_for_people() -> None:
    assert show(b'{"a":[1,{"b":null}]}') == {"a": [1, {"b": None}]}
    for data in (b"[1]", b"nonsense", b"[" * 100_000):
        with pytest.raises(DecodeError):
            show(data)

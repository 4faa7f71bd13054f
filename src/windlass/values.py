"""Values <-> JSON: what can be stored, where in a value lies what cannot, what stored bytes may hold. And how text is
shown."""

import dataclasses
import json
import math
import re
import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, get_origin

import msgspec

from windlass.errors import EncodeError, PayloadTooLarge

T = TypeVar("T")

DEPTH = 64
"""The most containers inside one another."""

LOWEST, HIGHEST = -(2**63), 2**64 - 1
"""The whole numbers that every store and every JSON reader of ours keeps exactly."""

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_SIZED = frozenset({str, bytes, bytearray, list, tuple, set, frozenset, dict})
_LISTED = (list, tuple, set, frozenset)
_INDEXED = (list, tuple)
_FLAT = (str, bytes, bytearray)
_FEW = 8


def store_custom(value: Any) -> Any:
    """msgspec's hook for what it does not know: pydantic models, of any version that dumps JSON."""
    dump = getattr(type(value), "model_dump_json", None)
    if dump is None:
        raise TypeError(unknown_kind(value))
    body: bytes = dump(value, by_alias=True, round_trip=True).encode()
    if plain_bytes(plain_value(body)) != body:
        json.loads(body, object_pairs_hook=_without_doubles)
    return msgspec.Raw(body)


def rebuild_custom(kind: Any, value: Any) -> Any:
    """msgspec's hook for annotations that it does not know: pydantic models, and abstract types of JSON's own."""
    validate = getattr(kind, "model_validate_json", None)
    if validate is not None:
        return validate(plain_bytes(value))
    if isinstance(value, get_origin(kind) or kind):
        return value
    raise TypeError(f"expected {getattr(kind, '__name__', kind)}, got {type(value).__name__}")


plain_bytes = msgspec.json.Encoder().encode
plain_value = msgspec.json.Decoder().decode
to_bytes = msgspec.json.Encoder(enc_hook=store_custom).encode


def reader(annotation: Any) -> Callable[[bytes], Any]:
    """What turns JSON into a value of `annotation`. Raises whatever msgspec raises for one that it cannot read."""
    return msgspec.json.Decoder(annotation, dec_hook=rebuild_custom).decode


def encode(value: object, path: str, limit: int, depth: int = DEPTH) -> bytes:
    """`value` as JSON of at most `limit` bytes. Raises `EncodeError` (its path starts with `path`), `PayloadTooLarge`.

    What JSON cannot hold without loss is refused: NaN, infinity, whole numbers beyond 64 bits, lone surrogates.
    """
    least = least_size(value)
    if least > limit:
        raise too_large(f"at least {least:,}", limit, path)
    try:
        body = to_bytes(value)
    except Exception as error:
        find_fault(value, path, depth)
        raise EncodeError(f"cannot be stored: {error}", path) from error
    if len(body) > limit:
        raise too_large(f"{len(body):,}", limit, path)
    too_deep = deeper(body, depth)
    if too_deep or b"null" in body or long_number(body):
        find_fault(value, path, depth)
    if too_deep:
        raise EncodeError(f"more than {DEPTH} containers inside one another", path)
    return body


def too_large(size: str, limit: int, path: str) -> PayloadTooLarge:
    """The error of a value that is over the limit."""
    return PayloadTooLarge(
        f"{size} bytes of JSON, where max_payload allows {limit:,}. "
        "Store the data elsewhere and pass its name, or raise max_payload",
        path,
    )


def least_size(value: Any, levels: int = 2) -> int:
    """A lower bound of the JSON's length, found without making it. Looks only into small containers."""
    kind = type(value)
    if kind not in _SIZED:
        return 0
    size = len(value)
    if levels and size <= _FEW and kind not in _FLAT:
        for part in value.values() if kind is dict else value:
            if type(part) in _SIZED:
                size += least_size(part, levels - 1)
    return size


def long_number(body: bytes) -> bool:
    """Whether there are so many digits in a row that they may be a number beyond 64 bits."""
    return body.translate(_DIGITS).find(_LONG) >= 0


def deeper(body: bytes, depth: int) -> bool:
    """Whether more than `depth` containers lie inside one another: peels off the innermost, one level at a time."""
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    brackets = _TEXT.sub(b"", body).translate(_SQUARE, _NOT_BRACKETS)
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


# Looking for what is wrong: slow, and only done when something is


@contextmanager
def looking(path: str) -> Iterator[None]:
    """Around what asks a user's objects: whatever they raise becomes an `EncodeError`."""
    try:
        yield
    except EncodeError:
        raise
    except Exception as error:
        raise EncodeError(f"it cannot be looked at: that raised {type(error).__name__}", path) from error


def find_fault(value: object, path: str, depth: int) -> None:
    """Walk through `value` and raise `EncodeError` with the path to the first part that cannot be stored."""
    with looking(path):
        walk(value, path, depth)


def walk(value: object, path: str, depth: int) -> None:
    """The walk of `find_fault`."""
    if isinstance(value, Mapping):
        for key in value:
            check_key(key, path)
    inner = parts(value)
    if inner is None:
        check_leaf(value, path)
        return
    if depth == 0:
        raise EncodeError(f"more than {DEPTH} containers inside one another, or one that holds itself", path)
    for key, part in inner:
        walk(part, path + step(value, key), depth - 1)


def check_leaf(value: object, path: str) -> None:
    """Raise `EncodeError` for a single value that cannot be stored."""
    if isinstance(value, float) and not math.isfinite(value):
        raise EncodeError(f"{value} cannot be stored: JSON has no such number. Pass None or a text instead", path)
    if isinstance(value, int) and not LOWEST <= value <= HIGHEST:
        raise EncodeError("the number does not fit 64 bits (-2**63 to 2**64-1). Pass it as a text or a Decimal", path)
    try:
        to_bytes(value)
    except UnicodeEncodeError:
        raise EncodeError(
            f"{reprlib.repr(value)} holds half of a surrogate pair, which UTF-8 cannot. Clean the text first", path
        ) from None
    except Exception as error:
        raise EncodeError(str(error), path) from error


def check_key(key: object, path: str) -> None:
    """Raise `EncodeError` for a key that cannot become a text and come back."""
    if isinstance(key, str | int | float):
        check_leaf(key, path + step({}, key))
        return
    try:
        to_bytes({key: None})
    except Exception:
        raise EncodeError(
            f"the key {reprlib.repr(key)} cannot be stored: keys are texts, numbers, dates, UUIDs or enums", path
        ) from None


def check_kept(value: object, back: object, path: str) -> None:
    """Raise `EncodeError` where `back`, the rebuilt form of `value`, has lost keys or fields."""
    with looking(path):
        compare(value, back, path)


def compare(value: object, back: object, path: str) -> None:
    """The walk of `check_kept`."""
    names = value.keys() if isinstance(value, Mapping) else stored_fields(value)
    if names is not None:
        kept = back.keys() if isinstance(back, Mapping) and isinstance(value, Mapping) else stored_fields(back)
        lost = [] if kept is None else [name for name in names if name not in kept]
        if lost:
            raise EncodeError(why_lost(lost[0], back), path)
    for key, part in parts(value) or ():
        compare(part, part_of(back, key), path + step(value, key))


def why_lost(key: object, back: object) -> str:
    """Why a key or field is refused."""
    if not isinstance(key, str):
        return (
            f"the key {reprlib.repr(key)} would come back as a text. "
            "Annotate the parameter, as in dict[int, str], or use texts as keys"
        )
    kind = "the annotation" if isinstance(back, Mapping) else type(back).__name__
    return f"{reprlib.repr(key)} would be lost, because {kind} has no field of that name. Leave it out, or add it there"


def stored_fields(value: object) -> Collection[str] | None:
    """The names under which the fields of an object are stored; None for anything else."""
    return value.__struct_encode_fields__ if isinstance(value, msgspec.Struct) else fields(value)


def parts(value: object) -> Iterator[tuple[Any, object]] | None:
    """What `value` is made of, as (key, index or attribute, part); None for a single value."""
    if isinstance(value, Mapping):
        return iter(value.items())
    names = fields(value)
    if names is not None:
        return ((name, getattr(value, name, None)) for name in names)
    if isinstance(value, _LISTED):
        return iter(enumerate(value))
    return None


def fields(value: object) -> Collection[str] | None:
    """The attributes that are stored of an object with named ones; None for anything else."""
    kind: Any = type(value)
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    if hasattr(kind, "__attrs_attrs__"):
        return [attribute.name for attribute in kind.__attrs_attrs__]
    names: Collection[str] | None = getattr(kind, "_fields", None) if isinstance(value, tuple) else None
    return names


def part_of(whole: object, key: Any) -> object:
    """The part of `whole` that `parts` would name `key`; None if it has none."""
    try:
        if isinstance(whole, Mapping) or (isinstance(whole, _INDEXED) and isinstance(key, int)):
            return whole[key]
        return getattr(whole, key, None) if isinstance(key, str) else None
    except LookupError:
        return None


def step(whole: object, key: Any) -> str:
    """`key` as it continues a path: `.name` or `[3]`."""
    named = isinstance(key, str) and key.isidentifier()
    return f".{key}" if named or fields(whole) is not None else f"[{reprlib.repr(key)}]"


def unknown_kind(value: object) -> str:
    """Why an object of some class cannot be stored, and what to do."""
    kind = type(value)
    return (
        f"a {kind.__module__}.{kind.__qualname__} cannot be stored. Pass what identifies it (an id, a path as a text), "
        "or make it a dataclass, a msgspec.Struct or a pydantic model"
    )


# How stored text is shown

STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, turns the direction of text, ends a line in secret or is half a character; no tab or plain
end of a line."""


def visible(text: str) -> str:
    """Text as a terminal or a log may have it: what steers is written out, as Python writes it."""
    return STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


# What stored bytes may hold


def check_sound(data: bytes, names: Collection[str]) -> None:
    """Raise `ValueError` for a stored object that has a key twice, numbers out of range, or other keys than `names`.

    Nearly always a glance is enough: as many colons as names leave no room for more keys.
    """
    if data.count(b":") == len(names) and not long_number(data):
        return
    found = plain_value(data)
    if plain_bytes(found) != data or long_number(data):
        found = json.loads(data, object_pairs_hook=_without_doubles, parse_int=_in_range)
    unknown = found.keys() - names
    if unknown:
        raise ValueError(f"unknown parameter {min(unknown)!r}")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:40]!r} comes twice")
        found[key] = value
    return found


def _in_range(digits: str) -> int:
    if len(digits) > len(str(LOWEST)) or not LOWEST <= int(digits) <= HIGHEST:
        raise ValueError(f"the number {digits[:40]} does not fit 64 bits")
    return int(digits)

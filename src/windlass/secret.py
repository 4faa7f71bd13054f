"""Arguments that nobody shall see: marked in the task's signature, shown as *** wherever a job is shown."""

import base64
import binascii
import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, get_args, get_type_hints
from urllib.parse import quote, quote_plus

from msgspec import Struct

HIDDEN = "***"

RESULT = "return"
"""Stands for the result among the names of secret parameters."""

LEAST = 4
"""The fewest characters that are looked for in texts: shorter ones guard nothing, and would shred every text."""


class Secret:
    """Marks a parameter, or a result, as secret: `token: Annotated[str, Secret()]`.

    The task gets it as ever. `job.args`, the command line, errors and tracebacks of the job show *** in its place. In
    a dataclass or struct it may mark one field; the whole parameter is then hidden. It is stored as it is: give the app
    `keys`, and it is encrypted.
    """

    def __repr__(self) -> str:
        return "Secret()"


class Shown:
    """Stands for a secret default in a signature."""

    def __repr__(self) -> str:
        return HIDDEN


def is_secret(annotation: Any, seen: Mapping[int, Any] = MappingProxyType({})) -> bool:
    """Whether `Secret` stands anywhere in an annotation, the fields of its classes included.

    `seen` are the annotations around it by their identity: what stands in `Annotated` need not be hashable.
    """
    if annotation is Secret or isinstance(annotation, Secret):
        return True
    if id(annotation) in seen:
        return False
    seen = {**seen, id(annotation): annotation}
    inner = (*get_args(annotation), *getattr(annotation, "__metadata__", ()), *field_types(annotation))
    return any(is_secret(one, seen) for one in inner)


def field_types(annotation: Any) -> Collection[Any]:
    """The annotations of the fields of a class with named ones."""
    if not isinstance(annotation, type):
        return ()
    if not (issubclass(annotation, Struct) or dataclasses.is_dataclass(annotation) or has_fields(annotation)):
        return ()
    try:
        return get_type_hints(annotation, include_extras=True).values()
    except Exception:  # a name that cannot be resolved: its use as an annotation complains of that
        return ()


def has_fields(kind: type) -> bool:
    """Whether a class is a pydantic model, an attrs class, a TypedDict or a named tuple."""
    return any(hasattr(kind, name) for name in ("model_fields", "__attrs_attrs__", "__total__", "_fields"))


# Showing


def hide(args: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Arguments by name, secret ones as ***."""
    return {name: HIDDEN if name in names else value for name, value in args.items()}


def texts_of(args: object, names: Collection[str]) -> tuple[str, ...]:
    """The texts by which the secret ones among some arguments would be known, longest first."""
    if not isinstance(args, Mapping):
        return ()
    found: set[str] = set()
    for name in names:
        for leaf in leaves(args.get(name)):
            found.update(forms(leaf))
    return tuple(sorted((one for one in found if len(one) >= LEAST), key=len, reverse=True))


def forms(text: str) -> Iterator[str]:
    """How a text looks in messages: as it is, as Python, JSON and URLs write it, line by line where each is indented,
    and as the bytes that it stands for, should it be how bytes are stored."""
    yield from (text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text), quote(text, safe=""), quote_plus(text))
    yield from (line.strip() for line in text.splitlines())
    try:
        data = base64.b64decode(text, validate=True)
        yield repr(data)[2:-1]
        yield data.decode()
    except (binascii.Error, ValueError):
        pass


def leaves(value: Any) -> Iterator[str]:
    """The texts and numbers in a value of JSON's own types, keys included."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield str(key)
            yield from leaves(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from leaves(one)
    elif isinstance(value, str):
        yield value
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def scrub(text: str, secrets: Collection[str]) -> str:
    """A text with *** in place of secrets."""
    for one in secrets:
        text = text.replace(one, HIDDEN)
    return text

"""Calls and results <-> JSON bytes, typed by a task's annotations.

A call is stored as one object, parameter name -> value, with only what was passed: defaults stay with the function.
`*args` is a list under its name, `**kwargs` an object under its name.
"""

import inspect
import re
import reprlib
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Annotated, Any, NotRequired, Optional, TypedDict, Unpack, get_args, get_origin, get_type_hints

from msgspec import Struct

from windlass import values
from windlass.errors import CallError, ConfigError, DecodeError, EncodeError, PayloadTooLarge
from windlass.lazy import Lazy
from windlass.secret import HIDDEN, RESULT, Shown, hide, is_secret, texts_of

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

CALL_DEPTH = values.DEPTH + 1
"""The object that holds the arguments is one more container around each."""

_HERE = re.compile(r"^(?P<reason>.*?)(?: - at `\$\.?(?P<field>.*)`)?$", re.DOTALL)

make_typed_dict: Any = TypedDict


class Layout(Struct, frozen=True, kw_only=True):
    """What is worked out once about a function's parameters."""

    signature: inspect.Signature
    positional: tuple[str, ...]
    only_names: bool
    """Whether every argument can be passed by name: no positional-only ones, no `*args`, no `**kwargs`."""
    refused: Mapping[str, str]
    """Parameters whose annotations msgspec cannot rebuild, with its reason; they hold JSON's own types."""
    read: Callable[[bytes], dict[str, Any]]


class Shape:
    """How the calls and results of one function are stored. Its annotations are looked at on first use."""

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        self._fn, self._name = fn, name

    def encode_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], limit: int) -> bytes:
        """A call as at most `limit` bytes. Raises `CallError`, `EncodeError`, `PayloadTooLarge`; `ConfigError`
        for annotations that cannot be understood."""
        if not self.secrets:
            return self._encode_call(args, kwargs, limit)
        try:
            return self._encode_call(args, kwargs, limit)
        except EncodeError as error:
            raise self._discreet(error) from None
        except CallError as error:
            raise CallError(str(error)) from None

    def _encode_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], limit: int) -> bytes:
        layout = self._layout
        given: dict[str, Any] = {}
        for name, value in zip(layout.positional, args):  # noqa: B905 - a wrong number is seen below
            given[name] = value  # noqa: PERF403 - a comprehension, or dict(zip()), costs half as much again
        if kwargs:
            given.update(kwargs)
        if len(given) != len(args) + len(kwargs) or (kwargs and not layout.only_names):
            given = self._bind(args, kwargs)
        body = encode_plain(layout, given, limit)
        return self._encode_with_care(given, args, kwargs, limit) if body is None else body

    def decode_call(self, data: bytes) -> Arguments:
        """A stored call as (args, kwargs) that fit the function. Raises `DecodeError`."""
        layout = self._layout
        try:
            given = layout.read(data)
            values.check_sound(data, given)
            return ((), given) if layout.only_names else spread(layout.signature, given)
        except Exception as error:
            raise self._unreadable("the stored arguments do not fit", error, data) from self._cause(error)

    def encode_result(self, value: object, limit: int) -> bytes:
        """What a job returned as at most `limit` bytes. Raises `EncodeError`, `PayloadTooLarge`."""
        try:
            return b"null" if value is None else values.encode(value, "result", limit)
        except EncodeError as error:
            if RESULT in self.secrets:
                raise self._discreet(error) from None
            raise

    def decode_result(self, data: bytes | None) -> Any:
        """A stored result, rebuilt from the function's return annotation. Raises `DecodeError`."""
        if data is None:
            return None
        try:
            return self._read_result(data)
        except Exception as error:
            raise self._unreadable("the stored result does not fit", error, data) from self._cause(error)

    def secret_texts(self, data: bytes) -> tuple[str, ...]:
        """The texts in a stored call that nobody shall see."""
        if not self.secrets:
            return ()
        try:
            return texts_of(values.plain_value(data), self.secrets)
        except Exception:
            return ()

    @property
    def title(self) -> str:
        """The task's name and signature, as in messages."""
        signature = self._layout.signature
        shown = [
            one.replace(default=Shown()) if one.name in self.secrets and one.default is not one.empty else one
            for one in signature.parameters.values()
        ]
        return f"{self._name}{signature.replace(parameters=shown)}"

    def kind_of(self, parameter: str) -> Any:
        """What a parameter is annotated with, without what only describes it. Raises `ConfigError`."""
        found = self.signature.parameters[parameter].annotation
        return get_args(found)[0] if get_origin(found) is Annotated else found

    @Lazy
    def secrets(self) -> tuple[str, ...]:
        """The names of the parameters that are secret; `return` for the result."""
        found = [name for name, one in self.signature.parameters.items() if is_secret(one.annotation)]
        return (*found, RESULT) if is_secret(self.signature.return_annotation) else tuple(found)

    @Lazy
    def _layout(self) -> Layout:
        return make_layout(self.signature)

    @Lazy
    def signature(self) -> inspect.Signature:
        """The function's signature with its annotations resolved."""
        try:
            hints = get_type_hints(self._fn, include_extras=True)
        except Exception as error:
            raise ConfigError(
                f"an annotation of task {self._name} cannot be resolved: {error}. "
                "Import what it names where the function is defined (not only for the type checker)"
            ) from error
        found = inspect.signature(self._fn)
        resolved = {name: None if hint is NoneType else hint for name, hint in hints.items()}
        parameters = [p.replace(annotation=resolved.get(p.name, p.annotation)) for p in found.parameters.values()]
        return found.replace(parameters=parameters, return_annotation=resolved.get("return", found.return_annotation))

    @Lazy
    def _read_result(self) -> Callable[[bytes], Any]:
        annotation = typed(self.signature.return_annotation)
        return values.reader(annotation if refusal(annotation) is None else Any)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by parameter name, as Python itself binds them. Raises `CallError`."""
        try:
            return dict(self._layout.signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise CallError(f"{error}. The task is {self.title}") from None

    def _encode_with_care(
        self, given: dict[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], limit: int
    ) -> bytes:
        layout = self._layout
        body = values.encode(given, "args", limit, CALL_DEPTH)
        try:
            back = layout.read(body)
        except Exception as error:
            self._bind(args, kwargs)
            raise self._misfit(error, given) from error
        if not same(given, back):
            self._bind(args, kwargs)
            self._check_texts(given)
            values.check_kept(given, back, "args")
            for name in layout.refused.keys() & given.keys():
                self._check_rebuilt(name, given[name], back[name])
        return body

    def _check_texts(self, given: Mapping[str, Any]) -> None:
        """Raise `CallError` for what is no text where the annotation says so: bytes and dates would arrive as one."""
        for name, one in self._layout.signature.parameters.items():
            if one.annotation is str and name in given and not isinstance(given[name], str):
                kind = type(given[name]).__name__
                raise CallError(f"{name}: Expected str, got {kind}; pass it as text. The task is {self.title}")

    def _check_rebuilt(self, name: str, value: object, back: object) -> None:
        if not same(value, back):
            value, back = (HIDDEN, HIDDEN) if name in self.secrets else (value, back)
            raise ConfigError(
                f"the annotation of {name} in {self.title} cannot be rebuilt from JSON "
                f"({self._layout.refused[name]}), and {reprlib.repr(value)} would come back as {reprlib.repr(back)}. "
                "Give the parameter one type, or Any"
            )

    def _misfit(self, error: Exception, given: Mapping[str, Any]) -> CallError:
        reason, field = located(error)
        name = re.match(r"\w*", field)
        value = given.get(name[0]) if name else None
        if self.secrets and (not name or name[0] in ("", *self.secrets)):
            return CallError(f"{field or 'arguments'}: {UNSHOWN}. The task is {self.title}")
        return CallError(f"{field or 'arguments'}: {reason}; {reprlib.repr(value)} came. The task is {self.title}")

    def _unreadable(self, what: str, error: Exception, data: bytes) -> DecodeError:
        reason, field = located(error)
        if self.secrets:
            reason, data = self._hidden(reason, field, data)
        came = data[:200].decode("utf-8", "backslashreplace")
        more = f"… ({len(data):,} bytes)" if len(data) > 200 else ""
        said = f"{field}: {reason}" if field else reason
        return DecodeError(f"{what} {self.title}: {said}. What came: {came}{more}")

    def _cause(self, error: Exception) -> Exception | None:
        """What an error is raised from: nothing if that may quote a secret."""
        return None if self.secrets else error

    def _hidden(self, reason: str, field: str, data: bytes) -> tuple[str, bytes]:
        """The same of an error, without secrets."""
        try:
            found = values.plain_value(data)
            shown = values.plain_bytes(hide(found, self.secrets))
        except Exception:
            return UNSHOWN, HIDDEN.encode()
        top = re.match(r"\w*", field)
        if (top and top[0] in self.secrets) or any(one in reason for one in texts_of(found, self.secrets)):
            reason = UNSHOWN
        return reason, shown

    def _discreet(self, error: EncodeError) -> EncodeError:
        """The same without the value, unless it is of a parameter that is not secret."""
        root, _, name = error.path.partition(".")
        name = re.split(r"\W", name)[0]
        if isinstance(error, PayloadTooLarge) or (name and name not in self.secrets):
            return error
        return EncodeError(f"it cannot be stored; {UNSHOWN}", f"{root}.{name}" if name else root)


UNSHOWN = "what is wrong with it is not shown, because it is secret"


def encode_plain(layout: Layout, given: dict[str, Any], limit: int) -> bytes | None:
    """The usual call: texts and numbers that fit the annotations. None for all that needs a closer look."""
    for value in given.values():
        kind = type(value)
        if kind is int:
            if not values.LOWEST <= value <= values.HIGHEST:
                return None
        elif kind is str:
            if len(value) > limit:
                return None
        elif kind is not bool and value is not None:
            return None
    try:
        body = values.plain_bytes(given)
        return body if len(body) <= limit and layout.read(body) == given else None
    except Exception:
        return None


def make_layout(signature: inspect.Signature) -> Layout:
    """Work out how calls with this signature are stored."""
    parameters = signature.parameters.values()
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    wanted = {p.name: typed_parameter(p) for p in parameters}
    refused = {name: reason for name, annotation in wanted.items() if (reason := refusal(annotation))}
    kept = {name: Any if name in refused else annotation for name, annotation in wanted.items()}
    fields = {p.name: kept[p.name] if is_required(p) else NotRequired[kept[p.name]] for p in parameters}
    return Layout(
        signature=signature,
        positional=tuple(p.name for p in by_position),
        only_names=all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters),
        refused=refused,
        read=values.reader(make_typed_dict("Arguments", fields)),
    )


def is_required(parameter: inspect.Parameter) -> bool:
    """Whether a call without this parameter is incomplete."""
    variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not variable


def typed_parameter(parameter: inspect.Parameter) -> Any:
    """The type of what is stored under a parameter's name. A default of None admits None."""
    many: Any = tuple
    named: Any = dict
    optional: Any = Optional
    annotation = typed(parameter.annotation)
    if parameter.kind is parameter.VAR_POSITIONAL:
        return many[(Any if get_origin(annotation) is Unpack else annotation), ...]
    if parameter.kind is parameter.VAR_KEYWORD:
        return get_args(annotation)[0] if get_origin(annotation) is Unpack else named[str, annotation]
    return optional[annotation] if parameter.default is None else annotation


def typed(annotation: Any) -> Any:
    """An annotation, with Any where there is none."""
    return Any if annotation in (inspect.Parameter.empty, object) else annotation


def refusal(annotation: Any) -> str | None:
    """Why msgspec cannot rebuild values of `annotation`; None if it can. Raises `ConfigError` for unresolved names."""
    try:
        values.reader(annotation)
    except NameError as error:
        raise ConfigError(
            f"{annotation} cannot be understood: {error}. Define what it names at the top of its module"
        ) from error
    except Exception as error:
        return str(error).partition(" - type ")[0]
    return None


def spread(signature: inspect.Signature, given: dict[str, Any]) -> Arguments:
    """Stored arguments as a call. Raises `TypeError` if there is none."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    by_position = True
    for parameter in signature.parameters.values():
        name = parameter.name
        if parameter.kind is parameter.VAR_KEYWORD:
            twice = kwargs.keys() & given.get(name, {}).keys()
            if twice:
                raise TypeError(f"{min(twice)} comes twice")
            kwargs.update(given.get(name, {}))
        elif parameter.kind is parameter.VAR_POSITIONAL:
            if given.get(name) and not by_position:
                raise TypeError(f"{name} holds values, but a parameter before it is missing")
            args.extend(given.get(name, ()))
        elif name not in given:
            by_position = False
        elif by_position and parameter.kind is not parameter.KEYWORD_ONLY:
            args.append(given[name])
        else:
            kwargs[name] = given[name]
    signature.bind(*args, **kwargs)
    return tuple(args), kwargs


def located(error: Exception) -> tuple[str, str]:
    """A decoding error as (reason, path to the field)."""
    match = _HERE.match(str(error) or type(error).__name__)
    assert match
    return match["reason"].replace("`", ""), match["field"] or ""


def same(value: object, back: object) -> bool:
    """Whether a value came back equal; one that cannot be compared did not."""
    try:
        return bool(value == back)
    except Exception:
        return False


def show(data: bytes) -> dict[str, Any]:
    """A stored call as plain JSON for people, whatever the task. Raises `DecodeError`."""
    try:
        shown = values.plain_value(data)
    except Exception as error:
        raise DecodeError(f"the stored arguments are no JSON: {error}") from error
    if not isinstance(shown, dict):
        raise DecodeError(f"the stored arguments are no JSON object but {reprlib.repr(shown)}")
    return shown


def encode_free(value: Mapping[str, Any], path: str, limit: int) -> bytes:
    """A free mapping, such as `meta`, as at most `limit` bytes that come back equal. Raises `EncodeError`."""
    body = values.encode(value, path, limit)
    back = values.plain_value(body)
    if not same(value, back):
        values.check_kept(value, back, path)
    return body

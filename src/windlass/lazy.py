"""Values that are worked out on first use."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class Lazy(Generic[T]):
    """A property that is worked out once and kept; twice, if two threads come at the same moment.

    `functools.cached_property` has a lock before Python 3.12, and a child forked while another thread holds it would
    wait for ever.
    """

    def __init__(self, work: Callable[[Any], T]) -> None:
        self._work = work
        self._name = ""
        self.__doc__ = work.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object, owner: type) -> "T | Self":
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._work(instance)
        return value

"""Where a function was defined: which of two is the other one again, and what people call it."""

import sys
from collections.abc import Callable
from typing import Any


def is_same(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Whether `new` is `old` again: reloaded from its place, or redefined by hand in a notebook or a shell."""
    return place_of(old) == place_of(new) or (by_hand(new) and old.__qualname__ == new.__qualname__)


def by_hand(fn: Callable[..., Any]) -> bool:
    """Whether a function was typed into a notebook or a shell, where things are defined again."""
    return fn.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__")


def place_of(fn: Callable[..., Any]) -> str:
    """File, line and name of a function, for people."""
    code = getattr(fn, "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    return f"{fn.__module__}.{fn.__qualname__}{where}"

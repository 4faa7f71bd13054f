"""The Lua scripts: each is its own file with what it needs of others in front, called by its digest."""

from dataclasses import dataclass
from hashlib import sha1
from importlib import resources

from windlass.policy import BY_CLASH, BY_OPERATOR
from windlass.store.contract import BATCH, NAMED

CLOCK = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
local steady = now
"""
"""The one place where time is read, in microseconds: `now` for moments, `steady` for leases. Redis has no clock but
its wall clock. Lua's numbers hold whole microseconds exactly for 285 years."""

COMMON = ("keys", "common")
MOVES = (*COMMON, "stand", "moves")
NEEDS = {
    "put": ("keys", "plain", "common", "stand", "moves", "docs", "clash"),
    "save": (*COMMON, "docs"),
    "load": COMMON,
    "exchange": (*MOVES, "due", "claim", "gates"),
    "settle": MOVES,
    "release": MOVES,
    "retire": MOVES,
    "reap": MOVES,
    "beat": MOVES,
    "enlist": COMMON,
    "note": COMMON,
    "rest": (*MOVES, "claim", "gates"),
    "act": (*MOVES, "filter"),
    "shed": MOVES,
    "amend": (*MOVES, "elsewhere"),
    "lift": (*MOVES, "elsewhere"),
    "prune": (*MOVES, "docs"),
    "get": COMMON,
    "holders": COMMON,
    "walk": (*COMMON, "filter"),
    "ready": COMMON,
    "size": COMMON,
    "running": (*COMMON, "filter"),
    "stats": COMMON,
    "workers": COMMON,
    "tally": COMMON,
    "series": COMMON,
}
"""The scripts, and which files of functions stand in front of them: few, for each call makes all of them anew, half a
microsecond each."""


@dataclass(frozen=True, slots=True)
class Script:
    """The text of a script and its digest."""

    name: str
    text: str
    digest: str


def make_scripts(history: int, clock: str = CLOCK) -> dict[str, Script]:
    """All scripts by name, for a history of that many jobs."""
    reasons = f"BY_OPERATOR, BY_CLASH = '{BY_OPERATOR}', '{BY_CLASH}'"
    constants = f"local BATCH, HISTORY, NAMED = {BATCH}, {history}, {NAMED}\nlocal {reasons}\n{clock}"
    return {name: make_script(name, constants) for name in NEEDS}


def make_script(name: str, constants: str) -> Script:
    """One script: its flags must stand in the first line of the whole."""
    flags, _, body = read(name).partition("\n")
    text = "\n".join((flags, constants, *map(read, NEEDS[name]), body))
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def read(name: str) -> str:
    """A Lua file of this package."""
    return resources.files("windlass.store.redis").joinpath("lua", f"{name}.lua").read_text("utf-8")

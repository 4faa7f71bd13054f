"""Queues and limits: what stands in them, what holds it up; pausing, and changing what a gate admits."""

from collections.abc import Sequence
from functools import partial

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from windlass import breaker
from windlass.breaker import Breaker
from windlass.gate import family_of
from windlass.gates import OURS, GateInfo
from windlass.queues import Paused
from windlass.store.contract import BREAKER
from windlass.store.documents import all_docs
from windlass.view import duration
from windlass.web import look
from windlass.web.acts import Change, Desk, Keyed, Why
from windlass.web.guard import user_of
from windlass.web.live import Snapshot
from windlass.web.pages import back, charts_of, desk_of, form_of, read
from windlass.web.render import is_live

SHOWN = 200
"""Gates on one page: those with keys may be many."""


class Fuse(Struct, frozen=True):
    """A circuit breaker: its rule, if the app is known here; the failures that count now; the pause if it is open."""

    task: str
    rule: str
    failures: int
    paused: Paused | None


async def queue_list(request: Request) -> Response:
    """Every queue, by task and state; what is paused."""
    desk = desk_of(request)
    snapshot = await desk.watch.snapshot()
    return desk.pages.page(request, "queues", queues=look.queues(snapshot), paused=snapshot.paused)


async def queue_page(request: Request) -> Response:
    """One queue: what stands in it, and what holds it up."""
    desk, name = desk_of(request), request.path_params["name"]
    snapshot = await desk.watch.snapshot()
    one = look.queue(snapshot, name)
    owners = {f"queue:{name}", *(f"{kind}:{task.name}" for task in one.tasks for kind in ("task", "order"))}
    gates = [gate for gate in await gates_of(desk, is_live(request)) if is_of(gate, owners)]
    return desk.pages.page(
        request,
        "queue",
        one=one,
        gates=gates,
        bound=desk.app.pressure.bounds.get(name),
        shown=await charts_of(request, name),
    )


def is_of(gate: GateInfo, owners: set[str]) -> bool:
    """Whether a gate is one of a queue or a task of these: such as 'queue:mail', 'task:shop.pay:2'."""
    kind, _, rest = family_of(gate.name).partition(":")
    return f"{kind}:{rest.partition(':')[0]}" in owners


async def limits(request: Request) -> Response:
    """Gates, who holds them and what waits; circuit breakers."""
    desk, live = desk_of(request), is_live(request)
    found = await gates_of(desk, live)
    snapshot = await desk.watch.snapshot()
    known = {family_of(one.name) for one in found} | {name for name in desk.app.limits if not name.startswith(OURS)}
    chosen = request.query_params.get("name", "")
    if family_of(chosen) in known:
        known.add(chosen)
    return desk.pages.page(
        request,
        "limits",
        gates=found[:SHOWN],
        more=len(found) - SHOWN,
        names=sorted(known),
        chosen=chosen,
        fuses=await desk.watch.look("fuses", partial(fuses, desk, snapshot), live),
    )


async def gates_of(desk: Desk, live: bool) -> Sequence[GateInfo]:
    """The gates, by name."""
    return await desk.watch.look("gates", desk.app.gates.alist, live)


async def fuses(desk: Desk, snapshot: Snapshot) -> list[Fuse]:
    """The circuit breakers of the app's tasks, and those that are open or count failures in the store."""
    store = await desk.app.connect()
    stored = {doc.name: breaker.read(doc.body) async for doc in all_docs(store, BREAKER)}
    rules = {task.name: task.breaker for task in desk.app.tasks.values() if task.breaker}
    paused = {one.name: one for one in snapshot.paused if one.kind == "task"}
    names = rules.keys() | stored.keys() | {name for name, one in paused.items() if one.until}
    now = desk.clock.now()
    return [
        Fuse(name, rule_of(rules.get(name)), counting(rules.get(name), stored.get(name, ()), now), paused.get(name))
        for name in sorted(names)
    ]


def rule_of(rule: Breaker | None) -> str:
    """When a breaker opens, in words; empty if that is not known here."""
    if rule is None:
        return ""
    window, probe = breaker.length(rule.window), breaker.length(rule.probe)
    return f"{rule.failures:,} failures within {duration(window)}; a job is tried after {duration(probe)}"


def counting(rule: Breaker | None, at: tuple[float, ...], now: float) -> int:
    """How many failures count now."""
    return len(at if rule is None else breaker.added(rule, at, 0, now))


# Forms


DONE = {"pause": "paused", "drain": "drained", "resume": "resumed"}
"""What the page says then."""


async def hold(kind: str, act: str, request: Request) -> Response:
    """Pause, drain or resume a queue, pause or resume a task."""
    name, why = request.path_params["name"], read(Why, dict(await form_of(request)))
    await desk_of(request).hold(user_of(request), kind, name, act, why.reason)
    return back(request, f"/queues/{name}" if kind == "queue" else "/queues", DONE[act])


async def set_limit(request: Request) -> Response:
    """Change what a gate admits."""
    await desk_of(request).set_gate(user_of(request), read(Change, dict(await form_of(request))))
    return back(request, "/limits", "limit")


async def hold_key(act: str, request: Request) -> Response:
    """Pause one key of a gate, resume it, or drop what was set for it."""
    await desk_of(request).hold_key(user_of(request), act, read(Keyed, dict(await form_of(request))))
    return back(request, "/limits", "limit" if act == "reset" else DONE[act])

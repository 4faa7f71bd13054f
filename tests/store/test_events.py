"""Events on every store: each subscriber one job, in the publish's own commit; debounced, throttled, kept for later."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from tests.store.straight import Straight, fires
from tests.store.world import World
from windlass import App, ConfigError
from windlass.access import Access
from windlass.alert import Alert
from windlass.errors import Conflict
from windlass.event import Subscription
from windlass.events import Events, SubscriptionOptions
from windlass.gate import Settings
from windlass.model import Doc, Filter, JobRecord, State, Verb
from windlass.schedule import Plan
from windlass.store.contract import PENDING, RETAINED
from windlass.values import plain_value
from windlass.vault import Vault
from windlass.worker.declare import declare
from windlass.worker.duties import Duties

KEY = "A" * 43 + "="
app = App("sqlite:///:memory:")


@app.task(name="book")
def book(event: dict[str, Any]) -> None: ...


@app.task(name="mail", queue="mail")
def mail(event: dict[str, Any], *, copy: bool = False) -> None: ...


@app.task(name="count")
def count() -> None: ...


class Shop:
    """An app on a world: subscribers that a worker has declared, and a publisher that knows none of them."""

    plans: Mapping[str, Plan] = {}
    limits: Mapping[str, Settings] = {}
    alerts: Mapping[str, Alert] = {}

    def __init__(self, world: World, vault: Vault | None = None) -> None:
        self.world, self.vault = world, vault or Vault()
        self._own = self._events()
        self.publisher = self._events()
        self.subscriptions = self._own.subscriptions

    def _events(self) -> Events:
        return Events(cast("Access", Patient(self.world.store)), self.vault, app.jobs, 1_000_000)

    def on(self, topics: str, task: Any, **given: Any) -> Subscription:
        return self._own.subscribe(topics, task, cast("SubscriptionOptions", given))

    async def start(self) -> None:
        crew = await self.world.crew(lease=1e6)
        await declare(self.world.store, self.vault, "shop:app", crew.worker, self)

    async def publish(self, topic: str, payload: Any, **given: Any) -> list[str]:
        return [job.id for job in await self.publisher.apublish(topic, payload, **given)]

    async def jobs(self, **wanted: Any) -> list[JobRecord]:
        return list((await self.world.store.find(Filter(**wanted), 1_000)).jobs)

    async def payloads(self, task: str) -> list[Any]:
        found = [self.vault.reveal(job) for job in await self.jobs(task=task)]
        return sorted((plain_value(job.args).get("event") for job in found), key=str)


class Patient(Straight):
    """The same, which repeats what was changed meanwhile, as the app's own way does."""

    async def ado(self, work: Any, tx: object = None, late: object = None) -> Any:
        for _ in range(50):
            try:
                return await super().ado(work)
            except Conflict:
                await asyncio.sleep(0)
        raise AssertionError("too many conflicts")


async def test_each_subscriber_has_a_job_of_its_own(world: World) -> None:
    shop = Shop(world)
    shop.on("order.*", book)
    shop.on("order.paid", mail.using(priority=7, tags=["eu"]), where={"country": "DE"})
    shop.on("**", count)
    shop.on("invoice.*", book)
    await shop.start()
    ids = await shop.publish("order.paid", {"country": "DE", "n": 1})
    assert len(ids) == len(set(ids)) == len(await shop.jobs()) == 3
    (mailed,) = await shop.jobs(task="mail")
    assert (mailed.queue, mailed.priority, mailed.tags, mailed.state) == ("mail", 7, ("eu",), State.READY)
    assert plain_value(mailed.args) == {"event": {"country": "DE", "n": 1}}
    assert plain_value(mailed.options or b"")["meta"]["topic"] == "order.paid"
    assert len(await shop.publish("order.paid", {"country": "FR"})) == 2
    assert len(await shop.publish("order", {})) == 1
    assert [plain_value(job.args) for job in await shop.jobs(task="count")] == [{}] * 3


async def test_an_event_that_is_published_again_under_its_id_makes_nothing_more(world: World) -> None:
    shop = Shop(world)
    shop.on("order.*", book)
    await shop.start()
    first = await shop.publish("order.paid", 1, id="paid-42")
    assert await world.store.act(first, Verb.DELETE) == first
    assert await shop.publish("order.paid", 1, id="paid-42") == first
    assert await shop.jobs() == []


async def test_what_code_does_not_want_any_more_gets_nothing(world: World) -> None:
    shop = Shop(world)
    shop.on("order.*", book)
    await shop.start()
    await world.advance(1)
    later = Shop(world)
    later.on("invoice.*", book)
    await later.start()
    assert await shop.publish("order.paid", 1) == []
    assert len(await shop.publish("invoice.sent", 1)) == 1
    await world.advance(1)
    await Shop(world).start()
    assert await shop.publish("invoice.sent", 1) == []


async def test_throttle_lets_one_through_per_key_and_time(world: World) -> None:
    shop = Shop(world)
    shop.on("doc.edited", book, throttle=60, key="doc")
    await shop.start()
    for doc in ("a", "b", "a", "a", "b"):
        await shop.publish("doc.edited", {"doc": doc})
    assert await shop.payloads("book") == [{"doc": "a"}, {"doc": "b"}]
    await world.advance(61)
    await shop.publish("doc.edited", {"doc": "a"})
    assert len(await shop.payloads("book")) == 3


async def test_debounce_takes_the_last_when_it_is_calm(world: World) -> None:
    shop = Shop(world)
    shop.on("doc.edited", book, debounce=10, key="doc")
    await shop.start()
    for n in range(5):
        assert await shop.publish("doc.edited", {"doc": "a", "n": n}) == []
        await shop.publish("doc.edited", {"doc": "b", "n": n}) if n < 2 else None
        await world.advance(6)
        await fires(world).fire_due()
    assert await shop.payloads("book") == [{"doc": "b", "n": 1}]
    await world.advance(5)
    await asyncio.gather(*(fires(world).fire_due() for _ in range(3)))
    assert await shop.payloads("book") == [{"doc": "a", "n": 4}, {"doc": "b", "n": 1}]
    assert (await world.store.load(PENDING)).docs == ()


async def test_debounce_waits_for_so_long_at_most(world: World) -> None:
    shop = Shop(world)
    shop.on("doc.edited", book, debounce=10, max_wait=15)
    await shop.start()
    for n in range(6):
        await shop.publish("doc.edited", n)
        await world.advance(5.5)
        await fires(world).fire_due()
    assert len(await shop.payloads("book")) == 2


async def test_events_of_one_key_at_once_leave_one(shared: World) -> None:
    shop = Shop(shared)
    shop.on("doc.edited", book, debounce=10)
    await shop.start()
    await asyncio.gather(*(shop.publish("doc.edited", n) for n in range(8)))
    await shared.advance(11)
    await fires(shared).fire_due()
    assert len(await shop.payloads("book")) == 1


async def test_retained_events_are_given_to_who_comes_later(world: World) -> None:
    shop = Shop(world)
    shop.on("order.*", book)
    await shop.start()
    for n in range(3):
        await shop.publish("order.paid", {"n": n}, retain=100 if n else None)
    await world.advance(1)
    late = Shop(world)
    late.on("order.*", book)
    late.on("order.**", mail, name="late", where={"n": 2})
    await late.start()
    assert await late.publisher.areplay("late") == 1
    assert await late.publisher.areplay("late") == 0
    had = [job.id for job in await late.jobs(task="book")]
    assert await world.store.act(had, Verb.DELETE) == had
    assert await late.publisher.areplay("book:order.*") == 0, "it had them, were their jobs long gone"
    assert await late.payloads("mail") == [{"n": 2}]
    with pytest.raises(ConfigError, match="name of a subscription"):
        await late.publisher.areplay("never")
    await world.advance(100)
    await Duties(world.store, {}).forget()
    assert (await world.store.load(RETAINED)).docs == ()


async def test_payloads_are_sealed_wherever_they_are_kept(world: World) -> None:
    shop = Shop(world, Vault([f"k:{KEY}", f"unique:{KEY}"]))
    keyed = App("sqlite:///:memory:", keys=[f"k:{KEY}", f"unique:{KEY}"])
    shop.on("a", keyed.task(name="book")(book.fn))
    shop.on("a", keyed.task(name="mail")(mail.fn), debounce=5)
    await shop.start()
    await shop.publish("a", "canary-7", retain=100)
    docs = [*(await world.store.load(PENDING)).docs, *(await world.store.load(RETAINED)).docs]
    assert len(docs) == 2
    assert b"canary-7" not in b"".join([*(doc.body for doc in docs), *(job.args for job in await shop.jobs())])
    await world.advance(6)
    await fires(world, shop.vault).fire_due()
    assert await shop.payloads("book") == await shop.payloads("mail") == ["canary-7"]


@pytest.mark.parametrize("keys", [[], [f"k:{KEY}", f"unique:{KEY}"]])
async def test_a_publisher_with_subscribers_of_its_own_needs_no_worker_first(world: World, keys: list[str]) -> None:
    shop = Shop(world, Vault(keys))
    shop.on("order.*", App("sqlite:///:memory:", keys=keys).task(name="book")(book.fn))
    assert len(await shop._own.apublish("order.paid", 1)) == 1
    assert await shop.publish("order.paid", 1) == []


async def test_an_event_that_nobody_can_read_stops_no_other(world: World) -> None:
    shop = Shop(world)
    shop.on("a", book, debounce=5)
    await shop.start()
    await world.store.save([Doc(kind=PENDING, name="0-broken", version=0, body=b"{", due=1.0)])
    await shop.publish("a", 1)
    await world.advance(6)
    await fires(world).fire_due()
    assert await shop.payloads("book") == [1]
    (broken,) = (await world.store.load(PENDING)).docs
    assert (broken.name, broken.due) == ("0-broken", None)

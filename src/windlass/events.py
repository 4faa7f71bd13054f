"""Events as users publish them and subscribe to them: `app.publish` and `@app.on`."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, TypedDict

import msgspec
from msgspec import Raw, Struct
from uuid_utils import uuid7

from windlass import event, options, values
from windlass.access import Access
from windlass.blocking import twin
from windlass.call import Call, call_of, job_of, open_call, seal_call
from windlass.clock import made_at
from windlass.errors import ConfigError, DecodeError, EnqueueUnknown
from windlass.event import Event, Subscription
from windlass.jobs import Job, Jobs
from windlass.model import REMEMBERED, Doc, Mark, NewJob
from windlass.options import Seconds
from windlass.store.contract import PENDING, RETAINED, SUBSCRIPTIONS, Store
from windlass.store.documents import Load, Put, Work, all_docs
from windlass.task import Task, Tx, parameter_of
from windlass.vault import Vault

logger = logging.getLogger("windlass.event")

Published = list[Job[Any]]
Subscriptions = list[Subscription]
Docs = list[Doc]

DEBOUNCE = "windlass.debounce"
"""The task of jobs that debounce what was published within a transaction."""


class SubscriptionOptions(TypedDict, total=False):
    """What a subscriber wants of the events of its topics.

    `where` is a filter on the payload: paths, each with a value, a list of values, or operators
    (`{"total": {">=": 100}}`). `key` is a path into the payload; per value of it, `throttle` lets one event through and
    then none for so many seconds, and `debounce` waits until none came for so many seconds, at most `max_wait` since
    the first, and takes the last. `name` is what the subscription is known by, else the task's name and the topics.
    """

    where: Mapping[str, Any]
    key: str
    debounce: Seconds
    max_wait: Seconds
    throttle: Seconds
    name: str


class Events:
    """The events of an app: what it subscribes to, and the way to publish."""

    def __init__(self, access: Access, vault: Vault, jobs: Jobs, max_payload: int) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self._access = access
        self._vault = vault
        self._jobs = jobs
        self._limit = max_payload

    # Subscribing

    def subscribe(self, topics: str, task: Task[..., Any], given: SubscriptionOptions) -> Subscription:
        """Have a task get the events of these topics. Raises `ConfigError`."""
        if unknown := given.keys() - SubscriptionOptions.__annotations__.keys():
            known = ", ".join(SubscriptionOptions.__annotations__)
            raise ConfigError(f"expected options of {known} for a subscription; {', '.join(unknown)} came")
        if "debounce" in given and "throttle" in given:
            raise ConfigError("expected debounce= or throttle= for a subscription; both came")
        if "key" in given and not given.keys() & {"debounce", "throttle"}:
            raise ConfigError("expected debounce= or throttle= beside key=: it says for which events they count")
        if any(gate.asks for gate in task.gates):
            raise ConfigError(
                f"{task} has a gate with a key or a weight of its arguments, which nobody who publishes knows: "
                "subscribe a task that enqueues it"
            )
        times = {
            name: options.seconds(name, given[name], above_zero=True)
            for name in ("debounce", "max_wait", "throttle")
            if name in given
        }
        made = Subscription(
            name=given.get("name") or f"{task.name}:{topics}",
            topic=event.pattern(topics),
            call=call_of(task.new(b"{}"), self._vault, "debounce= and throttle= say which events count"),
            parameter=parameter_of(task, "an event"),
            where=event.checked(given.get("where", {})),
            key=given.get("key", ""),
            debounce=times.get("debounce"),
            most=times.get("max_wait"),
            throttle=times.get("throttle"),
        )
        if made.name in self.subscriptions:
            raise ConfigError(f"two subscriptions are called {made.name}: give one another name=")
        self.subscriptions[made.name] = made
        return made

    # Publishing

    def publish(
        self, topic: str, payload: Any, *, id: str | None = None, retain: Seconds | None = None, tx: Tx = None
    ) -> Published:
        """See `App.publish`."""
        keep = None if retain is None else options.seconds("retain", retain, above_zero=True)
        happened = self._event(topic, payload, id, keep)
        work = partial(self._publish, happened, keep, tx is not None)
        return self._access.do(work, tx, late=unknown(happened))

    async def apublish(
        self, topic: str, payload: Any, *, id: str | None = None, retain: Seconds | None = None, tx: Tx = None
    ) -> Published:
        """See `App.apublish`."""
        keep = None if retain is None else options.seconds("retain", retain, above_zero=True)
        happened = self._event(topic, payload, id, keep)
        work = partial(self._publish, happened, keep, tx is not None)
        return await self._access.ado(work, tx, late=unknown(happened))

    def _event(self, topic: str, payload: Any, id: str | None, keep: float | None) -> Event:
        again = id is not None or keep is not None
        return Event(
            id=str(uuid7()) if id is None else options.name("an event's id", id),
            topic=event.topic(topic),
            payload=values.encode(payload, "payload", self._limit),
            known=id is not None,
            remember=max(REMEMBERED, keep or 0.0) if again else 0.0,
        )

    def _publish(self, happened: Event, keep: float | None, in_tx: bool) -> Work[Published]:
        shelf = yield Load(SUBSCRIPTIONS)
        payload = values.plain_value(happened.payload)
        made = Made([], [], [])
        waiting: Subscriptions = []
        for one in event.matching(self.known(shelf.docs), happened, payload):
            if one.debounce is None:
                self._make(made, one, happened, payload)
            elif in_tx:
                made.jobs.append(self._later(one, happened))
            else:
                waiting.append(one)
        if waiting:
            made.docs.extend((yield from self._put_off(waiting, happened, payload)))
        if keep is not None:
            made.docs.append(self._retained(happened, shelf.now + keep))
        return (yield from self._put(made))

    def _put(self, made: "Made") -> Work[Published]:
        """Store what an event makes, in an order that is the same for all who publish."""
        if not (made.jobs or made.docs):
            return []
        with self._jobs.sending(sorted(made.jobs, key=lambda job: job.id)) as jobs:
            placed = yield Put(jobs, sorted(made.marks, key=lambda mark: mark.key), made.docs)
            return list(map(self._jobs.placed, placed, jobs))

    def _make(self, made: "Made", one: Subscription, happened: Event, payload: object) -> None:
        """The job of one subscription, and its marks."""
        id = event.job_id(happened.id, one.name)
        call = event.call_with(one, happened, self._vault)
        made.jobs.append(job_of(call, id, self._vault, fresh=not happened.known))
        made.marks.extend(event.marks_of(one, happened, payload, id))

    def _put_off(self, wanted: Sequence[Subscription], happened: Event, payload: object) -> Work[Docs]:
        """The documents of debounced events: what waits so far is replaced."""
        names = {event.key_id(one, payload): one for one in wanted}
        shelf = yield Load(PENDING, list(names))
        there = {doc.name: doc for doc in shelf.docs}
        docs = []
        for name, one in names.items():
            call = seal_call(name, event.call_with(one, happened, self._vault), self._vault)
            old = there.get(name)
            body, due = event.put_off(one, call, old.body if old else None, shelf.now)
            docs.append(Doc(kind=PENDING, name=name, version=old.version if old else 0, body=body, due=due))
        return docs

    def _later(self, one: Subscription, happened: Event) -> NewJob:
        """A job that debounces after the commit: a document that others write too would hold them up until then."""
        given = {"name": one.name, "topic": happened.topic, "payload": Raw(happened.payload), "id": happened.id}
        id = event.job_id(happened.id, f"{DEBOUNCE}\n{one.name}")
        asked = self._asked(one)
        call = Call(
            task=DEBOUNCE,
            args=values.plain_bytes(given),
            queue=one.call.queue,
            priority=one.call.priority,
            ahead=one.call.ahead,
            options=None if asked is None else values.to_bytes(options.Options(priority=asked)),
        )
        return job_of(call, id, self._vault, fresh=not happened.known)

    def _asked(self, one: Subscription) -> int | None:
        """The priority that was asked for, where jobs of a subscription age; None too where it cannot be read."""
        try:
            return options.read_options(open_call(one.name, one.call, self._vault).options).priority
        except DecodeError:
            return None

    async def debounce(self, name: str, topic: str, payload: Any, id: str) -> None:
        """What such a job does."""
        happened = Event(id=id, topic=topic, payload=values.plain_bytes(payload))

        def work() -> Work[None]:
            shelf = yield Load(SUBSCRIPTIONS)
            wanted = [one for one in self.known(shelf.docs) if one.name == name and one.debounce is not None]
            if wanted:
                docs = yield from self._put_off(wanted, happened, payload)
                yield Put((), docs=docs)

        await self._access.ado(work)

    # Kept for later

    def _retained(self, happened: Event, until: float) -> Doc:
        payload = self._vault.seal(happened.payload, f"event:{happened.id}", happened.topic, "payload")
        body = values.plain_bytes({"topic": happened.topic, "payload": payload, "id": happened.id})
        return Doc(kind=RETAINED, name=f"{happened.topic}:{happened.id}", version=0, body=body, due=until)

    async def areplay(self, subscription: str, *, since: datetime | None = None) -> int:
        """Give a subscription the retained events that it has not had, oldest first by topic; how many jobs are new.

        `since` leaves out those that were published before, as far as their ids (UUIDv7) tell. Raises `ConfigError` for
        a subscription that no worker has declared.
        """
        store = await self._access.connect()
        shelf = await store.load(SUBSCRIPTIONS)
        wanted = [one for one in self.known(shelf.docs) if one.name == subscription]
        if not wanted:
            raise ConfigError(f"expected the name of a subscription; {options.short(subscription)} came, which is none")
        return await self.replayed(store, wanted, None if since is None else options.moment("since", since))

    replay = twin(areplay)

    async def replayed(self, store: Store, wanted: Sequence[Subscription], since: float | None = None) -> int:
        """Give subscriptions the retained events that they have not had."""
        new = 0
        async for doc in all_docs(store, RETAINED):
            happened = self._read_retained(doc)
            if happened is None or (since is not None and (made_at(happened.id) or since) < since):
                continue
            payload = values.plain_value(happened.payload)
            made = Made([], [], [])
            for one in event.matching(wanted, happened, payload):
                if one.debounce is None and one.throttle is None:
                    self._make(made, one, happened, payload)
            if made.jobs:
                new += sum(placed.new for placed in await store.put(made.jobs, made.marks))
        return new

    def _read_retained(self, doc: Doc) -> Event | None:
        try:
            found = msgspec.json.decode(doc.body, type=Retained)
            payload = self._vault.open(found.payload, f"event:{found.id}", found.topic, "payload")
            return Event(id=found.id, topic=found.topic, payload=payload, known=True, remember=REMEMBERED)
        except (DecodeError, msgspec.MsgspecError, ValueError) as error:
            logger.warning("the retained event %s cannot be read, and is left out: %s", doc.name, error)
            return None

    # Who

    async def alist(self) -> Subscriptions:
        """The subscriptions in the store."""
        return self.known((await (await self._access.connect()).load(SUBSCRIPTIONS)).docs)

    list = twin(alist)

    def known(self, docs: Sequence[Doc]) -> Subscriptions:
        """What is subscribed in the store; as long as no worker of this app has said so there, what its code says."""
        found: Subscriptions = []
        for doc in docs:
            try:
                found += event.read(doc.body)
            except DecodeError as error:
                logger.error("the subscriptions of %s cannot be read, and get no events: %s", doc.name, error)
        there = {one.name for one in found}
        if not there & self.subscriptions.keys():
            found += [event.sealed(one, self._vault) for one in self.subscriptions.values()]
        return found


class Made(NamedTuple):
    """What one event makes."""

    jobs: list[NewJob]
    marks: list[Mark]
    docs: list[Doc]


class Retained(Struct, frozen=True):
    """An event as it is kept for later."""

    topic: str
    payload: bytes
    id: str


def unknown(happened: Event) -> EnqueueUnknown:
    """The error of a publish that had no answer."""
    return EnqueueUnknown(
        f"the store did not answer in time: event {happened.id} may be published. Repeating with that id= is safe",
        happened.id,
    )

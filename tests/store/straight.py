"""The ways of an app to schedules and events, straight on the store of a world."""

from typing import Any

from tests.store.world import World
from windlass import App
from windlass.store.contract import Store
from windlass.store.documents import Work, on_store
from windlass.vault import Vault
from windlass.worker.fires import Fires

app = App("sqlite:///:memory:")


@app.task(name="sweep")
def sweep(zone: str = "eu") -> str:
    return zone


class Straight:
    """The way from an app to a store, without the app's own rules of waiting."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def connect(self) -> Store:
        return self._store

    async def ado(self, work: Any, tx: object = None) -> Any:
        made: Work[Any] = work()
        return await on_store(self._store, made)


def fires(world: World, vault: Vault | None = None) -> Fires:
    return Fires(world.store, vault or Vault())

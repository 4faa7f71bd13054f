"""`windlass top` on a terminal of 80 by 24, with real keys, on a store with a job in each state."""

import asyncio
from collections.abc import Callable
from typing import Any

import click
import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from tests.cli.conftest import Shell, job_id, trail
from windlass import App, usage
from windlass.cli import cli
from windlass.cli.screen import Ask, Page, Top
from windlass.cli.tabs import TABS
from windlass.model import Doc, State
from windlass.store.contract import REPORT
from windlass.values import visible


async def until(pilot: "Pilot[None]", fits: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not fits():
            await pilot.pause(0.02)


async def go(pilot: "Pilot[None]", top: Top, tab: str) -> None:
    at = [one.name for one in TABS].index(tab)
    await pilot.press(str(at + 1))
    await until(pilot, lambda: top.at == at and len(top.table.rows) == len(top.rows) and top.rows)


async def narrow(pilot: "Pilot[None]", top: Top, text: str) -> None:
    await pilot.press("slash")
    top.query_one(Input).value = text
    await pilot.press("enter")


async def state_of(top: Top, name: str) -> str:
    return (await top.core.jobs.aget(job_id(name))).state


def cells(top: Top) -> list[str]:
    """What the table shows, row by row."""
    return [" ".join(map(str, top.table.get_row_at(at))) for at in range(top.table.row_count)]


def test_every_tab_and_every_act(filled: Shell) -> None:
    async def main() -> None:
        top = Top(App(filled.url))
        async with top.run_test(size=(80, 24)) as pilot:
            await go(pilot, top, "overview")
            assert any("old.gone" in line and "no running worker knows this task" in line for line in cells(top))
            for tab in TABS[1:5]:
                await go(pilot, top, tab.name)
                assert all(visible(line) == line for line in cells(top))
            await go(pilot, top, "failed")
            assert "shop.Refused: card\\x1b[31m refused" in cells(top)[0]
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(top.screen, Page))
            await pilot.press("escape", "r")
            await until(pilot, lambda: not top.table.row_count)
            assert await state_of(top, "failed") == "ready"

            await go(pilot, top, "jobs")
            await narrow(pilot, top, "state=scheduled")
            await until(pilot, lambda: top.table.row_count == 1)
            await pilot.press("C")
            await until(pilot, lambda: isinstance(top.screen, Ask))
            await pilot.press("n")
            await until(pilot, lambda: not isinstance(top.screen, Ask))
            assert await state_of(top, "later") == "scheduled"
            await pilot.press("x", "C")
            await until(pilot, lambda: isinstance(top.screen, Ask))
            await pilot.press("y")
            await until(pilot, lambda: not top.table.row_count)
            await narrow(pilot, top, "SHOP.mail")
            await until(pilot, lambda: top.table.row_count == 1)
            assert not top.query_one(Input).display
            await pilot.press("escape")
            await until(pilot, lambda: top.table.row_count == 7)

            await go(pilot, top, "queues")
            await pilot.press("P")
            await until(pilot, lambda: isinstance(top.screen, Ask))
            await pilot.press("y")
            await until(pilot, lambda: any("paused" in line for line in cells(top)))
            await top.core.queues.adrain("mail")
            await until(pilot, lambda: any("mail" in line and "draining" in line for line in cells(top)))
            await go(pilot, top, "overview")
            assert any("queue mail is draining" in line for line in cells(top))
            await go(pilot, top, "workers")
            report = Doc(kind=REPORT, name="worker-1", version=0, body=usage.write(usage.Report()))
            await (await top.core.connect()).save([report])
            await pilot.press("D")
            await until(pilot, lambda: isinstance(top.screen, Ask))
            await pilot.press("y")
            await until(pilot, lambda: any("draining" in line for line in cells(top)))
            await pilot.press("q")

    with click.Context(cli):
        asyncio.run(main())
    assert filled.json("queues")["paused"]
    assert len(filled.jobs()) == 7
    assert {job.id for job in filled.jobs(state=State.CANCELLED)} == {job_id("cancelled"), job_id("later")}
    assert [(one.act, one.target, one.done) for one in filled.store(trail)] == [
        ("retry", f"jobs {job_id('failed')}", 1),
        ("cancel", f"jobs {job_id('later')}", 1),
        ("pause", "queue default: by windlass top", 1),
        ("drain", "worker worker-1", 1),
    ]


def test_a_store_that_goes_away_is_said(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        core = App(shell.url)
        top = Top(core)
        async with top.run_test(size=(80, 24)) as pilot:
            await go(pilot, top, "overview")
            store = await core.connect()

            async def stats() -> None:
                from windlass import StoreUnavailable

                raise StoreUnavailable("nobody\x1b[31m is there")

            monkeypatch.setattr(store, "stats", stats)
            await until(pilot, lambda: "nobody\\x1b[31m is there" in str(top.query_one("#said").render()))

    with click.Context(cli):
        asyncio.run(main())


def test_without_a_terminal_it_says_what_to_do(shell: Shell) -> None:
    assert "needs a terminal" in shell("top", code=2).stderr

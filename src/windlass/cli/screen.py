"""The screen of `windlass top`, in Textual: one table, looked at anew every two seconds, and keys that act on its rows.

Textual restores the terminal, however it ends. All texts come as `windlass.cli.tabs` cleaned them; nothing is markup.
"""

import asyncio
import contextlib
import io
import time
from collections.abc import Sequence
from typing import ClassVar

import click
from rich.text import Text
from textual.app import App as Screenful
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Input, Static

from windlass.app import App
from windlass.cli.output import clean, counted
from windlass.cli.reach import shown
from windlass.cli.show import print_job
from windlass.cli.tabs import TABS, Act, Row, Sight, Tab, done_or_why, look, split_filter
from windlass.errors import StoreError, WindlassError

EVERY = 2.0
"""Seconds between two looks at the store."""

REST, MOST = 10, 30.0
"""A look that takes long is not repeated before so many times as long, at most MOST seconds."""

WITHIN = 10.0
"""Seconds after which a store that does not answer is said not to."""

GENERAL = "1-6 tab  jk move  x select  / filter  enter show  q quit"


class Ask(ModalScreen[bool]):
    """A question, answered by y or n."""

    CSS = "Ask { align: center middle; } Ask Static { width: auto; max-width: 76; padding: 1 2; border: heavy $error; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)"),
        Binding("n,escape,q", "answer(False)"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question."""
        yield Static(Text(f"{self._question}\n\ny: yes   n: no"))

    def action_answer(self, yes: bool) -> None:
        """Close with the answer."""
        self.dismiss(yes)


class Page(ModalScreen[None]):
    """A text, until a key closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "close"),
        Binding("j", "scroll(1)"),
        Binding("k", "scroll(-1)"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The text, which scrolls."""
        with VerticalScroll():
            yield Static(Text(self._text))

    def action_scroll(self, lines: int) -> None:
        """Down, or up."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_close(self) -> None:
        """Back to the table."""
        self.dismiss(None)


class Top(Screenful[None]):
    """The live picture of a store."""

    CSS = """
    Static { height: 1; }
    #tabs { background: $panel; }
    #said { color: $text-warning; }
    DataTable { height: 1fr; }
    Input { display: none; height: 1; border: none; padding: 0; }
    Ask Static, Page Static { height: auto; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "move(1)"),
        Binding("k", "move(-1)"),
        Binding("l,right,tab", "turn(1)", priority=False),
        Binding("h,left,shift+tab", "turn(-1)"),
        Binding("x,space", "select"),
        Binding("slash", "filter"),
        Binding("escape", "clear"),
        Binding("q", "quit"),
        Binding("ctrl+c", "quit", priority=True),
        *[Binding(str(at + 1), f"go({at})") for at in range(len(TABS))],
        *[Binding(key, f"act('{key}')") for key in sorted({act.key for tab in TABS for act in tab.acts})],
    ]

    def __init__(self, core: App) -> None:
        super().__init__()
        self.core = core
        self.at = 0
        self.rows: list[Row] = []
        self.chosen: set[str] = set()
        self.narrow = ""
        self._sight = Sight([], [])
        self._looking = asyncio.Lock()
        self._next = 0.0

    @property
    def tab(self) -> Tab:
        """The tab that is shown."""
        return TABS[self.at]

    @property
    def table(self) -> "DataTable[Text]":
        """The table."""
        return self.query_one(DataTable)

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield Static(id="tabs")
        yield Static(id="headline")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Input(placeholder="text, or state= task= queue= tag=")
        yield Static(id="said")
        yield Static(id="keys")

    async def on_mount(self) -> None:
        """Begin to look."""
        self.show_frame()
        self.table.focus()
        self.set_interval(EVERY, self.look_again)
        self.run_worker(self.look_now())

    async def on_unmount(self) -> None:
        """Let go of the store."""
        with contextlib.suppress(StoreError):
            await self.core.aclose()

    # Looking

    async def look_again(self) -> None:
        """Look, unless a look is under way or the last one took long."""
        if not self._looking.locked() and time.monotonic() >= self._next:
            await self.look_now()

    async def look_now(self) -> None:
        """Read what this tab shows, and show it. What cannot be read is said, and tried again."""
        async with self._looking:
            began, tab = time.monotonic(), self.tab
            words, rest = split_filter(self.narrow, tab.narrows)
            try:
                async with asyncio.timeout(WITHIN):
                    self._sight = await look(self.core)
                    rows = await tab.read(self.core, self._sight, words)
            except (WindlassError, TimeoutError) as error:
                self.say(f"{error or 'the store does not answer'}")
                return
            finally:
                took = time.monotonic() - began
                self._next = began + took + min(MOST, REST * took) - EVERY
            if tab is self.tab:
                self.rows = [row for row in rows if not rest or rest in " ".join(row.cells).lower()]
                self.show_rows()

    # Showing

    def show_frame(self) -> None:
        """The lines around the table."""
        bar = Text()
        for at, tab in enumerate(TABS):
            bar.append(f" {at + 1} {tab.name} ", style="reverse" if at == self.at else "")
        self.query_one("#tabs", Static).update(bar)
        acts = "  ".join(f"{act.key} {act.word}" for act in self.tab.acts)
        self.query_one("#keys", Static).update(Text(f"{acts}  {GENERAL}".strip(), no_wrap=True, overflow="ellipsis"))

    def show_rows(self) -> None:
        """What was read; the cursor stays at its row."""
        table, here = self.table, self.under_cursor
        head = (" ", *self.tab.head)
        with self.batch_update():
            table.clear(columns=[str(one.label) for one in table.ordered_columns] != list(head))
            if not table.columns:
                table.add_columns(*head)
            for row in self.rows:
                mark = Text("●" if row.key in self.chosen else " ")
                table.add_row(mark, *map(Text.from_ansi, row.cells), key=row.key)
            self.move_to(here)
        self.chosen &= {row.key for row in self.rows}
        more = f"   filter: {clean(self.narrow)}" if self.narrow else ""
        chosen = f"   {len(self.chosen)} selected" if self.chosen else ""
        line = f"{self._sight.headline}{chosen}{more}"
        self.query_one("#headline", Static).update(Text(line, no_wrap=True, overflow="ellipsis"))

    def move_to(self, key: str | None) -> None:
        """Put the cursor on a row, if it is still there."""
        keys = [row.key for row in self.rows]
        if key in keys:
            self.table.move_cursor(row=keys.index(key))

    @property
    def under_cursor(self) -> str | None:
        """What the cursor is at."""
        table = self.table
        if not table.is_valid_row_index(table.cursor_row):
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    def say(self, text: str) -> None:
        """Tell the person something, in the line for that."""
        self.query_one("#said", Static).update(Text(clean(text).replace("\n", " "), no_wrap=True, overflow="ellipsis"))

    # Keys

    def action_move(self, by: int) -> None:
        """The cursor, down or up."""
        self.table.move_cursor(row=self.table.cursor_row + by)

    async def action_go(self, at: int) -> None:
        """To a tab."""
        self.at, self.rows = at % len(TABS), []
        self.chosen.clear()
        self.say("")
        self.show_frame()
        self.table.clear(columns=True)
        self.run_worker(self.look_now())

    async def action_turn(self, by: int) -> None:
        """To the next tab, or the one before."""
        await self.action_go(self.at + by)

    def action_select(self) -> None:
        """Choose the row, or let it go again."""
        if (key := self.under_cursor) is not None and self.tab.acts:
            self.chosen ^= {key}
            self.show_rows()
            self.action_move(1)

    def action_filter(self) -> None:
        """Ask for a filter."""
        field = self.query_one(Input)
        field.display = True
        field.value = self.narrow
        field.focus()

    async def on_input_submitted(self, done: Input.Submitted) -> None:
        """Take the filter."""
        self.narrow = done.value.strip()
        await self.action_clear()

    async def action_clear(self) -> None:
        """Close the filter, or else drop it and what was chosen."""
        field = self.query_one(Input)
        if not field.display:
            self.narrow = ""
            self.chosen.clear()
        field.display = False
        self.table.focus()
        await self.look_now()

    async def on_data_table_row_selected(self, _: DataTable.RowSelected) -> None:
        """Show the job under the cursor."""
        key = self.under_cursor
        if key is None or self.tab.things != "job":
            return
        try:
            record = await self.core.jobs.record(key)
        except WindlassError as error:
            self.say(str(error))
            return
        with contextlib.redirect_stdout(io.StringIO()) as text:
            print_job(record)
        self.push_screen(Page(click.unstyle(text.getvalue())))

    def action_act(self, key: str) -> None:
        """Do what a key says to the rows that are chosen, or to the one under the cursor."""
        act = next((one for one in self.tab.acts if one.key == key), None)
        here = self.under_cursor
        keys = [row.key for row in self.rows if row.key in self.chosen] or ([] if here is None else [here])
        if act is not None and keys:
            self.run_worker(self.do(act, keys), exclusive=False)

    async def do(self, act: Act, keys: Sequence[str]) -> None:
        """Ask where that is due, do it, and say what came of it."""
        if act.sure:
            what = counted(len(keys), self.tab.things) if len(keys) > 1 else f"{self.tab.things} {clean(keys[0])}"
            if not await self.push_screen_wait(Ask(f"{act.word.capitalize()} {what}?")):
                return
        said = await done_or_why(act, self.core, keys)
        self.chosen.clear()
        await self.look_now()
        self.say(said)


def run(core: App) -> None:
    """Show it until it is left. Raises `StoreError` when the store cannot be opened."""
    top = Top(core)
    top.title = shown(core.config.url)
    top.run()

"""The dashboard in a real browser: each screen and action, live, in both themes, wide and narrow, and hostile text."""

import asyncio
import contextlib
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from msgspec.structs import replace
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, expect

from tests.web.conftest import apart, served
from tests.web.hostile import HOSTILE
from tests.web.stage import make_app, new
from windlass import App
from windlass.audit import Who, audited
from windlass.model import (
    Demand,
    Doc,
    Ending,
    Failure,
    Lane,
    Need,
    Outcome,
    Patch,
    Progress,
    RunnerInfo,
    Verb,
    WorkerInfo,
)
from windlass.pause import Pause, write
from windlass.store.contract import GATE, PAUSE, SCHEDULE
from windlass.values import plain_bytes, visible
from windlass.web.look import LINE

pytestmark = pytest.mark.xdist_group("browser")

Stage = tuple[str, App]

SCREENS = {
    "/": "Overview",
    "/?range=1min": "Overview",
    "/failures": "Failures",
    "/queues": "Queues",
    "/queues/reports": "reports",
    "/limits": "Limits",
    "/jobs?error=TimeoutError": "Jobs",
    "/jobs/fail-01": "shop.pay.charge",
    "/jobs/run-1": "shop.pictures.resize",
    "/jobs/sent-01": "shop.mail.receipt",
    "/jobs/sent-01/edit": "Run shop.mail.receipt with other arguments",
    "/bulk/delete?state=failed": "Delete",
    "/schedules": "Schedules",
    "/schedules/nightly-report": "nightly-report",
    "/workers": "Workers",
    "/audit": "Audit log",
}

EVERY = "WINDLASS_AXE" in os.environ
"""Whether axe looks at each screen in both themes, which takes a while; else at each in one of them."""


class Watched:
    """A page, with what it complained about and asked others for."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.wrong: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", self._dialog)
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def _dialog(self, dialog: Dialog) -> None:
        self.wrong.append(dialog.message)
        dialog.dismiss()

    def _request(self, request: Request) -> None:
        if not request.url.startswith(self.address):
            self.wrong.append(request.url)

    def go(self, path: str) -> Page:
        """Open a page."""
        self.page.goto(self.address + path, wait_until="domcontentloaded")
        return self.page


@pytest.fixture(params=[("light", 1280), ("dark", 390)], ids=["light-wide", "dark-narrow"])
def shown(request: pytest.FixtureRequest, browser: Browser, stage: Stage) -> Iterator[Watched]:
    theme, width = request.param
    context = browser.new_context(
        color_scheme=theme, viewport={"width": width, "height": 800}, timezone_id="Asia/Tokyo"
    )
    watched = Watched(context.new_page(), stage[0])
    yield watched
    context.close()
    assert watched.wrong == []


@pytest.fixture
def desk(browser: Browser, stage: Stage) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    watched = Watched(context.new_page(), stage[0])
    yield watched
    context.close()
    assert watched.wrong == []


def test_each_screen(shown: Watched) -> None:
    dark = shown.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    for n, (path, title) in enumerate(SCREENS.items()):
        page = shown.go(path)
        expect(page.get_by_role("heading", level=1)).to_contain_text(title)
        if page.locator("[data-live]").count():
            expect(page.locator("#status")).to_have_text("live")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"
        unnamed = page.locator("input:not([type=hidden]):not([aria-label])").evaluate_all(
            "found => found.filter(one => !one.labels.length).length"
        )
        assert unnamed == 0, path
        if EVERY or n % 2 == dark:
            assert violations(page) == [], path
    assert dark == (page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(16, 21, 26)")


def violations(page: Page) -> list[str]:
    """What axe has to say against a page."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html']}: {node['failureSummary']}" for one in found for node in one["nodes"]]


def test_times_are_the_readers(shown: Watched) -> None:
    page = shown.go("/schedules/nightly-report")
    first = page.locator(".times tbody tr").first
    expect(first).to_contain_text("02:30:00 CE")
    expect(first.locator("time").first).to_contain_text(re.compile(r"(?:10|9):30:00"))


def test_acting_on_one_job(desk: Watched) -> None:
    page = desk.go("/jobs/fail-02")
    expect(page.locator("#trace-2").get_by_text("raise Refused(answer.reason)")).to_be_visible()
    page.keyboard.press("r")
    expect(page.locator("body > .done")).to_have_text("1 job ready to run again.")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("h1")).to_contain_text("cancelled")
    page.get_by_role("link", name="Delete…").click()
    page.get_by_role("button", name="Delete 1").click()
    expect(page.locator("body > .done")).to_have_text("1 job deleted.")
    desk.go("/jobs/run-2")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("A cancel was asked for")).to_be_visible()
    desk.go("/jobs/later-03")
    page.get_by_role("button", name="Run now").click()
    expect(page.locator("h1")).to_contain_text("ready")


def test_acting_on_many_jobs(desk: Watched, stage: Stage) -> None:
    apart(lambda: make_many(stage[1]))
    page = desk.go("/jobs?tag=many")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Next").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    for box in page.locator("tbody input").all()[:3]:
        box.check()
    expect(page.locator("[data-chosen]")).to_have_text("3")
    page.get_by_role("button", name="Cancel…").click()
    expect(page.locator("h1")).to_have_text("Cancel 3 jobs?")
    page.get_by_role("button", name="Cancel 3").click()
    expect(page.locator("body > .done")).to_contain_text("3 jobs cancelled")
    desk.go("/jobs?tag=many&state=scheduled")
    page.get_by_role("link", name="Cancel all…").click()
    expect(page.locator("h1")).to_have_text("Cancel 50 jobs?")
    page.get_by_role("button", name="Cancel 50").click()
    expect(page.locator("body > .done")).to_contain_text("50 jobs cancelled")
    desk.go("/jobs?tag=many")
    page.get_by_role("link", name="Delete all…").click()
    page.get_by_role("button", name="Delete 53").click()
    expect(page.get_by_text("No jobs match.")).to_be_visible()
    desk.go("/failures")
    page.get_by_role("row", name="TimeoutError").get_by_role("link", name="Retry…").click()
    expect(page.locator("h1")).to_have_text("Retry 3 jobs?")
    expect(page.locator(".confirm input[name=error]")).to_have_value("TimeoutError")


async def make_many(app: App) -> None:
    store = await app.connect()
    await store.put([new(f"many-{n:02}", "shop.pay.charge", tags=("many",), delay=9_000) for n in range(53)])


def test_acting_on_schedules(desk: Watched) -> None:
    page = desk.go("/schedules")
    row = page.locator("tr", has_text="nightly-report")
    row.get_by_role("button", name="Pause").click()
    expect(page.locator("h1")).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("h1")).not_to_contain_text("paused")
    page.get_by_role("button", name="Run now").click()
    expect(page.locator("table.jobs tbody tr")).to_have_count(1)
    desk.go("/schedules/quarterly")
    page.get_by_text("Delete…").click()
    page.get_by_role("button", name="Delete this schedule").click()
    expect(page.get_by_role("link", name="nightly-report")).to_be_visible()
    expect(page.get_by_role("link", name="quarterly")).to_have_count(0)


def test_pausing_and_limits(desk: Watched) -> None:
    page = desk.go("/queues")
    row = page.locator(".paused tr", has_text="shop.reports.nightly")
    expect(row).to_contain_text("circuit breaker shop.reports.nightly")
    page.get_by_role("link", name="mail", exact=True).click()
    page.get_by_label("Reason").fill("<b>moving</b> house")
    page.get_by_role("button", name="Pause this queue").click()
    expect(page.locator("h1")).to_have_text("mail paused")
    expect(page.get_by_text("<b>moving</b> house")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("h1")).to_have_text("mail")
    desk.go("/limits")
    page.get_by_role("row", name="shop.reports.nightly").get_by_role("button", name="Close").click()
    expect(page.locator("body > .done")).to_have_text("It goes on.")
    desk.go("/limits")
    row = page.get_by_role("row", name="gateway/eu")
    row.get_by_role("button", name="Pause").click()
    expect(row).to_contain_text("paused")
    row.get_by_role("button", name="Resume").click()
    expect(row).to_contain_text("3 at once")
    row.get_by_role("link", name="Change…").click()
    expect(page.locator("#change select")).to_have_value("gateway/eu")
    page.get_by_label("Admits").fill("5/10s")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.get_by_role("row", name="gateway/eu")).to_contain_text("one every 2")


def test_draining_a_worker(desk: Watched) -> None:
    page = desk.go("/workers")
    one = page.locator("section", has_text="web-2.example:991")
    expect(one.locator("dl")).to_contain_text("161 MB")
    expect(one.locator("tbody tr")).to_contain_text("35%")
    one.get_by_text("Drain…").click()
    one.get_by_role("button", name="Drain this worker").click()
    expect(page.locator("body > .done")).to_contain_text("takes no more jobs")
    expect(one.locator("h2")).to_contain_text("draining")
    expect(one.get_by_text("Drain…")).to_have_count(0)


def test_pages_follow_what_happens(desk: Watched, stage: Stage) -> None:
    page = desk.go("/jobs?tag=news")
    expect(page.get_by_text("No jobs match.")).to_be_visible()
    expect(page.locator("#status")).to_have_text("live")
    page.locator("input[name=task]").fill("typing")

    async def put() -> None:
        await (await stage[1].connect()).put([new("news-01", "shop.pay.charge", tags=("news",), delay=9_000)])

    apart(put)
    page.locator("#box-news-01").check()

    async def end() -> None:
        await (await stage[1].connect()).act(["news-01"], Verb.CANCEL)

    apart(end)
    expect(page.locator("#row-news-01")).to_contain_text("cancelled")
    expect(page.locator("#box-news-01")).to_be_checked()
    expect(page.locator("input[name=task]")).to_have_value("typing")


def test_by_keyboard_alone(desk: Watched) -> None:
    page = desk.go("/")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("j")
    expect(page).to_have_url(f"{desk.address}/jobs")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("[data-chosen]")).to_have_text("1")
    page.keyboard.press("/")
    page.keyboard.type("run-1")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{desk.address}/jobs/run-1")


def test_many_jobs_by_keyboard_alone(desk: Watched, stage: Stage) -> None:
    async def put() -> None:
        jobs = [new(f"keys-{n}", "shop.pay.charge", tags=("keys",), delay=9_000) for n in range(3)]
        await (await stage[1].connect()).put(jobs)

    apart(put)
    page = desk.go("/jobs?tag=keys")
    for key in ("j", "x", "j", "x"):
        page.keyboard.press(key)
    expect(page.locator("[data-chosen]")).to_have_text("2")
    press_until(page, "Shift+Tab", "Cancel…")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Cancel 2 jobs?")
    press_until(page, "Tab", "Cancel 2")
    page.keyboard.press("Enter")
    expect(page.locator("body > .done")).to_contain_text("2 jobs cancelled")


def press_until(page: Page, key: str, text: str) -> None:
    """Move the focus to what has that text."""
    for _ in range(60):
        page.keyboard.press(key)
        if page.evaluate("document.activeElement.textContent") == text:
            return
    raise AssertionError(f"{key} does not lead to {text}")


def test_without_scripts(browser: Browser, stage: Stage) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{stage[0]}/jobs/fail-04")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("h1")).to_contain_text("ready")
    expect(page.locator("time").first).to_contain_text("UTC")
    context.close()


ALL_SHOWN = (
    "/jobs?queue=payments&state=failed&limit=200",
    "/jobs?queue=payments&state=running&limit=200",
    "/jobs?state=waiting&limit=200",
    "/queues",
    "/workers",
    "/schedules",
    "/audit?limit=200",
    "/jobs/all-0",
    "/jobs/all-1",
)
"""Where every hostile text stands."""

SOME_SHOWN = ("/", "/jobs?limit=200", "/failures", "/limits", "/jobs/h-1", "/jobs/h-1/edit", "/bulk/delete?tag=a")


def test_hostile_text_does_nothing(browser: Browser, tmp_path: Path) -> None:
    app = make_app(f"sqlite:///{tmp_path}/hostile.db")
    apart(lambda: hostile(app))
    with served(app) as address:
        context = browser.new_context()
        watched = Watched(context.new_page(), address)
        for path in (*ALL_SHOWN, *SOME_SHOWN, *map("/jobs?{}".format, asked_for())):
            page = watched.go(path)
            assert page.evaluate("window.hit") is None, path
            assert page.locator("main :is(script, iframe, style, link, base, meta, math, video)").count() == 0, path
            assert page.locator("main :is(a[href^=javascript], [action^='//'])").count() == 0, path
            assert page.locator("main form[action]:not([action^='/'])").count() == 0, path
            if path in ALL_SHOWN:
                shown = squeezed(page.locator("main").text_content() or "")
                assert [text for text in HOSTILE if squeezed(visible(text))[:60] not in shown] == [], path
        context.close()
    assert watched.wrong == []


def squeezed(text: str) -> str:
    """A text without its white space, and without the end of a line that was written out."""
    return "".join(text.replace("\\r", "").split())


def asked_for() -> Iterator[str]:
    """All hostile texts as what somebody searches for, some at a time."""
    fields: list[str] = [""]
    for text in HOSTILE:
        if len(text) > LINE:
            continue
        if len(fields[-1]) + len(text) > LINE:
            fields.append("")
        fields[-1] += text
    for at in range(0, len(fields), 3):
        yield urlencode(dict(zip(("text", "error", "shape"), fields[at : at + 3], strict=False)))


async def hostile(app: App) -> None:
    """Jobs with hostile text wherever text can stand: failed ones and running ones, one or two of them with all."""
    store = await app.connect()
    info = WorkerInfo(id="", host="", pid=1, version="", lease=600, concurrency=9)
    workers = [replace(info, id=f"w-{n}", host=text, version=text, queues=text) for n, text in enumerate(HOSTILE)]
    await asyncio.gather(*map(store.enlist, workers))
    task = frozenset({"shop.pay.charge"})
    await store.join(RunnerInfo(id="r", worker="w-0", pid=1, tasks=tuple(task)))
    everything = plain_bytes({**{text: text for text in HOSTILE}, "note": HOSTILE})
    args = {"args": everything, "options": plain_bytes({"meta": dict(zip(HOSTILE, HOSTILE, strict=True))})}
    jobs = [new(f"h-{n}", "shop.pay.charge", unique=text, tags=(text,)) for n, text in enumerate(HOSTILE)]
    jobs += [new(f"r-{n}", "shop.pay.charge") for n in range(len(HOSTILE))]
    jobs += [new(f"all-{n}", "shop.pay.charge", queue="mail", tags=HOSTILE, **args) for n in range(2)]
    await store.put(jobs)
    await store.put(
        [new(f"s-{n}", text, queue=text, gates=(Need(f"gateway/{text}"),)) for n, text in enumerate(HOSTILE)]
    )
    docs = [(kind, f"queue:{text}", Pause(since=1.0, reason=text)) for text in HOSTILE for kind in (PAUSE, GATE)]
    docs += [(SCHEDULE, text, Pause(since=1.0, reason=text)) for text in HOSTILE]
    await store.save([Doc(kind=kind, name=name, version=0, body=write(pause)) for kind, name, pause in docs])

    async def entry(text: str) -> None:
        async with audited(store, Who(user=text, role=text, via=text, place=text), text, text):
            pass

    await asyncio.gather(*map(entry, HOSTILE))
    claims = (await store.exchange("r", 1, [], Demand(slots=999, lanes=(Lane(slots=999, tasks=task),)))).claimed
    assert len(claims) == len(jobs)
    patches = list[Patch]()
    outcomes = list[Outcome]()
    for claim in claims:
        kind, _, n = claim.id.partition("-")
        text = "\n".join(HOSTILE) if kind == "all" else HOSTILE[int(n)]
        far: dict[str, Any] = {"id": claim.id, "fence": claim.fence, "seq": claim.seq}
        patches.append(Patch(**far, progress=Progress(done=1, total=3, note=text), lines=text))
        if kind == "h" or claim.id == "all-0":
            failure = Failure(type=text[:100], message=text, traceback=text)
            outcomes.append(Outcome(**far, ending=Ending.FAILED, attempt=1, reason=text, failure=failure, lines=text))
    await store.note("r", patches)
    await asyncio.gather(*[store.settle("r", outcome) for outcome in outcomes])


@contextlib.contextmanager
def at_work(app: App) -> Iterator[None]:
    """A worker of an app, and somebody who enqueues jobs, meanwhile."""
    over = threading.Event()

    async def work() -> None:
        async with app.worker(concurrency=4):
            while not over.is_set():
                await app.tasks["shop.mail.receipt"].aenqueue(1)
                await asyncio.sleep(0.05)
        await app.aclose()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(lambda: asyncio.run(work()))
        try:
            yield
        finally:
            over.set()
            done.result()


def test_the_last_minute_moves(browser: Browser, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/moving.db"
    with served(make_app(url)) as address, at_work(make_app(url)):
        context = browser.new_context()
        watched = Watched(context.new_page(), address)
        page = watched.go("/")
        page.get_by_role("link", name="1 min", exact=True).click()
        expect(page).to_have_url(f"{address}/?range=1min")
        expect(page.get_by_role("link", name="1 min", exact=True)).to_have_attribute("aria-current", "page")
        expect(page.get_by_text("This fills while you look.")).to_be_visible()
        line = page.locator("figure", has_text="Jobs a minute").locator("path.good")
        expect(page.locator("figure .key.good b")).to_have_text(re.compile("[1-9]"))
        for _ in range(3):
            shape = line.get_attribute("d") or ""
            assert "L" in shape
            expect(line).not_to_have_attribute("d", shape)
        page.get_by_text("As a table").click()
        rows = page.locator("#rows tbody tr")
        expect(rows.first.locator("td").first).to_have_text(re.compile(r"^[0-9:]+( [AP]M)?$"))
        newest = rows.first.locator("time").get_attribute("datetime") or ""
        expect(rows.first.locator("time")).not_to_have_attribute("datetime", newest)
        expect(page.locator("#rows")).to_have_attribute("open", "")
        context.close()
    assert watched.wrong == []


def test_the_first_minute(browser: Browser, tmp_path: Path) -> None:
    app = make_app(f"sqlite:///{tmp_path}/empty.db")
    with served(app) as address:
        context = browser.new_context()
        page = Watched(context.new_page(), address).go("/")
        expect(page.get_by_text("windlass enqueue MODULE:APP shop.mail.receipt")).to_be_visible()
        expect(page.locator("#status")).to_have_text("live")
        apart(lambda: app.tasks["shop.pay.charge"].aenqueue(1))
        expect(page.get_by_text("No worker is running", exact=True)).to_be_visible()
        context.close()

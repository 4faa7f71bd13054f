"""Pictures of each screen, with the jobs of the stage: `python -m tests.web.shots docs/images`."""

import contextlib
import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.web.conftest import apart, chromium, served
from tests.web.stage import fill, make_app

SCREENS = {
    "overview": ("/", "light"),
    "queues": ("/queues", "light"),
    "failures": ("/failures", "light"),
    "jobs": ("/jobs", "dark"),
    "job": ("/jobs/fail-01", "light"),
    "bulk": ("/bulk/retry?state=failed", "light"),
    "schedules": ("/schedules", "light"),
    "workers": ("/workers", "dark"),
    "limits": ("/limits", "light"),
    "audit": ("/audit", "light"),
}
"""Where each is, and the theme in which it is shown."""

ACTS = {
    "/api/jobs/fail-03/retry": {},
    "/api/bulk/cancel": {"queue": "mail", "state": "scheduled"},
    "/api/queues/reports/pause": {"reason": "the warehouse is moving"},
    "/api/schedules/charge-due/pause": {},
}
"""What is done first, so that the audit log tells of something."""


def main(folder: Path) -> None:
    """Fill a store, and look at it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        app = make_app("sqlite:///shop.db")
        apart(lambda: fill(app))
        with served(app) as address, sync_playwright() as playwright:
            for path, body in ACTS.items():
                asked = urllib.request.Request(address + path, json.dumps(body).encode(), {"X-Windlass": "1"})
                urllib.request.urlopen(asked).close()
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            for name, (path, theme) in SCREENS.items():
                context = browser.new_context(
                    color_scheme="dark" if theme == "dark" else "light", viewport={"width": 1280, "height": 680}
                )
                page = context.new_page()
                page.goto(address + path, wait_until="load")
                if page.locator("[data-live]").count():
                    expect(page.locator("#status")).to_have_text("live")
                page.locator(".store").evaluate("one => { one.textContent = 'sqlite:///shop.db'; }")
                page.screenshot(path=folder / f"{name}.png")
                context.close()
            browser.close()
    print(f"{len(SCREENS)} pictures, {sum(os.stat(folder / f'{name}.png').st_size for name in SCREENS):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())

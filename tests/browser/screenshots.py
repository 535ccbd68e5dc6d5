"""`make screenshots`: screenshots of the pages with a seeded store, as docs/img/*.png."""

import asyncio
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from handrail import Runtime, use_runtime
from handrail.testing import VirtualClock
from tests.browser.evals import Triage
from tests.browser.seed import Desk, fill, settings
from tests.server.live_server import live_server
from tests.services.chromium import FLAGS, find_chromium

FOLDER = Path(__file__).parents[2] / "docs" / "img"
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
SIZES = {"light": (1180, 760), "dark": (1180, 760), "phone": (390, 760)}
SCREENSHOTS = {
    "light": ("overview", "cost", "trace", "diff"),
    "dark": ("overview", "trace"),
    "phone": ("overview", "approval"),
}


def main() -> None:
    """Takes all screenshots."""
    program = find_chromium()
    if program is None:
        sys.exit("no Chromium: install it (apt install chromium), or Chrome")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        asyncio.run(_fill(folder))
        clock = VirtualClock(NOON)
        runtime, desk = Runtime(settings(folder), clock=clock), Desk(clock)
        spec = Triage(folder, clock).spec(2)
        running_server = live_server(runtime, desk.find, find_spec=lambda _name: spec)
        with running_server as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
            for name, (width, height) in SIZES.items():
                context = browser.new_context(
                    base_url=server.url,
                    viewport={"width": width, "height": height},
                    color_scheme="dark" if name == "dark" else "light",
                    timezone_id="UTC",
                )
                _take(context.new_page(), name)
                context.close()
            browser.close()
        runtime.close()


async def _fill(folder: Path) -> None:
    clock = VirtualClock(NOON - timedelta(days=3))
    runtime = Runtime(settings(folder), clock=clock)
    with use_runtime(runtime):
        await Triage(folder, clock).fill(runtime)
    runtime.close()
    (await fill(folder, NOON)).close()


def _take(page: Page, size: str) -> None:
    for name in SCREENSHOTS[size]:
        _OPEN[name](page)
        page.screenshot(path=FOLDER / f"{name}-{size}.png")


def _trace(page: Page) -> None:
    page.goto("/traces?order=duration")
    page.locator("[data-rows] a").first.click()
    page.get_by_role("tree").wait_for()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.locator("#panel #span").wait_for()


def _diff(page: Page) -> None:
    page.goto("/evals")
    page.get_by_role("row", name="blocked").get_by_role("link").first.click()
    page.set_viewport_size({"width": 1180, "height": 1130})
    page.locator("[data-case]").first.wait_for()


def _approval(page: Page) -> None:
    page.goto("/inbox")
    page.locator("[data-rows] a").first.click()


_OPEN: dict[str, Callable[[Page], object]] = {
    "overview": lambda page: page.goto("/"),
    "cost": lambda page: page.goto("/cost"),
    "trace": _trace,
    "approval": _approval,
    "diff": _diff,
}


if __name__ == "__main__":
    main()

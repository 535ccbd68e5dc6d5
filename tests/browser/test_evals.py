"""The evals pages in a real browser."""

import asyncio
import re
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from handrail import Runtime, use_runtime
from handrail.testing import VirtualClock
from tests.browser.conftest import NOON
from tests.browser.evals import Triage
from tests.browser.seed import Desk, settings
from tests.server.live_server import LiveServer, live_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def eval_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of three eval runs, and their eval set."""
    folder = tmp_path_factory.mktemp("evaluated")
    clock = VirtualClock(NOON - timedelta(days=3))

    def create() -> None:
        runtime = Runtime(settings(folder), clock=clock)
        with use_runtime(runtime):
            asyncio.run(Triage(folder, clock).fill(runtime))
        runtime.close()

    # Playwright's synchronous interface keeps an event loop in the main thread.
    thread = threading.Thread(target=create)
    thread.start()
    thread.join()
    return folder


@pytest.fixture
def server(tmp_path: Path, eval_store: Path) -> Iterator[LiveServer]:
    """The server with a copy of that store."""
    folder = shutil.copytree(eval_store, tmp_path / "evaluated")
    clock = VirtualClock(NOON)
    runtime, desk = Runtime(settings(folder), clock=clock), Desk(clock)
    spec = Triage(folder, clock).spec(2)
    with live_server(runtime, desk.find, find_spec=lambda _name: spec) as started:
        yield started
    runtime.close()


def test_from_the_verdict_to_the_case(page: Page) -> None:
    """Links lead from a blocked verdict to the comparison, through a filter to a case, and to a trial's trace."""
    page.goto("/evals")
    expect(page.locator("svg.marks")).to_have_count(1)
    page.get_by_role("row", name="blocked").get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Comparison of triage")
    expect(page.locator("pre.lines .removed").first).to_contain_text("Goods that smoke")
    page.get_by_role("navigation", name="Filter").get_by_role("link", name="newly failing").click()
    expect(page.get_by_role("link", name="newly failing")).to_have_attribute("aria-current", "true")
    first = page.locator("[data-case]").first
    expect(first.locator("del")).to_have_text("safety")
    expect(first.locator("ins")).to_have_text("return")
    expect(first.get_by_text("The trials diverge here")).to_be_visible()
    first.get_by_role("heading", level=3).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("safety-1007")
    expect(page.get_by_text("The kettle of order 1007 gave off smoke.")).to_be_visible()
    page.get_by_role("row", name="worse").get_by_role("link", name="run").click()
    page.get_by_role("link", name="View trace").click()
    expect(page.get_by_role("treeitem").first).to_be_visible()


def test_comparing_with_another_eval_run(page: Page) -> None:
    """An eval run can be compared with any other, and a second page has the rest of the cases."""
    page.goto("/evals")
    page.get_by_role("link", name="Compare with the previous").first.click()
    expect(page.locator("[data-case]")).to_have_count(10)
    page.get_by_role("link", name="Next page").click()
    expect(page.locator("[data-case]")).to_have_count(2)
    options = page.get_by_label("Before").locator("option")
    oldest = options.nth(options.count() - 1).get_attribute("value")
    page.get_by_label("Before").select_option(oldest)
    expect(page).to_have_url(re.compile(rf"before={oldest}"))
    expect(page.get_by_text("newly passing 0")).to_be_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off(page: Page, width: int) -> None:
    """On a phone and on a screen no page is wider than its window, and heading levels are not skipped."""
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/evals")
    run = page.locator("section[aria-labelledby=eval-runs] [data-rows] a").first.get_attribute("href")
    diff = page.get_by_role("link", name="Compare with the previous").first.get_attribute("href")
    for path in ("/evals", run, diff, "/evals/case?agent=triage&id=safety-1007"):
        page.goto(str(path))
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        levels = page.eval_on_selector_all("h1, h2, h3", "all => all.map(heading => Number(heading.tagName[1]))")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels)), path


def test_cases_by_keyboard(page: Page) -> None:
    """j moves through the cases of an eval run, Enter opens one."""
    page.goto("/evals")
    page.locator("section[aria-labelledby=eval-runs] [data-rows] td:first-child a").nth(1).click()
    page.get_by_role("link", name="12 failing").click()
    expect(page.get_by_role("link", name="12 failing")).to_have_attribute("aria-current", "true")
    page.wait_for_load_state()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("safety-1008")

"""A browser, and a server over a seeded store."""

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from handrail import Runtime
from handrail.testing import VirtualClock
from tests.browser.seed import Desk, fill, settings
from tests.server.live_server import LiveServer, live_server
from tests.services.chromium import FLAGS, find_chromium

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for each module: while it is open, an event loop runs in the main thread."""
    program = find_chromium()
    if program is None:
        reason = "no Chromium: install it (apt install chromium), or Chrome"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def seeded_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with sixty runs of one day."""
    folder = tmp_path_factory.mktemp("seeded")

    def create() -> None:
        asyncio.run(fill(folder, NOON, 60)).close()

    # Playwright's synchronous interface keeps an event loop in the main thread.
    thread = threading.Thread(target=create)
    thread.start()
    thread.join()
    return folder / "handrail.db"


@pytest.fixture
def server(tmp_path: Path, seeded_store: Path) -> Iterator[LiveServer]:
    """The pages over a copy of the seeded store, at noon."""
    shutil.copy(seeded_store, tmp_path)
    clock = VirtualClock(NOON)
    runtime = Runtime(settings(tmp_path), clock=clock)
    with live_server(runtime, Desk(clock).find) as started:
        yield started
    runtime.close()


@pytest.fixture
def page(browser: Browser, server: LiveServer) -> Iterator[Page]:
    """A page of the server; any error that the browser reports fails the test."""
    context = browser.new_context(base_url=server.url, viewport={"width": 1280, "height": 850})
    new_page, errors = context.new_page(), list[str]()
    # Chromium also reports responses with a status of 4xx, which some tests expect.
    new_page.on("console", lambda message: None if "status of 4" in message.text else errors.append(message.text))
    new_page.on("pageerror", lambda error: errors.append(str(error)))
    yield new_page
    context.close()
    assert errors == []

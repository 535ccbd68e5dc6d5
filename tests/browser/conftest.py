"""A browser, and a server over the demo's store."""

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
from tests.server.serving import Served, served
from tests.services.chromium import FLAGS, find_chromium

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed before another module's tests: while it is open, an event loop runs in the main thread."""
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
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with sixty runs of a day."""
    folder = tmp_path_factory.mktemp("filled")

    def make() -> None:
        asyncio.run(fill(folder, NOON, 60)).close()

    # Playwright's synchronous interface keeps an event loop in the main thread.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return folder / "handrail.db"


@pytest.fixture
def server(tmp_path: Path, filled: Path) -> Iterator[Served]:
    """The pages over the demo's store, at noon, with nothing of another test's in it."""
    shutil.copy(filled, tmp_path)
    clock = VirtualClock(NOON)
    runtime = Runtime(settings(tmp_path), clock=clock)
    with served(runtime, Desk(clock).find) as started:
        yield started
    runtime.close()


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    """A page of the server's; whatever a browser complains of fails the test."""
    context = browser.new_context(base_url=server.url, viewport={"width": 1280, "height": 850})
    made, complaints = context.new_page(), list[str]()
    # That an answer was a no, Chromium calls an error as well.
    made.on("console", lambda said: None if "status of 4" in said.text else complaints.append(said.text))
    made.on("pageerror", lambda error: complaints.append(str(error)))
    yield made
    context.close()
    assert complaints == []

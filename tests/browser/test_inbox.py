"""Uncertain actions and dead jobs in a real browser."""

import asyncio
import threading
from datetime import timedelta
from typing import Literal

import pytest
from playwright.sync_api import Locator, Page, expect

from handrail.kernel.db.jobs import claim, enqueue, give_up
from handrail.review.approvals.queries import list_approvals
from handrail.review.approvals.store import begin, decide, fail
from handrail.testing import VirtualClock
from handrail.worker import run_due_jobs
from tests.browser.seed import Desk
from tests.server.live_server import LiveServer

pytestmark = pytest.mark.slow

DEAD = "resume:run_01k8w5c3f9x2v7m4n6p8q0r1s3:1"
ERROR = "ResumeFailed: the deps factory raised OperationalError: connection to db.internal port 5432 refused"


@pytest.fixture
def uncertain(server: LiveServer) -> str:
    """The id of an approved action whose tool raised."""
    runtime, now = server.runtime, server.runtime.clock.now()
    listed = runtime.database.read_now(list_approvals(now, state="pending", tenant=None, limit=9, before=None))
    approval = listed[-1]
    runtime.database.write_now(decide(approval.approval_id, "approved", "mia", runtime.settings.roles, None, now))
    runtime.database.write_now(begin(approval.approval_id, approval.digest, now))
    runtime.database.write_now(fail(approval.approval_id, "TimeoutError: the bank did not answer"))
    work(server)
    return approval.approval_id


@pytest.fixture
def dead_job(server: LiveServer) -> str:
    """The key of a job that died."""
    write, now = server.runtime.database.write_now, server.runtime.clock.now()
    write(enqueue("test", DEAD, {"run_id": DEAD.split(":")[1]}, now))
    [job] = write(claim(["test"], "w", now, timedelta(minutes=1)))
    assert job is not None
    write(give_up(job, ERROR))
    return DEAD


def work(server: LiveServer) -> None:
    """Runs the jobs that are due; in a thread, since an event loop runs in this one."""
    clock = server.runtime.clock
    assert isinstance(clock, VirtualClock)
    thread = threading.Thread(target=lambda: asyncio.run(run_due_jobs(server.runtime, Desk(clock).find)))
    thread.start()
    thread.join()


def press_to(page: Page, target: Locator) -> None:
    """Moves the focus to an element with the Tab key."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError("the element cannot be reached with the Tab key")


@pytest.mark.usefixtures("uncertain")
def test_settled_by_keyboard(page: Page, server: LiveServer) -> None:
    """By keyboard alone: the first row needs a person, "Run it again" asks for confirmation, and the run goes on."""
    page.goto("/inbox")
    first = page.locator("[data-rows] tr").first
    expect(first).to_contain_text("needs a person")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Did it happen?")).to_be_visible()
    expect(page.get_by_role("region", name="Did it happen?")).to_contain_text("the bank did not answer")
    again = page.get_by_role("button", name="Run it again")
    press_to(page, again)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Run it again?")
    expect(page.get_by_role("main")).to_contain_text("If the action did happen, it will happen twice.")
    page.get_by_role("link", name="Cancel").click()
    page.get_by_role("button", name="Run it again").click()
    page.get_by_label("Settled by").fill("ann")
    page.get_by_label("Note").fill("not in the ledger")
    press_to(page, page.get_by_role("button", name="Run it again"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_contain_text("Settled by ann")
    work(server)
    page.reload()
    expect(page.locator("h1 .tag")).to_have_text("executed")
    expect(page.get_by_role("main")).to_contain_text("not in the ledger")
    page.goto("/inbox?state=uncertain")
    expect(page.get_by_text("No approvals in this state")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_buttons_can_be_read(page: Page, uncertain: str, scheme: Literal["light", "dark"]) -> None:
    """The buttons and the warning have a contrast of at least 4.5 to 1 in both themes, as WCAG 2.2 asks."""
    page.emulate_media(color_scheme=scheme)
    page.goto(f"/inbox/{uncertain}/settlement?answer=again")
    for element in (page.get_by_role("button", name="Run it again"), page.locator(".alarm")):
        assert element.evaluate(CONTRAST) >= 4.5


def test_pages_of_settlements_fit_on_a_phone(page: Page, uncertain: str, dead_job: str) -> None:
    """At a width of 390 pixels the pages scroll vertically only, and a dead job's button is on the screen."""
    page.set_viewport_size({"width": 390, "height": 844})
    for path in (f"/inbox/{uncertain}", f"/inbox/{uncertain}/settlement?answer=again", "/inbox", "/jobs"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    expect(page.get_by_role("button", name=f"Requeue {dead_job}")).to_be_in_viewport()


def test_a_dead_job_is_requeued(page: Page, dead_job: str) -> None:
    """A dead job is shown with its error first, and its button lets it wait again, which a status message says."""
    page.goto("/jobs")
    dead = page.get_by_role("region", name="Dead")
    expect(dead).to_contain_text(ERROR)
    dead.get_by_role("button", name=f"Requeue {dead_job}").click()
    expect(page.get_by_role("status")).to_contain_text(f"Requeued {dead_job}")
    expect(page.get_by_role("region", name="Dead")).to_have_count(0)
    expect(page.get_by_role("region", name="Waiting")).to_contain_text(dead_job)


CONTRAST = """element => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const over = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const grounds = [];
  for (let node = element; node; node = node.parentElement) grounds.unshift(getComputedStyle(node).backgroundColor);
  const pair = [light(over([...grounds, getComputedStyle(element).color])), light(over(grounds))].sort((a, b) => b - a);
  return (pair[0] + 0.05) / (pair[1] + 0.05);
}"""

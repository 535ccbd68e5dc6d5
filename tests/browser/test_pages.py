"""The pages in a real browser."""

import re
from itertools import count

import pytest
from playwright.sync_api import Page, expect

from handrail.kernel.clock import unix_ns
from handrail.traces.model import Span, Usage
from handrail.traces.store.spans import SpanBatch
from tests.browser.conftest import NOON
from tests.server.live_server import LiveServer

MENU = ("Overview", "Runs", "Inbox", "Traces", "Steps", "Cost", "Spending", "Evals", "Jobs")
LARGE = "ab" * 16


def test_every_page_from_the_menu(page: Page) -> None:
    """The menu leads to every page and marks the current one, and the browser reports no errors."""
    page.goto("/")
    for name in MENU:
        page.get_by_role("navigation", name="Main").get_by_role("link", name=name).click()
        expect(page.locator("nav [aria-current=page]")).to_have_text(name)
        expect(page.get_by_role("heading", level=1)).to_have_text(name)


def test_the_overview_has_charts(page: Page) -> None:
    """Four charts are drawn, in the colours of the theme."""
    page.goto("/")
    expect(page.locator("svg.marks")).to_have_count(4)
    bar = page.locator("svg.marks path[fill='var(--happy)']").first
    light = bar.evaluate("element => getComputedStyle(element).fill")
    page.emulate_media(color_scheme="dark")
    assert bar.evaluate("element => getComputedStyle(element).fill") != light


@pytest.mark.slow
def test_the_theme_is_remembered(page: Page) -> None:
    """The button switches from the system's theme to dark and then light, and other pages keep the choice."""
    page.goto("/")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    switch = page.get_by_role("button", name="Theme")
    switch.click()
    dark = page.evaluate(background)
    assert dark != light
    page.goto("/runs")
    assert page.evaluate(background) == dark
    expect(switch).to_have_text("Dark")
    switch.click()
    assert page.evaluate(background) == light


@pytest.mark.slow
def test_lists_by_keyboard(page: Page) -> None:
    """j and k move through a table, Enter opens, the focus is visible, and the first tab stop skips the menu."""
    page.goto("/runs")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    for key in "jjk":
        page.keyboard.press(key)
    first = page.locator("[data-rows] a").first
    expect(first).to_be_focused()
    assert first.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/runs/run_\w+$"))


@pytest.mark.slow
def test_a_trace_by_keyboard(page: Page) -> None:
    """In the waterfall j, k and Enter show a span's payload; h folds its children, l unfolds them."""
    page.goto("/traces?order=duration")
    page.locator("[data-rows] a").first.click()
    rows = page.get_by_role("treeitem")
    expect(rows.first).to_have_attribute("aria-selected", "true")
    total = rows.count()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("#panel #span")).to_contain_text("chat")
    expect(page.locator("#panel")).to_contain_text("order")
    page.keyboard.press("k")
    page.keyboard.press("h")
    expect(rows).to_have_count(1)
    expect(rows.first).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("l")
    expect(rows).to_have_count(total)
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    assert page.locator(".track .critical").count() > 0


def test_feedback_from_the_trace(page: Page) -> None:
    """Thumbs down on a trace records feedback on its run, which the page then shows."""
    page.goto("/runs")
    page.locator("[data-rows] tr", has_text="answered").get_by_role("link").first.click()
    page.get_by_role("link", name="View trace").click()
    page.get_by_role("button", name="The outcome was wrong").click()
    expect(page.locator(".thumbs .tag.failed")).to_contain_text("wrong (feedback by")
    page.get_by_role("link", name=re.compile("Run of")).click()
    expect(page.get_by_role("heading", name="Feedback")).to_be_visible()


def test_the_inbox(page: Page) -> None:
    """An approval can be opened and decided with a name and a note, and is then no longer listed as pending."""
    page.goto("/inbox")
    waiting = page.locator("[data-rows] tr").count()
    assert waiting > 0
    page.locator("[data-rows] a").first.click()
    expect(page.get_by_role("heading", name="Proposed action")).to_be_visible()
    page.get_by_label("Decided by").fill("eve")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("alert")).to_contain_text("may not decide")
    page.get_by_label("Decided by").fill("mia")
    page.get_by_label("Note").fill("looked into it")
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("main")).to_contain_text("Denied by mia")
    page.goto("/inbox")
    expect(page.locator("[data-rows] tr")).to_have_count(waiting - 1)


@pytest.mark.slow
def test_search_and_order(page: Page) -> None:
    """Traces can be searched by part of their name and sorted by a column; / focuses the search."""
    page.goto("/traces")
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("returns")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("q=returns"))
    names = page.locator("[data-rows] td:nth-child(2)").all_inner_texts()
    assert names
    assert all("returns" in name for name in names)
    page.get_by_role("columnheader", name="Cost").get_by_role("link").click()
    expect(page.get_by_role("columnheader", name="Cost")).to_have_attribute("aria-sort", "descending")
    expect(page.get_by_label("Search")).to_have_value("returns")


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/runs", "/inbox", "/traces", "/steps", "/cost", "/spending", "/evals", "/jobs"])
def test_pages_fit_on_a_phone(page: Page, path: str) -> None:
    """At a width of 360 pixels a page scrolls vertically only; wide tables scroll by themselves."""
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(path)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_markup_in_spans_is_text(page: Page, server: LiveServer) -> None:
    """Markup in a span's name, error and payload is text in the page, in its data and in the panel."""
    markup = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>"
    span = large_span(0, None, name=markup, error_type=markup, payload={markup: markup, "result": markup})
    server.runtime.database.write_now(SpanBatch([span]))
    page.goto(f"/traces/{LARGE}")
    expect(page.get_by_role("treeitem")).to_contain_text(markup)
    page.get_by_role("treeitem").click()
    expect(page.locator("#panel pre").first).to_have_text(markup)
    page.goto(f"/traces/{LARGE}/spans/{0:016x}")
    expect(page.locator("pre").first).to_have_text(markup)
    assert page.evaluate("window.hurt") is None


@pytest.mark.slow
def test_twenty_thousand_spans(page: Page, server: LiveServer) -> None:
    """A very large trace has few rows in the document, and can be scrolled to its end."""
    steps = [large_span(0, None), *(large_span(n, n - n % 40 if n % 40 else 0) for n in range(1, 20_000))]
    server.runtime.database.write_now(*(SpanBatch(steps[start : start + 1_000]) for start in range(0, 20_000, 1_000)))
    page.goto(f"/traces/{LARGE}")
    rows = page.get_by_role("treeitem")
    expect(rows.first).to_be_visible()
    assert rows.count() < 100
    page.keyboard.press("j")
    page.keyboard.press("End")
    expect(page.locator("[aria-selected=true]")).to_contain_text("step 19999")


@pytest.mark.slow
def test_without_scripts(page: Page, server: LiveServer) -> None:
    """Without scripts a trace is a table of its first spans, each linked to its own page."""
    assert page.context.browser is not None
    context = page.context.browser.new_context(base_url=server.url, java_script_enabled=False)
    plain = context.new_page()
    plain.goto("/traces")
    plain.locator("[data-rows] a").first.click()
    plain.locator(".waterfall a").first.click()
    expect(plain.locator("#span")).to_be_visible()
    context.close()


_start_times = count(unix_ns(NOON) - 3_600 * 10**9, 10**6)


def large_span(number: int, parent: int | None, **changed: object) -> Span:
    start = next(_start_times)
    fields = {
        "trace_id": LARGE,
        "span_id": f"{number:016x}",
        "parent_id": None if parent is None else f"{parent:016x}",
        "kind": "step",
        "name": f"step {number}",
        "start_ns": start,
        "end_ns": start + 10**7,
        "tenant": "acme",
        "user": "u",
        "agent": "large",
        "run_id": "",
        "usage": Usage(input=number % 7),
        **changed,
    }
    return Span(**fields)  # type: ignore[arg-type]

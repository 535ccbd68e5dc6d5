"""Measures how long a large trace takes to open: the server in a process of its own, the page in Chromium."""

import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from playwright.sync_api import expect, sync_playwright

from handrail.kernel.db.database import Database
from handrail.traces.model import Span
from handrail.traces.store.spans import SpanBatch
from tests.services.chromium import FLAGS, find_chromium

SPANS = 20_000
ROUNDS = 7
_BATCH = 1_000
_TRACE = "ab" * 16
_START_NS = 1_764_000_000_000_000_000


def open_trace_s() -> float:
    """The median seconds from requesting a trace of 20,000 spans until its first row is visible."""
    program = find_chromium()
    if program is None:
        raise RuntimeError("no Chromium: install it (apt install chromium), or Chrome")
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder))
        with _serving(Path(folder)) as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
            times = []
            for _ in range(ROUNDS):
                page = browser.new_context(base_url=url).new_page()
                page.goto("/traces")
                start = time.perf_counter()
                page.goto(f"/traces/{_TRACE}")
                expect(page.get_by_role("treeitem").first).to_be_visible()
                times.append(time.perf_counter() - start)
                page.context.close()
            browser.close()
    return median(times)


def _fill(folder: Path) -> None:
    database = Database.open("handrail.db", folder)
    spans = [_span(number) for number in range(SPANS)]
    database.write_now(*(SpanBatch(spans[first : first + _BATCH]) for first in range(0, SPANS, _BATCH)))
    database.close()


def _span(number: int) -> Span:
    """Forty steps below each of five hundred, one after the other, all below one root."""
    parent = None if number == 0 else number - number % 40 if number % 40 else 0
    start = _START_NS + number * 1_000_000
    return Span(
        trace_id=_TRACE,
        span_id=f"{number + 1:016x}",
        parent_id=None if parent is None else f"{parent + 1:016x}",
        kind="agent" if parent is None else "step",
        name=f"step {number % 90}",
        start_ns=start,
        end_ns=_START_NS + SPANS * 1_000_000 if parent is None else start + 40_000_000,
        tenant="acme",
        user="u-1",
        agent="bench",
        run_id="",
    )


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sysconfig.get_path("scripts")) / "handrail"
    command = [str(program), "serve", "--no-worker", "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while server.poll() is None:
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()

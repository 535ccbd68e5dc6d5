"""The slow CRM example in the pages: the look-ups that could run in parallel and the time this would save."""

from pathlib import Path

from handrail import Runtime, Settings
from handrail.examples.slow_crm.__main__ import run_simulated
from handrail.examples.slow_crm.agent import agent
from handrail.examples.slow_crm.simulation import SEQUENTIAL
from tests.server.live_server import live_server
from tests.server.page_reader import text_of

FOUND = "look up orders, look up tickets and look up invoices ran one after the other in execute_tool customer_file"


def test_the_pages_name_the_lookups(tmp_path: Path) -> None:
    """The pages of the trace and of the steps name the look-ups and the time the trace would take."""
    run_simulated(agent, SEQUENTIAL, tmp_path)
    runtime = Runtime(Settings(base=tmp_path))
    with live_server(runtime, lambda name: agent) as server, server.client() as client:  # noqa: ARG005
        [trace] = client.get("/v1/traces").json()["traces"]
        for page in (f"/traces/{trace['trace_id']}", "/steps"):
            text = text_of(client.get(page))
            assert FOUND in text, page
            assert "The trace would take 3.4 s instead of 8.2 s" in text, page
            assert "could be saved" in text, page
    runtime.close()

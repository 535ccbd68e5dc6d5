"""The case of the slow CRM: the pages name the look-ups and say what it would be worth to run them side by side."""

from pathlib import Path

from handrail import Runtime, Settings
from handrail.examples.slow_crm.__main__ import simulated
from handrail.examples.slow_crm.agent import agent
from handrail.examples.slow_crm.simulation import IN_A_ROW
from tests.server.page_reader import text_of
from tests.server.serving import served

FOUND = "look up orders, look up tickets and look up invoices ran one after the other in execute_tool customer_file"


def test_the_pages_name_the_lookups(tmp_path: Path) -> None:
    """The trace and the steps both say what could run side by side, and how long the trace would take then."""
    simulated(agent, IN_A_ROW, tmp_path)
    runtime = Runtime(Settings(base=tmp_path))
    with served(runtime, lambda name: agent) as server, server.client() as client:  # noqa: ARG005
        [trace] = client.get("/v1/traces").json()["traces"]
        for page in (f"/traces/{trace['trace_id']}", "/steps"):
            text = text_of(client.get(page))
            assert FOUND in text, page
            assert "The trace would take 3.4 s instead of 8.2 s" in text, page
            assert "could be saved" in text, page
    runtime.close()

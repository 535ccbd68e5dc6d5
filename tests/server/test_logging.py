"""The server logs rejected requests, failed logins and errors, and no secrets."""

import logging
from typing import NoReturn

import pytest

from handrail import Runtime
from handrail.access.login import new_user
from handrail.cli.logging_setup import JsonFormatter, TextFormatter
from handrail.server.auth import RATE_LIMITS
from tests.server.conftest import make_key
from tests.server.live_server import LiveServer, live_server
from tests.server.page_reader import logged_in, send
from tests.server.test_api import REQUEST, RUNS

PASSWORD = "correct horse battery staple"


def records(caplog: pytest.LogCaptureFixture, message: str) -> list[logging.LogRecord]:
    """The records whose message starts with `message`."""
    return [record for record in caplog.records if record.getMessage().startswith(message)]


def test_failed_logins(public: LiveServer, runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    """Failed, throttled and successful logins are logged with the address, failures without name and password."""
    caplog.set_level(logging.INFO)
    runtime.database.write_now(new_user("ann", PASSWORD, "acme", runtime.clock.now()))
    with logged_in(public, "ann", PASSWORD), public.client() as client:
        for _ in range(6):
            send(client, "/login", "/login", name="bob", password="open sesame")
    failures, throttled = records(caplog, "login failed"), records(caplog, "login throttled")
    assert (len(failures), len(throttled)) == (5, 1)
    assert {record.__dict__["address"] for record in failures + throttled} == {"127.0.0.1"}
    assert {record.levelname for record in failures + throttled} == {"WARNING"}
    [success] = records(caplog, "user logged in")
    assert (success.__dict__["dashboard_user"], success.__dict__["tenant"]) == ("ann", "acme")
    logged = "".join(str(record.__dict__) for record in caplog.records if record.name.startswith("handrail"))
    assert ("bob" in logged, "sesame" in logged, PASSWORD in logged) == (False, False, False)


def test_rejected_keys(public: LiveServer, runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong key, a missing scope and an exceeded rate limit are logged with the request's id, without the key."""
    reader, decider = make_key(runtime, "acme", "read"), make_key(runtime, "acme", "decide")
    with public.client(reader) as client:
        forbidden = client.post(RUNS, json=REQUEST)
        unknown = client.get("/v1/approvals", headers={"authorization": f"Bearer {reader[:-1]}x"})
    with public.client(decider) as client:
        deny = [
            client.post("/v1/approvals/apr_0/deny", json={"by": "mia"}) for _ in range(RATE_LIMITS["decide"].burst + 1)
        ]
    rejected = records(caplog, "api request rejected")
    assert [(record.__dict__["code"], record.__dict__["request_id"]) for record in rejected] == [
        ("not_allowed", forbidden.headers["x-request-id"]),
        ("wrong_credentials", unknown.headers["x-request-id"]),
        ("rate_limited", deny[-1].headers["x-request-id"]),
    ]
    assert reader.rpartition("_")[2][:20] not in "".join(str(record.__dict__) for record in caplog.records)


def test_errors(public: LiveServer, runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    """A programming error is logged with traceback and request id, a request from another origin as rejected."""
    with public.client(make_key(runtime, "acme", "run")) as client:
        response = client.post(RUNS, json={**REQUEST, "input": "bug"})
        foreign = client.post(RUNS, json=REQUEST, headers={"origin": "https://evil.example"})
    [failed] = records(caplog, "request failed")
    assert (failed.levelname, failed.__dict__["request_id"]) == ("ERROR", response.headers["x-request-id"])
    assert "raise TypeError(" in failed.__dict__["traceback"]
    assert failed.__dict__["traceback"].endswith("\nTypeError")
    [rejected] = records(caplog, "request rejected")
    assert (rejected.__dict__["code"], rejected.__dict__["request_id"]) == (
        "wrong_host",
        foreign.headers["x-request-id"],
    )


def test_an_unhandled_error_shows_no_values(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the error's message nor that of its cause is logged, in any format."""
    secret = "open " + "sesame"

    def find(_name: str) -> NoReturn:
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise RuntimeError(secret) from error

    with live_server(runtime, find) as server, server.client() as client:
        response = client.post(RUNS, json={**REQUEST, "input": secret})
    assert response.status_code == 500
    [failed] = records(caplog, "request failed")
    formatters = (JsonFormatter(), TextFormatter(), logging.Formatter("%(message)s"))
    assert secret not in "".join(formatter.format(failed) for formatter in formatters) + caplog.text
    assert "RuntimeError" in failed.__dict__["traceback"]

"""`handrail serve`, `keys` and `users` on the command line."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner, Result

from handrail.access.api_keys import check_key, parse_key_id
from handrail.access.errors import WrongCredentials
from handrail.access.login import log_in
from handrail.access.store import load_key
from handrail.cli.app import app
from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput, NotFound
from handrail.traces.store.spans import load_trace
from tests.cli.terminal import PROGRAM, Folder, environment
from tests.server.test_otlp_endpoint import JSON, TRACE, batch

PASSWORD = "correct horse battery staple"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@contextmanager
def running_server(folder: Folder, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Starts `handrail serve`, yields the process and its URL, and kills it at the end."""
    command = [str(PROGRAM), "serve", "--port", "0", *arguments]
    env = environment({"COLUMNS": "200"})
    with subprocess.Popen(command, cwd=folder.path, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            match = next(filter(None, (re.search(r"http://(\S+:\d+)", line) for line in process.stderr)), None)
            assert match, "the server did not start"
            yield process, f"http://{match[1]}"
        finally:
            process.kill()


def test_acknowledged_spans_survive_a_kill(folder: Folder) -> None:
    """After two kills of the server while it receives spans, every acknowledged span is stored."""
    sent = 0
    for _ in range(2):
        with running_server(folder) as (process, url), httpx2.Client(base_url=url) as client:
            for number in range(20):
                span = batch(f"span {sent + 1}", spanId=f"{sent + 1:016x}")
                assert client.post("/v1/traces", content=span, headers=JSON).status_code == 200
                sent += 1
                if number == 19:
                    process.kill()
    database = Database.open("handrail.db", folder.path)
    _, spans = database.read_now(load_trace(TRACE, None))
    database.close()
    assert sorted(int(span.span_id, 16) for span in spans) == list(range(1, sent + 1))


def test_serve_runs_agents_and_stops(folder: Folder) -> None:
    """The server finds the folder's agents, needs no login on 127.0.0.1, and exits with 0 when interrupted."""
    with running_server(folder) as (process, url), httpx2.Client(base_url=url) as client:
        run = client.post("/v1/agents/echo/runs", json={"input": "hello", "user": "u"}).json()
        assert run["output"] == "You said: hello"
        assert "hello" in client.get(f"/runs/{run['run_id']}").text
        assert client.post("/v1/agents/ecko/runs", json={"input": "x", "user": "u"}).json()["code"] == "not_found"
        process.send_signal(2)
        assert process.wait(20) == 0


def test_a_public_server_needs_credentials(folder: Folder) -> None:
    """On a public address the server does not start without a user or key, and says what to do."""
    result = folder.handrail("serve", "--host", "0.0.0.0", "--port", "0")
    assert (result.code, "handrail users add" in result.err) == (2, True)


def handrail(*arguments: str, stdin: str = "") -> Result:
    """Runs the command in this process, in the current folder, which each test has for itself."""
    return CliRunner().invoke(app, arguments, input=stdin)


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Iterator[Database]:
    """The store of the current folder."""
    shutil.copy(empty_store, tmp_path)
    database = Database.open("handrail.db", tmp_path)
    yield database
    database.close()


async def test_users(store: Database) -> None:
    """An added user can log in until removed; the password is read from standard input and never printed."""
    assert "No users." in handrail("users", "list").output
    added = handrail("users", "add", "ann", "--tenant", "acme", stdin=f"{PASSWORD}\nmore\n")
    assert (added.exit_code, PASSWORD in added.output) == (0, False)
    assert isinstance(handrail("users", "add", "bob", stdin="short\n").exception, BadInput)
    assert isinstance(handrail("users", "add", "bob").exception, BadInput)
    [user] = json.loads(handrail("users", "list", "--json").output)
    assert (user["name"], user["tenant"], user["roles"]) == ("ann", "acme", [])
    assert "acme" in handrail("users", "list").output
    now = SystemClock().now()
    await log_in(store, "ann", PASSWORD, "192.0.2.1", None, now)
    assert handrail("users", "remove", "ann").exit_code == 0
    with pytest.raises(WrongCredentials):
        await log_in(store, "ann", PASSWORD, "192.0.2.1", None, now)


def test_keys(store: Database) -> None:
    """A key is shown once and listed by its prefix; it has its scopes until it is revoked, once."""
    create = ("keys", "create", "--tenant", "acme", "--label", "backend", "--scope")
    created = handrail(*create, "read", "--scope", "run")
    key = created.stdout.strip()
    stored = store.read_now(load_key(parse_key_id(key) or ""))
    assert check_key(key, stored).scopes == {"read", "run"}
    assert isinstance(handrail(*create, "all").exception, BadInput)
    listed = handrail("keys", "list").output
    assert (key[:15] in listed, key in listed, "backend" in listed) == (True, False, True)
    assert handrail("keys", "revoke", key).exit_code == 0
    assert isinstance(handrail("keys", "revoke", key[:15]).exception, NotFound)
    [row] = json.loads(handrail("keys", "list", "--json").output)
    assert (row["prefix"], row["scopes"], row["last_used_at"]) == (key[:15], ["read", "run"], None)
    assert row["revoked_at"]
    all_tenants = json.loads(
        handrail("keys", "create", "--tenant", "*", "--label", "x", "--scope", "ingest", "--json").output
    )
    assert all_tenants["tenant"] is None
    assert parse_key_id(all_tenants["key"])

"""`handrail serve`, `keys` and `people`, as their user has them."""

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

from handrail.access.api_keys import check_key, key_id_of
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
def serving(folder: Folder, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`handrail serve`, under way, and where it is; killed at the end."""
    command = [str(PROGRAM), "serve", "--port", "0", *arguments]
    env = environment({"COLUMNS": "200"})
    with subprocess.Popen(command, cwd=folder.path, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            # Its end, where it does not start, ends the lines.
            found = next(filter(None, (re.search(r"http://(\S+:\d+)", line) for line in process.stderr)), None)
            assert found, "the server did not start"
            yield process, f"http://{found[1]}"
        finally:
            process.kill()


def test_acknowledged_spans_outlive_the_server(folder: Folder) -> None:
    """Killed with SIGKILL while spans come in, again and again, the server has kept every one that it acknowledged."""
    sent = 0
    for _ in range(2):
        with serving(folder) as (process, url), httpx2.Client(base_url=url) as client:
            for number in range(20):
                span = batch(f"span {sent + 1}", spanId=f"{sent + 1:016x}")
                assert client.post("/v1/traces", content=span, headers=JSON).status_code == 200
                sent += 1
                if number == 19:
                    process.kill()
    database = Database.open("handrail.db", folder.path)
    _, spans = database.read_now(lambda conn: load_trace(conn, TRACE, None))
    database.close()
    assert sorted(int(span.span_id, 16) for span in spans) == list(range(1, sent + 1))


def test_serve_runs_agents_and_stops(folder: Folder) -> None:
    """The server finds the folder's agents, needs no login on 127.0.0.1, and ends in peace when interrupted."""
    with serving(folder) as (process, url), httpx2.Client(base_url=url) as client:
        run = client.post("/v1/agents/echo/runs", json={"input": "hello", "user": "u"}).json()
        assert run["output"] == "You said: hello"
        assert "hello" in client.get(f"/runs/{run['run_id']}").text
        assert client.post("/v1/agents/ecko/runs", json={"input": "x", "user": "u"}).json()["code"] == "not_found"
        process.send_signal(2)
        assert process.wait(20) == 0


def test_no_login_no_server(folder: Folder) -> None:
    """On an address that others reach the server does not start while nobody could log in, and says what to do."""
    ended = folder.handrail("serve", "--host", "0.0.0.0", "--port", "0")
    assert (ended.code, "handrail people add" in ended.err) == (2, True)


def handrail(*arguments: str, stdin: str = "") -> Result:
    """The command as it ends in this process, in the current folder, which a test has to itself."""
    return CliRunner().invoke(app, arguments, input=stdin)


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Iterator[Database]:
    """The store of the current folder."""
    shutil.copy(empty_store, tmp_path)
    opened = Database.open("handrail.db", tmp_path)
    yield opened
    opened.close()


async def test_people(store: Database) -> None:
    """A person who was added from standard input may log in until they are removed; their password stands nowhere."""
    assert "Nobody." in handrail("people", "list").output
    added = handrail("people", "add", "ann", "--tenant", "acme", stdin=f"{PASSWORD}\nmore\n")
    assert (added.exit_code, PASSWORD in added.output) == (0, False)
    assert isinstance(handrail("people", "add", "bob", stdin="short\n").exception, BadInput)
    assert isinstance(handrail("people", "add", "bob").exception, BadInput)
    [person] = json.loads(handrail("people", "list", "--json").output)
    assert (person["name"], person["tenant"], person["roles"]) == ("ann", "acme", [])
    assert "acme" in handrail("people", "list").output
    now = SystemClock().now()
    await log_in(store, "ann", PASSWORD, "192.0.2.1", None, now)
    assert handrail("people", "remove", "ann").exit_code == 0
    with pytest.raises(WrongCredentials):
        await log_in(store, "ann", PASSWORD, "192.0.2.1", None, now)


def test_keys(store: Database) -> None:
    """A key is shown once and listed by its beginning; it opens what it is for until it is revoked, once."""
    create = ("keys", "create", "--tenant", "acme", "--label", "backend", "--scope")
    made = handrail(*create, "read", "--scope", "run")
    key = made.stdout.strip()
    kept = store.read_now(lambda conn: load_key(conn, key_id_of(key) or ""))
    assert check_key(key, kept).scopes == {"read", "run"}
    assert isinstance(handrail(*create, "all").exception, BadInput)
    listed = handrail("keys", "list").output
    assert (key[:15] in listed, key in listed, "backend" in listed) == (True, False, True)
    assert handrail("keys", "revoke", key).exit_code == 0
    assert isinstance(handrail("keys", "revoke", key[:15]).exception, NotFound)
    [row] = json.loads(handrail("keys", "list", "--json").output)
    assert (row["prefix"], row["scopes"], row["last_used_at"]) == (key[:15], ["read", "run"], None)
    assert row["revoked_at"]
    everybody = json.loads(
        handrail("keys", "create", "--tenant", "*", "--label", "x", "--scope", "ingest", "--json").output
    )
    assert everybody["tenant"] is None
    assert key_id_of(everybody["key"])

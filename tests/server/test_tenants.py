"""One tenant never sees another's data: through every page and every address of the API."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import handrail
import handrail.server
from handrail import Runtime
from handrail.access.login import new_person
from tests.server.conftest import make_key
from tests.server.page_reader import logged_in
from tests.server.serving import Served
from tests.server.test_api import problem

PASSWORD = "correct horse battery staple"
WEB = Path(handrail.server.__file__).parent
SECRET = "globex-secret"


@pytest.fixture
def theirs(public: Served, runtime: Runtime) -> dict[str, str]:
    """A run, its trace and its approval of the tenant globex, and a span that was sent for it."""
    with public.client(make_key(runtime, "globex", "run", "ingest")) as client:
        answer = client.post("/v1/agents/shop/runs", json={"input": f"refund {SECRET}", "user": SECRET}).json()
        span = {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": SECRET, "startTimeUnixNano": "1767225600000000000"}
        spans = [{"scopeSpans": [{"spans": [{**span, "endTimeUnixNano": "1767225601000000000"}]}]}]
        assert client.post("/v1/traces", json={"resourceSpans": spans}).status_code == 200
    approval = answer["approvals"][0]["approval_id"]
    return {"run": answer["run_id"], "trace": answer["trace_id"], "approval": approval}


def test_the_api(public: Served, runtime: Runtime, theirs: dict[str, str]) -> None:
    """With a key of another tenant nothing of a run, an approval or a trace is found, read, judged or decided."""
    with public.client(make_key(runtime, "acme", "run", "read", "decide")) as client:
        given = {"right": True, "by": "mia"}
        for answer in (
            client.get(f"/v1/runs/{theirs['run']}"),
            client.post(f"/v1/runs/{theirs['run']}/feedback", json=given),
            client.post(f"/v1/approvals/{theirs['approval']}/approve", json={"by": "mia"}),
            client.post(f"/v1/approvals/{theirs['approval']}/deny", json={"by": "mia"}),
        ):
            problem(answer, 404, "not_found")
            assert SECRET not in answer.text
        assert client.get("/v1/approvals", params={"state": "all"}).json()["approvals"] == []
        named = client.post("/v1/agents/shop/runs", json={"input": "x", "user": "u", "tenant": "globex"})
        problem(named, 403, "not_allowed")
    with public.client(make_key(runtime, "globex", "read")) as client:
        assert client.get(f"/v1/runs/{theirs['run']}").json()["user"] == SECRET


def test_the_pages(public: Served, runtime: Runtime, theirs: dict[str, str]) -> None:
    """Somebody of another tenant finds none of it on any page, whatever tenant they name in the address."""
    runtime.database.write_now(new_person("ann", PASSWORD, "acme", runtime.clock.now()))
    lists = ["/", "/runs", "/inbox?state=all", "/traces", "/steps", "/cost?by=user", "/spending"]
    ones = [
        f"/runs/{theirs['run']}",
        f"/inbox/{theirs['approval']}",
        f"/traces/{theirs['trace']}",
        f"/traces/{'ab' * 16}/spans/{'cd' * 8}",
    ]
    with logged_in(public, "ann", PASSWORD) as client:
        for path in lists + ones:
            for address in (path, f"{path}{'&' if '?' in path else '?'}tenant=globex"):
                answer = client.get(address)
                assert answer.status_code == (200 if path in lists else 404), address
                assert SECRET not in answer.text, address
                assert "globex" not in answer.text, address
        assert client.get("/evals").status_code == 403


def test_an_operator_sees_all_or_the_one_they_choose(public: Served, runtime: Runtime, theirs: dict[str, str]) -> None:
    """Without a tenant in the address an operator sees everybody's, with one only that one's."""
    runtime.database.write_now(new_person("root", PASSWORD, None, runtime.clock.now()))
    with logged_in(public, "root", PASSWORD) as client:
        for path in ("/runs", "/inbox", "/traces", "/cost?by=user", "/spending"):
            assert SECRET in client.get(path).text, path
            chosen = f"{path}{'&' if '?' in path else '?'}tenant="
            assert SECRET in client.get(f"{chosen}globex").text, path
            assert SECRET not in client.get(f"{chosen}acme").text, path
        assert client.get(f"/runs/{theirs['run']}?tenant=acme").status_code == 404


def queries() -> set[str]:
    """The names of every function of a slice that reads the store: its first parameter is the connection."""
    package = Path(handrail.__file__).parent
    return {
        node.name
        for file in package.rglob("*.py")
        if file.relative_to(package).parts[0] not in ("kernel", "web")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and node.args.args
        and node.args.args[0].arg == "conn"
        and not node.name.startswith("_")
    }


OF_NOBODY = {
    "load_eval_run",
    "list_eval_runs",
    "list_eval_agents",
    "eval_runs_over_time",
    "case_through_time",
    "list_baselines",
    "newest_baseline",
    "list_gates",
    "load_key",
    "load_session",
    "anybody",
}
"""What is no tenant's: evals are about agents, and people and keys are looked up to learn whose they are."""


def forgetful(text: str, asked: set[str]) -> Iterator[str]:
    """The queries in a module's text that do not say whose data they are after, with their lines.

    A query says so by an argument `tenant`, or by being given a part of what such a query found in the same function.
    """
    for function in (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ):
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        known = {
            name.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and names_tenant(node.value)
            for target in node.targets
            for name in ast.walk(target)
            if isinstance(name, ast.Name)
        }
        known |= {
            node.target.id
            for node in ast.walk(function)
            if isinstance(node, ast.comprehension)
            and isinstance(node.target, ast.Name)
            and isinstance(node.iter, ast.Name)
            and node.iter.id in known
        }
        for call in calls:
            assert isinstance(call.func, ast.Name)
            if call.func.id in asked and not names_tenant(call) and not of_known(call, known):
                yield f"{call.func.id} in line {call.lineno}"


def names_tenant(call: ast.Call) -> bool:
    """Whether the tenant is among a call's arguments."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(isinstance(each, ast.Name) and each.id == "tenant" for each in given)


def of_known(call: ast.Call, known: set[str]) -> bool:
    """Whether all a query is given, besides the connection, is parts of what was found for the tenant."""
    given = [*call.args[1:], *(keyword.value for keyword in call.keywords)]
    return bool(given) and all(
        isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id in known
        for each in given
    )


def test_no_query_forgets_the_tenant() -> None:
    """Every query of the web's says whose data it is after; only `reads` asks for tenants', and evals for their own."""
    asked = queries() - OF_NOBODY
    assert {"load_run", "load_trace", "load_payload", "spending", "spend_by"} <= asked
    found = {str(file.relative_to(WEB)): list(forgetful(file.read_text(), asked)) for file in WEB.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}
    elsewhere = {
        str(file.relative_to(WEB))
        for file in WEB.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in asked
    }
    assert elsewhere == {"reads.py", "eval_reads.py"}


@pytest.mark.parametrize(
    ("body", "forgets"),
    [
        ("return load_run(conn, run_id, now, tenant)", False),
        ("return load_run(conn, run_id, now)", True),
        ("return spend_by(conn, key=key, tenant=tenant)", False),
        ("return spend_by(conn, key=key, tenant=None)", True),
        ("run = load_run(conn, run_id, now, tenant)\n    return load_input(conn, run.run_id)", False),
        ("run = load_run(conn, run_id, now, tenant)\n    return load_input(conn, run_id)", True),
        ("run = load_run(conn, run_id, now)\n    return load_input(conn, run.run_id)", True),
    ],
)
def test_the_lint_finds_what_it_is_for(body: str, forgets: bool) -> None:
    """A query without a tenant is found, and one with it, or by what was found with it, is not."""
    text = f"def query(conn, run_id, now, key, tenant):\n    {body}\n"
    assert bool(list(forgetful(text, {"load_run", "load_input", "spend_by"}))) is forgets

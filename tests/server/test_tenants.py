"""No page and no API operation shows one tenant's data to another."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import handrail
import handrail.server
from handrail import Runtime
from handrail.access.login import new_user
from tests.server.conftest import make_key
from tests.server.live_server import LiveServer
from tests.server.page_reader import logged_in, token_in
from tests.server.test_api import assert_problem

PASSWORD = "correct horse battery staple"
SERVER = Path(handrail.server.__file__).parent
SECRET = "globex-secret"


@pytest.fixture
def theirs(public: LiveServer, runtime: Runtime) -> dict[str, str]:
    """The ids of a run, its trace and its approval of tenant globex, which has an ingested span as well."""
    with public.client(make_key(runtime, "globex", "run", "ingest")) as client:
        response = client.post("/v1/agents/shop/runs", json={"input": f"refund {SECRET}", "user": SECRET}).json()
        span = {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": SECRET, "startTimeUnixNano": "1767225600000000000"}
        spans = [{"scopeSpans": [{"spans": [{**span, "endTimeUnixNano": "1767225601000000000"}]}]}]
        assert client.post("/v1/traces", json={"resourceSpans": spans}).status_code == 200
    approval = response["approvals"][0]["approval_id"]
    return {"run": response["run_id"], "trace": response["trace_id"], "approval": approval}


def test_the_api(public: LiveServer, runtime: Runtime, theirs: dict[str, str]) -> None:
    """With another tenant's key a run and an approval are not found, and no run can be made for the tenant."""
    with public.client(make_key(runtime, "acme", "run", "read", "decide")) as client:
        body = {"right": True, "by": "mia"}
        for response in (
            client.get(f"/v1/runs/{theirs['run']}"),
            client.post(f"/v1/runs/{theirs['run']}/feedback", json=body),
            client.post(f"/v1/approvals/{theirs['approval']}/approve", json={"by": "mia"}),
            client.post(f"/v1/approvals/{theirs['approval']}/deny", json={"by": "mia"}),
            client.post(f"/v1/approvals/{theirs['approval']}/settlement", json={"by": "mia", "happened": True}),
        ):
            assert_problem(response, 404, "not_found")
            assert SECRET not in response.text
        assert client.get("/v1/approvals", params={"state": "all"}).json()["approvals"] == []
        named = client.post("/v1/agents/shop/runs", json={"input": "x", "user": "u", "tenant": "globex"})
        assert_problem(named, 403, "not_allowed")
    with public.client(make_key(runtime, "globex", "read")) as client:
        assert client.get(f"/v1/runs/{theirs['run']}").json()["user"] == SECRET


def test_the_pages(public: LiveServer, runtime: Runtime, theirs: dict[str, str]) -> None:
    """A user of another tenant finds nothing on any page, whatever tenant the URL names."""
    runtime.database.write_now(new_user("ann", PASSWORD, "acme", runtime.clock.now()))
    lists = ["/", "/runs", "/inbox?state=all", "/traces", "/steps", "/cost?by=user", "/spending"]
    details = [
        f"/runs/{theirs['run']}",
        f"/inbox/{theirs['approval']}",
        f"/inbox/{theirs['approval']}/settlement?answer=again",
        f"/traces/{theirs['trace']}",
        f"/traces/{'ab' * 16}/spans/{'cd' * 8}",
    ]
    with logged_in(public, "ann", PASSWORD) as client:
        for path in lists + details:
            for address in (path, f"{path}{'&' if '?' in path else '?'}tenant=globex"):
                response = client.get(address)
                assert response.status_code == (200 if path in lists else 404), address
                assert SECRET not in response.text, address
                assert "globex" not in response.text, address
        assert client.get("/evals").status_code == 403
        assert client.get("/jobs").status_code == 403
        token = token_in(client.get("/"))
        assert client.post("/jobs/requeue", data={"form_token": token, "key": "x"}).status_code == 403
        assert ">Jobs</a>" not in client.get("/").text


def test_an_operator_sees_all_tenants_or_a_chosen_one(
    public: LiveServer, runtime: Runtime, theirs: dict[str, str]
) -> None:
    """Without a tenant in the URL an operator sees all tenants' data, with one only that tenant's."""
    runtime.database.write_now(new_user("root", PASSWORD, None, runtime.clock.now()))
    with logged_in(public, "root", PASSWORD) as client:
        for path in ("/runs", "/inbox", "/traces", "/cost?by=user", "/spending"):
            assert SECRET in client.get(path).text, path
            chosen = f"{path}{'&' if '?' in path else '?'}tenant="
            assert SECRET in client.get(f"{chosen}globex").text, path
            assert SECRET not in client.get(f"{chosen}acme").text, path
        assert client.get(f"/runs/{theirs['run']}?tenant=acme").status_code == 404
        assert theirs["approval"] in client.get("/jobs").text


def store_queries() -> set[str]:
    """The names of all functions that take a connection and return something.

    Outside the server these are the public ones, in it the private ones of `queries`.
    """
    package, own = Path(handrail.__file__).parent, SERVER / "queries.py"
    return {
        node.name
        for file in package.rglob("*.py")
        if file == own or file.relative_to(package).parts[0] not in ("kernel", "server")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and node.args.args
        and node.args.args[0].arg == "conn"
        and not (isinstance(node.returns, ast.Constant) and node.returns.value is None)
        and (file == own or not node.name.startswith("_"))
    }


WITHOUT_TENANT = {
    "load_eval_run",
    "list_eval_runs",
    "list_eval_agents",
    "list_eval_run_summaries",
    "case_history",
    "list_baselines",
    "newest_baseline",
    "list_gates",
    "load_key",
    "load_session",
    "has_credentials",
    "decide",
    "settle_uncertain",
}
"""Queries whose data has no tenant, as of eval runs, or which return the tenant themselves, as of users and keys.

`decide` and `settle_uncertain` get the id of an approval that was found for the tenant; `test_the_api` tries one of
another tenant.
"""


def calls_without_tenant(text: str, queries: set[str]) -> Iterator[str]:
    """The calls of queries in a module's text that do not name the tenant, with their lines.

    A call names it by an argument `tenant`, or if all its arguments are attributes of what such a call returned in
    the same function.
    """
    for function in (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    ):
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        of_tenant = {
            name.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and names_tenant(operation(node.value))
            for target in node.targets
            for name in ast.walk(target)
            if isinstance(name, ast.Name)
        }
        of_tenant |= {
            node.target.id
            for node in ast.walk(function)
            if isinstance(node, ast.comprehension)
            and isinstance(node.target, ast.Name)
            and isinstance(node.iter, ast.Name)
            and node.iter.id in of_tenant
        }
        for call in calls:
            assert isinstance(call.func, ast.Name)
            if call.func.id in queries and not names_tenant(call) and not uses_only(call, of_tenant):
                yield f"{call.func.id} in line {call.lineno}"


def operation(call: ast.Call) -> ast.Call:
    """The call that makes the operation, if `call` runs one on a connection."""
    return call.func if isinstance(call.func, ast.Call) else call


def names_tenant(call: ast.Call) -> bool:
    """Whether the tenant is among a call's arguments."""
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(isinstance(argument, ast.Name) and argument.id == "tenant" for argument in arguments)


def uses_only(call: ast.Call, names: set[str]) -> bool:
    """Whether all arguments of a call, apart from the time, are attributes of these variables."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    arguments = [argument for argument in given if not (isinstance(argument, ast.Name) and argument.id == "now")]
    return bool(arguments) and all(
        isinstance(argument, ast.Attribute) and isinstance(argument.value, ast.Name) and argument.value.id in names
        for argument in arguments
    )


def test_every_query_names_the_tenant() -> None:
    """Every query of the server names the tenant; only `queries` reads tenants' data, and `eval_queries` the evals'."""
    queries = store_queries() - WITHOUT_TENANT
    assert {"load_run", "load_trace", "load_payload", "load_spending", "spend_by"} <= queries
    assert {"_load_run_detail", "_load_overview", "_load_trace_detail", "_load_span"} <= queries
    files = {str(file.relative_to(SERVER)): file.read_text() for file in SERVER.rglob("*.py")}
    calls = {name: list(calls_without_tenant(text, queries)) for name, text in files.items()}
    assert {name: lines for name, lines in calls.items() if lines} == {}
    callers = {
        name
        for name, text in files.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in queries
    }
    assert callers == {"queries.py", "eval_queries.py"}


def test_the_tenant_of_queries_is_the_visible_one() -> None:
    """Wherever the server makes `Queries`, `visible_tenant` decides the tenant."""
    calls = {
        (str(file.relative_to(SERVER)), ast.unparse(node))
        for file in SERVER.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "Queries"
    }
    assert calls == {
        ("api/dependencies.py", "Queries(app_state(request).runtime, visible_tenant(principal.tenant, tenant))"),
        ("pages/context.py", "Queries(state.runtime, visible_tenant(principal.tenant, tenant))"),
    }


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        ("return load_run(run_id, now, tenant)(conn)", False),
        ("return load_run(run_id, now)(conn)", True),
        ("return spend_by(key=key, tenant=tenant)(conn)", False),
        ("return spend_by(key=key, tenant=None)(conn)", True),
        ("run = load_run(run_id, now, tenant)(conn)\n    return load_input(run.run_id)(conn)", False),
        ("run = load_run(run_id, now, tenant)(conn)\n    return load_input(run_id)(conn)", True),
        ("run = load_run(run_id, now)(conn)\n    return load_input(run.run_id)(conn)", True),
        ("run = load_run(run_id, now, tenant)(conn)\n    return load_input(run.run_id, now)(conn)", False),
        ("return load_input(now)(conn)", True),
    ],
)
def test_calls_without_tenant(body: str, reported: bool) -> None:
    """A query without a tenant is reported; one with it, or with attributes of such a query's result, is not."""
    text = f"def query(conn, run_id, now, key, tenant):\n    {body}\n"
    assert bool(list(calls_without_tenant(text, {"load_run", "load_input", "spend_by"}))) is reported

"""The API conforms to its OpenAPI document for generated requests."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

from handrail import Runtime
from handrail.access.api_keys import SCOPES
from tests.server.conftest import make_key
from tests.server.live_server import LOGIN_REQUIRED, LiveServer, live_server
from tests.server.shop import Shop
from tests.server.shop import settings as shop_settings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server without prices, so that no run is refused by a ceiling."""
    runtime = Runtime(shop_settings(tmp_path_factory.mktemp("document"), prices={}))
    with live_server(runtime, Shop().find, LOGIN_REQUIRED) as started:
        yield started
    runtime.close()


OPERATIONS = (
    "POST /v1/agents/{name}/runs",
    "GET /v1/runs/{run_id}",
    "POST /v1/runs/{run_id}/feedback",
    "GET /v1/approvals",
    "POST /v1/approvals/{approval_id}/approve",
    "POST /v1/approvals/{approval_id}/deny",
    "POST /v1/approvals/{approval_id}/settlement",
    "POST /v1/traces",
    "GET /v1/traces",
    "GET /v1/traces/{trace_id}",
    "GET /v1/steps",
    "GET /v1/costs",
)

NOT_CHECKED = [ignored_auth, negative_data_rejection, positive_data_acceptance]
"""Authentication has its own tests, and a request that is valid by the schema may still be refused."""


@pytest.fixture(scope="module")
def document(server: LiveServer) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/v1/openapi.json")


@pytest.fixture(scope="module")
def known_ids(server: LiveServer) -> dict[str, str]:
    """The ids of stored resources, by the names of path parameters."""
    with server.client(make_key(server.runtime, "acme", "run")) as client:
        waiting = client.post("/v1/agents/shop/runs", json={"input": "refund", "user": "u"}).json()["approvals"][0]
        answered = client.post("/v1/agents/shop/runs", json={"input": "x", "user": "u"}).json()
    return {
        "name": "shop",
        "run_id": answered["run_id"],
        "trace_id": answered["trace_id"],
        "approval_id": waiting["approval_id"],
    }


def test_every_operation_is_tested(document: Any) -> None:
    """OPERATIONS lists exactly the operations of the document."""
    assert sorted(result.ok().label for result in document.get_all_operations()) == sorted(OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_responses_conform_to_the_document(
    server: LiveServer, document: Any, known_ids: dict[str, str], operation: str
) -> None:
    """Every response has a documented status, media type and body, and none is a server error."""
    method, _, path = operation.partition(" ")
    headers = {"authorization": f"Bearer {make_key(server.runtime, 'acme', *SCOPES)}"}

    @given(document[path][method].as_strategy(), st.sampled_from([True, True, False]))
    @settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
    def check(case: Any, known: bool) -> None:
        if known:
            case.path_parameters.update((name, known_ids[name]) for name in case.path_parameters)
        case.call_and_validate(headers=headers, excluded_checks=NOT_CHECKED)

    check()


def test_the_document_has_examples(server: LiveServer) -> None:
    """Every JSON request body has an example, and every operation documents its problems."""
    with server.client() as client:
        document = client.get("/v1/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(operations) >= 7
    for operation in operations:
        problem = operation["responses"]["404"]["content"]["application/problem+json"]["schema"]
        assert problem == {"$ref": "#/components/schemas/Problem"}
        for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
            if media_type == "application/json" and "$ref" in body["schema"]:
                name = body["schema"]["$ref"].rpartition("/")[2]
                assert document["components"]["schemas"][name]["examples"], name

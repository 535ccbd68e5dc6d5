"""The API does what its OpenAPI document says, whatever is sent."""

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
from tests.server.serving import LOGIN, Served, served
from tests.server.shop import Shop
from tests.server.shop import settings as shop_settings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server without ceilings, so that any number of runs is served."""
    runtime = Runtime(shop_settings(tmp_path_factory.mktemp("document"), prices={}))
    with served(runtime, Shop().find, LOGIN) as started:
        yield started
    runtime.close()


OPERATIONS = (
    "POST /v1/agents/{name}/runs",
    "GET /v1/runs/{run_id}",
    "POST /v1/runs/{run_id}/feedback",
    "GET /v1/approvals",
    "POST /v1/approvals/{approval_id}/approve",
    "POST /v1/approvals/{approval_id}/deny",
    "POST /v1/traces",
    "GET /v1/traces",
    "GET /v1/traces/{trace_id}",
    "GET /v1/steps",
    "GET /v1/costs",
)

NOT_CHECKED = [ignored_auth, negative_data_rejection, positive_data_acceptance]
"""That nobody comes in without a key is another test's; what is valid as a document may still be refused."""


@pytest.fixture(scope="module")
def document(server: Served) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/v1/openapi.json")


@pytest.fixture(scope="module")
def known_ids(server: Served) -> dict[str, str]:
    """What is there to be asked for, by the names that paths have for it."""
    with server.client(make_key(server.runtime, "acme", "run")) as client:
        waiting = client.post("/v1/agents/shop/runs", json={"input": "refund", "user": "u"}).json()["approvals"][0]
        answered = client.post("/v1/agents/shop/runs", json={"input": "x", "user": "u"}).json()
    return {
        "name": "shop",
        "run_id": answered["run_id"],
        "trace_id": answered["trace_id"],
        "approval_id": waiting["approval_id"],
    }


def test_every_operation_is_tried(document: Any) -> None:
    """The operations that are tried here are those that the document has."""
    assert sorted(each.ok().label for each in document.get_all_operations()) == sorted(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_document_holds(server: Served, document: Any, known_ids: dict[str, str], operation: str) -> None:
    """Every answer has a status, a media type and a body that the document names, and none is a server's error."""
    method, _, path = operation.partition(" ")
    headers = {"authorization": f"Bearer {make_key(server.runtime, 'acme', *SCOPES)}"}

    @given(document[path][method].as_strategy(), st.sampled_from([True, True, False]))
    @settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
    def holds(case: Any, known: bool) -> None:
        if known:
            case.path_parameters.update((name, known_ids[name]) for name in case.path_parameters)
        case.call_and_validate(headers=headers, excluded_checks=NOT_CHECKED)

    holds()


def test_the_document_has_examples(server: Served) -> None:
    """Everything that is sent as JSON has an example, and every operation tells its problems."""
    with server.client() as client:
        found = client.get("/v1/openapi.json").json()
    operations = [operation for path in found["paths"].values() for operation in path.values()]
    assert len(operations) >= 7
    for operation in operations:
        problem = operation["responses"]["404"]["content"]["application/problem+json"]["schema"]
        assert problem == {"$ref": "#/components/schemas/Problem"}
        for kind, sent in operation.get("requestBody", {}).get("content", {}).items():
            if kind == "application/json" and "$ref" in sent["schema"]:
                name = sent["schema"]["$ref"].rpartition("/")[2]
                assert found["components"]["schemas"][name]["examples"], name

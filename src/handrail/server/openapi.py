"""The OpenAPI document: adds the problem responses that every operation of the API may have."""

from typing import Any

from fastapi import FastAPI

from .problems import MEDIA_TYPE

_PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "An error (RFC 9457). `code` is stable; `detail` is for people.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
    },
    "example": {
        "type": "urn:handrail:problem:not_found",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no run run_01k8w5c3f9x2v7m4n6p8q0r1s3",
        "code": "not_found",
        "request_id": "6f1c1a3e0b6d4b6f9f0f6a1d0f3c2b1a",
    },
}
_DESCRIPTIONS = {
    "400": "The request is malformed.",
    "401": "The API key is missing, unknown or revoked.",
    "403": "The key lacks the scope, or the named person may not decide.",
    "404": "Not found, or it belongs to another tenant.",
    "409": "It conflicts with an earlier decision or request.",
    "413": "The body is too large.",
    "421": "The request addresses another host, or comes from another site's page.",
    "422": "The request does not match this document.",
    "429": "The rate limit is exceeded, or a ceiling refuses the run; see Retry-After.",
    "500": "An internal error.",
    "503": "The database is unavailable.",
}


def add_problem_responses(app: FastAPI) -> None:
    """Makes `app.openapi` document the problem responses of every operation."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schemas = document["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["Problem"] = _PROBLEM_SCHEMA
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].update(_responses())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # how FastAPI lets its document be extended


def _responses() -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": text, "content": content} for status, text in _DESCRIPTIONS.items()}

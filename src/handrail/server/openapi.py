"""The OpenAPI document: every way an answer of the API can be a problem, said once."""

from typing import Any

from fastapi import FastAPI

from .problems import MEDIA_TYPE

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "Why there is no answer (RFC 9457). `code` is stable; `detail` is for people.",
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
_PROBLEMS = {
    "400": "The request cannot be understood.",
    "401": "The API key is missing, unknown or revoked.",
    "403": "The key may not do this, or this person may not decide.",
    "404": "There is no such thing, or it is another tenant's.",
    "409": "It was decided or begun before.",
    "413": "The body is too large.",
    "421": "The request is not meant for this server.",
    "422": "The request is not as this document says.",
    "429": "Too many requests, or a ceiling refuses the run; see Retry-After.",
    "500": "A fault of the server's.",
    "503": "The store cannot be used right now.",
}


def document_problems(app: FastAPI) -> None:
    """Has `app.openapi` tell the problems, too."""
    without = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = without()
            schemas = document["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["Problem"] = _PROBLEM
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].update(_responses())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # how FastAPI lets its document be extended


def _responses() -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": text, "content": content} for status, text in _PROBLEMS.items()}

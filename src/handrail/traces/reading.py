"""Reads a finished OpenTelemetry span into a stored one. Names: OpenTelemetry semantic conventions for GenAI, 2026-10.

They are string literals because the constants of the Python package are marked as moved.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import StatusCode

from handrail.kernel import NanoUsd

from .span import Kind, Span, Usage

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_KINDS: Mapping[str, Kind] = {
    "invoke_agent": "agent",
    "chat": "model",
    "execute_tool": "tool",
    "await_approval": "wait",
}

OPERATION = "gen_ai.operation.name"
AGENT = "gen_ai.agent.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens"
TOOL = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
CONVERSATION = "gen_ai.conversation.id"
ERROR = "error.type"
USER = "enduser.id"
# No convention names these: tenant, run, cost and the retry relation are ours.
TENANT = "tenant.id"
RUN = "handrail.run.id"
COST = "handrail.cost.nano_usd"
FINGERPRINT = "handrail.agent.fingerprint"
ATTEMPT = "retry.attempt"
RETRY_OF = "retry.of"
HELD = "handrail.hold.nano_usd"
HELD_INPUT = "handrail.hold.input_tokens"
HELD_OUTPUT = "handrail.hold.output_tokens"
APPROVAL = "handrail.approval"
APPROVAL_ID = "handrail.approval.id"
DECIDED_BY = "handrail.approval.decided_by"

_COLUMNS = frozenset(
    {OPERATION, AGENT, PROVIDER, REQUEST_MODEL, RESPONSE_MODEL, INPUT_TOKENS, OUTPUT_TOKENS, CACHE_READ, CACHE_WRITE}
    | {ERROR, USER, TENANT, RUN, COST, ATTEMPT, RETRY_OF, HELD, CONVERSATION, FINGERPRINT}
)


def read_span(span: "ReadableSpan", payload: Mapping[str, Any] | None) -> Span:
    """The stored form of `span`, which has ended; attributes without a column of their own are kept as they are."""
    found = dict(span.attributes or {})
    context = span.get_span_context()
    assert context
    assert span.start_time
    assert span.end_time
    failed = span.status.status_code is StatusCode.ERROR
    error = found.get(ERROR) or ("error" if failed else None)
    return Span(
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id=f"{span.parent.span_id:016x}" if span.parent else None,
        kind=_KINDS.get(str(found.get(OPERATION)), "step"),
        name=span.name,
        start_ns=span.start_time,
        end_ns=span.end_time,
        tenant=str(found.get(TENANT, "")),
        user=str(found.get(USER, "")),
        agent=str(found.get(AGENT, "")),
        run_id=str(found.get(RUN, "")),
        error_type=None if error is None else str(error),
        provider=_text(found, PROVIDER),
        model=_text(found, RESPONSE_MODEL) or _text(found, REQUEST_MODEL),
        usage=Usage(
            input=_whole(found, INPUT_TOKENS),
            output=_whole(found, OUTPUT_TOKENS),
            cache_read=_whole(found, CACHE_READ),
            cache_write=_whole(found, CACHE_WRITE),
        ),
        cost=NanoUsd(_whole(found, COST)),
        held=None if HELD not in found else NanoUsd(_whole(found, HELD)),
        conversation_id=_text(found, CONVERSATION),
        fingerprint=_text(found, FINGERPRINT),
        attempt=_whole(found, ATTEMPT) or 1,
        retry_of=_text(found, RETRY_OF),
        attributes={name: value for name, value in found.items() if name not in _COLUMNS},
        payload=payload,
    )


def _text(found: Mapping[str, Any], name: str) -> str | None:
    value = found.get(name)
    return None if value is None else str(value)


def _whole(found: Mapping[str, Any], name: str) -> int:
    value = found.get(name, 0)
    return value if isinstance(value, int) else 0

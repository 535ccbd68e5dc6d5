"""Semantic conventions: every attribute name that is read from a span, in each dialect, and the field it maps to.

A new dialect is added here and nowhere else: `normalize.py`, `payloads.py` and the OTLP decoders work by these tables.

The dialects, and who sends them:

- OpenTelemetry's GenAI conventions of 2026-10 (`gen_ai.*`) and the names they replaced: Pydantic AI, Logfire, the
  official OpenTelemetry instrumentations, Handrail itself.
- OpenInference (`llm.*`, `openinference.*`, `input.value`): Arize Phoenix's instrumentations.
- Langfuse v4 (`langfuse.*`): its SDKs.
- OpenLLMetry (`traceloop.*`, `llm.usage.*`, `llm.request.type`): Traceloop's instrumentations.
- Vercel's AI SDK sends `gen_ai.*` names, which are read, beside its own `ai.*`, which stay among the attributes.

The names are string literals because the constants of OpenTelemetry's Python packages are marked as moved.
"""

from collections.abc import Mapping

from .model import Kind

# --- Names that Handrail itself records and exports ---

OPERATION = "gen_ai.operation.name"
AGENT = "gen_ai.agent.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE = "gen_ai.usage.cache_write.input_tokens"
CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens"
REASONING = "gen_ai.usage.reasoning.output_tokens"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
FINISH = "gen_ai.response.finish_reasons"
TOOL = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
CONVERSATION = "gen_ai.conversation.id"
PROMPT = "gen_ai.prompt.name"
PROMPT_VERSION = "gen_ai.prompt.version"
ERROR = "error.type"
USER = "enduser.id"
REPORTED_COST = "gen_ai.usage.cost"
# No convention covers these, so the names are ours.
TENANT = "tenant.id"
RUN = "handrail.run.id"
COST = "handrail.cost.nano_usd"
PRICE_UNKNOWN = "handrail.price.unknown"
FINGERPRINT = "handrail.agent.fingerprint"
UNBOUNDED = "handrail.cost.unbounded"
"""What made the cost of a request unbounded, where the operator allows that."""
ESTIMATED = "handrail.cost.estimated"
"""Whether a cost is an upper bound, because the provider did not say what a request used."""
ATTEMPT = "retry.attempt"
RETRY_OF = "retry.of"
HELD = "handrail.hold.nano_usd"
HELD_INPUT = "handrail.hold.input_tokens"
HELD_OUTPUT = "handrail.hold.output_tokens"
APPROVAL = "handrail.approval"
APPROVAL_ID = "handrail.approval.id"
DECIDED_BY = "handrail.approval.decided_by"
REDACTION = "handrail.redaction"
EVALUATIONS = "handrail.evaluations"
LINKS = "handrail.links"

# --- Attributes that hold a JSON mapping (Langfuse) ---

USAGE_DETAILS = "langfuse.observation.usage_details"
COST_DETAILS = "langfuse.observation.cost_details"
JSON_ATTRIBUTES = (USAGE_DETAILS, COST_DETAILS)
"""An entry is read under the attribute's name, a dot and its key."""

# --- What a span timed ---

KIND_VALUES: Mapping[str, Mapping[str, Kind]] = {
    OPERATION: {
        "invoke_agent": "agent",
        "invoke_workflow": "agent",
        "chat": "model",
        "generate_content": "model",
        "text_completion": "model",
        "embeddings": "model",
        "execute_tool": "tool",
        "retrieval": "step",
        "create_agent": "step",
        "await_approval": "wait",
        # Of a model that has another one answer: Handrail's own.
        "delegate": "step",
    },
    "openinference.span.kind": {
        "AGENT": "agent",
        "LLM": "model",
        "EMBEDDING": "model",
        "TOOL": "tool",
        "CHAIN": "step",
        "RETRIEVER": "step",
        "RERANKER": "step",
        "GUARDRAIL": "step",
        "EVALUATOR": "step",
        "PROMPT": "step",
    },
    "langfuse.observation.type": {
        "agent": "agent",
        "generation": "model",
        "embedding": "model",
        "tool": "tool",
        "span": "step",
        "event": "step",
        "chain": "step",
        "retriever": "step",
        "guardrail": "step",
        "evaluator": "step",
    },
    "traceloop.span.kind": {"agent": "agent", "tool": "tool", "workflow": "step", "task": "step"},
    "llm.request.type": {"chat": "model", "completion": "model", "embedding": "model", "rerank": "step"},
}
"""Attributes that state a span's kind, the most trusted first; the first with a known value decides.

In order: OpenTelemetry, OpenInference, Langfuse, and two of OpenLLMetry's.
"""

DEFAULT_KIND_VALUES: Mapping[str, Mapping[Kind, str]] = {
    OPERATION: {"agent": "invoke_agent", "model": "chat", "tool": "execute_tool", "wait": "await_approval"},
    "openinference.span.kind": {"agent": "AGENT", "model": "LLM", "tool": "TOOL"},
    "langfuse.observation.type": {"agent": "agent", "model": "generation", "tool": "tool", "step": "span"},
}
"""The value that says no more than the kind does: it is dropped when a span is read, and restored on export."""

# --- Fields ---

# Every token count is sent under three prefixes: the conventions', Pydantic AI's details, and Langfuse's.
_TOKEN_PREFIXES = ("gen_ai.usage.", "gen_ai.usage.details.", f"{USAGE_DETAILS}.")
# The spelling of the providers' own APIs, which clients that do not normalise pass through.
_ANTHROPIC_CACHE_READ = "cache_read_input_tokens"
_ANTHROPIC_CACHE_WRITE = ("cache_creation_input_tokens", "cache_write_input_tokens")
_CACHE_READ_KEYS = (
    _ANTHROPIC_CACHE_READ,
    "cache_read_tokens",
    "input_cached_tokens",
    "cached_input_tokens",
    "input_cache_read",
)
_CACHE_WRITE_KEYS = (*_ANTHROPIC_CACHE_WRITE, "cache_write_tokens", "cache_creation_tokens", "input_cache_creation")


def _token_names(*keys: str) -> tuple[str, ...]:
    return tuple(prefix + key for prefix in _TOKEN_PREFIXES for key in keys)


FIELD_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "agent": (AGENT, "gen_ai.workflow.name", "agent.name", "graph.node.name", "graph.node.id", "gen_ai.agent.id"),
    "provider": (PROVIDER, "gen_ai.system", "llm.provider", "llm.system"),
    "response model": (RESPONSE_MODEL, "llm.response.model_name"),
    "request model": (
        REQUEST_MODEL,
        "llm.request.model_name",
        "llm.model_name",
        "embedding.model_name",
        "langfuse.observation.model.name",
    ),
    "input": (
        *_token_names("input_tokens", "prompt_tokens", "input"),
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
    ),
    "output": (
        *_token_names("output_tokens", "completion_tokens", "output"),
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
    ),
    "total": ("llm.token_count.total", "llm.usage.total_tokens", *_token_names("total_tokens", "total")),
    "cache read": (CACHE_READ, "llm.token_count.prompt_details.cache_read", *_token_names(*_CACHE_READ_KEYS)),
    "cache write": (
        CACHE_WRITE,
        CACHE_CREATION,
        "llm.token_count.prompt_details.cache_write",
        *_token_names(*_CACHE_WRITE_KEYS),
    ),
    "reasoning": (
        REASONING,
        "llm.token_count.completion_details.reasoning",
        *_token_names("reasoning_tokens", "output_reasoning_tokens"),
    ),
    "conversation": (CONVERSATION, "session.id", "langfuse.session.id"),
    "user": (USER, "user.id", "langfuse.user.id"),
    "tenant": (TENANT, "baggage.tenant.id", "langfuse.trace.metadata.tenant.id"),
    "run": (RUN,),
    "tool": (TOOL, "tool.name"),
    "tool call": (TOOL_CALL_ID, "tool.id", "tool_call.id"),
    "reported cost": (REPORTED_COST, "llm.cost.total", f"{COST_DETAILS}.total", "operation.cost"),
    "cost": (COST,),
    "held": (HELD,),
    "prompt": (PROMPT, "langfuse.observation.prompt.name"),
    "prompt version": (PROMPT_VERSION, "llm.prompt_template.version", "langfuse.observation.prompt.version"),
    "error": (ERROR,),
    "finish": (FINISH, "llm.finish_reason"),
    "first token": (FIRST_CHUNK,),
    "first token at": ("langfuse.observation.completion_start_time",),
    "fingerprint": (FINGERPRINT,),
    "attempt": (ATTEMPT,),
    "retry of": (RETRY_OF,),
}
"""Each field of a span, and the attributes it may be sent under, the most trusted first."""

COST_PARTS = ("llm.cost.prompt", "llm.cost.completion")
"""OpenInference's parts of the cost in dollars, added up if there is no total."""

CACHE_COUNTED_APART = frozenset(
    {f"{USAGE_DETAILS}.{key}" for key in (*_CACHE_READ_KEYS, *_CACHE_WRITE_KEYS)}
    | {f"gen_ai.usage.{key}" for key in (_ANTHROPIC_CACHE_READ, *_ANTHROPIC_CACHE_WRITE)}
)
"""Cache counts whose input count leaves them out: Anthropic's and Bedrock's own names, and Langfuse's details."""

CANONICAL_NAMES: Mapping[str, str] = {
    "reasoning": REASONING,
    "tool": TOOL,
    "tool call": TOOL_CALL_ID,
    "prompt": PROMPT,
    "prompt version": PROMPT_VERSION,
}
"""Fields without a column, and the one name under which each is kept among the attributes."""

# --- Events that are read into fields ---

FIRST_TOKEN_EVENTS = frozenset(
    {"First Token Stream Event", "gen_ai.content.completion.chunk", "llm.content.completion.chunk"}
)
"""Events that mark streamed output: OpenInference's, and OpenLLMetry's for each chunk."""
EVALUATION_EVENT = "gen_ai.evaluation.result"
"""OpenTelemetry's event for the result of an evaluation."""
EVALUATION_FIELDS: Mapping[str, str] = {
    "gen_ai.evaluation.name": "name",
    "gen_ai.evaluation.score.value": "score",
    "gen_ai.evaluation.score.label": "label",
}

# --- Content: what users, models and tools wrote ---

PAYLOAD_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "in": (
        "gen_ai.input.messages",
        "gen_ai.tool.call.arguments",
        "llm.input_messages",
        "gen_ai.prompt",
        "tool_arguments",
        "input.value",
        "langfuse.observation.input",
        "traceloop.entity.input",
        "tool.parameters",
        "langfuse.trace.input",
    ),
    "out": (
        "gen_ai.output.messages",
        "gen_ai.tool.call.result",
        "llm.output_messages",
        "gen_ai.completion",
        "tool_response",
        "output.value",
        "langfuse.observation.output",
        "traceloop.entity.output",
        "langfuse.trace.output",
    ),
    "instructions": ("gen_ai.system_instructions",),
    "tools": ("gen_ai.tool.definitions", "llm.tools"),
    "documents": ("retrieval.documents", "gen_ai.retrieval.documents"),
}
"""Each slot of a payload, and the attributes it may be sent under, the most trusted first.

The first one present fills the slot; any others are kept in the payload under their own names.
"""

PAYLOAD_KEYS: Mapping[Kind, Mapping[str, str]] = {
    "model": {"in": "messages", "out": "response"},
    "tool": {"in": "arguments", "out": "result"},
}
"""The keys of the slots `in` and `out` in a payload, by kind; `input` and `output` for the other kinds."""

CONTENT_ATTRIBUTES = frozenset(
    {
        "all_messages_events",
        "events",
        "exception.message",
        "exception.stacktrace",
        "final_result",
        "gen_ai.retrieval.query.text",
        "gen_ai.evaluation.explanation",
        "langfuse.observation.status_message",
        "llm.prompt_template.template",
        "llm.prompt_template.variables",
        "pydantic_ai.all_messages",
    }
    | {name for names in PAYLOAD_ATTRIBUTES.values() for name in names}
)
"""Attributes that hold content; they are kept in the payload only."""

FLATTENED_LISTS = (
    "embedding.embeddings",
    "evaluations",
    "gen_ai.completion",
    "gen_ai.prompt",
    "llm.choices",
    "llm.input_messages",
    "llm.output_messages",
    "llm.prompts",
    "llm.tools",
    "reranker.input_documents",
    "reranker.output_documents",
    "retrieval.documents",
)
"""Lists that OpenInference and OpenLLMetry send one value at a time, as `name.<i>.key`; all of them are content."""

MESSAGE_EVENTS: Mapping[str, str] = {
    "gen_ai.system.message": "in",
    "gen_ai.user.message": "in",
    "gen_ai.assistant.message": "in",
    "gen_ai.tool.message": "in",
    "gen_ai.choice": "out",
}
"""Events that hold one message each (OpenTelemetry's conventions before 2025-08)."""
DETAIL_EVENTS = frozenset(
    {"gen_ai.client.inference.operation.details", "gen_ai.content.prompt", "gen_ai.content.completion"}
)
"""Events whose attributes are read as the span's own (OpenTelemetry, now and in older versions)."""

# --- Resource and scope ---

RESOURCE_ATTRIBUTES = frozenset(
    {
        "deployment.environment",
        "deployment.environment.name",
        "openinference.project.name",
        "service.name",
        "service.version",
        AGENT,
        TENANT,
    }
)
"""Attributes of the sender's resource that each of its spans gets, unless it has its own."""
SCOPE = "otel.scope.name"

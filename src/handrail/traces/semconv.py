"""What programs call things: every attribute name that is read from a span, and what it stands for.

Sources: OpenTelemetry's GenAI conventions (2026-10, and the names before them), OpenInference, Langfuse's names (v4),
OpenLLMetry, Pydantic AI. They are string literals because the constants of the Python packages are marked as moved.
`reading.py` is what reads by these tables.
"""

from collections.abc import Mapping

from .model import Kind

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
# No convention names these: tenant, run, cost and the retry relation are ours.
TENANT = "tenant.id"
RUN = "handrail.run.id"
COST = "handrail.cost.nano_usd"
PRICE_UNKNOWN = "handrail.price.unknown"
FINGERPRINT = "handrail.agent.fingerprint"
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

USAGE_DETAILS = "langfuse.observation.usage_details"
COST_DETAILS = "langfuse.observation.cost_details"
DETAILS = (USAGE_DETAILS, COST_DETAILS)
"""Attributes that hold JSON mappings; an entry is read under the attribute's name, a dot and its key."""

KINDS: Mapping[str, Mapping[str, Kind]] = {
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
"""Attributes that say what a span timed, the most trusted first; the first of them with a known value decides."""

PLAINEST: Mapping[str, Mapping[Kind, str]] = {
    OPERATION: {"agent": "invoke_agent", "model": "chat", "tool": "execute_tool", "wait": "await_approval"},
    "openinference.span.kind": {"agent": "AGENT", "model": "LLM", "tool": "TOOL"},
    "langfuse.observation.type": {"agent": "agent", "model": "generation", "tool": "tool", "step": "span"},
}
"""Values of those attributes that say no more than the kind does."""

_TOKENS = ("gen_ai.usage.", "gen_ai.usage.details.", f"{USAGE_DETAILS}.")
_RAW_READ = "cache_read_input_tokens"
_RAW_WRITE = ("cache_creation_input_tokens", "cache_write_input_tokens")
_READ = (_RAW_READ, "cache_read_tokens", "input_cached_tokens", "cached_input_tokens", "input_cache_read")
_WRITE = (*_RAW_WRITE, "cache_write_tokens", "cache_creation_tokens", "input_cache_creation")


def _each(*keys: str) -> tuple[str, ...]:
    return tuple(prefix + key for prefix in _TOKENS for key in keys)


NAMES: Mapping[str, tuple[str, ...]] = {
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
        *_each("input_tokens", "prompt_tokens", "input"),
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
    ),
    "output": (
        *_each("output_tokens", "completion_tokens", "output"),
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
    ),
    "total": ("llm.token_count.total", "llm.usage.total_tokens", *_each("total_tokens", "total")),
    "cache read": (CACHE_READ, "llm.token_count.prompt_details.cache_read", *_each(*_READ)),
    "cache write": (CACHE_WRITE, CACHE_CREATION, "llm.token_count.prompt_details.cache_write", *_each(*_WRITE)),
    "reasoning": (
        REASONING,
        "llm.token_count.completion_details.reasoning",
        *_each("reasoning_tokens", "output_reasoning_tokens"),
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
"""What a span says, to the names it may say it under, the most trusted first."""

COST_PARTS = ("llm.cost.prompt", "llm.cost.completion")
"""Dollars that add up to the reported cost where no total is given."""

WITHOUT_CACHE = frozenset(
    {f"{USAGE_DETAILS}.{key}" for key in (*_READ, *_WRITE)}
    | {f"gen_ai.usage.{key}" for key in (_RAW_READ, *_RAW_WRITE)}
)
"""Cache counts that stand beside an input count which leaves them out: Anthropic's and Bedrock's own, and Langfuse's,
whose details are parts of a sum."""

RENAMED: Mapping[str, str] = {
    "reasoning": REASONING,
    "tool": TOOL,
    "tool call": TOOL_CALL_ID,
    "prompt": PROMPT,
    "prompt version": PROMPT_VERSION,
}
"""What has no field of its own, and the one name under which it is kept among the attributes."""

FIRST_TOKEN_EVENTS = frozenset(
    {"First Token Stream Event", "gen_ai.content.completion.chunk", "llm.content.completion.chunk"}
)
EVALUATION_EVENT = "gen_ai.evaluation.result"
EVALUATION: Mapping[str, str] = {
    "gen_ai.evaluation.name": "name",
    "gen_ai.evaluation.score.value": "score",
    "gen_ai.evaluation.score.label": "label",
}

SAID: Mapping[str, tuple[str, ...]] = {
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
"""What was said, to the names it may be said under. The first that is there takes the place; others keep theirs."""

PLACES: Mapping[Kind, Mapping[str, str]] = {
    "model": {"in": "messages", "out": "response"},
    "tool": {"in": "arguments", "out": "result"},
}
"""What the payload calls what went in and came out, by kind; `input` and `output` where nothing is said here."""

CONTENT = frozenset(
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
    | {name for names in SAID.values() for name in names}
)
"""Attributes whose value is what people or models said."""

LISTS = (
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
"""Lists that are spread over attributes, `name.<i>.key`; content, all of them."""

MESSAGE_EVENTS: Mapping[str, str] = {
    "gen_ai.system.message": "in",
    "gen_ai.user.message": "in",
    "gen_ai.assistant.message": "in",
    "gen_ai.tool.message": "in",
    "gen_ai.choice": "out",
}
"""Span events that are a message each, as the conventions before 2025-08 had them."""
DETAIL_EVENTS = frozenset(
    {"gen_ai.client.inference.operation.details", "gen_ai.content.prompt", "gen_ai.content.completion"}
)
"""Span events whose attributes are the span's own, sent apart."""

RESOURCE = frozenset(
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
"""What of a program's description is kept with each of its spans; a span's own attributes go first."""
SCOPE = "otel.scope.name"

"""A simulated month of production: the same spans for the same seed, generated lazily.

Ten spans a trace on average; twenty tenants, a few of which make up most of the traffic; log-normal durations; costs
with a heavy tail; one span in a hundred fails. Content is cut from one long text, so that it compresses like text.
"""

import math
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from handrail.kernel.clock import unix_ns
from handrail.kernel.money import NanoUsd
from handrail.traces.model import Kind, Span, Usage

SINCE = datetime(2026, 9, 1, 8, 30, tzinfo=UTC)
DAYS = 30
UNTIL = SINCE + timedelta(days=DAYS)
TENANTS = 20
USERS = 2_000
SPANS_PER_TRACE = 10
_NS = 1_000_000_000

# Kind, name, seconds (the median), spread of its logarithm.
_MODELS: Sequence[tuple[Kind, str, float, float]] = (
    ("model", "chat claude-haiku-4-5", 1.1, 0.4),
    ("model", "chat claude-sonnet-5", 2.6, 0.5),
)
_TOOLS: Sequence[tuple[Kind, str, float, float]] = (
    ("tool", "execute_tool find_order", 0.05, 0.6),
    ("tool", "execute_tool refund", 0.3, 0.6),
    ("tool", "execute_tool crm", 1.9, 0.4),
    ("tool", "execute_tool send_mail", 0.5, 0.7),
    ("step", "retrieve", 0.08, 0.5),
    ("step", "rerank", 0.03, 0.4),
)
_TEXT = " ".join(f"word{n % 97} of order {n * 7919 % 10007}," for n in range(400))


def traces(count: int, seed: int = 4) -> Iterator[list[Span]]:
    """`count` traces in the order of their start, spread over DAYS from SINCE."""
    rng = random.Random(seed)
    first_ns, all_ns = unix_ns(SINCE), DAYS * 86_400 * _NS
    for number in range(count):
        yield _trace(rng, number, first_ns + all_ns * number // count, early=number * 2 < count)


def large_trace(spans: int) -> list[Span]:
    """One trace of that many spans: an agent that calls itself again and again, on the last day."""
    rng = random.Random(spans)
    trace_id, start_ns = f"{unix_ns(UNTIL) // 10**6:012x}{rng.getrandbits(80):020x}", unix_ns(UNTIL)
    generated: list[Span] = []
    while len(generated) < spans:
        parent = generated[-1] if generated else None
        generated += _trace(rng, len(generated), start_ns, early=False, trace_id=trace_id, parent=parent)
        start_ns = generated[-1].start_ns
    return generated[:spans]


def names() -> list[str]:
    """All span names."""
    return [step[1] for step in (*_MODELS, *_TOOLS)] + [f"invoke_agent agent-{number}" for number in range(3)]


def _trace(
    rng: random.Random,
    number: int,
    start_ns: int,
    *,
    early: bool,
    trace_id: str | None = None,
    parent: Span | None = None,
) -> list[Span]:
    tenant = min(TENANTS - 1, int(rng.paretovariate(0.8)) - 1)
    trace_id = trace_id or f"{start_ns // 10**6:012x}{rng.getrandbits(80):020x}"
    common: dict[str, Any] = {
        "trace_id": trace_id,
        "tenant": f"tenant-{tenant:02}",
        "user": f"user-{int(rng.random() ** 2 * USERS):05}",
        "agent": f"agent-{tenant % 3}",
        "run_id": f"run_{number:07}",
        "conversation_id": f"conversation-{number:07}",
        "fingerprint": f"{tenant % 3 * 2 + early:064x}",
    }
    root_id, now_ns = f"{rng.getrandbits(64):016x}", start_ns
    generated: list[Span] = []
    for index in range(max(2, round(rng.gauss(SPANS_PER_TRACE - 1, 2)))):
        kind, name, seconds, spread = rng.choice(_TOOLS if index % 2 else _MODELS)
        duration_ns = int(seconds * _NS * math.exp(rng.gauss(0, spread)))
        details = _request(rng, name, governed=tenant % 5 > 0) if kind == "model" else {}
        cut = rng.randrange(len(_TEXT) // 2)
        generated.append(
            Span(
                **common,
                **details,
                span_id=f"{rng.getrandbits(64):016x}",
                parent_id=root_id,
                kind=kind,
                name=name,
                start_ns=now_ns,
                end_ns=now_ns + duration_ns,
                error_type="timeout" if rng.random() < 0.01 else None,
                attributes={"gen_ai.tool.call.id": f"call_{number}_{index}"},
                payload={"input": _TEXT[cut : cut + 800], "output": _TEXT[cut + 300 : cut + 700]},
            )
        )
        now_ns += duration_ns
    root = Span(
        **common,
        span_id=root_id,
        parent_id=parent.span_id if parent else None,
        kind="agent",
        name=f"invoke_agent {common['agent']}",
        start_ns=start_ns,
        end_ns=now_ns,
    )
    return [*generated, root]


def _request(rng: random.Random, name: str, *, governed: bool) -> dict[str, Any]:
    input_tokens = min(int(1_500 * rng.paretovariate(1.4)), 200_000)
    output_tokens = input_tokens // 8
    cost = NanoUsd((input_tokens * 3 + output_tokens * 15) * (1_000 if "sonnet" in name else 300))
    return {
        "provider": "anthropic",
        "model": name.removeprefix("chat "),
        "usage": Usage(input=input_tokens, output=output_tokens, cache_read=input_tokens // 3),
        "cost": cost,
        "held": NanoUsd(cost * 2) if governed else None,
        "first_token_ns": 400_000_000,
    }

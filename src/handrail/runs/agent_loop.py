"""One agent's loop of model requests and tool calls within a run: the run's own agent, or one that a tool runs.

A run has one record, but each agent in it has messages, retries and repetitions of its own.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_ai.messages import FinishReason, ModelMessage, ModelRequest, RetryFeedbackPart, ToolReturnPart

from handrail.fallback.retry import Rejection

from .finish import OutputCut
from .loop_guard import LoopGuard
from .proposed_call import ProposedCall


@dataclass(frozen=True, kw_only=True)
class RetryRequest:
    """What is different about the model request that is the one stricter retry."""

    instruction: str
    retry_of: str | None
    """The id of the span of the request that is retried; None if another process sent it."""
    output_tokens: int
    """The tokens of the answer that was rejected; a retry that has less room is not made."""


class AgentLoop:
    """The state of one agent's loop.

    Args:
        requests: How many model requests the loop made before the run was resumed.
        message_count: How many of its messages the spans already have.
    """

    def __init__(self, requests: int = 0, message_count: int = 0) -> None:
        self.guard = LoopGuard(requests)
        self.started = False
        """Whether the loop has made a request in this process."""
        self.rejection: Rejection | None = None
        """The first thing that was wrong with the loop's latest response."""
        self.instruction = ""
        """The stricter instruction that the next request has to have, from before the run was resumed."""
        self.finishes: Sequence[FinishReason] = ()
        """The finish reasons that the stream of the latest response had so far."""
        self.left_early = False
        """Whether the reader of the latest response's stream left before its end."""
        self.retry: RetryRequest | None = None
        """What is different about the current request if it is the retry."""
        self.sent = 0
        """How many requests have reached a model."""
        self.calls: dict[str, ProposedCall] = {}
        """The tool calls of the latest response, by their ids, as their tools validated them."""
        self.one_action_at_a_time = asyncio.Lock()
        """Held while an approved action is executed."""
        self.asked_again: set[str] = set()
        """The ids of calls whose tools asked the model to try again, which is not malformed output."""
        self.output_tokens = 0
        """The output tokens of the latest response."""
        self.last_span_id: str | None = None
        self._message_count = message_count
        self._previous_count = message_count

    def begin_request(self, retry: RetryRequest | None) -> None:
        """Begins the loop's next request.

        Args:
            retry: What is different if it is the retry.
        """
        self.started = True
        self.rejection = None
        self.finishes = ()
        self.left_early = False
        self.retry = retry
        self.calls = {}
        self.asked_again = set()

    def take_new_messages(self, messages: Sequence[ModelMessage]) -> list[ModelMessage]:
        """Those of a request's messages that no earlier span has.

        Args:
            messages: All messages of the request.
        """
        new = list(messages[self._message_count :])
        self._previous_count = self._message_count
        # The response is kept with its own span, so the next request begins after it.
        self._message_count = len(messages) + 1
        return new

    def give_back_messages(self) -> None:
        """Makes the messages of the latest request new again, for another span that shows the same request."""
        self._message_count = self._previous_count

    def check_whole(self) -> None:
        """Raises OutputCut if the agent goes on with a response whose stream was left before its end."""
        if self.left_early:
            raise OutputCut("the stream was left before its end, so its part of an answer cannot be used")

    def repeats(self, messages: Sequence[ModelMessage]) -> Rejection | None:
        """What was wrong with the loop's latest response, if the next request has to repeat it; else None.

        Args:
            messages: The messages of the next request, as the agent keeps them.
        """
        last = messages[-1] if messages else None
        if not self.started or not isinstance(last, ModelRequest):
            return None
        checks = (self._rejects(part) for part in last.parts)
        check = next((check for check in checks if check is not None), None)
        return None if check is None else self.rejection or Rejection(check)

    def _rejects(self, part: Any) -> str | None:
        if isinstance(part, RetryFeedbackPart):
            return "find an answer" if part.retry.cause == "no_output" else "validate output"
        if isinstance(part, ToolReturnPart) and part.outcome == "retried" and part.tool_call_id not in self.asked_again:
            return "find the tool"
        return None

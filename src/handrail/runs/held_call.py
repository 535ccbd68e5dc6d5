"""A model request that is held and under way, and the requests that its model makes of itself or of others meanwhile.

A model class may extend one of Pydantic AI's and call what it extends: once, several times, with other settings, or it
may choose one of several models. What reaches the provider are then the inner requests, and each needs a hold of its
own or one that covers it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from handrail.traces import semconv
from handrail.traces.recorder.recorder import LiveSpan

from .agent_loop import AgentLoop
from .record import RunRecord
from .settlement import Settlement


class ModelCall:
    """A request with its hold: it is sent with `settings`, and its `settlement` happens exactly once.

    Args:
        record: The run's record.
        loop: The agent's loop that sends it; None if code other than an agent does.
        span: Its span.
        model: The model.
        messages: The messages.
        settings: The settings to send it with.
        parameters: Its tools, output and instructions.
        settlement: The hold.
    """

    def __init__(
        self,
        record: RunRecord,
        loop: AgentLoop | None,
        span: LiveSpan,
        model: Model,
        messages: Sequence[ModelMessage],
        settings: ModelSettings,
        parameters: ModelRequestParameters,
        settlement: Settlement,
    ) -> None:
        self.settings = settings
        self.settlement = settlement
        self._record = record
        self._loop = loop
        self._span = span
        self._model = model
        self._messages = messages
        self._parameters = parameters
        self._results: dict[int, ModelResponse | BaseException | None] = {}
        self._repeated: set[int] = set()

    def covers(
        self,
        depth: int,
        model: Model,
        messages: Sequence[ModelMessage],
        settings: Mapping[str, Any],
        parameters: ModelRequestParameters,
    ) -> bool:
        """Whether an inner request is the one that is held, so that it needs no hold of its own.

        It is if the same model sends the same, for the first time at this depth. Otherwise the hold goes back, or if it
        covered an earlier inner request, it is settled for that one.

        Args:
            depth: How many inner requests deep it is, from 1.
            model: The model of the inner request.
            messages: Its messages.
            settings: Its settings.
            parameters: Its tools, output and instructions.
        """
        if depth in self._results:
            self._repeated.add(depth)
            result = self._results[depth]
            if result is not None:
                self._settle_for(result)
            return False
        same = model is self._model and parameters == self._parameters
        if same and list(messages) == list(self._messages) and dict(settings) == dict(self.settings):
            self._results[depth] = None
            return True
        self._give_back()
        return False

    def note_result(self, depth: int, result: ModelResponse | BaseException) -> None:
        """Notes how the inner request ended that the hold covers at `depth`.

        Args:
            depth: Its depth.
            result: Its response, or what it raised.
        """
        self._results[depth] = result
        if depth in self._repeated:
            self._settle_for(result)

    def _settle_for(self, result: ModelResponse | BaseException) -> None:
        if isinstance(result, ModelResponse):
            self.settlement.settle_stream(result)
        else:
            self.settlement.settle_failure(result)

    def _give_back(self) -> None:
        if self.settlement.settled:
            return
        self.settlement.release()
        self._record.withdraw_request()
        if self._loop is not None:
            self._loop.give_back_messages()
        self._span.payload.pop("messages", None)
        self._span.set({semconv.OPERATION: "delegate"})

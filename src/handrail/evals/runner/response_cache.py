"""A model's responses kept in a file, so that a trial whose requests are the same need not ask again.

A key covers what a response depends on: the model, its settings, the messages, the tools and outputs offered, and the
number of the trial, since two trials of a case are to be two draws. Times and random ids are left out. That an input is
too long for the model is kept like a response, since asking again would say the same.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ModelContextWindowExceededError, ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from handrail.kernel.errors import BadInput, HandrailError
from handrail.kernel.serialization import as_json
from handrail.runs.model_call import CACHED

_VOLATILE = frozenset(
    {
        "timestamp",
        "run_id",
        "conversation_id",
        "usage",
        "provider_details",
        "provider_response_id",
        "provider_url",
        "metadata",
        "id",
    }
)
_NOT_BEHAVIOUR = frozenset({"timeout", "max_retries", "extra_headers"})


class NotRecorded(HandrailError):
    """No response is recorded for this request: record them anew with the real model."""

    code: ClassVar[str] = "not_recorded"


class TooLong(ModelContextWindowExceededError, ModelHTTPError):
    """The model turned the input down as too long, as it was kept: like a refusal over HTTP it costs nothing."""


class Responses:
    """The responses in a JSONL file, one a line. New ones go to its end: a killed process loses the last at most."""

    def __init__(self, path: Path) -> None:
        """Reads the file, if it is there. Raises BadInput for a line that is no response, unless it is the last."""
        self.path = path
        self._known: dict[str, Any] = {}
        self._size = 0
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                found = json.loads(line)
                self._known[found["key"]] = _too_long(found["too_long"]) if "too_long" in found else found["response"]
            except (ValueError, KeyError, TypeError):
                if number == len(lines):
                    # What a killed process had half written goes when the next response is kept.
                    break
                raise BadInput(f"{path}:{number}: not a recorded response; restore the file, or record anew") from None
            self._size += len(line)

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: str) -> ModelResponse | None:
        """The response kept under `key`. Raises TooLong where that is what was kept."""
        found = self._known.get(key)
        if found is None:
            return None
        if isinstance(found, TooLong):
            raise TooLong(found.status_code, found.model_name, found.body)
        [response] = ModelMessagesTypeAdapter.validate_json(json.dumps([found]))
        assert isinstance(response, ModelResponse)
        return response

    def keep(self, key: str, response: ModelResponse) -> None:
        """Adds a response."""
        [found] = json.loads(as_json([response]))
        self._known[key] = found
        self._add({"key": key, "response": found})

    def keep_too_long(self, key: str, error: ModelContextWindowExceededError) -> None:
        """Adds that the input was too long for the model."""
        found = {"model": error.model_name, "message": error.message}
        self._known[key] = _too_long(found)
        self._add({"key": key, "too_long": found})

    def _add(self, found: Mapping[str, Any]) -> None:
        line = json.dumps(found).encode() + b"\n"
        with self.path.open("ab") as file:
            file.truncate(self._size)
            file.write(line)
        self._size += len(line)


class Recorded(Responses):
    """Responses that are complete: a request without one is an error, and no model is asked."""

    def keep(self, key: str, response: ModelResponse) -> None:  # noqa: ARG002
        raise AssertionError("nothing is asked for that would be kept")


@dataclass(init=False)
class CachedResponses(AbstractCapability[Any]):
    """Answers for a run's model from `responses`, and keeps there what it had to ask for."""

    def __init__(self, responses: Responses, trial: int) -> None:
        self._responses = responses
        self._trial = trial

    def get_wrapper_model(self, model: Model) -> Model:
        return _CachedModel(model, self._responses, self._trial)


class _CachedModel(WrapperModel):
    def __init__(self, wrapped: Model, responses: Responses, trial: int) -> None:
        super().__init__(wrapped)
        self._responses = responses
        self._trial = trial

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        settings = {**(self.wrapped.settings or {}), **(model_settings or {})}
        name = f"{self.wrapped.system}:{self.wrapped.model_name}"
        key = key_of(name, settings, messages, model_request_parameters, self._trial)
        if (kept := self._responses.find(key)) is not None:
            return replace(kept, provider_details={**(kept.provider_details or {}), CACHED: True})
        if isinstance(self._responses, Recorded):
            raise NotRecorded(f"{self._responses.path}: no response of {name} to this request; record anew")
        try:
            response = await self.wrapped.request(messages, model_settings, model_request_parameters)
        except ModelContextWindowExceededError as error:
            self._responses.keep_too_long(key, error)
            raise
        self._responses.keep(key, response)
        return response


def _too_long(found: Mapping[str, str]) -> TooLong:
    return TooLong(413, found["model"], found["message"])


def key_of(
    model: str,
    settings: Mapping[str, Any],
    messages: Sequence[ModelMessage],
    parameters: ModelRequestParameters,
    trial: int,
) -> str:
    """SHA-256 of all that a response depends on."""
    tools = [*parameters.function_tools, *parameters.output_tools]
    output = parameters.output_object
    asked = {
        "model": model,
        "settings": {name: value for name, value in settings.items() if name not in _NOT_BEHAVIOUR},
        "messages": _steady(json.loads(as_json(list(messages))), {}),
        "instructions": [part.content for part in parameters.instruction_parts or ()],
        "tools": [[tool.name, tool.description, tool.parameters_json_schema] for tool in tools],
        "output": [parameters.output_mode, output.json_schema if output else None, parameters.allow_text_output],
        "trial": trial,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _steady(found: Any, calls: dict[str, int]) -> Any:
    """`found` without times and random ids; a call and its result are known by their order instead."""
    if isinstance(found, list):
        return [_steady(each, calls) for each in found]
    if not isinstance(found, dict):
        return found
    steady = {name: _steady(value, calls) for name, value in found.items() if name not in _VOLATILE}
    if "tool_call_id" in steady:
        steady["tool_call_id"] = calls.setdefault(str(steady["tool_call_id"]), len(calls))
    return steady

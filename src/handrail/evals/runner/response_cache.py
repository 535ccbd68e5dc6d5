"""A file of a model's responses, so that a trial that repeats its requests does not call the model again.

The key of a response covers all that it depends on: the model, its settings, the messages, the tools and output types
offered, and the number of the trial, since two trials of a case must be two independent samples. Times and random ids
are left out. The error that an input is too long for the model is stored like a response: calling again would not help.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ModelContextWindowExceededError, ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from handrail.evals.errors import NotRecorded
from handrail.kernel.errors import BadInput
from handrail.kernel.serialization import as_json

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
_TRANSPORT_SETTINGS = frozenset({"timeout", "max_retries", "extra_headers"})


class CachedTooLong(ModelContextWindowExceededError, ModelHTTPError):
    """A stored error: the input was too long for the model. It costs nothing, like any request refused over HTTP."""


class ResponseCache:
    """The responses in a JSON Lines file. New ones are appended, so a killed process loses at most the last one.

    Args:
        path: The file, which need not exist yet.

    Raises:
        BadInput: A line other than the last is not a response. The last may be half written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, Any] = {}
        self._size = 0
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = _too_long(entry["too_long"]) if "too_long" in entry else entry["response"]
            except (ValueError, KeyError, TypeError):
                if number == len(lines):
                    # Half written by a killed process: the next response that is added overwrites it.
                    break
                raise BadInput(
                    f"{path}:{number}: not a recorded response; restore the file, or record it again"
                ) from None
            self._size += len(line)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> ModelResponse | None:
        """Looks a response up.

        Args:
            key: The key of the request, 64 hex digits.

        Returns:
            The response, or None if there is none.

        Raises:
            ModelContextWindowExceededError: The model had refused the request as too long.
        """
        stored = self._known.get(key)
        if stored is None:
            return None
        if isinstance(stored, CachedTooLong):
            raise CachedTooLong(stored.status_code, stored.model_name, stored.body)
        [response] = ModelMessagesTypeAdapter.validate_json(json.dumps([stored]))
        assert isinstance(response, ModelResponse)
        return response

    def add(self, key: str, response: ModelResponse) -> None:
        """Adds a response and appends it to the file.

        Args:
            key: The key of the request, 64 hex digits.
            response: The response.
        """
        [stored] = json.loads(as_json([response]))
        self._known[key] = stored
        self._append({"key": key, "response": stored})

    def add_too_long(self, key: str, error: ModelContextWindowExceededError) -> None:
        """Adds the error that the input was too long for the model, and appends it to the file.

        Args:
            key: The key of the request, 64 hex digits.
            error: The error.
        """
        stored = {"model": error.model_name, "message": error.message}
        self._known[key] = _too_long(stored)
        self._append({"key": key, "too_long": stored})

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry).encode() + b"\n"
        with self.path.open("ab") as file:
            file.truncate(self._size)
            file.write(line)
        self._size += len(line)


class RecordedResponses(ResponseCache):
    """A complete file of responses: no model is called, and a request without a recorded response is an error.

    Args:
        path: The file.
    """

    def add(self, key: str, response: ModelResponse) -> None:  # noqa: ARG002
        """Never called, since no model is.

        Args:
            key: The key of the request.
            response: The response.
        """
        raise AssertionError("recorded responses are never added to")


@dataclass(init=False)
class ResponseCaching(AbstractCapability[Any]):
    """A capability that answers from `responses` and, where they lack a response, calls the model and adds it."""

    def __init__(self, responses: ResponseCache, trial: int) -> None:
        self._responses = responses
        self._trial = trial

    def get_wrapper_model(self, model: Model) -> Model:
        return _CachedModel(model, self._responses, self._trial)


class _CachedModel(WrapperModel):
    def __init__(self, wrapped: Model, responses: ResponseCache, trial: int) -> None:
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
        key = request_key(name, settings, messages, model_request_parameters, self._trial)
        if (cached := self._responses.get(key)) is not None:
            return cached
        if isinstance(self._responses, RecordedResponses):
            raise NotRecorded(
                f"{self._responses.path}: no response of {name} to this request; record the responses again"
            )
        try:
            response = await self.wrapped.request(messages, model_settings, model_request_parameters)
        except ModelContextWindowExceededError as error:
            self._responses.add_too_long(key, error)
            raise
        self._responses.add(key, response)
        return response


def _too_long(stored: Mapping[str, str]) -> CachedTooLong:
    return CachedTooLong(413, stored["model"], stored["message"])


def request_key(
    model: str,
    settings: Mapping[str, Any],
    messages: Sequence[ModelMessage],
    parameters: ModelRequestParameters,
    trial: int,
) -> str:
    """SHA-256 (64 hex digits) of all that a response depends on.

    Args:
        model: The model, as `provider:model`.
        settings: The model's settings; those of the transport are left out.
        messages: The messages; times and random ids are left out.
        parameters: The tools and output types offered.
        trial: The number of the trial.
    """
    tools = [*parameters.function_tools, *parameters.output_tools]
    output = parameters.output_object
    request = {
        "model": model,
        "settings": {name: value for name, value in settings.items() if name not in _TRANSPORT_SETTINGS},
        "messages": _without_volatile(json.loads(as_json(list(messages))), {}),
        "instructions": [part.content for part in parameters.instruction_parts or ()],
        "tools": [[tool.name, tool.description, tool.parameters_json_schema] for tool in tools],
        "output": [parameters.output_mode, output.json_schema if output else None, parameters.allow_text_output],
        "trial": trial,
    }
    return hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()


def _without_volatile(value: Any, calls: dict[str, int]) -> Any:
    """`value` without times and random ids. The id of a tool call becomes its number, which its result shares."""
    if isinstance(value, list):
        return [_without_volatile(item, calls) for item in value]
    if not isinstance(value, dict):
        return value
    stable = {name: _without_volatile(item, calls) for name, item in value.items() if name not in _VOLATILE}
    if "tool_call_id" in stable:
        stable["tool_call_id"] = calls.setdefault(str(stable["tool_call_id"]), len(calls))
    return stable

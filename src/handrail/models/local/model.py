"""The built-in model as a Pydantic AI model: small and offline, for trials and tests without a provider."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from pydantic_ai import ModelSettings, RunContext
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelContextWindowExceededError,
    ModelTimeoutError,
)
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import (
    CompletedStreamedResponse,
    Model,
    ModelRequestParameters,
    StreamedResponse,
    check_allow_model_requests,
)
from pydantic_ai.native_tools import AbstractNativeTool
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.settings import ModelSettingName
from pydantic_ai.usage import RequestUsage

from handrail.models.errors import WeightsUnavailable

from .catalog import Weights
from .chat import render
from .engine import CONTEXT_TOKENS, Completion, Engine, EngineError, engine_for
from .grammar import BoundedSchema, build_grammar, parse_reply, repeated_tools, reply_formats

PROVIDER = "builtin"
DEFAULT_TIMEOUT_S = 120.0
DEFAULT_MAX_TOKENS = 512
_REPEAT_PENALTY = 1.1  # without it the smaller model repeats one sentence until its tokens run out

_PROFILE = ModelProfile(
    supports_tools=True,
    supports_json_schema_output=True,
    supports_json_object_output=True,
    json_schema_transformer=BoundedSchema,
    context_window=CONTEXT_TOKENS,
    # llama.cpp interprets the chat template's control tokens in any text: a user could otherwise open a system turn.
    may_tokenize_special_tokens_in_content=True,
    supports_image_input=False,
    supports_document_input=False,
    supports_audio_file_input=False,
    supports_video_input=False,
)


class BuiltinModel(Model[None]):
    """Qwen2.5-Coder in this process, with tools and structured output by constrained JSON.

    Settings: `timeout` (seconds, time in the queue included; 120), `max_tokens` (512), `temperature` (0), `top_p`,
    `seed`, `tool_choice`. A stream yields only the finished response, since half a JSON object is not a part.
    """

    unsupported_settings: ClassVar[frozenset[ModelSettingName]] = frozenset(
        {"stop_sequences", "extra_headers", "extra_body"}
    )

    def __init__(self, weights: Weights, path: Path | None, *, settings: ModelSettings | None = None) -> None:
        """Makes the model; its weights are loaded at the first request.

        Args:
            weights: Which model this is.
            path: The verified weights file. With None the model has only a name and settings, for replaying recorded
                answers, and a request raises WeightsUnavailable.
            settings: The model's default settings.

        Raises:
            MissingExtra: xllamacpp is not installed.
        """
        # A hold covers the longest possible answer, so the limit has to be among the settings.
        super().__init__(settings={"max_tokens": DEFAULT_MAX_TOKENS, **(settings or {})}, profile=_PROFILE)
        self._weights = weights
        self._engine: Engine | None = None if path is None else engine_for(path)

    @property
    def model_name(self) -> str:
        """The model's name without the provider's."""
        return self._weights.model

    @property
    def system(self) -> str:
        """The provider's name."""
        return PROVIDER

    @property
    def base_url(self) -> None:
        """None, as there is no server."""
        return None

    @classmethod
    def supported_native_tools(cls) -> frozenset[type[AbstractNativeTool]]:
        """Empty: the model runs no tools itself."""
        return frozenset()

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Generates one response.

        Args:
            messages: The conversation so far.
            model_settings: Settings of this request, which take precedence over the model's.
            model_request_parameters: The tools and the output that the response may use.

        Raises:
            ModelTimeoutError: The response did not finish in time.
            ModelContextWindowExceededError: The conversation is longer than the context window.
            ModelRequestRejectedError: A part is not text.
            ModelAPIError: llama.cpp failed.
        """
        check_allow_model_requests()
        settings, parameters = self.prepare_request(model_settings, model_request_parameters)
        formats = reply_formats(parameters, settings)
        repeated = repeated_tools(messages)
        offered = [reply_format for reply_format in formats if reply_format.tool not in repeated] or formats
        settings = settings or {}
        body = {
            "messages": render(messages, parameters, formats, self.model_name),
            "grammar": build_grammar(offered),
            "max_tokens": settings.get("max_tokens", DEFAULT_MAX_TOKENS),
            "temperature": settings.get("temperature", 0.0),
            "top_p": settings.get("top_p", 1.0),
            "seed": settings.get("seed", 0),
            "repeat_penalty": _REPEAT_PENALTY,
            "cache_prompt": True,
        }
        completion = await self._complete(body, _timeout_seconds(settings.get("timeout")))
        details, parts = None, []
        if completion.cut_off:
            details = {"cut_off_text": completion.text}
        else:
            try:
                parts = [parse_reply(completion.text, offered)]
            except ValueError:
                # No answer rather than an error: an error would say that the model cannot be used at all.
                details = {"unusable_text": completion.text}
        return ModelResponse(
            parts=parts,
            usage=_usage(completion),
            model_name=self.model_name,
            provider_name=self.system,
            finish_reason="length" if completion.cut_off else "stop",
            provider_details=details,
        )

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,  # noqa: ARG002 - the signature is Model's
    ) -> AsyncGenerator[StreamedResponse]:
        """The response of `request`, as a stream with one item for each part."""
        response = await self.request(messages, model_settings, model_request_parameters)
        yield CompletedStreamedResponse(response, model_request_parameters=model_request_parameters, replay_events=True)

    async def _complete(self, body: dict[str, Any], timeout_s: float) -> Completion:
        if self._engine is None:
            raise WeightsUnavailable(
                f"{self.model_name} was opened without its weights, to replay recorded answers only"
            )
        try:
            return await self._engine.complete(body, timeout_s)
        except TimeoutError as error:
            raise ModelTimeoutError(self.model_name, f"no answer within {timeout_s:g} s") from error
        except EngineError as error:
            too_long = error.kind == "exceed_context_size_error"
            error_type = ModelContextWindowExceededError if too_long else ModelAPIError
            raise error_type(self.model_name, str(error)) from error


def _usage(completion: Completion) -> RequestUsage:
    return RequestUsage(
        input_tokens=completion.input_tokens,
        cache_read_tokens=completion.cached_tokens,
        output_tokens=completion.output_tokens,
    )


def _timeout_seconds(timeout: object) -> float:
    """The `timeout` setting in seconds; an HTTP client's timeouts for single phases do not apply here."""
    return float(timeout) if isinstance(timeout, int | float) else DEFAULT_TIMEOUT_S

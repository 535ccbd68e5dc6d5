"""The built-in model as a Pydantic AI model: small, offline, for a first look and for tests."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from pydantic_ai import ModelSettings, RunContext
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelContextWindowExceededError,
    ModelTimeoutError,
    UnexpectedModelBehavior,
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

from .catalog import Weights
from .chat import render
from .engine import CONTEXT_TOKENS, Completion, Engine, EngineError, engine_for
from .grammar import BoundedSchema, forms_of, grammar_of, read_reply, spent_tools
from .weights import WeightsUnavailable

PROVIDER = "builtin"
DEFAULT_TIMEOUT_S = 120.0
DEFAULT_MAX_TOKENS = 512
_REPEAT_PENALTY = 1.1  # without it the small one says a sentence again and again until the text's end

_PROFILE = ModelProfile(
    supports_tools=True,
    supports_json_schema_output=True,
    supports_json_object_output=True,
    json_schema_transformer=BoundedSchema,
    context_window=CONTEXT_TOKENS,
    # llama.cpp reads a chat template's control tokens in anybody's text, which would let a customer open a system turn.
    may_tokenize_special_tokens_in_content=True,
    supports_image_input=False,
    supports_document_input=False,
    supports_audio_file_input=False,
    supports_video_input=False,
)


class BuiltinModel(Model[None]):
    """Qwen2.5-Coder in this process, with tools and structured output by constrained JSON.

    Settings: `timeout` (seconds, the wait for its turn included; 120), `max_tokens` (512), `temperature` (0), `top_p`,
    `seed`, `tool_choice`. A stream brings the finished response, since half a JSON object is not yet a part.
    """

    unsupported_settings: ClassVar[frozenset[ModelSettingName]] = frozenset(
        {"stop_sequences", "extra_headers", "extra_body"}
    )

    def __init__(self, weights: Weights, path: Path | None, *, settings: ModelSettings | None = None) -> None:
        """`path` holds the checked weights; they are loaded at the first request. Raises MissingExtra.

        Without a path the model is there to be known by, and a request to it raises WeightsUnavailable.
        """
        # Whoever holds money for a request has to see how long its answer may be.
        super().__init__(settings={"max_tokens": DEFAULT_MAX_TOKENS, **(settings or {})}, profile=_PROFILE)
        self._weights = weights
        self._engine: Engine | None = None if path is None else engine_for(path)

    @property
    def model_name(self) -> str:
        return self._weights.model

    @property
    def system(self) -> str:
        return PROVIDER

    @property
    def base_url(self) -> None:
        return None

    @classmethod
    def supported_native_tools(cls) -> frozenset[type[AbstractNativeTool]]:
        return frozenset()

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """One turn.

        Raises ModelTimeoutError, ModelContextWindowExceededError, ModelRequestRejectedError for what is not text,
        ModelAPIError, and UnexpectedModelBehavior for a reply in no form that was offered.
        """
        check_allow_model_requests()
        settings, parameters = self.prepare_request(model_settings, model_request_parameters)
        forms = forms_of(parameters, settings)
        spent = spent_tools(messages)
        offered = [form for form in forms if form.tool not in spent] or forms
        settings = settings or {}
        body = {
            "messages": render(messages, parameters, forms, self.model_name),
            "grammar": grammar_of(offered),
            "max_tokens": settings.get("max_tokens", DEFAULT_MAX_TOKENS),
            "temperature": settings.get("temperature", 0.0),
            "top_p": settings.get("top_p", 1.0),
            "seed": settings.get("seed", 0),
            "repeat_penalty": _REPEAT_PENALTY,
            "cache_prompt": True,
        }
        completion = await self._complete(body, _seconds(settings.get("timeout")))
        try:
            parts = [] if completion.cut_off else [read_reply(completion.text, offered)]
        except ValueError as error:
            raise UnexpectedModelBehavior(f"{self.model_name}: {error}", completion.text) from error
        return ModelResponse(
            parts=parts,
            usage=_usage(completion),
            model_name=self.model_name,
            provider_name=self.system,
            finish_reason="length" if completion.cut_off else "stop",
            provider_details={"cut_off_text": completion.text} if completion.cut_off else None,
        )

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,  # noqa: ARG002 - the signature is Model's
    ) -> AsyncGenerator[StreamedResponse]:
        response = await self.request(messages, model_settings, model_request_parameters)
        yield CompletedStreamedResponse(response, model_request_parameters=model_request_parameters, replay_events=True)

    async def _complete(self, body: dict[str, Any], timeout_s: float) -> Completion:
        if self._engine is None:
            raise WeightsUnavailable(f"{self.model_name} was opened without its weights, to be known by only")
        try:
            return await self._engine.complete(body, timeout_s)
        except TimeoutError as error:
            raise ModelTimeoutError(self.model_name, f"no answer within {timeout_s:g} s") from error
        except EngineError as error:
            kind = ModelContextWindowExceededError if error.kind == "exceed_context_size_error" else ModelAPIError
            raise kind(self.model_name, str(error)) from error


def _usage(completion: Completion) -> RequestUsage:
    return RequestUsage(
        input_tokens=completion.input_tokens,
        cache_read_tokens=completion.cached_tokens,
        output_tokens=completion.output_tokens,
    )


def _seconds(timeout: object) -> float:
    """The `timeout` setting in seconds; a transport's per-phase timeouts mean nothing here."""
    return float(timeout) if isinstance(timeout, int | float) else DEFAULT_TIMEOUT_S

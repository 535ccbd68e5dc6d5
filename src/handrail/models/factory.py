"""Opens models by name, with the providers' own retries off, so that every request passes the ceilings."""

import os
from difflib import get_close_matches
from typing import Any

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model, known_model_names, parse_model_id
from pydantic_ai.providers import Provider, infer_provider, infer_provider_class

from handrail.config.settings import Settings
from handrail.kernel.errors import BadSettings, MissingExtra, NotFound

from .errors import ModelUnavailable, WeightsUnavailable
from .local.catalog import CATALOG, builtin_weights
from .local.weights import download_weights, find_weights
from .selection import BUILTIN_PREFIX, OLLAMA_URL, SelectedModel, detect_model

_EXTRAS = {"anthropic": "anthropic", "openai": "openai", "openai-chat": "openai", "ollama": "openai"}


def default_model(settings: Settings) -> Model:
    """The model for agents that name none.

    Args:
        settings: They name the model; if they do not, one is detected on this machine.

    Raises:
        ModelUnavailable: Nothing is configured, and the extra for the built-in model is not installed.
        HandrailError: As `open_model`.
    """
    selected = detect_model(settings.model)
    try:
        return open_model(selected.name, settings)
    except MissingExtra as error:
        if settings.model:
            raise
        raise ModelUnavailable(f"{selected.reason[0].upper()}{selected.reason[1:]}. {error}") from error


def replay_model(settings: Settings) -> Model:
    """The default model for replaying recorded answers, which takes only its name and settings.

    A built-in model then needs neither weights nor its extra, and a request to it raises WeightsUnavailable.

    Args:
        settings: They name the model; if they do not, one is detected on this machine.

    Raises:
        HandrailError: As `open_model`, for a model that is not built in.
    """
    selected = detect_model(settings.model)
    if not selected.is_builtin:
        return open_model(selected.name, settings)
    from .local.model import BuiltinModel  # its imports take 50 ms

    return BuiltinModel(builtin_weights(selected.name), None)


def prepare_model(settings: Settings) -> SelectedModel:
    """Selects the default model and, if it is built in, downloads its weights once, with a progress bar on stderr.

    Args:
        settings: They name the model; if they do not, one is detected on this machine.

    Returns:
        The model that `default_model` opens.

    Raises:
        ModelUnavailable: The weights cannot be downloaded, or are not the official release.
        BadSettings: The `weights` setting does not name a file, or the cache is not writable.
        MissingExtra: The built-in model's extra is not installed.
    """
    selected = detect_model(settings.model)
    if selected.is_builtin:
        weights = builtin_weights(selected.name)
        if find_weights(weights, settings) is None:
            download_weights(weights, settings)
    return selected


def open_model(name: str, settings: Settings) -> Model:
    """Opens a model by its name. Nothing is downloaded.

    Whether the provider offers the model is not checked here, since lists of models lag behind.

    Args:
        name: `builtin:NAME`, `ollama:NAME`, or `provider:NAME` of any provider that Pydantic AI supports.
        settings: The settings, with the place of a built-in model's weights.

    Raises:
        NotFound: There is no such provider or built-in model.
        BadSettings: The provider's key is missing.
        MissingExtra: The provider's client is not installed.
        ModelUnavailable: The built-in model's weights are missing or are not the official release.
    """
    provider, model = parse_model_id(name)
    if provider is None or not model:
        raise _unknown(name)
    if name.startswith(BUILTIN_PREFIX):
        return _builtin(name, settings)
    try:
        return infer_model(name, provider_factory=_provider)
    except ImportError as error:
        if provider in _EXTRAS:
            raise MissingExtra(name, _EXTRAS[provider]) from error
        raise BadSettings(f"{name} cannot be used: {error}") from error
    except UserError as error:
        raise BadSettings(f"{name} cannot be used: {error}") from error


def _provider(name: str) -> Provider[Any]:
    if name == "ollama":
        provider = _ollama()
    else:
        try:
            infer_provider_class(name)
        except ValueError:
            raise _unknown(name) from None
        provider = infer_provider(name)
    # The openai, anthropic and groq clients retry twice on their own, without a hold.
    if hasattr(provider.client, "max_retries"):
        provider.client.max_retries = 0
    return provider


def _ollama() -> Provider[Any]:
    from pydantic_ai.providers.ollama import OllamaProvider

    return OllamaProvider(base_url=os.environ.get("OLLAMA_BASE_URL") or f"{OLLAMA_URL}/v1")


def _builtin(name: str, settings: Settings) -> Model:
    weights = builtin_weights(name)
    path = find_weights(weights, settings)
    if path is None:
        raise WeightsUnavailable(
            f"The weights of {name} are not on this machine. Download them with `handrail demo`, set HANDRAIL_WEIGHTS "
            "to a copy, or choose another model with HANDRAIL_MODEL"
        )
    from .local.model import BuiltinModel  # its imports take 50 ms

    return BuiltinModel(weights, path)


def _unknown(name: str) -> NotFound:
    known = [BUILTIN_PREFIX + weights.model for weights in CATALOG] + list(known_model_names())
    providers = {model.partition(":")[0] for model in known}
    matches = get_close_matches(name, known, n=3) or get_close_matches(name, providers, n=3)
    advice = "write provider:model, such as anthropic:claude-sonnet-5-5"
    hint = f"did you mean {' or '.join(matches)}?" if matches else advice
    return NotFound(f"There is no model {name!r}; {hint}")

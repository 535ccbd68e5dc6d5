"""Opens a model by name, with the provider's own retries off: whoever guards a budget must see every request."""

import os
from difflib import get_close_matches
from typing import Any

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model, known_model_names, parse_model_id
from pydantic_ai.providers import Provider, infer_provider, infer_provider_class

from handrail.config.settings import Settings
from handrail.kernel.errors import BadSettings, MissingExtra, NotFound
from handrail.models.local.catalog import CATALOGUE, PREFIX, builtin_weights
from handrail.models.local.weights import ModelUnavailable, WeightsUnavailable, find_weights

from .selection import OLLAMA_URL, choose_here

_EXTRAS = {"anthropic": "anthropic", "openai": "openai", "openai-chat": "openai", "ollama": "openai"}


def default_model(settings: Settings) -> Model:
    """The model for agents that name none.

    Raises what `open_model` does, but ModelUnavailable for a missing extra where nobody asked for the built-in model.
    """
    choice = choose_here(settings.model)
    try:
        return open_model(choice.name, settings)
    except MissingExtra as error:
        if settings.model:
            raise
        raise ModelUnavailable(f"{choice.why[0].upper()}{choice.why[1:]}. {error}") from error


def unasked_model(settings: Settings) -> Model:
    """The same model where it is known by its name and settings only, since its answers are there already.

    A built-in one needs neither its weights nor its extra; any other raises what `open_model` does.
    """
    choice = choose_here(settings.model)
    if not choice.name.startswith(PREFIX):
        return open_model(choice.name, settings)
    from handrail.models.local.model import BuiltinModel  # its imports take 50 ms

    return BuiltinModel(builtin_weights(choice.name), None)


def open_model(name: str, settings: Settings) -> Model:
    """A model by its name: `builtin:NAME`, `ollama:NAME`, or `provider:NAME` of any provider Pydantic AI speaks to.

    Whether a provider has the model is for the provider to say, since price and model lists lag behind. Nothing is
    downloaded: a built-in model's weights must be there (`fetch_weights`).

    Raises NotFound for an unknown provider or built-in model, BadSettings for a missing key, MissingExtra, and
    ModelUnavailable for weights that are not there or not right.
    """
    provider, model = parse_model_id(name)
    if provider is None or not model:
        raise _unknown(name)
    if name.startswith(PREFIX):
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
    # The openai, anthropic and groq clients retry twice by themselves, unseen.
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
            f"The weights of {name} are not on this machine: `handrail demo` downloads them, HANDRAIL_WEIGHTS names a "
            "file that you have, HANDRAIL_MODEL another model"
        )
    from handrail.models.local.model import BuiltinModel  # its imports take 50 ms

    return BuiltinModel(weights, path)


def _unknown(name: str) -> NotFound:
    known = [PREFIX + weights.model for weights in CATALOGUE] + list(known_model_names())
    near = get_close_matches(name, known, n=3) or get_close_matches(name, {k.partition(":")[0] for k in known}, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "write provider:model, such as anthropic:claude-sonnet-5-5"
    return NotFound(f"There is no model {name!r}; {hint}")

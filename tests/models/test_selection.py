"""Which model is used, and how it is opened."""

import asyncio
import json

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models import known_model_names, override_allow_model_requests

from handrail.config.settings import Settings
from handrail.kernel.errors import BadSettings, NotFound
from handrail.models.factory import default_model, open_model, unasked_model
from handrail.models.local.catalog import DEFAULT_BUILTIN, builtin_weights
from handrail.models.local.weights import WeightsUnavailable
from handrail.models.selection import ANTHROPIC_DEFAULT, OPENAI_DEFAULT, OllamaProbe, choose, probe_ollama
from tests.models.loopback import FileServer

OLLAMA = OllamaProbe(("nomic-embed-text:latest", "qwen3:8b"))
KEYS = {"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "b"}


@pytest.mark.parametrize(
    ("named", "env", "ollama", "chosen", "why"),
    [
        ("x:y", KEYS, OLLAMA, "x:y", "settings"),
        (None, KEYS, OLLAMA, ANTHROPIC_DEFAULT, "ANTHROPIC_API_KEY"),
        (None, {**KEYS, "ANTHROPIC_API_KEY": " "}, OLLAMA, OPENAI_DEFAULT, "OPENAI_API_KEY"),
        (None, {}, OLLAMA, "ollama:qwen3:8b", "Ollama"),
        (None, {}, OllamaProbe(()), DEFAULT_BUILTIN, "no model"),
        (None, {}, None, DEFAULT_BUILTIN, "no model"),
    ],
)
def test_order(named: str | None, env: dict[str, str], ollama: OllamaProbe | None, chosen: str, why: str) -> None:
    """The settings' word comes before keys, keys before Ollama, and the built-in model comes last."""
    choice = choose(named, env, ollama)
    assert choice.name == chosen
    assert why in choice.why


def test_defaults_exist() -> None:
    """The defaults are models that their providers and the catalogue know."""
    assert {ANTHROPIC_DEFAULT, OPENAI_DEFAULT} <= set(known_model_names())
    assert builtin_weights(DEFAULT_BUILTIN).size > 0


def test_ollama_probe(file_server: FileServer) -> None:
    """An Ollama server's models are read from its tags; any other answer, and silence, is no Ollama."""
    file_server.body = json.dumps({"models": [{"name": "qwen3:8b"}]}).encode()
    assert probe_ollama(file_server.url) == OllamaProbe(("qwen3:8b",))
    file_server.body = b"<html>"
    assert probe_ollama(file_server.url) is None
    file_server.body = b"[]"
    assert probe_ollama(file_server.url) is None
    assert probe_ollama("http://127.0.0.1:9") is None


@pytest.mark.parametrize(
    ("name", "variable", "base"),
    [
        ("openai:gpt-6.1-terra", "OPENAI_BASE_URL", "/v1"),
        ("openai-chat:gpt-6.1-terra", "OPENAI_BASE_URL", "/v1"),
        ("anthropic:claude-sonnet-5-5", "ANTHROPIC_BASE_URL", ""),
        ("ollama:qwen3", "OLLAMA_BASE_URL", "/v1"),
    ],
)
def test_no_hidden_retries(
    file_server: FileServer, monkeypatch: pytest.MonkeyPatch, name: str, variable: str, base: str
) -> None:
    """A failed request reaches the provider once: its client does not retry by itself."""
    for key, value in {**KEYS, variable: file_server.url + base}.items():
        monkeypatch.setenv(key, value)
    file_server.status = 500
    with override_allow_model_requests(True), pytest.raises(ModelHTTPError):
        asyncio.run(Agent(open_model(name, Settings())).run("hi"))
    assert len(file_server.starts) == 1


def test_unknown_names() -> None:
    """An unknown provider or built-in model is named, with what comes near it."""
    with pytest.raises(NotFound, match="did you mean anthropic"):
        open_model("antropic:claude-sonnet-5-5", Settings())
    with pytest.raises(NotFound, match="write provider:model"):
        open_model("zzz", Settings())
    with pytest.raises(NotFound, match=r"there are builtin:qwen2\.5-coder-0\.5b"):
        open_model("builtin:qwen", Settings())


def test_missing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider without its key says which environment variable to set."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(BadSettings, match="ANTHROPIC_API_KEY"):
        open_model("anthropic:claude-sonnet-5-5", Settings())


def test_missing_weights(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A built-in model whose weights are not here says how to get them."""
    settings = Settings(cache=tmp_path_factory.mktemp("cache"), model=DEFAULT_BUILTIN)
    with pytest.raises(WeightsUnavailable, match="HANDRAIL_WEIGHTS"):
        default_model(settings)


def test_a_model_that_is_not_asked(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without its weights a built-in model is known by its name and settings, and says so when it is asked."""
    settings = Settings(cache=tmp_path_factory.mktemp("cache"), model=DEFAULT_BUILTIN)
    model = unasked_model(settings)
    assert f"{model.system}:{model.model_name}" == DEFAULT_BUILTIN
    assert (model.settings or {}).get("max_tokens") == 512
    with override_allow_model_requests(True), pytest.raises(WeightsUnavailable, match="to be known by only"):
        asyncio.run(Agent(model).run("hi"))

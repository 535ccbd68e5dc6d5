"""The choice of the model, and opening it."""

import asyncio
import json

import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models import known_model_names, override_allow_model_requests

from handrail.config.settings import Settings
from handrail.kernel.errors import BadSettings, NotFound
from handrail.models.errors import WeightsUnavailable
from handrail.models.factory import default_model, open_model, replay_model
from handrail.models.local.catalog import builtin_weights
from handrail.models.selection import (
    ANTHROPIC_DEFAULT,
    BUILTIN_DEFAULT,
    OPENAI_DEFAULT,
    OllamaProbe,
    probe_ollama,
    select_model,
)
from tests.models.loopback import FileServer

OLLAMA = OllamaProbe(("nomic-embed-text:latest", "qwen3:8b"))
KEYS = {"ANTHROPIC_API_KEY": "a", "OPENAI_API_KEY": "b"}


@pytest.mark.parametrize(
    ("configured", "env", "ollama", "name", "reason"),
    [
        ("x:y", KEYS, OLLAMA, "x:y", "settings"),
        (None, KEYS, OLLAMA, ANTHROPIC_DEFAULT, "ANTHROPIC_API_KEY"),
        (None, {**KEYS, "ANTHROPIC_API_KEY": " "}, OLLAMA, OPENAI_DEFAULT, "OPENAI_API_KEY"),
        (None, {}, OLLAMA, "ollama:qwen3:8b", "Ollama"),
        (None, {}, OllamaProbe(()), BUILTIN_DEFAULT, "no model"),
        (None, {}, None, BUILTIN_DEFAULT, "no model"),
    ],
)
def test_order(configured: str | None, env: dict[str, str], ollama: OllamaProbe | None, name: str, reason: str) -> None:
    """The settings come before keys, keys before Ollama, and the built-in model comes last."""
    selected = select_model(configured, env, ollama)
    assert selected.name == name
    assert reason in selected.reason


def test_defaults_exist() -> None:
    """The defaults are models that their providers and the catalog know."""
    assert {ANTHROPIC_DEFAULT, OPENAI_DEFAULT} <= set(known_model_names())
    assert builtin_weights(BUILTIN_DEFAULT).size > 0


def test_ollama_probe(file_server: FileServer) -> None:
    """An Ollama server's models are read from its tags; any other response, or none, does not count as Ollama."""
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
    assert len(file_server.requests) == 1


def test_unknown_names() -> None:
    """An unknown provider or built-in model is named, with the nearest names."""
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
    """A built-in model without weights on this machine says how to get them."""
    settings = Settings(cache=tmp_path_factory.mktemp("cache"), model=BUILTIN_DEFAULT)
    with pytest.raises(WeightsUnavailable, match="HANDRAIL_WEIGHTS"):
        default_model(settings)


def test_a_model_for_recorded_responses(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without weights a replay model has the built-in model's name and settings, and a request to it is an error."""
    settings = Settings(cache=tmp_path_factory.mktemp("cache"), model=BUILTIN_DEFAULT)
    model = replay_model(settings)
    assert f"{model.system}:{model.model_name}" == BUILTIN_DEFAULT
    assert (model.settings or {}).get("max_tokens") == 512
    with (
        override_allow_model_requests(True),
        pytest.raises(WeightsUnavailable, match="to replay recorded answers only"),
    ):
        asyncio.run(Agent(model).run("hi"))

"""Selects the model for agents that name none, and says why it was selected."""

import json
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException

ANTHROPIC_DEFAULT = "anthropic:claude-sonnet-5-5"
OPENAI_DEFAULT = "openai:gpt-6.1-terra"
BUILTIN_PREFIX = "builtin:"
BUILTIN_DEFAULT = BUILTIN_PREFIX + "qwen2.5-coder-1.5b"
OLLAMA_URL = "http://localhost:11434"
_PROBE_TIMEOUT_S = 0.3


@dataclass(frozen=True)
class SelectedModel:
    """A model's name and the reason it was selected, for people."""

    name: str
    reason: str

    @property
    def is_builtin(self) -> bool:
        """Whether it is one of the built-in models, which need weights on this machine."""
        return self.name.startswith(BUILTIN_PREFIX)


@dataclass(frozen=True)
class OllamaProbe:
    """The models installed on an Ollama server that responded."""

    models: tuple[str, ...]


def select_model(configured: str | None, env: Mapping[str, str], ollama: OllamaProbe | None) -> SelectedModel:
    """Selects the configured model, else one by an API key, else Ollama's first chat model, else the built-in one.

    Args:
        configured: The model that the settings name, if any.
        env: Environment variables; ANTHROPIC_API_KEY and OPENAI_API_KEY are read.
        ollama: The models of an Ollama server, or None if none responded.
    """
    if configured:
        return SelectedModel(configured, "named in the settings")
    if env.get("ANTHROPIC_API_KEY", "").strip():
        return SelectedModel(ANTHROPIC_DEFAULT, "ANTHROPIC_API_KEY is set")
    if env.get("OPENAI_API_KEY", "").strip():
        return SelectedModel(OPENAI_DEFAULT, "OPENAI_API_KEY is set")
    if chat_models := [name for name in (ollama.models if ollama else ()) if "embed" not in name]:
        return SelectedModel(f"ollama:{chat_models[0]}", "Ollama is running on this machine")
    return SelectedModel(BUILTIN_DEFAULT, "no model is configured, no API key is set and Ollama is not running")


def detect_model(configured: str | None) -> SelectedModel:
    """Selects a model for this process. Ollama is probed, for at most 0.3 s, only if nothing else decides.

    Args:
        configured: The model that the settings name, if any.
    """
    selected = select_model(configured, os.environ, None)
    if configured or not selected.is_builtin:
        return selected
    return select_model(None, os.environ, probe_ollama())


def probe_ollama(url: str = OLLAMA_URL, timeout_s: float = _PROBE_TIMEOUT_S) -> OllamaProbe | None:
    """Asks an Ollama server for its models.

    Args:
        url: The server's base URL.
        timeout_s: Seconds to wait for it.

    Returns:
        Its models, or None if no Ollama server responds.
    """
    try:
        with urllib.request.urlopen(f"{url}/api/tags", timeout=timeout_s) as response:  # noqa: S310 - a loopback address
            tags = json.load(response)
        return OllamaProbe(tuple(str(model["name"]) for model in tags["models"]))
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None

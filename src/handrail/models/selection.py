"""Which model does an agent use that names none? And why that one?"""

import json
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException

from handrail.models.local.catalog import DEFAULT_BUILTIN

ANTHROPIC_DEFAULT = "anthropic:claude-sonnet-5-5"
OPENAI_DEFAULT = "openai:gpt-6.1-terra"
OLLAMA_URL = "http://localhost:11434"
_PROBE_TIMEOUT_S = 0.3


@dataclass(frozen=True)
class Choice:
    """A model's name and, for people, the reason it was chosen."""

    name: str
    why: str


@dataclass(frozen=True)
class OllamaProbe:
    """What an Ollama server that answered has installed."""

    models: tuple[str, ...]


def choose(named: str | None, env: Mapping[str, str], ollama: OllamaProbe | None) -> Choice:
    """The decision: the settings' word, else a key in the environment, else Ollama, else the built-in model."""
    if named:
        return Choice(named, "named in the settings")
    if env.get("ANTHROPIC_API_KEY", "").strip():
        return Choice(ANTHROPIC_DEFAULT, "ANTHROPIC_API_KEY is set")
    if env.get("OPENAI_API_KEY", "").strip():
        return Choice(OPENAI_DEFAULT, "OPENAI_API_KEY is set")
    if speaking := [name for name in (ollama.models if ollama else ()) if "embed" not in name]:
        return Choice(f"ollama:{speaking[0]}", "Ollama answers on this machine")
    return Choice(DEFAULT_BUILTIN, "no model is named, no key is set and no Ollama answers")


def choose_here(named: str | None) -> Choice:
    """The decision for this process; looks for Ollama only where nothing else decides (0.3 s at most)."""
    choice = choose(named, os.environ, None)
    return choose(named, os.environ, probe_ollama()) if choice.name == DEFAULT_BUILTIN and not named else choice


def probe_ollama(url: str = OLLAMA_URL, timeout_s: float = _PROBE_TIMEOUT_S) -> OllamaProbe | None:
    """Asks an Ollama server for its models; None if none answers as Ollama does."""
    try:
        with urllib.request.urlopen(f"{url}/api/tags", timeout=timeout_s) as answer:  # noqa: S310 - a loopback address
            listed = json.load(answer)
        return OllamaProbe(tuple(str(model["name"]) for model in listed["models"]))
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None

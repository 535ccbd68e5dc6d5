"""The edge to language models: which one is used, how it is opened, the built-in one, and what a request costs."""

from .catalogue import CATALOGUE, DEFAULT_BUILTIN, LARGE, PREFIX, SMALL, Weights, builtin_weights
from .choice import Choice, OllamaProbe, choose, choose_here, probe_ollama
from .opening import default_model, open_model, unasked_model
from .prices import PriceSheet, price_of, price_sheet
from .sources import ChunkWheels, Hub, NoRoom, OnProgress, Progress, Source, SourceFailed
from .weights import ModelUnavailable, WeightsUnavailable, WrongWeights, cache_dir, fetch_weights, find_weights

__all__ = [
    "CATALOGUE",
    "DEFAULT_BUILTIN",
    "LARGE",
    "PREFIX",
    "SMALL",
    "Choice",
    "ChunkWheels",
    "Hub",
    "ModelUnavailable",
    "NoRoom",
    "OllamaProbe",
    "OnProgress",
    "PriceSheet",
    "Progress",
    "Source",
    "SourceFailed",
    "Weights",
    "WeightsUnavailable",
    "WrongWeights",
    "builtin_weights",
    "cache_dir",
    "choose",
    "choose_here",
    "default_model",
    "fetch_weights",
    "find_weights",
    "open_model",
    "price_of",
    "price_sheet",
    "probe_ollama",
    "unasked_model",
]

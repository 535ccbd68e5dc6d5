"""A hash of how an eval spec scores trials, which changes when a scorer changes, so that scores stay comparable.

It covers `observe`, the scorers in their order, their parameters, and the source of their functions and classes with
the values these close over. It does not cover the functions that they call.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from handrail.evals.spec import EvalSpec, Observe, observe_nothing

from .score import scorer_name

_MAX_DEPTH = 6


def scorer_hash(spec: EvalSpec[Any, Any]) -> str:
    """SHA-256 (64 hex digits) of how `spec` scores a trial.

    A scorer can define itself by a text attribute `fingerprint`, which then replaces its source and parameters.
    """
    return _hash(spec.observe, spec.scorers)


def scorer_hashes(spec: EvalSpec[Any, Any]) -> dict[str, str]:
    """The hash of `observe` and of each scorer, by name."""
    hashes = {"observe": _hash(spec.observe, ())}
    for number, scorer in enumerate(spec.scorers, start=1):
        name = scorer_name(scorer)
        key = name if name not in hashes else f"{name} (scorer {number})"
        hashes[key] = _hash(observe_nothing, (scorer,))
    return hashes


def changed_scorers(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names whose hash differs or that only one of the two has; in the order of `before`, then of `now`."""
    return [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]


def _hash(observe: Observe[Any], scorers: Sequence[Any]) -> str:
    content = {"observe": _describe(observe, 0), "scorers": [_describe(scorer, 0) for scorer in scorers]}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _describe(value: Any, depth: int) -> Any:
    """A value as JSON that is the same in every process, so without memory addresses or the order of sets."""
    if depth > _MAX_DEPTH:
        return _qualified_name(type(value))
    if value is None or isinstance(value, str | int | float):
        return [type(value).__name__, repr(value)]
    if isinstance(fingerprint := getattr(value, "fingerprint", None), str):
        return ["fingerprint", fingerprint]
    if isinstance(value, functools.partial):
        return ["partial", *(_describe(part, depth + 1) for part in (value.func, value.args, value.keywords))]
    if isinstance(value, Mapping):
        return ["mapping", sorted((str(key), _describe(item, depth + 1)) for key, item in value.items())]
    if isinstance(value, list | tuple):
        return ["list", [_describe(item, depth + 1) for item in value]]
    if isinstance(value, set | frozenset):
        return ["set", sorted(json.dumps(_describe(item, depth + 1)) for item in value)]
    if inspect.ismethod(value):
        return ["method", value.__name__, _describe(value.__self__, depth + 1)]
    if inspect.isroutine(value):
        return _describe_function(value, depth)
    return _describe_object(value, depth)


def _describe_function(function: Any, depth: int) -> Any:
    inner = inspect.unwrap(function)
    closed_over = [cell.cell_contents for cell in getattr(inner, "__closure__", None) or () if _has_value(cell)]
    return ["function", _source(inner), [_describe(value, depth + 1) for value in closed_over]]


def _describe_object(value: Any, depth: int) -> Any:
    if isinstance(value, type):
        return ["class", _source(value)]
    if dataclasses.is_dataclass(value):
        attributes = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    else:
        attributes = getattr(value, "__dict__", {})
    return ["object", _source(type(value)), _describe(attributes, depth + 1)]


def _has_value(cell: Any) -> bool:
    # Reading an empty cell raises: a recursive function's own name is one while it is being defined.
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _source(code: Any) -> str:
    try:
        return f"{_qualified_name(code)}\n{inspect.getsource(code)}"
    except (OSError, TypeError):
        return _qualified_name(code)


def _qualified_name(code: Any) -> str:
    return f"{getattr(code, '__module__', '')}.{getattr(code, '__qualname__', type(code).__qualname__)}"

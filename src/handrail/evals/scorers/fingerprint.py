"""Which scorers a set is judged with: a hash that changes when one of them does, so that scores stay comparable.

It covers what is compared (`observe`), the scorers in their order, their parameters, and the source of the functions
and classes that stand there, with the values they close over. What those call in turn is not followed.
"""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from handrail.runs.agent import Trials

from .score import name_of

_DEEPEST = 6


def scorer_hash(spec: Trials[Any, Any]) -> str:
    """SHA-256 (64 hex digits) of how `spec` scores a trial.

    A scorer may say itself what it is by a text `fingerprint`, which then stands for its source and parameters.
    """
    content = {"observe": _described(spec.observe, 0), "scorers": [_described(each, 0) for each in spec.scorers]}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def scored_by(spec: Trials[Any, Any]) -> dict[str, str]:
    """The hash of each thing that scores a trial: what is observed, and the scorers by name."""
    found = {"observe": scorer_hash(replace(spec, scorers=()))}
    for number, scorer in enumerate(spec.scorers, start=1):
        name = name_of(scorer)
        key = name if name not in found else f"{name} (scorer {number})"
        found[key] = scorer_hash(replace(spec, observe=_nothing, scorers=(scorer,)))
    return found


def scorers_changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of what scores otherwise in one of the two, or not at all; in the order of `before`, then of `now`."""
    return [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]


def _described(value: Any, depth: int) -> Any:
    """A value as JSON that is the same in every process: no addresses, no order of sets."""
    if depth > _DEEPEST:
        return _name(type(value))
    if value is None or isinstance(value, str | int | float):
        return [type(value).__name__, repr(value)]
    if isinstance(own := getattr(value, "fingerprint", None), str):
        return ["fingerprint", own]
    if isinstance(value, functools.partial):
        return ["partial", *(_described(each, depth + 1) for each in (value.func, value.args, value.keywords))]
    if isinstance(value, Mapping):
        return ["mapping", sorted((str(key), _described(each, depth + 1)) for key, each in value.items())]
    if isinstance(value, list | tuple):
        return ["list", [_described(each, depth + 1) for each in value]]
    if isinstance(value, set | frozenset):
        return ["set", sorted(json.dumps(_described(each, depth + 1)) for each in value)]
    if inspect.ismethod(value):
        return ["method", value.__name__, _described(value.__self__, depth + 1)]
    if inspect.isroutine(value):
        return _function(value, depth)
    return _object(value, depth)


def _function(function: Any, depth: int) -> Any:
    inner = inspect.unwrap(function)
    held = [cell.cell_contents for cell in getattr(inner, "__closure__", None) or () if _is_filled(cell)]
    return ["function", _source(inner), [_described(each, depth + 1) for each in held]]


def _object(value: Any, depth: int) -> Any:
    if isinstance(value, type):
        return ["class", _source(value)]
    if dataclasses.is_dataclass(value):
        parts = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    else:
        parts = getattr(value, "__dict__", {})
    return ["object", _source(type(value)), _described(parts, depth + 1)]


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _source(code: Any) -> str:
    try:
        return f"{_name(code)}\n{inspect.getsource(code)}"
    except (OSError, TypeError):
        return _name(code)


def _name(code: Any) -> str:
    return f"{getattr(code, '__module__', '')}.{getattr(code, '__qualname__', type(code).__qualname__)}"


def _nothing(_outcome: Any) -> Mapping[str, Any]:
    return {}

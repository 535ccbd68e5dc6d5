"""The public API: the names that users may import. Changing a list here changes what users rely on."""

import importlib
import inspect
import typing
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import is_protocol

import handrail
from handrail import exceptions

PUBLIC: dict[str, list[str]] = {
    "handrail": [
        "ActionUncertain",
        "AgentCeilings",
        "Answered",
        "Approval",
        "AwaitingApproval",
        "BadInput",
        "BadSettings",
        "Calibration",
        "CeilingReached",
        "Ceilings",
        "Clock",
        "Confidence",
        "Ended",
        "Escalated",
        "ExportSettings",
        "Facts",
        "Failed",
        "Fault",
        "Feedback",
        "FellBack",
        "Fingerprint",
        "Governance",
        "GovernedAgent",
        "HandrailError",
        "InnerActionBlocked",
        "LiveSpan",
        "LongConversation",
        "MissingExtra",
        "ModelUnavailable",
        "NanoUsd",
        "NotFound",
        "NotResumable",
        "Outcome",
        "OutcomeNotStored",
        "PriceOverride",
        "Proposal",
        "Refusal",
        "Refused",
        "ResumeFailed",
        "Retracted",
        "RunEnded",
        "RunRequest",
        "Runtime",
        "Settings",
        "StepSpan",
        "StillExecuting",
        "StoreBusy",
        "StoreDamaged",
        "StoreError",
        "StoreFull",
        "StoreNewer",
        "StoreOlder",
        "StoreReadOnly",
        "StoreUnreachable",
        "StreamEvent",
        "TakenOver",
        "TextDelta",
        "ToolCalled",
        "ToolReturned",
        "WeightsUnavailable",
        "WorkerSettings",
        "WrongWeights",
        "feedback",
        "format_usd",
        "govern",
        "idempotency_key",
        "load_settings",
        "parallel",
        "step",
        "tool",
        "use_runtime",
    ],
    "handrail.evals": [
        "Case",
        "Comparator",
        "Criterion",
        "EvalReport",
        "EvalSpec",
        "Evaluator",
        "FieldScorer",
        "Judge",
        "JudgeFailed",
        "NotRecorded",
        "RecordedResponses",
        "ResponseCache",
        "Rubric",
        "Score",
        "ScoreResult",
        "Scorer",
        "ScorerContext",
        "ScorerFailed",
        "ScorerOutput",
        "SpendingLimit",
        "Trial",
        "TrialScore",
        "at_least",
        "close",
        "contains",
        "end_state",
        "exact",
        "fields",
        "graded",
        "json_schema",
        "judge",
        "lacks",
        "matches",
        "normalised",
        "run_evals",
        "within",
    ],
    "handrail.pytest_plugin": [
        "pytest_configure",
        "pytest_generate_tests",
        "trial",
    ],
    "handrail.testing": [
        "Bill",
        "Disconnect",
        "EndsWithoutFinish",
        "Hang",
        "HtmlPage",
        "HttpError",
        "LoopbackProvider",
        "RawBody",
        "ReceivedRequest",
        "Reply",
        "ReplyToolCall",
        "StreamError",
        "VirtualClock",
        "kill_at_commit",
        "sandbox",
    ],
}

CONTEXT_MANAGERS = {"handrail.testing.sandbox", "handrail.use_runtime"}
"""Functions used with `with`, which document what they yield instead of what they return."""

INTERNAL_TYPES = {
    "handrail.GovernedAgent.__init__": "GovernedSpec",  # only `govern` calls it
}
"""The types that users need no name for, by the public callable whose signature has them."""


def public_names(module: str) -> list[str]:
    """The names in `__all__`, or without it the public names that the module defines itself."""
    loaded = importlib.import_module(module)
    own = [name for name in vars(loaded) if not name.startswith("_") and is_defined_in(module, vars(loaded)[name])]
    return sorted(getattr(loaded, "__all__", own))


def is_defined_in(module: str, value: Any) -> bool:
    """Whether a module defines a class, a function or a fixture, rather than importing it."""
    return getattr(value, "__module__", None) == module or type(value).__name__ == "FixtureFunctionDefinition"


def public_values() -> Iterator[tuple[str, Any]]:
    """Yields every public value with its dotted name."""
    for module, names in PUBLIC.items():
        for name in names:
            yield f"{module}.{name}", getattr(importlib.import_module(module), name)


def public_callables() -> Iterator[tuple[str, Any]]:
    """Yields all public classes and functions, and the methods and properties that public classes define."""
    for name, value in public_values():
        if type(value).__name__ == "FixtureFunctionDefinition":
            continue
        if inspect.isclass(value) or inspect.isroutine(value):
            yield name, value
        if inspect.isclass(value):
            fields = getattr(value, "__dataclass_fields__", {})
            for member_name, member in vars(value).items():
                if (
                    not member_name.startswith("_")
                    and member_name not in fields
                    and (inspect.isfunction(member) or isinstance(member, property))
                ):
                    yield f"{name}.{member_name}", member


def has_parameters(value: Any) -> bool:
    """Whether users pass arguments.

    Not to errors, which they only catch, to protocols, nor to pytest's hooks; fields of data classes have their own
    docstrings.
    """
    if isinstance(value, property) or value.__name__.startswith("pytest_"):
        return False
    if inspect.isclass(value):
        if issubclass(value, BaseException | BaseModel) or is_protocol(value) or hasattr(value, "__dataclass_fields__"):
            return False
        if "__init__" not in vars(value):
            return False
    return any(name not in ("self", "cls") for name in inspect.signature(value).parameters)


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_the_public_names(module: str) -> None:
    """The exported names are exactly the ones listed here, and each can be imported."""
    assert public_names(module) == PUBLIC[module]


def returns_something(value: Any) -> bool:
    """Whether users get a result; a property documents its value in its first sentence."""
    if inspect.isclass(value) or isinstance(value, property):
        return False
    return inspect.signature(value).return_annotation is not None


def annotated_values() -> Iterator[tuple[str, Any]]:
    """Yields what annotates its parameters, result or fields: functions, classes, and the methods of classes."""
    for name, value in public_values():
        if type(value).__name__ == "FixtureFunctionDefinition":
            # pytest passes its arguments.
            yield name, typing.get_type_hints(value._get_wrapped_function()).get("return")
        elif inspect.isclass(value):
            yield name, [hint for field, hint in typing.get_type_hints(value).items() if not field.startswith("_")]
            for member_name, member in vars(value).items():
                function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                is_public = not member_name.startswith("_") or member_name in ("__init__", "__call__", "__enter__")
                if is_public and inspect.isfunction(function):
                    yield f"{name}.{member_name}", list(typing.get_type_hints(function).values())
        elif inspect.isroutine(value):
            yield name, list(typing.get_type_hints(value).values())
        else:
            yield name, value


def types_in(hint: Any) -> Iterator[Any]:
    """Yields the classes and new types in a type hint, or in a list of them."""
    if isinstance(hint, list | tuple):
        parts = list(hint)
    elif isinstance(hint, typing.TypeVar):
        parts = [hint.__bound__, *hint.__constraints__]
    else:
        parts = [typing.get_origin(hint), *typing.get_args(hint)]
        if inspect.isclass(hint) or isinstance(hint, typing.NewType):
            yield hint
    for part in parts:
        if part is not None:
            yield from types_in(part)


def own_docstring(value: Any) -> str:
    """The docstring written for this class or function, neither inherited nor generated for a data class."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    generated = f"{value.__name__}(" if inspect.isclass(value) else None
    return "" if text is None or (generated and text.startswith(generated)) else str(text)


def test_every_public_name_is_documented() -> None:
    """Every public class, function, method and property has its own docstring."""
    assert [name for name, value in public_callables() if not own_docstring(value)] == []


def test_every_parameter_is_documented() -> None:
    """Every public callable with parameters has an Args section."""
    assert [
        name for name, value in public_callables() if has_parameters(value) and "Args:" not in own_docstring(value)
    ] == []


def test_every_result_is_documented() -> None:
    """Every public function and method that returns something has a Returns section."""
    assert [
        name
        for name, value in public_callables()
        if returns_something(value)
        and ("Yields:" if name in CONTEXT_MANAGERS else "Returns:") not in own_docstring(value)
    ] == []


def test_signatures_name_public_types_only() -> None:
    """Whatever type of Handrail's a public signature or field has, users can import it."""
    public = [value for _, value in public_values()]
    internal = {
        (name, part.__name__)
        for name, hint in annotated_values()
        for part in types_in(hint)
        if part.__module__.startswith("handrail") and part not in public
    }
    assert internal == set(INTERNAL_TYPES.items())


def test_the_errors() -> None:
    """`handrail.exceptions` is one tree, shown in its docstring, and `handrail` exports all of it."""
    assert exceptions.__doc__ is not None
    for name in exceptions.__all__:
        error = getattr(exceptions, name)
        assert issubclass(error, handrail.HandrailError)
        assert getattr(handrail, name) is error
        assert f" {name} " in exceptions.__doc__ or name == "HandrailError"


def test_the_version() -> None:
    """The version is the installed package's."""
    assert handrail.__version__ == version("handrail")

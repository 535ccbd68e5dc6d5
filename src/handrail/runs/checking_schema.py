"""Turns a Pydantic core schema, which reads input, into one that checks a finished value.

A core schema describes how input becomes a value: aliases, JSON in strings, conversions, validators that run first. A
finished value has all this behind it. Reading it again would convert it twice; reading its dump would make another
object of it, perhaps of another class. So the schema is rewritten:

- A model or dataclass is replaced as the caller says, since its fields are checked by the value's own class.
- Aliases and JSON wrappers are removed, and so are validators that run before.
- Other functions are replaced as the caller says; `run_functions` runs them on the finished value.
- A `StructuredDict`, which Pydantic AI does not compare with its JSON schema, is compared with it.

The rewritten schema is for strict validation, and its result is discarded. Pydantic's own switches do not do:
`revalidate_instances` and `from_attributes` run every input validator again, `revalidate_instances` looks fields up by
their aliases, and `from_attributes` accepts any class with the right attributes.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from pydantic import BaseModel, EncodedBytes, EncodedStr, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from .structured_dicts import schema_violation, structured_dict_in

Node: TypeAlias = Mapping[str, Any]
"""A core schema, read as the dictionary that it is."""
RewriteFunction: TypeAlias = Callable[[Node, CoreSchema], CoreSchema]
"""Replaces the schema of a function (after, wrap or plain), given the rewritten schema that it encloses."""
RewriteClass: TypeAlias = Callable[[Node], CoreSchema]
"""Replaces the schema of a model or dataclass."""

STRUCTURED_DICT_ERROR = "structured_dict"
"""The type of the error for a `StructuredDict` that violates its JSON schema."""

_ENCLOSED = (
    "schema",
    "items_schema",
    "keys_schema",
    "values_schema",
    "strict_schema",
    "lax_schema",
    "arguments_schema",
    "var_args_schema",
    "var_kwargs_schema",
    "extras_schema",
    "extras_keys_schema",
)
_ENCLOSED_LISTS = ("items_schema", "steps", "fields", "arguments_schema")
_DROPPED = ("ref", "validation_alias", "alias", "serialization", "computed_fields")
_FUNCTIONS = ("function-after", "function-wrap", "function-plain")


def checking_schema(node: Node, rewrite_function: RewriteFunction, rewrite_class: RewriteClass) -> CoreSchema:
    """The core schema `node`, rewritten to check a finished value.

    Args:
        node: The core schema of a type, or a part of one.
        rewrite_function: Replaces functions.
        rewrite_class: Replaces models and dataclasses.
    """

    def rewrite(node: Node) -> CoreSchema:
        return checking_schema(node, rewrite_function, rewrite_class)

    match node.get("type"):
        case "model" | "dataclass":
            return rewrite_class(node)
        case "function-before" | "json":
            return rewrite(node["schema"]) if "schema" in node else core_schema.any_schema()
        case "function-after" | "function-wrap" | "function-plain":
            inner = rewrite(node["schema"]) if "schema" in node else core_schema.any_schema()
            return rewrite_function(node, inner)
        case "json-or-python":
            return rewrite(node["python_schema"])
        case "tagged-union":
            # The class tells the members apart. A choice that is a string is another tag of a member.
            choices = [choice for choice in node["choices"].values() if isinstance(choice, Mapping)]
            return core_schema.union_schema([(rewrite(choice), _label(choice)) for choice in choices])
        case "union":
            choices = [choice[0] if isinstance(choice, tuple) else choice for choice in node["choices"]]
            labelled = [(rewrite(choice), _label(choice)) for choice in choices]
            return cast(CoreSchema, {**_rewrite_enclosed(node, rewrite), "choices": labelled})
        case "generator":
            # Checking its items would use them up.
            return core_schema.any_schema()
        case "named-tuple" | "call":
            # Strict validation accepts any tuple for a named one. Before Pydantic 2.14 it was a call of its class.
            cls = node.get("cls") or node["function"]
            return core_schema.chain_schema([core_schema.is_instance_schema(cls), _rewrite_enclosed(node, rewrite)])
    structured = structured_dict_in(node)
    rewritten = _rewrite_enclosed(node, rewrite)
    return rewritten if structured is None else _wrapped(_compare_with_schema(structured), rewritten)


def _rewrite_enclosed(node: Node, rewrite: Callable[[Node], CoreSchema]) -> CoreSchema:
    rewritten = {key: value for key, value in node.items() if key not in _DROPPED}
    for key in _ENCLOSED:
        if isinstance(rewritten.get(key), Mapping):
            rewritten[key] = rewrite(rewritten[key])
    for key in _ENCLOSED_LISTS:
        if isinstance(rewritten.get(key), list):
            rewritten[key] = [rewrite(value) for value in rewritten[key]]
    if isinstance(rewritten.get("fields"), Mapping):
        rewritten["fields"] = {name: rewrite(field) for name, field in rewritten["fields"].items()}
    if "definitions" in rewritten:
        # Only these are referred to.
        rewritten["definitions"] = [{**rewrite(one), "ref": one["ref"]} for one in rewritten["definitions"]]
    return cast(CoreSchema, rewritten)


def _label(node: Node) -> str:
    """What a union's error calls a choice."""
    cls = node.get("cls")
    return cls.__name__ if isinstance(cls, type) else str(node["type"])


def run_functions(node: Node, inner: CoreSchema) -> CoreSchema:
    """Runs a type's functions on the finished value and rejects what they reject."""
    function = _callable(node)
    if node["type"] == "function-after":
        if isinstance(node["function"]["function"], type):
            return core_schema.is_instance_schema(node["function"]["function"])
        if isinstance(getattr(node["function"]["function"], "__self__", None), EncodedBytes | EncodedStr):
            # The value is decoded, and does not have to be something that can be decoded.
            return inner
        values = _finite_values(node["schema"])
        return _wrapped(_after(function, _owner(node)), inner) if values is None else _result_of(function, values)
    if node["type"] == "function-wrap":
        return _wrapped(_around(function), inner)
    return _wrapped(_in_place(function), inner)


def accept_functions(_node: Node, _inner: CoreSchema) -> CoreSchema:
    """Accepts whatever a type's functions returned."""
    return core_schema.any_schema()


def function_schema(check: Callable[[Any], None]) -> CoreSchema:
    """A schema that accepts the values for which `check` raises nothing."""

    def checked(value: Any) -> Any:
        check(value)
        return value

    return core_schema.no_info_plain_validator_function(checked)


def _wrapped(check: Callable[[Any, Any, Any], Any], inner: CoreSchema) -> CoreSchema:
    return core_schema.with_info_wrap_validator_function(check, inner)


def _callable(node: Node) -> Callable[..., Any]:
    """The function of a schema, taking a ValidationInfo as its last argument."""
    function = node["function"]["function"]
    if node["function"]["type"] == "with-info":
        return cast("Callable[..., Any]", function)
    return lambda *args: function(*args[:-1])


def _after(function: Callable[..., Any], owner: type) -> Callable[[Any, Any, Any], Any]:
    """Its own result is among what a function accepts, so a function that rejects the value shows that it is wrong."""

    def check(value: Any, handler: Any, info: Any) -> Any:
        try:
            handler(value)
        except ValidationError:
            if isinstance(value, owner):
                return value
            raise
        _match_type(_run(function, value, info), value)
        # Each function is given the value itself, not what the one before made of it a second time.
        return value

    return check


def _around(function: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
    """A function around a schema may read input first. It rejects a value only after the schema has accepted it."""

    def check(value: Any, handler: Any, info: Any) -> Any:
        accepted = False

        def note(inner_value: Any, *location: Any) -> Any:
            nonlocal accepted
            result = handler(inner_value, *location)
            accepted = accepted or inner_value is value
            return result

        try:
            result = function(value, note, info)
        except (ValueError, AssertionError) as error:
            if accepted and not isinstance(error, ValidationError):
                raise
        except Exception:  # noqa: BLE001, S110 - it expects input of another type, which says nothing about the value
            pass
        else:
            if is_same(result, value):
                return value
            _match_type(result, value)
        handler(value)
        return value

    return check


def _in_place(function: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
    """Nothing but a ValueError is a verdict of a function in place of a schema: it may expect input of another type."""

    def check(value: Any, handler: Any, info: Any) -> Any:
        try:
            _match_type(function(value, info), value)
        except (ValueError, AssertionError):
            raise
        except Exception:  # noqa: BLE001, S110
            pass
        return handler(value)

    return check


def _match_type(result: Any, value: Any) -> None:
    """A function that returns another type than the value's would not have returned the value."""
    if result is not None and not isinstance(value, type(result)):
        raise PydanticCustomError("result_type", "Input should be a {cls}", {"cls": type(result).__name__})


def _owner(node: Node) -> type:
    """The class that reads its own instances with one of its class methods; its instances need no other check.

    Validators are class methods of a model as well, but what they return is a field's value.
    """
    owner = getattr(node["function"]["function"], "__self__", None)
    if not isinstance(owner, type) or issubclass(owner, BaseModel):
        return _Nobody
    return owner if hasattr(owner, "__get_pydantic_core_schema__") else _Nobody


class _Nobody:
    """A class without instances."""


def _run(function: Callable[..., Any], value: Any, info: Any) -> Any:
    try:
        return function(value, info)
    except (ValueError, AssertionError):
        raise
    except Exception as error:
        raise PydanticCustomError(
            "validator_failed", "A validator failed with {error}", {"error": type(error).__name__}
        ) from error


def _finite_values(node: Node) -> list[Any] | None:
    """All values of an enumeration or of literals."""
    if node.get("type") == "enum":
        return list(node["members"])
    return list(node["expected"]) if node.get("type") == "literal" else None


def _result_of(function: Callable[..., Any], values: list[Any]) -> CoreSchema:
    """Accepts what `function` makes of one of the `values`."""

    def check(value: Any, _handler: Any, info: Any) -> Any:
        for one in values:
            try:
                if is_same(function(one, info), value):
                    return value
            except (ValueError, AssertionError):
                continue
        raise PydanticCustomError("choice", "Input should be one of the values of the type")

    return _wrapped(check, core_schema.any_schema())


def is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # noqa: BLE001 - a comparison of a user's class
        return False


def _compare_with_schema(structured: type) -> Callable[[Any, Any, Any], Any]:
    def check(value: Any, handler: Any, _info: Any) -> Any:
        handler(value)
        violation = schema_violation(structured, value)
        if violation is not None:
            raise PydanticCustomError(STRUCTURED_DICT_ERROR, "{violation}", {"violation": violation})
        return value

    return check

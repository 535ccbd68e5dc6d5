"""Checks models and dataclasses as they are: each by its own class, and so a subclass by the subclass."""

import copy
import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, SchemaError, SchemaValidator, core_schema

from .checking_schema import Node, accept_functions, checking_schema, function_schema, is_same, run_functions

Location: TypeAlias = tuple[Any, ...]
"""The fields, keys and indexes that lead to a value."""
Check: TypeAlias = Callable[[Any], None]
"""Raises Pydantic's ValidationError for a value that is not valid."""

ExtraValues: TypeAlias = Literal["allow", "ignore"]

_CONTAINERS = (list, tuple, set, frozenset, deque)
_UNREADABLE = (PydanticUserError, SchemaError, NameError, TypeError)
"""What is raised for a class whose annotations Pydantic cannot use; then there is nothing to check against."""


def objects_in(output: Any) -> list[tuple[Any, Location]]:
    """Every model and dataclass in `output`, itself included, with its location: each once, inner ones first.

    Values of private attributes and cached properties are no part of an output.
    """
    found: list[tuple[Any, Location]] = []
    waiting: list[tuple[Any, Location]] = [(output, ())]
    seen: set[int] = set()
    while waiting:
        value, location = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if _is_object(value):
            found.append((value, location))
        waiting.extend((inner, (*location, key)) for key, inner in _values_in(value))
    return found[::-1]


def _is_object(value: Any) -> bool:
    return isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _values_in(value: Any) -> Iterator[tuple[Any, Any]]:
    if _is_object(value):
        yield from _field_values(value).items()
    elif isinstance(value, Mapping):
        yield from value.items()
        yield from enumerate(value)
    elif isinstance(value, _CONTAINERS):
        yield from enumerate(value)


def _field_values(value: Any) -> dict[str, Any]:
    """The fields of a model or dataclass by name, and a model's extra ones; without those that are missing."""
    if isinstance(value, BaseModel):
        fields = {name: value.__dict__[name] for name in _field_names(value) if name in value.__dict__}
        return {**fields, **(value.__pydantic_extra__ or {})}
    return {name: getattr(value, name) for name in _field_names(value) if hasattr(value, name)}


def _field_names(value: Any) -> list[str]:
    if isinstance(value, BaseModel):
        return list(type(value).model_fields)
    return [field.name for field in dataclasses.fields(value)]


def check_object(value: Any) -> None:
    """Checks the fields of a model or dataclass, and runs the validators of its class on a copy.

    Args:
        value: The model or dataclass.

    Raises:
        ValidationError: A field is missing or not valid, or a validator rejects it.
    """
    cls: Any = type(value)
    _class_check(cls)(value)


def check_structured_dicts(value: Any) -> None:
    """As `check_object`, but of the fields only those that are a `StructuredDict`, and without validators."""
    cls: Any = type(value)
    _structured_dicts_check(cls)(value)


@functools.lru_cache(maxsize=1024)
def _class_check(cls: Any) -> Check:
    path = _path_to_class(cls)
    return _FieldCheck(cls, path, rewrite_type).check if path else _accept


@functools.lru_cache(maxsize=1024)
def _structured_dicts_check(cls: Any) -> Check:
    path = _path_to_class(cls)
    if path is None:
        return _accept
    return _FieldCheck(cls, dataclasses.replace(path, functions=()), rewrite_structured_dicts).check


def rewrite_type(node: Node) -> CoreSchema:
    """A schema that checks a finished value; of objects it checks only the class; `check_object` checks the rest."""
    return checking_schema(node, run_functions, _of_class)


def rewrite_structured_dicts(node: Node) -> CoreSchema:
    """A schema that compares `StructuredDict`s with their JSON schema and runs no validator."""
    return checking_schema(node, accept_functions, lambda _node: core_schema.any_schema())


def _of_class(node: Node) -> CoreSchema:
    cls: type = node["cls"]

    def check(value: Any) -> None:
        if isinstance(value, cls):
            return
        if type(value) is not node.get("generic_origin"):
            got = type(value).__name__
            raise PydanticCustomError("class", "Input should be a {cls}, not {got}", {"cls": cls.__name__, "got": got})
        # `Box(value=1)` for `Box[int]`: a type checker accepts it, and so does Pydantic, if its fields do.
        _class_check(cls)(value)

    return function_schema(check)


def _accept(_value: Any) -> None:
    return


@dataclass(frozen=True, kw_only=True)
class _ClassPath:
    """The way through the core schema of a model or dataclass to its own node."""

    node: Node
    functions: Sequence[Node]
    """The functions around it, outermost first."""
    definitions: Sequence[Node]


def _path_to_class(cls: type) -> _ClassPath | None:
    """None for a class with a core schema of its own, and for one that Pydantic cannot read."""
    try:
        node: Node = TypeAdapter(cls).core_schema
    except _UNREADABLE:
        return None
    definitions: dict[str, Node] = {}
    functions: list[Node] = []
    while node["type"] not in {"model", "dataclass"}:
        if node["type"] == "definitions":
            definitions.update({one["ref"]: one for one in node["definitions"]})
        elif node["type"] in {"function-after", "function-wrap"}:
            functions.append(node)
        elif node["type"] not in {"function-before", "definition-ref"}:
            return None
        node = definitions[node["schema_ref"]] if node["type"] == "definition-ref" else node["schema"]
    return _ClassPath(node=node, functions=functions, definitions=list(definitions.values()))


class _FieldCheck:
    """Checks an object's fields, and then runs the functions around its class.

    Args:
        cls: The object's class.
        path: The way to the class in its core schema.
        rewrite: Makes the schema that checks a field's value.
    """

    def __init__(self, cls: type, path: _ClassPath, rewrite: Callable[[Node], CoreSchema]) -> None:
        self._cls = cls
        self._rewrite = rewrite
        self._is_root = bool(path.node.get("root_model"))
        self._defaults: dict[str, Any] = {}
        schema: Any = {
            "type": "definitions",
            "schema": self._root(path.node) if self._is_root else self._fields(path.node),
            "definitions": [{**rewrite(one), "ref": one["ref"]} for one in path.definitions],
        }
        self._validator = SchemaValidator(schema, path.node.get("config"))
        instance: CoreSchema = function_schema(self._check_fields)
        for node in reversed(path.functions):
            instance = run_functions(node, instance)
        self._instance = SchemaValidator(instance)

    def check(self, value: Any) -> None:
        """Raises Pydantic's ValidationError if `value` is not valid."""
        # Validators of a class may change the object.
        self._instance.validate_python(copied(value, copy.copy), strict=True)

    def _root(self, node: Node) -> CoreSchema:
        return self._field("root", node["schema"])

    def _fields(self, node: Node) -> CoreSchema:
        node = node["schema"]
        while "fields" not in node:
            # A validator that runs before.
            node = node["schema"]
        listed = node["fields"]
        if not isinstance(listed, Mapping):
            listed = {one["name"]: one for one in listed if not one.get("init_only")}
        fields = {name: core_schema.model_field(self._field(name, one["schema"])) for name, one in listed.items()}
        extras = node.get("extras_schema")
        return core_schema.model_fields_schema(fields, extras_schema=self._rewrite(extras) if extras else None)

    def _field(self, name: str, node: Node) -> CoreSchema:
        """A field's schema. A default need not be valid, so a field that still has it is left out of the check."""
        if node["type"] != "default":
            return self._annotated(name, node)
        inner = self._annotated(name, node["schema"])
        if "default" not in node:
            return inner
        self._defaults[name] = node["default"]
        return core_schema.with_default_schema(inner, default=node["default"])

    def _annotated(self, name: str, node: Node) -> CoreSchema:
        """With a function in place of a schema, only the field's annotation says what the value is."""
        schema = self._rewrite(node)
        if node["type"] != "function-plain" or not issubclass(self._cls, BaseModel):
            return schema
        annotation: Any = self._cls.model_fields[name].annotation
        try:
            described = TypeAdapter(annotation).core_schema
        except _UNREADABLE:
            return schema
        return core_schema.chain_schema([schema, self._rewrite(described)])

    def _check_fields(self, value: Any) -> None:
        values = _field_values(value)
        names = _field_names(value)
        missing = [name for name in names if name not in values]
        if missing:
            raise ValidationError.from_exception_data(
                self._cls.__name__, [{"type": "missing", "loc": (name,), "input": None} for name in missing]
            )
        if self._is_root:
            self._validator.validate_python(values["root"], strict=True)
            return
        passed = value.model_fields_set if isinstance(value, BaseModel) else ()
        for name, default in self._defaults.items():
            if name not in passed and is_same(values[name], default):
                del values[name]
        extra: ExtraValues = "allow" if getattr(value, "__pydantic_extra__", None) is not None else "ignore"
        self._validator.validate_python(values, strict=True, extra=extra)


def copied(value: Any, copy_function: Callable[[Any], Any]) -> Any:
    """A copy, or the value itself if something in it, such as a lock, cannot be copied."""
    try:
        return copy_function(value)
    except Exception:  # noqa: BLE001 - whatever a user's class raises
        return value

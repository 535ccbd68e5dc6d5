"""What Handrail relies on in Pydantic AI's model classes, whether or not their clients are installed."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pydantic_ai.models
from pydantic_ai import Agent
from pydantic_ai.models import Model

FOLDER = Path(pydantic_ai.models.__file__).parent
SENDING = ("request", "request_stream")
# These do not extend a class that sends requests.
ROOTS = {"Model", "WrapperModel", "ABC", "Generic", "BatchModel"}


def classes() -> Iterator[ast.ClassDef]:
    """The classes of all model modules."""
    for path in FOLDER.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield from (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name.endswith("Model"))


def methods(cls: ast.ClassDef) -> dict[str, ast.AST]:
    return {node.name: node for node in cls.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def bases(cls: ast.ClassDef) -> set[str]:
    return {node.id if isinstance(node, ast.Name) else ast.unparse(node).partition("[")[0] for node in cls.bases}


def test_an_extending_class_calls_what_it_extends() -> None:
    """A class of Pydantic AI that extends one that sends requests has that one send them: only that one is hooked."""
    all_classes = list(classes())
    senders = {cls.name for cls in all_classes if methods(cls).keys() & set(SENDING)} - ROOTS
    assert {"OpenAIChatModel", "AnthropicModel", "FunctionModel"} <= senders
    extending = [cls for cls in all_classes if bases(cls) & senders]
    assert "OpenRouterModel" in {cls.name for cls in extending}
    for cls in extending:
        for name, method in methods(cls).items():
            if name in SENDING:
                assert f"super().{name}(" in ast.unparse(method), f"{cls.name}.{name}"


def test_what_the_hooks_replace() -> None:
    """The methods that are hooked have the parameters that the hooks pass on."""
    names = ["self", "messages", "model_settings", "model_request_parameters"]
    assert list(inspect.signature(Model.request).parameters) == names
    assert list(inspect.signature(Model.request_stream).parameters) == [*names, "run_context"]
    assert inspect.signature(Agent.iter).parameters["capabilities"].default is None
    assert "__init_subclass__" in Model.__dict__

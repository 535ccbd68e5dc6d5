"""Names are unique: those of classes and type aliases, and those of functions that other modules import."""

import ast
from collections import defaultdict
from collections.abc import Iterator

from tests.architecture.source import modules

COMMANDS_AND_ROUTES = ("handrail.cli", "handrail.server.api", "handrail.server.pages")
"""Their functions are named as the commands and routes that they are; no other module calls them."""
CONVENTIONS = {
    "main",  # the function that starts a program
    "upgrade",  # Alembic's name for what a migration does
}


def defined_types(tree: ast.Module) -> Iterator[str]:
    """The classes that a module defines, nested ones too, and the type aliases at its top level."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            [target, *_] = statement.targets
            is_alias = is_type(statement.value)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            target = statement.target
            is_alias = ast.unparse(statement.annotation).endswith("TypeAlias")
        else:
            continue
        if isinstance(target, ast.Name) and not target.id.startswith("_") and is_alias:
            yield target.id


def is_type(value: ast.expr) -> bool:
    """Whether an expression makes a type: `Literal[...]`, `dict[str, Any]`, `X | None`, `NewType(...)`."""
    if isinstance(value, ast.BinOp):
        return isinstance(value.op, ast.BitOr) and is_type_name(value.left) and is_type_name(value.right)
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).split(".")[-1] == "NewType"
    return isinstance(value, ast.Subscript) and is_type_name(value)


def is_type_name(value: ast.expr) -> bool:
    """Whether an expression may be a type: a class, None, or one of them with parameters."""
    if isinstance(value, ast.BinOp):
        return is_type(value)
    name = ast.unparse(value.value if isinstance(value, ast.Subscript) else value).split(".")[-1]
    is_class_name = name[:1].isupper() and not name.isupper()
    return is_class_name or name in {
        "None",
        "bool",
        "bytes",
        "dict",
        "float",
        "frozenset",
        "int",
        "list",
        "set",
        "str",
        "tuple",
    }


def defined_functions(tree: ast.Module) -> set[str]:
    """The public functions at a module's top level; an overloaded one counts once."""
    functions = (node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {name for name in functions if not name.startswith("_")} - CONVENTIONS


def test_no_type_name_is_defined_twice() -> None:
    """Each name of a class or a type alias is defined once in the package."""
    definitions = defaultdict(list)
    for module, _, text in modules():
        for name in defined_types(ast.parse(text)):
            definitions[name].append(module)
    assert {name: paths for name, paths in definitions.items() if len(paths) > 1} == {}


def test_no_function_name_is_defined_twice() -> None:
    """Each name of a public function is defined once in the package."""
    definitions = defaultdict(list)
    for module, _, text in modules():
        if not module.startswith(COMMANDS_AND_ROUTES):
            for name in defined_functions(ast.parse(text)):
                definitions[name].append(module)
    assert {name: paths for name, paths in definitions.items() if len(paths) > 1} == {}


def test_type_aliases_are_recognised() -> None:
    """Aliases are told apart from constants and type variables."""
    source = """
Scope = Literal["run"]
Note: TypeAlias = "str"
Usd = NewType("Usd", int)
Row = dict[str, Any]
Either = First[OutputT] | Second | None
T = TypeVar("T")
_Private = list[int]
LIMIT = LIMITS["run"]
BITS = FIRST | SECOND
"""
    assert list(defined_types(ast.parse(source))) == ["Scope", "Note", "Usd", "Row", "Either"]

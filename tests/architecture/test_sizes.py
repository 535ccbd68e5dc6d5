"""Limits on the length of files and functions."""

import ast

from tests.architecture.source import modules

FILE_LINES = 400
FUNCTION_LINES = 50


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring, which documents arguments at any length."""
    lines = (node.end_lineno or node.lineno) - node.lineno
    if ast.get_docstring(node) is not None:
        lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return lines


def test_files_are_short() -> None:
    """Every file of the package is shorter than 400 lines, except migrations, which are lists of tables."""
    long = {name for name, _, text in modules() if text.count("\n") >= FILE_LINES}
    assert {name for name in long if not name.startswith("handrail.kernel.db.migrations.")} == set()


def test_functions_are_short() -> None:
    """Every function of the package is shorter than 50 lines, except in migrations, which are lists of tables."""
    long = {
        f"{name}.{node.name}"
        for name, _, text in modules()
        if not name.startswith("handrail.kernel.db.migrations.")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) >= FUNCTION_LINES
    }
    assert long == set()

"""Files and functions stay small enough to be read in one go."""

import ast

from tests.architecture.source import modules

FILE_LINES = 400
FUNCTION_LINES = 50


def test_files_are_short() -> None:
    """No file of the package has 400 lines."""
    assert {name for name, _, text in modules() if text.count("\n") >= FILE_LINES} == set()


def test_functions_are_short() -> None:
    """No function of the package has 50 lines, except a migration, which is a list of tables."""
    long = {
        f"{name}.{node.name}"
        for name, _, text in modules()
        if not name.startswith("handrail.kernel.db.migrations.")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES
    }
    assert long == set()

"""Reads the imports in the package's source without running it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "handrail"


@dataclass(frozen=True)
class Import:
    """`from target import name`, or `import target` with no name, as written in `module`; all names absolute."""

    module: str
    line: int
    target: str
    name: str | None


def imports_of(text: str, module: str, is_package: bool) -> Iterator[Import]:
    """Yields every import in a module's source, also those inside functions, with absolute names."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            target = _absolute(module, is_package, node.level, node.module)
            for alias in node.names:
                yield Import(module, node.lineno, target, alias.name)


def modules(package: Path = PACKAGE) -> Iterator[tuple[str, bool, str]]:
    """Each module below a package's folder: its dotted name, whether it is a package, and its text."""
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield ".".join(parts[:-1] if is_package else parts), is_package, file.read_text(encoding="utf-8")


def all_imports() -> list[Import]:
    return [entry for name, is_package, text in modules() for entry in imports_of(text, name, is_package)]


def is_module(name: str) -> bool:
    """Whether a dotted name is a file or folder of the package rather than something inside a module."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _absolute(module: str, is_package: bool, level: int, target: str | None) -> str:
    if level == 0:
        return str(target)
    parents = module.split(".")
    kept = parents[: len(parents) - level + is_package]
    return ".".join([*kept, target] if target else kept)

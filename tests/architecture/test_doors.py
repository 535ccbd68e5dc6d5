"""A slice is entered by its door, its `__init__`, and by nothing else."""

import pytest

from tests.architecture.source import Import, all_imports, imports_of, is_module


def slice_of(module: str) -> str:
    """`handrail.runs.store` belongs to `handrail.runs`, and each example is a slice of its own."""
    parts = module.split(".")
    return ".".join(parts[:3] if parts[1:2] == ["examples"] else parts[:2])


def reaches_behind(found: Import) -> bool:
    """Whether an import names something behind the door of another slice."""
    reached = found.target
    if found.name and is_module(f"{found.target}.{found.name}"):
        reached = f"{found.target}.{found.name}"
    return (
        reached.startswith("handrail.") and slice_of(reached) != slice_of(found.module) and slice_of(reached) != reached
    )


def public_or_own(found: Import) -> bool:
    """Whether an import inside an example is of another project, of public names, or of the example itself."""
    if found.target.split(".")[0] != "handrail":
        return True
    if found.target == "handrail":
        return found.name is None or not is_module(f"handrail.{found.name}")
    return found.target == "handrail.testing" or slice_of(found.target) == slice_of(found.module)


def test_no_slice_reaches_behind_anothers_door() -> None:
    """No module imports from a module inside another slice."""
    assert [found for found in all_imports() if reaches_behind(found)] == []


def test_examples_use_the_public_names() -> None:
    """An example imports what any user's agent could: names of the top package, and its own folder."""
    inside = [found for found in all_imports() if found.module.startswith("handrail.examples.")]
    assert [found for found in inside if not public_or_own(found)] == []


@pytest.mark.parametrize(
    ("line", "behind"),
    [
        ("from handrail.kernel.writer import Op", True),
        ("from handrail.kernel import writer", True),
        ("import handrail.kernel.writer", True),
        ("from ..kernel.writer import Op", True),
        ("from handrail.kernel import Op", False),
        ("from .. import kernel", False),
        ("from .store import save", False),
        ("from handrail import govern", False),
        ("from sqlalchemy.engine import Engine", False),
    ],
)
def test_the_rule_for_doors(line: str, behind: bool) -> None:
    """Absolute or relative, an import of a module inside another slice is found, and nothing else is."""
    (found,) = imports_of(line, "handrail.runs.loop", is_package=False)
    assert reaches_behind(found) is behind


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("from handrail import govern", True),
        ("from handrail.testing import clock", True),
        ("from .desk import open_desk", True),
        ("import sqlite3", True),
        ("from handrail import kernel", False),
        ("from handrail.kernel import new_id", False),
        ("from ..other import agent", False),
    ],
)
def test_the_rule_for_examples(line: str, allowed: bool) -> None:
    """An example may not use a slice or another example."""
    (found,) = imports_of(line, "handrail.examples.support_triage.agent", is_package=False)
    assert public_or_own(found) is allowed

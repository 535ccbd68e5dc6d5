"""Examples use only public names, which any user's agent could import."""

import pytest

from tests.architecture.source import Import, all_imports, imports_of, is_module

PUBLIC = ("handrail.evals", "handrail.testing")


def example_of(module: str) -> str:
    """`handrail.examples.support_triage.desk` belongs to `handrail.examples.support_triage`."""
    return ".".join(module.split(".")[:3])


def public_or_own(entry: Import) -> bool:
    """Whether an import inside an example is of another project, a public name, or the example's own."""
    if entry.target.split(".")[0] != "handrail":
        return True
    if entry.target == "handrail":
        return entry.name is None or not is_module(f"handrail.{entry.name}")
    return entry.target in PUBLIC or example_of(entry.target) == example_of(entry.module)


def test_examples_use_the_public_names() -> None:
    """An example imports only public names and its own modules."""
    inside = [entry for entry in all_imports() if entry.module.startswith("handrail.examples.")]
    assert [entry for entry in inside if not public_or_own(entry)] == []


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
    """An example may use neither an internal package nor another example."""
    [entry] = imports_of(line, "handrail.examples.support_triage.agent", is_package=False)
    assert public_or_own(entry) is allowed

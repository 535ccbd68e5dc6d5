"""docs/spending.md lists the tests of this directory."""

import importlib
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "spending.md").read_text(encoding="utf-8")
MODULES = ("test_failures", "test_inner", "test_legs", "test_prices", "test_reach", "test_settings")


def spending_tests() -> Iterator[str]:
    """The ids of the tests, as `test_prices.py::test_answered[image]`."""
    for name in MODULES:
        module = importlib.import_module(f"tests.spending.{name}")
        for test, function in vars(module).items():
            if not test.startswith("test_"):
                continue
            marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
            ids = [f"[{case.id}]" for mark in marks for case in mark.args[1]] or [""]
            yield from (f"{name}.py::{test}{case}" for case in ids)


def rows() -> list[list[str]]:
    """The patterns of tests in each row of the table."""
    table = PAGE.split("| way |", 1)[1].split("\n\n")[0]
    return [re.findall(r"`(test_[^`]+)`", line.rsplit("|", 2)[1]) for line in table.splitlines()[2:]]


def matches(test: str, pattern: str) -> bool:
    """Whether a test is one of a pattern's, where only `*` is special."""
    return fnmatchcase(test, pattern.replace("[", "[[]"))


def test_modules() -> None:
    """Every module of tests is looked at."""
    assert {path.stem for path in HERE.glob("test_*.py")} == {*MODULES, "test_docs"}


def test_every_row_names_tests() -> None:
    """Each row of the table names at least one test, and each name in it has at least one."""
    tests = list(spending_tests())
    assert len(rows()) >= 35
    assert all(rows())
    assert [name for row in rows() for name in row if not any(matches(test, name) for test in tests)] == []


def test_every_test_is_in_the_table() -> None:
    """Each test is in the table."""
    names = [name for row in rows() for name in row]
    assert [test for test in spending_tests() if not any(matches(test, name) for name in names)] == []

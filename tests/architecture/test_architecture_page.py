"""docs/architecture.md agrees with the code."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_file_that_the_page_points_to_exists() -> None:
    """Each file in the table of questions exists under src/handrail."""
    table = PAGE.partition("## Where to look")[2].partition("## Packages")[0]
    files = re.findall(r"`([\w/]+\.py)`", table)
    assert len(files) > 20
    assert [file for file in files if not (ROOT / "src" / "handrail" / file).is_file()] == []


def test_the_page_lists_the_layers_of_the_import_contract() -> None:
    """The order of packages on the page is the order that import-linter checks."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    existing = [[name.strip() for name in layer.split("|") if "(" not in name] for layer in layers]
    listed = re.search(r"`(cli \| pytest_plugin -> [^`]*)`", PAGE)
    assert listed
    assert [re.split(r"\s*\|\s*", layer.strip()) for layer in listed[1].split("->")] == [
        layer for layer in existing if layer
    ]

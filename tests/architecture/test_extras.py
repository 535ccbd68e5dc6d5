"""The core works without the extras."""

import subprocess
import sys
from pathlib import Path

import pytest

EXTRAS = [
    "altair",
    "anthropic",
    "argon2",
    "fastapi",
    "huggingface_hub",
    "jinja2",
    "openai",
    "opentelemetry.proto",
    "psycopg",
    "starlette",
    "uvicorn",
    "vl_convert",
    "xllamacpp",
]
"""The modules of the extras that the package imports."""

WITHOUT_EXTRAS = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {EXTRAS}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
"""


def run_without_extras(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", WITHOUT_EXTRAS + line]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_extras_can_be_hidden(tmp_path: Path) -> None:
    """`run_without_extras` hides installed packages."""
    assert "ModuleNotFoundError: psycopg" in run_without_extras("import psycopg", tmp_path).stderr


PUBLIC = {"handrail", "handrail.cli", "handrail.evals", "handrail.pytest_plugin", "handrail.testing", "handrail.worker"}


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_core_imports_without_extras(module: str, tmp_path: Path) -> None:
    """Every public module, the terminal and the worker import without any extra."""
    result = run_without_extras(f"import {module}", tmp_path)
    assert result.returncode == 0, result.stderr
